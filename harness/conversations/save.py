"""A talk becomes a script: what `/save` in `harness chat` writes, in the format of prompts/*.yaml."""

from __future__ import annotations

from io import StringIO
from typing import Any

from ruamel.yaml import YAML

from harness.conversations.script import Conversation
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
    yaml = YAML()
    yaml.width = 110
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = StringIO()
    yaml.dump({"conversations": [entry]}, stream)
    return stream.getvalue()
