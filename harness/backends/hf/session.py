"""One conversation with a loaded model: the path of a turn from messages to text."""

from __future__ import annotations

import gc
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from harness.backends.failures import failure_of
from harness.backends.hf.cache import bytes_of
from harness.backends.hf.force import force, why_not_forced
from harness.backends.hf.generate import Generated, free_memory, synchronize
from harness.backends.hf.reasoning import Reader, Said
from harness.backends.hf.settings import Settled
from harness.backends.limits import Fitted, fit
from harness.backends.seam import Forced, OnTokens, Reply, TurnRequest
from harness.records import Failure, FinishReason, Message, short_hash

if TYPE_CHECKING:
    from harness.backends.hf.backend import HfBackend


@dataclass(slots=True)
class _Prompt:
    text: str
    ids: list[int]
    notices: tuple[str, ...]


@dataclass(slots=True)
class OpenTurn:
    """A turn whose prompt is ready, and how far it has come since: what an engine is given to answer."""

    request: TurnRequest
    settled: Settled
    phase: str = "template"
    """Where a failure would have struck."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What is known of the turn whatever becomes of it, for its reply."""
    prompt_ids: list[int] = field(default_factory=list)
    room: int = 0
    """How many ids may be generated; with none there is nothing to do."""
    reader: Reader | None = None
    stop_found: Callable[[list[int]], bool] | None = None
    """Whether the generated ids hold a stop string; None where there is none to look for."""

    def arrived(self, ids: Sequence[int], on_tokens: OnTokens) -> None:
        """The engine's word that these ids have just been ticked."""
        self.phase = "decode"
        on_tokens(ids)


