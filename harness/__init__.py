"""Replay scripted conversations to instruct models through one chat loop, and report on what came back.

import harness
path = harness.run("configs/quickstart.yaml")     # what the command `harness run` does
turns = harness.load(path).turns                  # one pandas row per turn
rows = harness.compare(path, by="model").rows     # what two models, samplings or runs differ by, and how surely
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.analysis.compare import compare as compare
    from harness.analysis.frames import load as load
    from harness.studies.replay import run as run

__all__ = ["__version__", "compare", "load", "run"]


def __getattr__(name: str) -> Any:
    """The public names are loaded on first use: `harness --help` needs neither pandas nor torch."""
    if name == "compare":
        from harness.analysis.compare import compare

        return compare
    if name == "load":
        from harness.analysis.frames import load

        return load
    if name == "run":
        from harness.studies.replay import run

        return run
    if name == "__version__":
        from importlib.metadata import version

        return version("instruct-harness")
    raise AttributeError(f"module 'harness' has no attribute {name!r}")
