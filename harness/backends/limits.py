"""How long a reply may become, and what happens to a conversation that outgrows its limit.

Two limits count the prompt: `max_length` (Hugging Face's way to count) and the model's context. `max_new_tokens`
counts the reply only; where it is set it wins over `max_length`, as in `generate`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from harness.backends.failures import ContextOverflowError
from harness.records import FinishReason, Message, OnOverflow

Rendered = TypeVar("Rendered")


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one setting on one model, in ids; None where there is none."""

    max_new_tokens: int | None
    total: int | None
    """The most ids prompt and reply may have together."""
    total_reason: FinishReason
    """What ends a reply that reaches `total`: `max_length` or `context`."""

    @classmethod
    def of(cls, settings: Mapping[str, Any], context_tokens: int | None) -> Limits:
        """The limits that effective settings and a context of `context_tokens` ids amount to."""
        new = settings.get("max_new_tokens")
        length = settings.get("max_length") if new is None else None
        if length is not None and (context_tokens is None or length <= context_tokens):
            return cls(new, length, "max_length")
        return cls(new, context_tokens, "context")

    def room(self, prompt_tokens: int) -> int | None:
        """How many ids a reply to such a prompt may have; None for no limit."""
        rooms = [] if self.max_new_tokens is None else [self.max_new_tokens]
        if self.total is not None:
            rooms.append(max(self.total - prompt_tokens, 0))
        return min(rooms, default=None)

    def reached(self, completion_tokens: int) -> FinishReason:
        """Why a reply that filled its room had to end there."""
        return "max_new_tokens" if completion_tokens == self.max_new_tokens else self.total_reason

    def left(self, prompt_tokens: int, completion_tokens: int) -> int | None:
        """How many more ids the conversation could have held."""
        return None if self.total is None else max(self.total - prompt_tokens - completion_tokens, 0)

    def wants_shorter(self, prompt_tokens: int) -> bool:
        """Whether `drop_oldest` has to drop: no room for max_new_tokens, or for a quarter of the limit if that is less
        (a reply that may fill the whole context must not cost the conversation its memory)."""
        if self.total is None:
            return False
        quarter = max(self.total // 4, 1)
        needed = quarter if self.max_new_tokens is None else min(self.max_new_tokens, quarter)
        return prompt_tokens + needed > self.total


@dataclass(frozen=True, slots=True)
class Fitted(Generic[Rendered]):
    """A prompt after the overflow rule: what was rendered, and how many of the oldest messages it leaves out."""

    prompt: Rendered
    dropped: int


def without_oldest(messages: tuple[Message, ...], count: int) -> tuple[Message, ...]:
    """The messages without the `count` oldest ones; a system message stays."""
    system = _system(messages)
    return messages[:system] + messages[system + count :]


def _system(messages: tuple[Message, ...]) -> int:
    return 1 if messages and messages[0].role == "system" else 0


def fit(
    messages: tuple[Message, ...],
    render: Callable[[tuple[Message, ...]], Rendered],
    size: Callable[[Rendered], int],
    limits: Limits,
    on_overflow: OnOverflow,
    dropped: int = 0,
) -> Fitted[Rendered]:
    """Render the messages under the overflow rule, starting with the `dropped` oldest ones already left out.

    `drop_oldest` drops pairs of a user's and an assistant's message until the prompt leaves room; the last message is
    never dropped, so a single long one may still be over the limit. Raises ContextOverflowError under `error` if the
    prompt leaves no room for a single id.
    """
    prompt = render(without_oldest(messages, dropped))
    if on_overflow == "drop_oldest":
        droppable = len(messages) - 1 - _system(messages)
        while dropped + 2 <= droppable and limits.wants_shorter(size(prompt)):
            dropped += 2
            prompt = render(without_oldest(messages, dropped))
    if on_overflow == "error" and limits.room(size(prompt)) == 0:
        raise ContextOverflowError(
            f"the prompt has {size(prompt)} ids, and {limits.total_reason} allows {limits.total} with the reply"
        )
    return Fitted(prompt, dropped)
