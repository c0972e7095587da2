"""Messages with roles → turns. What is said here holds for every format that has messages.

A user message begins a turn; the assistant's message after it is the turn's gold reply. A user message that follows
another one begins a turn without a gold reply. System messages before the first turn are the system text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.conversations.importing.draft import DraftTurn
from harness.conversations.importing.ledger import CannotSayError, Ledger
from harness.documents import described, encodable

ROLES = {"system": "system", "developer": "system", "user": "user", "human": "user", "assistant": "assistant"}
Said = tuple[str, str]
"""(system, user or assistant; what it said)"""
_TEXT_PARTS = ("text", "input_text", "output_text")


def said(messages: Any, line: int, ledger: Ledger) -> list[Said]:
    """What OpenAI's messages say: mappings of `role` and `content`. Raises CannotSayError."""
    if not isinstance(messages, list):
        raise CannotSayError("messages that are no list")
    return [_message(message, line, ledger) for message in messages]


def _message(message: Any, line: int, ledger: Ledger) -> Said:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise CannotSayError("a message without a role")
    role = ROLES.get(message["role"])
    if role is None:
        raise CannotSayError(f"a message of the role {described(message['role'])}")
    if message.get("tool_calls") or message.get("function_call"):
        raise CannotSayError("a tool call")
    if message.get("name"):
        ledger.note(line, "a name on a message", "the name is left out")
    return role, text_of(message.get("content"))


def text_of(content: Any) -> str:
    """The text of a message; parts of text stand below each other. Raises CannotSayError for anything but text."""
    if content is None:
        return ""
    if isinstance(content, str):
        return clean(content)
    if not isinstance(content, list):
        raise CannotSayError("content that is no text")
    return "\n".join(_part(part) for part in content)


def _part(part: Any) -> str:
    if isinstance(part, str):
        return clean(part)
    if isinstance(part, dict) and part.get("type") in _TEXT_PARTS and isinstance(part.get("text"), str):
        return clean(part["text"])
    kind = part.get("type") if isinstance(part, dict) else part
    raise CannotSayError(f"a part of a message that is no text: {described(kind)}")


def clean(text: str) -> str:
    """The text as a file can hold it. Raises CannotSayError for half of a surrogate pair."""
    whole = encodable(text)
    if whole is None:
        raise CannotSayError("half of a surrogate pair")
    return whole


def talk(messages: Sequence[Said], line: int, ledger: Ledger) -> tuple[str | None, tuple[DraftTurn, ...]]:
    """(system text, turns). Raises CannotSayError for what is no conversation of turns."""
    system = [text for role, text in messages if role == "system" and text.strip()]
    begun = next((index for index, (role, _) in enumerate(messages) if role != "system"), len(messages))
    spoken = list(messages[begun:])
    if any(role == "system" for role, _ in spoken):
        raise CannotSayError("a system message after the first turn")
    if len(system) > 1:
        ledger.note(line, "several system messages", "they are one, with empty lines between")
    while spoken and spoken[0][0] == "assistant":
        spoken.pop(0)
        ledger.note(line, "an assistant message before the first turn", "the message is left out")
    while spoken and spoken[-1][0] == "user" and not spoken[-1][1].strip():
        spoken.pop()
        ledger.note(line, "an empty user message at the end", "the message is left out")
    turns: list[tuple[str, list[str]]] = []
    for role, text in spoken:
        if role == "assistant":
            turns[-1][1].append(text)
        elif text.strip():
            turns.append((text, []))
        else:
            raise CannotSayError("an empty user message")
    if not turns:
        raise CannotSayError("no user message")
    return "\n\n".join(system) or None, tuple(DraftTurn(user, _gold(texts, line, ledger)) for user, texts in turns)


def _gold(texts: Iterable[str], line: int, ledger: Ledger) -> str | None:
    texts = list(texts)
    filled = [text for text in texts if text.strip()]
    if len(filled) < len(texts):
        ledger.note(line, "an empty assistant message", "the turn has no gold reply from it")
    if len(filled) > 1:
        ledger.note(line, "several assistant messages in a row", "they are one, with empty lines between")
    return "\n\n".join(filled) or None


def offered_tools(value: Mapping[str, Any], line: int, ledger: Ledger) -> None:
    """Note tools that a record offers: they are never offered here."""
    if value.get("tools") or value.get("functions"):
        ledger.note(line, "tools", "they are not offered")
