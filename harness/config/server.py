"""The address of a model behind a server: `openai:http://host:port/v1#model`.

What is written there is stored with every run, so nothing secret may be in it: a key comes from the environment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

Dialect = Literal["openai", "vllm", "sglang", "llamacpp", "llama-cpp-python", "ollama", "tgi", "transformers"]
PREFIX = "openai:"


@dataclass(frozen=True, slots=True)
class Server:
    """Where to ask, and for which model."""

    base: str
    """Of the API, without a slash at its end: http://127.0.0.1:8000/v1."""
    model: str
    """What the server calls it."""

    @property
    def root(self) -> str:
        """Of the whole server: http://127.0.0.1:8000."""
        parts = urlsplit(self.base)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def host(self) -> str:
        return urlsplit(self.base).hostname or ""


def server_of(model: str) -> Server | None:
    """The server that a model's name means; None for a model of another kind. Raises ValueError for a faulty one."""
    if not model.startswith(PREFIX):
        return None
    address, _, name = model.removeprefix(PREFIX).partition("#")
    try:
        parts = urlsplit(address)
        parts.port  # noqa: B018 – raises where it is no number
    except ValueError:
        raise ValueError("is no address: write openai:http://HOST:PORT/v1#NAME") from None
    if parts.username is not None or parts.password is not None or parts.query:
        raise ValueError("holds credentials or a query, which would be stored: set api_key_env to a variable's name")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is no address: write openai:http://HOST:PORT/v1#NAME")
    if not name:
        raise ValueError("does not say which model of the server: write openai:http://HOST:PORT/v1#NAME")
    return Server(address.rstrip("/"), name)
