"""The numbers of a cell: one per launch, tonight and in every night of the window, all made of the same turns.

Launches are the sample (`stats`), and a launch has one number: the geometric mean of a metric over the turns – so that
the ratio of two is their paired effect –, or a statistic of theirs. Every number of a cell is made of the same turns,
whichever night it is of: those that are the same work in all of them (`pairing`: equal prompts, replies of equal
length), or, for memory, that were answered in all of them.

A night in which a conversation failed, or was answered otherwise, does not take those turns away from all others, where
tonight may be worse in just these: it is set aside, as long as there are enough nights without it. Where no night has
half of the cell's turns in common with tonight, nothing is said.

With an anchor every number is relative to that of the anchor in the same launch of the same night: both were measured
within minutes of each other, so that what the machine does to both cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.analysis.arrays import Array, view
from harness.analysis.decide import FEWEST_NIGHTS
from harness.analysis.frames import Run
from harness.analysis.gating.cells import Cell
from harness.analysis.gating.window import Night
from harness.analysis.pairing import Flags, LeftOut, Rows
from harness.config.figures import LEAST_TURNS

LEAST_COMMON = 0.5
"""Of the turns of a cell: fewer in common, and the night held against the window is another one."""
_KEPT = 0.9
"""A night that would leave less than this of the turns that the best few nights have in common is set aside."""

ByLaunch = Mapping[int, float]
"""Launch → number."""
_TURN = ["conversation_id", "turn_index", "repeat"]


@dataclass(frozen=True, slots=True)
class Numbers:
    """What a cell measured, in the unit of its metric; above 0."""

    tonight: ByLaunch
    nights: Mapping[str, ByLaunch]
    """By the name of the run, the oldest first."""
    further: Mapping[str, ByLaunch]
    """Of runs that were made because tonight's numbers were suspicious."""
    turns: int
    """Behind each number, each repeat by itself."""
    left_out: int
    """Turns of the cell that have the metric somewhere, and not in all of these nights as the same work."""
    set_aside: tuple[str, ...]
    """Nights that had too few turns in common with the others."""
    absolute: Numbers | None = None
    """The same in the unit of the metric, of numbers that are relative to an anchor."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """Why a cell has no numbers."""

    reason: str
    measured: bool = True
    """Whether the metric was measured at all, in any turn of any of these nights."""


@dataclass(frozen=True, slots=True)
class _Part:
    """One run's turns of a cell, in the order of tonight's."""

    run: Run
    rows: Rows
    """(turns, launches) → row of `run.turns`; -1 where it was not answered."""
    launches: tuple[int, ...]
    same: Flags
    """The same work as tonight."""
    answered: Flags
    why: LeftOut


@dataclass(frozen=True, slots=True)
class Block:
    """A setting tonight, and the same turns in other runs."""

    tonight: _Part
    nights: Mapping[str, _Part]
    further: Mapping[str, _Part]
    conversation: npt.NDArray[np.object_]
    turn: Rows

    @classmethod
    def of(cls, nights: Sequence[Night], further: Sequence[Night] = ()) -> Block:
        """The block of nights that are held against the same setting of the same run; one at least."""
        side = nights[0].work.pair.candidate
        seen = side.turns
        key = seen["place"] * (int(seen["repeat"].max(initial=0)) + 1) + seen["repeat"]
        keys, first, which = np.unique(key, return_index=True, return_inverse=True)
        done = seen["state"] == 0
        launches = np.unique(seen["launch"][done]).astype(np.int64)
        rows = np.full((len(keys), len(launches)), -1, dtype=np.int64)
        rows[which[done], np.searchsorted(launches, seen["launch"][done])] = seen.rows[done]
        answered = np.logical_and((rows >= 0).all(axis=1), bool(len(launches)))
        of_row = np.full(len(side.run.turns) + 1, -1)
        of_row[seen.rows] = which
        turns = side.run.turns[_TURN].iloc[seen.rows[first]]
        places = pd.MultiIndex.from_frame(turns)
        return cls(
            _Part(side.run, rows, tuple(launches.tolist()), answered, answered, LeftOut()),
            {night.run.run_id: _part(night, of_row, places) for night in nights},
            {run.run.run_id: _part(run, of_row, places) for run in further},
            turns["conversation_id"].to_numpy(dtype=object),
            turns["turn_index"].to_numpy(dtype=np.int64),
        )

    def inside(self, cell: Cell) -> Flags:
        """Which turns belong to the cell."""
        inside = np.ones(len(self.turn), dtype=bool)
        if cell.conversation_id is not None:
            inside &= self.conversation == cell.conversation_id
        if cell.turn_index is not None:
            inside &= self.turn == cell.turn_index
        return inside


def _part(night: Night, of_row: Rows, places: pd.MultiIndex) -> _Part:
    """A night's turns, put where tonight has them: also those that tonight did not answer."""
    shared, run = night.work, night.run
    row, other = shared.candidate.max(axis=1, initial=-1), shared.baseline.max(axis=1, initial=-1)
    place = np.where(row >= 0, of_row[row], -1)
    only_then = (row < 0) & (other >= 0)
    if only_then.any():
        there = pd.MultiIndex.from_frame(run.turns[_TURN].iloc[other[only_then]])
        place[only_then] = places.get_indexer(there)
    known = place >= 0
    rows = np.full((len(places), shared.baseline.shape[1]), -1, dtype=np.int64)
    same, answered = np.zeros(len(places), dtype=bool), np.zeros(len(places), dtype=bool)
    rows[place[known]] = shared.baseline[known]
    same[place[known]], answered[place[known]] = shared.same()[known], shared.answered[known]
    launches = np.unique(shared.pair.baseline.turns.done["launch"]).astype(np.int64)
    return _Part(run, rows, tuple(launches.tolist()), same, answered, shared.left_out())


