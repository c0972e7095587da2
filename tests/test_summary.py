"""Summaries: what counts, what is collapsed, what is hidden, and what the notes must say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness.analysis.arrays import view
from harness.analysis.ledger import ledger
from harness.analysis.notes import behaviour_caption, notes, speed_caption
from harness.analysis.summary import by_conversation, by_setting, by_turn
from harness.records import Cell, Failure, Memory, TurnRecord
from tests.builders import cell, checks, every_turn, failed, launch, only, plan, run_of, turn

SAMPLED = {"warm": {"do_sample": True, "temperature": 0.7}}


def test_settings_come_in_the_order_of_the_config(tmp_path: Path) -> None:
    of = plan(["zeta", "alpha"], ["b", "a"])
    settings = by_setting(run_of(tmp_path, every_turn(of), of))

    assert list(zip(settings["model"], settings["sampling"], strict=True)) == [
        ("zeta", "b"),
        ("zeta", "a"),
        ("alpha", "b"),
        ("alpha", "a"),
    ]


def test_failed_and_unreached_turns_fail_all_their_checks(tmp_path: Path) -> None:
    """pico meets 2 + 3 checks; nano fails before the first two and never reaches the other three."""
    of = plan(["pico", "nano"], checks=[2, 3])
    nano = cell("nano")
    records = [turn(checks=checks(True, True)), turn(index=1, checks=checks(True, True, False)), failed(nano)]
    pico_row, nano_row = by_setting(run_of(tmp_path, records, of)).to_dict("records")

    assert pico_row["checks_rate"] == pytest.approx(4 / 5)
    assert nano_row["checks_rate"] == 0
    assert (nano_row["done"], nano_row["failed"], nano_row["not_reached"]) == (0, 1, 1)


def test_a_turn_that_failed_after_its_checks_were_made_fails_them_too(tmp_path: Path) -> None:
    """A capture may find nothing in a reply that passes everything else."""
    missed = Failure("CaptureMissed", "capture", "n: not in the reply")
    again = turn(cell(repeat=1), reply="other", checks=checks(True, True))
    last = turn(cell(repeat=1), 1, checks=checks(True))
    row = only(
        by_setting(
            run_of(
                tmp_path, [turn(checks=checks(True, True), failure=missed), again, last], plan(repeats=2, checks=[2, 1])
            )
        )
    )

    assert (row["failed"], row["not_reached"]) == (1, 1)
    assert row["checks_rate"] == pytest.approx(3 / 6)


def test_a_turn_nobody_ever_answered_owes_its_checks_all_the_same(tmp_path: Path) -> None:
    records = [turn(checks=checks(True, True, True)), failed(index=1)]

    assert only(by_setting(run_of(tmp_path, records, plan(checks=[3, 2]))))["checks_rate"] == pytest.approx(3 / 5)


def test_a_run_in_which_nothing_was_answered_passes_nothing(tmp_path: Path) -> None:
    assert only(by_setting(run_of(tmp_path, [failed()], plan(checks=[3, 2]))))["checks_rate"] == 0


def test_a_run_that_checks_nothing_has_no_rate_even_where_turns_failed(tmp_path: Path) -> None:
    assert pd.isna(only(by_setting(run_of(tmp_path, [turn(), failed(index=1)], plan(checks=[0, 0]))))["checks_rate"])


def test_missing_turns_count_nowhere_but_are_shown(tmp_path: Path) -> None:
    of = plan(repeats=2)
    records = [turn(checks=checks(True)), turn(index=1, checks=checks(True))]
    row = only(by_setting(run_of(tmp_path, records, of)))

    assert (row["turns"], row["done"], row["missing"], row["checks_rate"]) == (4, 2, 2, 1)


def repeated(replies: list[str], of: dict[str, Any], sampling: str) -> list[TurnRecord]:
    """Two conversations: physics says these replies, repeat by repeat, of which "right" passes; memory always fails."""
    return [
        turn(Cell("pico", sampling, conversation, repeat, 0), 0, reply=reply, checks=checks(passed))
        for repeat, reply in enumerate(replies)
        for conversation, passed in (("physics", reply == "right"), ("memory", False))
    ]


def test_identical_greedy_repeats_are_one_observation(tmp_path: Path) -> None:
    once = plan(conversations={"physics": 1, "memory": 1})
    thrice = {**once, "repeats": 3}
    one = only(by_setting(run_of(tmp_path / "1", repeated(["right"], once, "greedy"), once)))
    three = only(by_setting(run_of(tmp_path / "3", repeated(["right"] * 3, thrice, "greedy"), thrice)))

    assert [three[f"checks_{name}"] for name in ("rate", "low", "high")] == [
        one[f"checks_{name}"] for name in ("rate", "low", "high")
    ]


def observations(run: Any) -> int:
    (setting,) = run.turns[["model", "sampling"]].drop_duplicates().to_dict("records")
    return ledger(run).tally(view(run), **setting).turns


def test_the_repeats_of_a_greedy_turn_are_one_observation_their_mean(tmp_path: Path) -> None:
    of = plan(conversations={"physics": 1, "memory": 1}, repeats=3)
    run = run_of(tmp_path, repeated(["right", "wrong", "right"], of, "greedy"), of)

    assert observations(run) == 2
    assert only(by_setting(run))["checks_rate"] == pytest.approx((2 / 3 + 0) / 2)


def test_one_failure_among_ten_greedy_repeats_weighs_a_tenth(tmp_path: Path) -> None:
    of = plan(conversations={"physics": 1}, repeats=10)
    records = [turn(cell(repeat=repeat), checks=checks(True)) for repeat in range(9)] + [failed(cell(repeat=9))]

    assert only(by_setting(run_of(tmp_path, records, of)))["checks_rate"] == pytest.approx(0.9)


def test_sampled_repeats_are_draws_and_all_count(tmp_path: Path) -> None:
    of = plan(samplings=SAMPLED, conversations={"physics": 1, "memory": 1}, repeats=3)
    run = run_of(tmp_path, repeated(["right", "right", "wrong"], of, "warm"), of)

    assert observations(run) == 6
    assert only(by_setting(run))["checks_rate"] == pytest.approx(2 / 6)


def test_launches_that_draw_with_the_same_seeds_are_one_observation(tmp_path: Path) -> None:
    """Two conversations, two repeats, four launches, half of the turns right: four observations, as in one launch."""
    one, four = (
        plan(samplings=SAMPLED, conversations={"physics": 1, "memory": 1}, repeats=2, launches=n) for n in (1, 4)
    )
    runs = [
        run_of(
            tmp_path / str(of["launches"]),
            every_turn(of, lambda each, index: turn(each, index, checks=checks(each.repeat == 0))),
            of,
        )
        for of in (one, four)
    ]
    once, again = (only(by_setting(run)) for run in runs)

    assert [observations(run) for run in runs] == [4, 4]
    assert again["checks_rate"] == 0.5
    assert [again[f"checks_{end}"] for end in ("low", "high")] == [once[f"checks_{end}"] for end in ("low", "high")]


def test_a_draw_from_one_token_is_no_draw(tmp_path: Path) -> None:
    of = plan(
        samplings={"top_k=1": {"do_sample": True, "top_k": 1}}, conversations={"physics": 1, "memory": 1}, repeats=3
    )
    assert observations(run_of(tmp_path, repeated(["right", "right", "wrong"], of, "top_k=1"), of)) == 2


def test_what_generation_really_ran_with_decides_what_is_greedy(tmp_path: Path) -> None:
    """Nobody asked for sampling, but the model's own generation_config turned it on."""
    of = plan(conversations={"physics": 1, "memory": 1}, repeats=3)
    entry = launch("pico", 0, effective={"greedy": {"values": {"do_sample": True}, "warnings": []}})
    run = run_of(tmp_path, repeated(["right", "right", "wrong"], of, "greedy"), of, launches=[entry])

    assert observations(run) == 6


