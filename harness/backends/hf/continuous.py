"""The engine `continuous`: transformers' own continuous batching.

A manager runs the model in a thread of its own: requests join at any step and leave when they are done, on a paged
cache. It stamps every id on `time.perf_counter`, which is our clock too, so its stamps are taken as they are; of a
request we hear only when it is finished. Every turn is a whole prompt: nothing is kept between turns, and prefixes are
not shared, or a turn would be as fast as whoever was asked before it made it.

A manager is made for one sampling, and for so many requests of such a length; making one takes milliseconds, ending one
half a second, so they are kept, one for each sampling. One that has nothing to do looks for work ten times a second.

It is wrong, or fails, for architectures that compute attention in their own way, and drops settings it does not know:
both are refused. Logits are not looked at: a model that computes NaN says something all the same, unless it samples.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import replace
from math import ceil
from threading import Thread, current_thread, main_thread
from typing import TYPE_CHECKING, Any

import torch
from transformers import ContinuousBatchingConfig, DynamicCache, PreTrainedConfig, PreTrainedModel

from harness.backends.failures import TurnTimedOutError
from harness.backends.hf.cache import only_keys_and_values
from harness.backends.hf.generate import Generated
from harness.backends.hf.lockstep import stretches_after
from harness.backends.hf.sampler import LastScores
from harness.backends.hf.settings import NEUTRAL, Settled
from harness.backends.hf.together import Asked, Row, answer_rows
from harness.backends.seam import Reply
from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.backends.hf.backend import HfBackend

_WRONG = ("nemotron",)
"""Models that claim to compute attention as all others do, and fail (transformers 5.23)."""
_ATTENTIONS = (None, "eager", "sdpa", "flash_attention_2", "flash_attention_3")
_TAKEN = {
    "do_sample", "temperature", "top_k", "top_p", "max_new_tokens", "max_length", "eos_token_id", "pad_token_id",
    "bos_token_id", "use_cache",
}  # fmt: skip
"""The settings it carries out, and those it has no need of; it drops all others in silence."""
_BATCH_TOKENS = 2048
"""The most ids one step may process; longer prompts take several. Its attention mask has so many rows."""
_SHORTEST = 512
"""Room for at least so many ids per request, so that a growing conversation seldom needs another manager."""
_LOOK_S = 1.0
"""How often the wait for a request is interrupted to see whether the thread is still there."""


class RequestFailed(RuntimeError):  # noqa: N818 - the kind it is recorded as
    """A request came back with an error, or did not come back."""


def why_not_continuous(
    model_class: type[PreTrainedModel], config: PreTrainedConfig, attention: str | None
) -> str | None:
    """Why continuous batching cannot be used for a model, with the attention it is to be computed with; None if it
    can."""
    text: Any = config.get_text_config(decoder=True)
    cls: Any = model_class
    if not all(only_keys_and_values(layer) for layer in DynamicCache(config=text).layers):
        return f"{text.model_type} has recurrent states"
    if text.model_type in _WRONG or not cls._supports_attention_backend:
        return f"{text.model_type} computes attention in a way of its own"
    if attention not in _ATTENTIONS:
        return f"{attention} has no paged form"
    if stretches_after(config) is not None:
        return f"{text.model_type}'s rotary embedding changes with the longest request"
    return None


def refuse_settings(settled: Settled, stop_strings: Sequence[str]) -> None:
    """Raise UsageError for settings that continuous batching would drop; `stop_strings` are the chat format's."""
    if settled.length == "natural" and (settled.stop_strings or stop_strings):
        whose = "sampling.stop_strings" if settled.stop_strings else "chat_format: transcript"
        raise UsageError(whose, "engine: continuous knows no stop strings", "use engine: batched")
    unknown = {
        name
        for name, value in settled.effective.values.items()
        if value not in (False, 0) and NEUTRAL.get(name) != value
    } - _TAKEN
    if settled.length == "fixed":  # there is no end of text to be kept from
        unknown -= {"min_new_tokens"}
    if unknown:
        remedy = "use engine: batched, or null to do without where the model itself sets it"
        raise UsageError(f"sampling.{min(unknown)}", "engine: continuous would drop it", remedy)


