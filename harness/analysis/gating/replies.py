"""Verdicts on what was said: checks, text, and turns that failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from harness.analysis.arrays import SETTING
from harness.analysis.frames import Run
from harness.analysis.gating.cells import Cell
from harness.analysis.gating.checks import FLIP_COLUMNS, Checked, checked
from harness.analysis.gating.measured import told, unheld_by
from harness.analysis.gating.window import Against, Night
from harness.analysis.sides import Setting
from harness.analysis.text_verdicts import TextVerdict, text_verdicts
from harness.analysis.verdict import Verdict
from harness.config.rules import Rule
from harness.errors import UsageError

_MOST_NAMED = 3
"""Flips and failures that a reason names; the tables have all of them."""
_UNPLAYED = ("failed", "not_reached")


@dataclass
class Replies:
    """What was said in one night."""

    candidate: Run
    settings: Mapping[Setting, Against]
    confirm: Mapping[Setting, tuple[Night, ...]]
    notes: list[str] = field(default_factory=list)
    """What was found out on the way; one sentence each."""
    _flips: list[pd.DataFrame] = field(default_factory=list)
    _said: dict[tuple[Run, ...], Mapping[Setting, TextVerdict]] = field(default_factory=dict)

    @property
    def flips(self) -> pd.DataFrame:
        """The flips of all checks that were judged so far; columns as in `checks`."""
        empty = pd.DataFrame({name: pd.Series([], dtype=dtype) for name, dtype in FLIP_COLUMNS.items()})
        return pd.concat([empty, *self._flips], ignore_index=True).drop_duplicates(ignore_index=True)

    def verdicts(self, asked: Sequence[tuple[Rule, Cell]]) -> list[Verdict]:
        """One for each rule and cell, in their order. Raises UsageError where a rule is about checks and there are none
        that mean anything."""
        found = []
        empty: dict[Rule, bool] = {}
        for rule, cell in asked:
            here = self.settings[_setting(cell)]
            unheld = None if rule.kind == "failures" else unheld_by(rule, cell, [here], "behaviour")
            if unheld is not None:
                empty[rule] = False  # there may be checks in what nothing is known of
                found.append(unheld)
            elif rule.kind == "failures":
                found.append(_failures(rule, cell, self.candidate, here))
            elif rule.kind == "checks":
                said = self._checked(cell, here)
                empty[rule] = empty.get(rule, True) and said is None
                found.append(_checks(rule, cell, here, said))
            else:
                found.append(self._text(rule, cell, here))
        for rule in (rule for rule, none in empty.items() if none):
            raise UsageError(f"gate.rules.{rule.text}", _NO_CHECKS, "leave the rule out")
        return found

    def _checked(self, cell: Cell, here: Against) -> Checked | None:
        assert here.tonight is not None, "what was not played is told before"
        nights = [night.run for night in here.comparable("behaviour")]
        further = [night.run for night in self.confirm.get(here.setting, ())]
        found = checked(cell, here.tonight, nights, further)
        if found is not None and len(found.changes):
            self._flips.append(found.changes)
        return found

    def _text(self, rule: Rule, cell: Cell, here: Against) -> Verdict:
        """What the forced pass says of a setting, against the nights that it may be held against."""
        assert here.tonight is not None, "what was not played is told before"
        nights = tuple(night.run for night in here.comparable("behaviour"))
        further = tuple(night.run for night in self.confirm.get(here.setting, ()))
        if (*nights, *further) not in self._said:
            found = text_verdicts(here.tonight.run, nights, further)
            self._said[*nights, *further] = {(each.model, each.sampling, each.concurrency): each for each in found}
        said = self._said[*nights, *further].get(here.setting)
        if said is None:
            return told(rule, cell, "cannot tell", "replies were not forced, tonight or in the window")
        self.notes += [f"{here.name}: {note}." for note in said.notes]
        numbers = {} if said.figures is None else {
            "baseline": said.figures.baseline_logprob,
            "candidate": said.figures.candidate_logprob,
            "change": said.shift,
            "low": said.low,
            "high": said.high,
            "margin": None if said.floor is None else -said.floor.mean,
        }  # fmt: skip
        bad = said.answer in ("suspicion", "regression")
        return told(
            rule,
            cell,
            said.answer,
            said.reason + (f"; needed: {said.needed}" if said.needed else ""),
            **numbers,
            unit="nats",
            nights=len(nights),
            launches=len(further) + 1,
            suspects=here.suspects("behaviour") if bad else (),
        )


_NO_CHECKS = "there is no check whose answer means anything: none is made, or replies are forced or random"


def _setting(cell: Cell) -> Setting:
    assert cell.sampling is not None, "what was said is judged setting by setting"
    assert cell.concurrency is not None
    return cell.model, cell.sampling, cell.concurrency


def _failures(rule: Rule, cell: Cell, candidate: Run, here: Against) -> Verdict:
    """Turns that failed are a fact: it takes no window to see them."""
    own = _of(candidate, cell)
    failed, unreached, missing = (int((own["state"] == state).sum()) for state in (*_UNPLAYED, "missing"))
    count = failed + unreached
    before = [float(_of(night.run, cell)["state"].isin(_UNPLAYED).sum()) for night in here.nights]
    usual = sum(before) / len(before) if before else None
    numbers = {
        "baseline": usual,
        "candidate": float(count),
        "change": None if usual is None else count - usual,
        "margin": float(rule.most),
        "nights": len(before),
        "launches": int(own["launch"].nunique()),
    }
    if not len(own):
        return told(rule, cell, "cannot tell", "in the newest night of the window, and not in tonight's plan")
    if count > rule.most:
        more = f"; {unreached} were not reached because of that" if unreached else ""
        reason = f"{failed} of {len(own)} turns failed: {_kinds(own[own['state'] == 'failed'])}{more}"
        return told(rule, cell, "regression", reason, **numbers)
    if missing == len(own):
        return told(rule, cell, "not run", f"{missing} turns were not played: harness run --resume", **numbers)
    reason = f"{count} of {len(own) - missing} turns failed"
    if here.tonight is None:
        return told(rule, cell, "cannot tell", f"{reason}, and {missing} were not played", **numbers)
    return told(rule, cell, "pass", reason, **numbers)


def _of(run: Run, cell: Cell) -> pd.DataFrame:
    """The turns of a cell."""
    turns = run.turns
    inside = pd.Series(True, index=turns.index)
    for name in (*SETTING, "conversation_id", "turn_index"):
        wanted = getattr(cell, name)
        if wanted is not None:
            inside &= turns[name] == wanted
    return turns[inside]


def _kinds(failed: pd.DataFrame) -> str:
    """What went wrong, the most frequent first."""
    counts = failed.groupby(["error", "error_phase"], sort=False, dropna=False).agg(
        times=("error", "size"), message=("error_message", "first")
    )
    counts = counts.sort_values("times", ascending=False, kind="stable").reset_index()
    told = [
        f"{row['times']} × {row['error']} in {row['error_phase']} ({_short(str(row['message']))})"
        for row in counts.head(_MOST_NAMED).to_dict("records")
    ]
    return ", ".join(told) + (" and others" if len(counts) > len(told) else "")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 100 else f"{line[:99]}…"


def _checks(rule: Rule, cell: Cell, here: Against, found: Checked | None) -> Verdict:
    if found is None:
        return told(rule, cell, "cannot tell", f"{_NO_CHECKS}: say where there are any, as in checks where model=…")
    lost, doubtful, unsteady = (found.of(change) for change in ("lost", "doubtful", "unsteady"))
    numbers = {
        "baseline": float(found.kept),
        "candidate": float(found.passed),
        "change": float(found.passed - found.kept),
        "margin": 0.0,
        "unit": "checks",
        "nights": len(here.comparable("behaviour")),
        "launches": found.launches,
    }
    besides = f"; unsteady in the window already: {_named(unsteady)}" if len(unsteady) else ""
    bad = pd.concat([lost, doubtful])
    if not found.total:
        return told(rule, cell, "cannot tell", "no check of tonight was made in the window", **numbers)
    if not len(bad):
        reason = f"{found.kept} of {found.total} checks passed in every night of the window, and all of them do tonight"
        return told(rule, cell, "pass", reason + besides, **numbers)
    numbers["suspects"] = here.suspects("behaviour")
    if found.drawn_freely:
        reason = f"not every time: {_named(bad)}; but in a batch draws do not follow from their seeds, and may differ"
        return told(rule, cell, "cannot tell", reason + besides, **numbers)
    if len(lost):
        reason = f"passed in every night of the window, and not tonight: {_named(lost)}"
        return told(rule, cell, "regression", reason + besides, **numbers)
    reason = f"failed in some plays of what should be one reply, not confirmed by fresh launches: {_named(doubtful)}"
    return told(rule, cell, "suspicion", reason + besides, **numbers)


def _named(flips: pd.DataFrame) -> str:
    rows = flips.head(_MOST_NAMED).to_dict("records")
    named = ", ".join(f"{row['conversation_id']} turn {row['turn_index']} {row['check']}" for row in rows)
    return named + (f" and {len(flips) - len(rows)} more" if len(flips) > len(rows) else "")