def test_launches_are_compared_by_the_same_turns(tmp_path: Path) -> None:
    """A slow turn that failed in one launch must not make that launch look fast."""
    of = plan(conversations={"physics": 2}, launches=2)
    records = [
        turn(cell(launch=0), ttft_ms=10), turn(cell(launch=0), 1, ttft_ms=100),
        turn(cell(launch=1), ttft_ms=10), failed(cell(launch=1), 1),
    ]  # fmt: skip
    run = run_of(tmp_path, records, of)

    row = only(by_setting(run))
    assert [row[f"ttft_s_{end}"] for end in ("p50", "low", "high")] == pytest.approx([0.010] * 3)
    assert any(note.startswith("Turns answered in some launches only: 1.") for note in notes(run))


def test_a_fixed_length_has_no_pass_rate_and_no_repetition(tmp_path: Path) -> None:
    of = plan(length="fixed")
    records = [turn(index=index, checks=checks(True), around={"length": "fixed"}) for index in (0, 1)]
    row = only(by_setting(run_of(tmp_path, records, of)))

    assert all(pd.isna(row[name]) for name in ("checks_rate", "checks_low", "truncated_rate", "repetition_mean"))


def test_speed_of_several_launches_is_their_geometric_mean(tmp_path: Path) -> None:
    of = plan(conversations={"physics": 1}, launches=2)
    records = [turn(cell(launch=0), ttft_ms=10), turn(cell(launch=1), ttft_ms=40)]
    row = only(by_setting(run_of(tmp_path, records, of)))

    assert row["ttft_s_p50"] == pytest.approx(0.020)  # √(10 · 40)
    assert row["ttft_s_low"] < 0.010 < 0.040 < row["ttft_s_high"]
    assert (row["speed_basis"], row["launches"]) == ("launches", 2)


