"""Phrases in a text, whatever their case and the kind of their apostrophes: whole words only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import chain


def plain(text: str) -> str:
    """The text as phrases are looked for in it: case folded, apostrophes straight, a single space between words."""
    return " ".join(text.replace("’", "'").casefold().split())


def any_of(phrases: Iterable[Iterable[str]]) -> re.Pattern[str]:
    """What finds the first of the phrases, which are given language by language, in a `plain` text."""
    # Whole words only: "Heidi will not come" and "the Taj at Delhi cannot …" refuse nothing.
    return re.compile(r"(?<!\w)(?:{})(?!\w)".format("|".join(map(re.escape, chain(*phrases)))))