def numbers(
    blocks: Sequence[Block],
    cell: Cell,
    metric: str,
    statistic: str | None,
    *,
    memory: bool = False,
    confirmed: bool = False,
) -> Numbers | Nothing:
    """The numbers of a cell, which is made of these settings; nights that lack one of them do not take part. With
    `confirmed` only of turns that the further runs played as well."""
    inside = [block.inside(cell) for block in blocks]
    tonight = _joined([block.tonight for block in blocks], inside)
    nights = _shared([block.nights for block in blocks], inside)
    further = _shared([block.further for block in blocks], inside) if confirmed else {}
    if not nights:
        return Nothing("no night has all of its settings")
    has_it = np.logical_or.reduce([part.has(metric) for part in (tonight, *nights.values())])
    if not has_it.any():
        return Nothing(f"{metric} was not measured", measured=False)
    own = np.logical_and.reduce([part.known(metric, memory=memory) for part in (tonight, *further.values())])
    known = {run: own & part.known(metric, memory=memory) for run, part in nights.items()}
    lost = int(
        (tonight.answered & ~tonight.known(metric, memory=memory) & _always(nights, metric, memory=memory)).sum()
    )
    if lost or not own.any():
        return Nothing(_unmeasured(metric, lost if own.any() else 0, answered=bool(tonight.answered.any())))
    order = sorted(nights, key=lambda run: -int(known[run].sum()))
    common = np.logical_and.accumulate([known[run] for run in order])
    # What confirms a suspicion may have played the suspicious conversations only.
    due = int((has_it & own).sum() if confirmed else has_it.sum())
    counts = common.sum(axis=1)
    enough = max(LEAST_COMMON * due, _KEPT * counts[min(FEWEST_NIGHTS, len(counts)) - 1], 1)
    kept = order[: int((counts >= enough).sum())]
    if not kept:
        return Nothing(_apart(int(common[0].sum()), due, nights[order[0]], memory=memory))
    chosen = common[len(kept) - 1]
    least = LEAST_TURNS.get(statistic or "", 1)
    if chosen.sum() < least:
        return Nothing(f"{statistic} takes {least} turns of a launch, and {int(chosen.sum())} are the same work")
    return Numbers(
        tonight.by_launch(metric, statistic, chosen),
        {run: part.by_launch(metric, statistic, chosen) for run, part in nights.items() if run in kept},
        {run: part.by_launch(metric, statistic, chosen) for run, part in further.items()},
        turns=int(chosen.sum()),
        left_out=due - int((chosen & has_it).sum()),
        set_aside=tuple(run for run in nights if run not in kept),
    )


