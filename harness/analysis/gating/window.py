"""The window: which of the nights given a night is held against, and setting by setting whether it may be.

Two nights may be compared where they are nights of one plan – a gate asks what time has done, not what another plan
does – and nothing blocks (`fairness`). Whatever a plan decides on counts, but how many launches there are. A night of
another plan, or on other hardware, is set aside for the settings it concerns; where none is left, tonight is not
comparable.

Launches that were broken off count nowhere: a launch is held against launches that did the same work.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel

from harness.analysis.arrays import SETTING
from harness.analysis.fairness import Difference, fairness
from harness.analysis.frames import Run
from harness.analysis.pairing import Work, work
from harness.analysis.sides import Pair, Setting, Side, axes_of
from harness.config.schema import ModelSpec, RunConfig
from harness.errors import UsageError

_APART = frozenset(
    {"models", "samplings", "conversations", "concurrency", "launches", "n_cells", "n_turns", "lane", "label"}
)
"""Of a plan and of a model spec: what is looked at by itself, follows from the rest, or is no matter."""
ANOTHER_PLAN = "another plan: bless a night of this one"
LEDGER_COLUMNS = {
    **dict.fromkeys(
        ("setting", "field", "baseline_value", "candidate_value", "speed", "behaviour", "remark"), "string"
    ),
    "nights": "Int64",
}


SITTING = timedelta(hours=12)
"""Runs that were begun within so long of the first of them are one night."""


@dataclass(frozen=True, slots=True)
class Night:
    """A night of the window beside tonight, in one setting."""

    run: Run
    work: Work
    """The night is its baseline, tonight its candidate."""
    differences: tuple[Difference, ...]

    def blocks(self, lane: str) -> bool:
        """Whether its numbers of speed (and memory), or of behaviour, are not of the same thing as tonight's."""
        return any(getattr(difference, lane) == "blocker" for difference in self.differences)

    def blockers(self, lane: str) -> tuple[str, ...]:
        """What makes it so, field by field."""
        return tuple(map(_change, (each for each in self.differences if getattr(each, lane) == "blocker")))


@dataclass(frozen=True, slots=True)
class Against:
    """One setting: tonight, and the nights that have it too."""

    setting: Setting
    tonight: Side | None
    """None where tonight's plan does not have it, or no launch of it was finished."""
    planned: bool
    """Whether tonight's plan has it."""
    missing: int
    """Turns tonight that were not played."""
    nights: tuple[Night, ...]
    had: int
    """How many nights of the window have played the setting."""

    @property
    def name(self) -> str:
        return _named(self.setting)

    def comparable(self, lane: str) -> tuple[Night, ...]:
        """The nights that it may be held against in speed (and memory), or in behaviour."""
        return tuple(night for night in self.nights if not night.blocks(lane))

    def blockers(self, lane: str) -> tuple[str, ...]:
        """What keeps all of them from being compared, field by field."""
        return tuple(dict.fromkeys(blocker for night in self.nights for blocker in night.blockers(lane)))

    def suspects(self, lane: str) -> tuple[str, ...]:
        """What else differs from the nights it is held against: the newest first, as it changed last."""
        found: dict[str, str] = {}
        for night in reversed(self.comparable(lane)):
            for difference in night.differences:
                if getattr(difference, lane) is not None:
                    found.setdefault(difference.field, _change(difference))
        return tuple(found.values())


def _change(difference: Difference) -> str:
    return f"{difference.field} {difference.baseline} → {difference.candidate}"


def newest(candidate: Run, baselines: Sequence[Run], window: int) -> tuple[Run, ...]:
    """The newest `window` of the runs given, oldest first; one given twice counts once. None is older than one that was
    blessed as a new beginning, and a run is no baseline of its own, as where it was blessed and is judged again.

    Raises UsageError where there is none.
    """
    runs = {run.run_id: run for run in baselines if run.run_id != candidate.run_id}
    if not runs:
        fact = "has no baseline to be held against" + (" but itself" if baselines else "")
        raise UsageError(candidate.run_id, fact, "bless a night first: harness bless")
    newest_first = sorted(runs.values(), key=lambda run: str(run.manifest["created_at"]), reverse=True)[:window]
    begun = [number for number, run in enumerate(newest_first) if run.manifest.get("blessed", {}).get("anew")]
    return tuple(reversed(newest_first[: begun[0] + 1] if begun else newest_first))


def by_sitting(
    values: Sequence[npt.NDArray[np.float64]], begun: Sequence[datetime], tonight: datetime | None = None
) -> list[npt.NDArray[np.float64]]:
    """Launches night by night, oldest first, those of one sitting together: runs in a row do not tell what differs from
    one day to the next. Where all of them and tonight were one sitting, nothing does, and each counts by itself."""
    if tonight is not None and all(abs(tonight - at) < SITTING for at in begun):
        return list(values)
    found: list[list[npt.NDArray[np.float64]]] = []
    first: datetime | None = None
    for launches, at in zip(values, begun, strict=True):
        if first is None or at - first >= SITTING:
            first = at
            found.append([])
        found[-1].append(launches)
    return [np.concatenate(each) for each in found]


