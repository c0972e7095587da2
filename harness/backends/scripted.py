"""A backend that recites: known lines, on a known clock.

It is the second implementation of the seam. With a `HandCrankedClock` every stamp of a turn is known to the
nanosecond before the turn begins, so the loop, the metrics and the runner can be tested exactly and without a model.
One token is one word: text between white space.
"""

from __future__ import annotations

import math
import time
import zlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import Field

from harness.backends.failures import TurnTimedOutError, failure_of
from harness.backends.limits import Limits, fit
from harness.backends.seam import (
    EffectiveSettings,
    Forced,
    LoadReport,
    OnTokens,
    Preview,
    Reply,
    Session,
    TurnRequest,
)
from harness.backends.transcript import render_transcript
from harness.documents import Shape, read_document
from harness.documents import fit as fit_shape
from harness.errors import DocumentError, UsageError
from harness.meters.clock import HandCrankedClock, real_clock
from harness.meters.gauges import Gauges
from harness.records import Failure, FinishReason, KvCache, Length, Message, Persona, short_hash

Seconds = Annotated[float, Field(ge=0)]


class Breakdown(Shape):
    """A turn that fails after the prompt was read."""

    turn: Annotated[int, Field(ge=0, description="Index of the turn, from 0")]
    conversation: Annotated[str | None, Field(description="Only in this conversation; default: in every one")] = None
    kind: str = "Breakdown"
    message: str = "the script says so"


class Recital(Shape):
    """What to recite and how fast. Times are in seconds."""

    lines: Annotated[
        list[str], Field(min_length=1, description="Replies to the turns, again from the first at the end")
    ]
    conversations: dict[str, list[str]] = Field(
        default_factory=dict, description="Replies of single conversations, by turn"
    )
    template_s: Seconds = 0.0
    tokenize_s: Seconds = 0.0
    prefill_s: Annotated[Seconds, Field(description="Prompt ready to first id")] = 0.0
    token_s: Annotated[Seconds, Field(description="From one id to the next")] = 0.0
    detokenize_s: Seconds = 0.0
    ids_per_tick: list[Annotated[int, Field(ge=1)]] = Field(
        default_factory=lambda: [1], min_length=1, description="How many ids arrive together, in turns"
    )
    context_tokens: Annotated[int, Field(ge=1)] | None = None
    real_time: Annotated[
        Literal[True, False, "spin"],
        Field(description="Sleep for these times, or spin through them; otherwise a reply takes none"),
    ] = False
    logprobs: Annotated[
        list[Annotated[float, Field(lt=0)]] | None,
        Field(min_length=1, description="Log-probabilities of the ids of a reply that is forced, in turns"),
    ] = None
    breakdown: Breakdown | None = None


def read_recital(path: str | Path) -> Recital:
    """The recital in a YAML file; raises DocumentError with every mistake in it."""
    document = read_document(path)
    recital, problems = fit_shape(document.value, Recital)
    mistakes = document.mistakes(problems)
    if recital is None or mistakes:
        raise DocumentError(mistakes)
    return recital


