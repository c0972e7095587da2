"""The one chat loop, driven by hand: what a model hears, what a record holds, when a conversation ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from harness.backends.seam import Reply, TurnRequest
from harness.chat import Rules, replay
from harness.conversations.script import Conversation, Turn
from harness.meters.clock import HandCrankedClock
from harness.metrics import METRICS, itl_s
from harness.records import CheckResult, Failure, Message, Persona, TurnRecord, turn_seed
from tests.builders import MS, circumstances

SYSTEM = Message("system", "Bob is a professor in Physics.\nAnswer briefly.")


@dataclass(frozen=True)
class Contains:
    word: str

    def judge(self, reply: str, completion_tokens: int | None) -> CheckResult:
        return CheckResult(f"contains: {self.word}", self.word in reply)


def conversation(*turns: Turn, **values: Any) -> Conversation:
    persona = Persona("Bob is a professor in Physics.", "Alice", "Bob")
    return Conversation("physics", turns, persona=persona, system="Answer briefly.", **values)


def play(
    script: Conversation,
    replies: Sequence[Reply | str],
    answer: Callable[[TurnRequest, Reply], None] = lambda request, reply: None,
    rules: Rules = Rules(sampling={"top_k": 10}),  # noqa: B008 – frozen
    clock: HandCrankedClock | None = None,
    turns: Sequence[Turn] | None = None,
    **around: Any,
) -> tuple[list[TurnRequest], list[TurnRecord]]:
    """Replay a script with these replies, as many as it asks for; `answer` stamps the request's stopwatch."""
    dialog = replay(script, circumstances(**around), rules, turns=turns, clock=clock or HandCrankedClock())
    requests, records = [], []
    left = iter(replies)
    for request in dialog:
        assert isinstance(request, TurnRequest)
        reply = next(left)
        reply = Reply(reply, "eos") if isinstance(reply, str) else reply
        answer(request, reply)
        requests.append(request)
        record = dialog.send(reply)
        assert isinstance(record, TurnRecord)
        records.append(record)
    assert list(left) == []
    return requests, records


def heard(requests: Sequence[TurnRequest]) -> list[list[str]]:
    return [[f"{message.role}: {message.content}" for message in request.messages[1:]] for request in requests]


GOLDEN = conversation(Turn("one?", "gold 1"), Turn("two?"), Turn("three?", "gold 3"))


def test_generated_history_feeds_the_models_own_replies() -> None:
    requests, _ = play(GOLDEN, ["said 1", "said 2", "said 3"])

    assert heard(requests) == [
        ["user: one?"],
        ["user: one?", "assistant: said 1", "user: two?"],
        ["user: one?", "assistant: said 1", "user: two?", "assistant: said 2", "user: three?"],
    ]


def test_scripted_history_feeds_the_gold_reply_where_there_is_one() -> None:
    requests, records = play(GOLDEN, ["said 1", "said 2", "said 3"], history="scripted")

    assert heard(requests) == [
        ["user: one?"],
        ["user: one?", "assistant: gold 1", "user: two?"],
        ["user: one?", "assistant: gold 1", "user: two?", "assistant: said 2", "user: three?"],
    ]
    assert [(record.reply, record.gold) for record in records] == [
        ("said 1", "gold 1"),
        ("said 2", None),
        ("said 3", "gold 3"),
    ]


def test_fill_asks_only_for_turns_without_a_gold_reply() -> None:
    requests, records = play(GOLDEN, ["said 2"], history="fill")

    assert heard(requests) == [["user: one?", "assistant: gold 1", "user: two?"]]
    assert [record.turn_index for record in records] == [1]


def test_every_request_opens_with_persona_and_system_text() -> None:
    requests, _ = play(GOLDEN, ["a", "b", "c"])

    assert {request.messages[0] for request in requests} == {SYSTEM}
    assert {request.persona for request in requests} == {GOLDEN.persona}


def test_a_conversation_without_persona_opens_with_the_user() -> None:
    requests, _ = play(Conversation("bare", (Turn("hello"),)), ["hi"])

    assert requests[0].messages == (Message("user", "hello"),)


