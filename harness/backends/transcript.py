"""The transcript form of a conversation: how instruct models are prompted when there is no chat template.

    Bob is a professor in Physics.
    Alice: What is Newtonian mechanics?
    Bob:

The model continues the last line and is stopped at its end, before it speaks for the other side.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.records import Message, Persona


def render_transcript(messages: Sequence[Message], persona: Persona) -> str:
    """The messages as lines, system text first as it stands, and the assistant's name left open at the end."""
    names = {"user": persona.user, "assistant": persona.assistant}
    lines = [
        message.content if message.role == "system" else f"{names[message.role]}: {message.content}"
        for message in messages
    ]
    return "\n".join([*lines, f"{persona.assistant}:"])
