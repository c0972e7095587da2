"""Conversations that outgrow max_length or the context."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.backends.limits import Limits, fit, without_oldest
from harness.backends.scripted import Recital, ScriptedBackend
from harness.backends.seam import Backend
from harness.records import Message
from tests.asking import QUESTIONS, ask, converse, dialog

LONG = dialog(*QUESTIONS * 4, QUESTIONS[0], system="Bob is a professor in Physics.")


class TestLimits:
    def test_max_length_counts_the_prompt(self) -> None:
        limits = Limits.of({"max_length": 100}, 512)
        assert limits.room(90) == 10
        assert limits.left(90, 4) == 6
        assert limits.reached(10) == "max_length"

    def test_max_new_tokens_counts_the_reply_and_the_context_still_bounds_it(self) -> None:
        limits = Limits.of({"max_new_tokens": 20}, 100)
        assert limits.room(50) == 20
        assert limits.room(90) == 10
        assert limits.reached(20) == "max_new_tokens"
        assert limits.reached(10) == "context"
        assert limits.left(50, 20) == 30

    def test_max_new_tokens_wins_over_max_length(self) -> None:
        limits = Limits.of({"max_new_tokens": 20, "max_length": 30}, 100)
        assert limits.room(50) == 20
        assert limits.total_reason == "context"

    def test_the_smaller_of_max_length_and_context_is_the_reason(self) -> None:
        assert Limits.of({"max_length": 500}, 100).total_reason == "context"
        assert Limits.of({"max_length": 100}, 100).total_reason == "max_length"

    def test_without_a_limit_nothing_is_left_to_count(self) -> None:
        assert Limits.of({"max_new_tokens": 5}, None).left(1000, 5) is None


class TestDropping:
    def test_pairs_are_dropped_from_the_front_and_the_system_message_stays(self) -> None:
        messages = dialog("a", "b", "c", "d", "e", system="s")
        assert [message.content for message in without_oldest(messages, 2)] == ["s", "c", "d", "e"]

    @pytest.mark.parametrize(("settings", "expected"), [({"max_new_tokens": 4}, 4), ({"max_length": 16}, 4)])
    def test_until_the_prompt_leaves_room(self, settings: dict[str, int], expected: int) -> None:
        # One id per message; 16 allowed. Room for 4 new ids, or for a quarter of 16.
        messages = tuple(Message("user" if index % 2 == 0 else "assistant", "x") for index in range(15))
        fitted = fit(messages, list, len, Limits.of(settings, 16), "drop_oldest")
        assert fitted.dropped == expected
        assert len(fitted.prompt) == 11

    def test_the_last_message_is_never_dropped(self) -> None:
        fitted = fit(dialog("a", "b", "c"), list, len, Limits.of({"max_new_tokens": 4}, 1), "drop_oldest")
        assert [message.content for message in fitted.prompt] == ["c"]


@pytest.fixture(params=["scripted", "llama"])
def backend(request: pytest.FixtureRequest, open_model: Callable[..., Backend]) -> Backend:
    if request.param == "scripted":
        return ScriptedBackend(Recital(lines=["one two three four five six seven eight"], context_tokens=512))
    return open_model()


def size_of(backend: Backend, messages: tuple[Message, ...]) -> int:
    reply = ask(backend.open_session(), messages, {"max_new_tokens": 1}).reply
    assert reply.prompt_tokens is not None
    return reply.prompt_tokens


def test_a_reply_is_cut_off_at_max_length(backend: Backend) -> None:
    prompt = size_of(backend, LONG)
    asked = ask(backend.open_session(), LONG, {"max_length": prompt + 3})
    assert (asked.reply.finish_reason, asked.reply.completion_tokens) == ("max_length", 3)
    assert asked.reply.tokens_left == 0


def test_tokens_left_are_counted_down(backend: Backend) -> None:
    prompt = size_of(backend, LONG)
    assert ask(backend.open_session(), LONG, {"max_new_tokens": 2}).reply.tokens_left == 512 - prompt - 2


@pytest.mark.parametrize("excess", [0, 7])
def test_a_prompt_at_the_limit_is_a_reply_with_no_ids(backend: Backend, excess: int) -> None:
    prompt = size_of(backend, LONG)
    asked = ask(backend.open_session(), LONG, {"max_length": prompt - excess})
    reply = asked.reply
    assert reply.failure is None
    assert (reply.text, reply.finish_reason) == ("", "max_length")
    assert (reply.completion_tokens, reply.completion_ids, reply.tokens_left) == (0, (), 0)
    assert reply.prompt_tokens == prompt
    assert asked.stamps.ticks == ()
    assert asked.stamps.tokenized_ns is not None
    assert asked.stamps.generated_ns is None, "no engine ran"


def test_a_prompt_over_the_context_says_so(open_model: Callable[..., Backend]) -> None:
    backend = open_model("gpt2", n_positions=64)
    assert backend.report.facts["context_tokens"] == 64
    assert ask(backend.open_session(), LONG).reply.finish_reason == "context"


def test_a_reply_ends_with_the_context(open_model: Callable[..., Backend]) -> None:
    session = open_model("gpt2", n_positions=64).open_session()
    reply = ask(session, sampling={"max_new_tokens": 200}, length="fixed").reply
    assert reply.finish_reason == "context"
    assert reply.prompt_tokens + reply.completion_tokens == 64


def test_dropping_the_oldest_lets_a_conversation_go_on(backend: Backend) -> None:
    prompt = size_of(backend, LONG)
    limit = prompt - 10
    reply = ask(backend.open_session(), LONG, {"max_length": limit}, on_overflow="drop_oldest").reply
    assert reply.failure is None
    assert reply.dropped_messages > 0
    assert reply.dropped_messages % 2 == 0
    assert reply.prompt_tokens <= limit - limit // 4
    assert reply.prompt_tokens == size_of(backend, without_oldest(LONG, reply.dropped_messages))
    assert reply.prompt_tokens > 0
    less = size_of(backend, without_oldest(LONG, reply.dropped_messages - 2))
    assert less > limit - limit // 4, "no more was dropped than had to be"


def test_what_was_dropped_stays_dropped_and_counts_from_the_start(backend: Backend) -> None:
    sampling = {"max_length": 110 if isinstance(backend, ScriptedBackend) is False else 36}
    talk = converse(backend.open_session(), sampling, QUESTIONS * 2, on_overflow="drop_oldest")
    dropped = [asked.reply.dropped_messages for asked in talk]
    assert dropped == sorted(dropped)
    assert dropped[-1] > 0


def test_an_error_was_asked_for(backend: Backend) -> None:
    prompt = size_of(backend, LONG)
    reply = ask(backend.open_session(), LONG, {"max_length": prompt}, on_overflow="error").reply
    assert reply.failure is not None
    assert (reply.failure.kind, reply.failure.phase) == ("ContextOverflow", "tokenize")
    assert reply.text is None
