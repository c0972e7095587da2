"""Nights that nobody measured: a history to show what `harness trend` does with one, for tests and for docs/trend.md.

    python -m tests.simulated_nights results/history

Every number is drawn at random, the machine is called a simulated one, and each night says so in its warnings. There
are forty nights of one config on one device. From the 26th on a new driver makes every token 6 % dearer; on the 16th a
new transformers takes 96 MiB more memory; and the 33rd, on which half of the turns failed, changes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

import harness
from harness.analysis.frames import Run
from harness.analysis.nights import keep
from tests.builders import checks, every_turn, plan, store, turn

NIGHTS = 40
SLOWER_FROM, LARGER_FROM, BROKEN = 25, 15, 32
"""Counted from 0."""
DEVICE = "Simulated GPU"
RULES = {
    "ttft_s": "+8%",
    "tpot_s": "+5%",
    "decode_tokens_per_s.p50": "-5%",
    "peak_memory_bytes.max": "+256MiB",
    "checks": "exact",
    "failures": 0,
}
_BEGAN = datetime(2026, 1, 5, 3, 0, tzinfo=UTC)


def simulated(nights: int = NIGHTS, seed: int = 1, **values: Any) -> Iterator[Run]:
    """The nights, oldest first; `values` replace values of their manifests."""
    of = plan(models=["pico", "nano"], conversations={"physics": 3, "memory": 3}, launches=3, length="natural")
    with TemporaryDirectory() as folder:
        records = every_turn(of, lambda at, index: turn(at, index, checks=checks(True)))
        template = harness.load(store(Path(folder), records, of))
    random = np.random.default_rng(seed)
    for night in range(nights):
        yield _night(template, night, random, values)


def _night(template: Run, night: int, random: np.random.Generator, values: dict[str, Any]) -> Run:
    turns = template.turns.copy()
    launch = turns.groupby(["model", "launch"]).ngroup().to_numpy()
    size = np.where(turns["model"] == "nano", 2.0, 1.0) * (1 + 0.2 * turns["turn_index"].to_numpy(dtype=float))

    def drawn(typical: np.ndarray | float, night_sd: float, launch_sd: float, turn_sd: float) -> np.ndarray:
        noise = random.normal(0, night_sd) + random.normal(0, launch_sd, 6)[launch]
        return typical * np.exp(noise + random.normal(0, turn_sd, len(turns)))

    ttft = drawn(0.03 * size, 0.012, 0.01, 0.03)
    tpot = drawn(0.010 * size * (1.06 if night >= SLOWER_FROM else 1), 0.008, 0.006, 0.01)
    memory = 2**30 * size + 96 * 2**20 * (night >= LARGER_FROM)
    measured = {
        "ttft_s": ttft,
        "tpot_s": tpot,
        "decode_tokens_per_s": 1 / tpot,
        "e2e_s": ttft + 20 * tpot,
        "peak_memory_bytes": pd.array(memory.astype(int), dtype="Int64"),
    }
    for name, column in measured.items():
        turns[name] = pd.array(column, dtype=turns[name].dtype)
    if night == BROKEN:
        failed = turns["turn_index"] > 0
        turns.loc[failed, "state"] = "failed"
        turns.loc[failed, [*measured, "checks_passed", "checks_total"]] = pd.NA
    run_id = f"night-{night + 1:03}"
    turns["run_id"] = pd.array([run_id] * len(turns), dtype=turns["run_id"].dtype)
    began = _BEGAN + timedelta(days=night)
    return replace(template, manifest={**_manifest(template, night, run_id, began), **values}, turns=turns)


def _manifest(template: Run, night: int, run_id: str, began: datetime) -> dict[str, Any]:
    environment = template.manifest["environment"]
    return {
        **template.manifest,
        "run_id": run_id,
        "created_at": began.isoformat(),
        "finished_at": (began + timedelta(minutes=20)).isoformat(),
        "command": ["harness", "nightly", "configs/nightly.yaml"],
        "config_name": "nightly",
        "config": {"gate": {"rules": RULES}},
        "warnings": ["Simulated: no model ran, every number was drawn at random."],
        "environment": {
            **environment,
            "host": "simulated",
            "gpus": [{"name": DEVICE}],
            "gpu_driver": "580.2" if night >= SLOWER_FROM else "575.1",
            "libraries": {"torch": "2.11.0", "transformers": "5.18.0" if night >= LARGER_FROM else "5.17.0"},
            "git_commit": f"{night // 7 + 1:040x}",
        },
    }


def write_nights(folder: Path, nights: int = NIGHTS, seed: int = 1, **values: Any) -> Path:
    """Keep the nights in a folder, and return it."""
    for run in simulated(nights, seed, **values):
        keep(run, folder / f"{run.run_id}.parquet")
    return folder


if __name__ == "__main__":
    print(write_nights(Path(sys.argv[1])))  # noqa: T201
