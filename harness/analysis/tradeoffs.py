"""Quality against speed against memory: which settings of a run are worth considering, and which of them stand out.

Quality is the share of checks passed, speed the time per output token – it does not depend on how much a model has to
say, which the time to the finished reply does – and memory the most that was allocated on the accelerators. Without an
accelerator it is the peak of the process on the host: all samplings of a model live in one process, so they have one
figure, and no sampling is better than another for having been played first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from harness.analysis.arrays import SETTING
from harness.analysis.frames import Run, once_per_run
from harness.analysis.pareto import comparable, front, recommended
from harness.analysis.summary import by_setting
from harness.config.figures import Better

DIRECTIONS: Mapping[str, Better] = {"checks_rate": "higher", "tpot_s_p50": "lower", "memory_bytes": "lower"}


@dataclass(frozen=True, slots=True)
class TradeOffs:
    """The settings of a run by what counts."""

    settings: pd.DataFrame
    """One row per setting: model sampling concurrency; the columns of `DIRECTIONS`, checks_low checks_high tpot_s_low
    tpot_s_high; `front`, whether nobody beats it in everything, and `comparable`, whether all that counts is known."""
    counted: tuple[str, ...]
    """Which of `DIRECTIONS` were known of any setting, and so decided."""
    recommended: Mapping[int, tuple[str, ...]]
    """Row of `settings` → what it is recommended for (`pareto.recommended`)."""


@once_per_run
def trade_offs(run: Run) -> TradeOffs:
    """The trade-offs of a run, by the values alone: intervals say which of them chance could have turned round."""
    settings = by_setting(run)
    memory = settings["peak_memory_bytes"]
    if memory.isna().all():
        memory = settings.groupby("model")["host_rss_bytes"].transform("max")
    rows = settings[[*SETTING, "checks_rate", "checks_low", "checks_high", "tpot_s_p50", "tpot_s_low", "tpot_s_high"]]
    rows = rows.assign(memory_bytes=memory)
    directions = {name: better for name, better in DIRECTIONS.items() if rows[name].notna().any()}
    if not directions:
        return TradeOffs(rows.assign(front=False, comparable=False), (), {})
    named = {int(str(row)): reasons for row, reasons in recommended(rows, directions).items()}
    judged = rows.assign(front=front(rows, directions), comparable=comparable(rows, directions))
    return TradeOffs(judged, tuple(directions), named)