class Continuous:
    """Answers requests of several sessions together. One per loaded model: its managers live as long as it does."""

    def __init__(self, backend: HfBackend) -> None:
        self._backend = backend
        self._managers: dict[int, _Manager] = {}
        weakref.finalize(self, _stop_all, self._managers)  # at the end of the process too

    def reply(self, asked: Asked) -> list[Reply]:
        """Answer one request of each session: see `together.answer_rows`."""
        return answer_rows(asked, self._backend.settled, self._answer)

    def _answer(self, rows: Sequence[Row]) -> None:
        settled = rows[0].turn.settled
        manager = self._manager(settled, len(rows), max(len(row.turn.prompt_ids) + row.turn.room for row in rows))
        torch.manual_seed(sum(row.turn.request.seed for row in rows) % 2**32)  # a lone request's own
        waiting = {manager.add(row): row for row in rows}
        while waiting:
            result = manager.next_result(_patience_s(waiting.values()))
            row = waiting.pop(result.request_id, None) if result is not None else None
            if row is not None and result is not None:
                self._take(row, result, len(rows))
            for name, late in [*waiting.items()]:
                if _is_late(late):
                    manager.cancel(name)
                    _time_out(waiting.pop(name))

    def _take(self, row: Row, result: Any, together: int) -> None:
        turn, ids = row.turn, tuple(result.generated_tokens)
        turn.phase = "decode" if ids else "prefill"
        try:
            if result.error is not None:
                raise RequestFailed(str(result.error))
            if len(result.timestamps) != len(ids):
                # The paged cache was full and the request was begun again: when its first ids came is forgotten.
                raise RequestFailed("the request was interrupted, and not all of its ids have a time")
            turn.request.stopwatch.generated_elsewhere(
                [round(stamp * 1e9) for stamp in result.timestamps], round(result.lifespan[1] * 1e9)
            )
            for one in ids:
                turn.arrived([one], row.on_tokens)
            if _is_late(row):
                _time_out(row)
                return
            generated = Generated(ids, stopped=False, last=LastScores(make_finite=False), cached=0, cache=None)
            reply = row.session.finish(turn, generated)
            paired = together == 1 or not turn.settled.config.do_sample
            row.reply = replace(reply, batch_size=together, paired=paired)
        except Exception as error:  # noqa: BLE001 - whatever happens inside a turn is that turn's failure
            row.fail(error)

    def _manager(self, settled: Settled, requests: int, tokens: int) -> _Manager:
        """The manager of these settings, a new one if there is none that is alive and large enough."""
        manager = self._managers.get(id(settled))
        if manager is not None and not manager.fits(requests, tokens):
            manager.stop()
            requests, tokens = max(requests, manager.requests), max(tokens, manager.tokens)
            manager = None
        if manager is None:
            manager = _Manager(self._backend.model, settled, requests, tokens)
            self._managers[id(settled)] = manager  # the backend keeps its settings, so ids stay what they are
        return manager


class _Manager:
    """One of transformers' managers, running, for `requests` at a time of up to `tokens` ids each."""

    def __init__(self, model: PreTrainedModel, settled: Settled, requests: int, tokens: int) -> None:
        self.requests, self.tokens = requests, _SHORTEST
        while self.tokens < tokens:
            self.tokens *= 2
        config = copy(settled.config)
        self._eos: Any = sorted(settled.eos_ids) or -1
        config.eos_token_id = self._eos
        batching = ContinuousBatchingConfig(
            max_batch_tokens=min(_BATCH_TOKENS, requests * self.tokens),
            allow_block_sharing=False,
            safety_margin=0.0,  # there is room for all that is asked, so nobody is to wait for it
        )
        # Two blocks more than a request needs: layers with a window have blocks of their own.
        batching.num_blocks = requests * (ceil(self.tokens / batching.page_size) + 2)
        if hasattr(batching, "auto_switch_to_flash"):
            batching.auto_switch_to_flash = False  # what is measured is the attention that was asked for
        made: Any = model
        self._manager = made.init_continuous_batching(generation_config=config, continuous_batching_config=batching)
        self._manager.warmup()
        # A thread inherits from the one that starts it that it does not keep the process alive.
        starter = Thread(target=self._manager.start, daemon=True)
        starter.start()
        starter.join()

    def fits(self, requests: int, tokens: int) -> bool:
        return bool(self._manager.is_running()) and requests <= self.requests and tokens <= self.tokens

    def add(self, row: Row) -> str:
        """Hand a request over; returns the name it comes back under."""
        name = self._manager.add_request(
            row.turn.prompt_ids, max_new_tokens=row.turn.room, record_timestamps=True, eos_token_id=self._eos
        )
        if name is None:
            raise RequestFailed("the manager takes no requests any more")
        return str(name)

    def next_result(self, patience_s: float) -> Any:
        """The next request that came to an end; None after `patience_s` seconds without one. Raises RequestFailed where
        nothing can come any more."""
        result = self._manager.get_result(timeout=patience_s)
        if result is None and not self._manager.is_running():
            raise RequestFailed("the thread that generates has ended")
        return result if result is not None and result.is_finished() else None

    def cancel(self, name: str) -> None:
        self._manager.cancel_request(name)

    def stop(self) -> None:
        """End the thread; a process that exits while it runs is aborted. It may be that very thread that comes here,
        collecting garbage, and it cannot wait for itself."""
        if self._manager.is_running():
            self._manager.stop(block=current_thread() is main_thread(), hard_stop=True)


def _stop_all(managers: dict[int, _Manager]) -> None:
    for manager in managers.values():
        manager.stop()
    managers.clear()


def _patience_s(rows: Iterable[Row]) -> float:
    left: list[float] = [
        row.turn.request.timeout_s - row.turn.request.stopwatch.elapsed_s()
        for row in rows
        if row.turn.request.timeout_s is not None
    ]
    return max(0.0, min([*left, _LOOK_S]))


def _is_late(row: Row) -> bool:
    request = row.turn.request
    return request.timeout_s is not None and request.stopwatch.elapsed_s() > request.timeout_s


def _time_out(row: Row) -> None:
    row.turn.phase = "decode"  # how far it had come only the engine's thread knows
    row.fail(TurnTimedOutError(f"the turn took longer than {row.turn.request.timeout_s} s"))
