"""From records in Arrow to the columns of `Run.turns`: everything that is derived of a turn by itself.

All of it works on some thousand turns at a time; the formulas are those of the one table in `harness.metrics`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from harness.analysis.columns import COLUMNS, arrow_type
from harness.analysis.repeats import repetitions
from harness.metrics import METRICS, NAN, NS, Numbers, Quantities, arrival_ns
from harness.records import Roofline

_Whole = npt.NDArray[np.int64]
_Flags = npt.NDArray[np.bool_]
_COPIED = (
    *("turn_index", "seed", "user", "gold", "reply", "reasoning", "finish_reason"),
    *("prompt_tokens", "cached_tokens", "completion_tokens", "tokens_left", "dropped_messages", "prompt_hash"),
    *("batch_size", "paired", "checks", "notices"),
)


class _Lists:
    """A column of lists: the values of all rows after each other, and where each row begins and ends."""

    def __init__(self, column: pa.Array) -> None:
        offsets: _Whole = column.offsets.to_numpy().astype(np.int64)
        self.start, self.end = offsets[:-1], offsets[1:]
        self.size = self.end - self.start
        self.values = column.values

    def row(self, index: int) -> tuple[Any, ...]:
        return tuple(self.values[self.start[index] : self.end[index]].to_pylist())

    def sums(self, numbers: Numbers) -> Numbers:
        """The sum of each row of numbers, one per value."""
        running: Numbers = np.concatenate([[0.0], np.cumsum(numbers)])
        return running[self.end] - running[self.start]

    def at(self, numbers: Numbers, position: _Whole, where: _Flags) -> Numbers:
        """The number at a position of `values` for each row; NaN where `where` is not."""
        found = np.full(len(self.size), NAN)
        found[where] = numbers[position[where]]
        return found


@dataclass(frozen=True, slots=True)
class Context:
    """What a run knows and its records do not say."""

    run_id: str
    rooflines: Mapping[tuple[str, int], Roofline]
    """By model label and launch."""
    random: frozenset[str]
    """Labels of models with random weights: a lucky word of theirs is no right answer."""


def columns(batch: pa.RecordBatch, context: Context) -> dict[str, pa.Array]:
    """Every column of `COLUMNS` for the records of a batch, in their order."""
    around, failure = batch["circumstances"], batch["failure"]
    cell = _field(around, "cell")
    failed = failure.is_valid().to_numpy(zero_copy_only=False)
    ticks = _Lists(_field(batch["stamps"], "tick_ns"))
    at = _numbers(ticks.values)
    raw = _quantities(batch, ticks, at, failed, context.rooflines)
    checks = _Lists(batch["checks"])
    random = pc.is_in(_field(cell, "model"), value_set=pa.array(sorted(context.random), pa.string()))
    noise: _Flags = random.to_numpy(zero_copy_only=False)
    unchecked = (checks.size == 0) | noise
    passed = checks.sums(_numbers(pc.cast(_field(checks.values, "passed"), pa.int8())))
    made: dict[str, Any] = {
        "run_id": pa.repeat(context.run_id, len(batch)),
        "weights": pc.if_else(random, "random", "saved"),
        **{name: _field(cell, name) for name in cell.type.names},
        **{name: _field(around, name) for name in ("phase", "attempt", "history", "length", "kv_cache", "engine")},
        **{name: batch[name] for name in _COPIED},
        "checks": pc.if_else(random, pa.scalar([], batch["checks"].type), batch["checks"]),
        "started_at": pa.array(np.rint(_numbers(batch["started_at"]) * 1e6).astype(np.int64)),
        "state": pa.array(np.where(failed, "failed", "done")),
        "error": _field(failure, "kind"),
        "error_phase": _field(failure, "phase"),
        "error_message": _field(failure, "message"),
        "checks_passed": pa.array(passed, mask=unchecked),
        "checks_total": pa.array(checks.size, mask=unchecked),
        "itl_s": _gaps(ticks, at, ~failed & (raw.arrivals == raw.ids) & (ticks.size > 1)),
        "repetition": _repetitions(batch, failed | noise),
        "foreign_load": _foreign_load(batch["host_load"]),
        **_devices(batch["devices"]),
        **{name: _real(metric.over(raw)) for name, metric in METRICS.items()},
    }
    return {column.name: pc.cast(made[column.name], arrow_type(column.kind), safe=False) for column in COLUMNS}


def _field(column: pa.Array, name: str) -> pa.Array:
    """A field of a column of structs; null where the struct is."""
    return pc.struct_field(column, name)


def _numbers(column: pa.Array) -> Numbers:
    """As floating-point numbers, NaN where absent."""
    numbers: Numbers = pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return numbers


def _real(numbers: Numbers) -> pa.Array:
    return pa.array(numbers, mask=np.isnan(numbers))


def _quantities(
    batch: pa.RecordBatch,
    ticks: _Lists,
    at: Numbers,
    failed: _Flags,
    rooflines: Mapping[tuple[str, int], Roofline],
) -> Quantities:
    stamps, memory = batch["stamps"], batch["memory"]
    sizes = _field(stamps, "tick_ids")
    several = sizes.is_valid().to_numpy(zero_copy_only=False)
    per_tick = _Lists(sizes)
    per_tick_ids = _numbers(per_tick.values)
    any_tick = ticks.size > 0
    arrivals = {name: _arrivals(batch[f"{name}_ids"], ticks, at, several, per_tick) for name in ("visible", "answer")}
    gold = pc.utf8_length(batch["gold"])
    known: dict[str, Numbers] = {
        **{
            name: _numbers(_field(stamps, name))
            for name in ("templated_ns", "tokenized_ns", "generated_ns", "ready_ns")
        },
        "first_ns": ticks.at(at, ticks.start, any_tick),
        "last_ns": ticks.at(at, ticks.end - 1, any_tick),
        "arrivals": ticks.size.astype(np.float64),
        "first_ids": np.where(several, per_tick.at(per_tick_ids, per_tick.start, per_tick.size > 0), 1.0),
        "ids": np.where(several, per_tick.sums(per_tick_ids), ticks.size),
        "visible_ns": arrivals["visible"],
        "answer_ns": arrivals["answer"],
        "gold_chars": _numbers(pc.if_else(pc.equal(gold, 0), None, gold)),
        "energy_mj": _energy(batch["devices"]),
        **{name: _numbers(_field(memory, name)) for name in memory.type.names},
        **_ceilings(batch, rooflines),
    }
    return Quantities(
        *(
            np.where(failed, NAN, known[field.name] if field.name in known else _numbers(batch[field.name]))
            for field in fields(Quantities)
        )
    )


def _arrivals(ids: pa.Array, ticks: _Lists, at: Numbers, several: _Flags, per_tick: _Lists) -> Numbers:
    """When the id of that number (1-based) arrived."""
    wanted = _numbers(ids)
    simple = ~several & (wanted >= 1) & (wanted <= ticks.size)
    position = ticks.start + np.where(simple, wanted, 1).astype(np.int64) - 1
    found = ticks.at(at, position, simple)
    for row in np.flatnonzero(several & ~np.isnan(wanted)).tolist():
        ns = arrival_ns(ticks.row(row), per_tick.row(row), int(wanted[row]))
        found[row] = NAN if ns is None else ns
    return found


def _ceilings(batch: pa.RecordBatch, rooflines: Mapping[tuple[str, int], Roofline]) -> dict[str, Numbers]:
    cell = _field(batch["circumstances"], "cell")
    model, launch = _field(cell, "model"), _field(cell, "launch")
    names = [field.name for field in fields(Roofline) if field.name in {each.name for each in fields(Quantities)}]
    found = {name: np.full(len(batch), NAN) for name in names}
    for (label, number), roofline in rooflines.items():
        here = pc.and_(pc.equal(model, label), pc.equal(launch, number)).to_numpy(zero_copy_only=False)
        for name in names:
            value = getattr(roofline, name)
            found[name][here] = NAN if value is None else value
    return found


def _energy(devices: pa.Array) -> Numbers:
    """Of all devices together; absent where there are none, or one of them did not say."""
    lists = _Lists(devices)
    if not len(lists.values):
        return np.full(len(devices), NAN)
    spent = _numbers(_field(lists.values, "energy_mj"))
    silent = lists.sums(np.isnan(spent).astype(np.float64))
    return np.where((lists.size > 0) & (silent == 0), lists.sums(np.nan_to_num(spent)), NAN)


def _devices(devices: pa.Array) -> dict[str, pa.Array]:
    """The state of the accelerators; the loop is over turns that have any."""
    hottest: list[int | None] = [None] * len(devices)
    slowest: list[int | None] = [None] * len(devices)
    busiest: list[int | None] = [None] * len(devices)
    held_down: list[list[str] | None] = [None] * len(devices)
    for row in np.flatnonzero(_Lists(devices).size).tolist():
        told = devices[row].as_py()
        after = [device["after"] for device in told]
        states = [state for device in told for state in (device["before"], device["after"])]
        hottest[row] = max((s["temperature_c"] for s in after if s["temperature_c"] is not None), default=None)
        slowest[row] = min((s["sm_clock_mhz"] for s in after if s["sm_clock_mhz"] is not None), default=None)
        busiest[row] = max((s["processes"] for s in states if s["processes"] is not None), default=None)
        held_down[row] = list(dict.fromkeys(reason for state in states for reason in state["throttle"] or ()))
    return {
        "temperature_c": pa.array(hottest, pa.int64()),
        "sm_clock_mhz": pa.array(slowest, pa.int64()),
        "device_processes": pa.array(busiest, pa.int64()),
        "throttle": pa.array(held_down, pa.list_(pa.string())),
    }


def _foreign_load(load: pa.Array) -> pa.Array:
    """How many processors other processes kept busy, on average over the turn.

    Not cut off at 0: the kernel counts the machine's time in steps, which a short turn meets or misses, and only with
    its signs does the error vanish from a mean over turns.
    """
    wall, own, busy = (_numbers(_field(load, name)) for name in ("wall_s", "own_s", "busy_s"))
    others = np.full(len(load), NAN)
    with np.errstate(over="ignore"):  # a wall time of next to nothing
        np.divide(busy - own, wall, out=others, where=wall > 0)
    return _real(others)


def _gaps(ticks: _Lists, at: Numbers, sound: _Flags) -> pa.Array:
    """`harness.metrics.itl_s` of the rows that are sound, null for the others."""
    size = np.where(sound, ticks.size - 1, 0)
    end = np.cumsum(size)
    # Position k of the gaps of a row is the step from its id k to k + 1.
    within = np.arange(size.sum()) - np.repeat(end - size, size)
    earlier = np.repeat(ticks.start, size) + within
    gaps = (at[earlier + 1] - at[earlier]) / NS if len(at) else np.empty(0)
    offsets = np.concatenate([[0], end]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(gaps), mask=pa.array(~sound))


def _repetitions(batch: pa.RecordBatch, meaningless: _Flags) -> pa.Array:
    """Of replies that were not forced to their length, and of turns that generated something."""
    natural = pc.equal(_field(batch["circumstances"], "length"), "natural").to_numpy(zero_copy_only=False)
    silent = _numbers(batch["completion_tokens"]) == 0
    spoken = natural & ~silent & ~meaningless
    spoken &= batch["reply"].is_valid().to_numpy(zero_copy_only=False)
    shares = np.full(len(batch), NAN)
    shares[spoken] = repetitions(batch["reply"].filter(pa.array(spoken)).to_pylist())
    return _real(shares)
