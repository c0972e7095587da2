"""Shapes of well-known instruct models, `shape:NAME`: their dimensions without their weights, in transformers' words.

Each file holds the numbers of a published config.json, and no more: what a model costs in time and memory follows from
them. The weights are made on the spot (`weights: random`). `llama-100m` is nobody's model: small enough for any
machine, large enough that its layers take most of the time.
"""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent


def names() -> list[str]:
    """The shapes there are."""
    return sorted(path.stem for path in _HERE.glob("*.json"))


def path(name: str) -> Path:
    """The config of a shape; raises KeyError for one that does not exist."""
    if name not in names():
        raise KeyError(name)
    return _HERE / f"{name}.json"
