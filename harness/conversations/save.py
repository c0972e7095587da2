"""Conversations as prompts files: what `/save` in `harness chat` and `harness import` write."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import orjson
from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString, LiteralScalarString

from harness.conversations.load import LINES
from harness.conversations.script import Conversation
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
    yaml = YAML()
    yaml.width = 110
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = StringIO()
    yaml.dump({"conversations": [_blocks(entry)]}, stream)
    # Where it breaks a line of text, the library leaves a space behind that means nothing.
    return re.sub(r" +$", "", stream.getvalue().removeprefix(_HEAD.decode()), flags=re.MULTILINE)


def _blocks(value: Any) -> Any:
    """The value, its texts of several lines as blocks where they can be."""
    if isinstance(value, dict):
        return {key: _blocks(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_blocks(entry) for entry in value]
    if not isinstance(value, str) or value.isprintable():
        return value
    # Left to itself the library would take U+0085 and U+2028 for ends of lines.
    return LiteralScalarString(value) if _is_block(value) else DoubleQuotedScalarString(value)


def _is_block(text: str) -> bool:
    """Whether a YAML block shows these lines as they are."""
    lines = text.split("\n")
    ends = lines[0][:1].strip() and lines[-1]
    return len(lines) > 1 and bool(ends) and all(line == line.rstrip() and line.isprintable() for line in lines)