class HfSession:
    """One conversation. Its engine, with the key/value cache, lives as long as it does."""

    def __init__(self, backend: HfBackend) -> None:
        self._backend = backend
        self._engine = backend.open_engine()
        self._dropped = 0

    def reply(self, request: TurnRequest, on_tokens: OnTokens) -> Reply:
        """Answer one request. What goes wrong is in the reply; only a sampling that cannot be carried out at all
        raises (UsageError)."""
        if self._backend.together is not None:
            return self._backend.together.reply([(self, request, on_tokens)])[0]
        turn = OpenTurn(request, self._backend.settled(request.sampling, request.length))
        failure: Failure | None = None
        try:
            reply = self._answer(turn, on_tokens)
        except Exception as error:  # noqa: BLE001 - whatever happens inside a turn is that turn's failure
            failure = failure_of(error, turn.phase)
        if failure is not None:
            # Only here, outside the except block, has the traceback let go of the tensors it held, the cache's among
            # them: what was taken for this turn is not held any more.
            if failure.kind == "OutOfMemory":
                gc.collect()
                free_memory()
            return Reply(failure=failure, **turn.facts)
        synchronize()  # what this turn left on the device is no business of the next turn's stopwatch
        return reply

    def force(self, request: TurnRequest, ids: Sequence[int]) -> Forced:
        """How likely these ids are as the reply to a request: by the model's plain forward, whatever the engine."""
        backend = self._backend
        turn = OpenTurn(request, backend.settled(request.sampling, request.length))
        try:
            self.prepare(turn)
            why_not = why_not_forced(backend.model, len(turn.prompt_ids), ids, backend.context_tokens)
            if why_not is None:
                return force(backend.model, turn.prompt_ids, ids, turn.facts["prompt_hash"])
        except Exception as error:  # noqa: BLE001 - what cannot be forced is a reply without log-probabilities
            failure = failure_of(error, turn.phase)
            why_not = f"{failure.kind}: {failure.message}"
        free_memory()
        return Forced(turn.facts.get("prompt_hash"), why_not=why_not)

    def _answer(self, turn: OpenTurn, on_tokens: OnTokens) -> Reply:
        self.prepare(turn)
        if turn.room == 0:
            return self.nothing(turn)
        assert self._engine is not None, "a session has an engine of its own, or shares one"
        generated = self._engine.answer(turn, on_tokens)
        reply = self.finish(turn, generated)
        self._engine.keep(turn, generated)
        return replace(reply, kv_cache_bytes=None if generated.cache is None else bytes_of(generated.cache))

    def prepare(self, turn: OpenTurn) -> None:
        """Make the prompt: stamps `templated` and `tokenized`. Raises whatever a template or the overflow rule does."""
        request, settled = turn.request, turn.settled
        fitted = self._prompt(turn)
        request.stopwatch.tokenized()
        prompt = fitted.prompt
        self._dropped = fitted.dropped
        turn.facts = {
            "prompt_tokens": len(prompt.ids),
            "prompt_hash": short_hash(array("q", prompt.ids).tobytes()),
            "dropped_messages": fitted.dropped,
            "notices": prompt.notices,
        }
        turn.phase = "prefill"
        turn.prompt_ids = prompt.ids
        room = settled.limits.room(len(prompt.ids))
        assert room is not None, "settle() always sets max_new_tokens or max_length"
        turn.room = room
        strings = settled.stop_strings
        if request.length == "natural":
            strings += self._backend.format.stop_strings(request.persona)
        turn.reader = Reader(self._backend.tokenizer, self._backend.specials, prompt.text, strings)
        turn.stop_found = turn.reader.stop_found if strings else None

    def nothing(self, turn: OpenTurn) -> Reply:
        """The reply to a prompt that leaves no room for a single id."""
        return Reply(
            text="",
            finish_reason=turn.settled.limits.total_reason,
            completion_tokens=0,
            tokens_left=0,
            gold_tokens=self._backend.count(turn.request.gold),
            **turn.facts,
        )

    def finish(self, turn: OpenTurn, generated: Generated) -> Reply:
        """Read what was generated: stamps `ready`. Raises NonFiniteLogitsError where the logits were not numbers."""
        return self.told(turn, generated, self.read(turn, generated.ids))

    def read(self, turn: OpenTurn, ids: Sequence[int]) -> Said:
        """The text of what was generated: stamps `ready`."""
        assert turn.reader is not None, "the turn was prepared"
        turn.phase = "detokenize"
        said = turn.reader.read(ids)
        turn.request.stopwatch.ready()
        return said

    def told(self, turn: OpenTurn, generated: Generated, said: Said) -> Reply:
        """The reply to a turn that was read; nothing of this is timed. Raises NonFiniteLogitsError."""
        assert turn.reader is not None, "the turn was prepared"
        turn.phase = "decode"
        generated.demand_finite()
        ids = generated.ids
        return Reply(
            text=said.answer,
            reasoning=said.reasoning,
            finish_reason=self._finish_reason(generated, turn.settled),
            cached_tokens=generated.cached,
            completion_ids=ids,
            completion_tokens=len(ids),
            tokens_left=turn.settled.limits.left(len(turn.prompt_ids), len(ids)),
            visible_ids=turn.reader.visible_ids(ids),
            answer_ids=turn.reader.answer_ids(ids),
            gold_tokens=self._backend.count(turn.request.gold),
            **turn.facts,
        )

    def _prompt(self, turn: OpenTurn) -> Fitted[_Prompt]:
        """Render and encode under the overflow rule. The first rendering is the templating that is stamped; rendering
        again with fewer messages counts as tokenising."""
        request = turn.request
        templated = False

        def render(messages: tuple[Message, ...]) -> _Prompt:
            nonlocal templated
            text, notices = self._backend.format.render(messages, request.persona)
            if not templated:
                request.stopwatch.templated()
                templated = True
                turn.phase = "tokenize"
            return _Prompt(text, self._backend.format.encode(text), notices)

        return fit(
            request.messages,
            render,
            lambda prompt: len(prompt.ids),
            turn.settled.limits,
            request.on_overflow,
            self._dropped if request.on_overflow == "drop_oldest" else 0,
        )

    def _finish_reason(self, generated: Generated, settled: Settled) -> FinishReason:
        if generated.stopped:
            return "stop"
        last = generated.ids[-1]
        if last in settled.eos_ids:
            return "stop" if last in self._backend.format.stop_ids() else "eos"
        return settled.limits.reached(len(generated.ids))
