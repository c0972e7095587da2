"""A stored run as pandas frames: one row per planned turn, whatever became of it.

    run = harness.load("results/2026…")
    run.turns        every planned turn exactly once, with its metrics
    run.warmup       the same columns for the turns that were not measured
    run.launches     what each worker process took to load
    run.samples      what the background sampler saw, where one ran

Rows that do not exist cannot be forgotten in an average, so turns that were not reached and turns that are still
missing have rows too; `state` tells them apart. Absent values are NA (None in columns of lists), never 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from harness.analysis.columns import frame, schema
from harness.analysis.samples import samples_frame
from harness.errors import StoreError
from harness.metrics import METRICS, itl_s
from harness.records import Cell, HostLoad, TurnRecord
from harness.store import MANIFEST, StoredRun, read, read_samples, settled

PARQUET = "turns.parquet"

_LAUNCH_DTYPES = {
    "run_id": "string",
    "model": "string",
    "launch": "Int64",
    "load_s": "Float64",
    "import_s": "Float64",
    "weights_s": "Float64",
    "first_forward_s": "Float64",
    "compile_s": "Float64",
    "first_turn_s": "Float64",
    "threads": "Int64",
    "cpu_affinity": "object",
    "sampler": "object",
    "error": "string",
    "facts": "object",
    "notices": "object",
}


@dataclass(frozen=True, slots=True)
class Run:
    """A run, read and laid out; `turns`, `warmup` and `launches` are described in docs/file-formats.md."""

    path: Path
    manifest: Mapping[str, Any]
    turns: pd.DataFrame
    warmup: pd.DataFrame
    launches: pd.DataFrame
    superseded: int
    """Measured turns of attempts that never came to their end, or were played again; they count nowhere."""

    @property
    def run_id(self) -> str:
        return str(self.manifest["run_id"])

    @property
    def plan(self) -> Mapping[str, Any]:
        """What was to be run, as the manifest holds it."""
        plan: Mapping[str, Any] = self.manifest["plan"]
        return plan

    @property
    def samples(self) -> pd.DataFrame:
        """What the background sampler saw, read when it is asked for; empty where there was none."""
        return samples_frame(self.run_id, read_samples(self.path))


def load(path: str | Path) -> Run:
    """The run in a directory, or the run of that name under results/, complete or not.

    Raises StoreError where there is no run, or one this version cannot read.
    """
    stored = read(_directory(Path(path)))
    plan = stored.manifest["plan"]
    planned = {conversation["id"]: list(conversation["turns"]) for conversation in plan["conversations"]}
    strangers = {r.circumstances.cell.conversation_id for r in stored.records} - set(planned)
    if strangers:
        raise StoreError(str(stored.path), f"has turns of {', '.join(sorted(strangers))}, which its plan does not know")
    counting = settled(stored.records, planned, plan["on_overflow"])
    measured = sum(record.circumstances.phase == "measure" for record in stored.records)
    rows = [row for cell in _cells(plan) for row in _rows(stored, cell, counting.get(cell), planned)]
    return Run(
        path=stored.path,
        manifest=stored.manifest,
        turns=frame(rows),
        warmup=frame([_row(stored, r) for r in stored.records if r.circumstances.phase == "warmup"]),
        launches=_launches(stored),
        superseded=measured - sum(map(len, counting.values())),
    )


def load_many(paths: Iterable[str | Path]) -> list[Run]:
    """Several runs, in the order given. Raises StoreError as `load` does."""
    return [load(path) for path in paths]


def save_parquet(run: Run) -> Path:
    """Write `turns` beside the records it comes from, as turns.parquet, and return its path."""
    path = run.path / PARQUET
    table = pa.Table.from_pandas(run.turns, schema=schema(), preserve_index=False)
    pq.write_table(table, path, compression="zstd")
    return path


def _directory(path: Path) -> Path:
    named = Path("results") / path
    return named if not (path / MANIFEST).exists() and (named / MANIFEST).exists() else path


def _cells(plan: Mapping[str, Any]) -> Iterable[Cell]:
    """Every cell of the plan, in the order reports list them."""
    return (
        Cell(model["label"], sampling["name"], conversation["id"], repeat, launch, concurrency)
        for model, sampling, concurrency, conversation, launch, repeat in product(
            plan["models"],
            plan["samplings"],
            plan.get("concurrency", [1]),  # format 1 knew no other
            plan["conversations"],
            range(plan["launches"]),
            range(plan["repeats"]),
        )
    )


def _rows(
    stored: StoredRun, cell: Cell, turns: Sequence[TurnRecord] | None, planned: Mapping[str, Sequence[int]]
) -> list[dict[str, Any]]:
    """One row per planned turn of a cell; `turns` are those that count, None if the cell is not complete."""
    told = {record.turn_index: record for record in turns or ()}
    absent = {**_planned_row(stored, cell), "state": "missing"}
    if turns is not None:
        absent |= {"state": "not_reached", "attempt": turns[-1].circumstances.attempt}
    return [
        _row(stored, told[index]) if index in told else {**absent, "turn_index": index}
        for index in planned[cell.conversation_id]
    ]


def _planned_row(stored: StoredRun, cell: Cell) -> dict[str, Any]:
    """What is known of a turn that was never asked."""
    plan = stored.manifest["plan"]
    spec = next(model for model in plan["models"] if model["label"] == cell.model)
    return {
        "run_id": stored.run_id,
        **asdict(cell),
        "phase": "measure",
        "history": plan["history"],
        "length": plan["length"],
        "kv_cache": spec.get("kv_cache"),
        "engine": spec.get("engine"),
    }


def _row(stored: StoredRun, record: TurnRecord) -> dict[str, Any]:
    circumstances, failure, checks = record.circumstances, record.failure, record.checks
    roofline = stored.rooflines.get((circumstances.cell.model, circumstances.cell.launch))
    return {
        "run_id": stored.run_id,
        **asdict(circumstances.cell),
        "turn_index": record.turn_index,
        "state": "done" if failure is None else "failed",
        **{name: getattr(circumstances, name) for name in ("phase", "attempt", "history", "length", "kv_cache")},
        "engine": circumstances.engine,
        **{name: getattr(record, name) for name in _AS_RECORDED},
        "error": failure.kind if failure else None,
        "error_phase": failure.phase if failure else None,
        "error_message": failure.message if failure else None,
        "checks_passed": sum(check.passed for check in checks) if checks else None,
        "checks_total": len(checks) if checks else None,
        "checks": [asdict(check) for check in checks],
        "notices": list(record.notices),
        "itl_s": itl_s(record),
        **_device_columns(record),
        "foreign_load": _foreign_load(record.host_load),
        **{name: metric.formula(record, roofline) for name, metric in METRICS.items()},
    }


def _device_columns(record: TurnRecord) -> dict[str, Any]:
    after = [device.after for device in record.devices]
    reasons = [
        reason
        for device in record.devices
        for state in (device.before, device.after)
        for reason in state.throttle or ()
    ]
    return {
        "temperature_c": max((state.temperature_c for state in after if state.temperature_c is not None), default=None),
        "sm_clock_mhz": min((state.sm_clock_mhz for state in after if state.sm_clock_mhz is not None), default=None),
        "throttle": list(dict.fromkeys(reasons)) if record.devices else None,
    }


def _foreign_load(load: HostLoad | None) -> float | None:
    """How many processors other processes kept busy, on average over the turn."""
    return None if load is None or load.wall_s <= 0 else max(0.0, load.busy_s - load.own_s) / load.wall_s


_AS_RECORDED = (
    "seed",
    "started_at",
    "user",
    "gold",
    "reply",
    "reasoning",
    "finish_reason",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "tokens_left",
    "dropped_messages",
    "prompt_hash",
    "batch_size",
    "paired",
)


def _launches(stored: StoredRun) -> pd.DataFrame:
    """One row per worker process that loaded or failed to; the first turn of a launch is credited to its first one."""
    first: dict[tuple[str, int], TurnRecord] = {}
    for record in sorted(stored.records, key=lambda record: record.started_at):
        cell = record.circumstances.cell
        first.setdefault((cell.model, cell.launch), record)
    rows = []
    for entry in stored.manifest["launches"]:
        failure = entry.get("failure")
        turn = None if failure else first.pop((entry["model"], entry["launch"]), None)
        rows.append(
            {
                **entry,
                "run_id": stored.run_id,
                "first_turn_s": METRICS["e2e_s"].formula(turn) if turn else None,
                "error": f"{failure['kind']}: {failure['message']}" if failure else None,
            }
        )
    return pd.DataFrame(
        {name: pd.Series([row.get(name) for row in rows], dtype=dtype) for name, dtype in _LAUNCH_DTYPES.items()}
    )
