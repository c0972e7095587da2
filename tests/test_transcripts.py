"""Transcripts: equal answers are told once, in the order of the plan, and what a page leaves out is counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.analysis.transcripts import transcripts
from tests.builders import cell, every_turn, failed, plan, run_of, turn

SAMPLED = {"warm": {"do_sample": True, "temperature": 0.7}}


def test_transcripts_merge_identical_answers_and_keep_others(tmp_path: Path) -> None:
    of = plan(samplings=SAMPLED, conversations={"physics": 1}, repeats=3, launches=2)
    records = every_turn(of, lambda c, index: turn(c, index, reply="odd" if (c.repeat, c.launch) == (1, 0) else "even"))
    (exchange,) = transcripts(run_of(tmp_path, records, of)).exchanges

    assert [(answer.reply, dict(answer.given)) for answer in exchange.answers] == [
        ("even", {0: (0, 2), 1: (0, 1, 2)}),
        ("odd", {0: (1,)}),
    ]
    assert exchange.answers[0].ttft_s == pytest.approx(0.010)


def test_transcripts_follow_the_plan_and_leave_out_what_was_not_played(tmp_path: Path) -> None:
    of = plan(conversations={"zeta": 2, "alpha": 1, "omega": 1})
    records = [turn(cell(conversation_id="alpha")), failed(cell(conversation_id="zeta"))]
    said = transcripts(run_of(tmp_path, records, of)).exchanges

    assert [(exchange.conversation_id, exchange.turn_index) for exchange in said] == [
        ("zeta", 0),
        ("zeta", 1),
        ("alpha", 0),
    ]
    assert said[0].answers[0].error == "OutOfMemoryError (prefill): 2 GiB more than there is"
    assert said[1].answers[0].state == "not_reached"


def test_a_page_shows_a_few_different_answers_of_each_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.analysis.transcripts.MOST_ANSWERS", 2)
    of = plan(["pico", "nano"], SAMPLED, conversations={"physics": 1}, repeats=4)
    said = transcripts(run_of(tmp_path, every_turn(of, lambda c, i: turn(c, i, reply=f"{c.model} {c.repeat % 3}")), of))

    assert [answer.reply for answer in said.exchanges[0].answers] == ["pico 0", "pico 1", "nano 0", "nano 1"]
    assert said.left_out == 2  # repeat 2 of both; repeat 3 said what repeat 0 did


@pytest.mark.parametrize(("limit", "value"), [("MOST_TURNS", 3), ("MOST_CHARACTERS", 150)])
def test_a_page_ends_with_a_whole_turn_and_says_how_much_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    """A question and two answers are 28 + 2 · 50 characters; two models answer four turns."""
    monkeypatch.setattr(f"harness.analysis.transcripts.{limit}", value)
    of = plan(["pico", "nano"], conversations={"physics": 2, "memory": 2})
    said = transcripts(run_of(tmp_path, every_turn(of, lambda c, i: turn(c, i, reply="x" * 50)), of))

    assert [(each.conversation_id, each.turn_index, each.turns) for each in said.exchanges] == [
        ("physics", 0, 2),
        ("physics", 1, 2),
    ]
    assert said.left_out == 4
