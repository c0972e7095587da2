"""Whether a model became slower or faster while it was measured: heat, clocks, a neighbour on the machine.

Repeats of the same turn within one launch should take the same time. For every cell the logarithms of its `tpot_s`
are compared with their mean over the repeats of the same launch, sampling, concurrency, conversation and turn; what is
left, one mean per conversation played (its turns are not independent), is set against the time since the launch began.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from harness.analysis.frames import Run, once_per_run

SURE = 0.01
"""A p-value below this, and …"""
WORTH_SAYING = 0.02
"""… a change of at least this share of the time, make a drift worth a warning: less is lost in what launches differ."""

_SAME_TURN = ["launch", "sampling", "concurrency", "conversation_id", "turn_index"]
_SAME_CELL = ["launch", "sampling", "concurrency", "conversation_id", "repeat"]
_LOOKED_AT = [*_SAME_CELL, "turn_index", "tpot_s", "started_at"]


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


@once_per_run
def drifts(run: Run) -> list[Drift]:
    """The drift of every model whose repeats can show one; it takes two repeats at least."""
    found = []
    for spec in run.plan["models"]:
        timed = (run.turns["model"] == spec["label"]) & run.turns["tpot_s"].notna() & (run.turns["tpot_s"] > 0)
        turns = run.turns.loc[timed, _LOOKED_AT]
        points = _points(turns)
        if points["rest"].nunique() < 2 or points["second"].nunique() < 2:
            continue
        third = math.ceil(len(points) / 3)
        change = math.exp(points["rest"].tail(third).median() - points["rest"].head(third).median()) - 1
        tau = kendalltau(points["second"].to_numpy(), points["rest"].to_numpy())
        found.append(Drift(spec["label"], change, float(tau.pvalue)))
    return found


def _points(turns: pd.DataFrame) -> pd.DataFrame:
    """Of every conversation played, in the order of time: `second`, since the launch began, and `rest`, its mean log
    tpot beyond that of its repeats."""
    stamps = turns["started_at"].astype("int64").to_numpy() / 1e6
    logs = turns[[*_SAME_CELL, "turn_index"]].assign(log=np.log(turns["tpot_s"].to_numpy(dtype=float)), second=stamps)
    logs["second"] -= logs.groupby("launch")["second"].transform("min")
    same = logs.groupby(_SAME_TURN)["log"]
    logs["rest"] = logs["log"] - same.transform("mean")
    repeated = logs[same.transform("size") > 1]
    points = repeated.groupby(_SAME_CELL, sort=False).agg(second=("second", "first"), rest=("rest", "mean"))
    return points.sort_values(["second", "rest"])
