"""The shape of a run config. Unknown keys are refused everywhere; Hugging Face's names are unchanged."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.records import History, KvCache, Length, OnOverflow

Engine = Literal["generate"]
ChatFormat = Literal["auto", "template", "transcript"]
Lane = Literal["speed", "behaviour"]


class Shape(BaseModel):
    """A part of a config: frozen, and strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class ModelSpec(Shape):
    """What to load."""

    model: Annotated[str, Field(min_length=1, description="Hub id, directory, builtin:NAME or scripted:FILE")]
    label: Annotated[str | None, Field(description="Name in reports; default: the last part of the model's name")] = None
    revision: Annotated[str | None, Field(description="Branch, tag or commit on the Hub")] = None
    dtype: Annotated[Literal["auto", "float32", "bfloat16", "float16"], Field(description="As in from_pretrained")] = "auto"
    device_map: Annotated[str | dict[str, int | str] | None, Field(description="As in from_pretrained")] = "auto"
    attn_implementation: Annotated[str | None, Field(description="eager, sdpa, flash_attention_2 …")] = None
    quantization: Annotated[dict[str, Any] | None, Field(description="quantization_config, with its quant_method")] = None
    trust_remote_code: Annotated[bool, Field(description="Run code that comes with the model")] = False
    use_safetensors: Annotated[bool, Field(description="false also accepts pickled weights")] = True
    engine: Annotated[Engine, Field(description="Who turns the crank: generate = stock model.generate")] = "generate"
    kv_cache: Annotated[KvCache, Field(description="reuse: kept across the turns of a conversation; fresh: none")] = "reuse"
    template_kwargs: Annotated[dict[str, Any], Field(description="Arguments of the chat template, e.g. enable_thinking")] = {}


class ConversationFilter(Shape):
    """Which conversations of which files."""

    files: list[str]
    tags: Annotated[list[str], Field(description="Keep conversations with any of these tags")] = []
    exclude_tags: list[str] = []
    ids: Annotated[list[str], Field(description="Keep these conversations only")] = []


class RunConfig(Shape):
    """One run: models × sampling × conversations × repeats × launches."""

    models: Annotated[list[ModelSpec | str], Field(min_length=1)]
    sampling: Annotated[dict[str, Any], Field(description="Generation parameters; a list is an axis of the matrix")] = {}
    conversations: Annotated[list[str] | ConversationFilter, Field(description="Files, globs, or files with filters")]
    history: History = "generated"
    length: Length = "natural"
    lane: Annotated[Lane | None, Field(description="speed = scripted + fixed + greedy; behaviour = generated + natural")] = None
    chat_format: ChatFormat = "auto"
    on_overflow: OnOverflow = "stop"
    repeats: Annotated[int, Field(ge=1)] = 1
    launches: Annotated[int, Field(ge=1)] = 1
    warmup: Annotated[int, Field(ge=0, description="Conversations replayed before measuring, per launch and sampling")] = 1
    seed: int = 0
    timeout: Annotated[float | None, Field(gt=0, description="Seconds a turn may take")] = None
    template_now: Annotated[str, Field(description="The date templates are told, ISO 8601")] = "2026-01-01T00:00:00"
