"""How much of a text says again what the text has said before, in any language.

The text is cut into units: a single character of a script that is written without spaces (Han, Kana, Thai, Lao, Khmer,
Burmese, Tibetan), else up to ten letters or digits of a word, else a single sign. Case is ignored. A unit is *repeated*
if it lies in a run of `RUN` units that also begins earlier in the text. Then

    repetition = repeated units / all units        in [0, 1]; 0 for fewer than RUN + 1 units

A text said twice has 0.5, a loop tends to 1, and ordinary prose stays below 0.1. Ten letters at most, so that one
endless word ("hahahaha…") is a loop as well.
"""

from __future__ import annotations

import regex

RUN = 5

_UNIT = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]"
    r"|(?:(?![\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}])[\w\p{M}]){1,10}"
    r"|[^\w\s]"
)


def repetition(text: str) -> float:
    """The share of the text's units that are repeated, in [0, 1]."""
    units = _UNIT.findall(text.casefold())
    seen: set[tuple[str, ...]] = set()
    repeated: set[int] = set()
    for start in range(len(units) - RUN + 1):
        run = tuple(units[start : start + RUN])
        if run in seen:
            repeated.update(range(start, start + RUN))
        seen.add(run)
    return len(repeated) / len(units) if units else 0.0
