"""Where nights are kept, and which of them tonight is held against.

    results/history/<run_id>.parquet                                every night, whatever its verdict
    results/baselines/<device>/<config name>/<run_id>.parquet       the nights that were blessed: the window
    results/baselines/<device>/<config name>/floor.json             what launches and nights of unchanged code differ by

Numbers of two devices are never held against each other, so each device has a window of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.analysis.frames import NIGHT, Run, load
from harness.analysis.nights import find_nights


def device_of(environment: Mapping[str, Any]) -> str:
    """The machine as the name of a folder: `nvidia-h100-80gb-hbm3-x1`, without a GPU the processor's name and threads.

    `environment` is that of a manifest, or of `meters.environment`.
    """
    gpus = [str(gpu["name"]) for gpu in environment["gpus"]]
    if not gpus:
        return f"{slug(str(environment['cpu'] or 'unknown cpu'))}-x{environment['cpu_threads']}"
    return "-".join(f"{slug(name)}-x{gpus.count(name)}" for name in dict.fromkeys(gpus))


def slug(text: str) -> str:
    """Small letters, digits and dashes of a text, for the name of a folder."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "unnamed"


def history_folder(results: Path) -> Path:
    """Where every night is kept."""
    return results / "history"


def history_file(results: Path, run_id: str) -> Path:
    """Where one is."""
    return history_folder(results) / f"{run_id}{NIGHT}"


def window_folder(results: Path, device: str, config: str) -> Path:
    """Where the blessed nights of a config on a device lie."""
    return results / "baselines" / device / slug(config)


def window(results: Path, device: str, config: str, size: int) -> tuple[Run, ...]:
    """The newest blessed nights, `size` at the most, oldest first, none before one that was blessed as a new beginning.
    What is older stays on the disk.

    Raises StoreError where a file in the folder is no night that this version reads.
    """
    nights: list[Run] = []
    for path in reversed(find_nights(window_folder(results, device, config))[-size:]):
        nights.insert(0, load(path))
        if nights[0].manifest.get("blessed", {}).get("anew"):
            break
    return tuple(nights)


def other_devices(results: Path, device: str, config: str) -> list[str]:
    """The other devices that have blessed nights of a config, by name."""
    folders = (results / "baselines").glob(f"*/{slug(config)}")
    return sorted(folder.parent.name for folder in folders if folder.parent.name != device and find_nights(folder))
