"""Loading a model, timed in parts: imports, weights, first forward, and compilation where the engine asks for it.

safetensors files are mapped, not read: `from_pretrained` of a gigabyte can take 50 ms, and its pages arrive in the
first forward. So a load counts until that forward is done, or the first turn would pay for the disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM, PreTrainedModel

from harness.backends.hf.backend import HfBackend
from harness.backends.hf.cache import why_not_reusable
from harness.backends.hf.engines import NOT_STOCK, demand_engine, demand_loaded, make_crank
from harness.backends.hf.formats import Format, choose_format
from harness.backends.hf.generate import free_memory, input_device, stream_on_time, synchronize
from harness.backends.hf.parts import adapted
from harness.backends.hf.quantization import quantization_config, told
from harness.backends.hf.random_weights import SEED, random_model
from harness.backends.hf.roofline import roofline
from harness.backends.hf.settings import nothing_set, own_parameters
from harness.backends.hf.source import (
    Source,
    context_tokens,
    explained,
    generation_config,
    open_source,
    remote_code,
    with_weights,
)
from harness.backends.hf.stored import bytes_by_dtype, plain, unquantised
from harness.backends.seam import LoadReport
from harness.config.schema import ChatFormat, ModelSpec
from harness.errors import ModelError
from harness.meters.clock import real_clock
from harness.meters.gauges import gauges_of
from harness.meters.machine import Ceilings, ceilings
from harness.meters.memory import host_rss_bytes
from harness.records import Memory, Roofline

_PAGE = 4096  # bytes; larger pages are touched more than once, which does no harm


def load(spec: ModelSpec, name: str, *, chat_format: ChatFormat, template_now: str, libraries_s: float) -> HfBackend:
    """Load the model that `name` (a Hub id or a directory) holds; importing torch and transformers took `libraries_s`.

    Raises ModelError, or OutOfMemory if it does not fit.
    """
    started_ns = real_clock()
    source = open_source(spec, name)
    small_s = sum(held.download_s for held in source.fetched.values())
    form = choose_format(
        source.tokenizer,
        chat_format,
        subject=spec.model,
        template_kwargs=spec.template_kwargs,
        template_now=template_now,
    )
    if type(source.config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        MODEL_FOR_CAUSAL_LM_MAPPING[type(source.config)]  # imports the modelling code, several seconds of it
    demand_engine(spec, source.config)
    imported_ns = real_clock()
    source = with_weights(source)  # the last thing before they are loaded: all that can be refused has been
    came_ns = real_clock()
    model, missing = _load_weights(source)
    merged = None
    if source.adapter is not None:
        with explained(spec):
            model, merged = adapted(model, source.adapter)
    _demand_quantised(spec, model)
    loaded_ns = real_clock()
    with explained(spec):
        _first_forward(model)
    ready_ns = real_clock()
    own = own_parameters(model.generation_config) if spec.weights == "saved" else generation_config(source)
    model.generation_config = nothing_set()  # see settings.py: what is not set must stay unset
    context = context_tokens(source.config)
    stream_on_time()
    demand_loaded(spec, model)
    with explained(spec):
        roof = roofline(model, _ceilings(model))  # while memory is free: an engine may fill it with static caches
        free_memory()
        crank = make_crank(spec, model, context)
    fetched = source.fetched.values()
    before_s = (imported_ns - started_ns) / 1e9 - small_s
    notices = [*source.notices, *form.notices, *_notices(spec, model, missing)]
    gauges = gauges_of(_accelerators_of(model))  # new, so its peaks are what is in use now
    report = LoadReport(
        load_s=libraries_s + before_s + (ready_ns - came_ns) / 1e9 + (crank.compile_s or 0),
        import_s=libraries_s + before_s,
        weights_s=(loaded_ns - came_ns) / 1e9,
        first_forward_s=(ready_ns - loaded_ns) / 1e9,
        compile_s=crank.compile_s,
        download_s=sum(held.download_s for held in fetched) if fetched else None,
        download_bytes=sum(held.download_bytes for held in fetched) if fetched else None,
        roofline=roof,
        facts={**_facts(source, model, form, roof, gauges.read().memory), "adapter_merged": merged},
        notices=tuple(notices),
    )
    return HfBackend(spec, model, source.tokenizer, form, own, context, report, gauges, crank)


def use_threads(threads: int) -> None:
    """Let torch compute one operation with so many threads on the CPU, in this process."""
    torch.set_num_threads(threads)


def _load_weights(source: Source) -> tuple[PreTrainedModel, list[str]]:
    spec = source.spec
    arguments: dict[str, Any] = {
        "dtype": spec.dtype,
        "device_map": spec.device_map,
    }
    if spec.attn_implementation is not None:
        arguments["attn_implementation"] = spec.attn_implementation
    if spec.quantization is not None:
        arguments["quantization_config"] = quantization_config(spec)
    if spec.gguf_file is not None:
        arguments["gguf_file"] = spec.gguf_file
    if spec.weights == "random":
        return random_model(source, arguments), []
    # None takes pickled weights only where there are no safetensors.
    arguments["use_safetensors"] = True if spec.use_safetensors else None
    from_pretrained: Any = AutoModelForCausalLM.from_pretrained
    with explained(spec):
        model, info = from_pretrained(
            source.name, output_loading_info=True, trust_remote_code=spec.trust_remote_code, **arguments
        )
    return model.eval(), sorted(info["missing_keys"])


def _demand_quantised(spec: ModelSpec, model: PreTrainedModel) -> None:
    """Raise ModelError where quantisation was asked for and passed over every matrix, as torchao does in silence."""
    if spec.quantization is None:
        return
    untyped: Any = model
    left, linear = unquantised(model, but=untyped.get_output_embeddings())
    if linear and len(left) == linear:
        fact = f"its quantization changed none of its {linear} matrices, whose sizes may be no multiples of group_size"
        raise ModelError(spec.model, fact, "choose another, or a smaller group_size")


def _first_forward(model: PreTrainedModel) -> None:
    """Bring every page of the weights into memory and run the model once."""
    with torch.inference_mode():
        for parameter in model.parameters():
            # A forward alone would leave cold the experts it did not choose and the rows of ids it was not shown.
            for part in plain(parameter):
                if part.device.type == "cpu" and part.is_contiguous():
                    part.detach().view(-1)[:: max(_PAGE // part.element_size(), 1)].sum()
        model(input_ids=torch.zeros((1, 8), dtype=torch.long, device=input_device(model)))
    synchronize()


def _notices(spec: ModelSpec, model: PreTrainedModel, missing: list[str]) -> list[str]:
    notices = [NOT_STOCK[spec.engine]] if spec.engine in NOT_STOCK else []
    if missing:
        notices.append(
            f"WARNING: the checkpoint lacks {len(missing)} weights ({missing[0]} …): they are random, as are replies"
        )
    if spec.quantization is not None:
        untyped: Any = model
        left, linear = unquantised(model, but=untyped.get_output_embeddings())
        if left:
            notices.append(f"WARNING: {len(left)} of {linear} matrices are not quantised ({left[0]} …)")
    offloaded = _offloaded(model)
    if offloaded:
        notices.append(
            f"WARNING: {len(offloaded)} parts of the model are offloaded to {' and '.join(sorted(set(offloaded)))}: "
            "it does not fit, and times are those of copying"
        )
    why = why_not_reusable(model)
    if spec.kv_cache == "reuse" and why is not None:
        notices.append(f"kv_cache: reuse has no effect: {why}")
    return notices


def _ceilings(model: PreTrainedModel) -> Ceilings | None:
    """What the model's device can do, computing in the model's dtype; None if parts of it are copied there to be used.

    Where a model is spread over several accelerators, one works after the other: the ceilings are those of one.
    """
    if _offloaded(model):
        return None
    return ceilings(input_device(model), model.dtype)


def _offloaded(model: PreTrainedModel) -> list[str]:
    placed: Mapping[str, Any] = getattr(model, "hf_device_map", None) or {}
    slow = ("cpu", "disk") if torch.accelerator.is_available() else ("disk",)
    return [str(place) for place in placed.values() if str(place) in slow]


def _facts(source: Source, model: PreTrainedModel, form: Format, roof: Roofline, memory: Memory) -> dict[str, Any]:
    placed: Mapping[str, Any] = getattr(model, "hf_device_map", None) or {"": model.device}
    stored = bytes_by_dtype(model)
    quantizer = getattr(model, "hf_quantizer", None)
    return {
        "source": source.name if source.held is None else source.held.model,
        "commit": None if source.held is None else source.held.commit,
        "remote_code": remote_code(source),
        "class": type(model).__name__,
        "parameters": model.num_parameters(),
        "weights": source.spec.weights,
        "weights_seed": SEED if source.spec.weights == "random" else None,
        "weights_bytes": sum(stored.values()),
        "weights_bytes_by_dtype": stored,
        "kv_bytes_per_token": roof.kv_bytes_per_token,
        "flops_per_token": roof.flops_per_token,
        "dtype": str(model.dtype).removeprefix("torch."),
        "quantization": None if quantizer is None else told(quantizer.quantization_config),
        "adapter": source.spec.adapter,
        "adapter_commit": source.commits.get("adapter"),
        "gguf_file": source.spec.gguf_file,
        "device_map": {part: str(place) for part, place in placed.items()},
        "devices": _device_names(model),
        "attention": getattr(model.config, "_attn_implementation", None),
        "context_tokens": context_tokens(source.config),
        "tokenizer": source.spec.tokenizer or ("synthetic" if source.tokenizer_is_synthetic else "own"),
        "tokenizer_commit": source.commits.get("tokenizer"),
        "vocabulary": len(source.tokenizer),
        **form.facts(),
        "memory_bytes": memory.peak_memory_bytes,
        "reserved_memory_bytes": memory.reserved_memory_bytes,
        "device_used_bytes": memory.device_used_bytes,
        "host_rss_bytes": host_rss_bytes(),
    }


def _accelerators_of(model: PreTrainedModel) -> list[torch.device]:
    """The accelerators that hold a part of the model."""
    devices = {parameter.device for parameter in model.parameters()}
    held = [device for device in devices if device.type not in ("cpu", "meta")]
    return sorted(held, key=lambda device: device.index or 0)


def _device_names(model: PreTrainedModel) -> list[str]:
    devices = sorted({str(parameter.device) for parameter in model.parameters()})
    return [
        f"{device} ({torch.cuda.get_device_name(device)})" if device.startswith("cuda") else device
        for device in devices
    ]