def _shared(parts: Sequence[Mapping[str, _Part]], inside: Sequence[Flags]) -> dict[str, _Joined]:
    """The runs that have all settings of the cell."""
    runs = [run for run in parts[0] if all(run in each for each in parts)]
    return {run: _joined([each[run] for each in parts], inside) for run in runs}


def _unmeasured(metric: str, lost: int, *, answered: bool) -> str:
    if lost:
        return f"{metric} of {lost} turns was not measured tonight, and is in the window"
    return "not measured in every launch tonight" if answered else "no turn was answered"


def _always(nights: Mapping[str, _Joined], metric: str, *, memory: bool) -> Flags:
    """Which turns have the metric in every night that may be compared there, and in one at least."""
    known = np.array([part.known(metric, memory=memory) for part in nights.values()])
    may = np.array([part.answered if memory else part.same for part in nights.values()])
    found: Flags = (known | ~may).all(axis=0) & known.any(axis=0)
    return found


def _apart(common: int, of: int, nearest: _Joined, *, memory: bool) -> str:
    what = "were answered in both" if memory else "are the same work"
    return f"tonight and the night most like it have {common} of {of} turns that {what} ({nearest.why})"


@dataclass(frozen=True, slots=True)
class _Joined(_Part):
    """The turns of a cell in one run, of all its settings."""

    def known(self, metric: str, *, memory: bool) -> Flags:
        """Which turns may be compared, and have the metric in every launch."""
        values = self._values(metric)
        may = self.answered if memory else self.same
        return np.logical_and(may & (values > 0).all(axis=1), bool(values.shape[1]))

    def has(self, metric: str) -> Flags:
        """Which turns have it in any launch."""
        return np.asarray(((self._values(metric) > 0) & (self.rows >= 0)).any(axis=1))

    def by_launch(self, metric: str, statistic: str | None, chosen: Flags) -> ByLaunch:
        found = _STATISTICS[statistic](self._values(metric)[chosen])
        return dict(zip(self.launches, found.tolist(), strict=True))

    def _values(self, metric: str) -> Array:
        values: Array = view(self.run).arrays[metric][self.rows]
        return values


def _joined(parts: Sequence[_Part], inside: Sequence[Flags]) -> _Joined:
    """The parts of one run, in the launches that all of them have."""
    launches = sorted(set.intersection(*(set(part.launches) for part in parts)))
    rows = [
        part.rows[:, [part.launches.index(launch) for launch in launches]][mask]
        for part, mask in zip(parts, inside, strict=True)
    ]
    return _Joined(
        parts[0].run,
        np.concatenate(rows),
        tuple(launches),
        np.concatenate([part.same[mask] for part, mask in zip(parts, inside, strict=True)]),
        np.concatenate([part.answered[mask] for part, mask in zip(parts, inside, strict=True)]),
        _added(part.why for part in parts),
    )


def _added(reasons: Iterable[LeftOut]) -> LeftOut:
    told = list(reasons)
    return LeftOut(
        sum(each.unanswered for each in told),
        sum(each.other_prompt for each in told),
        sum(each.other_length for each in told),
    )


_STATISTICS: Mapping[str | None, Callable[[Array], Any]] = {
    None: lambda values: np.exp(np.log(values).mean(axis=0)),
    "mean": lambda values: values.mean(axis=0),
    "p50": lambda values: np.median(values, axis=0),
    "p95": lambda values: np.percentile(values, 95, axis=0),
    "p99": lambda values: np.percentile(values, 99, axis=0),
    "min": lambda values: values.min(axis=0),
    "max": lambda values: values.max(axis=0),
}


def relative_to(found: Numbers, anchor: Numbers) -> Numbers | Nothing:
    """The numbers over those of the anchor, launch by launch; launches and nights without an anchor are left out."""

    def over(own: ByLaunch, machine: ByLaunch) -> ByLaunch:
        return {launch: value / machine[launch] for launch, value in own.items() if launch in machine}

    nights = {run: over(own, anchor.nights[run]) for run, own in found.nights.items() if run in anchor.nights}
    tonight = over(found.tonight, anchor.tonight)
    kept = {run: own for run, own in nights.items() if own}
    further = {run: over(own, anchor.further[run]) for run, own in found.further.items() if run in anchor.further}
    if not tonight or not kept:
        return Nothing("no launch of it has one of the anchor beside it, tonight and in the window")
    return replace(found, tonight=tonight, nights=kept, further=further, absolute=found)
