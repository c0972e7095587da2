"""What every format makes of a record: a conversation that has no final id yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.conversations.importing.ledger import CannotSayError, Ledger
from harness.conversations.importing.records import Record
from harness.documents import encodable

Item = Mapping[str, Any]
"""A check, as a prompts file has it."""


@dataclass(frozen=True, slots=True)
class DraftTurn:
    """A user message, with its gold reply, and the checks and the rubric of the reply, if there are any."""

    user: str
    assistant: str | None = None
    expect: tuple[Item, ...] = ()
    rubric: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """A conversation, and the line where it stands."""

    line: int
    turns: tuple[DraftTurn, ...]
    id: str | None = None
    """Its own name, unique or not; None if it has none."""
    tags: tuple[str, ...] = ()
    system: str | None = None


Reader = Callable[[Iterator[Record], Ledger], Iterator[Draft]]
"""The records of a file → its conversations; what cannot be said is noted."""


def each(convert: Callable[[Record, Ledger], Draft]) -> Reader:
    """The reader of a format in which a record is a conversation."""

    def read(records: Iterator[Record], ledger: Ledger) -> Iterator[Draft]:
        for record in records:
            aside = Ledger()  # what changed within a conversation is of interest only if there is one
            try:
                if not isinstance(record.value, (dict, list)):
                    raise CannotSayError("a record that is no conversation")
                draft = convert(record, aside)
            except CannotSayError as reason:
                ledger.note(record.line, str(reason))
            else:
                ledger.add(aside)
                yield draft

    return read


def named(prefix: str, own: Any) -> str | None:
    """A conversation's name from its own: a number, which other files have too, gets the format's name before it."""
    given = str(own) if isinstance(own, (str, int, float)) and not isinstance(own, bool) else ""
    text = " ".join((encodable(given) or "").split())
    if not text:
        return None
    return f"{prefix}-{text}" if text.replace(".", "").isdecimal() else text


def tags_of(value: Mapping[str, Any], *keys: str) -> tuple[str, ...]:
    """The words under these keys, texts or lists of texts, each once."""
    found = [value.get(key) for key in keys]
    words = [word for entry in found for word in (entry if isinstance(entry, list) else [entry])]
    texts = [encodable(word) for word in words if isinstance(word, str)]
    return tuple(dict.fromkeys(text.strip() for text in texts if text and text.strip()))
