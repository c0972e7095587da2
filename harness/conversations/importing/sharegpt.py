"""ShareGPT dumps, and the variant with pairs that swift and evalscope use.

    {"id": "identity_0", "conversations": [{"from": "human", "value": "Who are you?"}, {"from": "gpt", "value": "…"}]}
    {"conversation_id": "…", "conversation": [{"human": "Hello", "assistant": "Hi!"}, …]}

The assistant's messages become gold replies. Many dumps begin in the middle, with a message of the assistant: it
answers nothing and is left out, as FastChat's training does.
"""

from __future__ import annotations

from typing import Any

from harness.conversations.importing.draft import Draft, each, named
from harness.conversations.importing.ledger import CannotSayError, Ledger
from harness.conversations.importing.messages import Said, clean, offered_tools, talk
from harness.conversations.importing.records import Record
from harness.documents import described

_FROM = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bing", "bard"), "assistant"),
    "system": "system",
}
_READ = {"id", "conversation_id", "conversations", "conversation", "system", "tools", "functions"}


def _conversation(record: Record, ledger: Ledger) -> Draft:
    value = record.value
    spoken = value.get("conversations", value.get("conversation")) if isinstance(value, dict) else None
    if not isinstance(spoken, list):
        raise CannotSayError("a record without a conversation")
    ledger.pass_over(value.keys() - _READ)
    offered_tools(value, record.line, ledger)
    messages: list[Said] = []
    if value.get("system"):
        messages.append(("system", _text(value["system"])))
    for message in spoken:
        messages += _message(message)
    system, turns = talk(messages, record.line, ledger)
    return Draft(record.line, turns, named("sharegpt", value.get("id", value.get("conversation_id"))), (), system)


def _message(message: Any) -> list[Said]:
    if not isinstance(message, dict):
        raise CannotSayError("a message that is no text")
    if "from" not in message:
        pair = [(role, message[key]) for role, key in (("user", "human"), ("assistant", "assistant")) if key in message]
        if not pair:
            raise CannotSayError("a message without a role")
        return [(role, _text(text)) for role, text in pair]
    role = _FROM.get(message["from"]) if isinstance(message["from"], str) else None
    if role is None:
        raise CannotSayError(f"a message of the role {described(message['from'])}")
    return [(role, _text(message.get("value")))]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise CannotSayError("a message that is no text")
    return clean(value)


read = each(_conversation)
