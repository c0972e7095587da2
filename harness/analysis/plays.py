"""What was said, conversation by conversation, by every play of it: for pages that set any two side by side.

A *play* is a cell without its conversation: who answered, in which launch and repeat. Conversations come one at a
time, so that whoever shows only some of a million turns never holds the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.analysis.arrays import view
from harness.analysis.frames import Run

MOST_PLAYS = 1000
"""Plays that are told of each conversation; more of them are repeats that nobody compares one by one."""
MOST_CHARACTERS = 4_000_000
"""Said by all plays of one conversation together: a browser lays them out when the conversation is opened."""
TIMES = ("ttft_s", "tpot_s", "output_tokens_per_s", "e2e_s")
_TOGETHER = 5000
"""Rows that are looked at together, give or take a conversation."""
_LOOKED_AT = (
    *("turn_index", "state", "user", "gold", "reply", "reasoning", "finish_reason", "checks"),
    *("error", "error_phase", "error_message", "prompt_tokens", "completion_tokens", *TIMES),
)
_Whole = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Play:
    """Who answered: a cell of a run without its conversation."""

    run_id: str
    model: str
    sampling: str
    concurrency: int
    launch: int
    repeat: int


@dataclass(frozen=True, slots=True)
class Said:
    """One answer to one turn. None where the turn did not get that far."""

    state: str
    user: str | None
    reply: str | None
    reasoning: str | None
    finish_reason: str | None
    error: str | None
    checks: tuple[tuple[str, bool, str], ...]
    """(check, passed, detail)"""
    prompt_tokens: int | None
    completion_tokens: int | None

    @property
    def characters(self) -> int:
        return sum(len(text) for text in (self.user, self.reply, self.reasoning, self.error) if text is not None)


@dataclass(frozen=True, slots=True)
class PlayedTurn:
    """One turn of a conversation with what every play of it said."""

    turn_index: int
    gold: str | None
    said: tuple[Said, ...]
    """The different answers, in the order of the plays."""
    by_play: Mapping[int, tuple[int, tuple[float | None, ...]]]
    """Number of the play → (which of `said`, its `TIMES`, to the microsecond); those that did not get so far are not in
    it."""


@dataclass(frozen=True, slots=True)
class Talk:
    """One conversation, told."""

    conversation_id: str
    turns: tuple[PlayedTurn, ...]

    @property
    def told(self) -> int:
        """How many turns of the runs are told of."""
        return sum(len(turn.by_play) for turn in self.turns)


def plays(runs: Sequence[Run]) -> list[Play]:
    """The plays of some runs: the first repeat of the first launch of every setting, then the other launches, then the
    other repeats; the first `MOST_PLAYS` of them."""
    everybody = [
        Play(run.run_id, model["label"], sampling["name"], level, launch, repeat)
        for run in runs
        for model, sampling, level, launch, repeat in product(
            run.plan["models"],
            run.plan["samplings"],
            run.plan.get("concurrency", [1]),  # format 1 knew no other
            range(run.plan["launches"]),
            range(run.plan["repeats"]),
        )
    ]
    return sorted(everybody, key=lambda play: (play.repeat, play.launch))[:MOST_PLAYS]


def tellable(runs: Sequence[Run]) -> int:
    """How many turns there is something to tell of."""
    return sum(int(_tellable(run).sum()) for run in runs)


def _tellable(run: Run) -> npt.NDArray[np.bool_]:
    """Turns that were played; of models with random weights only what went wrong, as replies mean nothing."""
    state = run.turns["state"]
    told: npt.NDArray[np.bool_] = (
        (state != "missing") & ((run.turns["weights"] != "random") | (state == "failed"))
    ).to_numpy(dtype=bool)
    return told


def talks(runs: Sequence[Run], of: Sequence[Play]) -> Iterator[Talk]:
    """The conversations of some runs in the order of their plans, as these plays went. Conversations of several runs
    are the same where their ids are."""
    ids = list(dict.fromkeys(entry["id"] for run in runs for entry in run.plan["conversations"]))
    rows = [_Rows.of(run, ids, of) for run in runs]
    sizes = np.sum([np.diff(each.start) for each in rows], axis=0)
    begin = 0
    while begin < len(ids):
        end, together = begin + 1, int(sizes[begin])
        while end < len(ids) and together + sizes[end] <= _TOGETHER:
            together += int(sizes[end])
            end += 1
        told: list[dict[int, dict[int, Mapping[str, Any]]]] = [{} for _ in range(begin, end)]
        for each in rows:
            for number, play, row in each.read(begin, end):
                told[number - begin].setdefault(row["turn_index"], {})[play] = row
        for conversation_id, by_turn in zip(ids[begin:end], told, strict=True):
            if by_turn:
                yield _talk(conversation_id, by_turn)
        begin = end


@dataclass(frozen=True, slots=True)
class _Rows:
    """Where in a run's table the turns of each conversation are."""

    run: Run
    row: _Whole
    """Conversation after conversation, the turns of each in order."""
    play: _Whole
    start: _Whole
    """Where in `row` each conversation begins; one entry more than there are conversations."""

    @classmethod
    def of(cls, run: Run, ids: Sequence[str], wanted: Sequence[Play]) -> _Rows:
        numbers = _play_numbers(run, wanted)
        row = np.flatnonzero(_tellable(run) & (numbers >= 0))
        talk = _places(run.turns["conversation_id"], ids)[row]
        order = np.lexsort((numbers[row], view(run)["turn_index"][row], talk))
        return cls(run, row[order], numbers[row][order], np.searchsorted(talk[order], np.arange(len(ids) + 1)))

    def read(self, begin: int, end: int) -> Iterator[tuple[int, int, Mapping[str, Any]]]:
        """(number of the conversation, number of the play, what the row holds) of conversations begin … end − 1."""
        here = slice(self.start[begin], self.start[end])
        talk = np.repeat(np.arange(begin, end), np.diff(self.start[begin : end + 1])).tolist()
        columns = [_listed(self.run.turns[name].iloc[self.row[here]]) for name in _LOOKED_AT]
        for number, play, *values in zip(talk, self.play[here].tolist(), *columns, strict=True):
            yield number, play, dict(zip(_LOOKED_AT, values, strict=True))


