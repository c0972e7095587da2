"""How close a reply is to the gold reply of the script.

Only where the model had the script's own history: on first turns, and under `history: scripted`. Anywhere else the
gold reply answers another conversation. Overlap says nothing about being right – a reply that negates the gold one
overlaps with nearly all of it – so chrF is a diagnostic, never a headline.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Any

import regex

_PUNCTUATION = regex.compile(r"((?<=\p{N})[.,:](?=\p{N})|(?<![\p{L}\p{N}])-(?=\p{N}))|\p{P}")
"""What stands inside a number, or is its sign, is found as group 1."""


def exact(reply: str, gold: str) -> bool:
    """Whether the two are the same text, white space around either aside."""
    return reply.strip() == gold.strip()


def normalised(text: str) -> str:
    """Text without what does not matter for being the same answer: in NFKC, case folded, every punctuation mark a space
    unless it stands inside a number or is its sign (3.14, 10:30, -5), white space collapsed."""
    folded = unicodedata.normalize("NFKC", text).replace("\u2212", "-").casefold()
    return " ".join(_PUNCTUATION.sub(lambda found: found[1] or " ", folded).split())


def same_answer(reply: str, gold: str) -> bool:
    """Whether the two are equal once normalised."""
    return normalised(reply) == normalised(gold)


def chrf(reply: str, gold: str) -> float:
    """Character n-gram F-score of one reply, in [0, 1] (Popović, WMT 2015; sacrebleu, whose scale is 0 to 100)."""
    return float(_chrf().sentence_score(reply, [gold]).score) / 100


def chrf_signature() -> str:
    """sacrebleu's own account of how it computes: equal signatures, comparable scores."""
    metric = _chrf()
    metric.sentence_score("", [""])  # it knows the number of references from its last use
    return str(metric.get_signature())


@cache
def _chrf() -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()
