"""What a run answers, in sentences: pico or nano, and which top_k?

A sentence is in the present tense where the best was told from all others, and in the past where the values merely came
out so. Names are foreign text; what does not show in them is written out, and nothing else is escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.analysis.effects import Effect
from harness.analysis.frames import Run
from harness.analysis.standings import Against, Kind, Question, Standing, standings
from harness.analysis.stats import Estimate
from harness.report import response
from harness.report.series import text
from harness.report.units import interval, memory, ms, number, percent, percents

_MOST_NAMES = 3
"""More names than these are no sentence."""
_LAUNCHES = 4
"""As configs/speed.yaml has them; fewer than three have intervals too wide to be of use."""


@dataclass(frozen=True, slots=True)
class _Said:
    """How the answer to a question is put into words."""

    does: str
    did: str
    most: str
    """Of several, …"""
    more: str
    """… and of two."""
    topic: str
    value: Callable[[Any], str]


def _seconds(value: Any) -> str:
    return f"{number(value)} s"


def _milliseconds(value: Any) -> str:
    return f"{ms(value)} ms"


_SAID: Mapping[str, _Said] = {
    "checks": _Said("passes", "passed", "most checks", "more checks", "checks passed", percent),
    "ttft_s": _Said(
        "is", "was", "fastest to the first token", "faster to the first token", "time to the first token", _milliseconds
    ),
    "tpot_s": _Said("is", "was", "fastest per token", "faster per token", "time per token", _milliseconds),
    "e2e_s": _Said(
        "is", "was", "fastest to the finished reply", "faster to the finished reply", "time to the reply", _milliseconds
    ),
    "memory": _Said("takes", "took", "least memory", "less memory", "memory", memory),
    "host_memory": _Said("takes", "took", "least memory", "less memory", "memory", memory),
    "load_s": _Said("loads", "loaded", "fastest", "faster", "loading", _seconds),
    "repetition": _Said("repeats", "repeated", "itself least", "itself less", "repetition", percent),
    "truncated": _Said("is", "was", "cut off least", "cut off less", "replies cut off", percent),
}


HELD_AGAINST: Mapping[Kind, str] = {
    "speed": "on turns of the very same work",
    "behaviour": "with every conversation counting the same",
    "memory": "on turns that both answered",
    "loading": "launch by launch",
}
"""What a paired difference is of, and the values of the tables are not."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is claimed of one question, or of several that are worth the same."""

    claims: tuple[str, ...]
    reservation: str = ""
    """Why that is not to be relied upon; empty where somebody was told apart."""

    def __str__(self) -> str:
        between = " – " if len(self.claims) > 1 else "; "
        return f"{'; '.join(self.claims)}{between if self.reservation else ''}{self.reservation}."


def answers(run: Run) -> list[tuple[str, list[Answer]]]:
    """The questions that a run was made for, each with its answers: which model, which value of each swept parameter;
    of a run that has neither, which setting."""
    found = standings(run)
    told = []
    if found.by_model:
        names = _names(found.by_model[0])
        asked = f"{' or '.join(names)}?" if len(names) <= _MOST_NAMES else "Which model?"
        told.append((asked, _summed_up(found.by_model, _leads)))
    swept: dict[tuple[str, str], list[Standing]] = {}
    for each in found.by_parameter:
        swept.setdefault((each.by, each.given), []).append(each)
    for (parameter, given), of_it in swept.items():
        told.append((f"Which {parameter}{f' at {text(given)}' if given else ''}?", _summed_up(of_it, _not_apart)))
    if not told and found.by_setting:
        told.append(("Which setting?", _summed_up(found.by_setting, _leads)))
    return told


def headline(run: Run) -> list[tuple[str, list[str]]]:
    """`answers` as sentences; none of very many turns, where comparing takes as long as everything else."""
    if len(run.turns) > response.MOST_TURNS:
        return []
    return [(asked, [str(answer) for answer in told]) for asked, told in answers(run)]


