"""What every played turn contributes to a check pass rate.

A turn that failed, or that was never reached, fails all the checks the plan has for it. Missing turns – conversations
not yet played to their end – contribute nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.analysis.frames import Run
from harness.analysis.stats import Tally

_LOOKED_AT = ["model", "sampling", "conversation_id", "turn_index", "state", "checks_passed"]


@dataclass(frozen=True, slots=True)
class Ledger:
    """The checks a run expects, and which of its settings answer the same way every time."""

    expected: Mapping[tuple[str, int], int]
    """(conversation id, turn index) → number of checks."""
    greedy: frozenset[tuple[str, str]]
    """(model, sampling) without randomness: repeats of a turn are one observation."""

    def tallies(self, turns: pd.DataFrame) -> list[Tally]:
        """The tallies of some rows of `Run.turns`: one per turn, or per turn and all its repeats where they are greedy.

        The repeats' mean is that observation, so that one failure among ten repeats weighs a tenth of it.
        """
        passed: dict[tuple[str, int, object], list[int]] = {}
        rows = turns.loc[turns["state"] != "missing", _LOOKED_AT].to_dict("records")
        for number, row in enumerate(rows):
            setting = (row["model"], row["sampling"])
            counts = row["state"] == "done" and pd.notna(row["checks_passed"])
            observation = (row["conversation_id"], row["turn_index"], setting if setting in self.greedy else number)
            passed.setdefault(observation, []).append(int(row["checks_passed"]) if counts else 0)
        return [
            Tally(conversation, sum(repeats) / len(repeats), self.expected[conversation, turn])
            for (conversation, turn, _), repeats in passed.items()
        ]


def ledger(run: Run) -> Ledger:
    """The ledger of a run."""
    expected = {
        (conversation["id"], turn): checks
        for conversation in run.plan["conversations"]
        for turn, checks in zip(conversation["turns"], conversation["checks"], strict=True)
    }
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
