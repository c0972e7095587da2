"""What can be known of a model before its weights are read: its config, its tokenizer, whether it is supported.

Errors of transformers and the Hub, which run over many lines, become one line with a remedy.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, enable_progress_bars
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging
from transformers.utils.hub import cached_file

from harness.backends.failures import OutOfMemory, first_line, is_out_of_memory
from harness.backends.hf.settings import own_parameters
from harness.backends.hf.synthetic import synthetic_tokenizer
from harness.config.schema import ModelSpec
from harness.errors import ModelError

CAUSAL = "AutoModelForCausalLM"
RANDOM = "WARNING: random weights: speed and memory are those of the shape, replies mean nothing"
SYNTHETIC = "there is no tokenizer: a synthetic one takes every byte for a token, four times as many as a trained one"
_KNOWN: tuple[tuple[set[str], str, str, str], ...] = (
    (
        {"GatedRepoError"},
        "gated repo",
        "is gated on the Hub",
        "accept its terms on https://huggingface.co/{spec.model} and run: hf auth login",
    ),
    ({"RevisionNotFoundError"}, "", "has no revision {spec.revision}", ""),
    (
        {"RepositoryNotFoundError"},
        "",
        "no such model on the Hub",
        "check its name; for a private one run: hf auth login",
    ),
    (
        {"OfflineModeIsEnabled", "LocalEntryNotFoundError", "ConnectionError", "ConnectError"},
        "couldn't connect",
        "is not in the local cache, and the Hub cannot be reached",
        "connect, or name a directory; HF_HUB_OFFLINE=1 spares the retries",
    ),
    ({"HFValidationError"}, "is not a local folder", "is neither a directory nor a model on the Hub", ""),
    (
        set(),
        "does not recognize this architecture",
        "has an architecture that this version of transformers does not know",
        "",
    ),
)
"""(classes of exceptions, words of messages, fact, remedy) of what commonly goes wrong."""
_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt",
    "tekken.json",
)  # fmt: skip
"""A tokenizer has one of these at least."""
_CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length")


@dataclass(frozen=True, slots=True)
class Source:
    """A supported model, before its weights."""

    spec: ModelSpec
    name: str
    """What from_pretrained takes: a Hub id or a directory; or, for random weights, a file that is a config."""
    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase
    tokenizer_is_synthetic: bool = False

    @property
    def where(self) -> dict[str, Any]:
        """The arguments every from_pretrained call of this model shares."""
        return {"revision": self.spec.revision, "trust_remote_code": self.spec.trust_remote_code}

    @property
    def notices(self) -> tuple[str, ...]:
        """What is not as it is with other models."""
        random = (RANDOM,) if self.spec.weights == "random" else ()
        return (*random, SYNTHETIC) if self.tokenizer_is_synthetic else random


def open_source(spec: ModelSpec, name: str) -> Source:
    """Find a model and read its config and tokenizer; raises ModelError where it is missing or unsupported."""
    _quieten()
    if spec.weights == "random" and Path(name).name == "config.json":
        name = str(Path(name).parent)  # a tokenizer may lie beside it
    _look_at_files(spec, name)
    where = {"revision": spec.revision, "trust_remote_code": spec.trust_remote_code}
    with explained(spec):
        config = AutoConfig.from_pretrained(name, **where)
    _refuse_unsupported(spec, config)
    _refuse_quantised(spec, config)
    synthetic = spec.weights == "random" and not _has_tokenizer(spec, name)
    with explained(spec):
        tokenizer = synthetic_tokenizer(config) if synthetic else AutoTokenizer.from_pretrained(name, **where)
    return Source(spec, name, config, tokenizer, synthetic)


def generation_config(source: Source) -> dict[str, Any]:
    """The generation parameters a model brings along, read as from_pretrained reads them."""
    if Path(source.name).is_file():
        return own_parameters(GenerationConfig.from_model_config(source.config))
    where: dict[str, Any] = {"revision": source.spec.revision}
    with explained(source.spec):
        try:
            config = GenerationConfig.from_pretrained(source.name, **where)
        except OSError:  # older models keep them in config.json
            where |= {"config_file_name": "config.json", "_from_model_config": True}
            config = GenerationConfig.from_pretrained(source.name, **where)
    return own_parameters(config)


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


def commit_of(source: Source) -> str | None:
    """The commit a Hub model was read from; None for a directory or a file."""
    if Path(source.name).exists():
        return None
    cached = try_to_load_from_cache(source.name, "config.json", revision=source.spec.revision)
    found = re.search(r"snapshots/([0-9a-f]{40})/", Path(cached).as_posix()) if isinstance(cached, str) else None
    return found[1] if found else None


@contextmanager
def explained(spec: ModelSpec) -> Iterator[None]:
    """Turn whatever a library raises into a ModelError of one line."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        # Loading runs code of many libraries, remote code among them: anything may come.
        raise _explanation(spec, error) from error


