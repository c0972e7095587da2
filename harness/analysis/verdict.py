"""What a gate says: one verdict for each cell that a rule judges, and one answer for the night.

A verdict is *pass*, *regression* – worse than the margin, surely, and seen again in further launches –, *suspicion* –
worse than the margin, and not seen again yet –, *cannot tell*, *not comparable* or *not run*. Nothing but a pass is a
pass: what is missing, was not measured or has no baseline cannot be told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from harness.analysis.frames import Run
from harness.config.rules import Kind

Answer = Literal["pass", "suspicion", "regression", "cannot tell", "not comparable", "not run"]
GateAnswer = Literal["pass", "regression", "cannot tell", "not comparable", "some failed"]
EXIT_CODES: dict[GateAnswer, int] = {
    "pass": 0,
    "regression": 3,
    "cannot tell": 4,
    "not comparable": 5,
    "some failed": 6,
}
_PLACE = ("model", "sampling", "concurrency", "conversation_id", "turn_index")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one rule says of one cell. Numbers are None where there is nothing to say, `reason` then says why."""

    rule: str
    """As it was written: `ttft_s.p50: +8%`."""
    kind: Kind
    metric: str
    """Its name; checks, text or failures."""
    statistic: str | None
    """None: the paired effect, or no metric at all."""
    model: str
    sampling: str | None
    """None, as all that follow: of all there are."""
    concurrency: int | None
    conversation_id: str | None
    turn_index: int | None
    answer: Answer
    reason: str
    baseline: float | None = None
    """The window's value and tonight's, in `unit`."""
    candidate: float | None = None
    change: float | None = None
    """On `scale`, as `low` to `resolvable` are: candidate / baseline, or candidate − baseline in `unit`."""
    low: float | None = None
    """The interval of the change, two-sided, adjusted for all that was looked at tonight."""
    high: float | None = None
    margin: float | None = None
    """The largest change that the rule allows; None for `auto` that could not be worked out."""
    unit: str = ""
    scale: Literal["ratio", "difference"] = "ratio"
    at_most: float | None = None
    """The change that is not exceeded, in the direction that is worse, at 95 %, one-sided."""
    resolvable: float | None = None
    """The smallest margin that so many launches and nights can decide on."""
    launches: int = 0
    """Of tonight."""
    nights: int = 0
    """Of the window, that this cell could be held against."""
    needed: int | None = None
    """Launches a night that would decide where nobody can tell; None where no number would."""
    suspects: tuple[str, ...] = ()
    """What else differs from the window and may have done it: `torch 2.11.0 → 2.12.0`."""

    @property
    def name(self) -> str:
        """`ttft_s.p50`, checks, text or failures."""
        return self.metric if self.statistic is None else f"{self.metric}.{self.statistic}"

    @property
    def cell(self) -> str:
        """Where: `nano, greedy, physics turn 2`."""
        parts = [
            self.model,
            self.sampling,
            None if self.concurrency in (None, 1) else f"concurrency {self.concurrency}",
        ]
        turn = None if self.turn_index is None else f"turn {self.turn_index}"
        where = " ".join(part for part in (self.conversation_id, turn) if part is not None)
        return ", ".join(part for part in (*parts, where) if part)

    @property
    def sentence(self) -> str:
        """One line for people and logs: what, where, the answer, by how much, why."""
        besides = f"; also different: {', '.join(self.suspects)}" if self.suspects else ""
        return f"{self.name} of {self.cell}: {self.answer}{self._by_how_much} – {self.reason}{besides}"

    @property
    def _by_how_much(self) -> str:
        if self.kind not in ("speed", "memory") or self.change is None:
            return ""
        parts = [self._told(self.change)]
        if self.low is not None and self.high is not None:
            parts.append(f"({self._told(self.low)} to {self._told(self.high)})")
        if self.margin is not None:
            parts.append(f"where {self._told(self.margin)} is allowed")
        return f", {' '.join(parts)}"

    def _told(self, change: float) -> str:
        if self.scale == "ratio":
            return f"{100 * (change - 1):+.1f} %"
        return f"{change / 2**20:+.1f} MiB" if self.unit == "bytes" else f"{change:+.3g} {self.unit}"


@dataclass(frozen=True, slots=True, eq=False)
class Gate:
    """A night, judged."""

    candidate: Run
    baseline: tuple[Run, ...]
    """The window, oldest first."""
    verdicts: tuple[Verdict, ...]
    ledger: pd.DataFrame
    """What differs between the window and tonight, one row per field, setting and pair of values, blockers first:
    setting, field, baseline_value, candidate_value, speed, behaviour, remark, nights (how many it differs from)."""
    notes: tuple[str, ...] = ()
    """What else there is to know; one sentence each."""
    flips: pd.DataFrame = field(default_factory=pd.DataFrame)
    """The checks that passed in every night of the window and not tonight, and the other way round, with replies."""
    confirmed_by: tuple[Run, ...] = ()

    @property
    def answer(self) -> GateAnswer:
        """The worst of the verdicts. A night without any has not passed."""
        answers = {verdict.answer for verdict in self.verdicts}
        if "regression" in answers:
            return "regression"
        if "not comparable" in answers:
            return "not comparable"
        if self.failed:
            return "some failed"
        return "pass" if answers == {"pass"} else "cannot tell"

    @property
    def exit_code(self) -> int:
        """0 pass, 3 regression, 4 cannot tell, 5 not comparable, 6 some turns failed and no rule says so."""
        return EXIT_CODES[self.answer]

    @property
    def failed(self) -> int:
        """How many turns of the candidate failed, or were not reached because one did, where no rule is about it."""
        turns = self.candidate.turns
        untold = turns["state"].isin(["failed", "not_reached"])
        for verdict in self.verdicts:
            if verdict.kind == "failures" and untold.any():
                here = untold.copy()
                for name in _PLACE:
                    wanted = getattr(verdict, name)
                    here &= True if wanted is None else turns[name] == wanted
                untold &= ~here
        return int(untold.sum())

    def of(self, *answers: Answer) -> Sequence[Verdict]:
        """The verdicts with these answers."""
        return [verdict for verdict in self.verdicts if verdict.answer in answers]
