"""The only memory gauges: peaks over one turn, of an accelerator's allocator and of this process on the host.

A peak belongs to a turn only if it was reset before it. Accelerators keep such a peak themselves; Linux keeps one for
the resident set of a process (VmHWM), which is reset by writing 5 to /proc/self/clear_refs (see proc(5)). Where there
is no resettable peak the answer is None: the peak of a whole process is not the peak of a turn.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_RESET_PEAK = b"5"


class HostPeak:
    """The peak resident set of this process."""

    def __init__(self) -> None:
        self._known = _STATUS.exists()
        try:
            self.reset()
        except OSError:  # a container that forbids it: then there is no figure
            self._known = False

    def reset(self) -> None:
        if self._known:
            _CLEAR_REFS.write_bytes(_RESET_PEAK)

    def read(self) -> int | None:
        """Bytes, since `reset`."""
        return _high_water_mark() if self._known else None


def _high_water_mark() -> int:
    for line in _STATUS.read_bytes().splitlines():
        if line.startswith(b"VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM line")


def host_rss_bytes() -> int:
    """The resident set of this process at this moment."""
    return int(psutil.Process().memory_info().rss)


class AllocatorPeaks:
    """The peaks of torch's allocator on one accelerator; `accelerator` is `torch.accelerator`, `index` the device's.

    Only a device the model is on should be asked: asking opens a context on it.
    """

    def __init__(self, accelerator: Any, index: int) -> None:
        self._accelerator = accelerator
        self._index = index
        self._keeps_peaks = self._tells_used = True

    def reset(self) -> None:
        if self._keeps_peaks:
            try:
                self._accelerator.reset_peak_memory_stats(self._index)
            except RuntimeError:  # an allocator that keeps none (MPS in torch 2.11)
                self._keeps_peaks = False

    def read(self) -> tuple[int, int] | tuple[None, None]:
        """Bytes allocated and bytes reserved at most since `reset`."""
        if not self._keeps_peaks:
            return None, None
        try:
            return (
                int(self._accelerator.max_memory_allocated(self._index)),
                int(self._accelerator.max_memory_reserved(self._index)),
            )
        except RuntimeError:
            self._keeps_peaks = False
            return None, None

    def used_bytes(self) -> int | None:
        """Memory in use on the device at this moment, whoever uses it, as the device's runtime tells torch."""
        if self._tells_used:
            try:
                free, total = self._accelerator.get_memory_info(self._index)
            except RuntimeError:  # MPS, or a device that has broken down: what broke is told by the turn
                self._tells_used = False
            else:
                return int(total - free)
        return None


def total(parts: Iterable[int | None]) -> int | None:
    """The sum; None where a part is not known or there are none."""
    known = list(parts)
    return sum(part for part in known if part is not None) if known and None not in known else None
