"""The `quantization` of a spec as transformers takes it, and what keeps it from being used – found before any weight is
read: a method that does not exist, a library that is missing, a machine that it cannot run on.

torchao's methods are Python objects, which no config can hold; here int8_weight_only and int4_weight_only are written
by name, as their kernels differ by device anyhow.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch
from transformers import TorchAoConfig
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AutoHfQuantizer, AutoQuantizationConfig
from transformers.utils.quantization_config import QuantizationConfigMixin

from harness.backends.failures import first_line
from harness.config.schema import ModelSpec
from harness.documents import did_you_mean
from harness.errors import ModelError

GROUP = 64
"""Weights that share a scale with int4_weight_only, unless the spec says another group_size."""
_LIBRARIES: Mapping[str, tuple[str, str]] = {
    "torchao": ("torchao", "instruct-harness[torchao]"),
    "bitsandbytes": ("bitsandbytes", "bitsandbytes"),
    "gptq": ("gptqmodel", "gptqmodel"),
    "awq": ("gptqmodel", "gptqmodel"),
    "compressed-tensors": ("compressed_tensors", "compressed-tensors"),
    "hqq": ("hqq", "hqq"),
    "quanto": ("optimum.quanto", "optimum-quanto"),
    "auto-round": ("auto_round", "auto-round"),
}
"""quant_method → its module, and what to install for it. Of the others transformers says it."""
_TORCHAO = ("int8_weight_only", "int4_weight_only")


def quantization_config(spec: ModelSpec) -> Any:
    """What from_pretrained takes for the spec's quantization; raises ModelError where it means nothing."""
    given = spec.quantization
    assert given is not None, "asked only of a spec that has one"
    method = given.get("quant_method")
    # bitsandbytes is listed once per width; its width is told by load_in_4bit or load_in_8bit.
    known = sorted({name.removesuffix("_4bit").removesuffix("_8bit") for name in AUTO_QUANTIZATION_CONFIG_MAPPING})
    if method not in known:
        fact = "quantization needs its quant_method" if method is None else f"unknown quant_method {method}"
        raise ModelError(spec.model, fact, f"one of {', '.join(known)}")
    _demand_library(spec, str(method))
    if method == "bitsandbytes" and not (given.get("load_in_4bit") or given.get("load_in_8bit")):
        raise ModelError(
            spec.model, "bitsandbytes does not say how many bits", "set load_in_4bit or load_in_8bit: true"
        )
    try:
        if method == "torchao" and isinstance(given.get("quant_type"), str):
            return _torchao(spec, dict(given))
        return AutoQuantizationConfig.from_dict(dict(given))
    except ModelError:
        raise
    except Exception as error:
        # Each method has a config of its own, which raises what it likes.
        fact = f"its quantization cannot be used: {type(error).__name__}: {first_line(error)}"
        raise ModelError(spec.model, fact) from error


def demand_quantization(spec: ModelSpec, stored: Any) -> None:
    """Raise ModelError where the spec's quantization, or the one that the weights are `stored` in (the config's
    quantization_config, or None), is known not to work here."""
    if spec.quantization is None and stored is None:
        return
    if stored is not None:
        method = stored.get("quant_method") if isinstance(stored, Mapping) else getattr(stored, "quant_method", None)
        _demand_library(spec, str(getattr(method, "value", method)))
        if spec.quantization is not None and spec.quantization.get("quant_method") != getattr(method, "value", method):
            fact = f"its weights are stored quantised ({getattr(method, 'value', method)}) already"
            raise ModelError(spec.model, fact, "leave quantization out")
    wanted = quantization_config(spec) if spec.quantization is not None else stored
    try:
        quantizer: Any = AutoHfQuantizer.from_config(wanted, pre_quantized=stored is not None)
        quantizer.validate_environment(device_map=spec.device_map, dtype=None)
    except Exception as error:
        # Of transformers and of every library behind it: ImportError, RuntimeError, ValueError …
        fact = f"its quantization cannot be used here: {first_line(error)}"
        raise ModelError(spec.model, fact, "choose another, or a dtype") from error


def told(config: QuantizationConfigMixin) -> str:
    """A quantisation in a few words: its method, and the bits or type that it says."""
    method = str(getattr(config.quant_method, "value", config.quant_method))
    kind: Any = getattr(config, "quant_type", None)
    if isinstance(config, TorchAoConfig):
        group = getattr(kind, "group_size", None)
        name = type(kind).__name__.removeprefix("Prototype").removesuffix("Config")
        return f"{method} {name}" + (f" group_size={group}" if group else "")
    bits: Any = getattr(config, "bits", None)
    if getattr(config, "load_in_8bit", False):
        bits = 8
    elif getattr(config, "load_in_4bit", False):
        bits = 4
    return f"{method} {bits} bits" if bits else method


def _demand_library(spec: ModelSpec, method: str) -> None:
    module, package = _LIBRARIES.get(method, ("", ""))
    if module and find_spec(module.partition(".")[0]) is None:
        raise ModelError(spec.model, f"quantization {method} needs a library that is missing", f"pip install {package}")


def _torchao(spec: ModelSpec, given: dict[str, Any]) -> TorchAoConfig:
    """The methods that have a name. 4 bits are packed as the device's kernel wants them."""
    from torchao.prototype.quantization.int4.inference_workflow import PrototypeInt4WeightOnlyConfig
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig

    name = given.pop("quant_type")
    del given["quant_method"]
    group = given.pop("group_size", GROUP)
    if name not in _TORCHAO:
        raise ModelError(spec.model, f"torchao has no quant_type {name} here", did_you_mean(name, _TORCHAO))
    kind: Any
    if name == "int8_weight_only":
        kind = Int8WeightOnlyConfig()
    elif torch.cuda.is_available() and spec.device_map not in (None, "cpu"):
        kind = Int4WeightOnlyConfig(group_size=group, int4_packing_format="tile_packed_to_4d")
    else:
        kind = PrototypeInt4WeightOnlyConfig(group_size=group)
    return TorchAoConfig(quant_type=kind, **given)
