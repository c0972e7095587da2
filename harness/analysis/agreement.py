"""How often the same prompt gets the same answer.

Two things are told apart. *Agreement* is between repeats, which draw with different seeds: the probability that a
setting, asked the very same again, says the same. *Reproduction* is between launches, which repeat the same seeds in a
fresh process: anything below 1 is not the dice's doing – kernels that add in another order, or draws in a batch.

Only turns whose prompts were equal, id by id (`prompt_hash`), are set against each other. Under `history: generated`
those are all first turns, and later ones as long as the replies before them were the same; so later turns weigh by
how many pairs are left of them. Replies are the same if they are in lower case, in composed form (NFC), with every
stretch of white space as one space. Failed turns, and turns that generated nothing, are no answers.

Of all pairs of answers to one prompt the share that is the same: an unbiased estimate of the probability, whatever
the number of answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from harness.analysis.arrays import Array, View
from harness.analysis.frames import Run, once_per_run

_TOGETHER = 100_000
"""Replies that are brought into one form at a time."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of answers to the same prompts, by conversation."""

    same: Array
    pairs: Array
    turns: int
    """How many turns of the script they are answers to."""


@once_per_run
def answers(run: Run) -> npt.NDArray[np.uint64]:
    """A number for the reply of every row of `Run.turns`, equal where two are the same answer; a hash, by which
    different ones agree with a chance of 2⁻⁶⁴."""
    replies = pa.chunked_array(pa.array(run.turns["reply"], pa.large_string()))
    slices = (replies.slice(start, _TOGETHER) for start in range(0, len(replies), _TOGETHER))
    return np.concatenate([np.empty(0, np.uint64), *map(_hashed, slices)])


def _hashed(replies: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    plain = pc.utf8_lower(pc.utf8_normalize(pc.fill_null(replies, ""), form="NFC"))
    spaced = pc.utf8_trim_whitespace(pc.replace_substring_regex(plain, r"[\s\p{Z}]+", " "))
    hashed: npt.NDArray[np.uint64] = pd.util.hash_array(spaced.to_numpy(zero_copy_only=False).astype(object))
    return hashed


def agreeing(answered: View, said: npt.NDArray[np.uint64], between: Literal["repeat", "launch"], size: int) -> Pairs:
    """The pairs of some answered turns of one setting that differ in their repeat, or in their launch, and in nothing
    else; `said` are the `answers` of the run, `size` the number of its conversations."""
    known = answered.where(answered["asked"] >= 0)
    held = known["launch" if between == "repeat" else "repeat"].astype(np.int64)
    group = known["asked"] * (held.max(initial=0) + 1) + held
    place, conversation, answer = known["place"], known["conversation"], said[known.rows]
    order = np.lexsort((answer, group))
    new_group = _begins(group[order])
    new_answer = new_group | _begins(answer[order])
    together, alike = _sizes(new_group), _sizes(new_answer)
    first, first_alike = order[new_group], order[new_answer]
    return Pairs(
        np.bincount(conversation[first_alike], alike * (alike - 1) / 2, size),
        np.bincount(conversation[first], together * (together - 1) / 2, size),
        len(np.unique(place[first][together > 1])),
    )


def _begins(values: Array) -> npt.NDArray[np.bool_]:
    """Whether each value is another one than that before it."""
    return np.concatenate([np.ones(min(1, len(values)), dtype=bool), values[1:] != values[:-1]])


def _sizes(begins: npt.NDArray[np.bool_]) -> Array:
    return np.diff(np.append(np.flatnonzero(begins), len(begins)))
