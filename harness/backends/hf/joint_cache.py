"""The key/value cache of a batch: keys and values of B rows by L columns, and what each row holds in them.

Rows are of different lengths, so some columns of a row are *holes*: the attention mask hides them, and what lies in
them is never looked at. Holes arise on the left (rows of different lengths), where new prompt ids are padded, and
behind rows that ended before the others. They are closed at the next turn: `take` moves what is still wanted of every
row to the right end, in one copy of the cache, so nothing has to be cropped when a history was edited, and rows may
come and go. A key carries its position in its angle or its embedding, not in its column, so moving it changes nothing –
where attention is full. A sliding window counts columns, and a recurrent state has swallowed whatever it was fed: such
models are answered without a kept cache.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from harness.backends.hf.cache import common_prefix

_BLOCK = 128
"""A buffer that is full grows by so many columns, or by an eighth if that is more."""


class _GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # its __init_subclass__ has no types
    """A layer whose ids are written into a buffer with columns to spare. transformers' own joins old and new, a copy of
    the whole cache for every id: at 16 rows of 500 ids that is more memory traffic than a small model's weights."""

    keys: torch.Tensor
    values: torch.Tensor
    """Both are shaped (rows, heads, columns, width), and are the beginning of their buffers."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.fill(key_states, value_states)
        else:
            start, end = self.keys.shape[-2], self.keys.shape[-2] + key_states.shape[-2]
            if end > self._key_buffer.shape[-2]:
                self.fill(self.keys, self.values, end)
            self._key_buffer[:, :, start:end] = key_states
            self._value_buffer[:, :, start:end] = value_states
            self.show(end)
        return self.keys, self.values

    def fill(self, keys: torch.Tensor, values: torch.Tensor, at_least: int = 0) -> None:
        """Hold these keys and values, with room for `at_least` columns and some more."""
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
        columns = keys.shape[-2]
        at_least = max(at_least, columns)
        capacity = at_least + max(_BLOCK, at_least // 8)
        self._key_buffer, self._value_buffer = _roomy(keys, capacity), _roomy(values, capacity)
        self.show(columns)

    def show(self, columns: int) -> None:
        """Let the layer end after so many columns of its buffers."""
        self.keys, self.values = self._key_buffer[:, :, :columns], self._value_buffer[:, :, :columns]


def _roomy(states: torch.Tensor, capacity: int) -> torch.Tensor:
    rows, heads, columns, width = states.shape
    buffer = states.new_empty((rows, heads, capacity, width))
    buffer[:, :, :columns] = states
    return buffer


class GrowingCache(DynamicCache):
    """The cache of a model with full attention, its layers growing in place."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(config=model.config)
        make: Any = _GrowingLayer  # its constructor has no types
        self.growing: list[_GrowingLayer] = [make() for _ in self.layers]
        self.layers = list(self.growing)

    @property
    def nbytes(self) -> int:
        """What the keys and values occupy, holes included and columns to spare not."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.growing)


@dataclass(frozen=True, slots=True)
class Taken:
    """What the cache has for a batch: `cached` ids of each row, in the last columns of `cache`."""

    cache: GrowingCache
    cached: tuple[int, ...]

    @property
    def columns(self) -> int:
        return max(self.cached)


class JointCache:
    """What a batch remembers between turns, by row. `take` gives it away, `keep` gives it back."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._cache: GrowingCache | None = None
        self._held: dict[Hashable, tuple[int, list[int]]] = {}
        """Row → its number in the cache, and the ids whose keys are there."""
        self._real = torch.zeros((0, 0), dtype=torch.bool)
        """(rows, columns): which columns hold an id of the row; on the host."""

    def take(self, prompts: Sequence[tuple[Hashable, Sequence[int]]]) -> Taken:
        """A cache for these rows and their prompts.

        The last id of a prompt is never served from the cache: its logits are what the reply starts from. Until
        `keep`, nothing is held, so whatever goes wrong in between leaves no trace.
        """
        old, held, real = self._cache, self._held, self._real
        self.drop()
        # A row that is new gets what some row that is held has. All its columns are holes, but a hole may not hold
        # what is no number (0 times NaN is NaN), and rows that are held are known not to.
        anybody = next((number for number, _ in held.values()), 0)
        numbers, cached = [], []
        for row, prompt in prompts:
            number, ids = held.get(row, (anybody, []))
            numbers.append(number)
            cached.append(min(common_prefix(ids, prompt), len(prompt) - 1))
        taken = Taken(GrowingCache(self._model), tuple(cached))
        if old is None or not taken.columns:
            return taken
        columns = _columns(real[numbers], cached)
        if numbers == list(range(len(real))) and bool((columns == torch.arange(taken.columns)).all()):
            for layer in old.growing:  # nothing to move: the usual case of a single row
                layer.show(taken.columns)
            return Taken(old, taken.cached)
        _move(old, taken.cache, numbers, columns)
        return taken

    def keep(
        self, rows: Sequence[tuple[Hashable, int, Sequence[int]]], cache: GrowingCache, mask: torch.Tensor
    ) -> None:
        """Hold the cache for the next turn: who is in which row, and the ids whose keys `mask` (rows, columns) marks
        there, in order. Rows that are not named are forgotten."""
        if rows:
            self._cache = cache
            self._held = {who: (number, list(ids)) for who, number, ids in rows}
            self._real = mask.to(device="cpu", dtype=torch.bool)

    def drop(self) -> None:
        self._cache, self._held = None, {}


def _columns(real: torch.Tensor, wanted: Sequence[int]) -> torch.Tensor:
    """(rows, most wanted): in which column the first `wanted` ids of each row lie, the last of them at the right end;
    0 where a row is shorter."""
    found = torch.zeros((len(wanted), max(wanted)), dtype=torch.long)
    for row, count in enumerate(wanted):
        found[row, found.shape[1] - count :] = real[row].nonzero().flatten()[:count]
    return found


def _move(old: GrowingCache, new: GrowingCache, numbers: Sequence[int], columns: torch.Tensor) -> None:
    """Copy what is wanted of every layer, letting go of one layer before the next is copied."""
    old.layers.clear()
    for target in new.growing:
        source = old.growing.pop(0)
        rows, at = torch.tensor(numbers, device=source.keys.device)[:, None], columns.to(source.keys.device)
        keys, values = (states.transpose(1, 2)[rows, at].transpose(1, 2) for states in (source.keys, source.values))
        target.fill(keys, values)
