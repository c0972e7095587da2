"""What was said: for every turn of every conversation, what each setting answered; identical answers are merged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.analysis.arrays import SETTING
from harness.analysis.frames import Run
from harness.analysis.stats import centre


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of one setting, and where it was given. None where the turn did not get that far."""

    model: str
    sampling: str
    concurrency: int
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

    @property
    def turns(self) -> int:
        """In how many turns of the run these answers were given."""
        return sum(len(repeats) for answer in self.answers for repeats in answer.given.values())

    @property
    def characters(self) -> int:
        """How much was said."""
        said = [self.user, self.gold, *(text for each in self.answers for text in (each.reply, each.reasoning))]
        return sum(len(text) for text in said if text is not None)


MOST_ANSWERS = 10
"""Different answers of one setting to one turn that are shown."""
MOST_TURNS = 2000
MOST_CHARACTERS = 1_000_000
"""A page of more is not read, and browsers take long to lay it out."""


@dataclass(frozen=True, slots=True)
class Transcripts:
    """What was said, as much of it as a page can hold."""

    exchanges: tuple[Exchange, ...]
    left_out: int
    """Turns whose answers are not among them."""


_Merged = dict[tuple[Any, ...], list[Mapping[str, Any]]]
"""What makes answers the same → the rows that have it."""


_SAME = (*SETTING, "state", "user", "reply", "reasoning", "finish_reason")
"""What answers must have in common to be shown as one, beside errors, checks and tokens."""
_LOOKED_AT = [
    *("conversation_id", "turn_index", "launch", "repeat", *_SAME, "gold", "error", "error_phase", "error_message"),
    *("checks", "prompt_tokens", "completion_tokens", "ttft_s", "output_tokens_per_s"),
]


def transcripts(run: Run) -> Transcripts:
    """The turns that were played, conversation by conversation, in the order of the plan, until `MOST_TURNS` have been
    looked at or `MOST_CHARACTERS` were said; without what models with random weights said, unless it was no reply but
    an error."""
    told = (run.turns["weights"] != "random") | (run.turns["state"] == "failed")
    played = run.turns.loc[(run.turns["state"] != "missing") & told, ["conversation_id", "turn_index"]]
    order = {conversation["id"]: index for index, conversation in enumerate(run.plan["conversations"])}
    places = played.assign(order=played["conversation_id"].map(order).astype("int64"))
    places = places.sort_values(["order", "turn_index"], kind="stable")
    several = places.groupby(["order", "turn_index"], sort=False).ngroup()
    # Whole turns only: who answered what is to be compared.
    looked_at = places[several <= several.iloc[MOST_TURNS - 1]] if len(places) > MOST_TURNS else places
    rows = run.turns.loc[looked_at.index, _LOOKED_AT]
    values = {name: [None if value is pd.NA else value for value in rows[name].tolist()] for name in _LOOKED_AT}
    by_place: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for cells in zip(*values.values(), strict=True):
        row = dict(zip(_LOOKED_AT, cells, strict=True))
        by_place.setdefault((row["conversation_id"], row["turn_index"]), []).append(row)
    exchanges: list[Exchange] = []
    characters = 0
    for place, same in by_place.items():
        exchanges.append(_exchange(place, same))
        characters += exchanges[-1].characters
        if characters > MOST_CHARACTERS:
            break
    return Transcripts(tuple(exchanges), len(places) - sum(exchange.turns for exchange in exchanges))


def _exchange(place: tuple[str, int], rows: list[Mapping[str, Any]]) -> Exchange:
    merged: _Merged = {}
    for row in rows:
        merged.setdefault(_identity(row), []).append(row)
    return Exchange(
        conversation_id=place[0],
        turn_index=int(place[1]),
        user=next((row["user"] for row in rows if row["user"] is not None), None),
        gold=next((row["gold"] for row in rows if row["gold"] is not None), None),
        answers=tuple(_answer(identity, same) for identity, same in _few(merged).items()),
    )


def _few(merged: _Merged) -> _Merged:
    """Of each setting the first `MOST_ANSWERS` answers."""
    by_setting: dict[tuple[Any, ...], _Merged] = {}
    for identity, same in merged.items():
        by_setting.setdefault(identity[: len(SETTING)], {})[identity] = same
    few = {identity for answers in by_setting.values() for identity in list(answers)[:MOST_ANSWERS]}
    return {identity: same for identity, same in merged.items() if identity in few}


def _identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
    error = f"{row['error']} ({row['error_phase']}): {row['error_message']}" if row["error"] else None
    checks = tuple((check["check"], check["passed"], check["detail"]) for check in row["checks"] or ())
    return (*(row[name] for name in _SAME), error, checks, row["prompt_tokens"], row["completion_tokens"])


def _answer(identity: tuple[Any, ...], rows: list[Mapping[str, Any]]) -> Answer:
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


def _typical(rows: list[Mapping[str, Any]], metric: str) -> float | None:
    by_launch: dict[int, list[float]] = {}
    for row in rows:
        if row[metric] is not None:
            by_launch.setdefault(row["launch"], []).append(row[metric])
    return centre(by_launch)
