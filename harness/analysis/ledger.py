"""What every played turn contributes to a check pass rate.

A turn that failed, or that was never reached, fails all the checks the plan has for it. Missing turns – conversations
not yet played to their end – contribute nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.analysis.arrays import STATES, Array, View
from harness.analysis.frames import Run, once_per_run
from harness.analysis.settings import in_effect
from harness.config.generation import is_greedy


@dataclass(frozen=True, slots=True)
class Tally:
    """The checks of some turns, by conversation."""

    passed: Array
    """Means over what is one observation, so not always whole numbers."""
    total: Array
    turns: int
    """How many observations had checks."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """The checks a run expects, and which of its settings answer the same way every time."""

    expected: Array
    """The number of checks of each row of `Run.turns`."""
    greedy: frozenset[tuple[str, str]]
    """(model, sampling) without randomness: repeats of a turn are one observation."""

    def tally(self, turns: View, model: str, sampling: str) -> Tally:
        """What turns of one setting contribute, by what is one observation (`observed`): its mean, so that one failure
        among ten greedy repeats weighs a tenth of it."""
        played = turns.where(turns["state"] != STATES.index("missing"))
        due = self.expected[played.rows]
        met = passed(played)
        same = observed(played, greedy=(model, sampling) in self.greedy)
        _, which, times = np.unique(same, return_inverse=True, return_counts=True)
        weight = 1 / times[which]
        _, conversation = np.unique(played["conversation"], return_inverse=True)
        count = int(conversation.max(initial=-1)) + 1
        return Tally(
            np.bincount(conversation, weight * met, count),
            np.bincount(conversation, weight * due, count),
            len(np.unique(same[due > 0])),
        )


def passed(turns: View) -> Array:
    """How many checks each turn has met: one that failed, or was not reached, has met none."""
    return np.where(turns["state"] == STATES.index("done"), np.nan_to_num(turns["checks_passed"]), 0.0)


def observed(turns: View, *, greedy: bool) -> Array:
    """A code per turn, the same for those that are one observation. Launches draw with the same seeds
    (`records.turn_seed`), so a turn of the script and a repeat are one, however many launches played it; and of a
    greedy setting all repeats are."""
    place, repeat = turns["place"], turns["repeat"]
    return place if greedy else place * (int(repeat.max(initial=0)) + 1) + repeat


@once_per_run
def ledger(run: Run) -> Ledger:
    """The ledger of a run."""
    checks = {
        (conversation["id"], turn): checks
        for conversation in run.plan["conversations"]
        for turn, checks in zip(conversation["turns"], conversation["checks"], strict=True)
    }
    places = pd.MultiIndex.from_frame(run.turns[["conversation_id", "turn_index"]])
    known = pd.Series(checks, index=pd.MultiIndex.from_tuples(checks), dtype=np.float64)
    return Ledger(
        expected=known.reindex(places).to_numpy(),
        greedy=frozenset(
            (model["label"], sampling["name"])
            for model in run.plan["models"]
            for sampling in run.plan["samplings"]
            if is_greedy(in_effect(run, model["label"], sampling))
        ),
    )
