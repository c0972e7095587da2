"""The figures of a verdict as people read them, and which verdicts come first. Plain text: nothing is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from harness.analysis.verdict import Answer, Gate, Verdict
from harness.report.units import ABSENT, memory, ms, number

WORST_FIRST: tuple[Answer, ...] = ("regression", "not comparable", "suspicion", "cannot tell", "not run", "pass")
assert set(WORST_FIRST) == set(get_args(Answer))


def worst_first(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts that somebody has to look at before the others; as they were among equals."""
    return sorted(verdicts, key=lambda verdict: WORST_FIRST.index(verdict.answer))


def counts(gate: Gate) -> dict[Answer, int]:
    """How many verdicts there are of each answer that was given, worst first."""
    return {answer: n for answer in WORST_FIRST if (n := len(gate.of(answer)))}


def value(verdict: Verdict, of: float | None) -> str:
    """The baseline's value, or tonight's."""
    return ABSENT if of is None else _amount(of, verdict.unit)


def change(verdict: Verdict, of: float | None) -> str:
    """A change, an end of its interval or a margin, with its sign: `+8.3 %`, `+256 MiB`."""
    if of is None:
        return ABSENT
    if verdict.scale == "ratio":
        return f"{100 * (of - 1):+.1f} %"
    return ("-" if of < 0 else "+") + _amount(abs(of), verdict.unit)


def between(verdict: Verdict) -> str:
    """The interval of the change: `+6.1 % to +10.4 %`; nothing where there is none."""
    if verdict.low is None or verdict.high is None:
        return ""
    return f"{change(verdict, verdict.low)} to {change(verdict, verdict.high)}"


def _amount(of: float, unit: str) -> str:
    if unit == "s":
        return f"{ms(of)} ms"
    if unit == "bytes":
        return memory(of)
    return f"{number(of)} {unit}".rstrip()
