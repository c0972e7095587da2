"""Server-sent events, read as they come: bytes in pieces of any size, events out as soon as they are complete.

The format is WHATWG's (HTML standard, 9.2.6): lines end in LF, CR or CRLF, an empty line ends an event, several `data`
lines are joined by LF, a line that begins with a colon is a comment. What is read depends on the bytes alone, never on
where they were cut. One thing is kinder than the standard: an event that the stream ends in is told, not dropped –
there are servers that leave out the last empty line.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its data, and its name where it has one."""

    data: str
    name: str = ""


@dataclass(slots=True)
class EventReader:
    """Reads one stream. It does no I/O."""

    _decoder: Any = field(default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"))
    _line: list[str] = field(default_factory=list)
    """The line that is still arriving, in pieces."""
    _data: list[str] = field(default_factory=list)
    _name: str = ""
    _after_cr: bool = False
    """Whether a LF that comes next belongs to the CR before it."""
    _begun: bool = False

    def feed(self, data: bytes) -> list[Event]:
        """The events that these bytes complete."""
        return self._take(self._decoder.decode(data))

    def close(self) -> list[Event]:
        """The stream has ended: the event that was not."""
        found = self._take(self._decoder.decode(b"", final=True))
        found += self._ended("".join(self._line)) if self._line else []
        self._line = []
        return found + self._ended("")

    def _take(self, text: str) -> list[Event]:
        if text and not self._begun:
            self._begun = True
            text = text.removeprefix("\ufeff")
        if text and self._after_cr:
            self._after_cr = False
            text = text.removeprefix("\n")
        self._after_cr = self._after_cr or text.endswith("\r")
        found: list[Event] = []
        # str.splitlines would also end lines at U+2028 and the like, which are text here.
        first, *rest = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._line.append(first)
        for piece in rest:
            found += self._ended("".join(self._line))
            self._line = [piece]
        return found

    def _ended(self, line: str) -> list[Event]:
        """A line is complete."""
        if not line:
            event = Event("\n".join(self._data), self._name)
            told = bool(self._data)
            self._data, self._name = [], ""
            return [event] if told else []
        name, _, value = line.partition(":")  # a comment has no name
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._name = value
        return []
