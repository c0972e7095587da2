"""Nights of one plan, made by hand: what each launch measured by a function of the turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.analysis.frames import Run, load
from harness.config.rules import Gating
from harness.records import Cell, TurnRecord
from tests.builders import checks, every_turn, failed, plan, store
from tests.sides_and_runs import timed

SCRIPT = {"physics": 2, "memory": 2, "poem": 2}
LAUNCHES = 3

Make = Callable[[Cell, int], TurnRecord | None]
"""None: there is no record of the turn, as after one that failed."""


def usual(cell: Cell, index: int, **values: Any) -> TurnRecord:
    """A turn like in any other night; launches differ by a little."""
    slower = 1 + 0.002 * cell.launch
    values = {"checks": checks(True), "ttft_ms": 10 * slower, "tpot_ms": 2 * slower, **values}
    return timed(cell, index, **values)


def stored_night(results: Path, number: int, make: Make = usual, *, kept: Mapping[str, Any] | None = None,
                 **planned: Any) -> Path:  # fmt: skip
    """The directory of the night of a day; `kept` are values of its manifest, `planned` those of its plan."""
    of = plan(**{"conversations": SCRIPT, "launches": LAUNCHES, "history": "scripted", **planned})
    about = {"created_at": day(number), "finished_at": day(number), **(kept or {})}
    records = [record for record in every_turn(of, make) if record is not None]
    return store(results, records, of, f"night-{number:02d}", **about)


def failing(*conversations: str, at: int = 0) -> Make:
    """Turns of which one of each of these conversations fails in every launch, and ends it."""

    def make(cell: Cell, index: int) -> TurnRecord | None:
        if cell.conversation_id not in conversations or index < at:
            return usual(cell, index)
        return failed(cell, index) if index == at else None

    return make


def night(results: Path, number: int, make: Make = usual, **values: Any) -> Run:
    return load(stored_night(results, number, make, **values))


def day(number: int) -> str:
    return (datetime(2026, 1, 1, 3, tzinfo=UTC) + timedelta(days=number)).isoformat()


def rules(*, confirm_launches: int = 3, window: int = 10, anchor: str | None = None, **lines: Any) -> Gating:
    named = {name.replace("__", "."): bound for name, bound in lines.items()}
    return Gating(rules=named, window=window, anchor=anchor, confirm_launches=confirm_launches)


def again(of: Run, number: int, logs: npt.NDArray[np.float64] | float, metrics: tuple[str, ...] = ("tpot_s",)) -> Run:
    """The night of another day: these logarithms, one per turn, on top of what some metrics were."""
    turns = of.turns.copy()
    for metric in metrics:
        turns[metric] = pd.array(turns[metric].to_numpy(dtype=float) * np.exp(logs), dtype="Float64")
    run_id = f"night-{number:02d}"
    turns["run_id"] = pd.array([run_id] * len(turns), dtype="string")
    return replace(of, manifest={**of.manifest, "run_id": run_id, "created_at": day(number)}, turns=turns)


def noise(of: Run, dice: np.random.Generator, *, nights: float, launches: float, turns: float = 0.0,
          ) -> npt.NDArray[np.float64]:  # fmt: skip
    """Logarithms of an A/A night, one per turn: one effect of the night, one of each launch, one of each turn."""
    launch = of.turns["launch"].to_numpy(dtype=np.int64)
    own = dice.normal(0, launches, launch.max() + 1)
    found: npt.NDArray[np.float64] = dice.normal(0, nights) + own[launch] + dice.normal(0, turns, len(launch))
    return found
