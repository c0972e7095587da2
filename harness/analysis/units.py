"""The units of very many texts at once: those of `harness.conversations.repetition`, as numbers in arrays.

The texts are laid end to end. A unit becomes one number, the sum of a random number for each of its characters times
one for its place in the unit; a run of units becomes the same of its units. Equal runs have equal numbers; different
ones do with a chance of 2⁻⁶⁰ or so. What is not plain European text is left to the definition itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from harness.conversations.repetition import LONGEST, PLAIN, PLAIN_UNIT

Numbers = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]
TOGETHER = 256
"""Texts at a time: their numbers stay in the processor's cache."""
_SPACE, _LETTER, _SIGN, _END, _OTHER = range(5)
_END_SIGN = "\x1e"


@dataclass(frozen=True, slots=True)
class Units:
    """The units of some texts, one after the other."""

    number: Numbers
    text: Places
    """Which text each unit is of."""
    strange: Sequence[int]
    """The texts that have other units than these."""

    def runs(self, size: int) -> tuple[Numbers, Places]:
        """(a number for every run of so many units within a text, the place of its first unit); runs of different texts
        differ too."""
        table = _table()
        n = len(self.number) - size + 1
        if n < 1:
            return self.number[:0], self.text[:0]
        runs = sum((self.number[at : at + n] * table.of_place[at] for at in range(size)), np.zeros(n, dtype=np.uint64))
        whole = np.flatnonzero(self.text[:n] == self.text[size - 1 :])
        return runs[whole] + self.text[whole].astype(np.uint64) * table.of_place[size], whole


def slices(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """The texts, some at a time."""
    return (texts[start : start + TOGETHER] for start in range(0, len(texts), TOGETHER))


def units(texts: Sequence[str]) -> Units | None:
    """The units of at most `TOGETHER` texts; None where one of them has the sign that is to end it."""
    joined = _END_SIGN.join([*texts, ""]).casefold()
    if joined.count(_END_SIGN) != len(texts):
        return None
    characters = np.frombuffer(joined.encode("utf-16-le"), dtype="<u2")
    table = _table()
    kind = table.kind[characters]
    text = np.cumsum(kind == _END) - (kind == _END)
    number, starts = _numbered(characters, kind, table)
    return Units(number, text[starts], np.unique(text[kind == _OTHER]).tolist())


def _numbered(characters: npt.NDArray[np.uint16], kind: npt.NDArray[np.uint8], table: _Table) -> tuple[Numbers, Places]:
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


@dataclass(frozen=True, slots=True)
class _Table:
    kind: npt.NDArray[np.uint8]
    of_character: Numbers
    of_place: Numbers


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
