"""The machine just before a run: who else uses it, how hot and how fast its GPUs are, how much room the disk has.

Looked at without torch, which would open a context on every GPU it is asked about.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from harness.meters.accelerators import Board, installed
from harness.meters.processors import LoadGauge, allowed_processors
from harness.records import DeviceState

_LOOK_S = 0.5
"""The load of the host is taken over so long: the kernel counts in steps of 0.01 s."""


@dataclass(frozen=True, slots=True)
class GpuNow:
    """A GPU that a model may be put on; None for what it does not tell."""

    name: str | None
    uuid: str | None
    state: DeviceState
    used_bytes: int | None
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class Readiness:
    """What was seen of the machine."""

    gpus: tuple[GpuNow, ...]
    driver: str | None
    processors: int
    """That this process may run on."""
    busy_processors: float
    """Kept busy by other processes, on average over the look."""
    free_bytes: int
    """On the disk of the results."""


def readiness(results: Path, nvml: Any, look_s: float = _LOOK_S) -> Readiness:
    """Look at the machine for `look_s` seconds; `nvml` is the module pynvml, None where there is no such driver.

    `results` need not exist yet: its disk is that of the nearest directory above that does.
    """
    load = LoadGauge()
    time.sleep(look_s)
    seen = load.read()
    gpus, driver = installed(nvml)
    existing = next(path for path in (results.absolute(), *results.absolute().parents) if path.exists())
    return Readiness(
        gpus=tuple(_look_at(nvml, gpu) for gpu in _visible(gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))),
        driver=driver,
        processors=len(allowed_processors() or ()) or psutil.cpu_count() or 1,
        busy_processors=max(0.0, (seen.busy_s - seen.own_s) / seen.wall_s),
        free_bytes=shutil.disk_usage(existing).free,
    )


def _look_at(nvml: Any, gpu: dict[str, Any]) -> GpuNow:
    board = Board(nvml, gpu["uuid"])
    return GpuNow(gpu["name"], gpu["uuid"], board.state(), board.used_bytes(), gpu["memory_bytes"])


def _visible(gpus: Sequence[dict[str, Any]], variable: str | None) -> list[dict[str, Any]]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves, each entry the number of a GPU or the beginning of its UUID; numbers
    are taken in the order of the bus. As CUDA does it, what comes after an entry that is none is not seen."""
    if variable is None:
        return list(gpus)
    left = []
    for entry in map(str.strip, variable.split(",")):
        named = [gpu for index, gpu in enumerate(gpus)
                 if entry and (entry == str(index) or str(gpu["uuid"]).startswith(entry))]  # fmt: skip
        if not named:
            break
        left.append(named[0])
    return left
