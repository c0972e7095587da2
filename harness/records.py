"""The frozen values everything speaks in, and the version of the file format they are stored in.

A record keeps what was *observed* (integer nanoseconds, ids, counts, text). Everything derived – seconds per token,
pass rates – is computed from it later (`metrics.py`, `analysis/`), so that a formula can be repaired without
measuring again. What was not observed is None, never 0.

Format history
    1   first format: manifest.json and turns.jsonl
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

FORMAT = 1

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
    """One entry of the matrix: a model spec (by label), a sampling (by name), a conversation, a repeat, a launch."""

    model: str
    sampling: str
    conversation_id: str
    repeat: int
    launch: int

    def key(self) -> tuple[str, str, str, int, int]:
        return (self.model, self.sampling, self.conversation_id, self.repeat, self.launch)


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
    concurrency: int = 1


@dataclass(frozen=True, slots=True)
class Stamps:
    """Raw stamps of one turn: nanoseconds since the turn began (before templating). None where it never got there."""

    templated_ns: int | None = None
    tokenized_ns: int | None = None
    generated_ns: int | None = None
    """The engine has returned: after the last id and its stopping checks."""
    ready_ns: int | None = None
    """The reply's text exists."""
    ticks: tuple[tuple[int, int], ...] = ()
    """(nanoseconds, number of ids) for every arrival of generated ids on the host; prompt ids never tick."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Peaks over one turn, in bytes; None where there is no such gauge."""

    peak_memory_bytes: int | None = None
    """Allocated on all accelerators together (None on CPU)."""
    reserved_memory_bytes: int | None = None
    device_used_bytes: int | None = None
    host_rss_bytes: int | None = None


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
    checks: tuple[CheckResult, ...] = ()
    notices: tuple[str, ...] = ()


def decode(line: Mapping[str, Any]) -> TurnRecord:
    """The record that a line of turns.jsonl holds (orjson writes the dataclass as it stands).

    Raises KeyError or TypeError where the line is not such a record; `store` turns that into a StoreError.
    """
    values = {field.name: line[field.name] for field in fields(TurnRecord)}
    circumstances = dict(values["circumstances"])
    stamps = dict(values["stamps"])
    return TurnRecord(
        **{
            **values,
            "circumstances": Circumstances(**{**circumstances, "cell": Cell(**circumstances["cell"])}),
            "stamps": Stamps(**{**stamps, "ticks": tuple((int(ns), int(k)) for ns, k in stamps["ticks"])}),
            "memory": Memory(**values["memory"]),
            "failure": Failure(**values["failure"]) if values["failure"] else None,
            "completion_ids": tuple(values["completion_ids"]),
            "checks": tuple(CheckResult(**check) for check in values["checks"]),
            "notices": tuple(values["notices"]),
        }
    )


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
