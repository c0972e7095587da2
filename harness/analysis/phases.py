"""Where the time of a turn goes: the five phases, in the order in which they lie end to end.

Their medians do not add up – the median of a sum is no sum of medians – so the ledger has *shares* beside them: the
time all turns of a setting spent in a phase, over the time they took. The shares add up to one.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.analysis.arrays import SETTING, View, by_launch, groups, view
from harness.analysis.frames import Run
from harness.analysis.stats import centre
from harness.analysis.tables import Row, setting_of, table
from harness.metrics import PHASES


def by_phase(run: Run) -> pd.DataFrame:
    """One row per model × sampling × concurrency, of the answered turns that have all five phases.

    Columns: run_id model sampling concurrency turns; for every phase its _p50 in seconds and its _share; e2e_s_p50
    and e2e_s_mean, of which the phases have their shares.
    """
    rows = []
    for values, turns in groups(run.turns, SETTING, view(run)):
        done = turns.done
        whole = done.where(~np.any([np.isnan(done[name]) for name in (*PHASES, "e2e_s")], axis=0))
        rows.append({**setting_of(run.run_id, values), **_row(whole)})
    ledger = (f"{name}_{what}" for name in PHASES for what in ("p50", "share"))
    return table(rows, ["run_id", *SETTING, "turns", *ledger, "e2e_s_p50", "e2e_s_mean"])


def _row(turns: View) -> Row:
    taken = float(turns["e2e_s"].sum())
    return {
        "turns": len(turns),
        **{f"{name}_p50": centre(by_launch(turns, name)) for name in PHASES},
        **{f"{name}_share": float(turns[name].sum()) / taken if taken else None for name in PHASES},
        "e2e_s_p50": centre(by_launch(turns, "e2e_s")),
        "e2e_s_mean": taken / len(turns) if len(turns) else None,
    }
