"""Who turns the crank: which engine a model spec asks for, and what it cannot do.

An engine answers the turns of one conversation, whose key/value cache it holds, or those of many together. Which one it
is, is decided here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from torch._dynamo.exc import TorchDynamoException
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedConfig, PreTrainedModel

from harness.backends.failures import first_line
from harness.backends.hf.batched import Batched
from harness.backends.hf.cache import cache_argument
from harness.backends.hf.compiled import Compiled, CompiledStep, why_not_static
from harness.backends.hf.continuous import Continuous, refuse_settings, why_not_continuous
from harness.backends.hf.decode import Decode
from harness.backends.hf.formats import Format
from harness.backends.hf.generate import Generate, Generated
from harness.backends.hf.lockstep import why_not_padded
from harness.backends.hf.settings import SPECULATION, Settled, speculates
from harness.backends.seam import OnTokens
from harness.config.schema import ModelSpec
from harness.errors import ModelError, UsageError
from harness.records import Persona

if TYPE_CHECKING:
    from harness.backends.hf.backend import HfBackend
    from harness.backends.hf.session import OpenTurn

NOT_STOCK: Mapping[str, str] = {
    "decode": "engine: decode is our own loop on the model's forward, not stock generate",
    "compiled": "engine: compiled is our own loop on a static cache, its step compiled; it is not stock generate",
    "batched": "engine: batched is our own loop over several conversations in lock-step, not stock generate",
    "continuous": "engine: continuous is transformers' continuous batching; it prefills every turn anew",
}
_STOCK = "engine: generate can"
_BATCHED = "engine: batched can"


class Engine(Protocol):
    """Answers the turns of one conversation."""

    def answer(self, turn: OpenTurn, on_tokens: OnTokens) -> Generated:
        """Generate up to `turn.room` ids, which is one at least; ticks every arrival, stamps `generated`. What goes
        wrong is raised, and leaves the conversation as if the turn had not been asked."""
        ...

    def keep(self, turn: OpenTurn, generated: Generated) -> None:
        """The turn went well: remember what serves the next one."""
        ...


@dataclass(frozen=True, slots=True)
class Crank:
    """What answers the conversations with a loaded model."""

    open: Callable[[], Engine] | None
    """For a new conversation; None where one answers them all (`open_together`)."""
    compile_s: float | None = None


def make_crank(spec: ModelSpec, model: PreTrainedModel, context_tokens: int | None) -> Crank:
    """The engine that the spec asks for, compiled if it has to be. Raises ModelError where that cannot be done."""
    match spec.engine:
        case "decode":
            return Crank(lambda: Decode(model, spec.kv_cache))
        case "compiled":
            try:
                step = CompiledStep(model, context_tokens)
            except TorchDynamoException as error:
                fact = f"cannot be compiled: {first_line(error)}"
                raise ModelError(spec.model, fact, "engine: decode needs no compiler") from error
            return Crank(lambda: Compiled(step, spec.kv_cache), step.compile_s)
        case "batched" | "continuous":
            return Crank(None)
        case _:
            return Crank(lambda: Generate(model, spec.kv_cache))


def open_together(backend: HfBackend) -> Batched | Continuous | None:
    """What answers all conversations with a loaded model; None where each has an engine of its own."""
    match backend.spec.engine:
        case "batched":
            return Batched(backend)
        case "continuous":
            return Continuous(backend)
        case _:
            return None


def why_not_together(spec: ModelSpec, config: PreTrainedConfig) -> str | None:
    """Why the spec's engine cannot answer several conversations at once with such a model; None if it can."""
    if spec.engine == "continuous":
        return None  # models that it cannot run together it cannot run at all
    model_class = model_class_of(config)
    if spec.engine == "batched" and model_class is not None:
        return why_not_padded(model_class, config)
    return f"the engine {spec.engine} answers one conversation at a time"


def demand_engine(spec: ModelSpec, config: PreTrainedConfig) -> None:
    """Raise ModelError if the spec's engine is known not to run such a model. Needs no weights; imports the modelling
    code for any engine but generate."""
    why = why_not(spec, config)
    if why is not None:
        remedy = _BATCHED if spec.engine == "continuous" else _STOCK
        raise ModelError(spec.model, f"cannot be used with engine: {spec.engine}: {why}", remedy)


def why_not(spec: ModelSpec, config: PreTrainedConfig) -> str | None:
    """Why the spec's engine is known not to run such a model; None where nothing speaks against it."""
    if spec.engine not in NOT_STOCK:
        return None
    model_class = model_class_of(config)
    if model_class is None:
        return "its own code may want inputs that only generate makes"
    if cache_argument(model_class) is None:
        return f"{model_class.__name__} keeps a cache of its own kind"
    if spec.engine == "continuous":
        return why_not_continuous(model_class, config, spec.attn_implementation)
    if spec.engine == "compiled" and spec.attn_implementation not in (None, "sdpa", "eager"):
        return f"{spec.attn_implementation} cannot tell the empty part of a static cache; sdpa and eager can"
    return why_not_static(model_class, config) if spec.engine == "compiled" else None


def demand_loaded(spec: ModelSpec, model: PreTrainedModel) -> None:
    """Raise ModelError if the engine cannot run the model as it was loaded."""
    quantizer: Any = getattr(model, "hf_quantizer", None)
    if spec.engine == "compiled" and quantizer is not None and not quantizer.is_compileable:
        raise ModelError(spec.model, f"its quantization cannot be compiled ({spec.quantization})", "engine: decode can")
    places = {str(place) for place in (getattr(model, "hf_device_map", None) or {}).values()}
    if spec.engine in ("compiled", "continuous") and len(places) > 1:
        fact = f"is spread over {' and '.join(sorted(places))}, and engine: {spec.engine} works on one device only"
        able = "decode" if spec.engine == "compiled" else "batched"
        raise ModelError(spec.model, fact, f"engine: {able} can, or give it a device that holds it all")


def demand_sampling(spec: ModelSpec, config: PreTrainedConfig, settled: Settled, chat_format: Format) -> None:
    """Raise UsageError for settings that cannot be carried out: dropped by the engine, or guessing ids ahead on a model
    that cannot go back where a guess was wrong."""
    if spec.engine == "continuous":
        refuse_settings(settled, chat_format.stop_strings(Persona()))
    if not speculates(settled.config):
        return
    model_class = model_class_of(config)
    if model_class is not None and (model_class._is_stateful or cache_argument(model_class) is None):
        name = next(name for name in SPECULATION if settled.effective.values.get(name))
        fact = f"cannot be used with {spec.model}: {model_class.__name__} keeps a state that cannot be taken back"
        raise UsageError(f"sampling.{name}", fact, "leave it out for this model")


def model_class_of(config: PreTrainedConfig) -> type[PreTrainedModel] | None:
    """The class that transformers loads for such a config; None if its code comes with the model."""
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return None
    found: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    model_class: type[PreTrainedModel] = found[0] if isinstance(found, tuple) else found
    return model_class
