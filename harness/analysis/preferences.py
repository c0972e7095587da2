"""Which of two replies is better: how settings fare against each other, and how far judges agree with people.

A preference is 1 where the first reply is the better one, 0 where the second is, and ½ for a tie. A judge is asked in
both orders; where they disagree it has a preference for a place and not for a reply, which counts as a tie and is
counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.analysis.arrays import SETTING, view
from harness.analysis.frames import Run
from harness.analysis.ledger import ledger
from harness.analysis.score_summary import observations
from harness.analysis.scores import AGAINST, REPLY, Given, settled
from harness.analysis.stats import pass_rate, wilson
from harness.analysis.tables import table as as_table

NORMAL_QUANTILE = 1.959963984540054
"""Of the normal distribution, two-sided at 95 %."""
_OUTCOMES = 3
"""The first is better, a tie, the second is better."""
_KEYS = [*SETTING, "against_run_id", *(f"against_{name}" for name in SETTING), "scorer", "by"]
_NAMES = (
    *("run_id", *_KEYS),
    *("conversations", "pairs", "wins", "ties", "losses", "inconsistent", "no_verdict", "win_rate", "low", "high"),
    "basis",
)


def by_pair(run: Run, found: Given) -> pd.DataFrame:
    """One row per judge or voter and two settings, of which the first is the one the row speaks for.

    Columns: the setting, the other one as against_…, scorer by; conversations, pairs that have a preference, wins ties
    losses; of judges how many trials were inconsistent between the orders (and are ties) and how many gave no_verdict;
    win_rate (a tie is half a win) with low and high over conversations, and the basis of that.
    """
    greedy, everything = ledger(run).greedy, view(run)
    pairs = _pairs(run, found)
    rows = []
    for names, group in pairs.groupby(_KEYS, sort=False, dropna=False):
        named: dict[str, Any] = dict(zip(_KEYS, names, strict=True))
        known = group[group["value"].notna()]
        values = known["value"].to_numpy(dtype=np.float64)
        first, second = (named["model"], named["sampling"]), (named["against_model"], named["against_sampling"])
        both_greedy = first in greedy and second in greedy
        seen = observations(everything, known["row"].to_numpy(dtype=np.int64), values, greedy=both_greedy)
        rate = pass_rate(seen.sums, seen.weights, seen.count)
        wins, ties, losses = np.bincount(outcomes(values), minlength=_OUTCOMES).tolist()
        rows.append(
            {
                "run_id": run.run_id,
                **{name: None if pd.isna(value) else value for name, value in named.items()},
                "conversations": len(seen.weights),
                "pairs": len(known),
                "wins": wins,
                "ties": ties,
                "losses": losses,
                "inconsistent": int(group["inconsistent"].sum()),
                "no_verdict": int(group["no_verdict"].sum()),
                "win_rate": rate.value,
                "low": rate.low,
                "high": rate.high,
                "basis": rate.basis,
            }
        )
    return as_table(rows, _NAMES)


def _pairs(run: Run, found: Given) -> pd.DataFrame:
    """What judges and voters prefer, with the setting of the first reply."""
    lines = found.lines
    judged, voted = lines[lines["scorer"] == "judge_pair"], lines[lines["scorer"] == "human"]
    parts = [settled(judged)] if len(judged) else []
    pairs = pd.concat([*parts, voted.assign(inconsistent=0, no_verdict=0)], ignore_index=True)
    pairs = pairs.astype(dict.fromkeys(_KEYS[len(SETTING) :], "string") | {"against_concurrency": "Int64"})
    settings = run.turns.loc[pairs["row"].to_numpy(dtype=np.int64), list(SETTING)].reset_index(drop=True)
    return pairs.assign(**{name: settings[name] for name in SETTING}).sort_values(["scorer", "by"], kind="stable")


def outcomes(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """0 where the first is preferred, 1 for a tie, 2 where the second is."""
    found: npt.NDArray[np.int64] = 1 - np.sign(values - 0.5).astype(np.int64)
    return found


def answered(run: Run, replies: Sequence[tuple[Any, ...]]) -> list[int]:
    """Where replies, named by the values of `REPLY`, stand in `Run.turns`; -1 for what is no reply of the run."""
    if not replies:
        return []
    index = pd.MultiIndex.from_frame(run.turns[list(REPLY)])
    done = (run.turns["state"] == "done").to_numpy(dtype=bool)
    rows = index.get_indexer(pd.MultiIndex.from_tuples(replies, names=REPLY)).tolist()
    return [row if row >= 0 and done[row] else -1 for row in rows]


def pairs_of(run: Run, lines: pd.DataFrame) -> Iterator[tuple[Any, ...]]:
    """What each of some scores of two replies is about: the values of `REPLY`, then those of `AGAINST`, None for what
    is absent."""
    names = run.turns.loc[lines["row"].to_numpy(), list(REPLY)]
    columns = [*(names[name] for name in REPLY), *(lines[f"against_{name}"] for name in AGAINST)]
    for values in zip(*(column.tolist() for column in columns), strict=True):
        yield tuple(None if pd.isna(value) else value for value in values)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far a judge says what people voted, over the votes on pairs that it judged too."""

    scorer: str
    by: str
    votes: int
    agreed: int
    """Both prefer the same reply, or both call it a tie."""
    rate: float
    low: float
    high: float
    """Wilson's interval, votes taken as independent of each other."""
    kappa: float | None
    """Cohen's, over the three answers; None where chance alone would agree always."""
    decided: int
    """Votes where neither calls it a tie."""
    decided_agreed: int


