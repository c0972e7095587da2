"""The scripted backend: what it recites, and its clock to the nanosecond."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.backends.open import open_backend, preview
from harness.backends.scripted import Breakdown, Recital, ScriptedBackend
from harness.config.schema import ModelSpec
from harness.errors import DocumentError, UsageError
from harness.meters.clock import HandCrankedClock
from harness.records import Persona, Stamps
from tests.asking import ask, converse, dialog
from tests.builders import MS
from tests.crowds import request

TIMES = {"template_s": 0.001, "tokenize_s": 0.002, "prefill_s": 0.05, "token_s": 0.01, "detokenize_s": 0.003}


def test_every_stamp_is_exact_to_the_nanosecond() -> None:
    clock = HandCrankedClock()
    session = ScriptedBackend(Recital(lines=["one two three"], **TIMES), clock=clock).open_session()
    stamps = ask(session, clock=clock).stamps
    assert stamps.templated_ns == 1 * MS
    assert stamps.tokenized_ns == 3 * MS
    assert stamps.ticks == ((53 * MS, 1), (63 * MS, 1), (73 * MS, 1))
    assert stamps.generated_ns == 73 * MS
    assert stamps.ready_ns == 76 * MS


def test_ids_that_arrive_together_arrive_when_the_last_of_them_is_ready() -> None:
    clock = HandCrankedClock()
    recital = Recital(lines=["one two three four five"], ids_per_tick=[1, 3], prefill_s=0.05, token_s=0.01)
    stamps = ask(ScriptedBackend(recital, clock=clock).open_session(), clock=clock).stamps
    assert stamps.ticks == ((50 * MS, 1), (80 * MS, 3), (90 * MS, 1))


def test_lines_are_recited_in_turns_and_conversations_have_their_own() -> None:
    backend = ScriptedBackend(Recital(lines=["one", "two"], conversations={"other": ["three"]}))
    assert [asked.reply.text for asked in converse(backend.open_session(), {})] == ["one", "two", "one", "two"]
    assert ask(backend.open_session(), conversation_id="other").reply.text == "three"


def test_a_planned_breakdown_is_a_failure_at_its_turn() -> None:
    recital = Recital(lines=["one"], breakdown=Breakdown(turn=1, kind="OutOfMemory", message="planned"))
    first, second, *_ = converse(ScriptedBackend(recital).open_session(), {})
    assert first.reply.failure is None
    assert second.reply.failure is not None
    assert (second.reply.failure.kind, second.reply.failure.phase) == ("OutOfMemory", "prefill")


def test_tokens_are_words() -> None:
    reply = ask(
        ScriptedBackend(Recital(lines=["one  two"])).open_session(), dialog("What is it?", system="Be kind.")
    ).reply
    assert reply.prompt_tokens == 7  # Be kind. Alice: What is it? Bob:
    assert reply.completion_tokens == 2


@pytest.mark.parametrize("real_time", [True, "spin"])
def test_real_time_passes_only_when_asked_for(real_time: bool | str) -> None:
    slow = Recital(lines=["one two"], prefill_s=0.02, token_s=0.01, real_time=real_time)
    assert ask(ScriptedBackend(slow).open_session()).stamps.ready_ns >= 30 * MS
    assert ask(ScriptedBackend(Recital(lines=["one two"], prefill_s=5.0)).open_session()).stamps.ready_ns < 1000 * MS


def test_a_file_is_opened_by_name(tmp_path: Path) -> None:
    script = tmp_path / "recital.yaml"
    script.write_text("lines: [It is motion.]\nprefill_s: 0.1\n")
    spec = ModelSpec(model=f"scripted:{script}")
    backend = open_backend(spec, chat_format="auto", template_now="2026-01-01T00:00:00")
    assert ask(backend.open_session()).reply.text == "It is motion."
    shown = preview(
        spec,
        samplings={"short": {"max_new_tokens": 3}},
        length="natural",
        messages=dialog("What?"),
        persona=Persona(),
        chat_format="auto",
        template_now="2026-01-01T00:00:00",
    )
    assert shown.prompt == "User: What?\nAssistant:"
    assert shown.effective["short"].values == {"max_new_tokens": 3}


def test_mistakes_of_a_file_are_told_with_their_places(tmp_path: Path) -> None:
    script = tmp_path / "recital.yaml"
    script.write_text("lines: [hello]\nprefil_s: 0.1\ntoken_s: -1\n")
    with pytest.raises(DocumentError) as caught:
        open_backend(ModelSpec(model=f"scripted:{script}"), chat_format="auto", template_now="2026-01-01T00:00:00")
    assert "recital.yaml:2:1: prefil_s: unknown key" in str(caught.value)
    assert "recital.yaml:3:1: token_s" in str(caught.value)


def test_the_fixed_lane_without_a_length_is_refused() -> None:
    with pytest.raises(UsageError, match="max_new_tokens"):
        ScriptedBackend(Recital(lines=["one"])).effective({}, "fixed")


def recited_together(*lines: str, timeout_s: float | None = None, **recital: Any) -> list[Stamps]:
    """The stamps of conversations with these lines, answered together; their turns begin at the same moment."""
    clock = HandCrankedClock()
    names = [str(index) for index in range(len(lines))]
    said = {name: [line] for name, line in zip(names, lines, strict=True)}
    backend = ScriptedBackend(Recital(lines=["x"], conversations=said, **{**TIMES, **recital}), clock=clock)
    asked = [
        (backend.open_session(), request(["Who?"], {}, clock=clock, conversation_id=name, timeout_s=timeout_s))
        for name in names
    ]
    replies = backend.reply_many(asked)
    assert [reply.text for reply in replies if reply.failure is None] == [
        line for line, reply in zip(lines, replies, strict=True) if reply.failure is None
    ]
    return [one.stopwatch.stamps() for _, one in asked]


def test_turns_answered_together_are_prepared_in_turn_and_stepped_together() -> None:
    # Templates take 1 ms, ids of a prompt 2 ms, the prefill 50 ms, a step 10 ms, decoding 3 ms.
    long, short = recited_together("one two three", "four")
    assert (long.templated_ns, long.tokenized_ns) == (1 * MS, 3 * MS)
    assert (short.templated_ns, short.tokenized_ns) == (4 * MS, 6 * MS)  # after the first one's prompt
    # One prefill for both, from 6 to 56 ms. The short turn ends there, and the long one waits for its text.
    assert short.tick_ns == (56 * MS,)
    assert (short.generated_ns, short.ready_ns) == (56 * MS, 59 * MS)
    assert long.tick_ns == (56 * MS, 69 * MS, 79 * MS)
    assert (long.generated_ns, long.ready_ns) == (79 * MS, 82 * MS)


def test_a_step_lasts_as_long_as_the_most_ids_that_arrive_in_it() -> None:
    many, one = recited_together("a b c d", "e", ids_per_tick=[3, 1])
    assert many.ticks == ((76 * MS, 3), (89 * MS, 1))  # 6 + 50 + 2 further ids; then 3 ms for the other's text
    assert one.ticks == ((76 * MS, 1),)


def test_a_turn_that_is_too_late_fails_alone() -> None:
    late, short = recited_together("one two three", "four", timeout_s=0.06)
    assert late.tick_ns == (56 * MS, 69 * MS)
    assert late.ready_ns is None
    assert short.ready_ns == 59 * MS
