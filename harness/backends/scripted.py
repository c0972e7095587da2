"""A backend that recites: known lines, on a known clock.

It is the second implementation of the seam. With a `HandCrankedClock` every stamp of a turn is known to the
nanosecond before the turn begins, so the loop, the metrics and the runner can be tested exactly and without a model.
One token is one word: text between white space.
"""

from __future__ import annotations

import time
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from harness.backends.failures import TurnTimedOutError, failure_of
from harness.backends.limits import Limits, fit
from harness.backends.seam import EffectiveSettings, LoadReport, OnTokens, Preview, Reply, Session, TurnRequest
from harness.backends.transcript import render_transcript
from harness.documents import Shape, read_document
from harness.documents import fit as fit_shape
from harness.errors import DocumentError, UsageError
from harness.meters.clock import HandCrankedClock
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
    conversations: Annotated[
        dict[str, list[str]], Field(description="Replies of single conversations, by turn", default_factory=dict)
    ]
    template_s: Seconds = 0.0
    tokenize_s: Seconds = 0.0
    prefill_s: Annotated[Seconds, Field(description="Prompt ready to first id")] = 0.0
    token_s: Annotated[Seconds, Field(description="From one id to the next")] = 0.0
    detokenize_s: Seconds = 0.0
    ids_per_tick: Annotated[
        list[Annotated[int, Field(ge=1)]],
        Field(min_length=1, description="How many ids arrive together, in turns", default_factory=lambda: [1]),
    ]
    context_tokens: Annotated[int, Field(ge=1)] | None = None
    real_time: Annotated[bool, Field(description="Sleep for these times; otherwise a reply takes none")] = False
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
        """One recital after the other: whoever is asked later waits for those before."""
        replies = [session.reply(request, lambda ids: None) for session, request in asked]
        return [replace(reply, batch_size=len(asked)) for reply in replies]

    def wait(self, seconds: float) -> None:
        """Let the recital's time pass: on the hand-cranked clock, in reality, or not at all."""
        if self._clock is not None:
            self._clock.advance(round(seconds * 1e9))
        elif self.recital.real_time:
            time.sleep(seconds)


class ScriptedSession:
    """One conversation with a `ScriptedBackend`."""

    def __init__(self, backend: ScriptedBackend) -> None:
        self._backend = backend
        self._held: list[int] = []
        self._dropped = 0

    def reply(self, request: TurnRequest, on_tokens: OnTokens) -> Reply:
        """Recite the line of this turn; raises UsageError for `length: fixed` without max_new_tokens."""
        recital, watch = self._backend.recital, request.stopwatch
        limits = Limits.of(_checked(request.sampling, request.length), recital.context_tokens)
        self._backend.wait(recital.template_s)
        try:
            fitted = fit(
                request.messages,
                lambda messages: self._backend.encode(render_transcript(messages, request.persona)),
                len,
                limits,
                request.on_overflow,
                self._dropped,
            )
        except Exception as error:  # noqa: BLE001 - whatever happens inside a turn is that turn's failure
            return Reply(failure=failure_of(error, "tokenize"))
        watch.templated()
        self._backend.wait(recital.tokenize_s)
        watch.tokenized()
        self._dropped = fitted.dropped
        facts: dict[str, Any] = {
            "prompt_tokens": len(fitted.prompt),
            "prompt_hash": short_hash(array("q", fitted.prompt).tobytes()),
            "dropped_messages": fitted.dropped,
        }
        failure = self._breakdown(request)
        if failure is not None:
            return Reply(failure=failure, **facts)
        return self._recite(request, fitted.prompt, limits, on_tokens, facts)

    def _recite(
        self, request: TurnRequest, prompt: list[int], limits: Limits, on_tokens: OnTokens, facts: dict[str, Any]
    ) -> Reply:
        recital, watch = self._backend.recital, request.stopwatch
        said = self._backend.encode(self._line(request))
        room = limits.room(len(prompt))
        if request.length == "fixed":
            said = list(islice(cycle(said), room)) if said else said
        ids = said if room is None else said[:room]
        cached = self._cached(prompt)
        if ids:
            self._backend.wait(recital.prefill_s)
        try:
            for chunk, pause in self._chunks(ids):
                self._backend.wait(pause)
                watch.tick(len(chunk))
                on_tokens(chunk)
                if request.timeout_s is not None and watch.elapsed_s() > request.timeout_s:
                    raise TurnTimedOutError(f"the turn took longer than {request.timeout_s} s")
        except Exception as error:  # noqa: BLE001 - whatever happens inside a turn is that turn's failure
            return Reply(failure=failure_of(error, "decode"), **facts)
        if room != 0:
            watch.generated()
            self._backend.wait(recital.detokenize_s)
        text = self._backend.decode(ids)
        if room != 0:
            watch.ready()
        cut = room is not None and (len(said) > room or room == 0 or request.length == "fixed")
        reason: FinishReason = limits.reached(len(ids)) if cut else "eos"
        self._held = prompt + ids[:-1] if self._backend.kv_cache == "reuse" else []
        return Reply(
            text=text,
            finish_reason=reason,
            cached_tokens=cached if room != 0 else None,
            completion_ids=tuple(ids),
            completion_tokens=len(ids),
            tokens_left=limits.left(len(prompt), len(ids)),
            visible_ids=1 if ids else None,
            answer_ids=1 if ids else None,
            gold_tokens=None if request.gold is None else len(request.gold.split()),
            **facts,
        )

    def _line(self, request: TurnRequest) -> str:
        lines = self._backend.recital.conversations.get(request.conversation_id) or self._backend.recital.lines
        return lines[request.turn_index % len(lines)]

    def _breakdown(self, request: TurnRequest) -> Failure | None:
        planned = self._backend.recital.breakdown
        if planned is None or planned.turn != request.turn_index:
            return None
        if planned.conversation not in (None, request.conversation_id):
            return None
        return Failure(planned.kind, "prefill", planned.message)

    def _cached(self, prompt: list[int]) -> int:
        same = 0
        for held, wanted in zip(self._held, prompt[:-1], strict=False):
            if held != wanted:
                break
            same += 1
        return same

    def _chunks(self, ids: list[int]) -> Iterator[tuple[list[int], float]]:
        """(ids that arrive together, seconds to wait for them); the first id itself has been waited for."""
        done = 0
        for size in cycle(self._backend.recital.ids_per_tick):
            if done >= len(ids):
                return
            chunk = ids[done : done + size]
            yield chunk, (len(chunk) - (1 if done == 0 else 0)) * self._backend.recital.token_s
            done += len(chunk)


def _checked(sampling: Mapping[str, Any], length: Length) -> Mapping[str, Any]:
    if length == "fixed" and sampling.get("max_new_tokens") is None:
        raise UsageError("length: fixed", "needs max_new_tokens", "set sampling.max_new_tokens")
    return sampling
