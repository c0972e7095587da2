"""turns.jsonl as Arrow columns, parsed without an object per turn: a run may have a million of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json as pj

from harness.errors import StoreError
from harness.store import TURNS, current_lines, read

_BLOCK = 8 * 2**20
"""Bytes that are parsed at a time; a line must fit into it."""
_STRING, _INT, _REAL, _FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_STATE = pa.struct(
    [
        *((name, _INT) for name in ("sm_clock_mhz", "memory_clock_mhz", "temperature_c")),
        ("power_w", _REAL),
        ("throttle", pa.list_(_STRING)),
        ("processes", _INT),
    ]
)
_CELL = pa.struct(
    [
        *((name, _STRING) for name in ("model", "sampling", "conversation_id")),
        *((name, _INT) for name in ("repeat", "launch", "concurrency")),
    ]
)
SCHEMA = pa.schema(
    [
        (
            "circumstances",
            pa.struct(
                [
                    ("cell", _CELL),
                    *((name, _STRING) for name in ("history", "length", "engine", "kv_cache", "phase")),
                    ("attempt", _INT),
                ]
            ),
        ),
        *((name, _INT) for name in ("turn_index", "seed")),
        ("started_at", _REAL),
        *((name, _STRING) for name in ("user", "gold", "reply", "reasoning", "finish_reason")),
        ("failure", pa.struct([(name, _STRING) for name in ("kind", "phase", "message")])),
        *((name, _INT) for name in ("prompt_tokens", "cached_tokens", "completion_tokens", "tokens_left")),
        *((name, _INT) for name in ("visible_ids", "answer_ids", "gold_tokens", "dropped_messages")),
        ("prompt_hash", _STRING),
        (
            "stamps",
            pa.struct(
                [
                    *((name, _INT) for name in ("templated_ns", "tokenized_ns", "generated_ns", "ready_ns")),
                    *((name, pa.list_(_INT)) for name in ("tick_ns", "tick_ids")),
                ]
            ),
        ),
        (
            "memory",
            pa.struct(
                [(f"{name}_bytes", _INT) for name in ("peak_memory", "reserved_memory", "device_used", "host_rss")]
            ),
        ),
        ("kv_cache_bytes", _INT),
        (
            "devices",
            pa.list_(
                pa.struct(
                    [
                        ("device", _STRING),
                        *((f"{name}_bytes", _INT) for name in ("peak_memory", "reserved_memory", "device_used")),
                        ("energy_mj", _INT),
                        ("before", _STATE),
                        ("after", _STATE),
                    ]
                )
            ),
        ),
        ("host_load", pa.struct([(name, _REAL) for name in ("wall_s", "own_s", "busy_s")])),
        ("batch_size", _INT),
        ("paired", _FLAG),
        ("checks", pa.list_(pa.struct([("check", _STRING), ("passed", _FLAG), ("detail", _STRING)]))),
        ("notices", pa.list_(_STRING)),
    ]
)
"""What is read of a line: everything but the generated ids, which no report shows."""
_NEVER_NULL = ("turn_index", "seed", "started_at", "user", "batch_size")


def batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The records of a run, some thousand at a time; a torn last line is left out.

    Raises StoreError where a line is no record.
    """
    with current_lines(path) as lines:
        if not lines.read(1):  # Arrow refuses a file without a line
            return
    with current_lines(path) as lines:
        try:
            reader = pj.open_json(
                lines,
                read_options=pj.ReadOptions(block_size=_BLOCK),
                parse_options=pj.ParseOptions(explicit_schema=SCHEMA, unexpected_field_behavior="ignore"),
            )
            for batch in reader:
                if _has_holes(batch):
                    raise pa.ArrowInvalid("a field is missing")
                yield batch
        except pa.ArrowInvalid as error:
            read(path)  # says which line is wrong, and what
            fact = f"cannot be read: {error}"
            raise StoreError(str(path / TURNS), fact, "restore the file from a backup") from error


def _has_holes(batch: pa.RecordBatch) -> bool:
    """Whether a field that every record has is absent: Arrow takes a key that is not there for a null."""
    cell: Any = batch["circumstances"].field("cell")
    parts = [cell.field(index) for index in range(cell.type.num_fields)]
    return any(part.null_count for part in (*parts, *(batch[name] for name in _NEVER_NULL)))
