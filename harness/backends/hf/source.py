"""What can be known of a model before its weights are read: its config, its tokenizer, whether it is supported.

Errors of transformers, which run over many lines, become one line with a remedy.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from harness.backends.failures import OutOfMemory, first_line, is_out_of_memory
from harness.backends.hf.parts import Part, open_adapter, open_tokenizer
from harness.backends.hf.quantization import demand_quantization
from harness.backends.hf.settings import own_parameters
from harness.backends.hf.synthetic import synthetic_tokenizer
from harness.config.schema import ModelSpec
from harness.errors import ModelError
from harness.hub.fetch import CONFIG, Held, downloads_shown, fetch_large, fetch_weights, hold, listing, only_pickled
from harness.records import short_hash

CAUSAL = "AutoModelForCausalLM"
RANDOM = "WARNING: random weights: speed and memory are those of the shape, replies mean nothing"
SYNTHETIC = "there is no tokenizer: a synthetic one takes every byte for a token, four times as many as a trained one"
_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt",
    "tekken.json",
)  # fmt: skip
"""A tokenizer has one of these at least."""
_GENERATION_FILES = ("generation_config.json", "config.json")
_CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length")


@dataclass(frozen=True, slots=True)
class Source:
    """A supported model, before its weights."""

    spec: ModelSpec
    name: str
    """What from_pretrained takes: a directory; or, for random weights, a file that is a config."""
    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase
    tokenizer_is_synthetic: bool = False
    held: Held | None = None
    """What was fetched for it; None where it does not come from the Hub."""
    adapter: Part | None = None
    foreign_tokenizer: Part | None = None
    """Where the tokenizer came from, if not with the model."""

    @property
    def notices(self) -> tuple[str, ...]:
        """What is not as it is with other models."""
        random = (RANDOM,) if self.spec.weights == "random" else ()
        synthetic = (SYNTHETIC,) if self.tokenizer_is_synthetic else ()
        return (*random, *synthetic, *(notice for held in self.fetched.values() for notice in held.notices))

    @property
    def fetched(self) -> dict[str, Held]:
        """What came from the Hub: the `model`, its `adapter`, its `tokenizer`."""
        parts = {"adapter": self.adapter, "tokenizer": self.foreign_tokenizer}
        held = {"model": self.held, **{name: part.held for name, part in parts.items() if part is not None}}
        return {name: one for name, one in held.items() if one is not None}

    @property
    def commits(self) -> dict[str, str]:
        """The commits of what came from the Hub."""
        return {name: held.commit for name, held in self.fetched.items()}


def open_source(spec: ModelSpec, name: str) -> Source:
    """Find a model and read its config and tokenizer; raises ModelError where it is missing or unsupported.

    What lies on the Hub is fetched first, at the commit that its revision has.
    """
    _quieten()
    if spec.weights == "random" and Path(name).name == "config.json":
        name = str(Path(name).parent)  # a tokenizer may lie beside it
    _look_at_files(spec, name)
    held = None if Path(name).expanduser().exists() else hold(spec, spec.gguf_file or CONFIG)
    if held is not None and spec.gguf_file is not None:
        held = fetch_large(held, [spec.gguf_file])  # its config and its tokenizer are inside
    name = name if held is None else str(held.folder)
    where = {"trust_remote_code": spec.trust_remote_code, **_gguf(spec)}
    with explained(spec, held):
        config = AutoConfig.from_pretrained(name, **where)
    _refuse_foreign_code(spec, config)
    _refuse_unsupported(spec, config, held)
    _refuse_quantised(spec, config)
    demand_quantization(spec, getattr(config, "quantization_config", None))
    adapter, foreign = open_adapter(spec), open_tokenizer(spec)
    synthetic = spec.weights == "random" and foreign is None and not _has_tokenizer(name)
    with explained(spec, held):
        tokenizer = synthetic_tokenizer(config) if synthetic else _tokenizer(spec, name, foreign)
    if foreign is not None:
        _refuse_unknown_ids(spec, config, tokenizer)
    return Source(spec, name, config, tokenizer, synthetic, held, adapter, foreign)


def _gguf(spec: ModelSpec) -> dict[str, str]:
    return {} if spec.gguf_file is None else {"gguf_file": spec.gguf_file}


def _tokenizer(spec: ModelSpec, name: str, foreign: Part | None) -> PreTrainedTokenizerBase:
    """The model's tokenizer, or another; which is plain files, and runs no code of its own."""
    load: Any = AutoTokenizer.from_pretrained
    if foreign is not None:
        found: PreTrainedTokenizerBase = load(str(foreign.folder))
    else:
        found = load(name, trust_remote_code=spec.trust_remote_code, **_gguf(spec))
    return found


