"""Samples of inspect_ai, as JSON, JSON Lines or CSV.

    {"id": "hist-1", "input": [{"role": "user", "content": "…"}, …], "target": "Sarah", "metadata": {"axis": "memory"}}

`input` is a text or messages, of which the assistant's become gold replies. What `target` becomes is in `targets.py`. A
sample with choices, files or a sandbox is asked by a solver that adds them, so it is no script by itself.
"""

from __future__ import annotations

from typing import Any

from harness.conversations.importing.draft import Draft, Reader, each, named, tags_of
from harness.conversations.importing.ledger import CannotSayError, Ledger
from harness.conversations.importing.messages import clean, offered_tools, said, talk
from harness.conversations.importing.records import Record
from harness.conversations.importing.targets import Target, aimed_at

_READ = {"id", "input", "target", "metadata", "choices", "files", "sandbox", "setup", "tools"}
_TAGS = ("category", "axis", "topic", "subject", "tags")


def reader(target: Target) -> Reader:
    """`target` is what becomes of a sample's target."""

    def sample(record: Record, ledger: Ledger) -> Draft:
        value: Any = record.value
        if not isinstance(value, dict) or not isinstance(value.get("input"), (str, list)):
            raise CannotSayError("a sample without an input")
        for part in ("choices", "files", "sandbox", "setup"):
            if value.get(part):
                raise CannotSayError(f"a sample with {part}")
        ledger.pass_over(value.keys() - _READ)
        offered_tools(value, record.line, ledger)
        spoken = value["input"]
        messages = [("user", clean(spoken))] if isinstance(spoken, str) else said(spoken, record.line, ledger)
        system, turns = talk(messages, record.line, ledger)
        turns = aimed_at(turns, value.get("target"), "target", target, record.line, ledger)
        about = value["metadata"] if isinstance(value.get("metadata"), dict) else {}
        return Draft(record.line, turns, named("inspect", value.get("id")), tags_of(about, *_TAGS), system)

    return each(sample)
