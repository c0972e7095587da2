"""Everything that is gauged round a turn, in one place: memory, accelerators, the load of the machine.

Gauges are reset before a turn and read after it, both outside the timed part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.meters.memory import MemoryGauge
from harness.records import DeviceTurn, HostLoad, Memory


@dataclass(frozen=True, slots=True)
class Seen:
    """What was gauged over one turn."""

    memory: Memory
    devices: tuple[DeviceTurn, ...] = ()
    host_load: HostLoad | None = None


class Gauges:
    """The gauges of this process and of the accelerators the model is on.

    `accelerator` is `torch.accelerator` and `devices` the indexes of the model's devices; without devices only the
    host is gauged.
    """

    def __init__(self, accelerator: Any = None, devices: Sequence[int] = ()) -> None:
        self._memory = MemoryGauge(accelerator, devices)

    def reset(self) -> None:
        self._memory.reset()

    def read(self) -> Seen:
        return Seen(self._memory.read())
