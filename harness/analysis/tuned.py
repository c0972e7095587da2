"""A tuning study as it was carried out: what reports, files and the terminal show of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.analysis.tuning import Choice, Goals, Standing
from harness.analysis.validation import Validation


@dataclass(frozen=True, slots=True)
class Rung:
    """How the settings stood after a rung, and which of them stopped there."""

    number: int
    repeats: int
    runs: tuple[str, ...]
    """Names of its runs, below the study's directory."""
    standings: tuple[Standing, ...]
    stopped: Mapping[str, str]
    """Reasons by name; empty after the last rung."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """A finished study."""

    path: Path
    model: str
    config: str
    """Where the config came from."""
    search: str
    """exhaustive or optuna"""
    seed: int
    goals: Goals
    default: str
    tuned_on: tuple[str, ...]
    """Ids of conversations."""
    held_out: tuple[str, ...]
    chance: float
    """The chance that a single comparison between settings was left (`tuning.level`)."""
    rungs: tuple[Rung, ...]
    choice: Choice | None
    """What did best on the conversations tuned on; None where nothing is within the limits."""
    validation: Validation | None
    paired: bool
    """Whether settings drew alike: not where several conversations were replayed at a time."""
    warnings: tuple[str, ...]
    """Of all runs, once each: settings without effect, among others."""
    any_failed: bool
    """Whether any turn failed."""

    @property
    def settings(self) -> Mapping[str, Mapping[str, Any]]:
        """The parameters of every setting tried, by name."""
        return {standing.name: standing.parameters for rung in self.rungs for standing in rung.standings}

    @property
    def last(self) -> Mapping[str, tuple[int, Standing]]:
        """Of every setting the last rung it played, and how it stood there."""
        return {standing.name: (rung.number, standing) for rung in self.rungs for standing in rung.standings}

    @property
    def recommended(self) -> str | None:
        """The choice where the validation upholds it, else the default; None where nothing is within the limits."""
        if self.choice is None or self.validation is None:
            return None
        return self.choice.name if self.validation.stands else self.default