def test_failed_turns_are_in_no_speed_figure(tmp_path: Path) -> None:
    row = only(by_setting(run_of(tmp_path, [turn(ttft_ms=10), failed(index=1)])))

    assert row["ttft_s_p50"] == pytest.approx(0.010)


def test_warm_up_is_in_no_figure(tmp_path: Path) -> None:
    warm = turn(around={"phase": "warmup"}, ttft_ms=900, checks=checks(False))
    records = [warm, turn(ttft_ms=10, checks=checks(True)), turn(index=1, ttft_ms=10)]
    row = only(by_setting(run_of(tmp_path, records, plan(checks=[1, 0]))))

    assert (row["ttft_s_p50"], row["checks_rate"]) == (pytest.approx(0.010), 1)


@pytest.mark.parametrize(("turns", "shown"), [(59, False), (60, True)])
def test_the_tail_is_hidden_below_sixty_turns(tmp_path: Path, turns: int, shown: bool) -> None:
    of = plan(conversations={"physics": turns})
    row = only(by_setting(run_of(tmp_path, every_turn(of), of)))

    assert pd.notna(row["ttft_s_p95"]) == shown
    assert pd.isna(row["ttft_s_p99"])


def test_truncation_counts_every_way_of_being_cut_off(tmp_path: Path) -> None:
    of = plan(conversations={"physics": 5})
    reasons = ["eos", "stop", "max_new_tokens", "eos", "context"]
    records = [turn(index=index, finish_reason=reason) for index, reason in enumerate(reasons)]

    assert only(by_setting(run_of(tmp_path, records, of)))["truncated_rate"] == pytest.approx(2 / 5)


def test_a_forced_length_is_no_truncation(tmp_path: Path) -> None:
    of = plan(length="fixed")
    records = [turn(index=index, around={"length": "fixed"}, finish_reason="max_new_tokens") for index in (0, 1)]

    assert pd.isna(only(by_setting(run_of(tmp_path, records, of)))["truncated_rate"])


def test_tokens_repetition_memory_and_loading(tmp_path: Path) -> None:
    said = "one two three four five six seven eight"
    records = [
        turn(ids=4, reply=said, memory=Memory(1000, 2000, 5000, 7000)),
        turn(index=1, ids=8, reply=f"{said} {said}", memory=Memory(3000, 4000, 4000, 6000)),
    ]
    entries = [launch("pico", 0, load_s=2.0), launch("pico", 0, load_s=4.0), launch("nano", 0, load_s=99.0)]
    row = only(by_setting(run_of(tmp_path, records, launches=entries)))

    assert (row["completion_tokens_p50"], row["completion_tokens_mean"]) == (6, 6)
    assert row["repetition_mean"] == pytest.approx((0 + 0.5) / 2)
    assert (row["peak_memory_bytes"], row["device_used_bytes"], row["host_rss_bytes"]) == (3000, 5000, 7000)
    assert row["load_s"] == 3.0
    assert row["first_turn_s"] == pytest.approx(0.018)  # 10 + 3 · 2 + 2 ms


