"""What every backend promises, whichever it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import get_args

import pytest

from harness.backends.open import open_backend
from harness.backends.openai.backend import ServerBackend
from harness.backends.scripted import Recital, ScriptedBackend
from harness.backends.seam import Backend
from harness.config.schema import ModelSpec
from harness.records import FinishReason
from tests.asking import QUESTIONS, Asked, ask, converse, dialog
from tests.crowds import request
from tests.stub_server import Stub

BACKENDS = (
    "scripted", "scripted three ids at a time", "llama", "llama transcript", "falcon", "mamba2",
    "llama decode", "falcon decode", "mamba2 decode", "llama compiled", "falcon compiled",
    "llama batched", "falcon batched", "mamba2 batched", "llama continuous",
    "served",
)  # fmt: skip
RECITED = ["Motion is described by forces.", "By energies instead of forces, he said.", "I am Bob.", "It is blue."]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, open_model: Callable[..., Backend]) -> Iterator[Backend]:
    name, _, variant = request.param.partition(" ")
    if name == "served":
        with Stub(owner="vllm") as stub:
            spec = ModelSpec(model=stub.name, tokenizer="builtin:pico")
            yield open_backend(spec, chat_format="auto", template_now="2026-01-01T00:00:00")
    elif name.startswith("scripted"):
        yield ScriptedBackend(Recital(lines=RECITED, ids_per_tick=[3] if variant else [1]))
    elif variant == "transcript":
        yield open_model(name, chat_format="transcript")
    else:
        yield open_model(name, spec={"engine": variant or "generate"})


def tells_ids(backend: Backend) -> bool:
    """A server tells how many ids there were, not which."""
    return not isinstance(backend, ServerBackend)


@pytest.fixture
def talk(backend: Backend) -> list[Asked]:
    return converse(backend.open_session(), {"max_new_tokens": 6})


def test_every_generated_id_ticks_once_and_no_prompt_id_does(talk: list[Asked], backend: Backend) -> None:
    for asked in talk:
        assert sum(count for _, count in asked.stamps.ticks) == asked.reply.completion_tokens
        assert len(asked.reply.completion_ids) == (asked.reply.completion_tokens if tells_ids(backend) else 0)


def test_ids_are_handed_over_as_they_tick(talk: list[Asked], backend: Backend) -> None:
    for asked in talk if tells_ids(backend) else ():
        assert [len(ids) for ids in asked.arrivals] == [count for _, count in asked.stamps.ticks]
        assert tuple(one for ids in asked.arrivals for one in ids) == asked.reply.completion_ids


def test_stamps_never_go_back(talk: list[Asked]) -> None:
    for asked in talk:
        stamps = asked.stamps
        order = [
            stamps.templated_ns,
            stamps.tokenized_ns,
            *(ns for ns, _ in stamps.ticks),
            stamps.generated_ns,
            stamps.ready_ns,
        ]
        assert None not in order
        assert order == sorted(order)


def test_a_reply_has_a_finish_reason_and_no_failure(talk: list[Asked]) -> None:
    for asked in talk:
        assert asked.reply.failure is None
        assert asked.reply.finish_reason in set(get_args(FinishReason)) - {"error"}


def test_the_text_is_that_of_the_ids(backend: Backend) -> None:
    asked = ask(backend.open_session(), sampling={"max_new_tokens": 6}, length="fixed")
    ids = asked.reply.completion_ids if tells_ids(backend) else [one for ids in asked.arrivals for one in ids]
    assert asked.reply.text == backend.decode(ids).strip()


def test_no_reply_is_longer_than_it_may_be(talk: list[Asked]) -> None:
    assert all(asked.reply.completion_tokens <= 6 for asked in talk)


def test_the_fixed_lane_gives_exactly_max_new_tokens(backend: Backend) -> None:
    for asked in converse(backend.open_session(), {"max_new_tokens": 7}, length="fixed"):
        assert asked.reply.completion_tokens == 7
        assert asked.reply.finish_reason == "max_new_tokens"


def test_the_same_seed_gives_the_same_reply(backend: Backend) -> None:
    sampling = {"do_sample": True, "top_k": 0, "max_new_tokens": 6}
    first, again = (ask(backend.open_session(), sampling=sampling, seed=5).reply for _ in range(2))
    assert first.completion_ids == again.completion_ids
    assert first.text == again.text


def test_a_conversation_can_be_asked_again_from_the_start(backend: Backend) -> None:
    session = backend.open_session()
    first = converse(session, {"max_new_tokens": 6})
    again = converse(session, {"max_new_tokens": 6})
    assert [asked.reply.completion_ids for asked in first] == [asked.reply.completion_ids for asked in again]


def test_equal_prompts_have_equal_hashes_and_others_do_not(backend: Backend) -> None:
    session = backend.open_session()
    one, same, other = (ask(session, text).reply.prompt_hash for text in (QUESTIONS[0], QUESTIONS[0], QUESTIONS[1]))
    assert one == same != other


def test_cached_tokens_are_prompt_tokens_of_this_conversation(talk: list[Asked], backend: Backend) -> None:
    assert talk[0].reply.cached_tokens == 0 or not tells_ids(backend)  # a server's cache is everybody's
    assert all(0 <= asked.reply.cached_tokens < asked.reply.prompt_tokens for asked in talk)


def test_the_gold_reply_is_counted_in_this_models_tokens(backend: Backend) -> None:
    assert ask(backend.open_session(), gold="motion of bodies").reply.gold_tokens >= 3
    assert ask(backend.open_session()).reply.gold_tokens is None


def test_a_time_out_is_a_failure_without_text(backend: Backend) -> None:
    asked = ask(backend.open_session(), timeout_s=0.0)
    assert asked.reply.failure is not None
    assert asked.reply.failure.kind == "Timeout"
    assert asked.reply.failure.phase == ("decode" if tells_ids(backend) else "prefill")
    assert asked.reply.text is None
    assert asked.reply.completion_tokens is None
    assert (asked.reply.prompt_tokens is not None) == tells_ids(backend)  # a server counts when all is done


def test_a_session_answers_after_a_failure_as_if_it_had_not_happened(backend: Backend) -> None:
    session = backend.open_session()
    undisturbed = ask(backend.open_session()).reply
    ask(session, timeout_s=0.0)
    assert ask(session).reply.completion_ids == undisturbed.completion_ids


def test_visible_ids_are_the_first_with_text(talk: list[Asked], backend: Backend) -> None:
    for asked in talk:
        reply = asked.reply
        if reply.text and reply.text.strip("\ufffd "):
            assert 1 <= reply.visible_ids <= reply.answer_ids <= reply.completion_tokens


def test_effective_settings_are_told(backend: Backend) -> None:
    assert backend.effective({"max_new_tokens": 6}, "natural").values["max_new_tokens"] == 6


def test_the_report_adds_up(backend: Backend) -> None:
    report = backend.report
    parts = report.import_s + report.weights_s + report.first_forward_s + (report.compile_s or 0)
    assert report.load_s == pytest.approx(parts)
    assert "class" in report.facts
    assert "context_tokens" in report.facts


def test_another_seed_usually_gives_another_reply(open_model: Callable[..., Backend]) -> None:
    session = open_model().open_session()
    sampling = {"do_sample": True, "top_k": 0, "max_new_tokens": 12}
    replies = {ask(session, sampling=sampling, seed=seed).reply.completion_ids for seed in range(4)}
    assert len(replies) > 1


def test_a_system_message_is_part_of_the_prompt(backend: Backend) -> None:
    session = backend.open_session()
    with_system = ask(session, dialog(QUESTIONS[0], system="Bob is a professor in Physics.")).reply
    assert with_system.prompt_tokens > ask(session, QUESTIONS[0]).reply.prompt_tokens


def test_several_requests_answered_together_keep_what_one_promises(backend: Backend) -> None:
    if backend.why_not_together is not None:
        assert "one conversation at a time" in backend.why_not_together
        return
    alone = [ask(backend.open_session(), text, {"max_new_tokens": 6}).reply for text in QUESTIONS[:3]]
    asked = [(backend.open_session(), request([text], {"max_new_tokens": 6})) for text in QUESTIONS[:3]]
    replies = backend.reply_many(asked)
    assert [reply.completion_ids for reply in replies] == [reply.completion_ids for reply in alone]
    assert {reply.batch_size for reply in replies} == {3}
    for reply, (_, one) in zip(replies, asked, strict=True):
        stamps = one.stopwatch.stamps()
        order = [stamps.templated_ns, stamps.tokenized_ns, *stamps.tick_ns, stamps.generated_ns, stamps.ready_ns]
        assert order == sorted(order)  # type: ignore[type-var]
        assert sum(ids for _, ids in stamps.ticks) == reply.completion_tokens


def test_a_reply_can_be_said_again_after_the_very_prompt_it_was_given_to(backend: Backend, talk: list[Asked]) -> None:
    lines: list[str] = []
    for question, asked in zip(QUESTIONS, talk, strict=True):
        lines.append(question)
        found = backend.open_session().force(request(lines, {"max_new_tokens": 6}), asked.reply.completion_ids)
        lines.append(asked.reply.text or "")
        assert found.prompt_hash == (asked.reply.prompt_hash if tells_ids(backend) else None)
        if found.why_not is None:
            assert len(found.logprobs) == len(found.margins) == asked.reply.completion_tokens
            assert min(found.margins) > -1e-3  # greedy, so nothing else was likelier
        else:
            assert isinstance(backend, (ScriptedBackend, ServerBackend))
