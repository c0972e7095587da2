"""A reply that is said again: how likely each of its ids is, after the very prompt it was given to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from harness.backends.hf import force as forcing
from harness.backends.scripted import Recital, ScriptedBackend
from harness.backends.seam import Backend
from tests.asking import QUESTIONS, ask
from tests.crowds import request

SAMPLING: dict[str, Any] = {"max_new_tokens": 24}


def forced(backend: Backend, ids: tuple[int, ...], question: str = QUESTIONS[0]) -> Any:
    return backend.open_session().force(request([question], SAMPLING), ids)


def greedy(backend: Backend) -> Any:
    return ask(backend.open_session(), sampling=SAMPLING, length="fixed").reply


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gpt2", "mamba2", "qwen3_next"])
def test_a_greedy_reply_is_the_likeliest(architecture: str, open_model: Callable[..., Backend]) -> None:
    backend = open_model(architecture)
    reply = greedy(backend)
    found = forced(backend, reply.completion_ids)

    assert found.prompt_hash == reply.prompt_hash
    assert len(found.logprobs) == len(found.best) == len(found.margins) == reply.completion_tokens
    assert min(found.margins) > -1e-4
    assert all(best != said for best, said in zip(found.best, reply.completion_ids, strict=True))


def test_log_probabilities_are_those_of_the_models_own_logits(open_model: Callable[..., Backend]) -> None:
    backend = open_model("llama")
    ids = greedy(backend).completion_ids
    found = forced(backend, ids)

    prompt = backend.format.encode(backend.format.render(request([QUESTIONS[0]], SAMPLING).messages, None)[0])
    for place in (0, 1, len(ids) - 1):
        with torch.inference_mode():
            logits = backend.model(torch.tensor([[*prompt, *ids[:place]]])).logits[0, -1].float()
        scores = torch.log_softmax(logits, -1)
        assert found.logprobs[place] == pytest.approx(float(scores[ids[place]]), abs=1e-4)
        scores[ids[place]], said = -torch.inf, float(scores[ids[place]])
        assert found.best[place] == int(scores.argmax())
        assert found.margins[place] == pytest.approx(said - float(scores.max()), abs=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "falcon_alibi", "mamba2"])
def test_a_long_reply_in_pieces_is_as_likely_as_in_one(
    architecture: str, open_model: Callable[..., Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = open_model(architecture)
    ids = greedy(backend).completion_ids
    whole = forced(backend, ids)
    monkeypatch.setattr(forcing, "CHUNK", 7)
    pieces = forced(backend, ids)

    assert pieces.logprobs == pytest.approx(whole.logprobs, abs=1e-4)
    assert pieces.best == whole.best


def test_the_same_is_as_likely_to_the_bit_whatever_was_said_in_between(open_model: Callable[..., Backend]) -> None:
    backend = open_model("llama")
    ids = greedy(backend).completion_ids
    before = forced(backend, ids)
    greedy(backend)
    assert forced(backend, ids) == before


def test_an_end_of_text_is_an_id_like_any_other(open_model: Callable[..., Backend]) -> None:
    backend = open_model("llama")
    only_the_end = forced(backend, (2,))
    assert only_the_end.why_not is None
    assert len(only_the_end.logprobs) == 1
    assert len(forced(backend, (5, 6, 2)).logprobs) == 3


def test_ids_and_lengths_that_a_model_has_not_are_told_and_not_tried(open_model: Callable[..., Backend]) -> None:
    backend = open_model("llama")
    assert forced(backend, (5, 384)).why_not == "the model has 384 ids, and the reply holds 384"
    assert "the context holds 512" in forced(backend, (5,) * 512).why_not
    assert forced(backend, (5, 384)).prompt_hash == greedy(backend).prompt_hash


def test_logits_that_are_not_finite_are_no_log_probabilities(open_model: Callable[..., Backend]) -> None:
    backend = open_model("llama", seed=3)
    with torch.no_grad():
        backend.model.get_input_embeddings().weight[7] = torch.nan
    assert "not finite" in forced(backend, (5, 7, 8)).why_not


def test_log_probabilities_are_of_the_model_and_not_of_the_sampling(open_model: Callable[..., Backend]) -> None:
    backend = open_model("llama")
    ids = greedy(backend).completion_ids
    penalised = backend.open_session().force(request([QUESTIONS[0]], {**SAMPLING, "repetition_penalty": 1.5}), ids)
    assert penalised == forced(backend, ids)


def test_a_recital_tells_what_it_was_told_to_tell() -> None:
    backend = ScriptedBackend(Recital(lines=["Motion is all."], logprobs=[-0.5, -0.25]))
    reply = ask(backend.open_session(), sampling=SAMPLING).reply
    found = forced(backend, reply.completion_ids)

    assert found.prompt_hash == reply.prompt_hash
    assert found.logprobs == (-0.5, -0.25, -0.5)
    assert found.margins[0] == pytest.approx(-0.5 - -0.9327521)  # ln(1 − e^−0.5) = −0.9327521
    assert "says nothing" in forced(ScriptedBackend(Recital(lines=["Motion."])), (1,)).why_not
