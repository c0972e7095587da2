"""The difference between two sides in one metric: how large, how sure, and how much more would tell.

Two estimands, never mixed (see `stats`). *Speed* – and memory, and loading – is a ratio, candidate over baseline: the
conversations are fixed, launches are the sample. *Behaviour* is a difference: conversations are the sample, and all
launches and repeats of a turn are one observation, since they share its conversation.

    speed      exp of the mean log ratio over the turns that are the same work (`pairing`), then over launches. A ratio
               of medians would not see a change in a quarter of the turns.
    memory     ratio of the most over the turns that both sides answered, whatever was said
    loading    ratio of what launches took
    behaviour  mean over conversations of candidate − baseline, each the mean over the turns that both sides have; so is
               the value of a side, which is not that of a report's tables where conversations are not equally long
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.analysis.arrays import STATES, Array, View
from harness.analysis.inference import (
    Inference,
    conversations_needed,
    launches_needed,
    over_conversations,
    over_launches,
)
from harness.analysis.ledger import ledger, passed
from harness.analysis.pairing import NOTHING, Flags, LeftOut, Work, counterparts, values, work
from harness.analysis.sides import Pair, Side
from harness.analysis.stats import CONFIDENCE, CONVERSATIONS_TO_GENERALISE, Basis
from harness.metrics import Direction

Answer = Literal["different", "equivalent", "cannot tell"]
MARGIN = 0.05
"""What is too small to matter, unless said otherwise: speed ±5 %, rates ±5 points."""
FREE_OF_LENGTH = frozenset(
    {
        *("ttft_s", "template_s", "tokenize_s", "prefill_s", "prefill_tokens_per_s"),
        *("tpot_s", "decode_tokens_per_s", "s_per_1k_gold_chars"),
    }
)
"""Metrics that end with the first id, or are per id: with `any_length` they may be compared where replies are not
equally long. Later ids take longer than earlier ones, so that even these are not wholly free of it."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What two sides differ by in one metric. None where there is nothing to say, `reason` then says why."""

    metric: str
    scale: Literal["ratio", "difference"]
    """candidate / baseline, or candidate − baseline."""
    baseline: float | None = None
    candidate: float | None = None
    """What is compared: geometric means over turns and launches, or means over conversations."""
    inference: Inference | None = None
    """Of logarithms where the scale is a ratio."""
    basis: Basis | None = None
    paired: bool = False
    """Whether launches belong together two by two; conversations always do."""
    turns: int = 0
    """Turns behind it, all launches of a turn (and for behaviour all repeats) being one."""
    left_out: LeftOut = NOTHING
    largest: float = 1.0
    """How much one conversation could differ by."""
    relative: bool = True
    """Whether a margin is a share of the values, and not a number of points."""
    reason: str | None = None
    """Why there is no effect, or no interval."""

    @property
    def value(self) -> float | None:
        return None if self.inference is None else self._shown(self.inference.value)

    @property
    def low(self) -> float | None:
        """The 95 % interval."""
        return None if self.inference is None else self._shown(self.inference.low)

    @property
    def high(self) -> float | None:
        return None if self.inference is None else self._shown(self.inference.high)

    @property
    def p(self) -> float | None:
        """That there is no difference, two-sided, before any other row of a table is thought of."""
        return None if self.inference is None else self.inference.p

    @property
    def n(self) -> int:
        """Launches (of the side with fewer), or conversations."""
        return 0 if self.inference is None else self.inference.n

    def _shown(self, found: float | None) -> float | None:
        return found if found is None or self.scale == "difference" else math.exp(min(found, 700.0))

    def shift(self, margin: float = MARGIN) -> float | None:
        """The margin in the unit of `inference`: 0.05 is a ratio of 1.05 (or 1/1.05), 5 points of a rate, or 5 % of the
        mean of both sides. None where that is nothing."""
        if self.scale == "ratio":
            return math.log1p(margin)
        if not self.relative:
            return margin
        values = [abs(value) for value in (self.baseline, self.candidate) if value is not None]
        return margin * sum(values) / len(values) if any(values) else None

    def within(self, margin: float = MARGIN) -> bool:
        """Whether the whole interval is: whatever the difference is, it is too small to matter."""
        shift, found = self.shift(margin), self.inference
        if shift is None or found is None or found.low is None or found.high is None:
            return False
        return -shift <= found.low and found.high <= shift

    def needed(self, margin: float = MARGIN, level: float = 1 - CONFIDENCE, *, as_seen: bool = False) -> int | None:
        """How many launches of each side, or conversations, would find a difference as large as the margin four times
        out of five, in a test at `level`; with `as_seen` one as large as was seen, if that is larger. None where
        nothing tells how much they vary."""
        shift = self.shift(margin)
        if shift is None or self.inference is None:
            return None
        shift = max(shift, abs(self.inference.value)) if as_seen else shift
        if self.basis in ("conversations", "few conversations"):
            return conversations_needed(self.inference, shift, self.largest, level)
        return launches_needed(self.inference, shift, self.paired, level)

    def answer(self, q: float | None, margin: float = MARGIN) -> Answer:
        """Different where q – p, adjusted for all that was looked at – is at most 0.05; else equivalent where the
        interval lies within the margin; else nobody can tell."""
        if q is not None and q <= 1 - CONFIDENCE:
            return "different"
        return "equivalent" if self.within(margin) else "cannot tell"


