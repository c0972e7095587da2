"""Asking a session, for tests of backends."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness.backends.open import open_backend, preview
from harness.backends.seam import Backend, Reply, Session, TurnRequest
from harness.config.schema import ModelSpec
from harness.meters.clock import Clock, Stopwatch, real_clock
from harness.records import Message, Persona, Stamps
from tests.conftest import TEMPLATE_NOW

QUESTIONS = ("What is motion?", "How about energies?", "Who are you, again?", "And the sky?")


class Asked(NamedTuple):
    reply: Reply
    stamps: Stamps
    arrivals: list[list[int]]


def dialog(*lines: str, system: str | None = None) -> tuple[Message, ...]:
    """Messages of a user and an assistant in turns, the user first."""
    opening = (Message("system", system),) if system else ()
    roles = ("user", "assistant")
    return opening + tuple(Message(roles[index % 2], line) for index, line in enumerate(lines))  # type: ignore[arg-type]


def ask(
    session: Session,
    messages: Sequence[Message] | str = QUESTIONS[0],
    sampling: dict[str, Any] | None = None,
    *,
    clock: Clock = real_clock,
    **values: Any,
) -> Asked:
    """One turn: what came back, the stamps, and the ids as they arrived. `values` are fields of the request."""
    arrivals: list[list[int]] = []
    request = TurnRequest(
        **{
            "conversation_id": "talk",
            "turn_index": 0,
            "messages": dialog(messages) if isinstance(messages, str) else tuple(messages),
            "persona": Persona(user="Alice", assistant="Bob"),
            "sampling": {"max_new_tokens": 8} if sampling is None else sampling,
            "seed": 1,
            "length": "natural",
            "on_overflow": "stop",
            "stopwatch": Stopwatch(clock),
            **values,
        }
    )
    reply = session.reply(request, lambda ids: arrivals.append(list(ids)))
    return Asked(reply, request.stopwatch.stamps(), arrivals)


def converse(
    session: Session, sampling: dict[str, Any], questions: Sequence[str] = QUESTIONS, **values: Any
) -> list[Asked]:
    """One turn per question, the replies fed back as they came."""
    lines: list[str] = []
    asked = []
    for index, question in enumerate(questions):
        lines.append(question)
        asked.append(ask(session, dialog(*lines), sampling, turn_index=index, **values))
        lines.append(asked[-1].reply.text or "")
    return asked


class Verbatim:
    """A chat format that puts a reply back as the ids it was generated as: random ids seldom survive decoding."""

    def __init__(self, plain: Any) -> None:
        self._plain = plain
        self.replies: list[tuple[int, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    def encode(self, text: str) -> list[int]:
        parts = re.split(r"§(\d+)§", text)
        ids: list[int] = []
        for index, part in enumerate(parts):
            ids += self.replies[int(part)] if index % 2 else self._plain.encode(part)
        return ids


def converse_verbatim(backend: Any, sampling: dict[str, Any], **values: Any) -> list[Asked]:
    """As `converse`, and every reply goes on as the ids it was generated as."""
    backend.format = verbatim = Verbatim(backend.format)
    session, lines, asked = backend.open_session(), [], []
    for index, question in enumerate(QUESTIONS):
        lines.append(question)
        asked.append(ask(session, dialog(*lines), sampling, **values))
        verbatim.replies.append(asked[-1].reply.completion_ids)
        lines.append(f"§{index}§")
    return asked


def open_folder(folder: Path | str, **spec: Any) -> Backend:
    return open_backend(ModelSpec(model=str(folder), **spec), chat_format="auto", template_now=TEMPLATE_NOW)


def preview_folder(folder: Path | str, **spec: Any) -> Any:
    return preview(
        ModelSpec(model=str(folder), **spec),
        samplings={"greedy": {"max_new_tokens": 5}},
        length="natural",
        messages=dialog("What?"),
        persona=Persona(),
        chat_format="auto",
        template_now=TEMPLATE_NOW,
    )
