"""The form of a reply: checks of form that the script makes, and code fences that are left open."""

from __future__ import annotations

import re
from collections.abc import Iterable

OF_FORM = ("json", "one_line", "max_words", "min_words", "max_tokens", "min_tokens")
"""Checks (`harness/conversations/checks.py`) that ask for a form, whatever is said in it."""
_FENCE = re.compile(r" {0,3}(?P<fence>`{3,}|~{3,})(?P<info>.*)")


def of_form(checks: Iterable[tuple[str, bool]]) -> list[tuple[str, bool]]:
    """Of (check, passed) those that ask for a form."""
    return [(name, passed) for name, passed in checks if name.partition(":")[0] in OF_FORM]


def fences(reply: str) -> tuple[int, bool]:
    """How many Markdown code fences the reply opens, and whether it closes them all.

    A fence opens with three backticks or tildes or more, and is closed by a line of at least as many of the same and
    nothing else (CommonMark §4.5).
    """
    opened, within = 0, ""
    for line in reply.splitlines():
        found = _FENCE.fullmatch(line)
        if found is None:
            continue
        fence, info = found["fence"], found["info"]
        if within:
            if fence[0] == within[0] and len(fence) >= len(within) and not info.strip():
                within = ""
        elif not (fence[0] == "`" and "`" in info):  # that is inline code
            opened, within = opened + 1, fence
    return opened, not within
