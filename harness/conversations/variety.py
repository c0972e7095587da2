"""How varied a text is, and whether it got stuck, in the units of `repetition`: words up to ten letters, single signs,
and single characters of scripts that are written without spaces.

    distinct-n = different runs of n units / all runs of n units    (Li et al., NAACL 2016; there over all replies)

It is a figure of one text. It falls as a text grows, because words come again in any language, so texts of different
lengths are to be compared with their lengths in view; over all replies of a setting it would depend on how many there
are, and is not given.

A *loop* is a stretch in which some passage is said, and said again at once: every unit of it but the first p equals
the one p places earlier, for a p (the length of the passage) of at most `LONGEST_PASSAGE`. It holds the passage at
least twice, and at least `SHORTEST_LOOP` units, two runs of `repetition`, so that "very, very" and "no no no" are none.
"""

from __future__ import annotations

from harness.conversations.repetition import RUN, units_of

SIZES = (1, 2, 3)
"""The n of distinct-n."""
LONGEST_PASSAGE = 64
"""A paragraph. What comes again after more than that is repetition, but nobody would call it stuck."""
SHORTEST_LOOP = 2 * RUN


def distinct(text: str, size: int) -> float | None:
    """The share of the runs of `size` units that are different ones, in (0, 1]; None where there is no such run."""
    units = units_of(text)
    runs = list(zip(*(units[start:] for start in range(size)), strict=False))
    return len(set(runs)) / len(runs) if runs else None


def longest_loop(text: str) -> int:
    """The number of units in the longest loop of a text; 0 where there is none."""
    units, longest = units_of(text), 0
    for passage in range(1, min(LONGEST_PASSAGE, len(units) // 2) + 1):
        again = 0
        for earlier, unit in zip(units, units[passage:], strict=False):
            again = again + 1 if unit == earlier else 0
            if again >= passage and again + passage >= SHORTEST_LOOP:
                longest = max(longest, again + passage)
    return longest