def test_every_request_carries_the_rules_and_its_own_seed() -> None:
    rules = Rules(sampling={"top_k": 10}, seed=3, on_overflow="error", timeout_s=5)
    requests, records = play(GOLDEN, ["a", "b", "c"], rules=rules, length="fixed")

    assert [request.seed for request in requests] == [turn_seed(3, "physics", index, 0) for index in range(3)]
    assert [record.seed for record in records] == [request.seed for request in requests]
    assert {(r.length, r.on_overflow, r.timeout_s, r.sampling["top_k"]) for r in requests} == {
        ("fixed", "error", 5, 10)
    }
    assert [request.gold for request in requests] == ["gold 1", None, "gold 3"]


def test_a_failed_turn_is_a_record_and_ends_the_conversation() -> None:
    failure = Failure("OutOfMemoryError", "prefill", "no room")
    requests, records = play(GOLDEN, ["said 1", Reply(failure=failure)])

    assert len(requests) == 2
    assert records[1].failure == failure
    assert records[1].finish_reason == "error"
    assert records[1].reply is None
    assert records[1].checks == ()


def test_nothing_of_a_failure_enters_the_history() -> None:
    """Also where a gold reply could have gone on."""
    requests, _ = play(GOLDEN, [Reply(failure=Failure("Timeout", "decode", "too slow"))], history="scripted")

    assert heard(requests) == [["user: one?"]]


def test_a_captured_variable_is_used_by_later_turns() -> None:
    script = conversation(
        Turn("Pick a number.", capture={"n": r"number (\d+)", "whole": r"\d+"}), Turn("Double {{ n }} or {{whole}}.")
    )
    requests, records = play(script, ["My number 17.", "34"])

    assert requests[1].messages[-1].content == "Double 17 or 17."
    assert records[1].user == "Double 17 or 17."


def test_what_is_captured_is_what_feeds_on() -> None:
    script = conversation(Turn("Pick.", "number 5", capture={"n": r"\d+"}), Turn("Double {{n}}."))
    requests, _ = play(script, ["number 9", "18"], history="scripted")

    assert requests[1].messages[-1].content == "Double 5."


def test_a_capture_that_finds_nothing_fails_the_turn_but_keeps_the_reply() -> None:
    script = conversation(Turn("Pick.", capture={"n": r"\d+"}, expect=(Contains("no"),)), Turn("Double {{n}}."))
    requests, records = play(script, ["no idea"])

    assert len(requests) == 1
    assert records[0].reply == "no idea"
    assert records[0].failure == Failure("CaptureMissed", "capture", r"n: '\\d+' is not in the reply")


def test_checks_of_the_turn_come_before_those_of_the_conversation() -> None:
    script = conversation(Turn("one?", expect=(Contains("a"), Contains("z"))), Turn("two?"), expect=(Contains("b"),))
    _, records = play(script, ["ab", "a"])

    assert [[(check.check, check.passed) for check in record.checks] for record in records] == [
        [("contains: a", True), ("contains: z", False), ("contains: b", True)],
        [("contains: b", False)],
    ]


@pytest.mark.parametrize("reason", ["max_length", "context"])
@pytest.mark.parametrize(("on_overflow", "turns"), [("stop", 1), ("drop_oldest", 3), ("error", 3)])
def test_a_full_conversation_ends_under_stop_alone(reason, on_overflow, turns) -> None:
    rules = Rules(sampling={}, on_overflow=on_overflow)
    requests, records = play(GOLDEN, [Reply("cut o", reason), "b", "c"][:turns], rules=rules)

    assert len(requests) == turns
    assert records[0].failure is None


def test_a_reply_cut_off_by_max_new_tokens_goes_on() -> None:
    assert len(play(GOLDEN, [Reply("cut o", "max_new_tokens"), "b", "c"])[0]) == 3


def test_an_empty_reply_is_a_reply() -> None:
    requests, _ = play(GOLDEN, ["", "b", "c"])

    assert heard(requests)[1] == ["user: one?", "assistant: ", "user: two?"]


