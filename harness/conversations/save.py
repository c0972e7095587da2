"""Conversations as prompts files: what `/save` in `harness chat` and `harness import` write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from harness.conversations.load import LINES
from harness.conversations.script import Conversation
from harness.documents import yaml_text
from harness.errors import UsageError
from harness.records import Persona

_HEAD = b"conversations:\n"


@dataclass(frozen=True, slots=True)
class Writer:
    """How a prompts file begins, and how a conversation stands in it."""

    head: bytes
    item: Callable[[dict[str, Any]], bytes]


def writer_for(path: Path) -> Writer:
    """The writer that a file's name asks for: YAML, or JSON Lines. Raises UsageError for any other ending."""
    if path.suffix in (".yaml", ".yml"):
        return Writer(_HEAD, lambda entry: _item(entry).encode())
    if path.suffix == LINES:
        return Writer(b"", lambda entry: orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))
    raise UsageError(str(path), "is neither YAML nor JSON Lines", f"name it *.yaml, or *{LINES} if it is large")


def script_text(conversation: Conversation) -> str:
    """The conversation as YAML, its replies as gold replies. Checks are not written: a talk has none."""
    entry: dict[str, Any] = {"id": conversation.id}
    if conversation.persona != Persona():
        persona = {"user": conversation.persona.user, "assistant": conversation.persona.assistant}
        described = conversation.persona.description
        entry["persona"] = {"description": described, **persona} if described else persona
    if conversation.system:
        entry["system"] = conversation.system
    entry["turns"] = [
        {"user": turn.user} if turn.assistant is None else {"user": turn.user, "assistant": turn.assistant}
        for turn in conversation.turns
    ]
    return _HEAD.decode() + _item(entry)


def _item(entry: dict[str, Any]) -> str:
    """One item of `conversations`."""
    return yaml_text({"conversations": [entry]}).removeprefix(_HEAD.decode())
