"""Which turns of two sides are the same work, so that their times may be set against each other.

A turn of the baseline has a counterpart: the same conversation, turn and repeat, and the same value on every axis that
neither side pins down. The two are the same work where

    the prompts are equal (`prompt_hash`), and so are the lengths of the replies.

Different models cannot have equal prompt ids: their tokenizers and templates differ. What is equal then is the script,
so for models of different names it is enough that the text was: everything before the reply came from the script
(history: scripted, or a turn before which nothing was generated), the script and what the user said are the same, and
`length: fixed` made the replies equally long.

Speed is compared by launches, and every launch must have done the same work: a turn that is missing from one launch of
either side is left out of all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.analysis.arrays import STATES, Array, View, view
from harness.analysis.sides import Pair, Side

Rows = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Turns (each repeat by itself) that both sides were to play and whose times are not compared, and why."""

    unanswered: int = 0
    """Not answered in every launch of both sides."""
    other_prompt: int = 0
    other_length: int = 0

    @property
    def total(self) -> int:
        return self.unanswered + self.other_prompt + self.other_length

    def __str__(self) -> str:
        parts = [
            (self.other_prompt, "prompts differ"),
            (self.other_length, "lengths differ"),
            (self.unanswered, "not answered in every launch"),
        ]
        return ", ".join(f"{count}: {why}" for count, why in parts if count)


NOTHING = LeftOut()


@dataclass(frozen=True, slots=True)
class Work:
    """The turns that both sides were to play, one per entry, and where they stand in the two `Run.turns`."""

    pair: Pair
    paired: bool
    """Whether launches of equal numbers belong together: they took turns in one run."""
    baseline: Rows
    """(turns, launches) → row; -1 where it was not answered."""
    candidate: Rows
    answered: Flags
    """In every launch of both sides, and in one at least."""
    turn_index: Rows
    conversation_id: npt.NDArray[np.object_]
    same_prompt: Flags
    by_script: Flags
    """Where that is so of the text only, which different tokenizers made different ids of."""
    same_length: Flags
    scripted: Flags
    """Where everything before the reply came from the script on both sides."""

    def same(self, any_length: bool = False) -> Flags:
        """Which turns are the same work on both sides; with `any_length` however long the replies were."""
        return self.answered & self.same_prompt & (self.same_length | any_length)

    def left_out(self, any_length: bool = False) -> LeftOut:
        """How many are not, and why."""
        answered = self.answered
        uneven = answered & self.same_prompt & ~self.same_length & (not any_length)
        return LeftOut(int((~answered).sum()), int((answered & ~self.same_prompt).sum()), int(uneven.sum()))


def work(pair: Pair) -> Work:
    """The work of two sides. Raises ValueError where only one of them pins down an axis."""
    names = [*pair.matched, "conversation_id", "turn_index", "repeat"]
    turns = [side.turns for side in pair]
    keys = [side.run.turns[names].iloc[seen.rows] for side, seen in zip(pair, turns, strict=True)]
    places, kept = counterparts(*keys)
    paired = pair.baseline.run is pair.candidate.run
    launches = [np.unique(seen.done["launch"]) for seen in turns]
    if paired:
        launches = [np.intersect1d(launches[0], launches[1])] * 2
    rows = [_by_launch(*each, len(kept)) for each in zip(turns, places, launches, strict=True)]
    prompt = _codes(pair, rows, "prompt_hash")
    equal = _alike(*prompt)
    scripted = np.logical_and.reduce([_scripted(side, kept) for side in pair])
    by_script = ~equal & scripted & _same_script(pair, rows, kept) & _alike(prompt[0]) & _alike(prompt[1])
    return Work(
        pair=pair,
        paired=paired,
        baseline=rows[0],
        candidate=rows[1],
        answered=np.logical_and.reduce([(at >= 0).all(axis=1) & bool(at.shape[1]) for at in rows]),
        turn_index=kept["turn_index"].to_numpy(dtype=np.int64),
        conversation_id=kept["conversation_id"].to_numpy(dtype=object),
        same_prompt=equal | by_script,
        by_script=by_script,
        same_length=_alike(*(values(side, at, "completion_tokens") for side, at in zip(pair, rows, strict=True))),
        scripted=scripted,
    )


