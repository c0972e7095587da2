"""The key/value cache of one conversation: what of it can serve the next prompt, checked id by id.

`generate` never checks that a cache belongs to the ids it is given, so a history that was edited – a reasoning block
taken out, text that is tokenised differently the second time – would silently be answered wrongly. The session hands
every prompt to `take`, which keeps the longest common prefix and throws the rest away.

Not every cache can lose its end. Full attention can. A sliding window past its size has forgotten what came before.
Recurrent states (Mamba, linear attention, hybrids) cannot be rolled back at all, and their modelling code continues a
state over several ids only for some architectures; they begin anew each turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from inspect import signature
from itertools import takewhile
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin

from harness.records import KvCache


def cache_argument(model_class: type[PreTrainedModel]) -> str | None:
    """The name under which a model's forward takes a cache made for it; None if it keeps one of its own kind."""
    internals: Any = model_class
    if not internals._supports_default_dynamic_cache():  # generate's own test
        return None
    taken = signature(model_class.forward).parameters
    return next((name for name in ("past_key_values", "cache_params") if name in taken), None)


def why_not_reusable(model: PreTrainedModel) -> str | None:
    """Why this model cannot keep a cache over turns; None if it can."""
    name = type(model).__name__
    if cache_argument(type(model)) != "past_key_values":  # Mamba's states have another name
        return f"{name} keeps a cache of its own kind"
    layers = DynamicCache(config=model.config).layers
    if any(not only_keys_and_values(layer) for layer in layers):
        return f"{name} has layers with a recurrent state"
    return None


def only_keys_and_values(layer: Any) -> bool:
    """Whether a layer of a cache holds nothing else, no recurrent state."""
    return isinstance(layer, CacheLayerMixin) and not hasattr(layer, "recurrent_states")


class ConversationCache:
    """What a conversation remembers between turns. `take` gives it away, `keep` gives it back."""

    def __init__(self, model: PreTrainedModel, mode: KvCache) -> None:
        self.argument = cache_argument(type(model))
        """The name under which the model's forward takes it."""
        self._config = model.config
        self._reuse = mode == "reuse" and why_not_reusable(model) is None
        self._cache: Cache | None = None
        self._held: list[int] = []

    def new(self) -> Cache | None:
        """An empty cache, as generate would make it; None where the model keeps one of its own kind."""
        return None if self.argument is None else DynamicCache(config=self._config)

    def take(self, ids: Sequence[int]) -> tuple[Cache | None, int]:
        """(a cache for this prompt, how many of its ids are already in it).

        The cache is None where the model keeps one of its own kind. The last id is never served from the cache: its
        logits are what the reply starts from. Until `keep`, nothing is held, so whatever goes wrong in between leaves
        no trace.
        """
        cache, held = self._cache, self._held
        self.drop()
        same = min(common_prefix(held, ids), len(ids) - 1)
        if cache is None or same == 0 or not _cropped(cache, same):
            return self.new(), 0
        return cache, same

    def keep(self, cache: Cache | None, ids: Sequence[int]) -> None:
        """Hold the cache, which was filled by (at most) these ids, for the next turn."""
        if cache is not None and self._reuse:
            self._cache, self._held = cache, list(ids[: cache.get_seq_length()])

    def drop(self) -> None:
        self._cache, self._held = None, []


def bytes_of(cache: Cache) -> int:
    """What a cache holds, in bytes: keys, values and recurrent states; of a static cache, all that is allocated."""
    return sum(tensor.nbytes for layer in cache.layers for tensor in _tensors(vars(layer)))


def _tensors(held: Any) -> Iterator[torch.Tensor]:
    """The tensors in an attribute of a cache layer, but for counters (they have no dimension)."""
    if isinstance(held, torch.Tensor):
        if held.ndim:
            yield held
    elif isinstance(held, dict):
        for value in held.values():
            yield from _tensors(value)


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids two sequences have in common from the start."""
    if list(other[: len(one)]) == list(one):  # the usual case: the new prompt continues what is held
        return len(one)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _cropped(cache: Cache, length: int) -> bool:
    """Shorten the cache to `length` ids; False if it cannot be, and is then not to be used any more."""
    excess = cache.get_seq_length() - length
    if excess == 0:
        return True
    if not cache.is_croppable:
        return False
    try:
        cache.crop(-excess)  # a negative number of ids to remove, since transformers 5
    except RuntimeError:  # a sliding window past its size; some layers may already be shorter
        return False
    return bool(cache.get_seq_length() == length)
