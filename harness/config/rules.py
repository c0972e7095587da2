"""The `gate` section of a config: what must not get worse, by how much at the most, and where.

    ttft_s: +8%                                 the metric's paired effect, over the turns that are the same work
    decode_tokens_per_s.p50: -5%                a statistic over the turns of a launch
    peak_memory_bytes.max: +256MiB              in any unit of the metric, or in per cent
    e2e_s where model=nano: +10%                only there; among rules for one cell the one that says most decides
    tpot_s per conversation: auto               one cell for each; auto: as little as the noise lets be seen
    checks: exact                               what passed in all repeats must pass
    text: divergence                            the blessed replies must stay as likely
    failures: 0                                 so many turns may fail

Which way is worse is known from the table of metrics, so a sign that points the other way is a mistake. Only names are
dealt with here, so that a config is checked before anything is measured; `analysis/gate.py` judges.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from harness.config.durations import seconds
from harness.config.figures import LEAST_TURNS, RATES, STATISTICS, amount, known_metrics
from harness.documents import Keys, Problem, Shape, described, did_you_mean

if TYPE_CHECKING:
    from harness.config.plan import Plan
    from harness.metrics import Metric

Kind = Literal["speed", "memory", "checks", "text", "failures"]
Grain = Literal["setting", "model", "conversation", "turn"]
"""What there is a cell of: model × sampling × concurrency, or of all settings of a model; of each of these again by
conversation, or by the position of the turn."""
Axis = Literal["model", "sampling", "concurrency", "conversation", "turn"]

WORDS: Mapping[str, str] = {"checks": "exact", "text": "divergence", "failures": "0"}
"""What is judged besides metrics, with what to write for it."""
OF_THE_ANCHOR = ("the anchor is what speed is relative to, and not judged on it", "leave it out")
_SUBJECT = re.compile(r"\s*([\w.]+)(?:\s+per\s+(.+?))?(?:\s+where\s+(.+?))?\s*")
_BOUND = re.compile(r"\s*([-+]?)\s*(\d+(?:\.\d*)?|\.\d+)\s*([^\d\s.]\S*)?\s*")


@dataclass(frozen=True, slots=True)
class Margin:
    """How much worse is too much: a share of the baseline, or an amount in the metric's own unit."""

    amount: float
    """Above 0 for a speed, from 0 for memory; whichever way is worse."""
    relative: bool


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the rules."""

    text: str
    """As it was written: `ttft_s.p50: +8%`."""
    kind: Kind
    subject: str
    """The name of a metric; checks, text or failures."""
    statistic: str | None = None
    """None: the paired effect, or no metric at all."""
    per: tuple[Grain, ...] = ("setting",)
    where: tuple[tuple[Axis, str], ...] = ()
    margin: Margin | None = None
    """None: `auto`, or no metric."""
    most: int = 0
    """How many turns of a cell may fail."""

    @property
    def name(self) -> str:
        return self.subject if self.statistic is None else f"{self.subject}.{self.statistic}"

    @property
    def metric(self) -> Metric | None:
        return known_metrics().get(self.subject)


def parse_rule(subject: str, bound: Any) -> Rule:
    """The rule of a line such as `ttft_s.p50 per turn where model=nano: +8%`.

    Raises ValueError with a sentence that says what is wrong and what to write.
    """
    found = _SUBJECT.fullmatch(subject)
    if found is None:
        raise ValueError(f"{subject!r} is no rule – write one such as ttft_s.p50 per turn where model=nano: +8%")
    name, per, where = found.groups()
    text = f"{' '.join(subject.split())}: {bound}"
    grains, conditions = _grains(per), _conditions(where)
    if name in WORDS:
        if per:
            raise ValueError(f"{name} has one verdict per setting, which names the turns – leave out per {per}")
        if name == "text" and any(axis in ("conversation", "turn") for axis, _ in conditions):
            raise ValueError("text is judged by all replies of a setting – choose by model, sampling or concurrency")
        most = _word(name, bound)
        return Rule(text, name, name, where=conditions, most=most)  # type: ignore[arg-type]  # WORDS holds such kinds
    metric, statistic = _figure(name)
    if metric.direction == "neither":
        raise ValueError(f"neither more nor less of {metric.name} is worse – name another metric")
    kind: Kind = "memory" if metric.unit == "bytes" else "speed"
    return Rule(text, kind, metric.name, statistic, grains, conditions, _margin(metric, bound))


def _figure(name: str) -> tuple[Metric, str | None]:
    quantity, dot, statistic = name.partition(".")
    metrics = known_metrics()
    if quantity in RATES:
        raise ValueError(f"{quantity} is a rate, which no rule is about – write checks: exact or failures: 0")
    if quantity not in metrics:
        raise ValueError(_with(f"there is no metric {quantity}", did_you_mean(quantity, [*metrics, *WORDS])))
    metric = metrics[quantity]
    if dot and statistic not in STATISTICS:
        known = ", ".join(f"{quantity}.{each}" for each in STATISTICS)
        raise ValueError(_with(f"{quantity} has no statistic {statistic or 'of no name'}", f"write one of {known}"))
    if not dot:
        return metric, "max" if metric.unit == "bytes" else None
    return metric, statistic


def _grains(text: str | None) -> tuple[Grain, ...]:
    if text is None:
        return ("setting",)
    words = re.split(r"\s+and\s+", text)
    known = get_args(Grain)
    for word in words:
        if word not in known:
            raise ValueError(_with(f"there are no cells per {word}", did_you_mean(word, known)))
    if len(set(words)) < len(words) or {"setting", "model"} <= set(words):
        raise ValueError(f"per {text} says one thing twice – write per model and turn, or per turn")
    grains = words if {"setting", "model"} & set(words) else ["setting", *words]
    return tuple(grain for grain in known if grain in grains)


def _conditions(text: str | None) -> tuple[tuple[Axis, str], ...]:
    conditions: dict[Any, str] = {}
    for part in re.split(r"\s*,\s*", text) if text is not None else ():
        axis, equals, value = (each.strip() for each in part.partition("="))
        known = get_args(Axis)
        if not equals or not value:
            raise ValueError(f"{part!r} is no condition – write model=nano, several with commas between")
        if axis not in known:
            raise ValueError(_with(f"there is no {axis} to choose by", did_you_mean(axis, known)))
        if axis in conditions:
            raise ValueError(f"{axis} can only be one thing – leave one of them out")
        if axis in ("concurrency", "turn") and not value.isdecimal():
            raise ValueError(f"{axis} is a number, not {value!r} – write {axis}=0" if axis == "turn" else
                             f"{axis} is a number, not {value!r} – write {axis}=1")  # fmt: skip
        conditions[axis] = value
    return tuple(conditions.items())


def _word(name: str, bound: Any) -> int:
    """What may fail."""
    if name == "failures" and not isinstance(bound, bool) and re.fullmatch(r"\s*\d+\s*", str(bound)):
        return int(bound)
    if name == "failures":
        raise ValueError(f"should be how many turns may fail, not {described(bound)} – write failures: 0")
    if bound != WORDS[name]:
        raise ValueError(f"should be {WORDS[name]}, not {described(bound)} – write {name}: {WORDS[name]}")
    return 0


def _margin(metric: Metric, bound: Any) -> Margin | None:
    """None for `auto`."""
    if bound == "auto":
        return None
    worse, better = ("+", "-") if metric.direction == "lower" else ("-", "+")
    example = f"write {worse}5%"
    found = _BOUND.fullmatch(bound) if isinstance(bound, str) else None
    if found is None:
        raise ValueError(f"should be how much worse is too much, not {described(bound)} – {example}, or auto")
    sign, number, unit = found.groups()
    if sign == better:
        fact = f"{metric.name} is the better the {metric.direction} it is, so {bound} is no worsening"
        raise ValueError(f"{fact} – write {worse}{number}{unit or ''}")
    if not sign:
        raise ValueError(f"{bound} says no direction – write {worse}{number}{unit or '%'}")
    if unit is None:
        raise ValueError(f"{bound} has no unit – write {worse}{number}%, or a number of {metric.unit}")
    if unit == "%":
        value = float(number) / 100
        if worse == "-" and value >= 1:
            raise ValueError(f"{metric.name} cannot fall by {number} % – {example}")
    else:
        value = amount(float(number), unit, metric.unit, metric.name)
    if not value and not (metric.unit == "bytes"):
        raise ValueError(f"no margin at all is what auto is for – {example}, or auto")
    return Margin(value, relative=unit == "%")


def _with_subjects(rules: Any) -> Any:
    """Each value with its key, which a validator of values does not see."""
    return {subject: (subject, bound) for subject, bound in rules.items()} if isinstance(rules, dict) else rules


def _judged(line: tuple[str, Any]) -> Any:
    parse_rule(*line)
    return line[1]


def _a_time(text: str | None) -> str | None:
    if text is not None:
        seconds(text)
    return text


class Gating(Shape):
    """What a night is judged by."""

    rules: Annotated[
        dict[str, Annotated[Any, AfterValidator(_judged)]],
        BeforeValidator(_with_subjects),
        Field(min_length=1, description="What must not get worse, and by how much at the most: ttft_s: +8%"),
    ]
    window: Annotated[int, Field(ge=1, description="How many of the newest baselines a night is held against")] = 20
    anchor: Annotated[
        str | None,
        Field(min_length=1, description="Label of the model that measures the machine; speed is relative to it"),
    ] = None
    confirm_launches: Annotated[
        int, Field(ge=1, description="Further launches of a suspicious cell before it is called a regression")
    ] = 3

    budget: Annotated[
        str | None,
        AfterValidator(_a_time),
        Field(description="How long harness nightly may take, such as 45min: the most informative settings first"),
    ] = None

    @field_validator("rules")
    @classmethod
    def _no_cell_twice(cls, rules: dict[str, Any]) -> dict[str, Any]:
        seen: dict[tuple[Any, ...], str] = {}
        for subject, bound in rules.items():
            rule = parse_rule(subject, bound)
            same = (rule.subject, rule.statistic, frozenset(rule.per), frozenset(rule.where))
            if same in seen:
                raise ValueError(f"{seen[same]} and {subject} are one rule – leave one of them out")
            seen[same] = subject
        return rules

    @property
    def budget_s(self) -> float | None:
        """The budget in seconds; None where there is none."""
        return None if self.budget is None else seconds(self.budget)

    @property
    def parsed(self) -> tuple[Rule, ...]:
        """The rules, in the order in which they were written."""
        return tuple(parse_rule(subject, bound) for subject, bound in self.rules.items())


def rule_problems(plan: Plan) -> list[Problem]:
    """What keeps the rules of a planned config from ever being judged: names that the plan does not have, statistics of
    more turns than there are, checks where there are none."""
    gating = plan.config.gate
    if gating is None:
        return []
    labels = [str(spec.label) for spec in plan.models]
    problems = [
        Problem(("gate", "anchor"), f"there is no model {gating.anchor}", did_you_mean(gating.anchor, labels))
        for _ in [0]
        if gating.anchor is not None and gating.anchor not in labels
    ]
    for written, rule in zip(gating.rules, gating.parsed, strict=True):
        path: Keys = ("gate", "rules", written)
        problems += [Problem(path, *found) for found in (*_strangers(rule, plan), *_never_judged(rule, plan))]
    return problems


def _strangers(rule: Rule, plan: Plan) -> Iterator[tuple[str, str]]:
    known: Mapping[Axis, Sequence[str]] = {
        "model": [str(spec.label) for spec in plan.models],
        "sampling": [sampling.name for sampling in plan.samplings],
        "concurrency": [str(level) for level in plan.config.concurrency],
        "conversation": [talk.id for talk in plan.conversations],
        "turn": [str(turn) for turn in range(max(len(talk.turns) for talk in plan.conversations))],
    }
    for axis, value in rule.where:
        if value not in known[axis]:
            yield f"there is no {axis} {value}", did_you_mean(value, known[axis])
    where = dict(rule.where)
    turns = {talk.id: len(talk.turns) for talk in plan.conversations}.get(where.get("conversation", ""))
    if turns is not None and where.get("turn") in known["turn"] and int(where["turn"]) >= turns:
        yield f"{where['conversation']} has no turn {where['turn']}", f"its last one is turn={turns - 1}"
    gating = plan.config.gate
    if rule.kind == "speed" and gating is not None and gating.anchor and where.get("model") == gating.anchor:
        yield OF_THE_ANCHOR


def _never_judged(rule: Rule, plan: Plan) -> Iterator[tuple[str, str]]:
    babble = plan.config.length == "fixed" or all(spec.weights == "random" for spec in plan.models)
    if rule.kind == "checks" and babble:
        yield "replies are forced to a length, or come from random weights: no check means anything", "leave it out"
    elif rule.kind == "checks" and not any(talk.expect or any(turn.expect for turn in talk.turns)
                                           for talk in plan.conversations):  # fmt: skip
        yield "no conversation has a check", "write expect: into some, or leave it out"
    least = LEAST_TURNS.get(rule.statistic or "", 1)
    turns = sum(len(plan.turns_of(talk)) for talk in plan.conversations) * plan.repeats
    turns *= len(plan.samplings) * len(plan.config.concurrency) if "model" in rule.per else 1
    if turns < least:
        fact = f"{rule.name} takes {least} turns of a launch, and there are {turns}"
        yield fact, f"more repeats or conversations, or {rule.subject}.p50"


def _with(fact: str, remedy: str) -> str:
    return f"{fact} – {remedy}" if remedy else fact
