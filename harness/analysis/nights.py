"""A run as one small file: what a nightly history and a baseline are made of.

    keep(run, "results/history/2026….parquet")
    harness.load("results/history/2026….parquet")      the same run, as far as it was kept

A night file is the run's `turns` in Parquet without the gaps between ids, which are most of its size; in the metadata
of the schema is what belongs to the run as a whole. What is not kept is not there: the warm-up, generated ids, samples
of the background sampler, scores.

The metadata, each entry text in UTF-8:

    night_format   number of this format
    run_id         name of the run
    created_at     when it was begun, UTC, ISO 8601
    manifest       manifest.json, JSON
    launches       what `Run.launches` knows beyond the manifest, JSON: one entry per launch of it, with `first_turn_s`
    superseded     measured turns that count nowhere
    forced         the lines of forced.jsonl, JSON; there only where the run has any

Format history
    1   first format
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from harness.analysis.columns import COLUMNS, Column, arrow_type, series
from harness.analysis.frames import Run, launches_frame
from harness.errors import StoreError
from harness.records import READABLE
from harness.store import read_forced, replace_file

NIGHT_FORMAT = 1
_LEFT_OUT = ("itl_s",)
_SCHEMA = pa.schema([(column.name, arrow_type(column.kind)) for column in COLUMNS if column.name not in _LEFT_OUT])
_BROKEN = (OSError, pa.ArrowException, KeyError, TypeError, ValueError)
"""What reading a file that is no night file, or a damaged one, ends in."""


def keep(run: Run, path: str | Path) -> Path:
    """Write a night file, in one step, and return its path; a run that was read from one may be kept again.

    Raises StoreError where it cannot be written, or forced.jsonl cannot be read.
    """
    path = Path(path)
    firsts = [None if pd.isna(took) else float(took) for took in run.launches["first_turn_s"]]
    forced = forced_lines(run)
    told = {
        "night_format": str(NIGHT_FORMAT),
        "run_id": run.run_id,
        "created_at": str(run.manifest["created_at"]),
        "superseded": str(run.superseded),
        "manifest": _json(run.manifest),
        "launches": _json([{"first_turn_s": took} for took in firsts]),
        **({"forced": _json(forced)} if forced else {}),
    }
    sink = pa.BufferOutputStream()
    # Of so few rows statistics, and Arrow's own account of the schema, would take more room than the rows.
    with pq.ParquetWriter(
        sink, _SCHEMA, compression="zstd", write_page_checksum=True, write_statistics=False, store_schema=False
    ) as writer:
        writer.write_table(pa.Table.from_pandas(run.turns, schema=_SCHEMA, preserve_index=False))
        writer.add_key_value_metadata(told)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, sink.getvalue().to_pybytes())
    except OSError as error:
        raise StoreError(str(path), f"cannot be written: {error.strerror or error}", "choose another place") from error
    return path


def read_night(path: Path) -> Run:
    """The run in a night file. A column that the file has not is NA throughout; there are no warm-up turns.

    Raises StoreError where it is none, is damaged, or is of a format that this version cannot read.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            about = _about(path, file.metadata)
            table = file.read()
        manifest = orjson.loads(about["manifest"])
        if not isinstance(manifest, dict) or manifest.get("format") not in READABLE:
            raise _other_format(path)
        firsts = [entry["first_turn_s"] for entry in orjson.loads(about["launches"])]
        superseded = int(about["superseded"])
        turns = pd.DataFrame({column.name: series(_column(table, column), column.kind) for column in COLUMNS})
        launches = launches_frame(manifest, firsts)
    except _BROKEN as error:
        raise _damaged(path, error) from error
    return Run(path, manifest, turns, turns.iloc[:0], launches, superseded)


def forced_lines(run: Run) -> list[dict[str, Any]]:
    """What replies were likely to be, of a run and of a night alike: the lines of forced.jsonl, in their order; none
    where there was no such pass.

    Raises StoreError where they cannot be read.
    """
    if not run.kept:
        return read_forced(run.path)
    try:
        about = _about(run.path, pq.read_metadata(run.path))
        lines: list[dict[str, Any]] = orjson.loads(about.get("forced", "[]"))
    except _BROKEN as error:
        raise _damaged(run.path, error) from error
    return lines


def find_nights(folder: str | Path) -> list[Path]:
    """The night files in a folder, the one that was begun first first; none where there is no folder.

    Raises StoreError where one of them cannot be read: a night that is left out unnoticed is a gap in what is known.
    """
    begun = []
    for path in Path(folder).glob("*.parquet"):
        try:
            begun.append((_about(path, pq.read_metadata(path))["created_at"], path))
        except _BROKEN as error:
            raise _damaged(path, error) from error
    return [path for _, path in sorted(begun)]


def _about(path: Path, metadata: pq.FileMetaData) -> Mapping[str, str]:
    """What a night file says of its run. Raises StoreError where this is none, or one of another format."""
    about = {key.decode(): value.decode() for key, value in (metadata.metadata or {}).items()}
    number = about.get("night_format")
    if number is None:
        raise StoreError(str(path), "not a night file", "give one of results/history, or the directory of a run")
    if number != str(NIGHT_FORMAT):
        fact = f"night format {number}, this version reads {NIGHT_FORMAT}"
        raise StoreError(str(path), fact, "use a matching version")
    return about


def _column(table: pa.Table, column: Column) -> pa.ChunkedArray:
    kind = arrow_type(column.kind)
    if column.name not in table.column_names:
        return pa.chunked_array([pa.nulls(len(table), kind)])
    return table[column.name].cast(kind)


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS, default=str).decode()


def _other_format(path: Path) -> StoreError:
    return StoreError(str(path), "holds a run of a format that this version cannot read", "use a matching version")


def _damaged(path: Path, error: Exception) -> StoreError:
    return StoreError(str(path), f"cannot be read: {' '.join(str(error).split())}", "restore it, or remove it")
