"""The door to the backends: which one a model's name asks for. Nothing heavy is imported before it is needed.

org/name, directory    transformers (harness.backends.hf)
builtin:NAME           the same, on a folder that ships with the package
shape:NAME             the same, on a config that ships with the package and weights made on the spot
scripted:FILE.yaml     harness.backends.scripted
openai:URL#NAME        harness.backends.openai, a server
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.backends.builtin import path as builtin_path
from harness.backends.scripted import ScriptedBackend, read_recital
from harness.backends.seam import Backend, Preview
from harness.backends.shapes import names as shape_names
from harness.backends.shapes import path as shape_path
from harness.config.schema import ChatFormat, ModelSpec
from harness.documents import did_you_mean
from harness.errors import ModelError
from harness.meters.clock import real_clock
from harness.records import Length, Message, Persona

if TYPE_CHECKING:  # they know of torch and of the Hub, which take seconds
    from harness.backends.inspection import Inspection
    from harness.conversations.script import Conversation
    from harness.meters.capacity import Capacity


def open_backend(spec: ModelSpec, *, chat_format: ChatFormat, template_now: str, threads: int | None = None) -> Backend:
    """Load a model; its `report` says what that took.

    `template_now` is the ISO 8601 time that chat templates are told, `threads` how many to compute with on the CPU
    (None: what torch chooses). Raises ModelError in one line for a model that
    cannot be found, loaded or used, OutOfMemory if it does not fit, DocumentError for a faulty `scripted:` file.
    """
    kind, _, name = spec.model.partition(":")
    if kind == "scripted" and name:
        return ScriptedBackend(read_recital(name), kv_cache=spec.kv_cache)
    if kind == "openai":
        from harness.backends.openai.backend import open_server

        return open_server(spec, chat_format=chat_format)
    source = _source(spec)
    libraries_s = _import_libraries()
    from harness.backends.hf.load import load, use_threads

    if threads is not None:
        use_threads(threads)
    return load(spec, source, chat_format=chat_format, template_now=template_now, libraries_s=libraries_s)


def preview(
    spec: ModelSpec,
    *,
    samplings: Mapping[str, Mapping[str, Any]],
    length: Length,
    messages: tuple[Message, ...],
    persona: Persona,
    chat_format: ChatFormat,
    template_now: str,
) -> Preview:
    """What can be said of a model from its tokenizer and configs, without its weights: the prompt that `messages`
    become, its size in ids, and what each sampling (by name) amounts to.

    Raises ModelError as `open_backend` does, and UsageError for a sampling that generate cannot carry out.
    """
    kind, _, name = spec.model.partition(":")
    if kind == "scripted" and name:
        return ScriptedBackend(read_recital(name)).preview(samplings, length, messages, persona)
    if kind == "openai":
        from harness.backends.openai.backend import preview_server

        return preview_server(spec, samplings=samplings, length=length, messages=messages, chat_format=chat_format)
    source = _source(spec)
    _import_libraries()
    from harness.backends.hf.preview import preview as hf_preview

    return hf_preview(
        spec,
        source,
        samplings=samplings,
        length=length,
        messages=messages,
        persona=persona,
        chat_format=chat_format,
        template_now=template_now,
    )


def inspect(
    spec: ModelSpec,
    *,
    conversations: Sequence[Conversation],
    new_tokens: int,
    concurrency: int,
    chat_format: ChatFormat,
    template_now: str,
    places: Sequence[Capacity] | None,
) -> Inspection | None:
    """Everything that config, card and tokenizer tell of a model, and whether it fits: for `concurrency` conversations
    at a time, as long as the longest of `conversations` may become with replies of `new_tokens`; on `places`, or where
    those are None on this machine. None for a model that takes no memory here (`scripted:`, `openai:`).

    Raises ModelError as `open_backend` does. Reads no weights.
    """
    if spec.model.startswith(("scripted:", "openai:")):
        return None
    source = _source(spec)
    _import_libraries()
    from harness.backends.hf.inspect import inspect as hf_inspect

    return hf_inspect(
        spec,
        source,
        conversations=conversations,
        new_tokens=new_tokens,
        concurrency=concurrency,
        chat_format=chat_format,
        template_now=template_now,
        places=places,
    )


@cache
def _import_libraries() -> float:
    """Import torch and transformers; the seconds that took, also when a preview has done it before the load."""
    start_ns = real_clock()
    # Modules stay: looking for garbage among them again and again, and once more at the end of the process, takes as
    # long as half of the imports.
    collects = gc.isenabled()
    gc.disable()
    try:
        import harness.backends.hf.load  # noqa: F401 – what a load needs, a preview may import early
    finally:
        gc.freeze()
        if collects:
            gc.enable()
    return (real_clock() - start_ns) / 1e9


def _source(spec: ModelSpec) -> str:
    """What `from_pretrained` is given: a built-in model's folder, a shape's config, or the name as it stands."""
    kind, _, name = spec.model.partition(":")
    if kind == "shape":
        try:
            return str(shape_path(name))
        except KeyError:
            raise ModelError(spec.model, "there is no such shape", did_you_mean(name, shape_names())) from None
    if kind != "builtin":
        return str(Path(spec.model).expanduser()) if spec.model.startswith("~") else spec.model
    try:
        return str(builtin_path(name))
    except ValueError as error:
        raise ModelError(spec.model, str(error)) from None
