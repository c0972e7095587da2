"""How much memory there is for a model: on every accelerator that torch sees, and on the host."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import psutil

CONTEXT_BYTES = 2**29
"""What CUDA and its libraries take on a device for themselves, which no tensor can have: about half a GiB."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """A place for a model."""

    name: str
    usable_bytes: int
    """What is free now."""
    is_accelerator: bool


def capacities() -> tuple[Capacity, ...]:
    """Every accelerator, all of them together where there are several, and the host last.

    Opens a context on each accelerator, as a run would; what is told as free is what is left then.
    """
    import torch  # whoever only wants to show a capacity needs none

    found: list[Capacity] = []
    count = torch.accelerator.device_count() if torch.accelerator.is_available() else 0
    for index in range(count):
        with suppress(RuntimeError):  # MPS tells nothing: its memory is the host's
            free, _ = torch.accelerator.get_memory_info(index)
            name = torch.cuda.get_device_name(index) if torch.cuda.is_available() else "accelerator"
            found.append(Capacity(f"{name} {index}", int(free), is_accelerator=True))
    if len(found) > 1:
        together = sum(one.usable_bytes for one in found)
        found.append(Capacity(f"all {len(found)} together", together, is_accelerator=True))
    return (*found, host())


def host() -> Capacity:
    """The memory that the system says a process could still have."""
    return Capacity("host memory", int(psutil.virtual_memory().available), is_accelerator=False)


def imagined(memory_bytes: int) -> Capacity:
    """An accelerator that is not here, of so much memory."""
    return Capacity(f"{memory_bytes / 2**30:g} GiB", max(memory_bytes - CONTEXT_BYTES, 0), is_accelerator=True)
