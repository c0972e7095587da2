"""What was said: for every turn of every conversation, what each setting answered; identical answers are merged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.analysis.frames import Run
from harness.analysis.stats import centre


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of one setting, and where it was given. None where the turn did not get that far."""

    model: str
    sampling: str
    state: str
    given: Mapping[int, tuple[int, ...]]
    """Launch → the repeats that gave this very answer."""
    user: str | None
    reply: str | None
    reasoning: str | None
    finish_reason: str | None
    error: str | None
    checks: tuple[tuple[str, bool, str], ...]
    """(check, passed, detail)"""
    prompt_tokens: int | None
    completion_tokens: int | None
    ttft_s: float | None
    """p50 over the cells it was given in, as is the speed below."""
    output_tokens_per_s: float | None


@dataclass(frozen=True, slots=True)
class Exchange:
    """One turn of a conversation with everybody's answers, in the order of the config."""

    conversation_id: str
    turn_index: int
    user: str | None
    """What the user said; where captured variables made it differ, what the first answer heard."""
    gold: str | None
    answers: tuple[Answer, ...]


_SAME = ("model", "sampling", "state", "user", "reply", "reasoning", "finish_reason")
"""What answers must have in common to be shown as one, beside errors, checks and tokens."""
_LOOKED_AT = [
    *("conversation_id", "turn_index", "launch", "repeat", *_SAME, "gold", "error", "error_phase", "error_message"),
    *("checks", "prompt_tokens", "completion_tokens", "ttft_s", "output_tokens_per_s"),
]


def transcripts(run: Run) -> list[Exchange]:
    """Every turn that was played, conversation by conversation, in the order of the plan."""
    played = run.turns.loc[run.turns["state"] != "missing", _LOOKED_AT].astype(object)
    rows = played.where(played.notna(), None).to_dict("records")
    by_place: dict[tuple[str, int], list[Mapping[Any, Any]]] = {}
    for row in rows:
        by_place.setdefault((row["conversation_id"], row["turn_index"]), []).append(row)
    order = {conversation["id"]: index for index, conversation in enumerate(run.plan["conversations"])}
    places = sorted(by_place, key=lambda place: (order[place[0]], place[1]))
    return [_exchange(place, by_place[place]) for place in places]


def _exchange(place: tuple[str, int], rows: list[Mapping[Any, Any]]) -> Exchange:
    merged: dict[tuple[Any, ...], list[Mapping[Any, Any]]] = {}
    for row in rows:
        merged.setdefault(_identity(row), []).append(row)
    return Exchange(
        conversation_id=place[0],
        turn_index=int(place[1]),
        user=next((row["user"] for row in rows if row["user"] is not None), None),
        gold=next((row["gold"] for row in rows if row["gold"] is not None), None),
        answers=tuple(_answer(identity, same) for identity, same in merged.items()),
    )


def _identity(row: Mapping[Any, Any]) -> tuple[Any, ...]:
    error = f"{row['error']} ({row['error_phase']}): {row['error_message']}" if row["error"] else None
    checks = tuple((check["check"], check["passed"], check["detail"]) for check in row["checks"] or ())
    return (*(row[name] for name in _SAME), error, checks, row["prompt_tokens"], row["completion_tokens"])


def _answer(identity: tuple[Any, ...], rows: list[Mapping[Any, Any]]) -> Answer:
    values = dict(zip((*_SAME, "error", "checks", "prompt_tokens", "completion_tokens"), identity, strict=True))
    given: dict[int, tuple[int, ...]] = {}
    for row in rows:
        given[row["launch"]] = (*given.get(row["launch"], ()), row["repeat"])
    return Answer(
        **values,
        given=given,
        ttft_s=_typical(rows, "ttft_s"),
        output_tokens_per_s=_typical(rows, "output_tokens_per_s"),
    )


def _typical(rows: list[Mapping[Any, Any]], metric: str) -> float | None:
    by_launch: dict[int, list[float]] = {}
    for row in rows:
        if row[metric] is not None:
            by_launch.setdefault(row["launch"], []).append(row[metric])
    return centre(by_launch)
