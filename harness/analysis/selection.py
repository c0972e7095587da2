"""Which records of a run count, and where they stand: every planned turn exactly once, in the order of the plan.

The rule is that of `harness.store.settled` – of each cell the latest attempt that came to its end – worked out for all
cells at once, on arrays: a *slot* is a planned turn of a cell, and the answer says which record, if any, fills it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_Whole = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Axes:
    """The axes of a plan, outermost first; a cell is numbered by its place on each."""

    model: Sequence[str]
    sampling: Sequence[str]
    concurrency: Sequence[int]
    conversation_id: Sequence[str]
    launch: Sequence[int]
    repeat: Sequence[int]

    @classmethod
    def of(cls, plan: Mapping[str, Any]) -> Axes:
        return cls(
            [model["label"] for model in plan["models"]],
            [sampling["name"] for sampling in plan["samplings"]],
            plan.get("concurrency", [1]),  # format 1 knew no other
            [conversation["id"] for conversation in plan["conversations"]],
            range(plan["launches"]),
            range(plan["repeats"]),
        )

    def named(self) -> dict[str, Sequence[Any]]:
        return {name: getattr(self, name) for name in self.__slots__}

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(values) for values in self.named().values())

    def cells(self, table: pa.Table) -> _Whole:
        """The number of each row's cell; -1 for one that the plan does not know."""
        places = []
        for name, values in self.named().items():
            place = pc.index_in(table[name], value_set=pa.array(list(values), type=table[name].type))
            places.append(pc.fill_null(place, -1).to_numpy().astype(np.int64))
        known = np.all([place >= 0 for place in places], axis=0)
        cells: _Whole = np.full(len(known), -1, dtype=np.int64)
        cells[known] = np.ravel_multi_index([place[known] for place in places], self.shape)
        return cells

    def columns(self, cells: _Whole) -> dict[str, pa.Array]:
        """What each cell is on every axis."""
        places = np.unravel_index(cells, self.shape)
        return {
            name: pa.array(list(values)).take(pa.array(place))
            for (name, values), place in zip(self.named().items(), places, strict=True)
        }


@dataclass(frozen=True, slots=True)
class Slots:
    """One entry per planned turn."""

    cell: _Whole
    turn_index: _Whole
    row: _Whole
    """The row of the record that fills it; -1 if none does."""
    attempt: _Whole
    """The attempt of its cell that counts; -1 if none was completed."""
    superseded: int
    """Measured records that fill no slot because their attempt does not count."""


def select(table: pa.Table, plan: Mapping[str, Any]) -> Slots:
    """The slots of a plan, filled with the rows of a table that has the columns of `Run.turns`."""
    axes = Axes.of(plan)
    script = _Script.of(plan)
    measured = pc.equal(table["phase"], "measure").to_numpy()
    cells = axes.cells(table)
    rows = np.flatnonzero(measured & (cells >= 0))
    groups = _Groups.of(rows, cells[rows], _ints(table["attempt"])[rows])
    talk = np.unravel_index(groups.cell, axes.shape)[3]
    complete = _complete(table, groups, talk, script, plan["on_overflow"])

    chosen = np.full(int(np.prod(axes.shape)), -1, dtype=np.int64)
    chosen[groups.cell[complete]] = complete  # later attempts come later, so that the last of them stays
    slot_cell, slot_position, first_slot = script.slots(axes)
    row = np.full(len(slot_cell), -1, dtype=np.int64)
    counting = chosen[chosen >= 0]
    of_group = np.repeat(counting, groups.size[counting])
    members = groups.members(counting)
    position = script.position(talk[of_group], _ints(table["turn_index"])[members])
    planned = position >= 0
    row[first_slot[groups.cell[of_group]][planned] + position[planned]] = members[planned]
    group = chosen[slot_cell]
    return Slots(
        cell=slot_cell,
        turn_index=script.turn[np.unravel_index(slot_cell, axes.shape)[3], slot_position],
        row=row,
        attempt=np.where(group >= 0, groups.attempt[group] if len(groups.attempt) else -1, -1),
        superseded=int(measured.sum()) - len(members),
    )


