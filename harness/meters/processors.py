"""Processors: which ones this process may use, what it took of them, and what the machine was busy with meanwhile.

The machine's figure moves in steps of the kernel's clock, 10 ms on Linux, on each processor; that of this process does
not. So over a short turn the difference between the two, what others did, is known to a few hundredths of a second.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

import psutil

from harness.errors import Mistake
from harness.meters.clock import real_clock
from harness.records import HostLoad

_NOT_BUSY = ("idle", "iowait", "guest", "guest_nice")
"""iowait is idle with a reason; the time of guests is in user and nice already (proc(5), /proc/stat)."""


class LoadGauge:
    """Processor time since `start`."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self._busy_s = _busy_s()
        self._own_s = time.process_time()
        self._wall_ns = real_clock()

    def read(self) -> HostLoad:
        wall_ns = real_clock()
        own_s = time.process_time()
        return HostLoad((wall_ns - self._wall_ns) / 1e9, own_s - self._own_s, _busy_s() - self._busy_s)


def _busy_s() -> float:
    """Seconds all processors together have spent on something. Time that a hypervisor gave to others counts: it was
    wanted here."""
    times = psutil.cpu_times()
    return float(sum(value for name, value in times._asdict().items() if name not in _NOT_BUSY))


def allowed_processors() -> tuple[int, ...] | None:
    """The processors this process may run on, by number; None where the system does not say."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else None


def keep_to(processors: Iterable[int]) -> Mistake | None:
    """Let this process run on these processors only; returns what is wrong if it cannot."""
    wanted = tuple(sorted(set(processors)))
    before = allowed_processors()
    if before is None:
        return Mistake("cpu_affinity", "this system cannot keep a process to some processors", "leave it out")
    try:
        os.sched_setaffinity(0, wanted)
    except (OSError, OverflowError):  # none of them exists, or is allowed here
        got: tuple[int, ...] | None = ()
    else:
        got = allowed_processors()  # the kernel drops, without a word, those that are not allowed
    if got == wanted:
        return None
    refused = ", ".join(str(processor) for processor in wanted if processor not in (got or ()))
    allowed = ", ".join(map(str, before))
    return Mistake("cpu_affinity", f"this machine does not let us run on processor {refused}", f"allowed: {allowed}")
