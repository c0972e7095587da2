"""What this machine can do at most: the rate of a copy through its memory, the rate of a matrix product, its cache.

These are ceilings, so the best of several tries counts: whatever else runs on a machine can only make a try slower,
and a busy processor shows a ceiling that is too low. What was found is remembered for a week in the user's cache
directory, because neither changes from run to run and looking takes a second or two.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import torch

from harness.meters.accelerators import as_torch_knows, installed, open_nvml
from harness.meters.clock import real_clock
from harness.meters.environment import cpu_name
from harness.meters.processors import allowed_processors

_REMEMBERED_S = 7 * 24 * 3600
_COPIED_BYTES = {"cpu": 256 * 2**20}
_COPIED_BYTES_ELSEWHERE = 2**30
_TIMES_THE_CACHE = 4
"""A copy this much larger than the cache finds next to nothing of the last try in it."""
_SHARE_OF_FREE_MEMORY = 4
"""A probe takes at most a fourth of what is free."""
_LARGEST_MATRIX = 16384
_LONG_ENOUGH_S = 0.02
"""What is timed at once takes at least this long, so that starting and waiting are a thousandth of it."""
_BUDGET_S = 0.4
_FEWEST_TRIES = 3


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The best a device did, measured; None where it could not be."""

    copy_bytes_per_s: float | None
    """Bytes read and bytes written, together, by a copy larger than any cache."""
    matrix_flops_per_s: float | None
    """Floating-point operations of a large square matrix product, two for every multiply-add."""
    cache_bytes: int | None
    """Size of the last cache before the memory; of a processor with several, all that this process may use."""


def ceilings(device: torch.device, dtype: torch.dtype) -> Ceilings:
    """The ceilings of a device for a dtype, with as many threads as torch uses now.

    Measured in one to two seconds, unless this machine has been measured in the last seven days. Allocates and frees
    up to a fourth of the free memory; raises nothing.
    """
    path, key = _memory_file(), _key(device, dtype)
    known = _recall(path).get(key)
    if known is None:
        known = {
            "copy_bytes_per_s": copy_bytes_per_s(device),
            "matrix_flops_per_s": matrix_flops_per_s(device, dtype),
            "measured_at": time.time(),
        }
        if None not in known.values():  # memory that was short today may not be so tomorrow
            _remember(path, key, known)
    return Ceilings(known["copy_bytes_per_s"], known["matrix_flops_per_s"], cache_bytes(device))


