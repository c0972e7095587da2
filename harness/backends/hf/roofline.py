"""What a loaded model has to do for every token: bytes to read, floating-point operations to carry out.

Both are counted on the model itself, not on its config: the bytes of its weights as they are stored, the bytes its
cache takes for a token, the sizes of its matrices. What is left out is small: norms' and activations' operations, the
recurrent state of linear-attention layers, the activations themselves.

- Weights. Everything the decoder and the output head hold is read for each token, but for tables that a token is looked
  up in (one row is nothing), unless the table is also the head. Of experts only the chosen are read, and shared ones.
- Cache. Layers with a sliding window read no further back than that, so they are counted apart.
- Operations. Two for each weight of a matrix (multiply and add); for attention two for each number of a key, and of a
  value, and every head.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel

from harness.backends.hf.generate import input_device
from harness.backends.hf.stored import stored_bytes
from harness.meters.machine import Ceilings
from harness.records import Roofline

_A_FEW = 4
"""Ids that are enough to see what one takes in the cache; fewer than any sliding window."""
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_CHOSEN = ("num_experts_per_tok", "moe_top_k", "moe_topk", "top_k_experts")
"""What configs call the number of experts, and of those that a token goes through."""


@dataclass(frozen=True, slots=True)
class CacheLayer:
    """One layer's part of the cache, for one token of the context."""

    bytes_per_token: int
    key_size: int
    value_size: int
    window: int | None


def roofline(model: PreTrainedModel, ceilings: Ceilings | None) -> Roofline:
    """The roofline of a loaded model on a device with these ceilings; None for a device whose speed is not one number.

    Runs the model on a few ids.
    """
    read, multiplied, by_head = _weights(model)
    layers = cache_layers(model)
    windows = {layer.window for layer in layers or () if layer.window is not None}
    window = max(windows, default=None)
    inside = [layer for layer in layers or () if layer.window is not None]
    heads = getattr(_text_config(model), "num_attention_heads", None)
    known = layers is not None and (isinstance(heads, int) or not layers)
    cache = ceilings.cache_bytes if ceilings is not None else None
    return Roofline(
        weight_bytes_per_token=read,
        kv_bytes_per_token=None if layers is None else sum(layer.bytes_per_token for layer in layers),
        flops_per_token=2 * multiplied,
        attention_flops_per_token_pair=_attention_flops(layers or [], heads) if known else None,
        copy_bytes_per_s=ceilings.copy_bytes_per_s if ceilings is not None else None,
        matrix_flops_per_s=ceilings.matrix_flops_per_s if ceilings is not None else None,
        fits_in_cache=cache is not None and read <= cache,
        head_flops_per_token=2 * by_head,
        window_tokens=window,
        windowed_kv_bytes_per_token=sum(layer.bytes_per_token for layer in inside),
        windowed_attention_flops_per_token_pair=_attention_flops(inside, heads) if known else 0,
    )


def _attention_flops(layers: list[CacheLayer], heads: Any) -> int:
    return sum(2 * heads * (layer.key_size + layer.value_size) for layer in layers)


def _text_config(model: PreTrainedModel) -> PreTrainedConfig:
    config: PreTrainedConfig = model.config.get_text_config(decoder=True)
    return config


# --- weights --------------------------------------------------------------------------------------------------------


def _weights(model: PreTrainedModel) -> tuple[int, int, int]:
    """(bytes that are read, weights that are multiplied with, those of them that are the head's) for one token."""
    untyped: Any = model
    decoder: nn.Module = untyped.get_decoder()
    head: nn.Module | None = untyped.get_output_embeddings()
    share = _active_share(_text_config(model))
    heads = set() if head is None else {id(parameter) for parameter in head.parameters()}
    read, multiplied = 0.0, 0.0
    for module, is_expert in _modules(decoder):
        active = share if is_expert else 1.0
        if isinstance(module, nn.Embedding) or module is head:
            continue
        tensors = [tensor for tensor in _stored(module) if id(tensor) not in heads]
        read += active * stored_bytes(*tensors)
        multiplied += active * _matrix_size(module, tensors)
    by_head = 0
    if head is not None:
        read += stored_bytes(*_stored(head))
        by_head = _matrix_size(head, list(_stored(head)))
    return round(read), round(multiplied) + by_head, by_head