class ScriptedBackend:
    """Recites a `Recital`. With a hand-cranked clock it moves the clock by exactly the recital's times."""

    def __init__(self, recital: Recital, *, kv_cache: KvCache = "reuse", clock: HandCrankedClock | None = None) -> None:
        self.recital = recital
        self.kv_cache = kv_cache
        self.report = LoadReport(
            0.0, 0.0, 0.0, 0.0, facts={"class": "ScriptedBackend", "context_tokens": recital.context_tokens}
        )
        self.gauges = Gauges()
        self._clock = clock
        self._words: dict[int, str] = {}

    def effective(self, sampling: Mapping[str, Any], length: Length) -> EffectiveSettings:
        """The sampling as it stands: nothing of it changes what is recited but the two length limits."""
        return EffectiveSettings(dict(_checked(sampling, length)))

    def preview(
        self,
        samplings: Mapping[str, Mapping[str, Any]],
        length: Length,
        messages: tuple[Message, ...],
        persona: Persona,
    ) -> Preview:
        prompt = render_transcript(messages, persona)
        effective = {name: self.effective(sampling, length) for name, sampling in samplings.items()}
        return Preview(prompt, len(prompt.split()), self.recital.context_tokens, effective)

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(self._words[one] for one in ids)

    def encode(self, text: str) -> list[int]:
        """One id per word: its CRC, so that equal prompts have equal hashes in every process."""
        ids = []
        for word in text.split():
            one = zlib.crc32(word.encode())
            self._words[one] = word
            ids.append(one)
        return ids

    def open_session(self) -> ScriptedSession:
        return ScriptedSession(self)

    why_not_together = None

    def reply_many(self, asked: Sequence[tuple[Session, TurnRequest]]) -> Sequence[Reply]:
        """Recite in lock-step: see `recite`."""
        return self.recite([(cast("ScriptedSession", session), request, _nobody) for session, request in asked])

    def recite(self, asked: Sequence[tuple[ScriptedSession, TurnRequest, OnTokens]]) -> list[Reply]:
        """Answer turns together. Prompts are made one after the other and read in one prefill; then every step gives
        each turn that goes on its next ids, and lasts as long as the most ids that a turn gets in it. A turn that has
        said all is decoded at once, while the others wait. Raises UsageError for `length: fixed` without
        max_new_tokens."""
        turns = [_Turn(self, session, request, on_tokens) for session, request, on_tokens in asked]
        for turn in turns:
            turn.make_prompt()
        recited = [turn for turn in turns if turn.reply is None]
        going = _those_going_on(recited)
        waited_for = 1  # the first id is waited for in the prefill
        if going:
            self.wait(self.recital.prefill_s)
        while going:
            self.wait((max(len(turn.chunks[0]) for turn in going) - waited_for) * self.recital.token_s)
            waited_for = 0
            for turn in going:
                turn.request.stopwatch.tick(len(turn.chunks[0]))
            for turn in going:
                turn.arrived(turn.chunks.pop(0))
            going = _those_going_on(going)
        return [
            replace(turn.reply, batch_size=len(recited)) if turn in recited else turn.reply
            for turn in turns
            if turn.reply is not None
        ]

    def wait(self, seconds: float) -> None:
        """Let the recital's time pass: on the hand-cranked clock, in reality, or not at all."""
        if self._clock is not None:
            self._clock.advance(round(seconds * 1e9))
        elif self.recital.real_time == "spin":
            spin(seconds)
        elif self.recital.real_time:
            time.sleep(seconds)


def spin(seconds: float) -> None:
    """Keep the processor busy for so long: a sleep ends late by as much as the system's timers allow themselves."""
    end = real_clock() + round(seconds * 1e9)
    while real_clock() < end:
        pass


class ScriptedSession:
    """One conversation with a `ScriptedBackend`."""

    def __init__(self, backend: ScriptedBackend) -> None:
        self._backend = backend
        self.held: list[int] = []
        """The ids in its cache."""
        self.dropped = 0

    def reply(self, request: TurnRequest, on_tokens: OnTokens) -> Reply:
        """Recite the line of this turn; raises UsageError for `length: fixed` without max_new_tokens."""
        return self._backend.recite([(self, request, on_tokens)])[0]

    def force(self, request: TurnRequest, ids: Sequence[int]) -> Forced:
        """The recital's own log-probabilities; all that is left falls to one other id, 0."""
        turn = _Turn(self._backend, self, request, _nobody)
        turn.make_prompt()
        told = self._backend.recital.logprobs
        if turn.prompt_hash is None or told is None:
            return Forced(turn.prompt_hash, why_not="a recital says nothing about other words")
        logprobs = tuple(islice(cycle(told), len(ids)))
        margins = tuple(one - math.log(-math.expm1(one)) for one in logprobs)
        return Forced(turn.prompt_hash, logprobs, (0,) * len(ids), margins)


