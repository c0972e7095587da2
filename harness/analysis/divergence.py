"""Where a reply leaves the greedy one: id by id, against what greedy said to the very same prompt.

Each answered turn is held against the greedy sampling of its model (`settings.references`), at the same level of
concurrency, in the same turn of the script, where that was asked the same prompt, id by id (`prompt_hash`); greedy
repeats being one answer, its first one counts. So under `history: generated` later turns take part only where
everything before them was said alike.

A reply *differs* if some id does, or if one of the two ended where the other goes on. One that was cut off by its
length while it still said the same has not differed. Ids are not kept in `Run.turns`: they are read again, and only
those of greedy answers are held in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from harness.analysis.arrays import SETTING, Array, View, groups, view
from harness.analysis.frames import Run, once_per_run
from harness.analysis.lines import IDS, each_batch
from harness.analysis.selection import Rows
from harness.analysis.settings import references

_Whole = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Divergence:
    """One entry per row of `Run.turns`; NaN where there is nothing to hold it against."""

    differs: Array
    """1 or 0."""
    token: Array
    """Position of the first id that differs, from 0; only where it does."""
    share: Array
    """The same, as a share of the greedy reply."""


@once_per_run
def divergence(run: Run) -> Divergence:
    """How the replies of a run differ from greedy ones; nothing of a night file, which keeps no ids. Reads turns.jsonl
    twice; raises StoreError as `load` does."""
    found = Divergence(*(np.full(len(run.turns), np.nan) for _ in range(3)))
    reference = _reference(run)
    held = reference >= 0
    if run.kept or not held.any():
        return found
    is_reference = np.zeros(len(reference), dtype=bool)
    is_reference[reference[held]] = True
    greedy, cut_off = _gathered(run, is_reference), view(run)["cut_off"] > 0
    for rows, ids in _ids(run, held):
        against = reference[rows]
        common, own, its = _in_common(ids, greedy, against), ids.size, greedy.size[against]
        ended = ((common == own) & cut_off[rows]) | ((common == its) & cut_off[against])
        differs = ~ended & ((common < own) | (common < its))
        told = (own > 0) & (its > 0)
        differs &= told
        found.differs[rows[told]] = differs[told]
        found.token[rows[differs]] = common[differs]
        found.share[rows[differs]] = common[differs] / its[differs]
    return found


def _reference(run: Run) -> _Whole:
    """For each row the row of the greedy answer it is held against; -1 where there is none."""
    held, reference = references(run), np.full(len(run.turns), -1, dtype=np.int64)
    answers = {setting: _answers(turns) for setting, turns in groups(run.turns, SETTING, view(run))}
    for (model, sampling, concurrency), own in answers.items():
        name = held.get((model, sampling), sampling)
        if name == sampling:
            continue
        greedy = answers[model, name, concurrency]
        asked, first = np.unique(greedy["asked"], return_index=True)
        place = np.searchsorted(asked, own["asked"])
        met = np.append(asked, -1)[place] == own["asked"]
        reference[own.rows[met]] = greedy.rows[first[place[met]]]
    return reference


def _answers(turns: View) -> View:
    done = turns.done
    return done.where((done["completion_tokens"] > 0) & (done["asked"] >= 0))


def _ids(run: Run, wanted: npt.NDArray[np.bool_]) -> Iterator[tuple[_Whole, _Lists]]:
    """The rows of `Run.turns` that are wanted, some at a time, with their generated ids."""
    rows, attempt = Rows.of(run.plan), view(run)["attempt"]

    def pick(batch: pa.RecordBatch) -> tuple[_Whole, _Lists]:
        around = batch["circumstances"]
        cell = pc.struct_field(around, "cell")
        told = {name: pc.struct_field(cell, name) for name in cell.type.names}
        told |= {"phase": pc.struct_field(around, "phase"), "turn_index": batch["turn_index"]}
        row = rows.of_records(pa.table(told))
        tried = pc.struct_field(around, "attempt").to_numpy()
        here = np.flatnonzero((row >= 0) & (attempt[row] == tried) & wanted[row])
        ids = batch["completion_ids"].take(pa.array(here))
        offsets = ids.offsets.to_numpy().astype(np.int64)
        return row[here], _Lists(ids.values.to_numpy(), offsets[:-1], np.diff(offsets))

    return each_batch(run.path, pick, IDS)


@dataclass(frozen=True, slots=True)
class _Lists:
    """Lists of ids: where each begins among the values, and how long it is."""

    values: npt.NDArray[np.int64]
    start: _Whole
    size: _Whole


def _gathered(run: Run, wanted: npt.NDArray[np.bool_]) -> _Lists:
    """The ids of the wanted rows, for every row of `Run.turns`; those of others are empty."""
    parts, at = [np.empty(0, np.int64)], 0
    start, size = np.zeros((2, len(wanted)), dtype=np.int64)
    for rows, ids in _ids(run, wanted):
        start[rows], size[rows] = at + ids.start, ids.size
        parts.append(ids.values)
        at += len(ids.values)
    return _Lists(np.concatenate(parts), start, size)


def _in_common(one: _Lists, other: _Lists, these: _Whole) -> _Whole:
    """With how many equal ids each list of `one` and that of `other` at the place `these` begin."""
    size = np.minimum(one.size, other.size[these])
    end = np.cumsum(size)
    within = np.arange(size.sum()) - np.repeat(end - size, size)
    same = one.values[np.repeat(one.start, size) + within] == other.values[np.repeat(other.start[these], size) + within]
    unlike = np.flatnonzero(~same)
    # The first unlike id at or after where each pair begins, or its end.
    first = np.append(unlike, len(same))[np.searchsorted(unlike, end - size)]
    common: _Whole = np.minimum(first, end) - (end - size)
    return common
