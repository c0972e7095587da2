"""A talk becomes a script: what `/save` in `harness chat` writes, in the format of prompts/*.yaml."""

from __future__ import annotations

from typing import Any

from harness.conversations.script import Conversation
from harness.documents import yaml_text
from harness.records import Persona


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
    return yaml_text({"conversations": [entry]})
