"""Fixtures that several test files share."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from harness.backends.seam import Backend, Reply
from harness.cli import main
from harness.config.schema import ModelSpec

TEMPLATE_NOW = "2026-01-02T03:04:05"


@pytest.fixture(scope="session", autouse=True)
def cache_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is remembered of this machine stays out of the user's home, and what is there out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module", autouse=True)
def imports_are_no_garbage() -> None:
    """What was imported stays, and is not looked through at every collection: there is one before each conversation.

    Of every file anew, because a file may have undone it.
    """
    if not gc.get_freeze_count():
        gc.collect()
        gc.freeze()


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
def open_model(saved_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Backend]:
    """Load a model of the zoo: `spec` are fields of its ModelSpec, the other arguments those of `tests.zoo.save`.

    Where the engine compiles, the step is traced as a whole but not turned into machine code, which takes half a
    minute per model.
    """
    from harness.backends.hf import engines
    from harness.backends.hf.compiled import CompiledStep
    from harness.backends.open import open_backend

    monkeypatch.setattr(engines, "CompiledStep", partial(CompiledStep, compiler="eager"))

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


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`harness …` in this process: its exit code, stdout and stderr."""

    def do(*arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(list(map(str, arguments)))
        told = capfd.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    return do


@pytest.fixture
def last_scores(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The scores of the last id of every turn that is answered."""
    from harness.backends.hf.session import HfSession

    def spy(session: HfSession, turn: Any, generated: Any) -> Reply:
        assert generated.last.scores is not None
        seen.append(generated.last.scores.clone())
        return finish(session, turn, generated)

    seen: list[Any] = []
    finish = HfSession.finish
    monkeypatch.setattr(HfSession, "finish", spy)
    return seen