@dataclass(frozen=True, slots=True)
class Rows:
    """Where the records of a run stand among its slots, which are the rows of `Run.turns`."""

    axes: Axes
    keys: _Whole
    """By slot, ascending: its cell and its turn as one number."""
    turns: int
    """One more than the highest turn index: what such a number counts cells by."""

    @classmethod
    def of(cls, plan: Mapping[str, Any]) -> Rows:
        axes, script = Axes.of(plan), _Script.of(plan)
        cell, position, _ = script.slots(axes)
        turn_index = script.turn[np.unravel_index(cell, axes.shape)[3], position]
        turns = int(turn_index.max(initial=0)) + 1
        return cls(axes, cell * turns + turn_index, turns)

    def of_records(self, table: pa.Table) -> _Whole:
        """The row of each record of a measured turn, whatever its attempt; -1 for what is none. The table has the
        columns of `Run.turns` that name the cell, `turn_index` and `phase`."""
        cells, turn_index = self.axes.cells(table), _ints(table["turn_index"])
        measured = pc.equal(table["phase"], "measure").to_numpy() & (cells >= 0) & (turn_index < self.turns)
        key = np.where(measured, cells * self.turns + turn_index, -1)
        row = np.minimum(np.searchsorted(self.keys, key), len(self.keys) - 1)
        found: _Whole = np.where(self.keys[row] == key, row, -1)
        return found


def _ints(column: pa.ChunkedArray) -> _Whole:
    numbers: _Whole = column.to_numpy()
    return numbers


@dataclass(frozen=True, slots=True)
class _Script:
    """Which turns of each conversation are generated."""

    turn: _Whole
    """(conversation, position) → turn index; -1 beyond the end."""
    size: _Whole

    @classmethod
    def of(cls, plan: Mapping[str, Any]) -> _Script:
        turns = [list(conversation["turns"]) for conversation in plan["conversations"]]
        size = np.array([len(each) for each in turns], dtype=np.int64)
        table = np.full((len(turns), max(size, default=0)), -1, dtype=np.int64)
        for number, each in enumerate(turns):
            table[number, : len(each)] = each
        return cls(table, size)

    def slots(self, axes: Axes) -> tuple[_Whole, _Whole, _Whole]:
        """(cell of each slot, its position in the conversation, first slot of each cell)"""
        cells = np.arange(int(np.prod(axes.shape)))
        size = self.size[np.unravel_index(cells, axes.shape)[3]]
        first = np.cumsum(size) - size
        return np.repeat(cells, size), np.arange(size.sum()) - np.repeat(first, size), first

    def position(self, talk: _Whole, turn_index: _Whole) -> _Whole:
        """Where in its conversation a turn of that index stands; -1 if it is not generated."""
        highest = int(self.turn.max(initial=0))
        places = np.full((len(self.size), highest + 2), -1, dtype=np.int64)
        for number in range(len(self.size)):
            places[number, self.turn[number, : self.size[number]]] = np.arange(self.size[number])
        found: _Whole = places[talk, np.minimum(turn_index, highest + 1)]
        return found


@dataclass(frozen=True, slots=True)
class _Groups:
    """Attempts at cells: their rows follow each other in `order`, in the order in which they were written."""

    order: _Whole
    start: _Whole
    size: _Whole
    cell: _Whole
    attempt: _Whole

    @classmethod
    def of(cls, rows: _Whole, cells: _Whole, attempts: _Whole) -> _Groups:
        order = np.lexsort((attempts, cells))  # stable: of equal keys the earlier row comes first
        cells, attempts = cells[order], attempts[order]
        new = np.ones(len(order), dtype=bool)
        new[1:] = (cells[1:] != cells[:-1]) | (attempts[1:] != attempts[:-1])
        start = np.flatnonzero(new)
        size = np.diff(np.append(start, len(order)))
        return cls(rows[order], start, size, cells[start], attempts[start])

    def members(self, groups: _Whole) -> _Whole:
        """The rows of these groups, one group after the other."""
        size = self.size[groups]
        within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        rows: _Whole = self.order[np.repeat(self.start[groups], size) + within]
        return rows


def _complete(table: pa.Table, groups: _Groups, talk: _Whole, script: _Script, on_overflow: str) -> _Whole:
    """The attempts that came to their end: every planned turn is there, or the last one failed or filled up the
    conversation."""
    if not len(groups.start):
        return np.empty(0, dtype=np.int64)
    group = np.repeat(np.arange(len(groups.start)), groups.size)
    within = np.arange(len(groups.order)) - groups.start[group]
    widest = script.turn.shape[1] - 1
    expected = np.where(within <= widest, script.turn[talk[group], np.minimum(within, widest)], -1)
    as_planned = np.logical_and.reduceat(_ints(table["turn_index"])[groups.order] == expected, groups.start)
    last = groups.order[groups.start + groups.size - 1]
    failed = pc.equal(table["state"], "failed").to_numpy()[last]
    full = pc.is_in(table["finish_reason"], value_set=pa.array(["max_length", "context"])).to_numpy()[last]
    overflowed = full if on_overflow == "stop" else np.zeros_like(full)
    complete: _Whole = np.flatnonzero((as_planned & (groups.size == script.size[talk])) | failed | overflowed)
    return complete
