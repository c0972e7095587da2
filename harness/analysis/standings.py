"""Which setting of a run is best at what, and which others it could not be told apart from.

Every question is asked three times: over all settings; over models, all samplings together; and over the values of a
swept parameter, all models together. Who is best goes by the values of the tables. Whether another is really worse goes
by the paired difference (`effects`): of speed over launches, on turns that are the same work; of behaviour over
conversations. So one launch, or fewer than six conversations, tell nobody apart.

The best was chosen by looking: the pair with the largest of k(k − 1)/2 differences is among those compared. P-values
are therefore adjusted (Benjamini and Hochberg, JRSS B 57, 1995) among all pairs of all questions of the same kind; the
pairs not looked at count as 1, which can only make the others larger.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from harness.analysis.arrays import SETTING
from harness.analysis.effects import FREE_OF_LENGTH, Effect, behaviour_effect, launch_effect, memory_of, speed_of
from harness.analysis.frames import Run, once_per_run
from harness.analysis.pairing import Work, work
from harness.analysis.sides import Pair, Side
from harness.analysis.stats import CONFIDENCE, Basis, Estimate
from harness.analysis.summary import by_setting
from harness.analysis.sweep import EACH, Sweep, sweeps
from harness.config.figures import Better

MOST_COMPARED = 24
"""Others that the best is held against: with hundreds of settings nobody reads, or waits for, hundreds of answers."""

Kind = Literal["behaviour", "speed", "memory", "loading"]
Outcome = Literal["worse", "equivalent", "cannot tell", "better"]


@dataclass(frozen=True, slots=True)
class Question:
    """What a reader wants to know of settings."""

    name: str
    text: str
    kind: Kind
    column: str
    """Of `by_setting`, that holds the value."""
    metric: str
    """What `effects` calls it."""
    direction: Better
    bounds: tuple[str, str, str] | None = None
    """Columns of `by_setting` with the interval of the value, and what that speaks about."""
    of_process: bool = False
    """Whether it is of a whole process, in which all samplings of a model are played: only models can be compared."""


def _speed(metric: str, text: str) -> Question:
    return Question(
        metric, text, "speed", f"{metric}_p50", metric, "lower", (f"{metric}_low", f"{metric}_high", "speed_basis")
    )


_CHECKS = ("checks_low", "checks_high", "checks_basis")
QUESTIONS: tuple[Question, ...] = (
    Question("checks", "Which passes most checks?", "behaviour", "checks_rate", "check_pass_rate", "higher", _CHECKS),
    _speed("ttft_s", "Which is fastest to the first token?"),
    _speed("tpot_s", "Which is fastest per token?"),
    _speed("e2e_s", "Which is fastest to the finished reply?"),
    Question("memory", "Which takes least memory?", "memory", "peak_memory_bytes", "peak_memory_bytes", "lower"),
    Question(
        "host_memory", "Which takes least memory?", "memory", "host_rss_bytes", "host_rss_bytes", "lower", None, True
    ),
    Question("load_s", "Which loads fastest?", "loading", "load_s", "load_s", "lower", None, True),
    Question("repetition", "Which repeats itself least?", "behaviour", "repetition_mean", "repetition", "lower"),
    Question("truncated", "Which is cut off least?", "behaviour", "truncated_rate", "truncation_rate", "lower"),
)
"""Host memory is asked for where no accelerator tells its own."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One of those that are compared: a setting, a model, or a value of a parameter."""

    name: str
    side: Side
    estimate: Estimate
    """Of several settings the mean of theirs – of times the geometric one, of memory the most – without interval."""


@dataclass(frozen=True, slots=True)
class Against:
    """Another contender, held against the best."""

    contender: Contender
    effect: Effect
    """The other as candidate, the best as baseline."""
    q: float | None = None
    """The adjusted p-value; None where there is nothing to test."""
    family: int = 1
    """How many differences it is adjusted among."""

    def needed(self) -> int | None:
        """How many launches or conversations would show a difference as large as the margin, planned as if it had to
        be found alone among all that are looked at: `Effect.needed` at the level that q asks of it then."""
        return self.effect.needed(level=(1 - CONFIDENCE) / self.family)

    def contrary(self, better: Better) -> bool:
        """Whether the paired difference, told or not, does not speak for the best as its value does."""
        if self.effect.value is None:
            return False
        none = 1 if self.effect.scale == "ratio" else 0
        return self.effect.value <= none if better == "lower" else self.effect.value >= none

    def outcome(self, better: Better) -> Outcome:
        """`worse`: told apart from the best. `better`: told apart the other way round – the best only came out best
        because what it answered was less work. Else `equivalent` within 5 %, or points, or `cannot tell`."""
        answer = self.effect.answer(self.q)
        if answer != "different":
            return answer
        return "better" if self.contrary(better) else "worse"