def _modules(module: nn.Module, *, is_expert: bool = False) -> Iterator[tuple[nn.Module, bool]]:
    """(a module, whether it holds experts of which a token goes through some) for all of them."""
    yield module, is_expert
    for name, child in module.named_children():
        kind = type(child).__name__
        routed = name == "experts" or ("Experts" in kind and "Shared" not in kind)
        yield from _modules(child, is_expert=is_expert or routed)


def _stored(module: nn.Module) -> Iterator[torch.Tensor]:
    """What a module itself keeps in a checkpoint: parameters, and the buffers that hold quantised weights."""
    yield from module.parameters(recurse=False)
    for name, buffer in module.named_buffers(recurse=False):
        if name not in module._non_persistent_buffers_set:
            yield buffer


def _matrix_size(module: nn.Module, tensors: list[torch.Tensor]) -> int:
    """How many weights a module multiplies a token with. A quantised matrix is as large as the one it stands for."""
    rows, columns = getattr(module, "in_features", None), getattr(module, "out_features", None)
    if isinstance(rows, int) and isinstance(columns, int):
        return rows * columns
    return sum(tensor.numel() for tensor in tensors if tensor.dim() > 1)


def _active_share(config: PreTrainedConfig) -> float:
    """Which share of its experts a token goes through; 1 where the config has other words for it than we know."""
    inner = getattr(config, "ffn_config", config)  # DBRX
    experts, chosen = (
        next((value for name in names if isinstance(value := getattr(inner, name, None), int)), None)
        for names in (_EXPERTS, _CHOSEN)
    )
    return min(1.0, chosen / experts) if experts and chosen else 1.0


# --- cache ----------------------------------------------------------------------------------------------------------


def cache_layers(model: PreTrainedModel) -> list[CacheLayer] | None:
    """The layers of the cache that grow with the context; None where the model keeps it in a way of its own."""
    if "past_key_values" not in signature(model.forward).parameters:
        return [] if model._is_stateful else None  # a state that does not grow
    supports_cache: Any = model._supports_default_dynamic_cache
    if not supports_cache():
        return None
    cache = DynamicCache(config=model.config)
    ids = torch.zeros((1, _A_FEW), dtype=torch.long, device=input_device(model))
    with torch.inference_mode():
        model(input_ids=ids, past_key_values=cache, use_cache=True)
    layers = [_cache_layer(layer, _latent_sizes(_text_config(model))) for layer in cache.layers]
    found = [layer for layer in layers if layer is not None]
    return found if found or model._is_stateful else None


def _latent_sizes(config: PreTrainedConfig) -> tuple[int, int] | None:
    """(size of a key, of a value) where the cache holds something that they are unfolded from; else None."""
    if getattr(config, "kv_lora_rank", None) is None:
        return None
    sizes: Any = config
    return sizes.qk_nope_head_dim + sizes.qk_rope_head_dim, sizes.v_head_dim


def _cache_layer(layer: Any, latent: tuple[int, int] | None) -> CacheLayer | None:
    """None for a layer that holds no keys: one with a recurrent state."""
    keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
    if not isinstance(keys, torch.Tensor) or not isinstance(values, torch.Tensor) or keys.numel() == 0:
        return None
    held = keys.numel() * keys.element_size() + values.numel() * values.element_size()
    window = layer.sliding_window if layer.is_sliding else None
    key_size, value_size = latent or (keys.shape[-1], values.shape[-1])
    return CacheLayer(held // keys.shape[-2], key_size, value_size, window)
