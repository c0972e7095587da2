"""The shape of a run config. Unknown keys are refused everywhere; Hugging Face's names are unchanged."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from harness.config.rules import Gating
from harness.config.server import Dialect, server_of
from harness.config.tuning import Tuning
from harness.documents import Shape
from harness.records import History, KvCache, Length, OnOverflow

Engine = Literal["generate", "decode", "compiled", "batched", "continuous"]
AnyEngine = Literal[Engine, "server"]
Weights = Literal["saved", "random"]
ChatFormat = Literal["auto", "template", "transcript"]
Lane = Literal["speed", "behaviour"]


_LOADING = (
    "revision", "dtype", "device_map", "attn_implementation", "quantization", "trust_remote_code", "use_safetensors",
    "weights", "kv_cache", "adapter", "gguf_file",
)  # fmt: skip
"""What decides how a model is loaded."""


def _or_say(expected: str) -> WrapValidator:
    """One sentence for a value that may be of several types, where pydantic has one complaint per type."""

    def check(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise PydanticCustomError("several", "should be {expected}", {"expected": expected}) from None

    return WrapValidator(check)


Variants = list[
    Annotated[str | dict[str, Any], _or_say("the name of a variant, or a mapping with a label and keys of a model")]
]


class ModelSpec(Shape):
    """What to load."""

    model: Annotated[
        str,
        Field(
            min_length=1,
            description="Hub id, directory, builtin:NAME, shape:NAME, scripted:FILE, or a model behind a server: "
            "openai:http://HOST:PORT/v1#NAME",
        ),
    ]
    label: Annotated[
        str | None, Field(min_length=1, description="Name in reports; default: the last part of the model's name")
    ] = None
    revision: Annotated[str | None, Field(description="Branch, tag or commit on the Hub")] = None
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        Field(description="As in from_pretrained; auto is what the weights were saved in"),
    ] = "auto"
    device_map: Annotated[
        str | dict[str, int | str] | None,
        Field(description="As in from_pretrained: auto, a device, or a mapping of modules to devices; null: the CPU"),
        _or_say("a device, auto, or a mapping of modules to devices"),
    ] = "auto"
    attn_implementation: Annotated[
        str | None, Field(description="eager, sdpa, flash_attention_2 …; default: what the model chooses")
    ] = None
    quantization: Annotated[dict[str, Any] | None, Field(description="quantization_config, with its quant_method")] = (
        None
    )
    adapter: Annotated[
        str | None, Field(min_length=1, description="PEFT adapter to put on it: a directory, or ORG/NAME[@REVISION]")
    ] = None
    gguf_file: Annotated[
        str | None, Field(min_length=1, description="Which .gguf file of the directory or repository to load")
    ] = None
    trust_remote_code: Annotated[bool, Field(description="Run code that comes with the model")] = False
    use_safetensors: Annotated[bool, Field(description="false also accepts pickled weights, which can run code")] = True
    weights: Annotated[
        Weights,
        Field(
            description="saved: what the model was trained to; random: made on the spot, for speed and memory without "
            "a download (model is then a Hub id, a directory, a config.json or shape:NAME)"
        ),
    ] = "saved"
    engine: Annotated[
        AnyEngine,
        Field(
            description="Who turns the crank: generate = stock model.generate; decode = our own loop; compiled = that "
            "loop on a static cache under torch.compile; batched = several conversations in lock-step; "
            "continuous = transformers' continuous batching; server = of openai:…, the only one there"
        ),
    ] = "generate"
    kv_cache: Annotated[
        KvCache, Field(description="reuse: kept across the turns of a conversation; fresh: every turn prefills anew")
    ] = "reuse"
    template_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="Arguments of the chat template, e.g. enable_thinking: false"
    )
    dialect: Annotated[
        Dialect | None,
        Field(description="Of openai:…: how that server is spoken to; default: what it is recognised as"),
    ] = None
    tokenizer: Annotated[
        str | None,
        Field(
            min_length=1,
            description="Directory, builtin:NAME or ORG/NAME[@REVISION] whose tokenizer is used instead of the model's "
            "own; of openai:…: that counts where the server does not",
        ),
    ] = None
    api_key_env: Annotated[
        str | None,
        Field(
            pattern="^[A-Za-z_][A-Za-z0-9_]*$",
            description="Of openai:…: the environment variable that holds the key; default: OPENAI_API_KEY where that "
            "is set, and only to https or this machine",
        ),
    ] = None
    variants: Variants = Field(
        default_factory=list,
        description="Several specs out of this one: bf16, int8 and other names, or mappings of a label and keys",
    )
    python: Annotated[
        str | None,
        Field(
            min_length=1,
            description="Interpreter that its workers run in, such as /path/to/venv/bin/python, with the libraries "
            "installed there; default: the one that runs the harness",
        ),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if not isinstance(value, (str, dict, ModelSpec)):
            raise PydanticCustomError("several", "should be the name of a model or a mapping")
        value = {"model": value} if isinstance(value, str) else value
        # A shape has no weights to be saved, so it need not be said that they are made; nor which engine a server is.
        if isinstance(value, dict) and str(value.get("model", "")).startswith("shape:"):
            return {"weights": "random", **value}
        if isinstance(value, dict) and str(value.get("model", "")).startswith("openai:"):
            return {"engine": "server", **value}
        return value

    @field_validator("model")
    @classmethod
    def _is_an_address(cls, model: str) -> str:
        server_of(model)
        return model

    @model_validator(mode="after")
    def _asks_the_right_one(self) -> ModelSpec:
        """A server has loaded its model itself; and there is no server to speak to where the model is loaded here."""
        served = server_of(self.model) is not None
        for name in ("dialect", "api_key_env") if not served else _LOADING:
            if getattr(self, name) != ModelSpec.model_fields[name].default:
                why = "is what its server has loaded, however it did" if served else "is behind no server"
                raise ValueError(f"{self.model} {why}: leave {name} out")
        for name in ("adapter", "gguf_file", "tokenizer"):
            if self.model.startswith("scripted:") and getattr(self, name) is not None:
                raise ValueError(f"{self.model} recites lines: leave {name} out")
        if (self.engine == "server") != served:
            raise ValueError("engine: server is for openai:…, and the only one there: leave engine out")
        return self

    @field_validator("gguf_file")
    @classmethod
    def _quantises_itself(cls, gguf_file: str | None, others: ValidationInfo) -> str | None:
        if gguf_file is not None and others.data.get("quantization") is not None:
            raise ValueError("a GGUF file says itself how its weights are quantised: leave quantization out")
        return gguf_file

    @field_validator("weights")
    @classmethod
    def _there_are_such_weights(cls, weights: Weights, others: ValidationInfo) -> Weights:
        model = others.data.get("model", "")
        kind, _, name = model.partition(":")
        if kind == "shape" and name and weights == "saved":
            raise ValueError(f"{model} is a shape, which has no saved weights: leave weights out")
        if kind in ("builtin", "scripted") and name and weights == "random":
            raise ValueError(f"{model} comes with what it says: random is for a Hub id, a directory or a shape")
        if weights == "random" and others.data.get("quantization") is not None:
            raise ValueError("random weights cannot be quantised: leave quantization out, or choose a dtype")
        if weights == "random" and others.data.get("adapter") is not None:
            raise ValueError("an adapter was trained on saved weights: leave adapter out")
        if weights == "random" and others.data.get("gguf_file") is not None:
            raise ValueError("a GGUF file has saved weights: leave weights out")
        return weights

    @field_validator("python")
    @classmethod
    def _from_any_directory(cls, python: str | None) -> str | None:
        # Not resolved: the python of a venv is a link, and where it lies says which venv.
        return None if python is None else str(Path(python).expanduser().absolute())

    @field_validator("revision")
    @classmethod
    def _has_revisions(cls, revision: str | None, others: ValidationInfo) -> str | None:
        if revision is not None and others.data.get("model", "").startswith("shape:"):
            raise ValueError("a shape has no revisions: leave revision out")
        return revision


class ConversationFilter(Shape):
    """Which conversations of which files. Tags and ids both have to fit; a list that is empty keeps everything."""

    files: Annotated[list[str], Field(min_length=1, description="Files and globs such as prompts/*.yaml")]
    tags: list[str] = Field(default_factory=list, description="Keep conversations with any of these tags")
    exclude_tags: list[str] = Field(default_factory=list, description="Drop conversations with any of these tags")
    ids: list[str] = Field(default_factory=list, description="Keep these conversations only")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if not isinstance(value, (list, dict, ConversationFilter)):
            raise PydanticCustomError("several", "should be a list of files or a mapping with files")
        return {"files": value} if isinstance(value, list) else value


class RunConfig(Shape):
    """One run: models × sampling × conversations × repeats × launches."""

    models: Annotated[
        list[ModelSpec], Field(min_length=1, description="What to load: names, or mappings with settings")
    ]
    variants: Variants = Field(default_factory=list, description="The variants of every model that names none itself")
    sampling: dict[str, Any] = Field(
        default_factory=dict,
        description="Generation parameters under Hugging Face's names; a list is an axis of the matrix",
    )
    conversations: Annotated[
        ConversationFilter, Field(description="Files and globs, or a mapping of files with filters")
    ]
    history: Annotated[
        History,
        Field(
            description="What feeds on: generated = the model's replies, scripted = the gold replies, "
            "fill = only turns without a gold reply are generated"
        ),
    ] = "generated"
    length: Annotated[
        Length, Field(description="natural: until the model ends; fixed: exactly max_new_tokens, EOS and stops off")
    ] = "natural"
    lane: Annotated[
        Lane | None,
        Field(
            description="speed = scripted + fixed + greedy unless sampling is the subject; "
            "behaviour = generated + natural"
        ),
    ] = None
    chat_format: Annotated[
        ChatFormat,
        Field(description="auto: the model's template, else transcript; transcript: Alice: … / Bob: … lines"),
    ] = "auto"
    on_overflow: Annotated[
        OnOverflow, Field(description="What happens to a conversation that outgrows max_length or the context")
    ] = "stop"
    repeats: Annotated[int, Field(ge=1, description="How often each cell is played within a launch")] = 1
    launches: Annotated[int, Field(ge=1, description="Fresh processes per model, the models taking turns")] = 1
    concurrency: Annotated[
        list[Annotated[int, Field(ge=1)]],
        Field(min_length=1, description="Conversations replayed at a time; a list is an axis of the matrix"),
    ] = [1]  # noqa: RUF012 – pydantic copies it
    on_unbatchable: Annotated[
        Literal["error", "sequential"],
        Field(description="What happens at a concurrency above 1 to a model whose engine cannot batch it"),
    ] = "error"
    warmup: Annotated[
        int | Literal["auto"],
        Field(
            description="How often the longest conversation is replayed before measuring, per launch, sampling and "
            "concurrency; auto: until two passes take the same time, five at most"
        ),
        _or_say("auto, or a whole number from 0"),
    ] = "auto"
    threads: Annotated[
        int | None, Field(ge=1, description="Threads a worker computes with on the CPU; null: what torch chooses")
    ] = None
    cpu_affinity: Annotated[
        list[Annotated[int, Field(ge=0)]] | None,
        Field(min_length=1, description="Processors a worker may run on, by number; null: all it is given"),
    ] = None
    sample_devices_s: Annotated[
        float | None,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="Look at accelerators and host every so many seconds while turns are played; null: never, as "
            "looking costs time that is measured",
        ),
    ] = None
    seed: Annotated[int, Field(description="Base of every turn's own seed, and of the order of cells")] = 0
    timeout: Annotated[
        float | None, Field(gt=0, allow_inf_nan=False, description="Seconds a turn may take; null: no limit")
    ] = None
    template_now: Annotated[str, Field(description="The date that chat templates are told, ISO 8601")] = (
        "2026-01-01T00:00:00"
    )
    tune: Annotated[
        Tuning | None, Field(description="What harness tune is to look for among the samplings; a run takes no notice")
    ] = None
    gate: Annotated[
        Gating | None, Field(description="What harness gate and nightly judge a run by; a run takes no notice")
    ] = None

    _source: str = PrivateAttr(default="config")
    _given: dict[str, Any] | None = PrivateAttr(default=None)

    @field_validator("concurrency", mode="wrap")
    @classmethod
    def _one_is_a_list_of_one(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        if isinstance(value, list):
            return handler(value)
        try:
            return handler([value])
        except ValidationError:
            raise PydanticCustomError("several", "should be a whole number from 1, or a list of them") from None

    @field_validator("concurrency")
    @classmethod
    def _no_level_twice(cls, value: list[int]) -> list[int]:
        if len(set(value)) < len(value):
            raise ValueError("has a level twice")
        return value

    @field_validator("warmup")
    @classmethod
    def _not_negative(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 0:
            raise ValueError("should be auto, or a whole number from 0")
        return value

    @field_validator("template_now")
    @classmethod
    def _is_a_date(cls, value: str) -> str:
        try:
            datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"should be a date such as 2026-01-01T00:00:00, not {value!r}") from None
        return value

    @property
    def source(self) -> str:
        """Where the config came from: a file, or whatever its maker called it."""
        return self._source

    @property
    def name(self) -> str:
        """What the config is called: the name of its file, without its ending."""
        return Path(self._source).stem

    @property
    def given(self) -> dict[str, Any]:
        """The config as it was written, `--set` included, before lanes and globs were resolved."""
        return self.model_dump(mode="json") if self._given is None else self._given

    def coming_from(self, source: str, given: dict[str, Any]) -> RunConfig:
        """This config with its origin."""
        copy = self.model_copy()
        copy._source, copy._given = source, given
        return copy
