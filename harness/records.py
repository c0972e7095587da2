"""The frozen values everything speaks in, and the version of the file format they are stored in.

A record keeps what was *observed* (integer nanoseconds, ids, counts, text). Everything derived – seconds per token,
pass rates – is computed from it later (`metrics.py`, `analysis/`), so that a formula can be repaired without
measuring again. What was not observed is None, never 0.

Format history
    1   first format: manifest.json and turns.jsonl
    2   concurrency is part of a cell; arrivals are stored flat; a turn tells of accelerators, the machine's load, its
        cache and its batch
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

FORMAT = 2
READABLE = (1, 2)
"""The formats that `decode` reads."""

Role = Literal["system", "user", "assistant"]
Phase = Literal["warmup", "measure"]
History = Literal["generated", "scripted", "fill"]
Length = Literal["natural", "fixed"]
KvCache = Literal["reuse", "fresh"]
OnOverflow = Literal["stop", "drop_oldest", "error"]
FinishReason = Literal["eos", "stop", "max_new_tokens", "max_length", "context", "error"]


@dataclass(frozen=True, slots=True)
class Message:
    """One line of a conversation as it is sent to a model."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Persona:
    """Who speaks: a sentence about the assistant, and the names of both sides in a transcript."""

    description: str | None = None
    user: str = "User"
    assistant: str = "Assistant"


@dataclass(frozen=True, slots=True)
class Cell:
    """One entry of the matrix: a model spec (by label), a sampling (by name), a conversation, a repeat, a launch, and
    how many conversations are replayed at a time."""

    model: str
    sampling: str
    conversation_id: str
    repeat: int
    launch: int
    concurrency: int = 1


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What every record of a cell states because it changes what the numbers mean."""

    cell: Cell
    history: History
    length: Length
    engine: str
    kv_cache: KvCache
    phase: Phase = "measure"
    attempt: int = 0
    """0 for the first try of the conversation; a resumed run redoes a broken conversation as the next attempt."""


@dataclass(frozen=True, slots=True)
class Stamps:
    """Raw stamps of one turn: nanoseconds since the turn began (before templating). None where it never got there."""

    templated_ns: int | None = None
    tokenized_ns: int | None = None
    generated_ns: int | None = None
    """The engine has returned: after the last id and its stopping checks."""
    ready_ns: int | None = None
    """The reply's text exists."""
    tick_ns: tuple[int, ...] = ()
    """When generated ids arrived on the host; prompt ids never tick."""
    tick_ids: tuple[int, ...] | None = None
    """How many ids each arrival held; None where every one held a single id."""

    @property
    def ticks(self) -> tuple[tuple[int, int], ...]:
        """(nanoseconds, number of ids) of every arrival."""
        return tuple(zip(self.tick_ns, self.tick_ids or (1,) * len(self.tick_ns), strict=True))


@dataclass(frozen=True, slots=True)
class Memory:
    """Peaks over one turn, in bytes; None where there is no such gauge."""

    peak_memory_bytes: int | None = None
    """Allocated on all accelerators together (None on CPU)."""
    reserved_memory_bytes: int | None = None
    device_used_bytes: int | None = None
    """In use on the model's accelerators after the turn, whoever uses it."""
    host_rss_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class DeviceState:
    """One look at an accelerator; None for what it does not tell."""

    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    throttle: tuple[str, ...] | None = None
    """Why its clocks are held down; empty where they are not."""
    processes: int | None = None
    """How many processes compute on it, this one included."""


@dataclass(frozen=True, slots=True)
class DeviceTurn:
    """One accelerator over one turn: peaks, what the turn cost it, and its state on either side."""

    device: str
    """As torch names it: cuda:0."""
    peak_memory_bytes: int | None = None
    reserved_memory_bytes: int | None = None
    device_used_bytes: int | None = None
    energy_mj: int | None = None
    """Millijoules: the difference of the device's energy counter."""
    before: DeviceState = DeviceState()
    after: DeviceState = DeviceState()


@dataclass(frozen=True, slots=True)
class HostLoad:
    """Processor time over one turn, in seconds summed over all processors."""

    wall_s: float
    own_s: float
    """Used by the worker process, all its threads."""
    busy_s: float
    """Used by every process of the machine, this one included."""


@dataclass(frozen=True, slots=True)
class DeviceSample:
    """One accelerator at one moment."""

    device: str
    device_used_bytes: int | None
    state: DeviceState


