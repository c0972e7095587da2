"""The repetition of very many replies at once: `harness.conversations.repetition`, worked out on arrays.

The replies are laid end to end. A unit becomes one number, the sum of a random number for each of its characters times
one for its place in the unit; a run of units becomes the same of its units. Equal runs have equal numbers; different
ones do with a chance of 2⁻⁶⁰ or so. What is not plain European text is left to the definition itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from harness.conversations.repetition import LONGEST, PLAIN, PLAIN_UNIT, RUN, repetition

_Numbers = npt.NDArray[np.uint64]
_Places = npt.NDArray[np.int64]
_SPACE, _LETTER, _SIGN, _END, _OTHER = range(5)
_END_SIGN = "\x1e"
_TOGETHER = 256
"""Replies at a time: their numbers stay in the processor's cache."""
_FEW = 64
"""Replies that are sooner done one by one."""


def repetitions(texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """`repetition` of each text."""
    slices = [_together(texts[start : start + _TOGETHER]) for start in range(0, len(texts), _TOGETHER)]
    return np.concatenate([np.empty(0), *slices])


def _together(texts: Sequence[str]) -> npt.NDArray[np.float64]:
    joined = _END_SIGN.join([*texts, ""]).casefold()
    if len(texts) < _FEW or joined.count(_END_SIGN) != len(texts):
        return np.array([repetition(text) for text in texts], dtype=np.float64)
    characters = np.frombuffer(joined.encode("utf-16-le"), dtype="<u2")
    table = _table()
    kind = table.kind[characters]
    text = np.cumsum(kind == _END) - (kind == _END)
    units, starts = _units(characters, kind, table)
    owner = text[starts]
    repeated = _repeated(units, owner, table)
    count = np.bincount(owner, minlength=len(texts))
    shares = np.bincount(owner, repeated, minlength=len(texts)) / np.maximum(count, 1)
    for number in np.unique(text[kind == _OTHER]).tolist():
        shares[number] = repetition(texts[number])
    return shares


def _units(characters: npt.NDArray[np.uint16], kind: npt.NDArray[np.uint8], table: _Table) -> tuple[_Numbers, _Places]:
    """The number of each unit, and where it starts."""
    letter = kind == _LETTER
    place = np.arange(len(kind), dtype=np.int32)
    # How many letters of the same word come before: the distance from the last character that is none.
    place -= np.maximum.accumulate(np.where(letter, np.int32(-1), place)) + 1
    place = np.where(letter, place % LONGEST, 0)
    starts = np.flatnonzero((letter & (place == 0)) | (kind == _SIGN))
    numbers = table.of_character[characters] * table.of_place[place]
    numbers[(kind != _LETTER) & (kind != _SIGN)] = 0
    return np.add.reduceat(numbers, starts) if len(starts) else numbers[:0], starts


def _repeated(units: _Numbers, owner: _Places, table: _Table) -> npt.NDArray[np.bool_]:
    """Whether each unit lies in a run that began earlier in its text too."""
    n = len(units) - RUN + 1
    if n < 2:
        return np.zeros(len(units), dtype=bool)
    runs = sum((units[at : at + n] * table.of_place[at] for at in range(RUN)), np.zeros(n, dtype=np.uint64))
    whole = np.flatnonzero(owner[:n] == owner[RUN - 1 :])
    runs = runs[whole] + owner[whole].astype(np.uint64) * table.of_place[RUN]
    ordered = np.sort(runs)
    begun = np.zeros(len(units) + 1, dtype=np.int64)
    if (ordered[1:] == ordered[:-1]).any():
        order = np.argsort(runs, kind="stable")
        again = whole[order[1:][runs[order[1:]] == runs[order[:-1]]]]
        begun[again] += 1
        begun[again + RUN] -= 1
    return np.cumsum(begun)[:-1] > 0


@dataclass(frozen=True, slots=True)
class _Table:
    kind: npt.NDArray[np.uint8]
    of_character: _Numbers
    of_place: _Numbers


@cache
def _table() -> _Table:
    """What each character (of 2¹⁶) is, and the random numbers."""
    kind = np.full(2**16, _OTHER, dtype=np.uint8)
    for code in range(0x2400):
        sign = chr(code)
        if PLAIN.fullmatch(sign):
            kind[code] = _SPACE if not PLAIN_UNIT.match(sign) else _LETTER if sign.isalnum() or sign == "_" else _SIGN
    kind[ord(_END_SIGN)] = _END
    dice = np.random.default_rng(0)
    odd = [dice.integers(2**64, size=size, dtype=np.uint64) | np.uint64(1) for size in (2**16, LONGEST)]
    return _Table(kind, *odd)
