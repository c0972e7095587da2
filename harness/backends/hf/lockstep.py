"""The forward of a batch: rows of different lengths as one rectangle, and which rows of which models can be one.

Prompts are padded on the left, so that the last column of every row is its last id. The attention mask hides the
padding and the position ids leave it out, so a row computes what it would compute alone, up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from harness.backends.hf.cache import cache_argument, only_keys_and_values
from harness.backends.hf.generate import input_device

_STATES = (
    "mamba", "mamba2", "falcon_mamba", "falcon_h1", "lfm2", "qwen3_next", "jamba", "bamba", "granitemoehybrid",
)  # fmt: skip
"""Models with a recurrent state that are known to keep padding out of it: the tests hold their replies against those of
single rows."""
_WITHOUT_POSITIONS = ("bloom", "mpt")
"""Models that take no positions and find them in the mask or in the distance between columns (tested likewise)."""
_WINDOWS_BY_COLUMN = ("gpt_neo",)
"""Models with a local attention that their cache knows nothing of: it counts columns, holes among them."""


_STRETCHED = ("longrope", "dynamic")
"""Rotary embeddings whose angles change for all rows as soon as one of them passes a length."""


def why_not_padded(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> str | None:
    """Why rows of this model cannot be padded to one length without changing what they compute; None if they can."""
    text = config.get_text_config(decoder=True)
    kind, parameters = text.model_type, signature(model_class.forward).parameters
    if kind in (*_STATES, *_WITHOUT_POSITIONS):
        return None
    if "attention_mask" not in parameters or "position_ids" not in parameters:
        return f"{kind} takes no position ids: padding would move where its rows begin"
    if any(not only_keys_and_values(layer) for layer in DynamicCache(config=text).layers):
        return f"{kind} has recurrent states that are not known to keep padding out"
    return None


def keeps_cache(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> bool:
    """Whether the cache of a batch of this model can have holes: attention that is full, at positions that are told."""
    text = config.get_text_config(decoder=True)
    return (
        {"position_ids", "past_key_values"} <= set(signature(model_class.forward).parameters)
        and text.model_type not in _WINDOWS_BY_COLUMN
        and all(type(layer) is DynamicLayer for layer in DynamicCache(config=text).layers)
    )


def stretches_after(config: PreTrainedConfig) -> int | None:
    """How many ids a row may have until the angles of the whole batch change; None where they never do."""
    text: Any = config.get_text_config(decoder=True)
    ropes = getattr(text, "rope_parameters", None) or {}
    kinds = [ropes, *(one for one in ropes.values() if isinstance(one, dict))]  # some have one for each type of layer
    limits = [
        one.get("original_max_position_embeddings") or text.max_position_embeddings
        for one in kinds
        if one.get("rope_type") in _STRETCHED
    ]
    return min(limits, default=None)


class Lockstep:
    """The model's forward over the rows of a batch, one step after the other."""

    def __init__(
        self,
        model: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        cache: Cache,
        cached: Sequence[int],
        most_new: int,
    ) -> None:
        """`cached` ids of each prompt lie in the last columns of `cache`; up to `most_new` ids will be generated."""
        self.cache = cache
        self._model = model
        self._device = input_device(model)
        self._argument = str(cache_argument(type(model)))
        self._takes = set(signature(model.forward).parameters)
        before, width = max(cached), max(len(prompt) - have for prompt, have in zip(prompts, cached, strict=True))
        self._columns = before + width
        """Of the mask, so far fed."""
        rows = len(prompts)
        ids, mask = torch.zeros((rows, width), dtype=torch.long), torch.ones((rows, before + width + most_new))
        positions = torch.zeros((rows, width), dtype=torch.long)
        for row, (prompt, have) in enumerate(zip(prompts, cached, strict=True)):
            new = len(prompt) - have
            ids[row, width - new :] = torch.tensor(prompt[have:])
            positions[row, width - new :] = torch.arange(have, len(prompt))
            mask[row, : before - have] = 0
            mask[row, before : before + width - new] = 0
        self._ids, self._mask = ids.to(self._device), mask.to(self._device, torch.long)
        self._positions = positions.to(self._device)

    @property
    def mask(self) -> torch.Tensor:
        """(rows, columns fed so far): 1 where an id of the row lies."""
        return self._mask[:, : self._columns]

    def prefill(self) -> torch.Tensor:
        """The logits after the prompts, shaped (rows, vocabulary)."""
        logits = self._forward(self._ids, self._positions, self.mask)
        self._positions = self._positions[:, -1:]
        return logits

    def step(self, ids: torch.Tensor) -> torch.Tensor:
        """The logits after one more id for each row; `ids` is shaped (rows,)."""
        self._columns += 1
        self._positions = self._positions + 1
        # A model of states alone has them all in its state, and no use for a mask that covers the past.
        return self._forward(ids[:, None], self._positions, self.mask if self._argument == "past_key_values" else None)

    def hide(self, row: int) -> None:
        """A row has ended: what is computed for it from now on is not part of it."""
        self._mask[row, self._columns :] = 0

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        arguments: dict[str, Any] = {
            "input_ids": ids, "attention_mask": mask, "use_cache": True, self._argument: self.cache,
        }  # fmt: skip
        if "position_ids" in self._takes:
            arguments["position_ids"] = positions
        if "logits_to_keep" in self._takes:
            arguments["logits_to_keep"] = 1
        logits: torch.Tensor = self._model(**arguments).logits
        return logits[:, -1]
