"""Scores by setting, with intervals: the conversations are the sample, as of everything that is about behaviour.

Scores are of replies that there are; how many planned turns have none stands beside them (`summary.by_setting`), and
how many could not be scored stands in the table. What launches draw with the same seed is one observation, and of a
greedy setting all repeats of a turn are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.analysis.arrays import SETTING, View, groups, view
from harness.analysis.frames import Run
from harness.analysis.ledger import ledger, observed
from harness.analysis.scores import JUDGED, Given, settled
from harness.analysis.scoring.table import SCORERS
from harness.analysis.stats import CONVERSATIONS_TO_GENERALISE, Estimate, pass_rate, t_quantile
from harness.analysis.tables import Row, setting_of
from harness.analysis.tables import table as as_table
from harness.records import ScorerSetup

Numbers = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

PAIRS = ("judge_pair", "human")
"""Scorers of two replies; they have a table of their own (`preferences.by_pair`)."""
_RANGE: Mapping[str, tuple[float, float]] = {"share": (0.0, 1.0), "score": (1.0, 10.0)}
_NAMES = (
    *("run_id", *SETTING, "scorer", "by", "conversations", "replies", "undecided", "mean", "low", "high"),
    "basis",
)


def by_setting(run: Run, found: Given) -> pd.DataFrame:
    """One row per scorer, who scored, and model × sampling × concurrency, in the order of the tables.

    Columns: run_id model sampling concurrency scorer by; conversations and replies that have a score; undecided: the
    replies it could tell nothing of; mean, with the low and high of its interval, and the basis of that. An interval of
    values that are 0 or 1 is that of a pass rate (`stats.pass_rate`), of others a t-interval over conversations
    (`mean_over_conversations`).
    """
    greedy, everything = ledger(run).greedy, view(run)
    settings = list(groups(run.turns, SETTING, everything))
    number = np.empty(len(run.turns), dtype=np.int64)
    for code, (_, turns) in enumerate(settings):
        number[turns.rows] = code
    rows = []
    for setup in sorted(found.latest, key=lambda each: (list(SCORERS).index(each.scorer), each.by)):
        scored, values = _of_one_reply(found, setup)
        for code, (setting, _) in enumerate(settings):
            here = number[scored] == code
            if here.any():
                known = here & ~np.isnan(values)
                seen = observations(everything, scored[known], values[known], greedy=setting[:2] in greedy)
                rows.append(
                    {
                        **setting_of(run.run_id, setting),
                        "scorer": setup.scorer,
                        "by": setup.by,
                        "conversations": len(seen.weights),
                        "replies": int(known.sum()),
                        "undecided": int(here.sum() - known.sum()),
                        **_mean(setup.scorer, seen),
                    }
                )
    return as_table(rows, _NAMES)


def _of_one_reply(found: Given, setup: ScorerSetup) -> tuple[Codes, Numbers]:
    """The rows of `Run.turns` that a scorer scored, and its scores, NaN where it could not tell; none of pairs."""
    lines = found.lines[(found.lines["config_hash"] == setup.config_hash).to_numpy()]
    if setup.scorer in PAIRS:
        lines = lines[:0]
    elif setup.scorer in JUDGED:
        lines = settled(lines)
    return lines["row"].to_numpy(dtype=np.int64), lines["value"].to_numpy(dtype=np.float64, na_value=np.nan)


def _mean(scorer: str, seen: Observations) -> Row:
    kind = SCORERS[scorer].kind
    found = (
        pass_rate(seen.sums, seen.weights, seen.count)
        if kind == "flag"
        else mean_over_conversations(seen.sums, seen.weights, _RANGE[kind])
    )
    return {"mean": found.value, "low": found.low, "high": found.high, "basis": found.basis}


@dataclass(frozen=True, slots=True)
class Observations:
    """Scores of one setting by conversation."""

    sums: Numbers
    weights: Numbers
    count: int
    """How many observations they are."""


def observations(everything: View, rows: Codes, values: Numbers, *, greedy: bool) -> Observations:
    """Scores of the replies in some rows of `Run.turns`, each observation (`ledger.observed`) being their mean."""
    replies = View(everything.arrays, rows)
    _, which, times = np.unique(observed(replies, greedy=greedy), return_inverse=True, return_counts=True)
    weights = 1 / times[which]
    _, conversation = np.unique(replies["conversation"], return_inverse=True)
    sums, sizes = (np.bincount(conversation, each).astype(np.float64) for each in (weights * values, weights))
    return Observations(sums, sizes, len(times))


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
