"""How much of a text says again what the text has said before, in any language.

The text is cut into units: a single character of a script that is written without spaces (Han, Kana, Thai, Lao, Khmer,
Burmese, Tibetan), else up to ten letters or digits of a word, else a single sign. Case is ignored. A unit is *repeated*
if it lies in a run of `RUN` units that also begins earlier in the text. Then

    repetition = repeated units / all units        in [0, 1]; 0 for fewer than RUN + 1 units

A text said twice has 0.5, a loop tends to 1, and ordinary prose stays below 0.1. Ten letters at most, so that one
endless word ("hahahaha…") is a loop as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import regex

RUN = 5
LONGEST = 10
_Run = tuple[str, ...]

_UNIT = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]"
    r"|(?:(?![\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}])[\w\p{M}]){1,10}"
    r"|[^\w\s]"
)

PLAIN = re.compile(
    r"[\t\n\r\x20-\xb1\xb4-\xb8\xba\xbb\xbf-\u02ff\u0370-\u0482\u048a-\u052f\u1e00-\u1fff"
    r"\u2010-\u203e\u20a0-\u20bf\u2100-\u214f\u2190-\u23ff]*"
)
"""Latin, Greek and Cyrillic with their signs: no script without spaces, no combining marks."""
PLAIN_UNIT = re.compile(r"\w{1,10}|[^\w\s]")
"""The same units within plain text, found four times as fast."""


def units_of(text: str) -> list[str]:
    """The units of a text, in its order."""
    text = text.casefold()
    units: list[str] = (PLAIN_UNIT if PLAIN.fullmatch(text) else _UNIT).findall(text)
    return units


def repetition(text: str) -> float:
    """The share of the text's units that are repeated, in [0, 1]."""
    units = units_of(text)
    runs = _runs(units)
    if len(set(runs)) == len(runs):
        return 0.0
    seen: set[_Run] = set()
    repeated: set[int] = set()
    for start, run in enumerate(runs):
        if run in seen:
            repeated.update(range(start, start + RUN))
        seen.add(run)
    return len(repeated) / len(units)


def echo(text: str, earlier: Iterable[str]) -> float:
    """The share of the text's units that lie in a run of `RUN` units which also stands in one of the earlier texts, in
    [0, 1]; 0 for a text of fewer units."""
    units = units_of(text)
    known = {run for other in earlier for run in _runs(units_of(other))}
    echoed = {place for start, run in enumerate(_runs(units)) if run in known for place in range(start, start + RUN)}
    return len(echoed) / len(units) if units else 0.0


def _runs(units: Sequence[str]) -> list[_Run]:
    return list(zip(*(units[start:] for start in range(RUN)), strict=False))
