"""Several conversations at a time, for tests of engines that answer them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from harness.backends.seam import Backend, Reply, Session, TurnRequest
from harness.meters.clock import Clock, Stopwatch, real_clock
from harness.records import Persona, Stamps
from tests.asking import dialog

LINES = (
    "What is motion?",
    "How about energies instead of forces, and why is the sky blue?",
    "Who?",
    "And the sky, is it blue because of air?",
    "Alice: what would you like to know about physics, Bob?",
    "A rainbow forms",
)


class Talk(NamedTuple):
    """A conversation that joins at the step `start` and has so many turns; `first` is its first line in `LINES`."""

    start: int
    turns: int
    first: int


CROWD = (Talk(0, 5, 0), Talk(0, 3, 1), Talk(1, 6, 2), Talk(2, 5, 3), Talk(0, 7, 4))
"""Two to five at a time, joining and leaving."""

Said = Mapping[tuple[int, int], tuple[Reply, Stamps]]
"""(conversation, step) → what came back."""


def request(
    messages: Sequence[str], sampling: dict[str, Any], *, clock: Clock = real_clock, **values: Any
) -> TurnRequest:
    return TurnRequest(
        **{
            "conversation_id": "talk",
            "turn_index": len(messages) // 2,
            "messages": dialog(*messages),
            "persona": Persona(user="Alice", assistant="Bob"),
            "sampling": sampling,
            "seed": 1,
            "length": "natural",
            "on_overflow": "stop",
            "stopwatch": Stopwatch(clock),
            **values,
        }
    )


def play(
    backend: Backend, sampling: dict[str, Any], *, together: bool, crowd: Sequence[Talk] = CROWD, **values: Any
) -> Said:
    """Play the conversations step by step, all of a step at once or one after the other; replies feed on."""
    lines: dict[int, list[str]] = {index: [] for index in range(len(crowd))}
    sessions: dict[int, Session] = {}
    said = {}
    for step in range(max(talk.start + talk.turns for talk in crowd)):
        here = [index for index, talk in enumerate(crowd) if talk.start <= step < talk.start + talk.turns]
        for index in here:
            sessions.setdefault(index, backend.open_session())
            lines[index].append(LINES[(crowd[index].first + step) % len(LINES)])
        asked = [(sessions[index], request(lines[index], sampling, **values)) for index in here]
        if together:
            replies = backend.reply_many(asked)
        else:
            replies = [session.reply(one, lambda ids: None) for session, one in asked]
        for index, (_, one), reply in zip(here, asked, replies, strict=True):
            said[index, step] = (reply, one.stopwatch.stamps())
            lines[index].append(reply.text or "")
    return said


def ids_of(said: Said) -> dict[tuple[int, int], tuple[int, ...]]:
    """What was generated where; fails the test if anything went wrong."""
    assert [reply.failure for reply, _ in said.values() if reply.failure] == []
    return {place: reply.completion_ids for place, (reply, _) in said.items()}
