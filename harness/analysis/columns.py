"""The columns of `Run.turns`: name, type, meaning. Frames, turns.parquet and docs/file-formats.md follow this table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import pyarrow as pa

from harness.metrics import METRICS

Kind = Literal["text", "count", "real", "flag", "time", "reals", "texts", "checks"]

_CHECK = pa.struct([("check", pa.string()), ("passed", pa.bool_()), ("detail", pa.string())])
_ARROW: dict[Kind, pa.DataType] = {
    "text": pa.large_string(),  # a million replies may be more than the two gigabytes of a string array
    "count": pa.int64(),
    "real": pa.float64(),
    "flag": pa.bool_(),
    "time": pa.timestamp("us", tz="UTC"),
    "reals": pa.list_(pa.float64()),
    "texts": pa.list_(pa.string()),
    "checks": pa.list_(_CHECK),
}
_PANDAS: dict[Kind, Any] = {
    "text": pd.StringDtype(),
    "count": pd.Int64Dtype(),
    "real": pd.Float64Dtype(),
    "flag": pd.BooleanDtype(),
    "time": pd.DatetimeTZDtype("us", "UTC"),
}
"""Lists stay in Arrow: their elements become Python's lists when they are looked at."""


def arrow_type(kind: Kind) -> pa.DataType:
    """The type a column of this kind has in Arrow, and in turns.parquet."""
    return _ARROW[kind]


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name, its kind (which decides the pandas and the Arrow type), what it holds."""

    name: str
    kind: Kind
    meaning: str


COLUMNS: tuple[Column, ...] = (
    Column("run_id", "text", "name of the run"),
    Column("model", "text", "label of the model spec"),
    Column("sampling", "text", "name of the sampling"),
    Column("conversation_id", "text", "id of the conversation"),
    Column("turn_index", "count", "position of the turn in its conversation, from 0"),
    Column("repeat", "count", "which repeat of the cell within a launch, from 0"),
    Column("launch", "count", "which fresh process of the model, from 0"),
    Column("state", "text", "done, failed, not_reached (an earlier turn failed or ended the conversation), "
           "or missing (the conversation was not played to its end yet)"),
    Column("phase", "text", "measure, or warmup in `Run.warmup`"),
    Column("attempt", "count", "which try at the conversation this is; only the latest complete one counts"),
    Column("history", "text", "generated, scripted or fill: whose replies feed on"),
    Column("length", "text", "natural, or fixed: exactly max_new_tokens"),
    Column("kv_cache", "text", "reuse or fresh"),
    Column("engine", "text", "who turned the crank"),
    Column("weights", "text", "saved, or random: then nothing of what was said means anything"),
    Column("concurrency", "count", "conversations replayed at the same time"),
    Column("batch_size", "count", "conversations answered together with this turn, itself included"),
    Column("seed", "count", "seed of this turn"),
    Column("paired", "flag", "whether what was drawn at random follows from the seed alone; not so in a batch"),
    Column("started_at", "time", "wall clock at the start of the turn"),
    Column("user", "text", "what the user said, captured variables filled in"),
    Column("gold", "text", "the script's own reply"),
    Column("reply", "text", "the model's answer, without reasoning and stop strings, stripped"),
    Column("reasoning", "text", "the reasoning block before the answer"),
    Column("finish_reason", "text", "eos, stop, max_new_tokens, max_length, context or error"),
    Column("error", "text", "kind of the failure"),
    Column("error_phase", "text", "phase of the turn it struck in"),
    Column("error_message", "text", "what it said"),
    Column("prompt_tokens", "count", "prompt ids after the chat template, history included"),
    Column("cached_tokens", "count", "prompt ids served from this conversation's KV cache; absent where unknown"),
    Column("completion_tokens", "count", "generated ids, an emitted EOS included"),
    Column("tokens_left", "count", "ids the conversation could still have held after the reply"),
    Column("dropped_messages", "count", "messages left out of the prompt by on_overflow: drop_oldest"),
    Column("prompt_hash", "text", "hash of the prompt ids: equal hashes, equal prompts"),
    Column("checks_passed", "count", "checks the reply satisfied; absent where nothing was checked"),
    Column("checks_total", "count", "checks that were made"),
    Column("checks", "checks", "what each check said: check, passed, detail"),
    Column("notices", "texts", "what else there is to know about the turn"),
    Column("temperature_c", "count", "of the hottest of the model's accelerators after the turn"),
    Column("sm_clock_mhz", "count", "of the slowest of the model's accelerators after the turn"),
    Column("throttle", "texts", "why clocks of the model's accelerators were held down, before or after the turn"),
    Column("device_processes", "count", "processes on the accelerator of the model that has the most, this one "
           "included, before or after the turn"),
    Column("foreign_load", "real", "processors kept busy by other processes during the turn, on average; "
           "coarse for a short turn, even below 0"),
    Column("repetition", "real", "share of the reply that it had said before, by the definition of "
           "`harness/conversations/repetition.py`; absent where replies are forced to a length, or come from random "
           "weights"),
    Column("itl_s", "reals", "gaps between consecutive ids, in seconds; absent if ids arrived several at a time"),
    *(Column(metric.name, "count" if metric.unit == "bytes" else "real", metric.definition)
      for metric in METRICS.values()),
)  # fmt: skip


def series(values: pa.ChunkedArray, kind: Kind) -> pd.Series[Any]:
    """A column as pandas has it; what is absent is NA."""
    dtype = _PANDAS.get(kind) or pd.ArrowDtype(arrow_type(kind))
    made: pd.Series[Any] = values.to_pandas(types_mapper={arrow_type(kind): dtype}.get)
    return made.astype(dtype)


def schema() -> pa.Schema:
    """The Arrow schema of turns.parquet: the same columns, so that a column without a value keeps its type."""
    return pa.schema([(column.name, arrow_type(column.kind)) for column in COLUMNS])
