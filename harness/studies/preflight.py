"""Whether a night can begin: one finding for each thing that would make its numbers worthless, or explain them.

A *stop* is what no number survives: no GPU where there was one, somebody else computing on it, no room on the disk. A
*warning* is kept with the run, so that it stands beside whatever the night finds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.meters.readiness import GpuNow, Readiness

Level = Literal["ok", "warning", "stop"]

_HOT_C = 70
"""An idle card is far below; this one has little room to heat up before its clocks are lowered, at some 85 °C."""
_ROOM_BYTES, _LITTLE_ROOM_BYTES = 64 * 2**20, 2**30
"""A night of a thousand turns takes a few MB, its page and night file included."""
_IN_USE_BYTES = 512 * 2**20
"""More than a driver and a desktop take: a model is there, whose process a container may not show."""
_BUSY_SHARE = 0.25
"""So many of our processors taken by others are seen in the times of turns on the CPU, and in starting kernels."""
_ASKED_FOR = ("applications_clocks_setting", "display_clock_setting")
"""Clocks that somebody set, which is what a machine that measures wants."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found about one thing."""

    about: str
    """GPU, GPU processes, clocks, temperature, driver, disk, host load."""
    level: Level
    line: str

    def __str__(self) -> str:
        return f"{self.level}: {self.about}: {self.line}"


def preflight(seen: Readiness, before: Mapping[str, Any] | None = None) -> tuple[Finding, ...]:
    """What there is to say of a machine; `before` is the environment of the newest baseline, where there is any."""
    return (*_gpus(seen, before), *_driver(seen, before), _disk(seen), _host(seen))


def stops(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Those that keep a night from beginning."""
    return tuple(finding for finding in findings if finding.level == "stop")


def _gpus(seen: Readiness, before: Mapping[str, Any] | None) -> Iterator[Finding]:
    expected = [] if before is None else [str(gpu["name"]) for gpu in before["gpus"]]
    if not seen.gpus:
        if expected:
            yield Finding("GPU", "stop", f"none is seen, and the baseline is of {', '.join(expected)}")
        else:
            yield Finding("GPU", "ok", "none is seen; everything runs on the processor")
        return
    for index, gpu in enumerate(seen.gpus):
        yield Finding("GPU", "ok", f"{gpu.name or 'unnamed'}{_of(index, seen)}")
        yield _processes(gpu, _of(index, seen))
        yield from _state(gpu, _of(index, seen))


def _of(index: int, seen: Readiness) -> str:
    return f" ({index})" if len(seen.gpus) > 1 else ""


def _processes(gpu: GpuNow, which: str) -> Finding:
    used = "" if gpu.used_bytes is None else f", {gpu.used_bytes / 2**30:.1f} GiB in use"
    n = gpu.state.processes
    if n:
        return Finding("GPU processes", "stop", f"{n} {'computes' if n == 1 else 'compute'} on it{which}{used}")
    if gpu.used_bytes is not None and gpu.used_bytes > _IN_USE_BYTES:
        return Finding("GPU processes", "warning", f"none is seen{which}, but {used.removeprefix(', ')}")
    told = "none" if n == 0 else "it does not tell"
    return Finding("GPU processes", "ok", f"{told}{which}{used}")


def _state(gpu: GpuNow, which: str) -> Iterator[Finding]:
    state = gpu.state
    held = [reason for reason in state.throttle or () if reason not in _ASKED_FOR]
    clocks = f"{state.sm_clock_mhz} MHz" if state.sm_clock_mhz is not None else "it does not tell"
    if held:
        yield Finding("clocks", "warning", f"held down{which} by {', '.join(held)}: {clocks}")
    else:
        asked = f", set by {', '.join(state.throttle)}" if state.throttle else ""
        yield Finding("clocks", "ok", f"{clocks}{which}{asked}")
    if state.temperature_c is not None:
        hot = state.temperature_c >= _HOT_C
        yield Finding("temperature", "warning" if hot else "ok", f"{state.temperature_c} °C{which} before it begins")


def _driver(seen: Readiness, before: Mapping[str, Any] | None) -> Iterator[Finding]:
    known = None if before is None else before["gpu_driver"]
    if before is not None and seen.driver != known:
        yield Finding("driver", "warning", f"{seen.driver}, the baseline's was {known}")
    elif seen.driver is not None:
        yield Finding("driver", "ok", seen.driver)


def _disk(seen: Readiness) -> Finding:
    level: Level = "ok"
    if seen.free_bytes < _LITTLE_ROOM_BYTES:
        level = "stop" if seen.free_bytes < _ROOM_BYTES else "warning"
    return Finding("disk", level, f"{seen.free_bytes / 2**30:.1f} GiB free")


def _host(seen: Readiness) -> Finding:
    busy = seen.busy_processors
    level: Level = "warning" if busy > _BUSY_SHARE * seen.processors else "ok"
    return Finding("host load", level, f"others keep {busy:.1f} of {seen.processors} processors busy")