class _Turn:
    """One turn that is being recited: `chunks` are the ids still to come, by arrival, until there is a `reply`."""

    def __init__(
        self, backend: ScriptedBackend, session: ScriptedSession, request: TurnRequest, on_tokens: OnTokens
    ) -> None:
        self.request = request
        self.reply: Reply | None = None
        self.chunks: list[list[int]] = []
        self._backend = backend
        self._session = session
        self._on_tokens = on_tokens
        self._limits = Limits.of(_checked(request.sampling, request.length), backend.recital.context_tokens)
        self._prompt: list[int] = []
        self._facts: dict[str, Any] = {}
        self._room: int | None = None
        self._said: list[int] = []
        self._ids: list[int] = []
        self._cached = 0

    def make_prompt(self) -> None:
        backend, request, session = self._backend, self.request, self._session
        backend.wait(backend.recital.template_s)
        try:
            fitted = fit(
                request.messages,
                lambda messages: backend.encode(render_transcript(messages, request.persona)),
                len,
                self._limits,
                request.on_overflow,
                session.dropped,
            )
        except Exception as error:  # noqa: BLE001 - whatever happens inside a turn is that turn's failure
            self.reply = Reply(failure=failure_of(error, "tokenize"))
            return
        request.stopwatch.templated()
        backend.wait(backend.recital.tokenize_s)
        request.stopwatch.tokenized()
        self._prompt, session.dropped = fitted.prompt, fitted.dropped
        self._facts = {
            "prompt_tokens": len(fitted.prompt),
            "prompt_hash": short_hash(array("q", fitted.prompt).tobytes()),
            "dropped_messages": fitted.dropped,
        }
        failure = self._breakdown()
        if failure is not None:
            self.reply = Reply(failure=failure, **self._facts)
            return
        self._room = self._limits.room(len(fitted.prompt))
        self._said = backend.encode(self._line())
        if request.length == "fixed":
            self._said = list(islice(cycle(self._said), self._room)) if self._said else []
        self._ids = self._said if self._room is None else self._said[: self._room]
        self._cached = self._common_prefix()
        sizes, left = cycle(backend.recital.ids_per_tick), self._ids
        while left:
            size = next(sizes)
            self.chunks.append(left[:size])
            left = left[size:]

    @property
    def prompt_hash(self) -> str | None:
        """None where no prompt could be made."""
        return self._facts.get("prompt_hash")

    def arrived(self, chunk: list[int]) -> None:
        """These ids have been ticked."""
        request = self.request
        try:
            self._on_tokens(chunk)
            if request.timeout_s is not None and request.stopwatch.elapsed_s() > request.timeout_s:
                raise TurnTimedOutError(f"the turn took longer than {request.timeout_s} s")
        except Exception as error:  # noqa: BLE001 - whatever happens inside a turn is that turn's failure
            self.reply = Reply(failure=failure_of(error, "decode"), **self._facts)

    def end(self) -> None:
        """All its ids have arrived."""
        request, room, ids, limits = self.request, self._room, self._ids, self._limits
        if room != 0:
            request.stopwatch.generated()
            self._backend.wait(self._backend.recital.detokenize_s)
        text = self._backend.decode(ids)
        if room != 0:
            request.stopwatch.ready()
        cut = room is not None and (len(self._said) > room or room == 0 or request.length == "fixed")
        reason: FinishReason = limits.reached(len(ids)) if cut else "eos"
        self._session.held = self._prompt + ids[:-1] if self._backend.kv_cache == "reuse" else []
        self.reply = Reply(
            text=text,
            finish_reason=reason,
            cached_tokens=self._cached if room != 0 else None,
            completion_ids=tuple(ids),
            completion_tokens=len(ids),
            tokens_left=limits.left(len(self._prompt), len(ids)),
            visible_ids=1 if ids else None,
            answer_ids=1 if ids else None,
            gold_tokens=None if request.gold is None else len(request.gold.split()),
            **self._facts,
        )

    def _line(self) -> str:
        recital, request = self._backend.recital, self.request
        lines = recital.conversations.get(request.conversation_id) or recital.lines
        return lines[request.turn_index % len(lines)]

    def _breakdown(self) -> Failure | None:
        planned = self._backend.recital.breakdown
        if planned is None or planned.turn != self.request.turn_index:
            return None
        if planned.conversation not in (None, self.request.conversation_id):
            return None
        return Failure(planned.kind, "prefill", planned.message)

    def _common_prefix(self) -> int:
        same = 0
        for held, wanted in zip(self._session.held, self._prompt[:-1], strict=False):
            if held != wanted:
                break
            same += 1
        return same


def _those_going_on(turns: Sequence[_Turn]) -> list[_Turn]:
    """Who has ids to come; the others end here, one after the other."""
    for turn in turns:
        if turn.reply is None and not turn.chunks:
            turn.end()
    return [turn for turn in turns if turn.reply is None]


def _nobody(ids: Sequence[int]) -> None:
    """Who listens to turns that are recited together."""


def _checked(sampling: Mapping[str, Any], length: Length) -> Mapping[str, Any]:
    if length == "fixed" and sampling.get("max_new_tokens") is None:
        raise UsageError("length: fixed", "needs max_new_tokens", "set sampling.max_new_tokens")
    return sampling
