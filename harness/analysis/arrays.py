"""`Run.turns` as plain arrays, for arithmetic over many groups of turns.

A group is a `View`: the same arrays, looked at in some rows only. Text is replaced by codes – whole numbers that are
equal where the text is – and what is absent is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.analysis.frames import Run, once_per_run

Array = npt.NDArray[Any]
Axis = Literal["model", "sampling", "concurrency"]
SETTING: tuple[Axis, ...] = get_args(Axis)
"""What tables have a row for: turns of different ones are never mixed."""
STATES = ("done", "failed", "not_reached", "missing")
"""What the codes of `state` stand for."""


@dataclass(frozen=True, slots=True)
class View:
    """Some rows of the arrays of a run."""

    arrays: MutableMapping[str, Array]
    rows: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> Array:
        seen: Array = self.arrays[name][self.rows]
        return seen

    def where(self, mask: npt.NDArray[np.bool_]) -> View:
        """Of these rows those the mask says."""
        return View(self.arrays, self.rows[mask])

    def known(self, name: str) -> Array:
        """The values that are there."""
        values = self[name]
        seen: Array = values[~np.isnan(values)]
        return seen

    @property
    def done(self) -> View:
        """The turns that were answered."""
        return self.where(self["state"] == STATES.index("done"))

    @property
    def babble(self) -> bool:
        """Whether replies mean nothing: some are forced to a length, or come from random weights."""
        return bool((self["fixed"] | self["random"]).any())


@once_per_run
def view(run: Run) -> View:
    """All rows of `Run.turns`: every column of numbers under its name, and

    `state`        the position in `STATES`
    `conversation` a code of conversation_id
    `place`        a code of (conversation_id, turn_index): which turn of the script it is
    `asked`        a code of (place, prompt_hash): the same turn with the very same prompt; -1 where it tells no prompt
    `cut_off`, `fixed`, `random`   1 where the reply was cut off, forced to its length, or comes from random weights
    """
    return View(_Arrays(run.turns), np.arange(len(run.turns)))


class _Arrays(dict[str, Array]):
    """The arrays of a run, each made when it is first asked for."""

    def __init__(self, turns: pd.DataFrame) -> None:
        super().__init__()
        self._turns = turns

    def __missing__(self, name: str) -> Array:
        made: Array = _CODES[name](self._turns, self) if name in _CODES else _numbers(self._turns[name])
        self[name] = made
        return made


def _numbers(column: pd.Series[Any]) -> Array:
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def _place(turns: pd.DataFrame, arrays: _Arrays) -> Array:
    index = turns["turn_index"].to_numpy(dtype=np.int64)
    place: Array = arrays["conversation"] * (int(index.max(initial=0)) + 1) + index
    return place


def _asked(turns: pd.DataFrame, arrays: _Arrays) -> Array:
    prompt, known = pd.factorize(turns["prompt_hash"])
    asked: Array = np.where(prompt < 0, -1, arrays["place"] * len(known) + prompt)
    return asked


def _is(column: pd.Series[Any], text: str) -> Array:
    return (column == text).to_numpy(dtype=bool, na_value=False)


CUT_OFF = ("max_new_tokens", "max_length", "context")
"""Finish reasons of a reply that was cut off."""
_CODES: dict[str, Callable[[pd.DataFrame, _Arrays], Array]] = {
    "state": lambda turns, _: pd.Index(STATES).get_indexer(pd.Index(turns["state"])),
    "conversation": lambda turns, _: pd.factorize(turns["conversation_id"])[0],
    "place": _place,
    "asked": _asked,
    "cut_off": lambda turns, _: turns["finish_reason"].isin(CUT_OFF).to_numpy(dtype=np.float64),
    "fixed": lambda turns, _: _is(turns["length"], "fixed"),
    "random": lambda turns, _: _is(turns["weights"], "random"),
}


def groups(turns: pd.DataFrame, keys: Sequence[str], seen: View) -> Iterator[tuple[tuple[Any, ...], View]]:
    """The views of the rows that share values of the keys, in the order in which these first appear."""
    named = turns[list(keys)]
    number = named.groupby(list(keys), sort=False, observed=True).ngroup().to_numpy()
    order = np.argsort(number, kind="stable")
    starts = np.flatnonzero(np.diff(number[order], prepend=-1))
    firsts = named.iloc[order[starts]].itertuples(index=False, name=None)
    for first, start, end in zip(firsts, starts.tolist(), [*starts[1:].tolist(), len(order)], strict=True):
        yield first, View(seen.arrays, order[start:end])


def in_every_launch(known: View) -> View:
    """Of these turns of one setting those that are there in each of its launches: medians over different turns would
    differ by their turns."""
    launches = np.unique(known["launch"])
    if len(launches) < 2:
        return known
    turn = known["place"] * (int(known["repeat"].max()) + 1) + known["repeat"]
    _, which, times = np.unique(turn, return_inverse=True, return_counts=True)
    return known.where(times[which] == len(launches))


def by_launch(done: View, metric: str) -> Mapping[int, Array]:
    """The values of a metric by launch, of the turns that have one in every launch."""
    known = done.where(~np.isnan(done[metric]))
    numbers = np.unique(known["launch"])
    known = in_every_launch(known)
    launch, values = known["launch"], known[metric]
    return {int(number): values[launch == number] for number in numbers.tolist()}


def means(codes: Array, values: Array) -> Array:
    """For each value the mean of those with its code."""
    return (np.bincount(codes, weights=values) / np.maximum(np.bincount(codes), 1))[codes]