def test_by_turn_shows_how_a_conversation_grows(tmp_path: Path) -> None:
    of = plan(conversations={"physics": 2, "memory": 1})
    records = every_turn(of, lambda c, index: turn(c, index, ttft_ms=10 + 5 * index, checks=checks(index == 0)))
    first, second = by_turn(run_of(tmp_path, records, of)).to_dict("records")

    assert (first["conversations"], second["conversations"]) == (2, 1)
    assert (first["prompt_tokens_p50"], second["prompt_tokens_p50"]) == (20, 40)
    assert (first["cached_tokens_p50"], second["cached_tokens_p50"]) == (0, 20)
    assert (first["ttft_s_p50"], second["ttft_s_p50"]) == (pytest.approx(0.010), pytest.approx(0.015))
    assert (first["checks_rate"], second["checks_rate"]) == (1, 0)


def test_by_conversation_keeps_conversations_apart(tmp_path: Path) -> None:
    of = plan(conversations={"physics": 2, "memory": 1})
    records = every_turn(of, lambda c, index: turn(c, index, checks=checks(c.conversation_id == "memory")))
    rows = by_conversation(run_of(tmp_path, records, of)).to_dict("records")

    assert [(row["conversation_id"], row["turns"], row["checks_rate"]) for row in rows] == [
        ("physics", 2, 0),
        ("memory", 1, 1),
    ]


@pytest.mark.parametrize("summarise", [by_setting, by_turn, by_conversation])
def test_a_summary_of_nothing_has_the_same_columns_and_types(tmp_path: Path, summarise: Any) -> None:
    nothing = summarise(run_of(tmp_path / "0", [], launches=[]))
    something = summarise(run_of(tmp_path / "1", [turn(), turn(index=1)]))

    assert (nothing.dtypes == something.dtypes).all()


def test_captions_name_the_estimand(tmp_path: Path) -> None:
    one = run_of(tmp_path / "1", every_turn(plan()))
    of = plan(conversations={f"c{index}": 1 for index in range(6)}, launches=2)
    many = run_of(tmp_path / "6", every_turn(of), of)

    assert "one conversation has no interval" in behaviour_caption(one)
    assert "this launch only" in speed_caption(one)
    assert behaviour_caption(many) == "Behaviour: the 6 conversations are the sample, 95 % intervals."
    assert "the 2 launches are the sample" in speed_caption(many)


def test_notes_say_what_the_numbers_do_not(tmp_path: Path) -> None:
    of = plan(["pico", "nano"], repeats=2)
    records = [turn(), failed(index=1), turn(cell("nano"))]
    said = "\n".join(notes(run_of(tmp_path, records, of, torn_lines=1)))

    for expected in ("still missing: 6", "failed: 1, never reached: 0", "broken or repeated attempts: 1", "Torn lines"):
        assert expected in said
    assert "speeds be those of different prompts" in said
    assert "replies differ in length" in said


def test_a_lone_setting_in_the_speed_lane_has_one_note(tmp_path: Path) -> None:
    of = plan(history="scripted", length="fixed")

    assert notes(run_of(tmp_path, every_turn(of), of)) == (
        "length: fixed – replies are forced to their length: read speed here, not eloquence.",
    )


def test_the_first_conversations_of_the_plan_may_be_asked_for(tmp_path: Path) -> None:
    of = plan(["pico", "nano"], conversations={"zeta": 1, "alpha": 1, "omega": 1})
    run = run_of(tmp_path, every_turn(of), of)

    assert list(by_conversation(run, 2)["conversation_id"]) == ["zeta", "alpha"] * 2
    assert len(by_conversation(run)) == 6
