"""The engine `generate`: stock `model.generate`, with a clock where its ids arrive on the host.

generate hands a streamer the prompt once and then every new id, after the id has been copied to the host – a copy it
makes anyway, to see whether it may stop. So a stamp taken there is exact and adds no stall. (A stopping criterion or a
logits processor would, on an accelerator, stamp the moment a kernel was *queued*.) Text streamers hold back words and
are of no use for timing.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import LogitsProcessorList, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.generation import utils as generation_utils
from transformers.generation.streamers import BaseStreamer

from harness.backends.hf.arrivals import Arrivals
from harness.backends.hf.cache import ConversationCache
from harness.backends.hf.sampler import LastScores, for_turn
from harness.backends.hf.settings import speculates
from harness.backends.seam import OnTokens
from harness.records import KvCache

if TYPE_CHECKING:
    from harness.backends.hf.session import OpenTurn


class _StopStringFound(Exception):  # noqa: N818 - not an error: how a streamer ends generate
    """The reply contains a stop string: what follows would be cut off anyway."""


class _IdClock(BaseStreamer):
    """Passes every arrival of ids on, and ends the turn at a stop string or a time-out.

    An exception is the only way out of generate that is taken after the id was stamped.
    """

    def __init__(self, arrivals: Arrivals) -> None:
        self._prompt_seen = False
        self._arrivals = arrivals

    def put(self, value: torch.Tensor) -> None:
        """`value` is on the host: the prompt, (1, n), then one id, (1,), or a block of accepted ones, (1, k)."""
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        self._arrivals.come(value.flatten().tolist())
        if self._arrivals.stopped:
            raise _StopStringFound

    def end(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Generated:
    """What an engine generated: ids, an emitted end of text included, and whether a stop string ended it."""

    ids: tuple[int, ...]
    stopped: bool
    last: LastScores
    cached: int
    """How many ids of the prompt were served from the conversation's cache."""
    cache: Cache | None
    """The cache that this turn filled; None where the engine does not see it."""

    def demand_finite(self) -> None:
        """Raise NonFiniteLogitsError if the model's last logits were not finite. Costs a synchronisation."""
        self.last.demand_finite()


class Generate:
    """Stock `model.generate` for the turns of one conversation."""

    def __init__(self, model: PreTrainedModel, kv_cache: KvCache) -> None:
        self._model = model
        self._cache = ConversationCache(model, kv_cache)

    def answer(self, turn: OpenTurn, on_tokens: OnTokens) -> Generated:
        """Generate up to `turn.room` ids. Stamps `generated`; raises TurnTimedOutError and whatever torch raises."""
        model, config = self._model, turn.settled.config
        device = input_device(model)
        arrivals, last = Arrivals(turn, on_tokens), LastScores.of(config, device)
        inputs = torch.tensor([turn.prompt_ids], dtype=torch.long, device=device)
        # Without a mask generate guesses one from the padding id, which may be an ordinary id of the prompt.
        arguments: dict[str, Any] = {"attention_mask": torch.ones_like(inputs)}
        cache, cached = self._take(turn)
        if cache is not None:
            arguments[str(self._cache.argument)] = cache
        torch.manual_seed(turn.request.seed)
        engine: Any = model.generate
        with torch.inference_mode(), suppress(_StopStringFound):
            engine(
                inputs,
                generation_config=for_turn(config, len(turn.prompt_ids), turn.room),
                streamer=_IdClock(arrivals),
                logits_processor=LogitsProcessorList([last]),
                **arguments,
            )
        turn.request.stopwatch.generated()
        return Generated(tuple(arrivals.ids), arrivals.stopped, last, cached, cache)

    def keep(self, turn: OpenTurn, generated: Generated) -> None:
        """Hold the cache of a turn that went well, for the next one."""
        if not speculates(turn.settled.config):
            self._cache.keep(generated.cache, [*turn.prompt_ids, *generated.ids])

    def _take(self, turn: OpenTurn) -> tuple[Cache | None, int]:
        config = turn.settled.config
        if config.use_cache is False or config.cache_implementation is not None:
            return None, 0
        if speculates(config):
            # generate's first step of assisted decoding feeds the whole prompt, also onto a cache that holds its
            # beginning (transformers 5.23, _assisted_decoding): the reply would be another one.
            return self._cache.new(), 0
        return self._cache.take(turn.prompt_ids)


def input_device(model: PreTrainedModel) -> torch.device:
    """Where prompt ids go: the device of the first layer that computes."""
    device = model.device
    placed = getattr(model, "hf_device_map", None)
    if device.type == "meta" and placed:  # offloaded weights live on no device; their hooks name one
        first = next((place for place in placed.values() if place not in ("cpu", "disk")), "cpu")
        return torch.device(first)
    return device


def stream_on_time() -> None:
    """Make generate hand over every id when it is known, in this process.

    On MPS, transformers since 5.2x reads its stop flag one step late and streams one step late with it: the first id
    would be stamped a whole step too late. The plain check is what every other device uses.
    """
    deferred = getattr(generation_utils, "DeferredStopCheck", None)
    if deferred is not None:
        deferred.is_supported = staticmethod(lambda *_args, **_kwargs: False)


def synchronize() -> None:
    """Wait until the accelerator, if there is one, has done all it was given."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def free_memory() -> None:
    """Give unused memory of the accelerator back, after running out of it."""
    if torch.accelerator.is_available():
        with suppress(RuntimeError, NotImplementedError):  # not every accelerator's allocator can (MPS in torch 2.11)
            torch.accelerator.empty_cache()