def test_turns_may_come_from_somebody_who_types() -> None:
    requests, records = play(conversation(), ["hi", "bye"], turns=[Turn("hello"), Turn("farewell")])

    assert heard(requests)[1] == ["user: hello", "assistant: hi", "user: farewell"]
    assert [record.turn_index for record in records] == [0, 1]


def test_every_metric_of_a_golden_clock_is_exact_and_no_turn_sees_the_one_before() -> None:
    """Turn k takes k+1 times as long in every phase; what the clock shows at the start plays no part."""
    clock = HandCrankedClock()
    clock.advance(10**18)

    def crank(request: TurnRequest, reply: Reply) -> None:
        slow = request.turn_index + 1
        clock.advance(2 * slow * MS)
        request.stopwatch.templated()
        clock.advance(3 * slow * MS)
        request.stopwatch.tokenized()
        clock.advance(15 * slow * MS)
        request.stopwatch.tick(1)
        for _ in range(3):
            clock.advance(8 * slow * MS)
            request.stopwatch.tick(1)
        clock.advance(4 * slow * MS)
        request.stopwatch.generated()
        clock.advance(2 * slow * MS)
        request.stopwatch.ready()
        clock.advance(7 * MS)  # between turns: nobody's time

    def answer(text: str) -> Reply:
        return Reply(
            text,
            "eos",
            prompt_tokens=120,
            cached_tokens=90,
            completion_ids=(5, 6, 7, 2),
            completion_tokens=4,
            visible_ids=1,
            answer_ids=2,
            gold_tokens=3,
        )

    script = conversation(Turn("one?", "gold 1"), Turn("two?", "gold 2"))
    _, records = play(script, [answer("a"), answer("b")], crank, clock=clock)

    first = {
        "ttft_s": 0.020,
        "ttft_visible_s": 0.020,
        "ttft_answer_s": 0.028,
        "template_s": 0.002,
        "tokenize_s": 0.003,
        "prefill_s": 0.015,
        "decode_s": 0.028,
        "detokenize_s": 0.002,
        "e2e_s": 0.050,
        "tpot_s": 0.008,
        "output_tokens_per_s": 4 / 0.050,
        "decode_tokens_per_s": 1 / 0.008,
        "prefill_tokens_per_s": 30 / 0.015,
        "s_per_1k_gold_chars": 1000 * 0.008 * 3 / 6,
        **dict.fromkeys(name for name in METRICS if name.endswith(("_bytes", "_j", "_utilisation"))),
    }
    second = {
        name: None if value is None else value / 2 if name.endswith("tokens_per_s") else value * 2
        for name, value in first.items()
    }
    assert [{name: metric.formula(record) for name, metric in METRICS.items()} for record in records] == [first, second]
    assert [itl_s(record) for record in records] == [[0.008] * 3, [0.016] * 3]
    assert records[1].stamps.ticks == ((40 * MS, 1), (56 * MS, 1), (72 * MS, 1), (88 * MS, 1))


def test_a_record_keeps_what_the_reply_says() -> None:
    reply = Reply(
        "said",
        "stop",
        reasoning="hm",
        prompt_tokens=7,
        completion_ids=(1, 2),
        completion_tokens=2,
        tokens_left=5,
        dropped_messages=2,
        prompt_hash="abc",
        notices=("folded",),
    )
    _, (record,) = play(conversation(Turn("one?")), [reply], kv_cache="fresh")

    assert record.circumstances == circumstances(kv_cache="fresh")
    for name in ("reasoning", "prompt_tokens", "completion_ids", "completion_tokens", "tokens_left"):
        assert getattr(record, name) == getattr(reply, name)
    for name in ("dropped_messages", "prompt_hash", "notices", "finish_reason", "cached_tokens", "memory"):
        assert getattr(record, name) == getattr(reply, name)


def test_under_fill_what_is_captured_is_in_the_gold_reply() -> None:
    script = conversation(Turn("Pick.", "number 5", capture={"n": r"\d+"}), Turn("Double {{n}}."))
    requests, _ = play(script, ["10"], history="fill")

    assert requests[0].messages[-1].content == "Double 5."
