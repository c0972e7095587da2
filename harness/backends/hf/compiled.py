"""The engine `compiled`: the loop of `decode` on a static cache, its one-id step compiled.

A compiled graph is made for tensors of one shape at one place, so the cache has all its columns from the start: a power
of two that covers prompt and reply. It belongs to the model and is lent to one conversation at a time. A conversation
that outgrows it gets the next size, for which the step is compiled once more. The prefill, whose length is another one
every time, is not compiled.

Every layer holds every id, those with a sliding window too: there the mask alone makes the window. (transformers' own
static window counts its ids in Python, which would be compiled anew at every id.) It also makes a layer's end something
that can be set back: ids beyond the set length are overwritten before any query may look at them.

Everything runs under `no_grad`, nothing under `inference_mode`: a tensor made in there cannot be written to outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel, StaticCache
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer, StaticLayer

from harness.backends.hf.cache import common_prefix
from harness.backends.hf.decode import crank
from harness.backends.hf.generate import Generated, input_device, synchronize
from harness.backends.seam import OnTokens
from harness.meters.clock import real_clock
from harness.records import KvCache

if TYPE_CHECKING:
    from harness.backends.hf.session import OpenTurn

LEAST = 512
"""The fewest ids a static cache holds."""
_MOST_GRAPHS = 64
_RUNS = 3
"""How often a new step is run before it counts as ready: CUDA graphs warm up, record, and replay."""


def why_not_static(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> str | None:
    """Why this architecture cannot be decoded on a static cache by a compiled step; None if it can be tried."""
    text = config.get_text_config(decoder=True)
    if any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in DynamicCache(config=text).layers):
        return "it has layers whose cache is more than keys and values"
    if not model_class._can_compile_fullgraph:
        return "transformers does not compile it as a whole"
    if getattr(text, "alibi", False):
        return "its alibi is made for the ids there are, not for all that a static cache has room for"
    short, whole = getattr(text, "original_max_position_embeddings", None), text.max_position_embeddings
    if isinstance(short, int) and short < whole:
        return f"its rope changes at {short} ids"
    return None


class CompiledStep:
    """A model's static caches and its compiled step; one per loaded model."""

    def __init__(self, model: PreTrainedModel, context_tokens: int | None, *, compiler: str = "inductor") -> None:
        """Compiles the step for the smallest cache, and times it. `compiler` is a backend of torch.compile. Raises
        whatever torch does over a model that cannot be compiled."""
        self.model = model
        self._context_tokens = context_tokens
        mode = "reduce-overhead" if compiler == "inductor" and model.device.type == "cuda" else None

        def step(last: torch.Tensor, cache: Cache) -> torch.Tensor:
            output: Any = model(input_ids=last, past_key_values=cache, use_cache=True, logits_to_keep=1)
            logits: torch.Tensor = output.logits[:, -1]
            return logits

        # One graph for each size; beyond this number torch gives up compiling the function (its default is 8).
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MOST_GRAPHS)
        self._eager = step
        self._compiled: Any = torch.compile(step, backend=compiler, mode=mode, fullgraph=True, dynamic=False)
        self._caches: dict[int, Any] = {}
        """Size → StaticCache, every layer of which is a StaticLayer."""
        self._lent: Any = None
        """Filled by a turn that has not ended well so far: what it holds may not be numbers."""
        self._owner: Compiled | None = None
        started_ns = real_clock()
        self.make_ready(1)
        self.compile_s = (real_clock() - started_ns) / 1e9

    def size(self, ids: int) -> int:
        """How many ids the cache for a conversation of `ids` ids has room for."""
        size = max(LEAST, 1 << (ids - 1).bit_length())
        return size if self._context_tokens is None else min(size, self._context_tokens)

    def make_ready(self, ids: int) -> str | None:
        """See to a cache for so many ids; what to tell of it where that took a compilation."""
        size = self.size(ids)
        if size in self._caches:
            return None
        started_ns = real_clock()
        with torch.no_grad():
            cache: Any = StaticCache(config=self.model.config, max_cache_len=size)
            cache.layers = [StaticLayer(size) for _ in cache.layers]
            start = torch.zeros((1, 1), dtype=torch.long, device=input_device(self.model))
            self._eager(start, cache)  # makes its tensors
            for _ in range(_RUNS):
                self.forward(start, 1, cache)
            cache.reset()
            synchronize()
        self._caches[size] = cache
        return f"compiled for {size} ids within this turn, in {(real_clock() - started_ns) / 1e9:.1f} s"

    def forward(self, ids: torch.Tensor, new: int, cache: Cache) -> torch.Tensor:
        """The logits, (1, vocabulary), of the last of these ids (1, n), the first of which are in the cache."""
        if new > 1:
            return self._eager(ids[:, -new:], cache)
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        # A copy going in, because a graph is made for one stride; and coming out, because the next replay writes there.
        logits: torch.Tensor = self._compiled(ids[:, -1:].clone(memory_format=torch.contiguous_format), cache).clone()
        return logits

    def lend(self, borrower: Compiled, ids: int, same: int, before: int) -> tuple[Cache, int]:
        """A cache for `ids` ids, and how many it holds of the `same` first ones that the borrower, who was served from
        a cache of `before` ids, asks for."""
        if self._lent is not None:
            self._lent.reset()
        cache = self._lent = self._caches[self.size(ids)]
        if self._owner is not borrower:
            same = 0
        self._owner = borrower
        old = self._caches.get(before, cache)
        for layer, other in zip(cache.layers, old.layers, strict=True):
            if layer is not other and same:
                layer.keys[:, :, :same].copy_(other.keys[:, :, :same])
                layer.values[:, :, :same].copy_(other.values[:, :, :same])
            layer.cumulative_length.fill_(same)
        return cache, same

    def take_back(self) -> None:
        """The turn has ended well."""
        self._lent = None


class Compiled:
    """The turns of one conversation on a model's compiled step."""

    def __init__(self, step: CompiledStep, kv_cache: KvCache) -> None:
        self._step = step
        self._reuse = kv_cache == "reuse"
        self._held: list[int] = []
        self._size = 0

    def answer(self, turn: OpenTurn, on_tokens: OnTokens) -> Generated:
        """Generate up to `turn.room` ids. Stamps `generated`; raises TurnTimedOutError and whatever torch raises."""
        step = self._step
        needed = len(turn.prompt_ids) + turn.room
        grown = step.make_ready(needed)
        if grown is not None:
            turn.facts["notices"] = (*turn.facts.get("notices", ()), grown)
        with torch.no_grad():
            cache, cached = self._take(turn.prompt_ids, needed)
            arrivals, sampler = crank(
                step.model, turn, cached, lambda ids, new: step.forward(ids, new, cache), on_tokens
            )
        turn.request.stopwatch.generated()
        return Generated(tuple(arrivals.ids), arrivals.stopped, sampler.last, cached, cache)

    def keep(self, turn: OpenTurn, generated: Generated) -> None:
        """Remember what the cache holds after a turn that went well."""
        self._step.take_back()
        if self._reuse:
            self._held = [*turn.prompt_ids, *generated.ids[:-1]]  # the last id has not been through the model
            self._size = self._step.size(len(turn.prompt_ids) + turn.room)

    def _take(self, prompt: Sequence[int], needed: int) -> tuple[Cache, int]:
        held, self._held = self._held, []
        same = min(common_prefix(held, prompt), len(prompt) - 1)
        return self._step.lend(self, needed, same, self._size)
