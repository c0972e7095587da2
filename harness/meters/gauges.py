"""Everything that is gauged round a turn, in one place: memory, accelerators, the load of the machine.

Gauges are reset before a turn and read after it, both outside the timed part. The readings that are subtracted from
each other – energy, processor time – are taken last before the turn and first after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.meters.accelerators import Board, Device, as_torch_knows, open_nvml
from harness.meters.memory import AllocatorPeaks, HostPeak, total
from harness.meters.processors import LoadGauge
from harness.records import DeviceTurn, HostLoad, Memory

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Seen:
    """What was gauged over one turn."""

    memory: Memory
    devices: tuple[DeviceTurn, ...] = ()
    host_load: HostLoad | None = None


class Gauges:
    """The gauges of this process and of the accelerators the model is on.

    `accelerator` is `torch.accelerator` and `nvml` the module pynvml, None where there is none; without devices only
    the host is gauged, and neither is needed.
    """

    def __init__(self, devices: Sequence[Device] = (), accelerator: Any = None, nvml: Any = None) -> None:
        self.devices = tuple(devices)
        self._peaks = [AllocatorPeaks(accelerator, device.index) for device in devices]
        self._boards = [Board(nvml, device.uuid) for device in devices]
        self._host = HostPeak()
        self._load = LoadGauge()
        self.reset()

    def reset(self) -> None:
        self._host.reset()
        for peaks in self._peaks:
            peaks.reset()
        self._before = [board.state() for board in self._boards]
        self._energy = [board.energy_mj() for board in self._boards]
        self._load.start()

    def read(self) -> Seen:
        """What happened since `reset`: peaks in bytes, energy in millijoules, processor time in seconds."""
        load = self._load.read()
        energy = [board.energy_mj() for board in self._boards]
        devices = []
        for index, (device, board, peaks) in enumerate(zip(self.devices, self._boards, self._peaks, strict=True)):
            allocated, reserved = peaks.read()
            used = board.used_bytes()
            devices.append(
                DeviceTurn(
                    device=device.name,
                    peak_memory_bytes=allocated,
                    reserved_memory_bytes=reserved,
                    device_used_bytes=peaks.used_bytes() if used is None else used,
                    energy_mj=_spent(self._energy[index], energy[index]),
                    before=self._before[index],
                    after=board.state(),
                )
            )
        memory = Memory(
            peak_memory_bytes=total(device.peak_memory_bytes for device in devices),
            reserved_memory_bytes=total(device.reserved_memory_bytes for device in devices),
            device_used_bytes=total(device.device_used_bytes for device in devices),
            host_rss_bytes=self._host.read(),
        )
        return Seen(memory, tuple(devices), load)


class NoGauges(Gauges):
    """Of a model on a machine that cannot be looked into: nothing is gauged, and least of all this process."""

    def reset(self) -> None:
        """Nothing to reset."""

    def read(self) -> Seen:
        return Seen(Memory())


def gauges_of(devices: Sequence[torch.device]) -> Gauges:
    """The gauges for a model on these accelerators, peaks reset to what is in use now."""
    if not devices:
        return Gauges()
    import torch

    return Gauges([as_torch_knows(device) for device in devices], torch.accelerator, open_nvml())


def _spent(before: int | None, after: int | None) -> int | None:
    """What a counter advanced by. One that stood still was not asked for long enough to move – a device always takes
    some power – and one that went backwards began anew: neither says anything."""
    return None if before is None or after is None or after <= before else after - before
