"""The engine `decode`: our own loop on the model's forward. Not stock generate.

Per id, generate prepares inputs, extends masks and positions, asks three stopping criteria and joins the ids so far
anew: about 0.3 ms of bookkeeping beside a forward of 0.2 ms per layer. Here a step is one forward, one choice
(`sampler.py`: the same processors, the same draw) and one copy of the id to the host, which is the step's only wait for
the device. What generate can do beyond that is refused when the settings are made (`settings.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationMixin, PreTrainedModel

from harness.backends.hf.arrivals import Arrivals
from harness.backends.hf.cache import ConversationCache
from harness.backends.hf.generate import Generated, input_device
from harness.backends.hf.sampler import Sampler
from harness.backends.seam import OnTokens
from harness.records import KvCache

if TYPE_CHECKING:
    from harness.backends.hf.session import OpenTurn

Forward = Callable[[torch.Tensor, int], torch.Tensor]
"""(ids so far (1, n), how many of them are new) -> the logits of the last one (1, vocabulary)."""


class Decode:
    """Our own loop for the turns of one conversation."""

    def __init__(self, model: PreTrainedModel, kv_cache: KvCache) -> None:
        self._model = model
        self._cache = ConversationCache(model, kv_cache)
        stock = GenerationMixin.prepare_inputs_for_generation
        own: Any = model.prepare_inputs_for_generation
        self._prepare = None if own.__func__ is stock else own
        """The model's own way to prepare inputs, where it has one: Mamba, Phi-3's two ropes."""
        self._keeps_logits = "logits_to_keep" in signature(type(model).forward).parameters

    def answer(self, turn: OpenTurn, on_tokens: OnTokens) -> Generated:
        """Generate up to `turn.room` ids. Stamps `generated`; raises TurnTimedOutError and whatever torch raises."""
        with torch.inference_mode():
            cache, cached = self._cache.take(turn.prompt_ids)
            argument = str(self._cache.argument)
            steady: dict[str, Any] = {"use_cache": True}
            if self._keeps_logits:
                steady["logits_to_keep"] = 1

            def forward(ids: torch.Tensor, new: int) -> torch.Tensor:
                nonlocal cache
                if self._prepare is None:
                    inputs = {"input_ids": ids[:, -new:], argument: cache, **steady}
                else:
                    first = ids.shape[1] == len(turn.prompt_ids)
                    inputs = self._prepare(
                        ids,
                        next_sequence_length=new,
                        is_first_iteration=first,
                        attention_mask=None,
                        **{argument: cache, **steady},
                    )
                output = self._model(**inputs)
                cache = getattr(output, argument)  # another one, where the model had to begin anew
                logits: torch.Tensor = output.logits
                return logits[:, -1]

            arrivals, sampler = crank(self._model, turn, cached, forward, on_tokens)
        turn.request.stopwatch.generated()
        return Generated(tuple(arrivals.ids), arrivals.stopped, sampler.last, cached, cache)

    def keep(self, turn: OpenTurn, generated: Generated) -> None:
        """Hold the cache of a turn that went well, for the next one."""
        self._cache.keep(generated.cache, [*turn.prompt_ids, *generated.ids])


def crank(
    model: PreTrainedModel, turn: OpenTurn, cached: int, forward: Forward, on_tokens: OnTokens
) -> tuple[Arrivals, Sampler]:
    """The loop itself: prefill what is not `cached`, then one id at a time until the reply has ended."""
    prompt, room, eos_ids = turn.prompt_ids, turn.room, turn.settled.eos_ids
    length = len(prompt)
    ids = torch.empty((1, length + room), dtype=torch.long, device=input_device(model))
    ids[0, :length] = torch.tensor(prompt)
    arrivals = Arrivals(turn, on_tokens)
    sampler = Sampler(model, turn.settled.config, ids[:, :length], room=room)
    torch.manual_seed(turn.request.seed)
    logits = forward(ids[:, :length], length - cached)
    with for_decoding(model):
        while True:
            picked = sampler.pick(ids[:, :length], logits)
            one = int(picked.item())  # waits for the device, once per id
            arrivals.come([one])
            if arrivals.stopped or one in eos_ids or len(arrivals.ids) == room:
                return arrivals, sampler
            ids[:, length] = picked
            length += 1
            logits = forward(ids[:, :length], 1)


def for_decoding(model: PreTrainedModel) -> Any:
    """What generate does around its loop: on accelerators, experts are computed another way than in the prefill."""
    prepare = getattr(model, "_optimize_model_for_decode", None)
    return nullcontext() if prepare is None else prepare()
