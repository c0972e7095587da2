"""Messages as OpenAI writes them, and the data sets that write them the same way: LMSYS-Chat-1M, WildChat, evals.

    {"messages": [{"role": "system", "content": "…"}, {"role": "user", "content": "…"}, …]}
    {"conversation_id": "…", "model": "…", "language": "English", "conversation": [{"role": "user", "content": "…"}, …]}
    {"input": [{"role": "user", "content": "…"}], "ideal": "Paris"}
    [{"role": "user", "content": "…"}, …]

The assistant's messages become gold replies. What `ideal` means is for the eval that uses it to say: see `targets.py`.
"""

from __future__ import annotations

import re
from typing import Any

from harness.conversations.importing.draft import Draft, Reader, each, named, tags_of
from harness.conversations.importing.ledger import CannotSayError, Ledger
from harness.conversations.importing.messages import ROLES, Said, clean, offered_tools, said, talk
from harness.conversations.importing.records import Record
from harness.conversations.importing.targets import Target, aimed_at

_LISTS = ("messages", "conversation", "conversations", "prompt", "input")
"""Where the messages may be."""
_IDS = ("id", "conversation_id", "conversation_hash", "custom_id")
_READ = {*_LISTS, *_IDS, "ideal", "language", "category", "tags", "tools", "functions"}
_TAG = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]+)*")


def reader(target: Target) -> Reader:
    """`target` is what becomes of `ideal`."""

    def conversation(record: Record, ledger: Ledger) -> Draft:
        value: dict[str, Any] = {"messages": record.value} if isinstance(record.value, list) else record.value
        ledger.pass_over(value.keys() - _READ)
        offered_tools(value, record.line, ledger)
        system, turns = talk(_messages(value, record.line, ledger), record.line, ledger)
        turns = aimed_at(turns, value.get("ideal"), "ideal", target, record.line, ledger)
        own = next((value[key] for key in _IDS if value.get(key) is not None), None)
        return Draft(record.line, turns, named("openai", own), tags_of(value, "category", "tags", "language"), system)

    return each(conversation)


def _messages(value: dict[str, Any], line: int, ledger: Ledger) -> list[Said]:
    key = next((key for key in _LISTS if isinstance(value.get(key), (list, str))), None)
    if key is None:
        raise CannotSayError("a record without messages")
    if isinstance(value[key], str):
        return [(ROLES["user"], clean(value[key]))]
    return said(value[key], line, ledger)
