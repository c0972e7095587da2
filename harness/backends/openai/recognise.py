"""Which server this is: by what it says of itself, in a few questions before anything is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.backends.openai.faults import ServerFault
from harness.backends.openai.wire import Told, Wire
from harness.config.schema import ModelSpec
from harness.config.server import Dialect, Server
from harness.documents import did_you_mean
from harness.errors import ModelError

UNKNOWN = (
    "the server is not recognised: it is asked as OpenAI's own would be, which has few settings; if it is one of those "
    "that are known, set dialect"
)
_OWNERS: Mapping[str, Dialect] = {"vllm": "vllm", "sglang": "sglang", "llamacpp": "llamacpp", "library": "ollama"}
_UNLISTED = ("transformers",)
"""Who does not list the model that it serves: transformers serve lists the cache of the Hub."""


@dataclass(frozen=True, slots=True)
class Recognised:
    """What is known of a server before it is asked for a reply."""

    dialect: Dialect
    context_tokens: int | None = None
    version: str | None = None
    notices: tuple[str, ...] = ()


def recognise(spec: ModelSpec, server: Server, wire: Wire) -> Recognised:
    """Ask a server who it is. Raises ModelError where it does not answer, refuses the key, or lacks the model."""
    try:
        models = wire.look("/models")
        if models is not None and models.status in (401, 403):
            key = spec.api_key_env or "OPENAI_API_KEY"
            raise ModelError(spec.model, f"the server wants a key ({models.status})", f"set {key} in the environment")
        listed = _listed(models)
        dialect, version = (spec.dialect, None) if spec.dialect else _dialect(server, wire, models, listed)
    except ServerFault as fault:
        raise ModelError(spec.model, str(fault), "start the server, or correct the address") from None
    names = [str(one["id"]) for one in listed]
    if names and server.model not in names and dialect not in _UNLISTED:
        known = did_you_mean(server.model, names) or f"it serves {', '.join(names[:3])}"
        raise ModelError(spec.model, f"the server has no model {server.model}", known)
    about: Mapping[str, Any] = next((one for one in listed if one["id"] == server.model), {})
    return Recognised(dialect or "openai", _context(about), version, () if dialect else (UNKNOWN,))


def _dialect(
    server: Server, wire: Wire, models: Told | None, listed: Sequence[Mapping[str, Any]]
) -> tuple[Dialect | None, str | None]:
    """The dialect and the version, each None where it cannot be told."""
    dialect = _by_models(server, models, listed)
    if dialect == "vllm":
        return dialect, _version(wire.look("/version", at_root=True))
    if dialect in (None, "ollama") and (version := _version(wire.look("/api/version", at_root=True))) is not None:
        return "ollama", version
    return (dialect, None) if dialect is not None else _by_its_pages(wire)


def _by_models(server: Server, models: Told | None, listed: Sequence[Mapping[str, Any]]) -> Dialect | None:
    """By the list of models, and who is said to own them."""
    if server.host == "api.openai.com":
        return "openai"
    if models is not None and "llama.cpp" in models.headers.get("server", "").lower():
        return "llamacpp"
    owners = [str(one.get("owned_by", "")).lower() for one in listed]
    return next((_OWNERS[owner] for owner in owners if owner in _OWNERS), None)


def _by_its_pages(wire: Wire) -> tuple[Dialect | None, str | None]:
    """By the description of its API, and by what it tells of itself."""
    api = _mapping(wire.look("/openapi.json", at_root=True))
    if "/load_model" in api.get("paths", {}):
        return "transformers", None
    about = api.get("info", {})
    if "llama.cpp python" in str(about.get("title", "")).lower():
        return "llama-cpp-python", about.get("version")
    info = _mapping(wire.look("/info", at_root=True))
    return ("tgi", info.get("version")) if "max_total_tokens" in info else (None, None)


def _listed(told: Told | None) -> list[Mapping[str, Any]]:
    entries = _mapping(told).get("data")
    return [one for one in entries if isinstance(one, dict) and "id" in one] if isinstance(entries, list) else []


def _mapping(told: Told | None) -> Mapping[str, Any]:
    return told.json if told is not None and isinstance(told.json, dict) else {}


def _version(told: Told | None) -> str | None:
    found = _mapping(told).get("version")
    return found if isinstance(found, str) else None


def _context(about: Mapping[str, Any]) -> int | None:
    """The most tokens that prompt and reply may have together, from those that tell."""
    meta = about.get("meta")
    for value in (about.get("max_model_len"), meta.get("n_ctx") if isinstance(meta, dict) else None):
        if isinstance(value, int) and value > 0:
            return value
    return None
