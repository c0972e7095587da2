"""Models whose weights are made on the spot: the shape of a model is enough to know its speed and its memory.

transformers initialises whatever a checkpoint lacks, in the wanted dtype and on the device where it will be used. So a
checkpoint that lacks everything is a model with random weights, by the very path a saved one is loaded by: sensible
magnitudes, norms of 1, tied weights tied, `device_map` obeyed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedModel
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from harness.backends.hf.source import CAUSAL, Source, explained

SEED = 0
"""Of the weights: every launch, and a run that is gone on with, measures the same model."""


def random_model(source: Source, arguments: Mapping[str, Any]) -> PreTrainedModel:
    """A model of the source's shape; `arguments` are those of from_pretrained.

    Raises ModelError, or OutOfMemory if it does not fit.
    """
    torch.manual_seed(SEED)
    with explained(source.spec):
        make: Any = _class_of(source).from_pretrained
        model: PreTrainedModel = make(None, config=source.config, state_dict={}, **arguments)
    return model  # from_pretrained has called eval()


def _class_of(source: Source) -> Any:
    if type(source.config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return MODEL_FOR_CAUSAL_LM_MAPPING[type(source.config)]
    code: Any = source.config
    return get_class_from_dynamic_module(code.auto_map[CAUSAL], source.name)
