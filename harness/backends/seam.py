"""The one seam: what a backend is asked, what it replies, and the two protocols it implements.

A backend opens a *session* per conversation, because a KV cache lives and dies with a conversation. A session answers
one `TurnRequest` at a time. While it does, it stamps the request's stopwatch – `templated`, `tokenized`, a `tick` for
every arrival of generated ids, `generated`, `ready` – and calls `on_tokens` with the ids right after each tick.

A backend that can answers several sessions together says so, by `why_not_together` being None; the sessions whose
requests it is handed may change from call to call, as conversations end and others begin.

What goes wrong inside a turn comes back as `Reply.failure`; a session raises only for mistakes of the program.

Apart from answering, a session can be *forced*: made to say given ids after a request's prompt, to tell how likely they
were. That is never timed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from harness.meters.clock import Stopwatch
from harness.meters.gauges import Gauges
from harness.records import (
    DeviceTurn,
    Failure,
    FinishReason,
    HostLoad,
    Length,
    Memory,
    Message,
    OnOverflow,
    Persona,
    Roofline,
)

OnTokens = Callable[[Sequence[int]], None]


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """Everything a session needs to answer one turn."""

    conversation_id: str
    turn_index: int
    messages: tuple[Message, ...]
    """The history and the new user message, an optional system message first."""
    persona: Persona
    sampling: Mapping[str, Any]
    """Generation parameters under Hugging Face's names."""
    seed: int
    length: Length
    on_overflow: OnOverflow
    stopwatch: Stopwatch
    gold: str | None = None
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for one request. Field meanings are those of `records.TurnRecord`."""

    text: str | None = None
    finish_reason: FinishReason | None = None
    failure: Failure | None = None
    reasoning: str | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_ids: tuple[int, ...] = ()
    completion_tokens: int | None = None
    tokens_left: int | None = None
    visible_ids: int | None = None
    answer_ids: int | None = None
    gold_tokens: int | None = None
    dropped_messages: int = 0
    prompt_hash: str | None = None
    kv_cache_bytes: int | None = None
    batch_size: int = 1
    paired: bool = True
    memory: Memory = field(default_factory=Memory)
    """Filled in by the driver, whose gauges go round the session, as are the two below."""
    devices: tuple[DeviceTurn, ...] = ()
    host_load: HostLoad | None = None
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Forced:
    """How likely a model finds ids that it is made to say: the log-softmax in float32 of its own logits, before any
    sampling parameter makes something else of them. Natural logarithms, one entry per id."""

    prompt_hash: str | None = None
    """As in a `Reply` to the same request; None where no prompt could be made."""
    logprobs: tuple[float, ...] = ()
    best: tuple[int, ...] = ()
    """The likeliest other id in each place."""
    margins: tuple[float, ...] = ()
    """Log-probability of the id minus that of the likeliest other; below 0 where the other is likelier."""
    why_not: str | None = None
    """Why there are none of these; None where there are."""


@dataclass(frozen=True, slots=True)
class EffectiveSettings:
    """What generation really runs with after the sampling, the length lane and the model's own generation_config are
    merged, and what a user should know about it."""

    values: Mapping[str, Any]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Preview:
    """What can be said about a model without loading its weights."""

    prompt: str
    prompt_tokens: int | None
    """None where somebody else makes ids of it."""
    context_tokens: int | None
    effective: Mapping[str, EffectiveSettings]
    """By sampling name."""
    notices: tuple[str, ...] = ()
    why_not_together: str | None = None
    """Why the model's engine cannot answer several conversations at once; None if it can."""
    commits: Mapping[str, str] = field(default_factory=dict)
    """The commits that were read of what lies on the Hub, the `model`, its `adapter`, its `tokenizer`: what is to be
    loaded, whatever is published meanwhile."""


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What loading a model took and what was loaded; goes into the manifest, once per launch.

    `load_s` = `import_s` + `weights_s` + `first_forward_s` + `compile_s`: safetensors are mapped lazily, their pages
    arrive with the first forward, so a load without it would charge the first turn for the disk.
    """

    load_s: float
    import_s: float
    weights_s: float
    first_forward_s: float
    compile_s: float | None = None
    """What an engine took to compile; None where nothing is compiled."""
    download_s: float | None = None
    """What asking the Hub and fetching from it took, which is no part of `load_s`; None for a model from elsewhere."""
    download_bytes: int | None = None
    """How much came; 0 where everything was in the cache."""
    roofline: Roofline | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    """commit, class, parameters, dtype, device map, attention, template hash, context_tokens, memory baseline …"""
    notices: tuple[str, ...] = ()


class Session(Protocol):
    """One conversation with a model."""

    def reply(self, request: TurnRequest, on_tokens: OnTokens) -> Reply: ...

    def force(self, request: TurnRequest, ids: Sequence[int]) -> Forced:
        """How likely these ids (one at least) are as the reply to a request. Whatever keeps it from telling is its
        `why_not`."""
        ...


class Backend(Protocol):
    """A loaded model."""

    @property
    def report(self) -> LoadReport: ...

    @property
    def gauges(self) -> Gauges:
        """Of this process and of the devices the model is on."""
        ...

    def effective(self, sampling: Mapping[str, Any], length: Length) -> EffectiveSettings: ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids, for showing a reply while it grows."""
        ...

    def open_session(self) -> Session: ...

    @property
    def why_not_together(self) -> str | None:
        """Why this backend cannot answer several sessions at once; None if it can."""
        ...

    def reply_many(self, asked: Sequence[tuple[Session, TurnRequest]]) -> Sequence[Reply]:
        """Answer one request of each of several sessions together, in order. Ids are ticked on each request's own
        stopwatch. Only to be called where `why_not_together` is None."""
        ...
