"""What a scorer may look at: one reply, what it answers, and what the script says about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.analysis.frames import Run
from harness.records import Cell, Message, ReplyId

_COLUMNS = (
    *("model", "sampling", "conversation_id", "repeat", "launch", "concurrency", "turn_index", "attempt"),
    *("state", "history", "length", "weights", "user", "gold", "reply", "checks"),
)
_ROWS = 20_000
"""Looked at together: a run may have a million."""


@dataclass(frozen=True, slots=True)
class Said:
    """One reply of a conversation."""

    row: int
    """Where it stands in `Run.turns`."""
    id: ReplyId
    user: str
    reply: str
    gold: str | None
    """The gold reply; None also where it answers another history than the model had."""
    before: tuple[Message, ...]
    """What the model had been told before: system text, and user messages with the replies that fed its history."""
    earlier: tuple[str, ...]
    """The model's own replies before it, in order."""
    checks: tuple[tuple[str, bool], ...]
    """(check, passed)"""
    language: str | None
    """The script's language tag."""
    user_name: str
    """What the user is called in the script."""
    persona: bool
    """Whether the script says who the assistant is."""


def said(run: Run) -> Iterator[Said]:
    """Every reply that means something, in the order of `Run.turns`; none of what was forced to a length or came from
    random weights."""
    scripts = {conversation["id"]: _Script.of(conversation) for conversation in run.plan["conversations"]}
    cell: Cell | None = None
    before: tuple[Message, ...] = ()
    earlier: tuple[str, ...] = ()
    for number, row in enumerate(_rows(run.turns)):
        here = Cell(*(row[name] for name in _COLUMNS[:6]))
        script = scripts[here.conversation_id]
        if here != cell:
            cell, before, earlier = here, script.opening, ()
        if row["state"] != "done" or row["reply"] is None or row["length"] == "fixed" or row["weights"] == "random":
            continue
        same_history = row["turn_index"] == 0 or row["history"] == "scripted"
        yield Said(
            row=number,
            id=ReplyId(here, row["turn_index"], row["attempt"]),
            user=row["user"],
            reply=row["reply"],
            gold=row["gold"] if same_history else None,
            before=before,
            earlier=earlier,
            checks=tuple((check["check"], check["passed"]) for check in row["checks"] or ()),
            language=script.language,
            user_name=script.user_name,
            persona=script.persona,
        )
        earlier = (*earlier, row["reply"])
        fed = row["gold"] if row["history"] == "scripted" and row["gold"] is not None else row["reply"]
        before = (*before, Message("user", row["user"]), Message("assistant", fed))


@dataclass(frozen=True, slots=True)
class _Script:
    language: str | None
    user_name: str
    persona: bool
    opening: tuple[Message, ...]

    @classmethod
    def of(cls, conversation: Mapping[str, Any]) -> _Script:
        # The first versions did not store who speaks.
        persona = conversation.get("persona") or {"user": "User", "assistant": "Assistant", "description": None}
        told = bool(persona["description"]) or persona["assistant"] != "Assistant"
        system = [line for line in (persona["description"], conversation.get("system")) if line]
        opening = (Message("system", "\n".join(system)),) if system else ()
        return cls(conversation.get("language"), persona["user"], told, opening)


def _rows(turns: pd.DataFrame, names: Sequence[str] = _COLUMNS) -> Iterator[dict[str, Any]]:
    for start in range(0, len(turns), _ROWS):
        rows = turns.iloc[start : start + _ROWS]
        values = [[None if value is pd.NA else value for value in rows[name].tolist()] for name in names]
        for cells in zip(*values, strict=True):
            yield dict(zip(names, cells, strict=True))