@dataclass(frozen=True, slots=True)
class Sample:
    """One look of the background sampler; a line of samples.jsonl."""

    model: str
    launch: int
    at: float
    """Wall-clock time, seconds since the epoch."""
    host_rss_bytes: int
    host_load: HostLoad
    """Since the look before."""
    devices: tuple[DeviceSample, ...] = ()


@dataclass(frozen=True, slots=True)
class SamplerCost:
    """What a background sampler has done so far in one launch, and what that took."""

    every_s: float
    """As it was asked to."""
    samples: int
    reached_s: float | None
    """Between one look and the next, on average; None before the second."""
    cpu_s: float
    """Processor time its thread has used."""


@dataclass(frozen=True, slots=True)
class Roofline:
    """What a model has to do per token, and what the device it is on can do: the ceiling its speed is held against."""

    weight_bytes_per_token: int
    """Weights that are read for one decoded token: all but the table of embeddings, and of experts only the active."""
    kv_bytes_per_token: int | None
    """Bytes the cache holds for one token of the context, all layers together; None where it cannot be looked into."""
    flops_per_token: int
    """Floating-point operations of the matrix products for one token, attention over the context left out."""
    attention_flops_per_token_pair: int | None
    """The same of attention, for one token looking at one other, all layers together."""
    copy_bytes_per_s: float | None = None
    """Measured: bytes read and written by a copy larger than any cache."""
    matrix_flops_per_s: float | None = None
    """Measured: a large matrix product in the model's dtype."""
    fits_in_cache: bool = False
    """Whether the weights fit into the processor's last cache, so that memory's bandwidth is no ceiling for them."""
    head_flops_per_token: int = 0
    """Of `flops_per_token`, the part of the output head: of a prompt only the last id goes through it."""
    window_tokens: int | None = None
    """How far back layers with a sliding window look; None where every layer looks at all of the context."""
    windowed_kv_bytes_per_token: int = 0
    """Of `kv_bytes_per_token`, the part of the layers with a sliding window."""
    windowed_attention_flops_per_token_pair: int = 0
    """Of `attention_flops_per_token_pair`, the same part."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check said about one reply."""

    check: str
    passed: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a turn has no numbers: the class of the error, the phase it struck in, its message."""

    kind: str
    phase: str
    message: str


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """One turn of one conversation: what was asked, what came back, and every raw stamp and count."""

    circumstances: Circumstances
    turn_index: int
    seed: int
    started_at: float
    """Wall-clock time at the start of the turn, seconds since the epoch; for logs and drift, never for durations."""
    user: str
    gold: str | None = None
    reply: str | None = None
    """The answer, reasoning block and stop strings removed, surrounding white space stripped."""
    reasoning: str | None = None
    finish_reason: FinishReason | None = None
    failure: Failure | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    completion_ids: tuple[int, ...] = ()
    tokens_left: int | None = None
    """How many more ids this conversation could have held after the reply, under max_length or the context."""
    visible_ids: int | None = None
    """How many ids had arrived when the first visible text existed."""
    answer_ids: int | None = None
    """How many ids had arrived when the first visible text of the answer (after any reasoning) existed."""
    gold_tokens: int | None = None
    """Length of the gold reply in this model's tokens."""
    dropped_messages: int = 0
    """Messages left out of the prompt by `on_overflow: drop_oldest`."""
    prompt_hash: str | None = None
    """Hash of the prompt ids: equal hashes mean the very same prompt."""
    stamps: Stamps = Stamps()
    memory: Memory = Memory()
    kv_cache_bytes: int | None = None
    """What the key/value cache of this conversation holds in memory after the turn."""
    devices: tuple[DeviceTurn, ...] = ()
    """The accelerators the model is on. Empty at a concurrency above 1: what a device does is then no single turn's."""
    host_load: HostLoad | None = None
    batch_size: int = 1
    """How many conversations were answered together with this turn, itself included."""
    paired: bool = True
    """Whether what was drawn at random follows from `seed` alone, as it does where a turn is answered by itself."""
    checks: tuple[CheckResult, ...] = ()
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReplyId:
    """Which reply: of which cell, to which turn, in which attempt at the conversation."""

    cell: Cell
    turn_index: int
    attempt: int | None = None
    """None in a run that is not at hand."""
    run_id: str | None = None
    """None: the run that this is stored in."""


