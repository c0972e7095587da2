"""Whether a model became slower or faster while it was measured: heat, clocks, a neighbour on the machine.

Repeats of the same turn within one launch should take the same time. For every cell the logarithms of its `tpot_s`
are compared with their mean over the repeats of the same launch, sampling, conversation and turn; what is left, one
mean per conversation played (its turns are not independent), is set against the time since the launch began.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import pandas as pd
from scipy.stats import kendalltau

from harness.analysis.frames import Run

SURE = 0.01
"""A p-value below this, and …"""
WORTH_SAYING = 0.02
"""… a change of at least this share of the time, make a drift worth a warning: less is lost in what launches differ."""

_SAME_TURN = ["launch", "sampling", "conversation_id", "turn_index"]
_SAME_CELL = ["launch", "sampling", "conversation_id", "repeat"]


@dataclass(frozen=True, slots=True)
class Drift:
    """How much longer a token takes in the last third of a launch than in the first."""

    model: str
    change: float
    """0.05: five per cent longer, by the medians of both thirds."""
    p: float
    """Of Kendall's τ, two-sided."""

    @property
    def matters(self) -> bool:
        return self.p < SURE and abs(self.change) >= WORTH_SAYING


def drifts(run: Run) -> list[Drift]:
    """The drift of every model whose repeats can show one; it takes two repeats at least."""
    found = []
    for spec in run.plan["models"]:
        turns = run.turns[
            (run.turns["model"] == spec["label"]) & run.turns["tpot_s"].notna() & (run.turns["tpot_s"] > 0)
        ]
        points = sorted(_points(turns))
        times, rests = [time for time, _ in points], [rest for _, rest in points]
        if len(set(rests)) < 2 or len(set(times)) < 2:
            continue
        third = math.ceil(len(rests) / 3)
        change = math.exp(median(rests[-third:]) - median(rests[:third])) - 1
        found.append(Drift(spec["label"], change, float(kendalltau(times, rests).pvalue)))
    return found


def _points(turns: pd.DataFrame) -> list[tuple[float, float]]:
    """(seconds since the launch began, mean log tpot beyond that of its repeats) of every conversation played."""
    logs = turns.assign(
        log=[math.log(value) for value in turns["tpot_s"]],
        second=[stamp.timestamp() for stamp in turns["started_at"]],
    )
    repeated: dict[Any, Any] = logs.groupby(_SAME_TURN)["log"].agg(list).to_dict()
    began: dict[Any, float] = logs.groupby("launch")["second"].min().to_dict()
    cells: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    for row in logs.to_dict("records"):
        same = repeated[tuple(row[name] for name in _SAME_TURN)]
        if len(same) > 1:
            cell = tuple(row[name] for name in _SAME_CELL)
            cells.setdefault(cell, []).append((row["second"] - began[row["launch"]], row["log"] - fmean(same)))
    return [(points[0][0], fmean(rest for _, rest in points)) for points in cells.values()]
