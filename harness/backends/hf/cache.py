"""The key/value cache of one conversation: what of it can serve the next prompt, checked id by id.

`generate` never checks that a cache belongs to the ids it is given, so a history that was edited – a reasoning block
taken out, text that is tokenised differently the second time – would silently be answered wrongly. The session hands
every prompt to `take`, which keeps the longest common prefix and throws the rest away.

Not every cache can lose its end. Full attention can. A sliding window past its size has forgotten what came before.
Recurrent states (Mamba, linear attention, hybrids) cannot be rolled back at all, and their modelling code continues a
state over several ids only for some architectures; they begin anew each turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from itertools import takewhile
from typing import Any

from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin

from harness.records import KvCache


def why_not_reusable(model: PreTrainedModel) -> str | None:
    """Why this model cannot keep a cache over turns; None if it can."""
    name = type(model).__name__
    # Mamba's forward takes its state under another name; the second is generate's own test.
    supports_cache: Any = model._supports_default_dynamic_cache
    if "past_key_values" not in signature(model.forward).parameters or not supports_cache():
        return f"{name} keeps a cache of its own kind"
    layers = DynamicCache(config=model.config).layers
    if any(not _holds_only_keys_and_values(layer) for layer in layers):
        return f"{name} has layers with a recurrent state"
    return None


def _holds_only_keys_and_values(layer: Any) -> bool:
    return isinstance(layer, CacheLayerMixin) and not hasattr(layer, "recurrent_states")


class ConversationCache:
    """What a session remembers between turns. `take` gives it away, `keep` gives it back."""

    def __init__(self, model: PreTrainedModel, mode: KvCache) -> None:
        self._model = model
        self._reuse = mode == "reuse" and why_not_reusable(model) is None
        self._cache: Cache | None = None
        self._held: list[int] = []

    def take(self, ids: Sequence[int]) -> tuple[Cache | None, int]:
        """(a cache for this prompt, how many of its ids are already in it).

        The cache is None where generate makes its own. The last id is never served from the cache: its logits are
        what the reply starts from. Until `keep`, nothing is held, so whatever goes wrong in between leaves no trace.
        """
        if not self._reuse:
            return None, 0
        cache, held = self._cache, self._held
        self.drop()
        same = min(common_prefix(held, ids), len(ids) - 1)
        if cache is None or same == 0 or not _cropped(cache, same):
            return DynamicCache(config=self._model.config), 0
        return cache, same

    def keep(self, cache: Cache | None, ids: Sequence[int]) -> None:
        """Hold the cache, which was filled by (at most) these ids, for the next turn."""
        if cache is not None:
            self._cache, self._held = cache, list(ids[: cache.get_seq_length()])

    def drop(self) -> None:
        self._cache, self._held = None, []


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
