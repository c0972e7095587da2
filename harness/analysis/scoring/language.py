"""In which language a text is written, where there is enough of it to tell.

lingua (an extra: `instruct-harness[language]`) holds the text against the n-grams of the languages below, offline: of
all 75 that it knows it would take a gigabyte. A wrong guess is worse than none, so short texts, and texts that are
nearly as likely in another language, have none.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Any

import regex

LANGUAGES = (
    "ar", "cs", "da", "de", "el", "en", "es", "fi", "fr", "he", "hi", "hu", "id", "it", "ja", "ko", "nb", "nl", "pl",
    "pt", "ro", "ru", "sv", "th", "tr", "uk", "vi", "zh",
)  # fmt: skip
"""What a text may be written in. One of another language is told as that of these which is most like it, or not at
all."""
LEAST_LETTERS = 25
"""A text with fewer letters is not looked at: names, numbers and loan words decide about it."""
MARGIN = 0.3
"""By how much the likeliest language has to lead, as a difference of lingua's confidences."""
_DENSE = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]")
_DENSE_WEIGHT = 4
"""One sign of these scripts says about as much as so many letters."""
_NO_PROSE = re.compile(r"^ {0,3}(```|~~~).*?(^ {0,3}\1|\Z)|`[^`\n]*`|https?://\S+", re.MULTILINE | re.DOTALL)
_DATA = re.compile(r"\s*(\{.*\}|\[.*\])\s*", re.DOTALL)
_SAME = {"nb": "no", "nn": "no"}
"""Tags that scripts use for what lingua tells apart."""


@lru_cache(maxsize=4096)  # the same question is asked of every setting and repeat
def language_of(text: str) -> str | None:
    """The ISO 639-1 code of the text's language (nb as `no`); None where it cannot be told. Code blocks and
    addresses do not count, and what stands in braces or brackets from end to end is data."""
    prose = "" if _DATA.fullmatch(text) else _NO_PROSE.sub(" ", text)
    letters = sum(map(str.isalpha, prose)) + (_DENSE_WEIGHT - 1) * len(_DENSE.findall(prose))
    if letters < LEAST_LETTERS:
        return None
    first, second = _detector().compute_language_confidence_values(prose)[:2]
    if first.value - second.value < MARGIN:
        return None
    code = str(first.language.iso_code_639_1.name).lower()
    return _SAME.get(code, code)


def primary(tag: str) -> str:
    """The language of a tag: `de` of de-AT."""
    code = re.split(r"[-_]", tag.lower())[0]
    return _SAME.get(code, code)


@cache
def _detector() -> Any:
    from lingua import IsoCode639_1, LanguageDetectorBuilder

    codes = [getattr(IsoCode639_1, code.upper()) for code in LANGUAGES]
    return LanguageDetectorBuilder.from_iso_codes_639_1(*codes).build()
