"""turns.jsonl as Arrow columns, parsed without an object per turn: a run may have a million of them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.json as pj

from harness.errors import StoreError
from harness.store import TURNS, blocks, read

_BLOCK = 4 * 2**20
"""Bytes that are parsed at a time, give or take a line. Of more the system takes the memory back after each."""
_THREADS = min(4, os.cpu_count() or 1)
"""Two thirds of the work are done without the interpreter's lock; more threads than this would wait for the rest."""
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
"""What is read of a line: everything but the generated ids, which hardly a report looks at."""
_NEVER_NULL = ("turn_index", "seed", "started_at", "user", "batch_size")
IDS = pa.schema([*(SCHEMA.field(name) for name in ("circumstances", *_NEVER_NULL)), ("completion_ids", pa.list_(_INT))])
"""The generated ids, and what tells whose they are."""


_Made = TypeVar("_Made")


def each_batch(path: Path, make: Callable[[pa.RecordBatch], _Made], wanted: pa.Schema = SCHEMA) -> Iterator[_Made]:
    """What `make` makes of the records of a run – of the `wanted` fields –, some thousand at a time, in their order; a
    torn last line is left out.

    Several batches are parsed and made at once, each in a thread. Raises StoreError where a line is no record.
    """
    with ThreadPoolExecutor(_THREADS) as threads:
        under_way: deque[Future[_Made]] = deque()
        try:
            for block in blocks(path, _BLOCK):
                under_way.append(threads.submit(lambda text: make(_parsed(text, wanted)), block))
                if len(under_way) > _THREADS:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        except pa.ArrowInvalid as error:
            read(path)  # says which line is wrong, and what
            fact = f"cannot be read: {error}"
            raise StoreError(str(path / TURNS), fact, "restore the file from a backup") from error


def _parsed(text: bytes, wanted: pa.Schema) -> pa.RecordBatch:
    """Raises ArrowInvalid where a line is no record."""
    table = pj.read_json(
        pa.BufferReader(text),
        read_options=pj.ReadOptions(use_threads=False, block_size=len(text)),
        parse_options=pj.ParseOptions(explicit_schema=wanted, unexpected_field_behavior="ignore"),
    )
    (batch,) = table.to_batches()
    if _has_holes(batch):
        raise pa.ArrowInvalid("a field is missing")
    return batch


def _has_holes(batch: pa.RecordBatch) -> bool:
    """Whether a field that every record has is absent: Arrow takes a key that is not there for a null."""
    cell: Any = batch["circumstances"].field("cell")
    parts = [cell.field(index) for index in range(cell.type.num_fields)]
    return any(part.null_count for part in (*parts, *(batch[name] for name in _NEVER_NULL)))
