"""The background sampler: a thread that looks at accelerators and host every so many seconds while turns are played.

What a turn's gauges see is before and after it; a sampler sees what happens meanwhile. It runs only when asked to,
because looking takes time from what is measured: the interpreter, one processor, the driver. So it counts what it took.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from itertools import count
from queue import SimpleQueue
from typing import Any

from harness.meters.accelerators import Board, Device
from harness.meters.clock import real_clock
from harness.meters.memory import host_rss_bytes
from harness.meters.processors import LoadGauge
from harness.records import DeviceSample, Sample, SamplerCost


class Sampler:
    """Looks until it is stopped, as a context manager. `nvml` is the module pynvml, None where there is none; torch is
    not asked, because its runtime belongs to the turn that is being played."""

    def __init__(
        self, every_s: float, model: str, launch: int, devices: Sequence[Device] = (), nvml: Any = None
    ) -> None:
        self._whose = (model, launch)
        self._boards = [(device.name, Board(nvml, device.uuid)) for device in devices]
        self._load = LoadGauge()
        self._looks: SimpleQueue[tuple[Sample, SamplerCost]] = SimpleQueue()
        self._cost = SamplerCost(every_s, samples=0, reached_s=None, cpu_s=0.0)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopped.set()
        self._thread.join()

    def drain(self) -> tuple[tuple[Sample, ...], SamplerCost]:
        """The samples since the last call, and what all of them until now have cost."""
        samples = []
        while not self._looks.empty():
            sample, self._cost = self._looks.get()
            samples.append(sample)
        return tuple(samples), self._cost

    def _run(self) -> None:
        every_s, first_ns = self._cost.every_s, real_clock()
        due_ns = first_ns
        for number in count(1):
            if self._stopped.wait(max(0, due_ns - real_clock()) / 1e9):
                return
            now_ns = real_clock()
            sample = self._look()
            reached_s = (now_ns - first_ns) / 1e9 / (number - 1) if number > 1 else None
            self._looks.put((sample, SamplerCost(every_s, number, reached_s, time.thread_time())))
            due_ns = max(due_ns + round(every_s * 1e9), real_clock())  # what was missed is not made up for

    def _look(self) -> Sample:
        load = self._load.read()
        self._load.start()
        devices = tuple(DeviceSample(name, board.used_bytes(), board.state()) for name, board in self._boards)
        return Sample(*self._whose, time.time(), host_rss_bytes(), load, devices)
