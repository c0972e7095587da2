"""What can only be seen with an accelerator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from harness.backends.seam import Backend
from tests.asking import ask, converse

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.accelerator.is_available(), reason="there is no accelerator"),
]


def test_a_model_is_put_on_the_accelerator_and_answers_there(open_model: Callable[..., Backend]) -> None:
    backend = open_model()
    assert backend.report.facts["devices"] != ["cpu"]
    assert backend.report.facts["memory_bytes"] >= backend.report.facts["weights_bytes"]
    asked = ask(backend.open_session())
    assert asked.reply.failure is None
    times = [ns for ns, _ in asked.stamps.ticks]
    assert times == sorted(times)


def test_caches_are_reused_on_the_accelerator(open_model: Callable[..., Backend]) -> None:
    talks = [
        converse(open_model(spec={"kv_cache": mode}).open_session(), {"max_new_tokens": 8}, length="fixed")
        for mode in ("fresh", "reuse")
    ]
    fresh, reused = ([asked.reply.completion_ids for asked in talk] for talk in talks)
    assert fresh == reused
    assert talks[1][-1].reply.cached_tokens > 0


def test_logits_that_are_not_finite_do_not_end_the_process(open_model: Callable[..., Backend]) -> None:
    backend: Any = open_model()
    norm = backend.model.model.norm.weight
    sound = norm.detach().clone()
    with torch.no_grad():
        norm.fill_(float("nan"))
    reply = ask(backend.open_session(), sampling={"do_sample": True, "max_new_tokens": 4}).reply
    assert reply.failure is not None
    assert reply.failure.kind == "NonFiniteLogits"
    with torch.no_grad():
        norm.copy_(sound)
    assert ask(backend.open_session()).reply.failure is None