def agreements(found: Given) -> list[Agreement]:
    """The agreement of every judge of a run with the votes of all voters together.

    A judge that scores single replies is taken to prefer the one it scores higher. Votes against replies of other runs
    are left out: what a judge said of those is not at hand.
    """
    lines = found.lines
    votes = lines[(lines["scorer"] == "human") & (lines["other"] >= 0) & lines["value"].notna()]
    told = []
    for setup in found.latest:
        given = lines[lines["config_hash"] == setup.config_hash]
        if setup.scorer == "judge_pair":
            judged = _of_pairs(given)
        elif setup.scorer in ("judge_score", "judge_pass"):
            judged = _of_scores(given, votes)
        else:
            continue
        both = votes.merge(judged, on=["row", "other"], suffixes=("", "_judge"))
        if len(both):
            told.append(
                _agreement(
                    setup.scorer,
                    setup.by,
                    *(outcomes(both[name].to_numpy(dtype=np.float64)) for name in ("value_judge", "value")),
                )
            )
    return told


def _of_pairs(given: pd.DataFrame) -> pd.DataFrame:
    """A judge's preferences, in the order of the pair and in the other: one of each pair. Where it was judged from
    either side that is their median, as of several trials."""
    said = settled(given)[["row", "other", "value"]].dropna()
    pairs = pd.concat([said, _turned(said)])
    each = pairs[pairs["row"] < pairs["other"]].groupby(["row", "other"])["value"].median().reset_index()
    return pd.concat([each, _turned(each)], ignore_index=True)


def _turned(pairs: pd.DataFrame) -> pd.DataFrame:
    return pairs.rename(columns={"row": "other", "other": "row"}).assign(value=1 - pairs["value"])


def _of_scores(given: pd.DataFrame, votes: pd.DataFrame) -> pd.DataFrame:
    """What a judge of single replies prefers, of the pairs that were voted on."""
    score = given.groupby("row")["value"].median()
    pairs = votes[["row", "other"]].drop_duplicates()
    difference = score.reindex(pairs["row"]).to_numpy() - score.reindex(pairs["other"]).to_numpy()
    preferred: pd.DataFrame = pairs.assign(value=np.sign(difference) / 2 + 0.5)
    return preferred.dropna()


def _agreement(scorer: str, by: str, judge: npt.NDArray[np.int64], people: npt.NDArray[np.int64]) -> Agreement:
    counts = np.bincount(judge * _OUTCOMES + people, minlength=_OUTCOMES**2).reshape(_OUTCOMES, _OUTCOMES)
    votes, agreed = int(counts.sum()), int(np.trace(counts))
    decided = counts[np.ix_([0, 2], [0, 2])]
    low, high = wilson(agreed / votes, votes, NORMAL_QUANTILE)
    return Agreement(
        scorer=scorer,
        by=by,
        votes=votes,
        agreed=agreed,
        rate=agreed / votes,
        low=low,
        high=high,
        kappa=kappa(counts.tolist()),
        decided=int(decided.sum()),
        decided_agreed=int(np.trace(decided)),
    )


def kappa(counts: Sequence[Sequence[int]]) -> float | None:
    """Cohen's kappa of two raters (Educational and Psychological Measurement 20, 1960), from how often the first gave
    answer i where the second gave answer j:

        κ = (p_o − p_e) / (1 − p_e)

    with p_o the share of equal answers, and p_e what would be equal by chance, Σ_i (row_i/n)(column_i/n). None where
    p_e is 1: both give one and the same answer always, and nothing is left that could be better than chance.
    """
    table = np.asarray(counts, dtype=np.float64)
    n = table.sum()
    if not n:
        return None
    expected = float((table.sum(axis=1) / n) @ (table.sum(axis=0) / n))
    observed = float(np.trace(table) / n)
    return None if expected >= 1 - 1e-12 else (observed - expected) / (1 - expected)