def values(side: Side, rows: Rows, name: str) -> Array:
    """A column of numbers of `arrays.view` at some rows; of no meaning where a row is -1."""
    found: Array = view(side.run).arrays[name][rows]
    return found


def counterparts(ours: pd.DataFrame, theirs: pd.DataFrame) -> tuple[list[Rows], pd.DataFrame]:
    """For each row of both sides the number of the turn it is, -1 for one that the other side does not have; and the
    keys of these turns."""
    together = pd.concat([ours, theirs], ignore_index=True)
    code = together.groupby(list(together.columns), sort=False, observed=True).ngroup().to_numpy()
    our_code, their_code = code[: len(ours)], code[len(ours) :]
    shared, first = np.unique(our_code[np.isin(our_code, their_code)], return_index=True)
    place = np.full(int(code.max(initial=-1)) + 1, -1, dtype=np.int64)
    place[shared] = np.arange(len(shared))
    kept = ours[np.isin(our_code, their_code)].iloc[first].reset_index(drop=True)
    return [place[our_code], place[their_code]], kept


def _by_launch(turns: View, place: Rows, launches: Array, count: int) -> Rows:
    """Where each turn was answered in each launch."""
    rows = np.full((count, len(launches)), -1, dtype=np.int64)
    launch = turns["launch"]
    here = (turns["state"] == STATES.index("done")) & (place >= 0) & np.isin(launch, launches)
    rows[place[here], np.searchsorted(launches, launch[here])] = turns.rows[here]
    return rows


def _codes(pair: Pair, rows: list[Rows], name: str) -> list[Rows]:
    """A column of text at the rows of both sides: numbers that are equal where the text is. Absent is like nothing."""
    told = [side.run.turns[name].iloc[at.ravel()] for side, at in zip(pair, rows, strict=True)]
    code, _ = pd.factorize(pd.concat(told, ignore_index=True))
    alone = np.arange(-len(code) - 1, -1)
    code = np.where(code < 0, alone, code)
    ours, theirs = rows
    return [code[: ours.size].reshape(ours.shape), code[ours.size :].reshape(theirs.shape)]


def _alike(*sides: Array) -> Flags:
    """Whether all values of a turn, of all launches of all sides, are the same."""
    told = np.concatenate(sides, axis=1)
    return np.asarray((told == told[:, :1]).all(axis=1))


def _same_script(pair: Pair, rows: list[Rows], kept: pd.DataFrame) -> Flags:
    """Where different models were sent the same text and made to reply at the same length."""
    told = np.zeros(len(kept), dtype=bool)
    ours, theirs = ({str(spec["model"]) for spec in side.specs} for side in pair)
    if ours == theirs or not rows[0].size or not rows[1].size:
        return told
    scripts = [_script(side, kept) for side in pair]
    told = (scripts[0] == scripts[1]).to_numpy(dtype=bool) & _alike(*_codes(pair, rows, "user"))
    for side, at in zip(pair, rows, strict=True):
        told &= values(side, at, "fixed").all(axis=1)
    return told & _alike(*(values(side, at, "dropped_messages") for side, at in zip(pair, rows, strict=True)))


def _script(side: Side, kept: pd.DataFrame) -> pd.Series[str]:
    """What the plan says of the script up to each turn."""
    known = {
        (talk["id"], turn): digest
        for talk in side.run.plan["conversations"]
        for turn, digest in enumerate(talk.get("turn_digests", ()))
    }
    return _of_turn(kept, known, "")


def _scripted(side: Side, kept: pd.DataFrame) -> Flags:
    """Whether nothing before a turn's reply was generated: under history: scripted always, else of the first turn."""
    if side.run.plan["history"] == "scripted":
        return np.ones(len(kept), dtype=bool)
    first = {(talk["id"], min(talk["turns"], default=-1)): True for talk in side.run.plan["conversations"]}
    return _of_turn(kept, first, False).to_numpy(dtype=bool)


def _of_turn(kept: pd.DataFrame, known: Mapping[tuple[str, int], Any], otherwise: Any) -> pd.Series[Any]:
    places = zip(kept["conversation_id"], kept["turn_index"], strict=True)
    return pd.Series([known.get((talk, int(turn)), otherwise) for talk, turn in places], dtype=object)