@dataclass(frozen=True, slots=True)
class ScorerSetup:
    """A scorer as it was used; a line of scores.jsonl, before the scores it gave."""

    scorer: str
    version: int
    by: str
    """Who scored, where that is not the formula: the judge's model, the voter."""
    config: Mapping[str, Any]
    """Everything else that decides what it says."""
    facts: Mapping[str, Any]
    """What was found out about it: the judge's commit, its class."""
    at: str
    """UTC, ISO 8601."""
    config_hash: str
    """Stands for all of the above but the facts and the time."""


@dataclass(frozen=True, slots=True)
class Score:
    """What a scorer said of one reply, or of one against another; a line of scores.jsonl."""

    config_hash: str
    reply: ReplyId
    value: float | None
    """None: it could not tell, or gave no verdict."""
    detail: str = ""
    against: ReplyId | None = None
    trial: int = 0
    """Which time of several that the same was asked."""
    swapped: bool = False
    """Whether a judge was shown `against` first."""
    asked: str | None = None
    """Hash of what a judge was asked."""


def decode(line: Mapping[str, Any]) -> TurnRecord:
    """The record that a line of turns.jsonl holds (orjson writes the dataclass as it stands), of any format in
    `READABLE`.

    Raises KeyError or TypeError where the line is not such a record; `store` turns that into a StoreError.
    """
    values = _upgraded(line) if "tick_ns" not in line["stamps"] else line
    values = {field.name: values[field.name] for field in fields(TurnRecord)}
    circumstances, stamps = values["circumstances"], values["stamps"]
    return TurnRecord(
        **{
            **values,
            "circumstances": Circumstances(**{**circumstances, "cell": Cell(**circumstances["cell"])}),
            "stamps": Stamps(
                **{**stamps, "tick_ns": tuple(stamps["tick_ns"]), "tick_ids": _tuple_or_none(stamps["tick_ids"])}
            ),
            "memory": Memory(**values["memory"]),
            "devices": tuple(_device(entry) for entry in values["devices"]),
            "host_load": HostLoad(**values["host_load"]) if values["host_load"] else None,
            "failure": Failure(**values["failure"]) if values["failure"] else None,
            "completion_ids": tuple(values["completion_ids"]),
            "checks": tuple(CheckResult(**check) for check in values["checks"]),
            "notices": tuple(values["notices"]),
        }
    )


def _upgraded(line: Mapping[str, Any]) -> Mapping[str, Any]:
    """A line of format 1 as one of format 2."""
    circumstances, stamps = dict(line["circumstances"]), dict(line["stamps"])
    cell = {**circumstances["cell"], "concurrency": circumstances.pop("concurrency")}
    ticks = stamps.pop("ticks")
    sizes = [ids for _, ids in ticks]
    stamps |= {"tick_ns": [ns for ns, _ in ticks], "tick_ids": None if set(sizes) <= {1} else sizes}
    added = {"kv_cache_bytes": None, "devices": (), "host_load": None, "batch_size": 1, "paired": True}
    return {**line, **added, "circumstances": {**circumstances, "cell": cell}, "stamps": stamps}


def decode_sample(line: Mapping[str, Any]) -> Sample:
    """The sample that a line of samples.jsonl holds. Raises KeyError or TypeError where it is none."""
    devices = (DeviceSample(**{**entry, "state": _state(entry["state"])}) for entry in line["devices"])
    return Sample(**{**line, "host_load": HostLoad(**line["host_load"]), "devices": tuple(devices)})


def _device(entry: Mapping[str, Any]) -> DeviceTurn:
    return DeviceTurn(**{**entry, "before": _state(entry["before"]), "after": _state(entry["after"])})


def _state(entry: Mapping[str, Any]) -> DeviceState:
    return DeviceState(**{**entry, "throttle": _tuple_or_none(entry["throttle"])})


def _tuple_or_none(values: Sequence[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)


def turn_seed(base: int, conversation_id: str, turn_index: int, repeat: int) -> int:
    """The seed of one turn, in [0, 2**32).

    It depends on nothing but its arguments – not on order, sampling, model, launch or resume – so that two samplings
    of one model are compared on the same draws, and any turn can be run again alone.
    """
    text = f"{base}/{conversation_id}/{turn_index}/{repeat}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def short_hash(data: bytes) -> str:
    """Sixteen hex digits that stand for `data` (SHA-256, 64 bits): prompt ids, templates, configs."""
    return hashlib.sha256(data).hexdigest()[:16]