@dataclass(frozen=True, slots=True)
class Standing:
    """The answer to one question."""

    by: str
    """`setting`, `model`, or the name of a swept parameter."""
    question: Question
    best: Contender
    others: tuple[Against, ...]
    """In the order of their values, the next best first; at most `MOST_COMPARED`."""
    further: int
    """How many more there are, none with a better value than any of the others."""
    equal: tuple[str, ...]
    """Of all, compared or not, whose value is that of the best."""
    names: tuple[str, ...]
    """Of all that have a value, in the order of the config."""
    without: tuple[str, ...]
    """Of those that have none: where nothing was answered, or not in all of their settings."""
    given: str = ""
    """At which values of other swept parameters: `temperature=0.5`."""

    @property
    def tied(self) -> tuple[Against, ...]:
        """Those that the best could not be told from."""
        return self._that_came_out("equivalent", "cannot tell")

    @property
    def better(self) -> tuple[Against, ...]:
        """Those that did better than the best where both are held against each other."""
        return self._that_came_out("better")

    @property
    def worse(self) -> tuple[Against, ...]:
        """Those that the best was told from."""
        return self._that_came_out("worse")

    def _that_came_out(self, *so: Outcome) -> tuple[Against, ...]:
        return tuple(each for each in self.others if each.outcome(self.question.direction) in so)


@dataclass(frozen=True, slots=True)
class Standings:
    """All answers. A question that fewer than two contenders have a value for is not among them."""

    by_setting: tuple[Standing, ...]
    by_model: tuple[Standing, ...]
    """None of a run of one model."""
    by_parameter: tuple[Standing, ...]
    """None of a run that sweeps nothing."""


@dataclass(slots=True)
class _Field:
    """Those who compete: names and sides, and the rows of `by_setting` that each is made of."""

    by: str
    given: str
    sides: Sequence[tuple[str, Side, pd.DataFrame]]
    shared: dict[tuple[str, str], Work] = field(default_factory=dict)

    def work(self, ours: Contender, theirs: Contender) -> Work:
        key = ours.name, theirs.name
        if key not in self.shared:
            self.shared[key] = work(Pair(ours.side, theirs.side))
        return self.shared[key]


@once_per_run
def standings(run: Run) -> Standings:
    """The standings of a run."""
    table = by_setting(run)
    return Standings(
        *(_adjusted([_standing(*each) for each in _asked(table, fields)]) for fields in _fields(run, table))
    )


def _fields(run: Run, table: pd.DataFrame) -> tuple[list[_Field], list[_Field], list[_Field]]:
    varying = [name for name in SETTING if table[name].nunique() > 1] or ["model"]
    settings = [
        (
            " · ".join(_named(name, row[name]) for name in varying),
            Side(run, *(row[name] for name in SETTING)),
            table.iloc[[number]],
        )
        for number, row in enumerate(table[list(SETTING)].to_dict("records"))
    ]
    models = [(str(name), Side(run, model=str(name)), rows) for name, rows in table.groupby("model", sort=False)]
    values = [
        _Field(sweep.parameter, _given(run, sweep, rest), _levels(run, table, sweep, rest))
        for sweep in sweeps(run.manifest)
        if sweep.parameter != EACH  # that is asked by setting
        for rest in range(len(sweep.levels[0].samplings))
    ]
    return [_Field("setting", "", settings)], [_Field("model", "", models)], values


def _levels(run: Run, table: pd.DataFrame, sweep: Sweep, rest: int) -> list[tuple[str, Side, pd.DataFrame]]:
    """The values of a sweep with everything else alike."""
    named = [(level.value, level.samplings[rest]) for level in sweep.levels]
    return [
        ("not set" if value is None else value, Side(run, sampling=sampling), table[table["sampling"] == sampling])
        for value, sampling in named
    ]


def _given(run: Run, sweep: Sweep, rest: int) -> str:
    """At which values of other parameters, of those that the sweep is made at several of."""
    parameters = {sampling["name"]: sampling["parameters"] for sampling in run.plan["samplings"]}
    first = [parameters[name] for name in sweep.levels[0].samplings]
    names = dict.fromkeys(name for each in first for name in each if name != sweep.parameter)
    return ", ".join(
        f"{name}={json.dumps(first[rest].get(name), ensure_ascii=False)}"
        for name in names
        if any(each.get(name) != first[0].get(name) for each in first)
    )


