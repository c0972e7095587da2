"""A judge's answer, read strictly: what is not exactly a verdict is no verdict, and never a low score."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["score", "pass", "pair"]

_FENCED = re.compile(r"```[ \t]*\w*[ \t]*\r?\n(.*?)\r?\n?```", re.DOTALL)
_KEYS = {"score": "score", "pass": "pass", "pair": "better"}
_BETTER = {"A": 1.0, "B": 0.0, "tie": 0.5}
_EXCERPT = 300


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge said. `value` is the score from 1 to 10; 1 or 0 for pass or fail; 1, 0 or ½ where A, B or neither is
    better; None where it gave no verdict, and `detail` then says what is wrong instead of its reason."""

    value: float | None
    detail: str


def read_verdict(answer: str, kind: Kind) -> Verdict:
    """The verdict in an answer: the whole of it, or the whole of one Markdown code fence around it, is a JSON object
    with a reason and the verdict and nothing else."""
    fenced = _FENCED.fullmatch(answer.strip())
    try:
        found = json.loads(fenced[1] if fenced else answer, object_pairs_hook=_once_each, parse_constant=_refuse)
        return _checked(found, kind)
    except RecursionError:
        return _none("nested too deeply", answer)
    except ValueError as error:
        return _none(str(error), answer)


def _checked(found: Any, kind: Kind) -> Verdict:
    key = _KEYS[kind]
    if not isinstance(found, dict) or set(found) != {"reason", key}:
        raise ValueError(f"should be an object with reason and {key}, and nothing else")
    reason, said = found["reason"], found[key]
    if not isinstance(reason, str):
        raise ValueError("the reason should be text")
    return Verdict(_value(said, kind), " ".join(reason.split()))


def _value(said: Any, kind: Kind) -> float:
    if kind == "pass":
        if not isinstance(said, bool):
            raise ValueError("pass should be true or false")
        return float(said)
    if kind == "pair":
        if not isinstance(said, str) or said not in _BETTER:
            raise ValueError("better should be A, B or tie")
        return _BETTER[said]
    if not isinstance(said, int) or isinstance(said, bool) or not 1 <= said <= 10:
        raise ValueError("score should be a whole number from 1 to 10")
    return float(said)


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key occurs twice")
    return dict(pairs)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _none(fact: str, answer: str) -> Verdict:
    said = " ".join(answer.split())
    shown = said if len(said) <= _EXCERPT else f"{said[:_EXCERPT]}…"
    return Verdict(None, f"no verdict: {fact}; it said {shown!r}")
