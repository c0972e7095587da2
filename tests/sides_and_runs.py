"""Runs for comparing: times and checks by a function of the turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.analysis.frames import Run, load
from harness.records import Cell, Stamps, TurnRecord
from tests.builders import MS, every_turn, plan, store, turn

SCRIPT = {"physics": 4, "memory": 4, "poem": 4, "maths": 4, "law": 4, "food": 4}
"""Six conversations of four turns."""


def timed(cell: Cell, index: int, ttft_ms: float = 10, tpot_ms: float = 2, ids: int = 5, **values: Any) -> TurnRecord:
    """A turn of fractions of milliseconds; whoever asks for other times of it gets them to the nanosecond."""
    at = tuple(round((ttft_ms + tpot_ms * i) * MS) for i in range(ids))
    values = {"stamps": Stamps(MS, 3 * MS, at[-1] + MS, at[-1] + 2 * MS, at), **values}
    return turn(cell, index, ids=ids, **{"prompt_hash": f"{cell.conversation_id}-{index}", **values})


def stored(
    path: Path,
    make: Callable[[Cell, int], TurnRecord] = timed,
    run_id: str = "a-run",
    manifest: Mapping[str, Any] | None = None,
    **planned: Any,
) -> Run:
    """A run of `SCRIPT` with every turn made by `make`; `planned` are values of its plan."""
    of = plan(**{"conversations": SCRIPT, **planned})
    return load(store(path, every_turn(of, make), of, run_id, **(manifest or {})))
