"""The one table of metrics: name, title, unit, direction, formula.

Reports, comparisons, gates and the documentation read this table; nothing else defines a metric. A formula takes a
`TurnRecord` – and, where the speed is held against a ceiling, the `Roofline` of its launch – and returns a float, or
None where the quantity does not exist: fewer than two ids have no gap between them, a failed turn has no speed.

Three stamps decide everything: the start of the turn (before templating), the first id on the host, and the reply's
text. `ttft_s` and `e2e_s` are measured from the start; the five phases lie end to end and add up to `e2e_s`.
`prefill_s` ends with the first id, so it holds the first forward, the first sample and one device synchronisation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Protocol

from harness.records import Roofline, TurnRecord

Direction = Literal["lower", "higher", "neither"]


class Formula(Protocol):
    """The value of a metric for one turn; `roofline` is that of the launch the turn was played in."""

    def __call__(self, record: TurnRecord, roofline: Roofline | None = None) -> float | None: ...


NS = 1e9


@dataclass(frozen=True, slots=True)
class Metric:
    """A quantity of one turn: column name, human title, unit, which way is better, and its formula."""

    name: str
    title: str
    unit: str
    direction: Direction
    definition: str
    formula: Formula


def _metric(
    name: str, title: str, unit: str, direction: Direction, definition: str, of: Callable[[TurnRecord], float | None]
) -> Metric:
    """A metric of the record alone. A failed turn has no derived numbers, whatever stamps it got to."""
    return Metric(
        name, title, unit, direction, definition, lambda record, roofline=None: None if record.failure else of(record)
    )


def _held_against(
    name: str,
    title: str,
    unit: str,
    direction: Direction,
    definition: str,
    of: Callable[[TurnRecord, Roofline], float | None],
) -> Metric:
    """A metric that holds the record against the roofline of its launch, where there is one."""

    def formula(record: TurnRecord, roofline: Roofline | None = None) -> float | None:
        return None if record.failure or roofline is None else of(record, roofline)

    return Metric(name, title, unit, direction, definition, formula)


def _seconds(start_ns: int | None, end_ns: int | None) -> float | None:
    return None if start_ns is None or end_ns is None else (end_ns - start_ns) / NS


def _first_tick_ns(record: TurnRecord) -> int | None:
    return record.stamps.tick_ns[0] if record.stamps.tick_ns else None


def _arrival_ns(record: TurnRecord, ids: int | None) -> int | None:
    """When the `ids`-th generated id arrived (1-based)."""
    if ids is None:
        return None
    stamps = record.stamps
    if stamps.tick_ids is None:
        return stamps.tick_ns[ids - 1] if 0 < ids <= len(stamps.tick_ns) else None
    arrived = 0
    for ns, count in stamps.ticks:
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


def _tpot_s(record: TurnRecord) -> float | None:
    at, sizes = record.stamps.tick_ns, record.stamps.tick_ids
    ids = len(at) if sizes is None else sum(sizes)
    # The first arrival must be one id: with several, the time the first of them took is not known.
    if len(at) < 2 or (sizes is not None and sizes[0] != 1):
        return None
    return (at[-1] - at[0]) / (ids - 1) / NS


def _per_second(count: int | None, seconds: float | None) -> float | None:
    return count / seconds if count and seconds else None


def _e2e_s(record: TurnRecord) -> float | None:
    return _seconds(0, record.stamps.ready_ns)


def _prefill_s(record: TurnRecord) -> float | None:
    return _seconds(record.stamps.tokenized_ns, _first_tick_ns(record))


def _prefill_tokens_per_s(record: TurnRecord) -> float | None:
    if record.prompt_tokens is None or record.cached_tokens is None:
        return None
    return _per_second(record.prompt_tokens - record.cached_tokens, _prefill_s(record))


def _decode_tokens_per_s(record: TurnRecord) -> float | None:
    tpot = _tpot_s(record)
    return 1 / tpot if tpot else None


def _s_per_1k_gold_chars(record: TurnRecord) -> float | None:
    tpot = _tpot_s(record)
    if tpot is None or record.gold_tokens is None or not record.gold:
        return None
    return 1000 * tpot * record.gold_tokens / len(record.gold)


def _energy_j(record: TurnRecord) -> float | None:
    spent = [device.energy_mj for device in record.devices]
    return sum(mj for mj in spent if mj is not None) / 1000 if spent and None not in spent else None


def _energy_per_token_j(record: TurnRecord) -> float | None:
    energy = _energy_j(record)
    return energy / record.completion_tokens if energy is not None and record.completion_tokens else None


def _bandwidth_utilisation(record: TurnRecord, roofline: Roofline) -> float | None:
    """Bytes a decoded token has to read, times tokens per second, over the measured bandwidth of a copy.

    While a token is decoded every weight is read once, and the cache up to the token's own position: on average the
    prompt and half of the reply. Several conversations at a time share the reading of the weights, and several ids
    per arrival come out of one: there is no such figure for them.
    """
    rate = _decode_tokens_per_s(record)
    if not roofline.copy_bytes_per_s or rate is None or record.prompt_tokens is None:
        return None
    if record.batch_size > 1 or record.stamps.tick_ids is not None:
        return None
    context = record.prompt_tokens + len(record.stamps.tick_ns) / 2
    touched = roofline.weight_bytes_per_token + context * roofline.kv_bytes_per_token
    return touched * rate / roofline.copy_bytes_per_s


def _prefill_flop_utilisation(record: TurnRecord, roofline: Roofline) -> float | None:
    """Floating-point operations of the prefill over its time, over the measured rate of a matrix product.

    Each of the n new prompt ids goes through every weight, and looks at the cached ids and on average at half of the
    new ones.
    """
    seconds = _prefill_s(record)
    if not roofline.matrix_flops_per_s or not seconds or record.batch_size > 1:
        return None
    if record.prompt_tokens is None or record.cached_tokens is None:
        return None
    new = record.prompt_tokens - record.cached_tokens
    pairs = new * (record.cached_tokens + (new + 1) / 2)
    flops = new * roofline.flops_per_token + pairs * roofline.attention_flops_per_token_pair
    return flops / seconds / roofline.matrix_flops_per_s


_TABLE: tuple[Metric, ...] = (
    _metric("ttft_s", "Time to first token", "s", "lower",
           "first id on the host − start of the turn (before templating)",
           lambda r: _seconds(0, _first_tick_ns(r))),
    _metric("ttft_visible_s", "Time to first visible text", "s", "lower",
           "arrival of the first id that yields visible text − start of the turn",
           lambda r: _seconds(0, _arrival_ns(r, r.visible_ids))),
    _metric("ttft_answer_s", "Time to first text of the answer", "s", "lower",
           "arrival of the first id of the answer after a reasoning block − start of the turn",
           lambda r: _seconds(0, _arrival_ns(r, r.answer_ids))),
    _metric("template_s", "Templating", "s", "lower", "rendering the messages to text",
           lambda r: _seconds(0, r.stamps.templated_ns)),
    _metric("tokenize_s", "Tokenising", "s", "lower", "text to prompt ids",
           lambda r: _seconds(r.stamps.templated_ns, r.stamps.tokenized_ns)),
    _metric("prefill_s", "Prefill", "s", "lower",
           "prompt ids ready → first id on the host: cache check, first forward, first sample, one sync", _prefill_s),
    _metric("decode_s", "Decode", "s", "lower", "first id → the engine has returned",
           lambda r: _seconds(_first_tick_ns(r), r.stamps.generated_ns)),
    _metric("detokenize_s", "Detokenising", "s", "lower", "engine returned → reply text ready",
           lambda r: _seconds(r.stamps.generated_ns, r.stamps.ready_ns)),
    _metric("e2e_s", "End to end", "s", "lower", "reply text ready − start of the turn", _e2e_s),
    _metric("tpot_s", "Time per output token", "s", "lower",
           "(last id − first id) / (n − 1); None below 2 ids, or if the first arrival holds several", _tpot_s),
    _metric("output_tokens_per_s", "Output tokens per second", "tokens/s", "higher",
           "completion_tokens / e2e_s", lambda r: _per_second(r.completion_tokens, _e2e_s(r))),
    _metric("decode_tokens_per_s", "Decode tokens per second", "tokens/s", "higher",
           "1 / tpot_s", _decode_tokens_per_s),
    _metric("prefill_tokens_per_s", "Prefill tokens per second", "tokens/s", "higher",
           "(prompt_tokens − cached_tokens) / prefill_s", _prefill_tokens_per_s),
    _metric("s_per_1k_gold_chars", "Seconds per 1000 characters of the gold reply", "s", "lower",
           "1000 · tpot_s · tokens(gold) / chars(gold): speed free of the tokenizer", _s_per_1k_gold_chars),
    _metric("peak_memory_bytes", "Peak memory allocated", "bytes", "lower",
           "most memory allocated on the accelerators during the turn; None on CPU",
           lambda r: r.memory.peak_memory_bytes),
    _metric("reserved_memory_bytes", "Peak memory reserved", "bytes", "lower",
           "most memory the allocator held on the accelerators during the turn",
           lambda r: r.memory.reserved_memory_bytes),
    _metric("device_used_bytes", "Device memory in use", "bytes", "lower",
           "memory in use on the devices after the turn, whoever uses it", lambda r: r.memory.device_used_bytes),
    _metric("host_rss_bytes", "Peak host memory", "bytes", "lower",
           "peak resident set of the worker process during the turn", lambda r: r.memory.host_rss_bytes),
    _metric("kv_cache_bytes", "Key/value cache", "bytes", "lower",
           "what the conversation's key/value cache holds after the turn", lambda r: r.kv_cache_bytes),
    _metric("energy_j", "Energy", "J", "lower",
           "difference of the accelerators' energy counters over the turn; None where there is none", _energy_j),
    _metric("energy_per_token_j", "Energy per token", "J", "lower",
           "energy_j / completion_tokens", _energy_per_token_j),
    _held_against("bandwidth_utilisation", "Share of the memory bandwidth", "ratio", "higher",
           "(weight bytes per token + KV bytes per token · (prompt_tokens + n/2)) · decode_tokens_per_s / measured "
           "copy bandwidth; None in a batch", _bandwidth_utilisation),
    _held_against("prefill_flop_utilisation", "Share of the matrix rate in prefill", "ratio", "higher",
           "floating-point operations of the prompt's new ids / prefill_s / measured matrix rate; None in a batch",
           _prefill_flop_utilisation),
)  # fmt: skip


METRICS: dict[str, Metric] = {metric.name: metric for metric in _TABLE}
PHASES = ("template_s", "tokenize_s", "prefill_s", "decode_s", "detokenize_s")
