"""From reads and counts to ticks: how many tokens arrived when.

A chunk is not a token. How many tokens a reply has is what the server counts; how they are spread over the chunks is
known in two cases: the server counts along with every chunk, or there are as many chunks as tokens. An end of text that
is counted has no text of its own, and arrives with the chunk that says why the reply ended. In every other case there
are no gaps between tokens to be told, and tokens that belong nowhere are put where they claim least.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(slots=True)
class Arrival:
    """What one read of the socket brought."""

    ns: int
    chunks: int = 0
    """Chunks with text in them."""
    content: str = ""
    reasoning: str = ""
    counted: int | None = None
    """Tokens of the reply so far, as the server counted when it was sent; None where it did not."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Ticks. `ids` has as many entries as `at`, none of them 0."""

    at: tuple[int, ...]
    ids: tuple[int, ...]
    exact: bool
    """Whether it is known of every token when it arrived."""


def place(
    arrivals: Sequence[Arrival], tokens: int, end_ns: int, *, counts_along: bool, end_is_a_token: bool, one_first: bool
) -> Placed:
    """Spread `tokens` over the arrivals; `end_ns` is when the end of the reply was read.

    `counts_along`: the server counts with every chunk; `end_is_a_token`: the reply ended by itself, at a server that
    counts the end of text; `one_first`: the first chunk is known to be one token.
    """
    chunks = sum(arrival.chunks for arrival in arrivals)
    along = _counted_along(arrivals, tokens, end_ns) if counts_along else None
    if along is not None:
        return along
    spread = [(arrival.ns, arrival.chunks) for arrival in arrivals if arrival.chunks]
    if end_is_a_token and chunks == tokens - 1:
        spread.append((end_ns, 1))
        chunks = tokens
    if chunks == tokens:
        return _placed(spread, exact=True)
    if not spread:
        return _placed([(end_ns, tokens)], exact=tokens <= 1)
    if chunks > tokens:  # text comes in smaller pieces than tokens: only of the first of them is it known when
        return _placed([(spread[0][0], tokens)], exact=tokens <= 1)
    # A first arrival of several has no time per token that could be told (`metrics.tpot_s`): so unless it is known to
    # be one, it is the one that takes in what cannot be placed.
    at = len(spread) - 1 if one_first and spread[0][1] == 1 and len(spread) > 1 else 0
    spread[at] = (spread[at][0], spread[at][1] + tokens - chunks)
    return _placed(spread, exact=False)


def _counted_along(arrivals: Sequence[Arrival], tokens: int, end_ns: int) -> Placed | None:
    """By the server's counts; None where they do not grow with the text."""
    told = [arrival for arrival in arrivals if arrival.counted is not None]
    if not told or any(arrival.counted is None for arrival in arrivals if arrival.chunks):
        return None
    counts = [0, *(arrival.counted or 0 for arrival in told), tokens]
    sizes = [later - earlier for earlier, later in pairwise(counts)]
    if min(sizes) < 0:
        return None
    return _placed(list(zip([*(arrival.ns for arrival in told), end_ns], sizes, strict=True)), exact=True)


def _placed(spread: Sequence[tuple[int, int]], *, exact: bool) -> Placed:
    kept = [(ns, ids) for ns, ids in spread if ids]
    return Placed(tuple(ns for ns, _ in kept), tuple(ids for _, ids in kept), exact)
