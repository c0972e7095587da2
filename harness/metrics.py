"""The one table of metrics: name, title, unit, direction, formula.

Reports, comparisons, gates and the documentation read this table; nothing else defines a metric. Formulas are written
once and work on any number of turns: they take the `Quantities` of the turns, arrays with one entry per turn in which
what is absent is NaN, and what comes of an absent thing is absent again – fewer than two ids have no gap between them,
a failed turn has no speed. `Metric.formula` is the same for a single record.

Three stamps decide everything: the start of the turn (before templating), the first id on the host, and the reply's
text. `ttft_s` and `e2e_s` are measured from the start; the five phases lie end to end and add up to `e2e_s`.
`prefill_s` ends with the first id, so it holds the first forward, the first sample and one device synchronisation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from harness.records import Roofline, TurnRecord

Direction = Literal["lower", "higher", "neither"]
Numbers: TypeAlias = npt.NDArray[np.float64]

NS = 1e9
NAN = math.nan


@dataclass(frozen=True, slots=True)
class Quantities:
    """The raw numbers that formulas are made of: one entry per turn, NaN where a turn has none or has failed.

    Nanoseconds, counts and bytes stay below 2^53 and are exact as floating-point numbers.
    """

    templated_ns: Numbers
    tokenized_ns: Numbers
    generated_ns: Numbers
    ready_ns: Numbers
    first_ns: Numbers
    """Of the first arrival of ids."""
    last_ns: Numbers
    arrivals: Numbers
    first_ids: Numbers
    """How many ids the first arrival held."""
    ids: Numbers
    """In all arrivals."""
    visible_ns: Numbers
    """Arrival of the id that made the first text visible."""
    answer_ns: Numbers
    prompt_tokens: Numbers
    cached_tokens: Numbers
    completion_tokens: Numbers
    gold_tokens: Numbers
    gold_chars: Numbers
    peak_memory_bytes: Numbers
    reserved_memory_bytes: Numbers
    device_used_bytes: Numbers
    host_rss_bytes: Numbers
    kv_cache_bytes: Numbers
    energy_mj: Numbers
    batch_size: Numbers
    weight_bytes_per_token: Numbers
    kv_bytes_per_token: Numbers
    flops_per_token: Numbers
    attention_flops_per_token_pair: Numbers
    copy_bytes_per_s: Numbers
    matrix_flops_per_s: Numbers
    head_flops_per_token: Numbers
    window_tokens: Numbers
    windowed_kv_bytes_per_token: Numbers
    windowed_attention_flops_per_token_pair: Numbers


def quantities(record: TurnRecord, roofline: Roofline | None = None) -> Quantities:
    """The quantities of one record; `roofline` is that of the launch it was played in."""
    names = [field.name for field in fields(Quantities)]
    if record.failure is not None:
        return Quantities(*(np.array([NAN]) for _ in names))
    at, sizes, memory = record.stamps.tick_ns, record.stamps.tick_ids, record.memory
    spent = [device.energy_mj for device in record.devices]
    known: dict[str, float | None] = {
        **{name: getattr(record.stamps, name) for name in _STAMPS},
        "first_ns": at[0] if at else None,
        "last_ns": at[-1] if at else None,
        "arrivals": len(at),
        "first_ids": None if not at else 1 if sizes is None else sizes[0],
        "ids": len(at) if sizes is None else sum(sizes),
        "visible_ns": arrival_ns(at, sizes, record.visible_ids),
        "answer_ns": arrival_ns(at, sizes, record.answer_ids),
        "gold_chars": len(record.gold) if record.gold else None,
        "energy_mj": sum(mj for mj in spent if mj is not None) if spent and None not in spent else None,
        **{name: getattr(record, name) for name in _COUNTS},
        **{name: getattr(memory, name) for name in _MEMORY},
        **{name: getattr(roofline, name) for name in _CEILINGS if roofline is not None},
    }
    return Quantities(*(np.array([known.get(name)], dtype=np.float64) for name in names))


_STAMPS = ("templated_ns", "tokenized_ns", "generated_ns", "ready_ns")
_COUNTS = ("prompt_tokens", "cached_tokens", "completion_tokens", "gold_tokens", "kv_cache_bytes", "batch_size")
_MEMORY = ("peak_memory_bytes", "reserved_memory_bytes", "device_used_bytes", "host_rss_bytes")
_CEILINGS = (
    "weight_bytes_per_token",
    "kv_bytes_per_token",
    "flops_per_token",
    "attention_flops_per_token_pair",
    "copy_bytes_per_s",
    "matrix_flops_per_s",
    "head_flops_per_token",
    "window_tokens",
    "windowed_kv_bytes_per_token",
    "windowed_attention_flops_per_token_pair",
)


def arrival_ns(at: tuple[int, ...], sizes: tuple[int, ...] | None, ids: int | None) -> int | None:
    """When the `ids`-th generated id arrived (1-based)."""
    if ids is None:
        return None
    arrived = 0
    for ns, count in zip(at, sizes or (1,) * len(at), strict=True):
        arrived += count
        if arrived >= ids:
            return ns
    return None


def itl_s(record: TurnRecord) -> list[float] | None:
    """The n-1 gaps between consecutive ids, in seconds; None for a failed turn, below two ids, or if ids arrived
    several at a time (then a gap between arrivals is not a gap between ids)."""
    stamps = record.stamps
    if record.failure is not None or len(stamps.tick_ns) < 2 or stamps.tick_ids is not None:
        return None
    return [(later - earlier) / NS for earlier, later in pairwise(stamps.tick_ns)]


@dataclass(frozen=True, slots=True)
class Metric:
    """A quantity of one turn: column name, human title, unit, which way is better, and its formula."""

    name: str
    title: str
    unit: str
    direction: Direction
    definition: str
    over: Callable[[Quantities], Numbers]
    """The formula, over any number of turns at once."""

    def formula(self, record: TurnRecord, roofline: Roofline | None = None) -> float | None:
        """The value for one turn; None where there is none."""
        value = float(self.over(quantities(record, roofline))[0])
        return None if math.isnan(value) else value


def _ratio(value: Numbers, over: Numbers) -> Numbers:
    """Absent where either is absent or not above 0: no rate comes of nothing, or of no time."""
    sound = (value > 0) & (over > 0)
    return np.divide(value, over, out=np.full_like(value, NAN), where=sound)


def _seconds(start_ns: Numbers, end_ns: Numbers) -> Numbers:
    return (end_ns - start_ns) / NS


def _e2e_s(q: Quantities) -> Numbers:
    return q.ready_ns / NS


def _prefill_s(q: Quantities) -> Numbers:
    return _seconds(q.tokenized_ns, q.first_ns)


def _tpot_s(q: Quantities) -> Numbers:
    # The first arrival must be one id: with several, the time the first of them took is not known.
    sound = (q.arrivals >= 2) & (q.first_ids == 1)
    return np.divide(_seconds(q.first_ns, q.last_ns), q.ids - 1, out=np.full_like(q.ids, NAN), where=sound)


def _decode_tokens_per_s(q: Quantities) -> Numbers:
    tpot = _tpot_s(q)
    return _ratio(np.ones_like(tpot), tpot)


def _s_per_1k_gold_chars(q: Quantities) -> Numbers:
    return 1000 * _tpot_s(q) * q.gold_tokens / q.gold_chars


def _bandwidth_utilisation(q: Quantities) -> Numbers:
    """Bytes a decoded token has to read, times tokens per second, over the measured bandwidth of a copy.

    While a token is decoded every weight is read once, and the cache up to the token's own position: on average the
    prompt and half of the reply, where a layer's window reaches so far. Several conversations at a time share the
    reading of the weights, and several ids per arrival come out of one: there is no such figure for them.
    """
    context = q.prompt_tokens + q.ids / 2
    touched = q.weight_bytes_per_token + context * q.kv_bytes_per_token
    touched -= _beyond_window(context, q) * q.windowed_kv_bytes_per_token
    alone = (q.batch_size == 1) & (q.arrivals == q.ids)
    return np.where(alone, _ratio(touched * _decode_tokens_per_s(q), q.copy_bytes_per_s), NAN)


def _prefill_flop_utilisation(q: Quantities) -> Numbers:
    """Floating-point operations of the prefill over its time, over the measured rate of a matrix product.

    Each of the n new prompt ids goes through every weight but the output head's, which only the last one needs, and
    looks at the cached ids and on average at half of the new ones, itself among them; in a layer with a window at no
    more ids than that holds.
    """
    flops = (q.prompt_tokens - q.cached_tokens) * (q.flops_per_token - q.head_flops_per_token)
    flops += q.head_flops_per_token
    flops += _pairs(q.cached_tokens, q.prompt_tokens) * q.attention_flops_per_token_pair
    # What an id at position p does not see of the p ids up to itself, p - window, adds up in the same way.
    unseen = _pairs(_beyond_window(q.cached_tokens, q), _beyond_window(q.prompt_tokens, q))
    flops -= unseen * q.windowed_attention_flops_per_token_pair
    return np.where(q.batch_size == 1, _ratio(_ratio(flops, _prefill_s(q)), q.matrix_flops_per_s), NAN)


def _beyond_window(tokens: Numbers, q: Quantities) -> Numbers:
    """How many of so many tokens a layer with a window leaves out."""
    return np.maximum(tokens - np.nan_to_num(q.window_tokens, nan=math.inf), 0.0)


def _pairs(first: Numbers, last: Numbers) -> Numbers:
    """first + 1, first + 2 … last, added up: how many ids those at these positions look at, themselves included."""
    return (last * (last + 1) - first * (first + 1)) / 2


_TABLE: tuple[Metric, ...] = (
    Metric("ttft_s", "Time to first token", "s", "lower",
           "first id on the host − start of the turn (before templating)", lambda q: q.first_ns / NS),
    Metric("ttft_visible_s", "Time to first visible text", "s", "lower",
           "arrival of the first id that yields visible text − start of the turn", lambda q: q.visible_ns / NS),
    Metric("ttft_answer_s", "Time to first text of the answer", "s", "lower",
           "arrival of the first id of the answer after a reasoning block − start of the turn",
           lambda q: q.answer_ns / NS),
    Metric("template_s", "Templating", "s", "lower", "rendering the messages to text", lambda q: q.templated_ns / NS),
    Metric("tokenize_s", "Tokenising", "s", "lower", "text to prompt ids",
           lambda q: _seconds(q.templated_ns, q.tokenized_ns)),
    Metric("prefill_s", "Prefill", "s", "lower",
           "prompt ids ready → first id on the host: cache check, first forward, first sample, one sync", _prefill_s),
    Metric("decode_s", "Decode", "s", "lower", "first id → the engine has returned",
           lambda q: _seconds(q.first_ns, q.generated_ns)),
    Metric("detokenize_s", "Detokenising", "s", "lower", "engine returned → reply text ready",
           lambda q: _seconds(q.generated_ns, q.ready_ns)),
    Metric("e2e_s", "End to end", "s", "lower", "reply text ready − start of the turn", _e2e_s),
    Metric("tpot_s", "Time per output token", "s", "lower",
           "(last id − first id) / (n − 1); None below 2 ids, or if the first arrival holds several", _tpot_s),
    Metric("output_tokens_per_s", "Output tokens per second", "tokens/s", "higher",
           "completion_tokens / e2e_s", lambda q: _ratio(q.completion_tokens, _e2e_s(q))),
    Metric("decode_tokens_per_s", "Decode tokens per second", "tokens/s", "higher",
           "1 / tpot_s", _decode_tokens_per_s),
    Metric("prefill_tokens_per_s", "Prefill tokens per second", "tokens/s", "higher",
           "(prompt_tokens − cached_tokens) / prefill_s",
           lambda q: _ratio(q.prompt_tokens - q.cached_tokens, _prefill_s(q))),
    Metric("s_per_1k_gold_chars", "Seconds per 1000 characters of the gold reply", "s", "lower",
           "1000 · tpot_s · tokens(gold) / chars(gold): speed free of the tokenizer", _s_per_1k_gold_chars),
    Metric("peak_memory_bytes", "Peak memory allocated", "bytes", "lower",
           "most memory allocated on the accelerators during the turn; None on CPU", lambda q: q.peak_memory_bytes),
    Metric("reserved_memory_bytes", "Peak memory reserved", "bytes", "lower",
           "most memory the allocator held on the accelerators during the turn", lambda q: q.reserved_memory_bytes),
    Metric("device_used_bytes", "Device memory in use", "bytes", "lower",
           "memory in use on the devices after the turn, whoever uses it", lambda q: q.device_used_bytes),
    Metric("host_rss_bytes", "Peak host memory", "bytes", "lower",
           "peak resident set of the worker process during the turn", lambda q: q.host_rss_bytes),
    Metric("kv_cache_bytes", "Key/value cache", "bytes", "lower",
           "what the conversation's key/value cache holds after the turn", lambda q: q.kv_cache_bytes),
    Metric("energy_j", "Energy", "J", "lower",
           "difference of the accelerators' energy counters over the turn; None where there is none",
           lambda q: q.energy_mj / 1000),
    Metric("energy_per_token_j", "Energy per token", "J", "lower",
           "energy_j / completion_tokens", lambda q: _ratio(q.energy_mj / 1000, q.completion_tokens)),
    Metric("bandwidth_utilisation", "Share of the memory bandwidth", "ratio", "higher",
           "(weight bytes per token + KV bytes per token · (prompt_tokens + n/2)) · decode_tokens_per_s / measured "
           "copy bandwidth; None in a batch", _bandwidth_utilisation),
    Metric("prefill_flop_utilisation", "Share of the matrix rate in prefill", "ratio", "higher",
           "floating-point operations of the prompt's new ids / prefill_s / measured matrix rate; None in a batch",
           _prefill_flop_utilisation),
)  # fmt: skip

METRICS: dict[str, Metric] = {metric.name: metric for metric in _TABLE}
PHASES = ("template_s", "tokenize_s", "prefill_s", "decode_s", "detokenize_s")