def _explanation(spec: ModelSpec, error: Exception) -> ModelError:
    chain = list(_chain(error))
    if any(is_out_of_memory(one) for one in chain):
        remedy = "try a smaller dtype, quantization or device_map: auto"
        return OutOfMemory(spec.model, "does not fit into memory", remedy)
    names = {cls.__name__ for one in chain for cls in type(one).__mro__}
    said = " ".join(str(one) for one in chain)
    if "trust_remote_code" in said:
        return _needs_remote_code(spec)
    if spec.use_safetensors and "safetensors" in said and "does not appear to have" in said:
        return _only_pickled(spec)
    for classes, words, fact, remedy in _KNOWN:
        if names & classes or (words and words in said):
            return ModelError(spec.model, fact.format(spec=spec), remedy.format(spec=spec))
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
    if not (path / "config.json").is_file():
        raise ModelError(spec.model, "is a directory without a config.json", "save a model with save_pretrained there")
    if spec.weights == "random":
        return
    if spec.use_safetensors and not any(path.glob("*.safetensors")) and any(path.glob("*.bin")):
        raise _only_pickled(spec)


def _refuse_unsupported(spec: ModelSpec, config: PreTrainedConfig) -> None:
    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(spec.model, f"is an encoder-decoder model ({kind})", "use a decoder-only instruct model")
    remote = CAUSAL in (getattr(config, "auto_map", None) or {})
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING or (remote and spec.trust_remote_code):
        return
    if remote:
        raise _needs_remote_code(spec)
    raise ModelError(spec.model, f"transformers has no causal language model for its architecture ({kind})")


def _refuse_quantised(spec: ModelSpec, config: PreTrainedConfig) -> None:
    if spec.weights == "random" and getattr(config, "quantization_config", None) is not None:
        fact = "its config is of quantised weights, which cannot be made at random"
        raise ModelError(spec.model, fact, "take quantization_config out of a copy of its config.json")


def _has_tokenizer(spec: ModelSpec, name: str) -> bool:
    """Whether there is a tokenizer in the directory, or in what can be reached of the repository."""
    if Path(name).exists():
        return any((Path(name) / file).is_file() for file in _TOKENIZER_FILES)
    find: Any = cached_file  # its types leave out what it is passed
    passed_over = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    with explained(spec):
        return any(find(name, file, revision=spec.revision, **passed_over) for file in _TOKENIZER_FILES)


def _needs_remote_code(spec: ModelSpec) -> ModelError:
    return ModelError(
        spec.model, "needs code that comes with it", "if you trust that code, set trust_remote_code: true"
    )


def _only_pickled(spec: ModelSpec) -> ModelError:
    return ModelError(
        spec.model, "has only pickled weights, which can run code", "if you trust them, set use_safetensors: false"
    )


def _quieten() -> None:
    """Keep transformers' log and its bar over loading weights off stderr: what they say is recorded."""
    hf_logging: Any = logging  # has no types
    if "TRANSFORMERS_VERBOSITY" not in os.environ:
        hf_logging.set_verbosity_error()
    downloads_shown = not are_progress_bars_disabled()
    hf_logging.disable_progress_bar()
    if downloads_shown:  # the call above silences the Hub's bars too, and a long download should be seen
        enable_progress_bars()
