"""What every played turn contributes to a check pass rate.

A turn that failed, or that was never reached, fails all the checks it was to meet. How many those are is known from
the same turn in other cells; where no cell ever got there, the turn counts as one failed check, if the run checks
anything at all. Missing turns – conversations not yet played to their end – contribute nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.analysis.frames import Run
from harness.analysis.stats import Tally

_LOOKED_AT = ["model", "sampling", "conversation_id", "turn_index", "state", "reply", "checks_passed"]


@dataclass(frozen=True, slots=True)
class Ledger:
    """The checks a run expects, and which of its settings answer the same way every time."""

    expected: Mapping[tuple[str, int], int]
    """(conversation id, turn index) → number of checks, for the turns that were ever answered."""
    greedy: frozenset[tuple[str, str]]
    """(model, sampling) without randomness: identical repeats are one observation."""

    def tallies(self, turns: pd.DataFrame) -> list[Tally]:
        """The tallies of some rows of `Run.turns`, identical greedy repeats collapsed to one."""
        seen: set[tuple[object, ...]] = set()
        tallies = []
        for row in turns.loc[turns["state"] != "missing", _LOOKED_AT].to_dict("records"):
            place = (row["conversation_id"], row["turn_index"])
            done = row["state"] == "done"
            passed = int(row["checks_passed"]) if done and pd.notna(row["checks_passed"]) else 0
            if (row["model"], row["sampling"]) in self.greedy:
                reply = row["reply"] if done and pd.notna(row["reply"]) else None
                identity = (row["model"], row["sampling"], *place, row["state"], reply, passed)
                if identity in seen:
                    continue
                seen.add(identity)
            tallies.append(Tally(str(row["conversation_id"]), passed, self._total(place)))
        return tallies

    def _total(self, place: tuple[str, int]) -> int:
        unknown = 1 if any(self.expected.values()) else 0
        return self.expected.get(place, unknown)


def ledger(run: Run) -> Ledger:
    """The ledger of a run."""
    done = run.turns[run.turns["state"] == "done"]
    expected: dict[tuple[str, int], int] = {}
    totals = done["checks_total"].fillna(0)
    for place, total in zip(zip(done["conversation_id"], done["turn_index"], strict=True), totals, strict=True):
        expected[place] = max(expected.get(place, 0), int(total))
    return Ledger(
        expected=expected,
        greedy=frozenset(
            (model["label"], sampling["name"])
            for model in run.plan["models"]
            for sampling in run.plan["samplings"]
            if not _samples(run, model["label"], sampling)
        ),
    )


def _samples(run: Run, model: str, sampling: Mapping[str, Any]) -> bool:
    """Whether a setting draws at random, as generation really ran, or else as was asked for.

    `do_sample` is False where nobody says otherwise (transformers.GenerationConfig), and a draw from the one most
    likely token is no draw.
    """
    parameters: Mapping[str, Any] = sampling["parameters"]
    for launch in run.manifest["launches"]:
        if launch["model"] == model and sampling["name"] in launch.get("effective", {}):
            parameters = {**parameters, **launch["effective"][sampling["name"]]["values"]}
    return bool(parameters.get("do_sample", False)) and parameters.get("top_k") != 1
