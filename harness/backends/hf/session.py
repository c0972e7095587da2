"""One conversation with a loaded model: the path of a turn from messages to text."""

from __future__ import annotations

import gc
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.backends.failures import failure_of
from harness.backends.hf.cache import ConversationCache
from harness.backends.hf.generate import Generated, free_memory, generate, synchronize
from harness.backends.hf.reasoning import Reader
from harness.backends.hf.settings import Settled
from harness.backends.limits import Fitted, fit
from harness.backends.seam import OnTokens, Reply, TurnRequest
from harness.records import Failure, FinishReason, Message, short_hash

if TYPE_CHECKING:
    from harness.backends.hf.backend import HfBackend


@dataclass(slots=True)
class _Prompt:
    text: str
    ids: list[int]
    notices: tuple[str, ...]


@dataclass(slots=True)
class _Progress:
    """How far a turn has come, for the record of one that fails."""

    phase: str = "template"
    facts: dict[str, Any] = field(default_factory=dict)


class HfSession:
    """One conversation. Its key/value cache lives as long as it does."""

    def __init__(self, backend: HfBackend) -> None:
        self._backend = backend
        self._cache = ConversationCache(backend.model, backend.spec.kv_cache)
        self._dropped = 0

    def reply(self, request: TurnRequest, on_tokens: OnTokens) -> Reply:
        """Answer one request. What goes wrong is in the reply; only a sampling that cannot be carried out at all
        raises (UsageError)."""
        settled = self._backend.settled(request.sampling, request.length)
        progress = _Progress()
        failure: Failure | None = None
        try:
            reply = self._answer(request, settled, on_tokens, progress)
        except Exception as error:  # noqa: BLE001 - whatever happens inside a turn is that turn's failure
            failure = failure_of(error, progress.phase)
        if failure is not None:
            # Only here, outside the except block, has the traceback let go of the tensors it held, the cache's among
            # them: what was taken for this turn is not held any more.
            if failure.kind == "OutOfMemory":
                gc.collect()
                free_memory()
            return Reply(failure=failure, **progress.facts)
        synchronize()  # what this turn left on the device is no business of the next turn's stopwatch
        return reply

    def _answer(self, request: TurnRequest, settled: Settled, on_tokens: OnTokens, progress: _Progress) -> Reply:
        watch, limits = request.stopwatch, settled.limits
        fitted = self._prompt(request, settled, progress)
        watch.tokenized()
        prompt = fitted.prompt
        self._dropped = fitted.dropped
        progress.facts = {
            "prompt_tokens": len(prompt.ids),
            "prompt_hash": short_hash(array("q", prompt.ids).tobytes()),
            "dropped_messages": fitted.dropped,
            "notices": prompt.notices,
        }
        progress.phase = "prefill"
        room = limits.room(len(prompt.ids))
        assert room is not None, "settle() always sets max_new_tokens or max_length"
        if room == 0:
            return Reply(
                text="",
                finish_reason=limits.total_reason,
                completion_tokens=0,
                tokens_left=0,
                gold_tokens=self._backend.count(request.gold),
                **progress.facts,
            )
        strings = settled.stop_strings
        if request.length == "natural":
            strings += self._backend.format.stop_strings(request.persona)
        reader = Reader(self._backend.tokenizer, self._backend.specials, prompt.text, strings)
        cache, cached = self._cache.take(prompt.ids) if self._backend.may_hold(settled) else (None, 0)

        def arrived(ids: Any) -> None:
            progress.phase = "decode"
            on_tokens(ids)

        generated = generate(
            self._backend.model,
            prompt.ids,
            settled,
            room=room,
            seed=request.seed,
            cache=cache,
            stopwatch=watch,
            on_tokens=arrived,
            timeout_s=request.timeout_s,
            stop_found=reader.stop_found if strings else None,
        )
        progress.phase = "detokenize"
        said = reader.read(generated.ids)
        watch.ready()
        progress.phase = "decode"
        generated.demand_finite()
        ids = generated.ids
        self._cache.keep(cache, [*prompt.ids, *ids])
        return Reply(
            text=said.answer,
            reasoning=said.reasoning,
            finish_reason=self._finish_reason(generated, settled),
            cached_tokens=cached,
            completion_ids=ids,
            completion_tokens=len(ids),
            tokens_left=limits.left(len(prompt.ids), len(ids)),
            visible_ids=reader.visible_ids(ids),
            answer_ids=reader.answer_ids(ids),
            gold_tokens=self._backend.count(request.gold),
            **progress.facts,
        )

    def _prompt(self, request: TurnRequest, settled: Settled, progress: _Progress) -> Fitted[_Prompt]:
        """Render and encode under the overflow rule. The first rendering is the templating that is stamped; rendering
        again with fewer messages counts as tokenising."""
        templated = False

        def render(messages: tuple[Message, ...]) -> _Prompt:
            nonlocal templated
            text, notices = self._backend.format.render(messages, request.persona)
            if not templated:
                request.stopwatch.templated()
                templated = True
                progress.phase = "tokenize"
            return _Prompt(text, self._backend.format.encode(text), notices)

        return fit(
            request.messages,
            render,
            lambda prompt: len(prompt.ids),
            settled.limits,
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
