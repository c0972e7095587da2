"""The engine `generate`: stock `model.generate`, with a clock where its ids arrive on the host.

generate hands a streamer the prompt once and then every new id, after the id has been copied to the host – a copy it
makes anyway, to see whether it may stop. So a stamp taken there is exact and adds no stall. (A stopping criterion or a
logits processor would, on an accelerator, stamp the moment a kernel was *queued*.) Text streamers hold back words and
are of no use for timing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LogitsProcessorList, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.generation import utils as generation_utils
from transformers.generation.streamers import BaseStreamer

from harness.backends.failures import TurnTimedOutError
from harness.backends.hf.sampler import LastScores, for_turn
from harness.backends.hf.settings import Settled
from harness.backends.seam import OnTokens
from harness.meters.clock import Stopwatch


class _StopStringFound(Exception):  # noqa: N818 - not an error: how a streamer ends generate
    """The reply contains a stop string: what follows would be cut off anyway."""


class _IdClock(BaseStreamer):
    """Ticks the stopwatch for every arrival of ids, and ends the turn at a stop string or a time-out.

    An exception is the only way out of generate that is taken after the id was stamped; at that point the cache holds
    what it would hold after a normal end.
    """

    def __init__(
        self,
        stopwatch: Stopwatch,
        on_tokens: OnTokens,
        timeout_s: float | None,
        stop_found: Callable[[list[int]], bool] | None,
    ) -> None:
        self.ids: list[int] = []
        self._prompt_seen = False
        self._stopwatch = stopwatch
        self._on_tokens = on_tokens
        self._timeout_s = timeout_s
        self._stop_found = stop_found

    def put(self, value: torch.Tensor) -> None:
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        self._stopwatch.tick(value.numel())
        arrived = value.flatten().tolist()
        self.ids += arrived
        self._on_tokens(arrived)
        if self._stop_found is not None and self._stop_found(self.ids):
            raise _StopStringFound
        if self._timeout_s is not None and self._stopwatch.elapsed_s() > self._timeout_s:
            raise TurnTimedOutError(f"the turn took longer than {self._timeout_s} s ({len(self.ids)} ids had arrived)")

    def end(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Generated:
    """What generate produced: ids, an emitted end of text included, and whether a stop string ended it."""

    ids: tuple[int, ...]
    stopped: bool
    last: LastScores

    def demand_finite(self) -> None:
        """Raise NonFiniteLogitsError if the model's last logits were not finite. Costs a synchronisation."""
        self.last.demand_finite()


def generate(
    model: PreTrainedModel,
    prompt_ids: Sequence[int],
    settled: Settled,
    *,
    room: int,
    seed: int,
    cache: Cache | None,
    stopwatch: Stopwatch,
    on_tokens: OnTokens,
    timeout_s: float | None,
    stop_found: Callable[[list[int]], bool] | None,
) -> Generated:
    """Generate up to `room` ids after a prompt of at least one id.

    `cache` holds the first ids of the prompt, or is None for one that generate makes itself. Stamps `generated`.
    Raises TurnTimedOutError and whatever torch raises.
    """
    clock = _IdClock(stopwatch, on_tokens, timeout_s, stop_found)
    device = input_device(model)
    last = LastScores.of(settled.config, device)
    inputs = torch.tensor([prompt_ids], dtype=torch.long, device=device)
    # Without a mask generate guesses one from the padding id, which may be an ordinary id of the prompt.
    arguments: dict[str, Any] = {"attention_mask": torch.ones_like(inputs)}
    if cache is not None:
        arguments["past_key_values"] = cache
    torch.manual_seed(seed)
    engine: Any = model.generate
    stopped = False
    try:
        with torch.inference_mode():
            engine(
                inputs,
                generation_config=for_turn(settled.config, len(prompt_ids), room),
                streamer=clock,
                logits_processor=LogitsProcessorList([last]),
                **arguments,
            )
    except _StopStringFound:
        stopped = True
    stopwatch.generated()
    return Generated(tuple(clock.ids), stopped, last)


def input_device(model: PreTrainedModel) -> torch.device:
    """Where prompt ids go: the device of the first layer that computes."""
    device = model.device
    placed = getattr(model, "hf_device_map", None)
    if device.type == "meta" and placed:  # offloaded weights live on no device; their hooks name one
        first = next((place for place in placed.values() if place not in ("cpu", "disk")), "cpu")
        return torch.device(first)
    return device


def stream_on_time() -> None:
    """Make generate hand over every id when it is known.

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
