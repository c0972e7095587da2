"""The verdicts of a night that there is nothing to hold against: the first one of a config on a device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.analysis.frames import Run
from harness.analysis.gating.cells import Cell, assigned
from harness.analysis.gating.measured import told
from harness.analysis.gating.window import ledger
from harness.analysis.verdict import Answer, Gate
from harness.config.rules import Gating


def unheld(run: Run, gating: Gating, device: str, others: Sequence[str]) -> Gate:
    """Nobody can tell anything yet; where `others`, devices, have blessed nights and this one has none, a change of
    hardware is not to pass for a first night. Turns that failed are a fact all the same: of a setting with more than
    its rule allows there is no verdict, so that the gate counts them.

    Raises UsageError where a rule has a name that the run does not know.
    """
    answer: Answer = "not comparable" if others else "cannot tell"
    reason = f"no baseline: harness bless {run.run_id}"
    if others:
        reason = f"the blessed nights are of {', '.join(others)}, and this is {device}: harness bless {run.run_id}"
    verdicts = [
        told(rule, cell, answer, reason)
        for rule, cells in assigned(gating.parsed, (run,))
        for cell in cells
        if not (rule.kind == "failures" and _failed(run, cell) > rule.most)
    ]
    return Gate(run, (), tuple(verdicts), ledger(()))


def _failed(run: Run, cell: Cell) -> int:
    turns = run.turns[run.turns["state"].isin(["failed", "not_reached"])]
    here = np.ones(len(turns), dtype=bool)
    for name in ("model", "sampling", "concurrency"):
        wanted = getattr(cell, name)
        here &= True if wanted is None else (turns[name] == wanted).to_numpy(dtype=bool)
    return int(here.sum())
