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
    """One column: its name, its kind (which decides the pandas and the Arrow type), what it holds, in which unit, and
    in which turns it is absent."""

    name: str
    kind: Kind
    meaning: str
    absent: str = ""
    """Nothing: in none."""
    unit: str = ""


_UNPLAYED = "unplayed"
"""Turns of the states not_reached and missing: only the plan is known of them."""
_UNANSWERED = "unanswered"
"""Turns of any state but done."""
_ALONE = f"{_UNANSWERED}, on CPU only, at a concurrency above 1"
_PACED = f"{_UNANSWERED}, of fewer than 2 ids, whose first ids came together"
_BATCHED = f"{_UNANSWERED}, in a batch, where the roofline is not known"
_METRICS_ABSENT = {
    "ttft_visible_s": f"{_UNANSWERED}, without visible text",
    "ttft_answer_s": f"{_UNANSWERED}, without an answer",
    "tpot_s": _PACED,
    "decode_tokens_per_s": _PACED,
    "s_per_1k_gold_chars": f"{_PACED}, without a gold reply",
    "prefill_tokens_per_s": f"{_UNANSWERED}, where cached_tokens is unknown",
    "peak_memory_bytes": _ALONE,
    "reserved_memory_bytes": _ALONE,
    "device_used_bytes": _ALONE,
    "host_rss_bytes": f"{_UNANSWERED}, at a concurrency above 1",
    "kv_cache_bytes": f"{_UNANSWERED}, where the engine does not tell",
    "energy_j": f"{_ALONE}, without an energy counter",
    "energy_per_token_j": f"{_ALONE}, without an energy counter",
    "bandwidth_utilisation": f"{_BATCHED}, of fewer than 2 ids",
    "prefill_flop_utilisation": _BATCHED,
}
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
    Column("attempt", "count", "which try at the conversation this is; only the latest complete one counts",
           "of the state missing"),
    Column("history", "text", "generated, scripted or fill: whose replies feed on"),
    Column("length", "text", "natural, or fixed: exactly max_new_tokens"),
    Column("kv_cache", "text", "reuse or fresh"),
    Column("engine", "text", "who turned the crank"),
    Column("weights", "text", "saved, or random: then nothing of what was said means anything"),
    Column("concurrency", "count", "conversations replayed at the same time", unit="conversations"),
    Column("batch_size", "count", "conversations answered together with this turn, itself included",
           _UNPLAYED, unit="conversations"),
    Column("seed", "count", "seed of this turn", _UNPLAYED),
    Column("paired", "flag", "whether what was drawn at random follows from the seed alone; not so in a batch",
           _UNPLAYED),
    Column("started_at", "time", "wall clock at the start of the turn", _UNPLAYED, unit="UTC"),
    Column("user", "text", "what the user said, captured variables filled in", _UNPLAYED),
    Column("gold", "text", "the script's own reply", f"{_UNPLAYED}, without a gold reply"),
    Column("reply", "text", "the model's answer, without reasoning and stop strings, stripped",
           f"{_UNPLAYED}, failed before any text"),
    Column("reasoning", "text", "the reasoning block before the answer", f"{_UNPLAYED}, without a reasoning block"),
    Column("finish_reason", "text", "eos, stop, max_new_tokens, max_length, context or error", _UNPLAYED),
    Column("error", "text", "kind of the failure", "that did not fail"),
    Column("error_phase", "text", "phase of the turn it struck in", "that did not fail"),
    Column("error_message", "text", "what it said", "that did not fail"),
    Column("prompt_tokens", "count", "prompt ids after the chat template, history included",
           f"{_UNPLAYED}, failed before there was a prompt", unit="tokens"),
    Column("cached_tokens", "count", "prompt ids served from this conversation's KV cache; absent where unknown",
           f"{_UNPLAYED}, failed, where the engine does not tell", unit="tokens"),
    Column("completion_tokens", "count", "generated ids, an emitted EOS included",
           f"{_UNPLAYED}, failed", unit="tokens"),
    Column("tokens_left", "count", "ids the conversation could still have held after the reply",
           f"{_UNPLAYED}, failed, where there is no limit", unit="tokens"),
    Column("dropped_messages", "count", "messages left out of the prompt by on_overflow: drop_oldest",
           _UNPLAYED, unit="messages"),
    Column("prompt_hash", "text", "hash of the prompt ids: equal hashes, equal prompts",
           f"{_UNPLAYED}, failed before there was a prompt"),
    Column("checks_passed", "count", "checks the reply satisfied; absent where nothing was checked",
           f"{_UNPLAYED}, failed, without checks, from random weights", unit="checks"),
    Column("checks_total", "count", "checks that were made",
           f"{_UNPLAYED}, failed, without checks, from random weights", unit="checks"),
    Column("checks", "checks", "what each check said: check, passed, detail", _UNPLAYED),
    Column("notices", "texts", "what else there is to know about the turn", _UNPLAYED),
    Column("temperature_c", "count", "of the hottest of the model's accelerators after the turn",
           f"{_UNPLAYED}, without accelerators that tell, at a concurrency above 1", unit="°C"),
    Column("sm_clock_mhz", "count", "of the slowest of the model's accelerators after the turn",
           f"{_UNPLAYED}, without accelerators that tell, at a concurrency above 1", unit="MHz"),
    Column("throttle", "texts", "why clocks of the model's accelerators were held down, before or after the turn",
           f"{_UNPLAYED}, without accelerators, at a concurrency above 1"),
    Column("device_processes", "count", "processes on the accelerator of the model that has the most, this one "
           "included, before or after the turn",
           f"{_UNPLAYED}, without accelerators that tell, at a concurrency above 1", unit="processes"),
    Column("foreign_load", "real", "processors kept busy by other processes during the turn, on average; "
           "coarse for a short turn, even below 0", f"{_UNPLAYED}, where the system does not tell", unit="processors"),
    Column("repetition", "real", "share of the reply that it had said before, by the definition of "
           "`harness/conversations/repetition.py`; absent where replies are forced to a length, or come from random "
           "weights", f"{_UNANSWERED}, without a reply", unit="ratio"),
    Column("itl_s", "reals", "gaps between consecutive ids, in seconds; absent if ids arrived several at a time",
           f"{_UNANSWERED}, of fewer than 2 ids", unit="s"),
    *(Column(metric.name, "count" if metric.unit == "bytes" else "real", metric.definition,
             _METRICS_ABSENT.get(metric.name, _UNANSWERED), metric.unit)
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
