"""Variables of a script: captured from one turn's reply, filled into later user messages as `{{ name }}`."""

from __future__ import annotations

import re
from collections.abc import Mapping

import regex

from harness.conversations.checks import REGEX_SECONDS, compiled

VARIABLE = re.compile(r"\{\{\s*(\w+)\s*\}\}")


def fill_in(text: str, captured: Mapping[str, str]) -> str:
    """The text with every captured `{{ name }}` replaced. Other braces stay: a loaded script has none of them, and a
    person may type what they like."""
    return VARIABLE.sub(lambda match: captured.get(match[1], match[0]), text)


def capture(pattern: str, text: str) -> str | None:
    """What a pattern's first group (or the whole of it) matches; None if nothing, or not within `REGEX_SECONDS`.

    Raises regex.error for what is not a pattern.
    """
    try:
        found: regex.Match[str] | None = compiled(pattern, ignore_case=False).search(text, timeout=REGEX_SECONDS)
    except TimeoutError:
        return None
    if found is None:
        return None
    group: str | None = found[1 if found.re.groups else 0]
    return group
