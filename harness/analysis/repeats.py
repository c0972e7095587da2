"""The repetition of very many replies at once: `harness.conversations.repetition`, worked out on arrays of units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from harness.analysis.units import Units, slices, units
from harness.conversations.repetition import RUN, repetition

_FEW = 64
"""Replies that are sooner done one by one."""


def repetitions(texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """`repetition` of each text."""
    return np.concatenate([np.empty(0), *map(_together, slices(texts))])


def _together(texts: Sequence[str]) -> npt.NDArray[np.float64]:
    found = units(texts) if len(texts) >= _FEW else None
    if found is None:
        return np.array([repetition(text) for text in texts], dtype=np.float64)
    count = np.bincount(found.text, minlength=len(texts))
    shares = np.bincount(found.text, _repeated(found), minlength=len(texts)) / np.maximum(count, 1)
    for number in found.strange:
        shares[number] = repetition(texts[number])
    return shares


def _repeated(found: Units) -> npt.NDArray[np.bool_]:
    """Whether each unit lies in a run that began earlier in its text too."""
    runs, place = found.runs(RUN)
    ordered = np.sort(runs)
    begun = np.zeros(len(found.number) + 1, dtype=np.int64)
    if (ordered[1:] == ordered[:-1]).any():
        order = np.argsort(runs, kind="stable")
        again = place[order[1:][runs[order[1:]] == runs[order[:-1]]]]
        begun[again] += 1
        begun[again + RUN] -= 1
    return np.cumsum(begun)[:-1] > 0
