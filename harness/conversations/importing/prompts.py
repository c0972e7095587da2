"""The prompt of a promptfoo config: what the user of a test says, as far as the config itself holds it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.conversations.importing.ledger import CannotSayError, Ledger
from harness.conversations.importing.messages import ROLES, Said, clean, said
from harness.conversations.importing.templates import rendered
from harness.conversations.variables import VARIABLE

_FILE = re.compile(r"file://|\S+\.(txt|json|jsonl|yaml|yml|md|j2|csv|js|cjs|mjs|ts|py)$")
_NOT_APPLIED = "it is not applied: the test's only variable is what the user says"


@dataclass(frozen=True, slots=True)
class Prompt:
    """Messages with names in braces; none where the prompt is not known."""

    template: tuple[Said, ...] = ()
    together: bool = False
    """Whether tests without an id continue one conversation."""

    def messages(self, variables: Mapping[str, str]) -> list[Said]:
        """What is said with these variables. Raises CannotSayError where that is not certain."""
        if self.template:
            return [(role, rendered(text, variables)) for role, text in self.template]
        if len(variables) != 1:
            raise CannotSayError("variables, of which none alone is what the user says")
        (text,) = variables.values()
        return [(ROLES["user"], rendered(text, {}))]


def prompt_of(prompts: Any, line: int, ledger: Ledger) -> Prompt:
    """The first prompt of a config; what is not applied is noted."""
    given = prompts if isinstance(prompts, list) else [prompts]
    texts = [each.get("raw", each.get("id")) if isinstance(each, dict) else each for each in given if each]
    if not texts:
        return Prompt()
    if len(texts) > 1:
        ledger.note(line, "several prompts", "the first one is taken")
    text = texts[0]
    if not isinstance(text, str) or _FILE.match(text):
        ledger.note(line, "a prompt in a file", _NOT_APPLIED)
        return Prompt()
    together = "_conversation" in text
    try:
        template = tuple(_template(text, line, ledger))
    except CannotSayError as reason:
        ledger.note(line, f"a prompt: {reason}", _NOT_APPLIED)
        return Prompt((), together)
    return Prompt(template, together)


def _template(text: str, line: int, ledger: Ledger) -> list[Said]:
    """The messages of a prompt, which is text or messages as JSON."""
    try:
        messages = json.loads(text)
    except ValueError:
        messages = None
    spoken = said(messages, line, ledger) if isinstance(messages, list) else [(ROLES["user"], clean(text))]
    for _, each in spoken:
        rendered(each, dict.fromkeys(VARIABLE.findall(each), ""))
    return spoken
