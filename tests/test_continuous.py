"""The engine `continuous`: transformers' continuous batching says what generate says, or is refused."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest
import transformers as hf

from harness.backends.hf.continuous import why_not_continuous
from harness.backends.open import open_backend, preview
from harness.backends.seam import Backend, Preview
from harness.config.schema import ModelSpec
from harness.errors import HarnessError, ModelError, UsageError
from harness.records import Persona
from tests import zoo
from tests.asking import ask, converse, dialog
from tests.commands import run_python
from tests.crowds import CROWD, ids_of, play, request

GREEDY = {"max_new_tokens": 10}
WORKS = ("llama", "qwen3", "gemma3", "phi3", "mistral", "gpt2", "mixtral")


def continuous(open_model: Callable[..., Backend], architecture: str = "llama", **values: Any) -> Backend:
    return open_model(architecture, spec={"engine": "continuous"}, **values)


@pytest.mark.parametrize("architecture", WORKS)
def test_greedy_replies_are_those_of_each_conversation_alone(
    architecture: str, open_model: Callable[..., Backend]
) -> None:
    expected = play(open_model(architecture), GREEDY, together=False, crowd=CROWD[:3])
    found = play(continuous(open_model, architecture), GREEDY, together=True, crowd=CROWD[:3])
    assert ids_of(found) == ids_of(expected)
    assert {reply.cached_tokens for reply, _ in found.values()} == {0}
    assert {reply.batch_size for reply, _ in found.values()} == {1, 2, 3}


@pytest.mark.parametrize("architecture", sorted(set(zoo.ARCHITECTURES) - set(WORKS) - {"gpt_neox"}))
def test_models_it_gets_wrong_are_refused_before_their_weights_are_loaded(
    architecture: str, saved_model: Callable[..., Any], open_model: Callable[..., Backend]
) -> None:
    with pytest.raises(ModelError, match=r"engine: continuous.*engine: batched can"):
        look(saved_model(architecture))
    with pytest.raises(ModelError, match="engine: continuous"):
        continuous(open_model, architecture)


def look(folder: Any, sampling: dict[str, Any] | None = None, chat_format: str = "auto", **spec: Any) -> Preview:
    return preview(
        ModelSpec(model=str(folder), **{"engine": "continuous", **spec}),
        samplings={"one": sampling or GREEDY},
        length="natural",
        messages=dialog("Who?"),
        persona=Persona(),
        chat_format=chat_format,  # type: ignore[arg-type]
        template_now="2026-01-01T00:00:00",
    )


def test_other_reasons_to_refuse_a_model_are_known_from_its_config() -> None:
    assert why_not_continuous(hf.LlamaForCausalLM, hf.LlamaConfig(), None) is None
    assert "own" in str(why_not_continuous(hf.NemotronForCausalLM, hf.NemotronConfig(), None))
    assert "paged" in str(why_not_continuous(hf.LlamaForCausalLM, hf.LlamaConfig(), "flex_attention"))
    stretched = hf.LlamaConfig(rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4})
    assert "rotary" in str(why_not_continuous(hf.LlamaForCausalLM, stretched, None))


@pytest.mark.parametrize(
    ("sampling", "chat_format", "words"),
    [
        ({"stop_strings": ["."]}, "auto", "stop_strings: engine: continuous knows no stop strings"),
        ({}, "transcript", "chat_format: transcript: engine: continuous knows no stop strings"),
        ({"repetition_penalty": 1.2}, "auto", "repetition_penalty: engine: continuous would drop it"),
        ({"do_sample": True, "min_p": 0.1}, "auto", "min_p: engine: continuous would drop it"),
    ],
)
def test_settings_it_would_drop_are_refused_before_weights_are_loaded(
    sampling: dict[str, Any], chat_format: str, words: str, saved_model: Callable[..., Any]
) -> None:
    with pytest.raises(HarnessError) as caught:
        look(saved_model("llama"), {**GREEDY, **sampling}, chat_format)
    assert words in str(caught.value)
    spec = ModelSpec(model=str(saved_model("llama")), engine="continuous")
    backend = open_backend(spec, chat_format=chat_format, template_now="2026-01-01T00:00:00")  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        backend.effective({**GREEDY, **sampling}, "natural")


def test_settings_that_ask_for_nothing_are_no_reason_to_refuse(saved_model: Callable[..., Any]) -> None:
    seen = look(saved_model("llama"), {**GREEDY, "repetition_penalty": 1.0, "do_sample": True, "top_p": 0.9})
    assert seen.why_not_together is None


def test_stamps_are_taken_from_the_engine_and_in_order(open_model: Callable[..., Backend]) -> None:
    asked = converse(continuous(open_model).open_session(), GREEDY)
    for one in asked:
        stamps = one.stamps
        order = [stamps.templated_ns, stamps.tokenized_ns, *stamps.tick_ns, stamps.generated_ns, stamps.ready_ns]
        assert order == sorted(order)  # type: ignore[type-var]
        assert len(set(stamps.tick_ns)) == one.reply.completion_tokens == len(one.arrivals)


def test_a_seed_draws_the_same_again_alone_and_a_batch_is_unpaired(open_model: Callable[..., Backend]) -> None:
    backend, sampling = continuous(open_model), {**GREEDY, "do_sample": True, "top_k": 20, "temperature": 0.8}
    first, again = (ask(backend.open_session(), sampling=sampling, seed=3).reply for _ in range(2))
    assert first.completion_ids == again.completion_ids
    assert first.paired
    other = ask(backend.open_session(), sampling={**sampling, "top_k": 1}, seed=3).reply
    assert other.completion_ids == ask(open_model().open_session(), sampling=GREEDY).reply.completion_ids
    replies = backend.reply_many([(backend.open_session(), request(["Who?"], sampling)) for _ in range(2)])
    assert [reply.paired for reply in replies] == [False, False]


def test_a_request_that_is_late_fails_alone(open_model: Callable[..., Backend]) -> None:
    backend = continuous(open_model)
    late, good = request(["Who?"], GREEDY, timeout_s=0.0), request(["What is motion?"], GREEDY)
    replies = backend.reply_many([(backend.open_session(), one) for one in (late, good)])
    assert [reply.failure.kind if reply.failure else None for reply in replies] == ["Timeout", None]
    assert ask(backend.open_session(), sampling=GREEDY).reply.failure is None


def test_a_longer_conversation_or_more_of_them_get_a_larger_manager(open_model: Callable[..., Backend]) -> None:
    backend = continuous(open_model, max_position_embeddings=4096)
    for lines in (["Who?"], ["What is motion? " * 150]):
        for together in (1, 3):
            replies = backend.reply_many([(backend.open_session(), request(lines, GREEDY)) for _ in range(together)])
            expected = ask(open_model(max_position_embeddings=4096).open_session(), lines[0], GREEDY).reply
            assert {reply.completion_ids for reply in replies} == {expected.completion_ids}


def test_an_error_in_its_thread_fails_the_turns_and_the_next_ones_are_answered(
    open_model: Callable[..., Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = continuous(open_model)

    def broken(*arguments: Any, **named: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with monkeypatch.context() as patched:
        patched.setattr(type(backend.model), "forward", broken)  # type: ignore[attr-defined]
        replies = backend.reply_many([(backend.open_session(), request(["Who?"], GREEDY)) for _ in range(2)])
    assert {reply.failure.kind for reply in replies if reply.failure} == {"OutOfMemory"}
    assert len([reply for reply in replies if reply.failure]) == 2
    assert ask(backend.open_session(), sampling=GREEDY).reply.failure is None


def test_no_thread_outlives_its_backend(open_model: Callable[..., Backend]) -> None:
    gc.collect()
    before = set(threading.enumerate())
    backend = continuous(open_model)
    ask(backend.open_session(), sampling=GREEDY)
    (thread,) = set(threading.enumerate()) - before
    del backend
    gc.collect()
    thread.join(timeout=30)
    assert not thread.is_alive()


def test_a_process_that_ends_with_a_manager_running_ends_well(saved_model: Callable[..., Any]) -> None:
    run_python(
        "-c",
        "import sys; from harness.backends.open import open_backend; from harness.config.schema import ModelSpec;"
        "from tests.asking import ask;"
        "spec = ModelSpec(model=sys.argv[1], engine='continuous');"
        "backend = open_backend(spec, chat_format='auto', template_now='2026-01-01T00:00:00');"
        "assert ask(backend.open_session()).reply.failure is None",
        str(saved_model("llama")),
    )
