"""Flips: which check of which turn went from pass to fail, or back, with what both sides said.

A check passes on a side in a share of the launches and repeats its turn was played in; a turn that failed, or was never
reached, has passed none. A flip is a change of the majority, from half or more to less: of a greedy setting all repeats
say the same, and it is then what it is called. A list of flips is about these conversations and claims nothing of
others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from harness.analysis.arrays import STATES
from harness.analysis.pairing import counterparts
from harness.analysis.sides import Pair, Side

FLIP_COLUMNS = {
    "conversation_id": "string",
    "turn_index": "Int64",
    "check": "string",
    "change": "string",
    "baseline_rate": "Float64",
    "candidate_rate": "Float64",
    "baseline_times": "Int64",
    "candidate_times": "Int64",
    "user": "string",
    "baseline_reply": "string",
    "candidate_reply": "string",
    "baseline_detail": "string",
    "candidate_detail": "string",
}
"""`change` is lost or gained; `_rate` the share of its `_times` plays that the check passed in; replies and details are
of the first play that went as most did."""
CHECK = ["place", "check", "copy"]
"""What tells one check from another: two of one turn may have the same name."""


def flips(pair: Pair) -> pd.DataFrame:
    """One row per flip, in the order of the conversations; none where replies are forced to a length, or random."""
    turns = [side.turns for side in pair]
    if any(seen.babble for seen in turns):
        return _frame({})
    names = [*pair.matched, "conversation_id", "turn_index"]
    keys = [side.run.turns[names].iloc[seen.rows] for side, seen in zip(pair, turns, strict=True)]
    places, kept = counterparts(*keys)
    sides = [_Plays(side, place, len(kept)) for side, place in zip(pair, places, strict=True)]
    rates = pd.concat([side.passed for side in sides], axis=1, keys=["ours", "theirs"]).reset_index()
    at = rates["place"].to_numpy(dtype=np.int64)
    ours, theirs = (side.shares(rates[name], at) for side, name in zip(sides, ("ours", "theirs"), strict=True))
    with np.errstate(invalid="ignore"):  # what one side never played is neither more nor less
        flipped = np.flatnonzero(((ours >= 0.5) != (theirs >= 0.5)) & ~np.isnan(ours) & ~np.isnan(theirs))
    at, ours, theirs = at[flipped], ours[flipped], theirs[flipped]
    key = rates.iloc[flipped]
    shown = [side.first(key, rate >= 0.5) for side, rate in zip(sides, (ours, theirs), strict=True)]
    return _frame(
        {
            "conversation_id": kept["conversation_id"].to_numpy(dtype=object)[at],
            "turn_index": kept["turn_index"].to_numpy(dtype=np.int64)[at],
            "check": key["check"].to_numpy(dtype=object),
            "change": np.where(ours > theirs, "lost", "gained"),
            "baseline_rate": ours,
            "candidate_rate": theirs,
            "baseline_times": sides[0].times[at],
            "candidate_times": sides[1].times[at],
            "user": shown[0]["user"],
            **{
                f"{name}_{what}": told[what]
                for name, told in zip(("baseline", "candidate"), shown, strict=True)
                for what in ("reply", "detail")
            },
        }
    )


def _frame(values: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(values.get(name, []), dtype=dtype) for name, dtype in FLIP_COLUMNS.items()})


class _Plays:
    """What the checks of one side said, by turn of the script."""

    def __init__(self, side: Side, place: npt.NDArray[np.int64], count: int) -> None:
        turns = side.turns
        played = (place >= 0) & (turns["state"] != STATES.index("missing"))
        done = played & (turns["state"] == STATES.index("done"))
        self._turns = side.run.turns
        self._rows, self._place = turns.rows[played], place[played]
        self.times = np.bincount(place[played], minlength=count)
        self._answered = np.bincount(place[done], minlength=count)
        self._said = said_by(side, turns.rows[done], place[done])
        self.passed = self._said.groupby(CHECK, sort=False)["passed"].sum()

    def shares(self, passed: pd.Series[Any], place: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The share of plays that passed. A check this side has not made passed in none where no play was answered,
        and is not there to be compared where one was."""
        number = passed.to_numpy(dtype=np.float64, na_value=np.nan)
        unanswered = (self._answered[place] == 0) & (self.times[place] > 0)
        number = np.where(np.isnan(number) & unanswered, 0.0, number)
        shares: npt.NDArray[np.float64] = number / np.maximum(self.times[place], 1)
        return shares

    def first(self, key: pd.DataFrame, passed: npt.NDArray[np.bool_]) -> dict[str, Any]:
        """Of each check: user, reply and detail of the first play that went this way, or of the first play at all."""
        said = self._said.drop_duplicates([*CHECK, "passed"])
        wanted = key[CHECK].assign(passed=passed).merge(said, on=[*CHECK, "passed"], how="left")
        order = np.argsort(self._place, kind="stable")
        any_play = self._rows[order][np.searchsorted(self._place[order], key["place"].to_numpy(dtype=np.int64))]
        row = wanted["row"].to_numpy(dtype=np.float64)
        row = np.where(np.isnan(row), any_play, row).astype(np.int64)
        told = self._turns[["user", "reply", "error"]].iloc[row]
        error = told["error"].to_numpy(dtype=object)
        detail = wanted["detail"].to_numpy(dtype=object)
        return {
            "user": told["user"].to_numpy(dtype=object),
            "reply": told["reply"].to_numpy(dtype=object),
            "detail": np.where(pd.isna(error), detail, error),
        }


def said_by(side: Side, rows: npt.NDArray[np.int64], place: npt.NDArray[np.int64]) -> pd.DataFrame:
    """One row per check that was made: place, check, copy, passed, detail, row."""
    lists = pa.Array.from_pandas(side.run.turns["checks"].iloc[rows])
    lists = lists.combine_chunks() if isinstance(lists, pa.ChunkedArray) else lists
    made, of = pc.list_flatten(lists), pc.list_parent_indices(lists).to_numpy()
    told = pd.DataFrame(
        {
            "place": place[of],
            "check": pc.struct_field(made, "check").to_numpy(zero_copy_only=False),
            "passed": pc.struct_field(made, "passed").to_numpy(zero_copy_only=False).astype(bool),
            "detail": pc.struct_field(made, "detail").to_numpy(zero_copy_only=False),
            "row": rows[of],
        }
    )
    return told.assign(copy=told.groupby(["row", "check"], sort=False).cumcount())
