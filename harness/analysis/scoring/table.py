"""The one table of scorers: name, version, title, range, direction, what it looks at, and the formula.

A version is raised whenever a formula says something else of any reply: scores of another version, or of another
configuration, count no longer, and are given anew. docs/scoring.md shows this table.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Literal

from harness.analysis.scoring import form, gold, persona
from harness.analysis.scoring.language import LANGUAGES, LEAST_LETTERS, MARGIN, language_of, primary
from harness.analysis.scoring.said import Said
from harness.conversations.repetition import echo

Kind = Literal["flag", "share", "score"]
"""flag: 0 or 1 · share: from 0 to 1 · score: from 1 to 10."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a formula says of a reply. None: it cannot tell."""

    value: float | None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Scorer:
    """One scorer. Those without a formula are given by a judge or a person."""

    name: str
    version: int
    title: str
    kind: Kind
    direction: Literal["higher", "lower"]
    definition: str
    formula: Callable[[Said], Found | None] | None = None
    """None: it has nothing to say about such a reply."""
    package: str = ""
    """The module it needs, and"""
    extra: str = ""
    """the extra that brings it."""
    config: Callable[[], Mapping[str, Any]] = field(default=dict)
    """What else decides its scores."""
    diagnostic: bool = False
    """To look at when something is odd, not to decide by."""

    def look(self, said: Said) -> Found | None:
        """What the formula says of a reply."""
        assert self.formula is not None, "only a judge or a person can score by it"
        return self.formula(said)

    @property
    def available(self) -> bool:
        """Whether the module it needs is there."""
        return not self.package or importlib.util.find_spec(self.package) is not None


def _against_gold(measure: Callable[[str, str], float]) -> Callable[[Said], Found | None]:
    return lambda said: None if said.gold is None else Found(float(measure(said.reply, said.gold)))


def _flag(broken: str | None) -> Found:
    return Found(0.0 if broken is None else 1.0, "" if broken is None else f"found {broken!r}")


def _same_language(said: Said) -> Found:
    asked = language_of(said.user) or (primary(said.language) if said.language else None)
    given = language_of(said.reply)
    if asked is None or given is None:
        return Found(None, f"asked in {asked or '?'}, answered in {given or '?'}")
    return Found(float(asked == given), "" if asked == given else f"asked in {asked}, answered in {given}")


def _format_checks(said: Said) -> Found | None:
    checks = form.of_form(said.checks)
    failed = [name for name, passed in checks if not passed]
    return Found(1 - len(failed) / len(checks), "; ".join(failed)) if checks else None


def _fences_closed(said: Said) -> Found | None:
    opened, closed = form.fences(said.reply)
    return Found(float(closed), "" if closed else f"{opened} opened, the last one not closed") if opened else None


def _breaks_character(said: Said) -> Found | None:
    return _flag(persona.out_of_character(said.reply)) if said.persona else None


def _repeats_itself(said: Said) -> Found | None:
    return Found(echo(said.reply, said.earlier)) if said.earlier else None


_LANGUAGE = {"languages": LANGUAGES, "letters": LEAST_LETTERS, "margin": MARGIN}
_GOLD = "on first turns and under history: scripted"

SCORERS: Mapping[str, Scorer] = {
    scorer.name: scorer
    for scorer in (
        Scorer(
            "gold_exact", 1, "Gold, exact", "flag", "higher",
            f"the reply is the gold reply, white space around either aside; {_GOLD}",
            _against_gold(gold.exact),
        ),
        Scorer(
            "gold_normalised", 1, "Gold, normalised", "flag", "higher",
            "the two are equal in NFKC, case folded, with punctuation (but for that of numbers) and white space as one "
            f"space; {_GOLD}",
            _against_gold(gold.same_answer),
        ),
        Scorer(
            "gold_chrf", 1, "chrF to gold", "share", "higher",
            "character n-gram F-score of sacrebleu, over 100; a diagnostic: overlap is not being right; "
            f"{_GOLD}",
            _against_gold(gold.chrf), "sacrebleu", "score", lambda: {"signature": gold.chrf_signature()}, True,
        ),
        Scorer(
            "same_language", 1, "Same language", "flag", "higher",
            f"the reply is in the language of the user's message, or of the script where that is too short to tell; "
            f"undecided below {LEAST_LETTERS} letters, or where another language is nearly as likely (within "
            f"{MARGIN})",
            _same_language, "lingua", "language",
            lambda: {"lingua": version("lingua-language-detector"), **_LANGUAGE},
        ),
        Scorer(
            "format_checks", 1, "Checks of form", "share", "higher",
            f"share of the script's checks of form ({', '.join(form.OF_FORM)}) that the reply passed, where it has any",
            _format_checks,
        ),
        Scorer(
            "fences_closed", 1, "Code fences closed", "flag", "higher",
            "every Markdown code fence that the reply opens is closed in it; of replies that open one",
            _fences_closed,
        ),
        Scorer(
            "speaks_for_user", 1, "Speaks for the user", "flag", "lower",
            "a line of the reply begins with the user's name in the script, User or Human, and a colon",
            lambda said: _flag(persona.speaks_for_user(said.reply, said.user_name)),
        ),
        Scorer(
            "role_markers", 1, "Role markers", "flag", "lower",
            "a role marker of a chat template stands in the reply, such as [INST]",
            lambda said: _flag(persona.role_marker(said.reply)),
        ),
        Scorer(
            "breaks_character", 1, "Breaks character", "flag", "lower",
            "the reply says that it comes from a program (As an AI …), by phrases in English, German, French and "
            "Spanish; where the script gives a persona",
            _breaks_character,
        ),
        Scorer(
            "repeats_itself", 1, "Repeats itself", "share", "lower",
            "share of the reply's units that lie in a run of five which also stands in an earlier reply of the model "
            "in this conversation; from the second reply on",
            _repeats_itself,
        ),
        Scorer(
            "judge_score", 1, "Judge's score", "score", "higher",
            "a judge's score by the rubric, from 1 to 10; the median of its trials",
        ),
        Scorer(
            "judge_pass", 1, "Judge passes", "flag", "higher",
            "whether a judge passes the reply by a rubric with verdict: pass; the median of its trials",
        ),
        Scorer(
            "judge_pair", 1, "Judge prefers", "share", "higher",
            "1 where a judge prefers this reply to the other one in both orders, 0 where the other, else ½; the median "
            "of its trials",
        ),
        Scorer(
            "human", 1, "Votes", "share", "higher",
            "1 where a person prefers this reply to the other one, names hidden; 0 where the other; ½ for a tie",
        ),
    )
}  # fmt: skip

FORMULAS = tuple(scorer for scorer in SCORERS.values() if scorer.formula is not None)
"""The scorers that need no judge."""
