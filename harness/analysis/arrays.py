"""`Run.turns` as plain arrays, for arithmetic over many groups of turns.

A group is a `View`: the same arrays, looked at in some rows only. Text is replaced by codes – whole numbers that are
equal where the text is – and what is absent is NaN.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Array = npt.NDArray[Any]
SETTING = ("model", "sampling", "concurrency")
"""What tables have a row for: turns of different ones are never mixed."""
STATES = ("done", "failed", "not_reached", "missing")
"""What the codes of `state` stand for."""


@dataclass(frozen=True, slots=True)
class View:
    """Some rows of the arrays of a run."""

    arrays: Mapping[str, Array]
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


def view(turns: pd.DataFrame, names: Sequence[str]) -> View:
    """All rows of `Run.turns`, with the named columns of numbers, and

    `state`        the position in `STATES`
    `conversation` a code of conversation_id
    `place`        a code of (conversation_id, turn_index): which turn of the script it is
    `cut_off`, `fixed`, `random`   1 where the reply was cut off, forced to its length, or comes from random weights
    """
    conversation, _ = pd.factorize(turns["conversation_id"])
    index = turns["turn_index"].to_numpy(dtype=np.int64)
    arrays: dict[str, Array] = {
        name: turns[name].to_numpy(dtype=np.float64, na_value=np.nan)
        for name in dict.fromkeys((*names, "launch", "repeat", "turn_index"))
    }
    return View(
        {
            **arrays,
            "state": pd.Index(STATES).get_indexer(pd.Index(turns["state"])),
            "conversation": conversation,
            "place": conversation * (int(index.max(initial=0)) + 1) + index,
            "cut_off": turns["finish_reason"].isin(CUT_OFF).to_numpy(dtype=np.float64),
            "fixed": (turns["length"] == "fixed").to_numpy(dtype=bool, na_value=False),
            "random": (turns["weights"] == "random").to_numpy(dtype=bool, na_value=False),
        },
        np.arange(len(turns)),
    )


CUT_OFF = ("max_new_tokens", "max_length", "context")
"""Finish reasons of a reply that was cut off."""


def groups(turns: pd.DataFrame, keys: Sequence[str], seen: View) -> Iterator[tuple[tuple[Any, ...], View]]:
    """The views of the rows that share values of the keys, in the order in which these first appear."""
    named = turns[list(keys)]
    number = named.groupby(list(keys), sort=False, observed=True).ngroup().to_numpy()
    order = np.argsort(number, kind="stable")
    starts = np.flatnonzero(np.diff(number[order], prepend=-1))
    firsts = named.iloc[order[starts]].itertuples(index=False, name=None)
    for first, start, end in zip(firsts, starts.tolist(), [*starts[1:].tolist(), len(order)], strict=True):
        yield first, View(seen.arrays, order[start:end])


def by_launch(done: View, metric: str) -> Mapping[int, Array]:
    """The values of a metric by launch, of the turns that have one in every launch: medians over different turns
    would differ by their turns."""
    known = done.where(~np.isnan(done[metric]))
    launches = np.unique(known["launch"])
    if len(launches) > 1:
        turn = known["place"] * (int(known["repeat"].max()) + 1) + known["repeat"]
        _, which, times = np.unique(turn, return_inverse=True, return_counts=True)
        known = known.where(times[which] == len(launches))
    launch, values = known["launch"], known[metric]
    return {int(number): values[launch == number] for number in launches.tolist()}


def means(codes: Array, values: Array) -> Array:
    """For each value the mean of those with its code."""
    return (np.bincount(codes, weights=values) / np.maximum(np.bincount(codes), 1))[codes]
