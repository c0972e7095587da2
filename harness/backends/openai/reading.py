"""An answer as it is read: what came when, why it ended, and what the server counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.backends.openai.arrivals import Arrival
from harness.backends.openai.chunks import Chunk, Usage, read_chunk
from harness.backends.openai.faults import ServerFault
from harness.backends.openai.sse import Event, EventReader
from harness.backends.openai.wire import Read

_ENDS = ("stop", "length", "eos", "eos_token", "stop_sequence")
"""Why a reply may have ended; TGI has three words of its own."""


@dataclass(slots=True)
class Reading:
    """One answer. It does no I/O."""

    counts_along: bool = False
    """Whether the server counts with every chunk; the counts of others come last, and nothing need be waited for then,
    least of all a [DONE] that some never send."""
    arrivals: list[Arrival] = field(default_factory=list)
    usage: Usage | None = None
    finish: str | None = None
    stopped_by: str | None = None
    end_ns: int = 0
    """When the end of the reply was read."""
    last_ns: int | None = None
    """When anything of it was read last."""
    _events: EventReader = field(default_factory=EventReader)
    _read: int | None = None
    """The number of the read that the last arrival is of."""

    def take(self, read: Read) -> tuple[list[str], bool]:
        """(the texts that a read brought, whether it was the last). Raises ServerFault."""
        return self._take(read, self._events.feed(read.data))

    def close(self) -> list[str]:
        """The stream has ended; the texts of what it ended in. Raises ServerFault where the reply had not."""
        texts, _ = self._take(Read(self.last_ns or 0, self._read or 0, b""), self._events.close())
        return texts

    def demand_an_end(self) -> None:
        """Raise ServerFault unless the reply has come to an end of its own."""
        if self.finish is None:
            raise ServerFault("StreamCut", "the stream ended before the reply did")
        if self.finish not in _ENDS:
            raise ServerFault("Unfinished", f"the server ended the reply with finish_reason {self.finish!r}")

    def content(self, arrivals: int | None = None) -> str:
        """The text after so many arrivals; None: all of it."""
        return "".join(arrival.content for arrival in self.arrivals[:arrivals])

    def reasoning(self, arrivals: int | None = None) -> str:
        """What the server itself has parted from the text as thoughts."""
        return "".join(arrival.reasoning for arrival in self.arrivals[:arrivals])

    def _take(self, read: Read, events: Sequence[Event]) -> tuple[list[str], bool]:
        texts: list[str] = []
        for event in events:
            chunk = read_chunk(event)
            self.last_ns = read.ns
            if chunk.done:
                return texts, True
            self.usage = chunk.usage or self.usage
            self.stopped_by = chunk.stopped_by or self.stopped_by
            if chunk.finish is not None:
                self.finish, self.end_ns = chunk.finish, read.ns
            self._arrived(read, chunk)
            texts += [text for text in (chunk.reasoning, chunk.content) if text]
            if self.finish is not None and chunk.usage is not None and not self.counts_along:
                return texts, True
        return texts, False

    def _arrived(self, read: Read, chunk: Chunk) -> None:
        has_text = bool(chunk.content or chunk.reasoning)
        if not has_text and chunk.usage is None:
            return
        if read.number != self._read:
            self.arrivals.append(Arrival(read.ns))
            self._read = read.number
        arrival = self.arrivals[-1]
        arrival.content += chunk.content
        arrival.reasoning += chunk.reasoning
        arrival.chunks += has_text
        if chunk.usage is not None:
            arrival.counted = chunk.usage.completion_tokens
