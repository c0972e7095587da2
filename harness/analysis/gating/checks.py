"""Checks, compared exactly: what passed in every night of the window, every time, must pass every time tonight.

A check passes in a night if it does in all repeats (pass^k, k being the repeats of the config). What is one observation
is looked at as one: all launches draw with the same seeds, and all repeats of a greedy turn are the same reply. Where
the plays of one observation do not agree – some launches pass, some fail – the reply is not the same every time though
it should be; that a check failed in some of them is then a suspicion, which further launches confirm or do not. Where
draws do not follow from their seeds, as in a batch, nothing can be compared exactly.

A check that did not pass in every night of the window is *unsteady*: that it fails tonight is nothing new. A turn that
failed, or was not reached, has passed none of its checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.analysis import flips
from harness.analysis.arrays import SETTING, STATES, Array
from harness.analysis.flips import CHECK, said_by
from harness.analysis.frames import Run
from harness.analysis.gating.cells import Cell
from harness.analysis.ledger import ledger
from harness.analysis.sides import Setting, Side

FLIP_COLUMNS = {**dict.fromkeys(("model", "sampling"), "string"), "concurrency": "Int64", **flips.FLIP_COLUMNS}
"""`change` is lost, doubtful (in some plays of one observation only), gained or unsteady; `_rate` the share of `_times`
plays that passed, of all nights or of tonight; replies and details are of the first play tonight, and in the newest
night, that went as `change` says."""


@dataclass(frozen=True, slots=True)
class Checked:
    """The checks of one setting, tonight and in the window."""

    total: int
    """Checks that both have."""
    kept: int
    """Of these, how many passed in every night of the window."""
    passed: int
    """And of these how many did every time tonight."""
    launches: int
    """Of tonight."""
    changes: pd.DataFrame
    """Of `FLIP_COLUMNS`, in the order of the script."""
    drawn_freely: bool
    """Whether what was drawn does not follow from the seeds."""

    def of(self, change: str) -> pd.DataFrame:
        return self.changes[self.changes["change"] == change]


def checked(cell: Cell, tonight: Side, nights: Sequence[Run], confirm: Sequence[Run] = ()) -> Checked | None:
    """What the checks of a cell said, which is a setting or a part of one; None where there is none, or where replies
    mean nothing, because they are forced to a length or come from random weights. With `confirm`, what failed in some
    plays of one observation is lost if it fails in further ones as well, and nothing otherwise."""
    turns = tonight.turns
    if turns.babble or not ledger(tonight.run).expected[turns.rows].any():
        return None
    (setting,) = tonight.settings
    places = _places(tonight.run, cell)
    greedy = (setting[0], setting[1]) in ledger(tonight.run).greedy
    mine = _Night(tonight, places, greedy=greedy)
    window = [_Night(Side(night, *setting), places, greedy=greedy) for night in nights]
    known = _all_of([night.lowest.index for night in window])
    lows = pd.concat([night.shares(known) for night in window], axis=1)
    own = mine.shares(known)
    told = own.notna() & lows.notna().any(axis=1)
    lows, own = lows[told], own[told]
    always = ((lows == 1) | lows.isna()).all(axis=1)
    never = ((lows < 1) | lows.isna()).all(axis=1)
    passes = own == 1
    change = pd.Series("", index=own.index, dtype=object)
    change[always & ~passes] = "lost"
    change[never & passes] = "gained"
    change[~always & ~never & ~passes] = "unsteady"
    doubtful = always & ~passes & (own > 0)
    change[doubtful] = "doubtful"
    if confirm:
        further = [_Night(Side(run, *setting), places, greedy=greedy).shares(own.index) for run in confirm]
        again = pd.concat(further, axis=1).min(axis=1)
        change[doubtful & (again < 1)] = "lost"
        change[doubtful & (again == 1)] = ""
    return Checked(
        total=len(own),
        kept=int(always.sum()),
        passed=int((always & passes).sum()),
        launches=len(np.unique(turns["launch"])),
        changes=_changes(setting, change[change != ""], places, window, mine),
        drawn_freely=not greedy and bool((turns["paired"] == 0).any()),
    )


def _all_of(indexes: Sequence[pd.Index[Any]]) -> pd.Index[Any]:
    """Everything that is in any of them."""
    found, *others = indexes
    for other in others:
        found = found.union(other, sort=False)
    return found


def _places(run: Run, cell: Cell) -> pd.MultiIndex:
    """Every turn of the script that belongs to the cell, in its order."""
    return pd.MultiIndex.from_tuples(
        [
            (str(talk["id"]), int(turn))
            for talk in run.plan["conversations"]
            for turn in talk["turns"]
            if cell.conversation_id in (None, talk["id"]) and cell.turn_index in (None, turn)
        ],
        names=["conversation_id", "turn_index"],
    )


def _place(turns: pd.DataFrame, places: pd.MultiIndex) -> npt.NDArray[np.int64]:
    """Which of the places each turn is; -1 for none of them."""
    talks, talk = np.unique(places.get_level_values(0), return_inverse=True)
    index = places.get_level_values(1).to_numpy(dtype=np.int64)
    place = np.full((len(talks) + 1, int(index.max(initial=0)) + 2), -1, dtype=np.int64)
    place[talk, index] = np.arange(len(places))
    turn = np.minimum(turns["turn_index"].to_numpy(dtype=np.int64), place.shape[1] - 1)
    found: npt.NDArray[np.int64] = place[pd.Index(talks).get_indexer(turns["conversation_id"]), turn]
    return found


class _Night:
    """What the checks of a setting said in one run, by turn of the script."""

    def __init__(self, side: Side, places: pd.MultiIndex, *, greedy: bool) -> None:
        turns = side.turns
        self.run = side.run
        place = _place(side.run.turns.iloc[turns.rows], places)
        played = (place >= 0) & (turns["state"] != STATES.index("missing"))
        done = played & (turns["state"] == STATES.index("done"))
        repeat = np.zeros(len(turns), dtype=np.int64) if greedy else turns["repeat"].astype(np.int64)
        of_row = np.zeros(len(side.run.turns), dtype=np.int64)
        of_row[turns.rows] = repeat
        self._plays = np.zeros((len(places), int(repeat.max(initial=0)) + 1))
        np.add.at(self._plays, (place[played], repeat[played]), 1)
        self.times = self._plays.sum(axis=1)
        self.first = np.full(len(places), -1)
        self.first[place[played][::-1]] = turns.rows[played][::-1]
        self.said = said_by(side, turns.rows[done], place[done])
        self._repeat = of_row[self.said["row"].to_numpy(dtype=np.int64)]
        self.passed = self.said.groupby(CHECK, sort=False)["passed"].sum()
        self.lowest = self._lowest()

    def _lowest(self) -> pd.Series[Any]:
        """Of each check the share of plays that passed, of the observation that did worst: 1 where it passed every
        time, 0 where one observation never did. A check of a turn that was never answered is not known by name here."""
        passes = np.zeros((len(self.passed), self._plays.shape[1]))
        which = self.said.groupby(CHECK, sort=False).ngroup().to_numpy()
        np.add.at(passes, (which, self._repeat), self.said["passed"].to_numpy(dtype=float))
        plays = self._plays[self.passed.index.get_level_values("place").to_numpy(dtype=np.int64)]
        shares = np.divide(passes, plays, out=np.ones_like(passes), where=plays > 0)
        return pd.Series(shares.min(axis=1), index=self.passed.index)

    def shares(self, checks: pd.Index[Any]) -> pd.Series[Any]:
        """`lowest` of these checks: 0 where the turn was played and never answered, NaN where it was not played, or
        answered without such a check being made."""
        found = self.lowest.reindex(checks)
        place = checks.get_level_values("place")
        unanswered = (self.times[place] > 0) & ~place.isin(self.said["place"].unique())
        found[found.isna() & unanswered] = 0.0
        return found

    def shown(self, checks: pd.DataFrame, passed: npt.NDArray[np.bool_]) -> pd.DataFrame:
        """Of each check user, reply and detail of the first play that went this way, or of the first play at all."""
        said = self.said.drop_duplicates([*CHECK, "passed"])
        wanted = checks[CHECK].assign(passed=passed).merge(said, on=[*CHECK, "passed"], how="left")
        any_play = pd.Series(self.first[checks["place"].to_numpy(dtype=np.int64)])
        row = wanted["row"].fillna(any_play).astype(int)
        told = self.run.turns[["user", "reply", "error"]].iloc[row.to_numpy()].reset_index(drop=True)
        told["detail"] = wanted["detail"].where(told["error"].isna(), told["error"])
        return told.mask(row < 0)

    def rate(self, checks: pd.Index[Any]) -> tuple[Array, Array]:
        """(how many plays passed, of how many)"""
        passed = self.passed.reindex(checks, fill_value=0).to_numpy(dtype=float)
        return passed, self.times[checks.get_level_values("place")]


def _changes(
    setting: Setting, change: pd.Series[Any], places: pd.MultiIndex, window: Sequence[_Night], mine: _Night
) -> pd.DataFrame:
    change = change.sort_index(level="place", sort_remaining=False, kind="stable")
    checks = change.index
    told = [night.rate(checks) for night in window]
    before, times_before = (np.sum([each[part] for each in told], axis=0) for part in (0, 1))
    after, times_after = mine.rate(checks)
    keys = change.index.to_frame(index=False)
    gained = (change == "gained").to_numpy()
    shown = {"baseline": window[-1].shown(keys, ~gained), "candidate": mine.shown(keys, gained)}
    at = places[keys["place"].to_numpy(dtype=np.int64)]
    values: dict[str, Any] = {
        **dict(zip(SETTING, ([value] * len(keys) for value in setting), strict=True)),
        "conversation_id": at.get_level_values(0),
        "turn_index": at.get_level_values(1),
        "check": keys["check"],
        "change": change.to_numpy(),
        "baseline_rate": before / np.maximum(times_before, 1),
        "candidate_rate": after / np.maximum(times_after, 1),
        "baseline_times": times_before,
        "candidate_times": times_after,
        "user": shown["candidate"]["user"],
        **{f"{side}_{what}": frame[what] for side, frame in shown.items() for what in ("reply", "detail")},
    }
    return pd.DataFrame({name: pd.Series(values[name], dtype=dtype) for name, dtype in FLIP_COLUMNS.items()})
