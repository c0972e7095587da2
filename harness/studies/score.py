"""The text scorers are let loose on a stored run: every reply that has no score of theirs yet gets one.

Never while a run is measured: a run that is being written to is locked, and so is one that is being scored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from harness.analysis.frames import Run
from harness.analysis.scores import Given, given
from harness.analysis.scoring.said import said
from harness.analysis.scoring.table import FORMULAS, SCORERS, Scorer
from harness.documents import did_you_mean
from harness.errors import UsageError
from harness.records import Score, ScorerSetup
from harness.store import ScoreWriter
from harness.studies.setups import counts, setup_of

_TOGETHER = 2000
"""Scores that are written at a time."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What was done in one call."""

    replies: int
    """That there are to score."""
    scores: int
    """New ones."""
    left_out: tuple[str, ...]
    """Scorers whose packages are not installed, in a sentence each."""


def scorers_named(names: Sequence[str]) -> tuple[Scorer, ...]:
    """The text scorers of these names, or all whose packages are installed.

    Raises UsageError for a name that is none, and for a scorer whose package is missing.
    """
    known = {scorer.name: scorer for scorer in FORMULAS}
    for name in names:
        if name not in known:
            remedy = "judges and votes have options of their own" if name in SCORERS else did_you_mean(name, known)
            raise UsageError(f"--scorer {name}", "is no scorer of texts", remedy)
        if not known[name].available:
            raise UsageError(f"--scorer {name}", f"needs the package {known[name].package}", _install(known[name]))
    return tuple(known[name] for name in dict.fromkeys(names)) or FORMULAS


def score(
    run: Run, scorers: Sequence[Scorer] = FORMULAS, watch: Callable[[int], None] = lambda replies: None
) -> Scored:
    """Score what is not scored yet, and store it; `watch` is told how many replies have been looked at.

    Raises StoreError where the run is being written to, or cannot be.
    """
    usable = [scorer for scorer in scorers if scorer.available]
    left_out = [
        f"{one.name}: needs the package {one.package} – {_install(one)}" for one in scorers if one not in usable
    ]
    replies = new = 0
    with ScoreWriter(run.path) as writer:
        setups = [setup_of(scorer.name, scorer.config()) for scorer in usable]
        found = given(run, setups)
        pending = [_Pending(run, found, scorer, setup) for scorer, setup in zip(usable, setups, strict=True)]
        lines: list[ScorerSetup | Score] = [line for one in pending for line in one.opening()]
        for replies, one in enumerate(said(run), start=1):
            for each in pending:
                if not each.done[one.row] and (told := each.scorer.look(one)) is not None:
                    lines += each.line(Score(each.setup.config_hash, one.id, told.value, told.detail))
                    new += 1
            if len(lines) >= _TOGETHER:
                writer.append(lines)
                lines.clear()
            watch(replies)
        writer.append(lines)
    return Scored(replies, new, tuple(left_out))


class _Pending:
    """A scorer, and which replies have its score."""

    def __init__(self, run: Run, found: Given, scorer: Scorer, setup: ScorerSetup) -> None:
        self.scorer, self.setup = scorer, setup
        rows = found.lines.loc[found.lines["config_hash"] == self.setup.config_hash, "row"]
        self.done = np.zeros(len(run.turns), dtype=bool)
        self.done[rows.to_numpy(dtype=np.int64)] = True
        self._told = counts(found, self.setup)
        self._replaces = any(each.scorer == scorer.name for each in found.setups) and not self._told

    def opening(self) -> list[ScorerSetup]:
        """What ends the scores of another version at once, whether or not it finds any reply to score."""
        return self._tell() if self._replaces else []

    def line(self, score: Score) -> list[ScorerSetup | Score]:
        return [*self._tell(), score]

    def _tell(self) -> list[ScorerSetup]:
        told, self._told = self._told, True
        return [] if told else [self.setup]


def _install(scorer: Scorer) -> str:
    return f"pip install instruct-harness[{scorer.extra}]"
