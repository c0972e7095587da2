"""What a background sampler saw, as a frame, and what a reader must know of its having run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from harness.records import DeviceSample, Sample

_DTYPES = {
    "run_id": "string",
    "model": "string",
    "launch": "Int64",
    "at": "datetime64[us, UTC]",
    "host_rss_bytes": "Int64",
    "own_load": "Float64",
    "foreign_load": "Float64",
    "device": "string",
    "device_used_bytes": "Int64",
    "sm_clock_mhz": "Int64",
    "memory_clock_mhz": "Int64",
    "temperature_c": "Int64",
    "power_w": "Float64",
    "throttle": "object",
    "processes": "Int64",
}


def samples_frame(run_id: str, samples: Iterable[Sample]) -> pd.DataFrame:
    """One row per look and accelerator; one per look where the model is on none."""
    rows = [{"run_id": run_id, **row} for sample in samples for row in _rows(sample)]
    return pd.DataFrame(
        {name: pd.Series([row.get(name) for row in rows], dtype=dtype) for name, dtype in _DTYPES.items()}
    )


def _rows(sample: Sample) -> Iterator[dict[str, Any]]:
    load = sample.host_load
    host = {
        "model": sample.model,
        "launch": sample.launch,
        "at": datetime.fromtimestamp(sample.at, UTC),
        "host_rss_bytes": sample.host_rss_bytes,
        "own_load": load.own_s / load.wall_s if load.wall_s else None,
        "foreign_load": max(0.0, load.busy_s - load.own_s) / load.wall_s if load.wall_s else None,
    }
    devices: Sequence[DeviceSample | None] = sample.devices or (None,)
    for device in devices:
        yield host if device is None else {**host, **_device(device)}


def _device(device: DeviceSample) -> dict[str, Any]:
    state = asdict(device.state)
    throttle = None if device.state.throttle is None else list(device.state.throttle)
    return {**state, "device": device.device, "device_used_bytes": device.device_used_bytes, "throttle": throttle}


def sampler_note(launches: Sequence[Mapping[str, Any]]) -> str | None:
    """What a sampler did while turns were timed; None where none ran."""
    costs = [entry["sampler"] for entry in launches if entry.get("sampler")]
    looks = sum(cost["samples"] for cost in costs)
    if not looks:
        return None
    reached = [cost["reached_s"] for cost in costs if cost["reached_s"] is not None]
    rate = f" ({max(reached):.3g} s reached)" if reached else ""
    cpu_ms = 1000 * sum(cost["cpu_s"] for cost in costs) / looks
    return (
        f"A sampler looked at accelerators and host every {costs[0]['every_s']:g} s{rate} while turns were timed, "
        f"{looks} times, for {cpu_ms:.2g} ms of processor time each: read speed in a run without sample_devices_s."
    )
