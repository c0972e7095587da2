"""What a worker plays when: lanes of conversations that are played together, and the warm-up before them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from harness.config.schema import ModelSpec
from harness.errors import Mistake
from harness.records import TurnRecord
from harness.runner.messages import Play, Warmed

MOST_PASSES = 5
SAME = 0.1
"""Two passes take the same time if they differ by less than this share: a cold one – unread pages, lazy kernels,
compilation – takes a multiple. What is left above it for five passes is an unstable machine (pyperf warns at the same
tenth)."""


def lanes(plays: Sequence[Play]) -> Iterator[list[Play]]:
    """Neighbours of the same sampling, repeat and concurrency; at a concurrency of 1 every conversation by itself."""

    def lane(numbered: tuple[int, Play]) -> tuple[object, ...]:
        number, play = numbered
        cell = play.circumstances.cell
        return (cell.sampling, cell.repeat, cell.concurrency, number if cell.concurrency == 1 else None)

    for _, group in groupby(enumerate(plays), key=lane):
        yield [play for _, play in group]


def unbatchable(spec: ModelSpec, together: int, why_not: str) -> Mistake:
    """What is wrong with a model that is to play so many conversations at a time, and cannot."""
    in_turn = "on_unbatchable: sequential"
    remedy = f"use {in_turn}" if spec.engine == "batched" else f"use engine: batched for it, or {in_turn}"
    return Mistake(spec.model, f"cannot be replayed at concurrency {together}: {why_not}", remedy)


def warm_up(play: Play, passes: int | None, run: Callable[[Sequence[Play]], Sequence[TurnRecord]]) -> Warmed:
    """Play a conversation as often as `passes` says, or until two passes take the same time.

    Every pass is the very same work: same seed, same prompts. At a concurrency of N it is played N times at once.
    """
    cell = play.circumstances.cell
    before: int | None = None
    for number in range(1, (MOST_PASSES if passes is None else passes) + 1):
        together = [
            replace(play, circumstances=replace(play.circumstances, attempt=number - 1))
            for _ in range(cell.concurrency)
        ]
        records = run(together)
        spent = sum(record.stamps.ready_ns or 0 for record in records if record.failure is None)
        if passes is None and before == spent == 0:  # nothing was answered, twice: more time-outs would settle nothing
            return Warmed(cell.sampling, cell.concurrency, number, settled=None)
        if passes is None and before and spent and abs(math.log(spent / before)) < math.log(1 + SAME):
            return Warmed(cell.sampling, cell.concurrency, number, settled=True)
        before = spent
    settled = None if passes is not None else False
    return Warmed(cell.sampling, cell.concurrency, MOST_PASSES if passes is None else passes, settled)