def settings_of(run: Run) -> tuple[Setting, ...]:
    """Every (model, sampling, concurrency) of a run's plan."""
    return tuple(product(*axes_of(run).values()))


def finished(run: Run) -> Run:
    """The run without the launches of a setting that were broken off."""
    turns = run.turns
    missing = (turns["state"] == "missing").to_numpy(dtype=bool)
    if not missing.any():
        return run
    broken = pd.Series(missing).groupby([turns[name].to_numpy() for name in (*SETTING, "launch")]).transform("any")
    return replace(run, turns=turns[~broken.to_numpy(dtype=bool)].reset_index(drop=True))


def against(candidate: Run, nights: Sequence[Run], *, strict: bool = False) -> dict[Setting, Against]:
    """Every setting of tonight or of the window. `strict` counts what is suspect as blocking too."""
    tonight = finished(candidate)
    whole = [finished(night) for night in nights]
    missing = candidate.turns[candidate.turns["state"] == "missing"].groupby(list(SETTING)).size().to_dict()
    here = set(settings_of(candidate))
    found = {}
    for setting in dict.fromkeys(setting for run in (candidate, *nights) for setting in settings_of(run)):
        side = Side(tonight, *setting)
        played = setting in here and len(side.turns) > 0
        having = [night for night in whole if setting in settings_of(night) and len(Side(night, *setting).turns)]
        found[setting] = Against(
            setting=setting,
            tonight=side if played else None,
            planned=setting in here,
            missing=int(missing.get(setting, 0)),
            nights=tuple(_night(Side(night, *setting), side, strict=strict) for night in having) if played else (),
            had=len(having),
        )
    return found


def _night(baseline: Side, tonight: Side, *, strict: bool) -> Night:
    shared = work(Pair(baseline, tonight))
    differences = differing(shared)
    if strict:
        differences = tuple(
            replace(each, speed=each.speed and "blocker", behaviour=each.behaviour and "blocker")
            for each in differences
        )
    return Night(baseline.run, shared, differences)


def differing(shared: Work, *, same_plan: bool = True) -> tuple[Difference, ...]:
    """What differs between two nights in one setting, blockers first; without `same_plan` fewer conversations and other
    numbers of repeats are no matter."""
    found = {difference.field: difference for difference in fairness(shared.pair, shared)}
    if same_plan:
        for difference in _plans(*shared.pair):
            found[difference.field] = difference
    return tuple(sorted(found.values(), key=lambda difference: not difference.blocks))


def _plans(ours: Side, theirs: Side) -> Iterator[Difference]:
    """In what the plans of a setting differ, each a blocker."""
    yield from _unlike(ours.run.plan, theirs.run.plan, RunConfig)
    yield from _unlike(ours.specs[0], theirs.specs[0], ModelSpec)
    played, plays = ({str(talk["id"]) for talk in side.run.plan["conversations"]} for side in (ours, theirs))
    if played != plays:
        before, after = (", ".join(sorted(each)) or "no other" for each in (played - plays, plays - played))
        yield Difference("conversations played", before, after, "blocker", "blocker", ANOTHER_PLAN)


def _unlike(ours: Mapping[str, Any], theirs: Mapping[str, Any], shape: type[BaseModel]) -> Iterator[Difference]:
    """What an older version did not know of was as it is by default."""
    for name in dict.fromkeys([*ours, *theirs]):
        field = shape.model_fields.get(name)
        usual = None if field is None else field.get_default(call_default_factory=True)
        before, after = (side.get(name, usual) for side in (ours, theirs))
        if before != after and name not in _APART:
            yield Difference(name, _told(before), _told(after), "blocker", "blocker", ANOTHER_PLAN)


def _told(value: Any) -> str:
    return "none" if value is None else str(value)


def ledger(found: Iterable[Against]) -> pd.DataFrame:
    """What differs between the window and tonight, blockers first: a row for each thing, with the settings and how many
    nights it concerns."""
    settings: dict[Difference, dict[Setting, None]] = {}
    nights: dict[Difference, set[str]] = {}
    held = [each for each in found if each.nights]
    for each in held:
        for night in each.nights:
            for difference in night.differences:
                settings.setdefault(difference, {})[each.setting] = None
                nights.setdefault(difference, set()).add(night.run.run_id)
    rows = [
        {
            "setting": "all"
            if len(settings[difference]) == len(held)
            else "; ".join(map(_named, settings[difference])),
            **difference.columns,
            "nights": len(nights[difference]),
        }
        for difference in sorted(settings, key=lambda difference: not difference.blocks)
    ]
    return pd.DataFrame(
        {name: pd.Series([row[name] for row in rows], dtype=dtype) for name, dtype in LEDGER_COLUMNS.items()}
    )


def _named(setting: Setting) -> str:
    model, sampling, concurrency = setting
    return ", ".join([model, sampling, *([f"concurrency {concurrency}"] if concurrency != 1 else [])])
