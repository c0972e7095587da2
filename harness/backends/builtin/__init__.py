"""The two models that ship with the package, so that every command can be tried without a download.

Each is an ordinary Hugging Face folder beside this file; `docs/builtin-models.md` says what they can and cannot do.
"""

from __future__ import annotations

from pathlib import Path

NAMES = ("pico", "nano")


def path(name: str) -> Path:
    """The folder of a built-in model; ValueError names the known ones."""
    if name not in NAMES:
        raise ValueError(f"{name!r} is no built-in model; there are {' and '.join(NAMES)}")
    return Path(__file__).resolve().parent / name