def copy_bytes_per_s(device: torch.device) -> float | None:
    """Bytes read plus bytes written per second by a copy within the device's memory."""
    wanted = max(_COPIED_BYTES.get(device.type, _COPIED_BYTES_ELSEWHERE), _TIMES_THE_CACHE * (cache_bytes(device) or 0))
    size = min(wanted, _free_bytes(device) // _SHARE_OF_FREE_MEMORY // 2)
    if size * 2 < wanted:  # so little would be copied from cache to cache
        return None

    def probe() -> float:
        source = torch.ones(size, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        return 2 * size / _best_s(lambda: target.copy_(source), device)

    return _unless_impossible(probe, device)


def matrix_flops_per_s(device: torch.device, dtype: torch.dtype) -> float | None:
    """Floating-point operations per second of a product of square matrices, the smallest power of two in size that
    keeps the device busy for a while."""
    room = _free_bytes(device) // _SHARE_OF_FREE_MEMORY

    def probe() -> float:
        size = 256
        draws = torch.Generator(device).manual_seed(0)  # its own: a turn's draws follow from the turn's seed
        while True:
            # Numbers of all magnitudes: a product of zeros takes less power and runs at clocks no model will see.
            left, right = (torch.randn(size, size, device=device, generator=draws).to(dtype) for _ in range(2))
            product = torch.empty_like(left)

            def work(left: Any = left, right: Any = right, product: Any = product) -> object:
                return torch.mm(left, right, out=product)

            work()  # chooses a kernel
            spent = _timed_s(work, 1, device)
            if spent >= _LONG_ENOUGH_S or size == _LARGEST_MATRIX or 3 * (2 * size) ** 2 * dtype.itemsize > room:
                return 2 * size**3 / min(spent, _best_s(work, device))
            size *= 2

    return _unless_impossible(probe, device)


def _unless_impossible(probe: Callable[[], float], device: torch.device) -> float | None:
    """What a probe found, its memory given back; None where the device lacks memory or the operation."""
    try:
        with torch.inference_mode():
            return probe()
    except (RuntimeError, TypeError):  # out of memory is a RuntimeError too
        return None
    finally:
        if device.type != "cpu":
            torch.accelerator.empty_cache()


def _best_s(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that one piece of work takes at best. Short work is timed several pieces at once."""
    work()  # the first touches its memory
    together = 1
    while (spent := _timed_s(work, together, device)) < _LONG_ENOUGH_S:
        together *= 2
    best, until = spent, real_clock() + int(_BUDGET_S * 1e9)
    for tries in count(1):
        if tries >= _FEWEST_TRIES and real_clock() > until:
            break
        best = min(best, _timed_s(work, together, device))
    return best / together


def _timed_s(work: Callable[[], object], times: int, device: torch.device) -> float:
    _wait_for(device)
    started_ns = real_clock()
    for _ in range(times):
        work()
    _wait_for(device)
    return (real_clock() - started_ns) / 1e9


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _free_bytes(device: torch.device) -> int:
    if device.type != "cpu":
        with suppress(RuntimeError):  # MPS tells nothing, and shares the host's memory
            return int(torch.accelerator.get_memory_info(device)[0])
    return int(psutil.virtual_memory().available)


def cache_bytes(device: torch.device) -> int | None:
    """Size of the last cache before the device's memory; None where it is not known."""
    if device.type == "cuda":
        return getattr(torch.cuda.get_device_properties(device), "L2_cache_size", None)
    return _cpu_cache_bytes(Path("/sys/devices/system/cpu")) if device.type == "cpu" else None


def _cpu_cache_bytes(root: Path) -> int | None:
    """The last level of cache that Linux knows of the processors this process may run on, each one counted once."""
    found: dict[int, dict[str, int]] = {}
    for processor in allowed_processors() or ():
        for cache in root.glob(f"cpu{processor}/cache/index*"):
            with suppress(OSError, ValueError):  # a virtual machine may know of a cache, but not its size
                level = int((cache / "level").read_text())
                kib = int((cache / "size").read_text().strip().removesuffix("K"))
                found.setdefault(level, {})[(cache / "shared_cpu_list").read_text()] = kib * 1024
    return sum(found[max(found)].values()) if found else None


def _key(device: torch.device, dtype: torch.dtype) -> str:
    """Everything the rates depend on. A home directory may be shared by many hosts."""
    if device.type == "cpu":
        allowed = len(allowed_processors() or ()) or os.cpu_count()
        name, driver = f"{platform.node()}, {cpu_name()}, {torch.get_num_threads()} threads on {allowed}", None
    else:
        known = as_torch_knows(device)
        kind = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
        name = f"{kind}, {known.uuid or platform.node()}"
        driver = installed(open_nvml())[1]
    return f"{name}, {str(dtype).removeprefix('torch.')}, torch {torch.__version__}, driver {driver}"


def _memory_file() -> Path | None:
    """Where rates are remembered; None for a user without a home."""
    caches = os.environ.get("XDG_CACHE_HOME")
    with suppress(RuntimeError):
        return (Path(caches) if caches else Path.home() / ".cache") / "instruct-harness" / "machine.json"
    return None


def _recall(path: Path | None) -> dict[str, dict[str, Any]]:
    """What was measured in the last week; a file that is damaged holds nothing."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8")) if path else {}
        return {key: entry for key, entry in entries.items() if _holds(entry)}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _holds(entry: Any) -> bool:
    numbers = [entry.get(name) for name in ("copy_bytes_per_s", "matrix_flops_per_s", "measured_at")]
    sound = all(isinstance(number, float) and math.isfinite(number) and number > 0 for number in numbers)
    return sound and 0 <= time.time() - entry["measured_at"] < _REMEMBERED_S


def _remember(path: Path | None, key: str, entry: dict[str, Any]) -> None:
    """Add an entry in one step; where nothing can be written, the next process measures again."""
    if path is None:
        return
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}")
        beside.write_text(json.dumps({**_recall(path), key: entry}, indent=2), encoding="utf-8")
        beside.replace(path)