def speed_effect(baseline: Side, candidate: Side, metric: str, *, any_length: bool = False) -> Effect:
    """The ratio of a per-turn metric of speed over the turns that are the same work on both sides.

    `any_length` compares a metric of `FREE_OF_LENGTH` where replies are not equally long too; ValueError for others, or
    where only one side pins down an axis.
    """
    return speed_of(work(Pair(baseline, candidate)), metric, any_length=any_length)


def speed_of(shared: Work, metric: str, *, any_length: bool = False, only: Flags | None = None) -> Effect:
    """`speed_effect` of work that is known already, of the turns that `only` says."""
    if any_length and metric not in FREE_OF_LENGTH:
        raise ValueError(f"{metric} depends on how long a reply is")
    chosen = shared.same(any_length)
    chosen = chosen if only is None else chosen & only
    left_out = shared.left_out(any_length) if only is None else NOTHING
    if not chosen.any():
        why = f" ({left_out})" if left_out.total else ""
        return Effect(metric, "ratio", left_out=left_out, reason=f"no turn is the same work on both sides{why}")
    times = [values(side, rows[chosen], metric) for side, rows in _sides(shared)]
    known = np.logical_and.reduce([(side > 0).all(axis=1) for side in times])
    if not known.any():
        return Effect(metric, "ratio", left_out=left_out, reason=_absent(times))
    logs = [np.log(side[known]).mean(axis=0) for side in times]
    return _ratio(metric, logs, shared.paired, int(known.sum()), left_out)


def memory_of(shared: Work, metric: str) -> Effect:
    """The ratio of the most memory over the turns that were answered in every launch of both sides."""
    chosen = shared.answered
    if not chosen.any():
        return Effect(metric, "ratio", reason="no turn was answered in every launch of both sides")
    peaks = [values(side, rows[chosen], metric) for side, rows in _sides(shared)]
    if not all((side > 0).all() for side in peaks):
        return Effect(metric, "ratio", reason=_absent(peaks))
    return _ratio(metric, [np.log(side.max(axis=0)) for side in peaks], shared.paired, int(chosen.sum()))


def launch_effect(baseline: Side, candidate: Side, metric: str) -> Effect:
    """The ratio of what launches took (`load_s`, `first_turn_s`)."""
    pair = Pair(baseline, candidate)
    taken = [_of_launches(side, metric) for side in pair]
    same_run = baseline.run is candidate.run
    if same_run and {spec["label"] for spec in baseline.specs} & {spec["label"] for spec in candidate.specs}:
        return Effect(metric, "ratio", reason="both sides were played by the same processes")
    if same_run:
        shared = taken[0].index.intersection(taken[1].index)
        taken = [side.loc[shared] for side in taken]
    logs = [side.to_numpy(dtype=np.float64) for side in taken]
    if not all(len(side) and np.isfinite(side).all() for side in logs):
        return Effect(metric, "ratio", reason=_absent([np.exp(side) for side in logs]))
    return _ratio(metric, logs, same_run, 0)


def _of_launches(side: Side, metric: str) -> pd.Series[float]:
    """Logarithms by launch; of several models their mean."""
    frame = side.run.launches
    here = frame[frame["model"].isin([spec["label"] for spec in side.specs]) & frame[metric].notna()]
    with np.errstate(divide="ignore"):  # no time at all, as a scripted backend takes
        logs = here[["launch"]].assign(log=np.log(here[metric].to_numpy(dtype=np.float64)))
    found: pd.Series[float] = logs.groupby("launch")["log"].mean()
    return found


def _sides(shared: Work) -> list[tuple[Side, npt.NDArray[np.int64]]]:
    return [(shared.pair.baseline, shared.baseline), (shared.pair.candidate, shared.candidate)]


def _absent(sides: list[Array]) -> str:
    """Why numbers have no logarithm."""
    zero = any((side <= 0).any() for side in sides)
    return "some values are 0: they have no ratio" if zero else "not measured on both sides"


def _ratio(metric: str, logs: list[Array], paired: bool, turns: int, left_out: LeftOut = NOTHING) -> Effect:
    ours, theirs = logs
    found = over_launches(ours, theirs, paired)
    return Effect(
        metric,
        "ratio",
        baseline=math.exp(float(ours.mean())),
        candidate=math.exp(float(theirs.mean())),
        inference=found,
        basis="launches" if found.n > 1 else "one launch",
        paired=paired,
        turns=turns,
        left_out=left_out,
        reason=None if found.n > 1 else "one launch says nothing about the next",
    )


