"""A stored run as pandas frames: one row per planned turn, whatever became of it.

    run = harness.load("results/2026…")
    run.turns        every planned turn exactly once, with its metrics
    run.warmup       the same columns for the turns that were not measured
    run.launches     what each worker process took to load
    run.samples      what the background sampler saw, where one ran

Rows that do not exist cannot be forgotten in an average, so turns that were not reached and turns that are still
missing have rows too; `state` tells them apart. Absent values are NA, never 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from harness.analysis.columns import COLUMNS, arrow_type, schema, series
from harness.analysis.derive import Context, columns
from harness.analysis.lines import each_batch
from harness.analysis.samples import samples_frame
from harness.analysis.selection import Axes, Slots, select
from harness.errors import StoreError
from harness.store import MANIFEST, read_manifest, read_samples, rooflines

PARQUET = "turns.parquet"
NIGHT = ".parquet"
"""How the name of a night file ends (`nights`)."""
_ROW_GROUP = 100_000
"""Rows that are converted at a time."""
_TOGETHER = 64
"""Batches that are copied together: the numbers of so many turns are large enough to be memory of their own."""

_LAUNCH_DTYPES = {
    "run_id": "string",
    "model": "string",
    "launch": "Int64",
    "load_s": "Float64",
    "import_s": "Float64",
    "weights_s": "Float64",
    "first_forward_s": "Float64",
    "compile_s": "Float64",
    "download_s": "Float64",
    "download_bytes": "Int64",
    "first_turn_s": "Float64",
    "threads": "Int64",
    "cpu_affinity": "object",
    "sampler": "object",
    "error": "string",
    "facts": "object",
    "notices": "object",
}


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Run:
    """A run, read and laid out; `turns`, `warmup` and `launches` are described in docs/file-formats.md."""

    path: Path
    manifest: Mapping[str, Any]
    turns: pd.DataFrame
    warmup: pd.DataFrame
    launches: pd.DataFrame
    superseded: int
    """Measured turns of attempts that never came to their end, or were played again; they count nowhere."""

    def __repr__(self) -> str:
        return f"<Run {self.run_id}: {len(self.turns)} turns in {self.path}>"

    @property
    def run_id(self) -> str:
        return str(self.manifest["run_id"])

    @property
    def begun(self) -> datetime:
        return datetime.fromisoformat(str(self.manifest["created_at"]))

    @property
    def plan(self) -> Mapping[str, Any]:
        """What was to be run, as the manifest holds it."""
        plan: Mapping[str, Any] = self.manifest["plan"]
        return plan

    @property
    def kept(self) -> bool:
        """Whether this was read from a night file (`nights`), so that there is nothing beside it to be read."""
        return self.path.suffix == NIGHT and not self.path.is_dir()

    @property
    def samples(self) -> pd.DataFrame:
        """What the background sampler saw, read when it is asked for; empty where there was none."""
        return samples_frame(self.run_id, () if self.kept else read_samples(self.path))


_Found = TypeVar("_Found")


def once_per_run(find: Callable[[Run], _Found]) -> Callable[[Run], _Found]:
    """`find`, which looks at a run only once: tables, notes and pages of a run ask for the same. For what nobody
    changes."""
    found: WeakKeyDictionary[Run, _Found] = WeakKeyDictionary()

    @wraps(find)
    def once(run: Run) -> _Found:
        if run not in found:
            found[run] = find(run)
        return found[run]

    return once


def load(path: str | Path) -> Run:
    """The run in a directory, or the run of that name under results/, complete or not; or the run in a night file.

    Raises StoreError where there is no run, or one this version cannot read.
    """
    path = Path(path)
    if path.suffix == NIGHT and not path.is_dir():
        from harness.analysis.nights import read_night

        return read_night(path)
    path = _directory(path)
    manifest = read_manifest(path)
    plan, run_id = manifest["plan"], str(manifest["run_id"])
    random = frozenset(spec["label"] for spec in plan["models"] if spec.get("weights") == "random")
    context = Context(run_id, rooflines(manifest), random)
    table = _gathered(each_batch(path, lambda batch: pa.RecordBatch.from_pydict(columns(batch, context), schema())))
    known = pa.array([conversation["id"] for conversation in plan["conversations"]], pa.string())
    strangers = set(pc.unique(table["conversation_id"]).to_pylist()) - set(known.to_pylist())
    if strangers:
        raise StoreError(str(path), f"has turns of {', '.join(sorted(strangers))}, which its plan does not know")
    warm = table.filter(pc.equal(table["phase"], "warmup"))
    launches = launches_frame(manifest, _first_turns(manifest, table))
    slots = select(table, plan)
    made_from = {name: table[name] for name in table.column_names}
    del table
    return Run(
        path=path,
        manifest=manifest,
        turns=_turns(made_from, slots, plan, run_id),
        warmup=pd.DataFrame({column.name: series(warm[column.name], column.kind) for column in COLUMNS}),
        launches=launches,
        superseded=slots.superseded,
    )


def load_many(paths: Iterable[str | Path]) -> list[Run]:
    """Several runs, in the order given. Raises StoreError as `load` does."""
    return [load(path) for path in paths]


def save_parquet(run: Run) -> Path:
    """Write `turns` beside the records it comes from, as turns.parquet, and return its path."""
    path = run.path / PARQUET
    # pandas would note types for the columns of lists that it cannot read back.
    lists = {column.name: "object" for column in COLUMNS if pa.types.is_nested(arrow_type(column.kind))}
    noted = pa.Schema.from_pandas(run.turns.head(0).astype(lists), preserve_index=False).metadata
    with pq.ParquetWriter(path, schema().with_metadata(noted), compression="zstd") as writer:
        for start in range(0, max(len(run.turns), 1), _ROW_GROUP):
            rows = run.turns.iloc[start : start + _ROW_GROUP]
            writer.write_table(pa.Table.from_pandas(rows, schema=schema(), preserve_index=False).cast(writer.schema))
    return path


def _directory(path: Path) -> Path:
    named = Path("results") / path
    return named if not (path / MANIFEST).exists() and (named / MANIFEST).exists() else path


def _gathered(batches: Iterator[pa.RecordBatch]) -> pa.Table:
    """The batches as one table, some of them at a time copied together: what is made of many small pieces of memory is
    not given back to the system when the table is taken apart."""
    parts = [schema().empty_table()]
    while some := list(islice(batches, _TOGETHER)):
        parts.append(pa.Table.from_batches(some).combine_chunks())
    return pa.concat_tables(parts)


def _turns(made_from: dict[str, pa.ChunkedArray], slots: Slots, plan: Mapping[str, Any], run_id: str) -> pd.DataFrame:
    """One row per slot. Columns are made one after the other, and what each is made from is let go of at once: a
    million turns are a gigabyte of them."""
    told = slots.row >= 0
    rows = pa.array(slots.row, mask=~told)
    axes = Axes.of(plan).columns(slots.cell)
    planned = _planned(slots, plan, run_id, axes["model"])
    made = {}
    # The largest first: while they are there twice, there is little else.
    for column in sorted(COLUMNS, key=lambda column: -made_from[column.name].nbytes):
        values = made_from.pop(column.name)
        if column.name in axes:
            values = pa.chunked_array([pc.cast(axes[column.name], arrow_type(column.kind))])
        else:
            values = (
                values.combine_chunks()
            )  # under its own name: the pieces are let go of before there is a third copy
            values = _taken(values, rows)
        if column.name in planned:
            values = pc.coalesce(values, pc.cast(planned[column.name], arrow_type(column.kind)))
        made[column.name] = series(values, column.kind)
        pa.default_memory_pool().release_unused()
    return pd.DataFrame({column.name: made[column.name] for column in COLUMNS}, copy=False)


def _taken(values: pa.Array, rows: pa.Array) -> pa.ChunkedArray:
    """The values at these rows, some at a time: lists are taken by way of a number for every element."""
    starts = range(0, len(rows), _ROW_GROUP)
    return pa.chunked_array([values.take(rows.slice(start, _ROW_GROUP)) for start in starts], values.type)


def _planned(slots: Slots, plan: Mapping[str, Any], run_id: str, model: pa.Array) -> dict[str, pa.Array]:
    """What is known of a turn that was never asked."""
    specs = {spec["label"]: spec for spec in plan["models"]}
    place = pc.index_in(model, value_set=pa.array(list(specs), pa.string()))
    never = slots.attempt < 0
    return {
        "run_id": pa.repeat(run_id, len(slots.cell)),
        "turn_index": pa.array(slots.turn_index),
        "state": pa.array(np.where(never, "missing", "not_reached")),
        "attempt": pa.array(slots.attempt, mask=never),
        "phase": pa.repeat("measure", len(slots.cell)),
        "history": pa.repeat(plan["history"], len(slots.cell)),
        "length": pa.repeat(plan["length"], len(slots.cell)),
        **{
            name: pa.array([spec.get(name) for spec in specs.values()], pa.string()).take(place)
            for name in ("kv_cache", "engine")
        },
        # The first versions knew no other weights.
        "weights": pa.array([spec.get("weights", "saved") for spec in specs.values()], pa.string()).take(place),
    }


def _first_turns(manifest: Mapping[str, Any], table: pa.Table) -> list[float | None]:
    """The end-to-end time of the first turn of every launch of the manifest; it is credited to its first entry."""
    turns = table.select(["model", "launch", "started_at", "e2e_s"]).to_pandas()
    began = turns.groupby(["model", "launch"])["started_at"].idxmin()
    first = {place: turns["e2e_s"].iloc[row] for place, row in began.items()}
    return [
        None if entry.get("failure") else first.pop((entry["model"], entry["launch"]), None)
        for entry in manifest["launches"]
    ]


def launches_frame(manifest: Mapping[str, Any], first_turns: Sequence[float | None]) -> pd.DataFrame:
    """One row per worker process that loaded or failed to, with the end-to-end time of its first turn in seconds."""
    rows = []
    for entry, took in zip(manifest["launches"], first_turns, strict=True):
        failure = entry.get("failure")
        rows.append(
            {
                **entry,
                "run_id": manifest["run_id"],
                "first_turn_s": took,
                "error": f"{failure['kind']}: {failure['message']}" if failure else None,
            }
        )
    return pd.DataFrame(
        {name: pd.Series([row.get(name) for row in rows], dtype=dtype) for name, dtype in _LAUNCH_DTYPES.items()}
    )
