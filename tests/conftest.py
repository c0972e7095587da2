"""Fixtures that several test files share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.backends.seam import Backend
from harness.config.schema import ModelSpec

TEMPLATE_NOW = "2026-01-02T03:04:05"


@pytest.fixture(scope="session", autouse=True)
def cache_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is remembered of this machine stays out of the user's home, and what is there out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`tests.zoo.save` with a folder of its own, done once for equal arguments: the folder is not to be changed."""
    from tests import zoo

    done: dict[str, Path] = {}

    def save(architecture: str = "llama", **arguments: Any) -> Path:
        key = f"{architecture} {sorted(arguments.items())}"
        if key not in done:
            done[key] = zoo.save(tmp_path_factory.mktemp(architecture), architecture, **arguments)
        return done[key]

    return save


@pytest.fixture
def open_model(saved_model: Callable[..., Path]) -> Callable[..., Backend]:
    """Load a model of the zoo: `spec` are fields of its ModelSpec, the other arguments those of `tests.zoo.save`."""
    from harness.backends.open import open_backend

    def load(
        architecture: str = "llama",
        *,
        chat_format: str = "auto",
        spec: dict[str, Any] | None = None,
        **arguments: Any,
    ) -> Backend:
        folder = saved_model(architecture, **arguments)
        return open_backend(
            ModelSpec(model=str(folder), **(spec or {})), chat_format=chat_format, template_now=TEMPLATE_NOW
        )

    return load
