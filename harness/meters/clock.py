"""The only clock: a stopwatch that is started at the beginning of a turn and collects raw stamps.

A clock is any callable that returns integer nanoseconds; the real one is `time.perf_counter_ns`. Stamps are stored
relative to the start as integers – absolute clock values in floating point lose exactly the digits that matter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from harness.records import Stamps

Clock = Callable[[], int]

real_clock: Clock = time.perf_counter_ns


class HandCrankedClock:
    """A clock that moves only when told to, so that timing can be tested to the nanosecond."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns

    def advance(self, ns: int) -> None:
        self.now_ns += ns


class Stopwatch:
    """The stamps of one turn. Every method reads the clock first and does its bookkeeping afterwards."""

    __slots__ = ("_clock", "_generated", "_ready", "_start", "_templated", "_tick_ids", "_tick_ns", "_tokenized")

    def __init__(self, clock: Clock = real_clock) -> None:
        self._clock = clock
        self._templated: int | None = None
        self._tokenized: int | None = None
        self._generated: int | None = None
        self._ready: int | None = None
        self._tick_ns: list[int] = []
        self._tick_ids: list[int] = []
        self._start = clock()

    def templated(self) -> None:
        self._templated = self._clock()

    def tokenized(self) -> None:
        self._tokenized = self._clock()

    def tick(self, ids: int) -> None:
        """`ids` generated ids have arrived on the host."""
        self._tick_ns.append(self._clock())
        self._tick_ids.append(ids)

    def generated(self) -> None:
        self._generated = self._clock()

    def generated_elsewhere(
        self, tick_ns: Sequence[int], generated_ns: int, tick_ids: Sequence[int] | None = None
    ) -> None:
        """Take stamps that were read on the same clock by whoever generated: when ids arrived (one at a time, or as
        many as `tick_ids` says), and when the last of them was done with. They are absolute, as the clock returns
        them."""
        self._tick_ns.extend(tick_ns)
        self._tick_ids.extend([1] * len(tick_ns) if tick_ids is None else tick_ids)
        self._generated = generated_ns

    def ready(self) -> None:
        self._ready = self._clock()

    def now(self) -> int:
        """The clock as it stands, for stamps that are handed in later (`generated_elsewhere`)."""
        return self._clock()

    def elapsed_s(self) -> float:
        """Seconds since the start; for time-outs, not for metrics."""
        return (self._clock() - self._start) / 1e9

    def stamps(self) -> Stamps:
        """What was stamped so far, in nanoseconds since the start."""
        start = self._start

        def since(ns: int | None) -> int | None:
            return None if ns is None else ns - start

        return Stamps(
            templated_ns=since(self._templated),
            tokenized_ns=since(self._tokenized),
            generated_ns=since(self._generated),
            ready_ns=since(self._ready),
            tick_ns=tuple([ns - start for ns in self._tick_ns]),
            tick_ids=None if self._tick_ids.count(1) == len(self._tick_ids) else tuple(self._tick_ids),
        )