def _named(axis: str, value: Any) -> str:
    return f"{value} at a time" if axis == "concurrency" else str(value)


def _asked(table: pd.DataFrame, fields: Sequence[_Field]) -> Iterator[tuple[_Field, Question, list[Contender]]]:
    """What there is to ask of whom: where two of them have a value at least."""
    accelerated = table["peak_memory_bytes"].notna().any()
    for each in fields:
        for question in QUESTIONS:
            if (question.of_process and each.by != "model") or (question.name == "host_memory" and accelerated):
                continue
            contenders = [Contender(name, side, _estimate(question, rows)) for name, side, rows in each.sides]
            if sum(contender.estimate.value is not None for contender in contenders) > 1:
                yield each, question, contenders


def _estimate(question: Question, rows: pd.DataFrame) -> Estimate:
    """The value of some settings: what the table by setting says of them, together."""
    values = [float(value) for value in rows[question.column].dropna()]
    if not values or len(values) < len(rows):
        return Estimate(None)
    if len(rows) > 1:
        return Estimate(_POOLED[question.kind](values))
    if question.bounds is None:
        return Estimate(values[0])
    low, high, basis = (rows[name].iloc[0] for name in question.bounds)
    if pd.isna(low):
        return Estimate(values[0])
    known: Basis = basis
    n = rows["conversations" if question.kind == "behaviour" else "launches"].iloc[0]
    return Estimate(values[0], float(low), float(high), known, int(n))


def _geometric(values: Sequence[float]) -> float:
    return math.exp(fmean(map(math.log, values))) if min(values) > 0 else fmean(values)


_POOLED: Mapping[Kind, Callable[[Sequence[float]], float]] = {
    "behaviour": fmean,
    "speed": _geometric,
    "memory": max,
    "loading": _geometric,
}


def _standing(each: _Field, question: Question, contenders: Sequence[Contender]) -> Standing:
    sign = 1 if question.direction == "lower" else -1
    known = [contender for contender in contenders if contender.estimate.value is not None]
    best, *others = sorted(known, key=lambda contender: sign * (contender.estimate.value or 0))
    against = tuple(Against(other, _effect(each, question, best, other)) for other in others[:MOST_COMPARED])
    without = tuple(contender.name for contender in contenders if contender not in known)
    names = tuple(contender.name for contender in known)
    equal = tuple(other.name for other in others if other.estimate.value == best.estimate.value)
    further = len(others) - len(against)
    return Standing(each.by, question, best, against, further, equal, names, without, each.given)


def _effect(each: _Field, question: Question, best: Contender, other: Contender) -> Effect:
    if question.kind == "behaviour":
        return behaviour_effect(best.side, other.side, question.metric)
    if question.kind == "loading":
        return launch_effect(best.side, other.side, question.metric)
    shared = each.work(best, other)
    if question.kind == "memory":
        return memory_of(shared, question.metric)
    return speed_of(shared, question.metric, any_length=question.metric in FREE_OF_LENGTH)


def _adjusted(found: Sequence[Standing]) -> tuple[Standing, ...]:
    """The standings with q-values, and with the number of differences there are to be told once samples are large
    enough: a sample too small for a test has a spread already, and is planned among the others."""
    qs, family = _q_values(found), max(1, sum(map(_pairs_with_a_spread, found)))
    return tuple(
        replace(
            standing,
            others=tuple(
                replace(each, q=None if each.effect.p is None else next(qs), family=family) for each in standing.others
            ),
        )
        for standing in found
    )


def _pairs_with_a_spread(standing: Standing) -> int:
    known = sum(each.effect.inference is not None and each.effect.inference.sd is not None for each in standing.others)
    rivals = known + standing.further if known else 0
    return rivals * (rivals + 1) // 2


def _q_values(found: Sequence[Standing]) -> Iterator[float]:
    """Of the tests that were made, among all that could have been."""
    ps = [[each.effect.p for each in standing.others if each.effect.p is not None] for standing in found]
    known = [p for each in ps for p in each]
    if not known:
        return iter(())
    tested = [(len(each), len(each) + standing.further) for each, standing in zip(ps, found, strict=True) if each]
    unseen = np.ones(sum(rivals * (rivals + 1) // 2 - made for made, rivals in tested))
    return iter(false_discovery_control([*known, *unseen])[: len(known)].tolist())