def _listed(column: pd.Series[Any]) -> list[Any]:
    """As plain values, None where absent; times to the microsecond, since no more is measured."""
    if column.name in TIMES:
        numbers = np.round(column.to_numpy(dtype=np.float64, na_value=np.nan), 6)
        return [None if number != number else number for number in numbers.tolist()]  # noqa: PLR0124 – NaN
    return [None if value is pd.NA else value for value in column.tolist()]


def _play_numbers(run: Run, wanted: Sequence[Play]) -> _Whole:
    """Of each row the number of its play; -1 for those that are not wanted."""
    axes: dict[str, list[Any]] = {
        "model": [model["label"] for model in run.plan["models"]],
        "sampling": [sampling["name"] for sampling in run.plan["samplings"]],
        "concurrency": list(run.plan.get("concurrency", [1])),
        "launch": list(range(run.plan["launches"])),
        "repeat": list(range(run.plan["repeats"])),
    }
    table = np.full([len(values) for values in axes.values()], -1, dtype=np.int64)
    for number, play in enumerate(wanted):
        if play.run_id == run.run_id:
            table[tuple(values.index(getattr(play, name)) for name, values in axes.items())] = number
    found: _Whole = table[tuple(_places(run.turns[name], values) for name, values in axes.items())]
    return found


def _places(column: pd.Series[Any], values: Sequence[Any]) -> _Whole:
    """Of each row the place of its value among these."""
    codes, seen = pd.factorize(column)
    where = {value: place for place, value in enumerate(values)}
    places: _Whole = np.array([where[value] for value in seen.tolist()], dtype=np.int64)[codes]
    return places


def _talk(conversation_id: str, by_turn: Mapping[int, Mapping[int, Mapping[str, Any]]]) -> Talk:
    said = {turn: {play: _said(row) for play, row in by_turn[turn].items()} for turn in sorted(by_turn)}
    kept = _few(said)
    return Talk(
        conversation_id,
        tuple(
            _turn(turn, {play: (one, by_turn[turn][play]) for play, one in everybody.items() if play in kept})
            for turn, everybody in said.items()
        ),
    )


def _few(said: Mapping[int, Mapping[int, Said]]) -> set[int]:
    """The plays that are told of: two, and as many more as `MOST_CHARACTERS` hold."""
    characters: dict[int, int] = {}
    for everybody in said.values():
        for play, one in everybody.items():
            characters[play] = characters.get(play, 0) + one.characters
    kept: set[int] = set()
    total = 0
    for play in sorted(characters):
        total += characters[play]
        if total > MOST_CHARACTERS and len(kept) >= 2:
            break
        kept.add(play)
    return kept


def _turn(index: int, everybody: Mapping[int, tuple[Said, Mapping[str, Any]]]) -> PlayedTurn:
    different: dict[Said, int] = {}
    by_play = {}
    for play, (one, row) in everybody.items():
        place = different.setdefault(one, len(different))
        by_play[play] = (place, tuple(row[name] for name in TIMES))
    golds = (row["gold"] for _, row in everybody.values() if row["gold"] is not None)
    return PlayedTurn(index, next(golds, None), tuple(different), by_play)


def _said(row: Mapping[str, Any]) -> Said:
    return Said(
        state=row["state"],
        user=row["user"],
        reply=row["reply"],
        reasoning=row["reasoning"],
        finish_reason=row["finish_reason"],
        error=f"{row['error']} ({row['error_phase']}): {row['error_message']}" if row["error"] else None,
        checks=tuple((check["check"], check["passed"], check["detail"]) for check in row["checks"] or ()),
        prompt_tokens=row["prompt_tokens"],
        completion_tokens=row["completion_tokens"],
    )