def _refuse_unknown_ids(spec: ModelSpec, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    text: Any = config.get_text_config(decoder=True)
    if len(tokenizer) > text.vocab_size:
        fact = f"the tokenizer {spec.tokenizer} has {len(tokenizer)} ids, and the model knows {text.vocab_size}"
        raise ModelError(spec.model, fact, "choose one of its family")


def with_weights(source: Source) -> Source:
    """The same, its weights and its adapter's fetched if they have to be; raises ModelError where they cannot be."""
    adapter = source.adapter and source.adapter.with_weights()
    if source.held is None or source.spec.weights == "random" or source.spec.gguf_file is not None:
        return replace(source, adapter=adapter)
    return replace(source, adapter=adapter, held=fetch_weights(source.spec, source.held))


def generation_config(source: Source) -> dict[str, Any]:
    """The generation parameters a model brings along, read as from_pretrained reads them."""
    if Path(source.name).is_file() or not any((Path(source.name) / name).is_file() for name in _GENERATION_FILES):
        return own_parameters(GenerationConfig.from_model_config(source.config))
    read: Any = GenerationConfig.from_pretrained  # its types leave out what it is passed
    with explained(source.spec):
        try:
            config = read(source.name)
        except OSError:  # older models keep them in config.json
            config = read(source.name, config_file_name="config.json", _from_model_config=True)
    return own_parameters(config)


def weight_files(source: Source) -> dict[str, int]:
    """The files of weights that would be loaded and their bytes on disk, fetched or not; empty where there are none."""
    folder = Path(source.name)
    if source.held is not None:
        sizes = dict(listing(source.held.model, source.held.commit) or {})
    else:
        sizes = {path.name: path.stat().st_size for path in folder.glob("*")} if folder.is_dir() else {}
    if source.spec.gguf_file is not None:
        return {path: size for path, size in sizes.items() if path == source.spec.gguf_file}
    for kind in (".safetensors", ".bin"):
        found = {path: size for path, size in sizes.items() if path.endswith(kind) and _is_loaded(path)}
        if found:
            return found
    return {}


def _is_loaded(path: str) -> bool:
    """Whether transformers would look for a file of this name, or a list of files would name it."""
    return path.startswith(("model", "pytorch_model")) and "/" not in path


def remote_code(source: Source) -> str | None:
    """Stands for the code that came with the model and may run; None where none may."""
    if not source.spec.trust_remote_code or not getattr(source.config, "auto_map", None):
        return None
    return short_hash(b"\0".join(path.read_bytes() for path in sorted(Path(source.name).rglob("*.py"))))


def context_tokens(config: PreTrainedConfig) -> int | None:
    """The most ids the model has positions for; None if its positions do not end (ALiBi, recurrent models)."""
    text = config.get_text_config(decoder=True)
    if getattr(text, "alibi", False) or getattr(getattr(text, "attn_config", None), "alibi", False):
        return None
    for name in _CONTEXT_NAMES:
        value = getattr(text, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


@contextmanager
def explained(spec: ModelSpec, held: Held | None = None) -> Iterator[None]:
    """Turn whatever a library raises into a ModelError of one line."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        # Loading runs code of many libraries, remote code among them: anything may come.
        raise _explanation(spec, held, error) from error


def _explanation(spec: ModelSpec, held: Held | None, error: Exception) -> ModelError:
    chain = list(_chain(error))
    if any(is_out_of_memory(one) for one in chain):
        remedy = "try a smaller dtype, quantization or device_map: auto"
        return OutOfMemory(spec.model, "does not fit into memory", remedy)
    said = " ".join(str(one) for one in chain)
    if "trust_remote_code" in said:
        return _needs_remote_code(spec, held)
    if spec.use_safetensors and "safetensors" in said and "does not appear to have" in said:
        return only_pickled(spec)
    if "does not recognize this architecture" in said:
        return ModelError(spec.model, "has an architecture that this version of transformers does not know")
    return ModelError(spec.model, f"cannot be loaded: {type(error).__name__}: {first_line(error)}")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _look_at_files(spec: ModelSpec, name: str) -> None:
    path = Path(name).expanduser()
    if path.is_file():
        if spec.weights == "saved":
            raise ModelError(spec.model, "is a file without weights", "name its directory, or set weights: random")
        return
    if not path.is_dir():
        if path.is_absolute() or name.startswith((".", "~")):
            raise ModelError(spec.model, "no such directory")
        return
    if spec.gguf_file is not None:
        if not (path / spec.gguf_file).is_file():
            raise ModelError(spec.model, f"has no file {spec.gguf_file}", _ggufs(path))
        return
    if not (path / "config.json").is_file():
        raise ModelError(spec.model, "is a directory without a config.json", "save a model with save_pretrained there")
    if spec.weights == "random":
        return
    if spec.use_safetensors and not any(path.glob("*.safetensors")) and any(path.glob("*.bin")):
        raise only_pickled(spec)


def _ggufs(folder: Path) -> str:
    found = sorted(path.name for path in folder.glob("*.gguf"))
    return f"there is {', '.join(found[:5])}" if found else "there is no .gguf file in it"


def _refuse_unsupported(spec: ModelSpec, config: PreTrainedConfig, held: Held | None) -> None:
    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(spec.model, f"is an encoder-decoder model ({kind})", "use a decoder-only instruct model")
    remote = CAUSAL in (getattr(config, "auto_map", None) or {})
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING or (remote and spec.trust_remote_code):
        return
    if remote:
        raise _needs_remote_code(spec, held)
    raise ModelError(spec.model, f"transformers has no causal language model for its architecture ({kind})")


def _refuse_quantised(spec: ModelSpec, config: PreTrainedConfig) -> None:
    if spec.weights == "random" and getattr(config, "quantization_config", None) is not None:
        fact = "its config is of quantised weights, which cannot be made at random"
        raise ModelError(spec.model, fact, "take quantization_config out of a copy of its config.json")


def _refuse_foreign_code(spec: ModelSpec, config: PreTrainedConfig) -> None:
    """Code of another repository would come at whatever commit that has by then."""
    named: Mapping[str, Any] = getattr(config, "auto_map", None) or {}
    others = sorted({place.partition("--")[0] for place in map(str, named.values()) if "--" in place})
    if spec.trust_remote_code and others:
        fact = f"its code comes from another repository ({others[0]}), whose commit nothing fixes"
        raise ModelError(spec.model, fact, "keep that code beside the weights, in a directory")


def _has_tokenizer(name: str) -> bool:
    return any((Path(name) / file).is_file() for file in _TOKENIZER_FILES)


def _needs_remote_code(spec: ModelSpec, held: Held | None) -> ModelError:
    pinned = "" if held is None else f" and revision: {held.commit}"
    remedy = f"if you trust that code, set trust_remote_code: true{pinned}"
    return ModelError(spec.model, "needs code that comes with it", remedy)


def _quieten() -> None:
    """Keep transformers' log and its bar over loading weights off stderr: what they say is recorded."""
    hf_logging: Any = logging  # has no types
    if "TRANSFORMERS_VERBOSITY" not in os.environ:
        hf_logging.set_verbosity_error()
    with downloads_shown():  # the next call silences the Hub's bars too
        hf_logging.disable_progress_bar()