def worded(question: Question) -> Callable[[Any], str]:
    """How values of the question are written, with their unit."""
    return _SAID[question.name].value


def sentence(standing: Standing) -> str:
    """The answer to one question, with what it is worth."""
    return f"{_lead(standing)}{_lacking(standing)}{_told_apart(standing)}."


def _summed_up(standings: Sequence[Standing], claims: Callable[[Sequence[Standing]], tuple[str, ...]]) -> list[Answer]:
    """An answer to every question that tells anybody apart, or has more contenders than were compared, and one to those
    that do not and for the same reason."""
    apart = [each for each in standings if len(each.tied) < len(each.others) or each.further]
    for_reason: dict[str, list[Standing]] = {}
    for each in standings:
        if each not in apart:
            for_reason.setdefault(_reason([other.effect for other in each.others]), []).append(each)
    return [
        *(Answer((sentence(each).removesuffix("."),)) for each in apart),
        *(
            Answer(claims(alike), _why([other for standing in alike for other in standing.others]))
            for alike in for_reason.values()
        ),
    ]


def _leads(alike: Sequence[Standing]) -> tuple[str, ...]:
    return tuple(_lead(each) + _lacking(each) for each in alike)


def _not_apart(alike: Sequence[Standing]) -> tuple[str, ...]:
    topics = [_SAID[each.question.name].topic for each in alike]
    return (f"{_listed(_names(alike[0]))} cannot be told apart in {_joined(topics)}",)


def _lead(standing: Standing) -> str:
    """The answer by the values alone."""
    said, best, others = _SAID[standing.question.name], standing.best, standing.others
    if _no_values_differ(standing):
        value = said.value(best.estimate.value)
        return f"{_listed(_names(standing))} do not differ in {said.topic}: {value}{_but(standing)}"
    if len(others) == 1 and not standing.further:
        return _of_two(standing, others[0])
    verb = said.does if len(standing.worse) == len(others) and not standing.further else said.did
    claim = f"came out best in {said.topic}" if standing.better else f"{verb} {said.most}"
    lead = f"{text(best.name)} {claim} ({_valued(best.estimate, said)})"
    return lead + (f", as did {_listed([*map(text, standing.equal)])}" if standing.equal else "") + _but(standing)


def _no_values_differ(standing: Standing) -> bool:
    return len(standing.equal) == len(standing.names) - 1


def _of_two(standing: Standing, other: Against) -> str:
    """Who is better of two. Where the paired difference does not say so too, nothing is claimed but that the value came
    out better, and the difference is told with what it is of."""
    said, direction = _SAID[standing.question.name], standing.question.direction
    name, outcome = text(standing.best.name), other.outcome(direction)
    values = f"{said.value(standing.best.estimate.value)} against {said.value(other.contender.estimate.value)}"
    difference = _difference(other.effect, 1 if direction == "lower" else -1)
    if not other.contrary(direction) and outcome != "equivalent":
        verb = said.does if outcome == "worse" else said.did
        return f"{name} {verb} {said.more} ({values}{f', {difference}' if difference else ''})"
    lead = f"{name} came out better in {said.topic}"
    if outcome == "better":
        return f"{lead} ({values}){_but(standing)} ({_difference(other.effect, -1 if direction == 'lower' else 1)})"
    return (
        f"{lead} ({values}; {HELD_AGAINST[standing.question.kind]}{f': {difference}' if difference else ' it was not'})"
    )


def _but(standing: Standing) -> str:
    """Who did better than the best where the two were held against each other."""
    better = standing.better
    return f", but {HELD_AGAINST[standing.question.kind]} {_of(better)} did better" if better else ""


def _lacking(standing: Standing) -> str:
    lacking = [text(name) for name in standing.without]
    return f", {_listed(lacking)} {'has' if len(lacking) == 1 else 'have'} no such value" if lacking else ""


