"""The one table of metrics: name, title, unit, direction, formula.

Reports, comparisons, gates and the documentation read this table; nothing else defines a metric. A formula takes a
`TurnRecord` and returns a float, or None where the quantity does not exist – fewer than two ids have no gap between
them, a failed turn has no speed.

Three stamps decide everything: the start of the turn (before templating), the first id on the host, and the reply's
text. `ttft_s` and `e2e_s` are measured from the start; the five phases lie end to end and add up to `e2e_s`.
`prefill_s` ends with the first id, so it holds the first forward, the first sample and one device synchronisation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from harness.records import TurnRecord

Direction = Literal["lower", "higher", "neither"]
Formula = Callable[[TurnRecord], float | None]

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


def _seconds(start_ns: int | None, end_ns: int | None) -> float | None:
    return None if start_ns is None or end_ns is None else (end_ns - start_ns) / NS


def _first_tick_ns(record: TurnRecord) -> int | None:
    return record.stamps.ticks[0][0] if record.stamps.ticks else None


def _arrival_ns(record: TurnRecord, ids: int | None) -> int | None:
    """When the `ids`-th generated id arrived (1-based)."""
    if ids is None:
        return None
    arrived = 0
    for ns, count in record.stamps.ticks:
        arrived += count
        if arrived >= ids:
            return ns
    return None


def itl_s(record: TurnRecord) -> list[float] | None:
    """The n-1 gaps between consecutive ids, in seconds; None for a failed turn, below two ids, or if ids arrived
    several at a time (then a gap between arrivals is not a gap between ids)."""
    ticks = record.stamps.ticks
    if record.failure is not None or len(ticks) < 2 or any(count != 1 for _, count in ticks):
        return None
    return [(later - earlier) / NS for (earlier, _), (later, _) in pairwise(ticks)]


def _tpot_s(record: TurnRecord) -> float | None:
    ticks = record.stamps.ticks
    ids = sum(count for _, count in ticks)
    # The first arrival must be one id: with several, the time the first of them took is not known.
    if ids < 2 or len(ticks) < 2 or ticks[0][1] != 1:
        return None
    return (ticks[-1][0] - ticks[0][0]) / (ids - 1) / NS


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


_TABLE: tuple[Metric, ...] = (
    Metric("ttft_s", "Time to first token", "s", "lower",
           "first id on the host − start of the turn (before templating)",
           lambda r: _seconds(0, _first_tick_ns(r))),
    Metric("ttft_visible_s", "Time to first visible text", "s", "lower",
           "arrival of the first id that yields visible text − start of the turn",
           lambda r: _seconds(0, _arrival_ns(r, r.visible_ids))),
    Metric("ttft_answer_s", "Time to first text of the answer", "s", "lower",
           "arrival of the first id of the answer after a reasoning block − start of the turn",
           lambda r: _seconds(0, _arrival_ns(r, r.answer_ids))),
    Metric("template_s", "Templating", "s", "lower", "rendering the messages to text",
           lambda r: _seconds(0, r.stamps.templated_ns)),
    Metric("tokenize_s", "Tokenising", "s", "lower", "text to prompt ids",
           lambda r: _seconds(r.stamps.templated_ns, r.stamps.tokenized_ns)),
    Metric("prefill_s", "Prefill", "s", "lower",
           "prompt ids ready → first id on the host: cache check, first forward, first sample, one sync", _prefill_s),
    Metric("decode_s", "Decode", "s", "lower", "first id → the engine has returned",
           lambda r: _seconds(_first_tick_ns(r), r.stamps.generated_ns)),
    Metric("detokenize_s", "Detokenising", "s", "lower", "engine returned → reply text ready",
           lambda r: _seconds(r.stamps.generated_ns, r.stamps.ready_ns)),
    Metric("e2e_s", "End to end", "s", "lower", "reply text ready − start of the turn", _e2e_s),
    Metric("tpot_s", "Time per output token", "s", "lower",
           "(last id − first id) / (n − 1); None below 2 ids, or if the first arrival holds several", _tpot_s),
    Metric("output_tokens_per_s", "Output tokens per second", "tokens/s", "higher",
           "completion_tokens / e2e_s", lambda r: _per_second(r.completion_tokens, _e2e_s(r))),
    Metric("decode_tokens_per_s", "Decode tokens per second", "tokens/s", "higher",
           "1 / tpot_s", _decode_tokens_per_s),
    Metric("prefill_tokens_per_s", "Prefill tokens per second", "tokens/s", "higher",
           "(prompt_tokens − cached_tokens) / prefill_s", _prefill_tokens_per_s),
    Metric("s_per_1k_gold_chars", "Seconds per 1000 characters of the gold reply", "s", "lower",
           "1000 · tpot_s · tokens(gold) / chars(gold): speed free of the tokenizer", _s_per_1k_gold_chars),
    Metric("peak_memory_bytes", "Peak memory allocated", "bytes", "lower",
           "most memory allocated on the accelerators during the turn; None on CPU",
           lambda r: r.memory.peak_memory_bytes),
    Metric("reserved_memory_bytes", "Peak memory reserved", "bytes", "lower",
           "most memory the allocator held on the accelerators during the turn",
           lambda r: r.memory.reserved_memory_bytes),
    Metric("device_used_bytes", "Device memory in use", "bytes", "lower",
           "memory in use on the devices after the turn, whoever uses it", lambda r: r.memory.device_used_bytes),
    Metric("host_rss_bytes", "Peak host memory", "bytes", "lower",
           "peak resident set of the worker process during the turn", lambda r: r.memory.host_rss_bytes),
)  # fmt: skip


def _unless_failed(formula: Formula) -> Formula:
    """A failed turn has no derived numbers, whatever stamps it got to."""
    return lambda record: None if record.failure is not None else formula(record)


METRICS: dict[str, Metric] = {
    metric.name: Metric(metric.name, metric.title, metric.unit, metric.direction, metric.definition,
                        _unless_failed(metric.formula))
    for metric in _TABLE
}  # fmt: skip
PHASES = ("template_s", "tokenize_s", "prefill_s", "decode_s", "detokenize_s")