@dataclass(frozen=True, slots=True)
class Quantity:
    """Something that replies are judged by: of every turn a number and a weight, the value of a conversation being
    Σ numbers / Σ weights."""

    name: str
    title: str
    unit: str
    direction: Direction
    of: Callable[[Side], tuple[Array, Array]]
    """(numbers, weights) of the rows of `side.turns`; NaN where a row says nothing."""
    is_rate: bool = True
    """Whether it lies between 0 and 1: margins are then points, and no conversation can differ by more than 1."""
    meaningless: bool = True
    """Whether it means nothing where replies are forced to a length, or come from random weights."""


def _checks(side: Side) -> tuple[Array, Array]:
    turns = side.turns
    due = ledger(side.run).expected[turns.rows]
    played = ~_is(turns, "missing") & (due > 0)
    return np.where(played, passed(turns), np.nan), np.where(played, due, np.nan)


def _tokens(side: Side) -> tuple[Array, Array]:
    turns = side.turns
    tokens = turns["completion_tokens"]
    return _each(np.where(_is(turns, "done") & (tokens > 0), tokens, np.nan))


def _truncated(side: Side) -> tuple[Array, Array]:
    turns = side.turns
    return _each(np.where(_is(turns, "done"), turns["cut_off"], np.nan))


def _failed(side: Side) -> tuple[Array, Array]:
    turns = side.turns
    failed = _is(turns, "failed") | _is(turns, "not_reached")
    return _each(np.where(_is(turns, "missing"), np.nan, failed.astype(np.float64)))


def _repetition(side: Side) -> tuple[Array, Array]:
    turns = side.turns
    return _each(np.where(_is(turns, "done"), turns["repetition"], np.nan))


def _is(turns: View, state: str) -> Flags:
    there: Flags = turns["state"] == STATES.index(state)
    return there


def _each(numbers: Array) -> tuple[Array, Array]:
    """Every turn counts the same."""
    return numbers, np.where(np.isnan(numbers), np.nan, 1.0)


BEHAVIOUR: dict[str, Quantity] = {
    quantity.name: quantity
    for quantity in (
        Quantity("check_pass_rate", "Checks passed", "rate", "higher", _checks),
        Quantity("completion_tokens", "Generated tokens", "tokens", "neither", _tokens, is_rate=False),
        Quantity("truncation_rate", "Replies cut off", "rate", "lower", _truncated),
        Quantity("failure_rate", "Turns failed or not reached", "rate", "lower", _failed, meaningless=False),
        Quantity("repetition", "Repetition", "rate", "lower", _repetition),
    )
}
"""What is compared of replies, each by its name."""


def behaviour_effect(baseline: Side, candidate: Side, quantity: str | Quantity) -> Effect:
    """The difference of what replies are judged by, over the conversations that both sides played; a name of
    `BEHAVIOUR`, or a quantity of one's own.

    Raises ValueError where only one side pins down an axis.
    """
    asked = BEHAVIOUR[quantity] if isinstance(quantity, str) else quantity
    pair = Pair(baseline, candidate)
    turns = [side.turns for side in pair]
    if asked.meaningless and any(seen.babble for seen in turns):
        reason = "replies are forced to a length, or come from random weights"
        return Effect(asked.name, "difference", relative=not asked.is_rate, reason=reason)
    names = [*pair.matched, "conversation_id", "turn_index"]
    keys = [side.run.turns[names].iloc[seen.rows] for side, seen in zip(pair, turns, strict=True)]
    places, kept = counterparts(*keys)
    ours, theirs = (_by_place(side, asked, place, len(kept)) for side, place in zip(pair, places, strict=True))
    told = ~np.isnan(ours[0]) & ~np.isnan(theirs[0])
    if not told.any():
        return Effect(asked.name, "difference", relative=not asked.is_rate, reason="no turn of both sides has any")
    conversation, _ = pd.factorize(kept["conversation_id"][told])
    before, after = (
        np.bincount(conversation, numbers[told]) / np.bincount(conversation, weights[told])
        for numbers, weights in (ours, theirs)
    )
    largest = 1.0 if asked.is_rate else float(max(np.abs(before).max(), np.abs(after).max()))
    found = over_conversations(after - before, largest)
    enough = found.n >= CONVERSATIONS_TO_GENERALISE
    few = f"{found.n} conversation{'s' if found.n > 1 else ''} say nothing about others"
    return Effect(
        asked.name,
        "difference",
        baseline=float(before.mean()),
        candidate=float(after.mean()),
        inference=found,
        basis="conversations" if enough else "few conversations",
        paired=True,
        turns=int(told.sum()),
        left_out=LeftOut(unanswered=int((~told).sum())),
        largest=largest,
        relative=not asked.is_rate,
        reason=None if enough else few,
    )


def _by_place(side: Side, asked: Quantity, place: npt.NDArray[np.int64], count: int) -> tuple[Array, Array]:
    """Numbers and weights by turn of the script, means over its launches and repeats; NaN where there are none."""
    numbers, weights = asked.of(side)
    here = (place >= 0) & ~np.isnan(numbers)
    times = np.bincount(place[here], minlength=count).astype(np.float64)
    times[times == 0] = np.nan
    return (
        np.bincount(place[here], numbers[here], count) / times,
        np.bincount(place[here], weights[here], count) / times,
    )