def _told_apart(standing: Standing) -> str:
    """Whom the best was told from, and whom not and why."""
    outcomes: dict[str, list[Against]] = {}
    for each in standing.others:
        outcomes.setdefault(each.outcome(standing.question.direction), []).append(each)
    if [*outcomes] == ["cannot tell"] and not standing.further:
        why = _why(standing.others)
        return f"; {why}" if why else ""
    parts = []
    alike = _no_values_differ(standing)
    if "worse" in outcomes and (len(outcomes) > 1 or alike):
        of = f"{HELD_AGAINST[standing.question.kind]} " if alike else ""
        parts.append(f"{of}{_of(outcomes['worse'])} {_are(outcomes['worse'])} worse")
    if "equivalent" in outcomes:
        parts.append(
            f"{_of(outcomes['equivalent'])} {_are(outcomes['equivalent'])} no different within 5 % or 5 points"
        )
    if "cannot tell" in outcomes:
        why = _why(outcomes["cannot tell"])
        parts.append(f"{_of(outcomes['cannot tell'])} cannot be told from it{f': {why}' if why else ''}")
    if standing.further:
        which = "of them" if alike else "more came out no better and"
        parts.append(f"{standing.further} {which} {'was' if standing.further == 1 else 'were'} not compared")
    return "".join(f"; {part}" for part in parts)


def _why(tied: Sequence[Against]) -> str:
    """Why nobody can tell, where it is for one reason, and how much more would tell."""
    effects = [each.effect for each in tied]
    basis, reason = effects[0].basis, _reason(effects)
    if basis == "one launch":
        return f"{reason} ({_LAUNCHES} launches begin to tell)"
    known = max((needed for each in tied if (needed := each.needed()) is not None), default=0)
    if basis is None or known <= effects[0].n or any(effect.basis != basis for effect in effects):
        return reason
    small = "5 points" if all(effect.scale == "difference" and not effect.relative for effect in effects) else "5 %"
    of = "launches" if basis == "launches" else "conversations"
    would = f"would show a difference of {small}"
    return f"{reason} ({known} {would})" if reason else f"{known} {of} {would}, there are {effects[0].n}"


def _reason(effects: Sequence[Effect]) -> str:
    """Why these have no answer, where it is the same for all."""
    reasons = {effect.reason.partition(" (")[0] if effect.reason else "" for effect in effects}
    return reasons.pop() if len(reasons) == 1 else ""


def _difference(effect: Effect, sign: int) -> str:
    """The interval of what two differ by: how many times the best's the other's value is, or the points that `sign`
    times the difference is a lead of."""
    if effect.low is None or effect.high is None:
        return ""
    if effect.scale == "ratio":
        return f"{number(effect.value)} times with 95 % interval {interval(effect.low, effect.high, number)}"
    low, high = sorted((100 * sign * effect.low, 100 * sign * effect.high))
    if low < 0:  # a dash between negative numbers does not read as one
        return f"a lead of {number(low)} to {number(high)} points with 95 % confidence"
    return f"difference {interval(low, high, number)} points with 95 % confidence"


def _valued(estimate: Estimate, said: _Said) -> str:
    if estimate.low is None or estimate.high is None:
        return said.value(estimate.value)
    between = (
        percents(estimate.low, estimate.high)
        if said.value is percent
        else f"{said.value(estimate.low)} to {said.value(estimate.high)}"
    )
    of = {"one launch": "of this launch", "few conversations": "of hardly more than these conversations"}
    over = of.get(str(estimate.basis), f"over {estimate.basis}")
    return f"{said.value(estimate.value)}, 95 % interval {between}, {over}"


def _of(some: Sequence[Against]) -> str:
    return _listed([text(each.contender.name) for each in some])


def _are(some: Sequence[Against]) -> str:
    return "is" if len(some) == 1 else "are"


def _names(standing: Standing) -> list[str]:
    return [text(name) for name in standing.names]


def _listed(names: Sequence[str]) -> str:
    """`a, b and c`, or `a, b, c and 4 others`."""
    more = len(names) - _MOST_NAMES
    return _joined([*names[:_MOST_NAMES], f"{more} others"] if more > 1 else names)


def _joined(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
