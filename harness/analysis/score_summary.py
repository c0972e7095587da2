"""Scores by setting, with intervals: the conversations are the sample, as of everything that is about behaviour.

Scores are of replies that there are; how many planned turns have none stands beside them (`summary.by_setting`), and
how many could not be scored stands in the table. Identical repeats of a greedy setting are one observation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.analysis.arrays import SETTING
from harness.analysis.frames import Run
from harness.analysis.ledger import ledger
from harness.analysis.scoring.table import SCORERS
from harness.analysis.stats import CONVERSATIONS_TO_GENERALISE, Estimate, pass_rate, t_quantile
from harness.analysis.tables import table as as_table

Numbers = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

PAIRS = ("judge_pair", "human")
"""Scorers of two replies; they have a table of their own (`preferences.by_pair`)."""
_RANGE: Mapping[str, tuple[float, float]] = {"share": (0.0, 1.0), "score": (1.0, 10.0)}
_NAMES = (
    *("run_id", *SETTING, "scorer", "by", "conversations", "replies", "undecided", "mean", "low", "high"),
    "basis",
)


def by_setting(run: Run, scores: pd.DataFrame) -> pd.DataFrame:
    """One row per scorer, who scored, and model × sampling × concurrency, in the order of the tables; `scores` are
    those of `scores.scores`.

    Columns: run_id model sampling concurrency scorer by; conversations and replies that have a score; undecided: the
    replies it could tell nothing of; mean, with the low and high of its interval, and the basis of that. An interval of
    values that are 0 or 1 is that of a pass rate (`stats.pass_rate`), of others a t-interval over conversations
    (`mean_over_conversations`).
    """
    greedy = ledger(run).greedy
    rows = []
    for keys, group in _of_one_reply(scores).groupby([*SETTING, "scorer", "by"], sort=False, dropna=False):
        setting, (name, by) = keys[: len(SETTING)], keys[len(SETTING) :]
        known = group[group["value"].notna()]
        seen = observations(known, greedy=tuple(setting[:2]) in greedy)
        scorer = SCORERS[str(name)]
        found = (
            pass_rate(seen.sums, seen.weights, seen.count)
            if scorer.kind == "flag"
            else mean_over_conversations(seen.sums, seen.weights, _RANGE[scorer.kind])
        )
        rows.append(
            {
                "run_id": run.run_id,
                **dict(zip(SETTING, setting, strict=True)),
                "scorer": name,
                "by": by,
                "conversations": len(seen.weights),
                "replies": len(known),
                "undecided": len(group) - len(known),
                "mean": found.value,
                "low": found.low,
                "high": found.high,
                "basis": found.basis,
            }
        )
    return as_table(rows, _NAMES)


def _of_one_reply(scores: pd.DataFrame) -> pd.DataFrame:
    return scores[~scores["scorer"].isin(PAIRS)]


class Observations:
    """Scores of one setting by conversation: sums and weights, and how many observations they are."""

    def __init__(self, values: Numbers, weights: Numbers, conversation: Codes, count: int) -> None:
        size = int(conversation.max(initial=-1)) + 1
        self.sums: Numbers = np.bincount(conversation, weights * values, size).astype(np.float64)
        self.weights: Numbers = np.bincount(conversation, weights, size).astype(np.float64)
        self.count = count


def observations(known: pd.DataFrame, *, greedy: bool) -> Observations:
    """The scores of a setting: one observation per reply, or per turn of the script where its repeats are greedy."""
    conversation = pd.factorize(known["conversation_id"])[0].astype(np.int64)
    turn = known["turn_index"].to_numpy(dtype=np.int64)
    place = conversation * (int(turn.max(initial=0)) + 1) + turn
    values = known["value"].to_numpy(dtype=np.float64)
    weights = np.ones(len(values))
    count = len(values)
    if greedy:
        _, which, repeats = np.unique(place, return_inverse=True, return_counts=True)
        weights, count = 1 / repeats[which], len(repeats)
    return Observations(values, weights, conversation, count)


def mean_over_conversations(sums: Numbers, weights: Numbers, between: tuple[float, float]) -> Estimate:
    """The mean of some values within bounds, with an interval over conversations.

    `sums` and `weights` are the sums of the values of each conversation, and how many they are. The mean m is a ratio
    over conversations as clusters, with the linearised variance of a ratio estimate

        v = C/(C−1) · Σ_c (sum_c − m · weight_c)² / weight²        (Cochran, Sampling Techniques, 3rd ed., ch. 9A)

    and the t-interval m ± t · √v with C−1 degrees of freedom, cut at the bounds. No interval below two conversations,
    nor where all conversations have the very same mean: they do not show how much others would differ.
    """
    clusters = len(weights)
    if not clusters:
        return Estimate(None)
    mean = float(sums.sum() / weights.sum())
    spread = float(((sums - mean * weights) ** 2).sum())
    if clusters < 2 or spread <= 1e-24 * float(weights.sum()) ** 2:
        return Estimate(mean, n=clusters)
    reach = t_quantile(clusters - 1) * math.sqrt(clusters / (clusters - 1) * spread) / float(weights.sum())
    basis: Any = "conversations" if clusters >= CONVERSATIONS_TO_GENERALISE else "few conversations"
    return Estimate(mean, max(between[0], mean - reach), min(between[1], mean + reach), basis, clusters)
