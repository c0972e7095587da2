"""Distinct-n and the longest loop of very many replies at once: `harness.conversations.variety`, on arrays of units.

Nothing of it is worked out when a run is read, only where a report asks what a setting does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from harness.analysis.units import Units, slices, units
from harness.conversations.variety import LONGEST_PASSAGE, SHORTEST_LOOP, SIZES, distinct, longest_loop

_Values = npt.NDArray[np.float64]


def distincts(texts: Sequence[str]) -> _Values:
    """`distinct` of each text, for every size in `SIZES`: (sizes, texts); NaN where there is none."""
    return np.concatenate([np.empty((len(SIZES), 0)), *map(_distincts, slices(texts))], axis=1)


def longest_loops(texts: Sequence[str]) -> _Values:
    """`longest_loop` of each text."""
    return np.concatenate([np.empty(0), *map(_longest_loops, slices(texts))])


def _distincts(texts: Sequence[str]) -> _Values:
    found = units(texts)
    if found is None:
        return np.array([[distinct(text, size) for text in texts] for size in SIZES], dtype=np.float64)
    shares = np.array([_different(found, size, len(texts)) for size in SIZES])
    for number in found.strange:
        shares[:, number] = np.array([distinct(texts[number], size) for size in SIZES], dtype=np.float64)
    return shares


def _different(found: Units, size: int, texts: int) -> _Values:
    """Of each text: its different runs over all of them."""
    runs, place = found.runs(size)
    text = found.text[place]
    # Sorted by the text first: eight bits hold `TOGETHER` of them, 56 are enough to tell the runs of one text apart.
    ordered = np.sort((text.astype(np.uint64) << np.uint64(56)) | (runs >> np.uint64(8)))
    first = np.concatenate([ordered[:1] >= 0, ordered[1:] != ordered[:-1]])
    different = np.bincount((ordered[first] >> np.uint64(56)).astype(np.int64), minlength=texts)
    count = np.bincount(text, minlength=texts)
    shares: _Values = np.divide(different, count, out=np.full(texts, np.nan), where=count > 0)
    return shares


def _longest_loops(texts: Sequence[str]) -> _Values:
    found = units(texts)
    if found is None:
        return np.array([longest_loop(text) for text in texts], dtype=np.float64)
    longest = np.zeros(len(texts))
    for passage in range(1, min(LONGEST_PASSAGE, len(found.number) // 2) + 1):
        start, again = _stretches(found, passage)
        long = again >= max(passage, SHORTEST_LOOP - passage)
        np.maximum.at(longest, found.text[start[long]], again[long] + passage)
    for number in found.strange:
        longest[number] = longest_loop(texts[number])
    return longest


def _stretches(found: Units, passage: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(where it begins, how many units) of every stretch in which each unit comes again `passage` units later."""
    again = found.number[passage:] == found.number[:-passage]
    again &= found.text[passage:] == found.text[:-passage]
    step = np.diff(again.astype(np.int8), prepend=0, append=0)
    start = np.flatnonzero(step == 1)
    return start, np.flatnonzero(step == -1) - start
