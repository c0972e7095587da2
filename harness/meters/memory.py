"""The only memory gauges: peaks over one turn, on the accelerators and on the host.

A peak belongs to a turn only if it was reset before it. Accelerators keep such a peak themselves; Linux keeps one for
the resident set of a process (VmHWM), which is reset by writing 5 to /proc/self/clear_refs (see proc(5)). Where there
is no resettable peak the answer is None: the peak of a whole process is not the peak of a turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.records import Memory

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_RESET_PEAK = b"5"


class MemoryGauge:
    """Reads the peaks of this process. `reset` and `read` are called outside the timed part of a turn.

    `accelerator` is `torch.accelerator` and `devices` the indexes of the devices the model is on: memory of other
    devices is not the model's, and asking for it would open a context there. Without devices only the host is
    measured.
    """

    def __init__(self, accelerator: Any = None, devices: Sequence[int] = ()) -> None:
        self._accelerator = accelerator
        self._devices = tuple(devices)
        self._host = self._host_peak_can_be_reset()
        try:
            self.reset()
            self.read()
        except (RuntimeError, NotImplementedError):  # an accelerator whose allocator keeps no peaks (MPS in torch 2.11)
            self._devices = ()

    def _host_peak_can_be_reset(self) -> bool:
        try:
            _CLEAR_REFS.write_bytes(_RESET_PEAK)
        except OSError:  # another operating system, or a container that forbids it: then there is no host figure
            return False
        return _STATUS.exists()

    def reset(self) -> None:
        for device in self._devices:
            self._accelerator.reset_peak_memory_stats(device)
        if self._host:
            _CLEAR_REFS.write_bytes(_RESET_PEAK)

    def read(self) -> Memory:
        """Peaks since `reset`, in bytes, summed over the model's accelerators."""
        host = _high_water_mark() if self._host else None
        if not self._devices:
            return Memory(host_rss_bytes=host)
        accelerator = self._accelerator
        free_and_total = [accelerator.get_memory_info(device) for device in self._devices]
        return Memory(
            peak_memory_bytes=sum(accelerator.max_memory_allocated(device) for device in self._devices),
            reserved_memory_bytes=sum(accelerator.max_memory_reserved(device) for device in self._devices),
            device_used_bytes=sum(total - free for free, total in free_and_total),
            host_rss_bytes=host,
        )


def _high_water_mark() -> int:
    for line in _STATUS.read_bytes().splitlines():
        if line.startswith(b"VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM line")
