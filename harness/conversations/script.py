"""A scripted conversation: who speaks, what the user says turn by turn, and what is expected of the replies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from harness.records import CheckResult, Message, Persona


class Check(Protocol):
    """Something a reply must satisfy. Checks are deterministic; latency limits are rules of a gate instead."""

    @property
    def name(self) -> str:
        """How results are labelled: readable, the same in every run, and different for different checks."""
        ...

    def judge(self, reply: str, completion_tokens: int | None) -> CheckResult: ...


@dataclass(frozen=True, slots=True)
class Rubric:
    """What a judge is to look at in a reply, and the verdict it gives: a score from 1 to 10, or pass or fail."""

    text: str
    verdict: Literal["score", "pass"] = "score"


@dataclass(frozen=True, slots=True)
class Turn:
    """One user message, an optional gold reply, what is expected of the model's reply, and what to remember of it."""

    user: str
    assistant: str | None = None
    expect: tuple[Check, ...] = ()
    capture: Mapping[str, str] = field(default_factory=dict)
    """Variable name → regex. The first group (or the whole match) in the reply that feeds the history becomes the
    variable, and `{{ name }}` in later user messages is replaced by it."""
    rubric: Rubric | None = None
    """Replies are judged by it afterwards; nothing that is said depends on it."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A script. `expect` of the conversation holds for the reply of every turn."""

    id: str
    turns: tuple[Turn, ...]
    tags: tuple[str, ...] = ()
    language: str | None = None
    persona: Persona = field(default_factory=Persona)
    system: str | None = None
    expect: tuple[Check, ...] = ()
    rubric: Rubric | None = None
    """Of every turn that has none of its own."""
    source: str = ""
    """The file it came from."""

    def opening(self) -> tuple[Message, ...]:
        """The system message: the persona's description, then the system text, each on its own line."""
        lines = [line for line in (self.persona.description, self.system) if line]
        return (Message("system", "\n".join(lines)),) if lines else ()
