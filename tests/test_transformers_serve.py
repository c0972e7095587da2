"""A real server: `transformers serve` on this machine, with the built-in model, against that model in this process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from harness.backends.builtin import path as builtin_path
from harness.backends.open import open_backend
from harness.backends.seam import Backend
from harness.config.schema import ModelSpec
from harness.errors import UsageError
from harness.metrics import METRICS
from tests.asking import Asked, ask, converse
from tests.test_server import record

for needed in ("fastapi", "openai", "uvicorn"):
    pytest.importorskip(needed, reason="transformers serve needs it")

NOW = "2026-01-02T03:04:05"
PICO = str(builtin_path("pico"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the server, which is started once for this file (five seconds)."""
    home = tmp_path_factory.mktemp("home")
    (home / "hub").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "transformers.cli.transformers", "serve", PICO, "--host", "127.0.0.1",
             "--port", str(port), "--device", "cpu", "--dtype", "float32"],
            env={**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            _await(f"http://127.0.0.1:{port}/health", process)
            yield f"openai:http://127.0.0.1:{port}/v1#{PICO}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _await(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            if process.poll() is not None:
                pytest.skip("transformers serve does not start here")
            time.sleep(0.1)
    pytest.fail("transformers serve did not come up in a minute")


@pytest.fixture(scope="module")
def served(server: str) -> Backend:
    return open_backend(ModelSpec(model=server), chat_format="auto", template_now=NOW)


@pytest.fixture(scope="module")
def here() -> Backend:
    return open_backend(ModelSpec(model="builtin:pico", dtype="float32"), chat_format="auto", template_now=NOW)


def both(served: Backend, here: Backend, sampling: dict[str, Any], **values: Any) -> list[tuple[Asked, Asked]]:
    talks = (converse(backend.open_session(), sampling, **values) for backend in (served, here))
    return list(zip(*talks, strict=True))


def test_it_is_recognised_and_does_what_it_is_asked(served: Backend) -> None:
    assert served.report.facts["dialect"] == "transformers"
    assert served.report.facts["verified"] == {
        "greedy": True, "draws": True, "seeds": True, "stops": True, "estimated": False,
    }  # fmt: skip


@pytest.mark.parametrize("length", ["natural", "fixed"])
def test_greedy_replies_are_those_of_the_model_in_this_process(served: Backend, here: Backend, length: str) -> None:
    for theirs, ours in both(served, here, {"max_new_tokens": 24}, length=length):
        assert theirs.reply.failure is None
        assert theirs.reply.text == ours.reply.text
        assert theirs.reply.finish_reason == ours.reply.finish_reason
        assert theirs.reply.prompt_tokens == ours.reply.prompt_tokens
        assert theirs.reply.completion_tokens == ours.reply.completion_tokens
        assert theirs.reply.cached_tokens is None
        assert sum(ids for _, ids in theirs.stamps.ticks) == ours.reply.completion_tokens


def test_a_limit_that_counts_the_prompt_is_kept_and_named(served: Backend, here: Backend) -> None:
    for theirs, ours in both(served, here, {"max_length": 30})[:1]:
        assert theirs.reply.text == ours.reply.text
        assert theirs.reply.finish_reason == ours.reply.finish_reason == "max_length"
        assert theirs.reply.tokens_left == ours.reply.tokens_left == 0


def test_a_stop_string_ends_the_reply_and_is_cut_off(served: Backend, here: Backend) -> None:
    sampling = {"max_new_tokens": 24, "stop_strings": [" and"]}
    theirs, ours = (ask(backend.open_session(), sampling=sampling).reply for backend in (served, here))
    assert (theirs.text, theirs.finish_reason) == (ours.text, ours.finish_reason)
    assert theirs.finish_reason == "stop"


def test_draws_of_one_seed_are_the_same_draw_here_and_there(served: Backend, here: Backend) -> None:
    sampling = {"do_sample": True, "temperature": 2.0, "top_k": 0, "max_new_tokens": 16}
    for seed in range(3):
        theirs, ours = (ask(backend.open_session(), sampling=sampling, seed=seed).reply for backend in (served, here))
        assert theirs.text == ours.text
        assert theirs.paired


def test_times_are_told_and_add_up(served: Backend) -> None:
    told = record(ask(served.open_session(), sampling={"max_new_tokens": 12}))
    phases = [
        METRICS[name].formula(told) for name in ("template_s", "tokenize_s", "prefill_s", "decode_s", "detokenize_s")
    ]
    assert sum(phase or 0.0 for phase in phases) == pytest.approx(METRICS["e2e_s"].formula(told))
    assert METRICS["ttft_s"].formula(told)


def test_what_it_cannot_be_asked_for_is_refused_beforehand(served: Backend) -> None:
    with pytest.raises(UsageError, match="is no generation parameter"):
        served.effective({"tok_k": 3}, "natural")


def test_a_field_it_does_not_know_is_a_failure_of_one_line(server: str) -> None:
    other = ModelSpec(model=server, dialect="vllm")
    with pytest.raises(Exception, match="RequestRefused: the server answers 422: Unexpected fields"):
        open_backend(other, chat_format="auto", template_now=NOW)
