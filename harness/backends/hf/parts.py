"""What is put on a model from elsewhere: a PEFT adapter, or a tokenizer that is not its own."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from harness.backends.builtin import path as builtin_path
from harness.config.schema import ModelSpec
from harness.config.variants import name_and_revision
from harness.errors import ModelError
from harness.hub.fetch import Held, fetch_large, hold, only_pickled

_ADAPTER_CONFIG = "adapter_config.json"
_ADAPTER, _PICKLED = "adapter_model.safetensors", "adapter_model.bin"
_TOKENIZER_CONFIG = "tokenizer_config.json"


@dataclass(frozen=True, slots=True)
class Part:
    """Files from elsewhere, and where they are."""

    folder: Path
    held: Held | None
    """What was fetched; None for a directory."""
    weights: str | None = None
    """The file that is to be fetched for loading."""

    def with_weights(self) -> Part:
        """The same, its weights fetched if they have to be."""
        if self.held is None or self.weights is None:
            return self
        return replace(self, held=fetch_large(self.held, [self.weights]))


def open_tokenizer(spec: ModelSpec) -> Part | None:
    """The files of the tokenizer that the spec names; None where it names none. Raises ModelError."""
    return None if spec.tokenizer is None else _open(spec.tokenizer, _TOKENIZER_CONFIG, "a tokenizer")


def open_adapter(spec: ModelSpec) -> Part | None:
    """The adapter that the spec names, its weights not yet fetched; None where it names none.

    Raises ModelError where it is missing, pickled against the spec's will, or of a kind that changes no model like
    this, and where peft is not installed.
    """
    if spec.adapter is None:
        return None
    if find_spec("peft") is None:
        raise ModelError(spec.adapter, "is an adapter, and peft is not installed", "pip install instruct-harness[peft]")
    part = _open(spec.adapter, _ADAPTER_CONFIG, "an adapter")
    weights = _ADAPTER if spec.use_safetensors or (part.folder / _ADAPTER).is_file() else _PICKLED
    if part.held is None and not (part.folder / weights).is_file():
        named = ModelSpec(model=spec.adapter)
        raise (
            only_pickled(named)
            if (part.folder / _PICKLED).is_file()
            else ModelError(spec.adapter, f"has no {weights}", "save it with save_pretrained")
        )
    told: dict[str, Any] = json.loads((part.folder / _ADAPTER_CONFIG).read_text(encoding="utf-8"))
    if told.get("task_type") not in (None, "CAUSAL_LM"):
        raise ModelError(spec.adapter, f"is an adapter for {told['task_type']}", "choose one for CAUSAL_LM")
    return replace(part, weights=weights)


def adapted(model: PreTrainedModel, part: Part) -> tuple[PreTrainedModel, bool]:
    """(the model with an adapter on it, whether it is merged into the weights).

    It is merged where weights are plain numbers: nothing is then computed for it any more. On quantised ones it stays
    beside them, as merging would have to quantise anew. Raises what peft raises.
    """
    if getattr(model, "hf_quantizer", None) is not None:
        put_on: Any = model.load_adapter
        put_on(str(part.folder))
        return model, False
    from peft import PeftModel

    merged: Any = PeftModel.from_pretrained(model, str(part.folder)).merge_and_unload()
    return merged, True


def _open(text: str, needs: str, kind: str) -> Part:
    kind, _, name = text.partition(":")
    path = builtin_path(name) if kind == "builtin" and name else Path(text).expanduser()
    if path.is_dir():
        if not (path / needs).is_file():
            raise ModelError(text, f"is a directory without a {needs}, so it is not {kind}")
        return Part(path, None)
    if path.is_absolute() or text.startswith((".", "~")):
        raise ModelError(text, "no such directory")
    name, revision = name_and_revision(text)
    held = hold(ModelSpec(model=name, revision=revision), needs)
    return Part(held.folder, held)
