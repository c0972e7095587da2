"""What a model takes in memory, found without taking it: built on torch's meta device, where tensors have a shape and
no numbers, and run there under a tally of the bytes that would be alive.

A forward on the meta device makes every tensor that a real one makes, in the same order, and computes nothing; so the
peak of the tally is the peak of a real forward, but for what kernels take for themselves. Attention is counted as a
fused kernel does it (`sdpa` on any accelerator and on the CPU): its scores never exist at once.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from copy import deepcopy
from inspect import signature
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel, masking_utils
from transformers.cache_utils import Cache

from harness.backends.fit import Footprint
from harness.backends.hf.cache import bytes_of, cache_argument, why_not_reusable
from harness.backends.hf.roofline import cache_layers
from harness.backends.hf.source import Source, context_tokens, explained, weight_files

_PROMPTS = (64, 256, 1024, 2048)
"""Ids of the prompts that are tried: what is largest in a forward is not the same for short ones and long ones."""
_ROWS = 2
"""As many are several."""
_A_FEW = 2
"""Ids whose cache tells what a conversation holds from its first one on."""
_ENOUGH_LAYERS = 8
"""As many as any known pattern of different layers is long (Jamba's)."""
_GROUP = 64
"""Weights that share a scale in 4 bits, and below the bytes of that scale: bitsandbytes' defaults (nf4; absmax)."""
_SCALE_BYTES = 4
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Tally(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's mode has no types
    """Counts the bytes of the storages that operations make, while they are alive; those of the model are not new."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._alive = 0
        self._own = [tensor.untyped_storage() for tensor in (*model.parameters(), *model.buffers())]
        self._seen = {id(storage) for storage in self._own}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: Any) -> None:
        key = id(storage)
        if key in self._seen:  # a view
            return
        size = storage.nbytes()
        self._seen.add(key)
        self._alive += size
        self.peak = max(self.peak, self._alive)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self._alive -= size


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    """Attention as one kernel: of all that it makes only the result is seen."""
    return query.new_empty((*query.shape[:-1], value.shape[-1]))


def _experts(rows: torch.Tensor, weight: torch.Tensor, **_: Any) -> torch.Tensor:
    """The product of rows with the matrices of their experts, which the meta device knows for bfloat16 only."""
    return rows.new_empty((rows.shape[0], weight.shape[-1]))


_skips_mask = masking_utils._ignore_causal_mask_sdpa


def _looks_at_padding(padding_mask: Any, *arguments: Any, **named: Any) -> bool:
    """Whether no mask has to be made: not where there is padding, and it could not be looked at here."""
    return False if padding_mask is not None else bool(_skips_mask(None, *arguments, **named))


@contextmanager
def _without_numbers() -> Iterator[None]:
    """Kernels that the meta device lacks, or takes apart, as what they make."""
    instead: tuple[tuple[Any, str, Any], ...] = (
        (nn.functional, "scaled_dot_product_attention", _attention),
        (nn.functional, "grouped_mm", _experts),
        (masking_utils, "_ignore_causal_mask_sdpa", _looks_at_padding),
    )
    own = [(module, name, getattr(module, name)) for module, name, _ in instead if hasattr(module, name)]
    for module, name, substitute in instead:
        setattr(module, name, substitute)
    try:
        yield
    finally:
        for module, name, kernel in own:
            setattr(module, name, kernel)


def on_meta(source: Source, dtype: torch.dtype, *, layers: int | None = None) -> PreTrainedModel:
    """The model of a source, without memory; of the first `layers` layers, where a number is given."""
    spec = source.spec
    arguments: dict[str, Any] = {"dtype": dtype, "trust_remote_code": spec.trust_remote_code}
    if spec.attn_implementation in ("eager", "sdpa"):  # the others are kernels as sdpa is, and may not be installed
        arguments["attn_implementation"] = spec.attn_implementation
    config = deepcopy(source.config)
    with suppress(AttributeError):
        del config.quantization_config  # how weights are stored, and not of what they are
    text: Any = config.get_text_config(decoder=True)
    if layers is not None and layers < text.num_hidden_layers:
        if getattr(text, "layer_types", None):
            text.layer_types = text.layer_types[:layers]
        text.num_hidden_layers = layers
    make: Any = AutoModelForCausalLM.from_config
    with init_empty_weights(include_buffers=True):
        untyped: Any = make(config, **arguments)
    model: PreTrainedModel = untyped.eval()
    return model


def prefill(model: PreTrainedModel, prompt_tokens: int, rows: int = 1) -> tuple[Cache, int]:
    """(the cache, most bytes alive besides the weights) of a forward over a prompt, or over several of which one is
    shorter, as in a batch. Ids that follow take less."""
    device = next(model.parameters()).device
    argument = cache_argument(type(model))
    least = {"logits_to_keep": 1} if "logits_to_keep" in signature(model.forward).parameters else {}
    cache = DynamicCache(config=model.config)
    kept: dict[str, Any] = {} if argument is None else {argument: cache}
    how = _without_numbers() if device.type == "meta" else nullcontext()
    with torch.inference_mode(), how, Tally(model) as tally:
        ids = torch.zeros((rows, prompt_tokens), dtype=torch.long, device=device)
        if rows > 1:
            kept["attention_mask"] = torch.ones_like(ids)
            kept["attention_mask"][0, 0] = 0
        model(input_ids=ids, use_cache=True, **kept, **least)
    return cache, tally.peak


def footprint(source: Source) -> Footprint:
    """What the model of a source takes, in the dtype that its spec asks for. Raises ModelError where its code cannot be
    run without numbers."""
    name = dtype_of(source)
    with explained(source.spec):
        model = on_meta(source, _DTYPES[name])
        with _without_numbers():
            layers = cache_layers(model) or []
        cache, _ = prefill(model, _A_FEW)
        few = on_meta(source, _DTYPES[name], layers=_ENOUGH_LAYERS)
        work = _work(few, context_tokens(source.config))
        # A recurrent model looks at its padding while it runs, which has no numbers here; nor is it ever batched.
        recurrent = why_not_reusable(few) is not None
        together = work if recurrent else _work(few, context_tokens(source.config), rows=_ROWS)
    windows = [layer.window for layer in layers if layer.window is not None]
    stored = weight_bytes(model)
    return Footprint(
        parameters=model.num_parameters(),
        dtype=name,
        weight_bytes=_loaded_bytes(source, stored, name),
        weight_bytes_as=stored,
        kv_bytes_per_token=sum(layer.bytes_per_token for layer in layers),
        windowed_kv_bytes_per_token=sum(one.bytes_per_token for one in layers if one.window is not None),
        window_tokens=max(windows, default=None),
        state_bytes=bytes_of(cache) - _A_FEW * sum(layer.bytes_per_token for layer in layers),
        work=work,
        work_together=together,
        context_tokens=context_tokens(source.config),
    )


def dtype_of(source: Source) -> str:
    """The dtype that from_pretrained loads weights in."""
    if source.spec.dtype != "auto":
        return source.spec.dtype
    config: Any = source.config
    said = getattr(config, "dtype", None) or getattr(config.get_text_config(decoder=True), "dtype", None)
    name = str(said).removeprefix("torch.")
    return name if name in _DTYPES else "float32"


def weight_bytes(model: PreTrainedModel) -> dict[str, int]:
    """Bytes of parameters and buffers by dtype, and where the matrices of the layers have 8 or 4 bits.

    Quantised as bitsandbytes does it: linear layers but for the head; a float32 scale for each row of 8-bit weights,
    and for every 64 of 4 bits. The rest stays in bfloat16.
    """
    numbers = model.num_parameters()
    buffers = sum(buffer.nbytes for buffer in model.buffers())
    untyped: Any = model
    head = untyped.get_output_embeddings()
    linear = [one for one in model.modules() if isinstance(one, nn.Linear) and one is not head]
    weights = sum(one.weight.numel() for one in linear)
    rest = 2 * (numbers - weights) + buffers
    return {
        **{name: numbers * dtype.itemsize + buffers for name, dtype in _DTYPES.items()},
        "int8": rest + weights + _SCALE_BYTES * sum(one.out_features for one in linear),
        "int4": rest + weights // 2 + _SCALE_BYTES * (weights // _GROUP),
    }


def _loaded_bytes(source: Source, stored: Mapping[str, int], dtype: str) -> int:
    asked = source.spec.quantization
    if asked is not None:
        four = asked.get("load_in_4bit") or asked.get("bits") == 4 or "int4" in str(asked).lower()
        return stored["int4" if four else "int8"]
    if getattr(source.config, "quantization_config", None) is not None:
        return sum(weight_files(source).values()) or stored["int4"]
    return stored[dtype]


def _work(model: PreTrainedModel, context: int | None, rows: int = 1) -> tuple[tuple[int, int], ...]:
    """The points of `Footprint.work`, for one row. Layers are worked through one after the other, so a few tell of
    all."""
    longest = min(max(_PROMPTS), max((context or max(_PROMPTS) + 1) - 1, 1))
    prompts = [*(prompt for prompt in _PROMPTS if prompt < longest), longest]
    seen = ((prompt, *prefill(model, prompt, rows)) for prompt in prompts)
    return tuple((prompt, (peak - bytes_of(cache)) // rows) for prompt, cache, peak in seen)
