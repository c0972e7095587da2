"""A model behind a server, as a backend: found, recognised, verified, and asked."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from harness.backends.openai.dialects import DIALECTS
from harness.backends.openai.recognise import Recognised, recognise
from harness.backends.openai.session import ServerSession, ServerTurn
from harness.backends.openai.settings import Settled, settle
from harness.backends.openai.tokens import Counter
from harness.backends.openai.verify import QUESTION, Verified, verify
from harness.backends.openai.wire import Wire
from harness.backends.seam import EffectiveSettings, LoadReport, OnTokens, Preview, Reply, Session, TurnRequest
from harness.config.schema import ChatFormat, ModelSpec
from harness.config.server import Server, server_of
from harness.errors import ModelError, UsageError
from harness.meters.clock import Stopwatch, real_clock
from harness.meters.gauges import NoGauges
from harness.records import Length, Message, Persona

KEY = "OPENAI_API_KEY"
LOADED_BEFORE = "the server has loaded its model before: load_s is how long it took to give its first reply"
_PATIENCE_S = 120.0
"""For each reply before anything is measured: a server may load its model only then."""


def key_of(spec: ModelSpec, server: Server) -> str | None:
    """The key for a server, from the environment. Raises ModelError where a variable is named and not set.

    The one that nobody named goes over https or to this machine alone: it may be meant for somebody else.
    """
    name = spec.api_key_env or KEY
    key = os.environ.get(name, "").strip()
    if spec.api_key_env is not None and not key:
        raise ModelError(spec.model, f"{name} is not set", "set it in the environment, or drop api_key_env")
    if not (spec.api_key_env or server.base.startswith("https:") or _is_here(server.host)):
        return None
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ModelError(spec.model, f"{name} holds what is no key", "a key is one word of plain characters")
    return key or None


def _is_here(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


class ServerBackend:
    """A model behind a server. Made by `open_server`."""

    def __init__(self, spec: ModelSpec, server: Server, wire: Wire, recognised: Recognised) -> None:
        self.spec = spec
        self.server = server
        self.wire = wire
        self.spoken = DIALECTS[recognised.dialect]
        self.recognised = recognised
        self.counter = Counter(spec) if spec.tokenizer is not None else None
        self.gauges = NoGauges()
        self.verified = Verified()
        self.report = LoadReport(0.0, 0.0, 0.0, 0.0)
        self._settled: dict[str, Settled] = {}
        self._pieces: list[str] = []

    why_not_together = None

    @property
    def keeps_seeds(self) -> bool:
        return self.verified.seeds is True

    def effective(self, sampling: Mapping[str, Any], length: Length) -> EffectiveSettings:
        """What is asked for; raises UsageError for what the server cannot be asked for, or was seen not to do."""
        settled = self.settled(sampling, length)
        if not settled.greedy and self.verified.draws is False:
            fact = "the server decodes greedily whatever it is asked"
            raise UsageError("sampling.do_sample", fact, "set do_sample: false, or look at how it was started")
        if settled.stop_strings and self.verified.stops is False:
            raise UsageError("sampling.stop_strings", "the server does not end replies at them", "leave them out")
        return settled.effective

    def settled(self, sampling: Mapping[str, Any], length: Length) -> Settled:
        """The fields of a request, made once for each sampling."""
        key = f"{length} {json.dumps(sampling, sort_keys=True, default=repr)}"
        if key not in self._settled:
            self._settled[key] = settle(sampling, length, self.spoken, self.recognised.context_tokens)
        return self._settled[key]

    def body(self, request: TurnRequest, settled: Settled) -> dict[str, Any]:
        """The request, as it goes out."""
        spoken = self.spoken
        body = {
            "model": self.server.model,
            "messages": [{"role": message.role, "content": message.content} for message in request.messages],
            "stream": True,
            **settled.fields,
        }
        if spoken.stream_options is not None:
            body["stream_options"] = spoken.stream_options
        if not settled.greedy:
            body["seed"] = request.seed
        if self.spec.template_kwargs and spoken.template_kwargs is not None:
            body[spoken.template_kwargs] = self.spec.template_kwargs
        return body

    def decode(self, ids: Sequence[int]) -> str:
        """The text of pieces of the reply that is being given: a server tells no ids, so these are our own."""
        return "".join(self._pieces[one] for one in ids)

    def open_session(self) -> ServerSession:
        return ServerSession(self)

    def reply(self, request: TurnRequest, on_tokens: OnTokens) -> Reply:
        """Answer one request; `on_tokens` gets a number for each piece of text, which `decode` knows."""
        self._pieces.clear()

        def on_text(text: str) -> None:
            self._pieces.append(text)
            on_tokens([len(self._pieces) - 1])

        return ServerTurn(self, request, on_text).answer()

    def reply_many(self, asked: Sequence[tuple[Session, TurnRequest]]) -> Sequence[Reply]:
        """Ask all at once, each in a thread of its own: what they wait for is the server."""
        turns = [ServerTurn(self, request, lambda text: None) for _, request in asked]
        with ThreadPoolExecutor(len(turns)) as threads:
            replies = list(threads.map(ServerTurn.answer, turns))
        alone = len(turns) == 1
        greedy = [self.settled(request.sampling, request.length).greedy for _, request in asked]
        return [
            replace(reply, batch_size=len(turns), paired=is_greedy or (alone and reply.paired))
            for reply, is_greedy in zip(replies, greedy, strict=True)
        ]


def open_server(spec: ModelSpec, *, chat_format: ChatFormat) -> ServerBackend:
    """Find a server, recognise it, and see whether it does what it is asked.

    Raises ModelError in one line where it cannot be used.
    """
    start_ns = real_clock()
    backend = _found(spec, chat_format)
    found_ns, connect_s = real_clock(), backend.wire.connect_s
    first: list[float] = []

    def ask(sampling: Mapping[str, Any], seed: int) -> Reply:
        request = _question(sampling, seed)
        reply = backend.open_session().reply(request, lambda ids: None)
        if reply.failure is not None:
            kind, said = reply.failure.kind, reply.failure.message
            remedy = "name one: tokenizer: …" if kind == "NoUsage" else ""
            raise ModelError(spec.model, f"gives no reply: {kind}: {said}", remedy)
        first.append(request.stopwatch.elapsed_s())
        return reply

    spoken = backend.spoken
    backend.verified = verify(ask, top_k=bool(spoken.container) or "top_k" in spoken.fields, stops=True)
    found_s = (found_ns - start_ns) / 1e9
    backend.report = LoadReport(
        load_s=found_s + first[0],
        import_s=found_s,
        weights_s=0.0,
        first_forward_s=first[0],
        facts={
            "class": "ServerBackend",
            "server": backend.server.base,
            "served_model": backend.server.model,
            "dialect": backend.recognised.dialect,
            "server_version": backend.recognised.version,
            "context_tokens": backend.recognised.context_tokens,
            "connect_s": connect_s,
            "verified": backend.verified.facts(),
        },
        notices=(LOADED_BEFORE, *backend.recognised.notices, *backend.verified.notices),
    )
    return backend


def preview_server(
    spec: ModelSpec,
    *,
    samplings: Mapping[str, Mapping[str, Any]],
    length: Length,
    messages: tuple[Message, ...],
    chat_format: ChatFormat,
) -> Preview:
    """See `harness.backends.open.preview`; the prompt is the server's to make, so the messages stand in its place."""
    backend = _found(spec, chat_format)
    return Preview(
        "\n".join(f"{message.role}: {message.content}" for message in messages),
        backend.counter.count_prompt(messages, spec.template_kwargs) if backend.counter is not None else None,
        backend.recognised.context_tokens,
        {name: backend.effective(sampling, length) for name, sampling in samplings.items()},
        (f"{backend.spoken.title} makes the prompt of these messages itself", *backend.recognised.notices),
    )


def _found(spec: ModelSpec, chat_format: ChatFormat) -> ServerBackend:
    server = server_of(spec.model)
    assert server is not None, "who calls has looked"
    if chat_format == "transcript":
        fact = "makes its prompts itself, by its model's chat template"
        raise ModelError(spec.model, fact, "use chat_format: auto or template")
    wire = Wire(server, key_of(spec, server))
    recognised = recognise(spec, server, wire)
    spoken = DIALECTS[recognised.dialect]
    if spec.template_kwargs and spoken.template_kwargs is None:
        fact = f"is behind {spoken.title}, which takes no arguments of the chat template"
        raise ModelError(spec.model, fact, "leave template_kwargs out")
    return ServerBackend(spec, server, wire, recognised)


def _question(sampling: Mapping[str, Any], seed: int) -> TurnRequest:
    return TurnRequest(
        conversation_id="verify",
        turn_index=0,
        messages=(Message("user", QUESTION),),
        persona=Persona(),
        sampling=sampling,
        seed=seed,
        length="natural",
        on_overflow="stop",
        stopwatch=Stopwatch(),
        timeout_s=_PATIENCE_S,
    )
