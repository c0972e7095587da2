"""Throughput by level of concurrency: counted over the time that turns cover together, levels never mixed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from harness.analysis.drift import drifts
from harness.analysis.frames import Run, load
from harness.analysis.notes import notes
from harness.analysis.summary import by_conversation, by_setting, by_turn
from harness.analysis.throughput import has_levels, throughput
from harness.analysis.transcripts import transcripts
from harness.records import TurnRecord
from harness.report.markdown import markdown
from tests.builders import cell, checks, failed, plan, store, turn

T0 = 1_760_000_000.0
TALKS = {"a": 1, "b": 1}


def answered(of: Any, at: float, ms: int, ids: int, index: int = 0, **values: Any) -> TurnRecord:
    """A turn that starts `at` seconds after T0 and takes `ms` milliseconds, so many ids one by one."""
    # builders.stamps: text 2 ms after the last id
    return turn(of, index, ttft_ms=ms - 2 - (ids - 1) * 10, tpot_ms=10, ids=ids, started_at=T0 + at, **values)


def two_levels(tmp_path: Path, *launches: tuple[float, int]) -> Run:
    """Two conversations of a turn each, alone and two at a time; `launches` are (when, milliseconds of a turn)."""
    records = []
    for number, (at, ms) in enumerate(launches):
        alone_a, alone_b, both_a, both_b = (
            cell(conversation_id=name, launch=number, concurrency=level) for level in (1, 2) for name in "ab"
        )
        records += [
            answered(alone_a, at, ms, 10),
            answered(alone_b, at + 1, ms, 10),  # a pause before it, in which nobody is answered
            answered(both_a, at + 2, ms, 10, batch_size=2),
            answered(both_b, at + 2.05, ms, 10, batch_size=2),
        ]
    of = plan(conversations=TALKS, concurrency=[1, 2], launches=len(launches))
    return load(store(tmp_path, records, of))


def test_turns_that_overlap_are_counted_once_and_pauses_not_at_all(tmp_path: Path) -> None:
    table = throughput(two_levels(tmp_path, (0.0, 200)))
    assert table["concurrency"].tolist() == [1, 2]
    assert table["turns"].tolist() == [2, 2]
    assert table["batch_size_mean"].tolist() == [1.0, 2.0]
    # Alone: 2 × 0.2 s. Together: from 2.0 to 2.25 s, 0.05 s after the first one's start and 0.2 s long.
    assert table["output_tokens_per_s_p50"].tolist() == pytest.approx([20 / 0.4, 20 / 0.25])
    assert table["turns_per_s_p50"].tolist() == pytest.approx([2 / 0.4, 2 / 0.25])
    assert table["speedup_p50"].tolist() == pytest.approx([1.0, 1.6])
    assert table["e2e_s_p50"].tolist() == pytest.approx([0.2, 0.2])
    assert table["output_tokens_per_s_low"].isna().all()  # one launch has no interval


def test_a_turn_within_another_adds_no_time(tmp_path: Path) -> None:
    first, second = (cell(conversation_id=name, concurrency=2) for name in "ab")
    records = [answered(first, 0.0, 500, 10), answered(second, 0.1, 200, 10)]
    table = throughput(load(store(tmp_path, records, plan(conversations=TALKS, concurrency=[2]))))
    assert table["turns_per_s_p50"].tolist() == pytest.approx([2 / 0.5])
    assert table["speedup_p50"].isna().all()  # there is no level 1 to compare with


def test_launches_are_the_sample_and_time_between_them_is_nobodys(tmp_path: Path) -> None:
    table = throughput(two_levels(tmp_path, (0.0, 200), (1000.0, 400)))
    alone, together = table.to_dict("records")
    assert alone["output_tokens_per_s_p50"] == pytest.approx(math.sqrt((20 / 0.4) * (20 / 0.8)))
    assert alone["output_tokens_per_s_low"] < alone["output_tokens_per_s_p50"] < alone["output_tokens_per_s_high"]
    assert together["speedup_p50"] == pytest.approx(math.sqrt((0.4 / 0.25) * (0.8 / 0.45)))


def test_failed_turns_are_in_neither_count_nor_time(tmp_path: Path) -> None:
    first, second = (cell(conversation_id=name, concurrency=2) for name in "ab")
    records = [answered(first, 0.0, 200, 10), failed(second, started_at=T0)]
    table = throughput(load(store(tmp_path, records, plan(conversations=TALKS, concurrency=[2]))))
    assert (table["turns"][0], table["turns_per_s_p50"][0]) == (1, pytest.approx(1 / 0.2))


def test_a_level_that_nothing_was_answered_at_has_a_row_without_figures(tmp_path: Path) -> None:
    records = [failed(cell(conversation_id=name, concurrency=2), started_at=T0) for name in "ab"]
    table = throughput(load(store(tmp_path, records, plan(conversations=TALKS, concurrency=[1, 2]))))
    assert table["turns"].tolist() == [0, 0]
    assert table[["batch_size_mean", "output_tokens_per_s_p50", "speedup_p50", "ttft_s_p50"]].isna().all(axis=None)


def test_tables_never_mix_levels(tmp_path: Path) -> None:
    run = two_levels(tmp_path, (0.0, 200))
    assert by_setting(run)[["concurrency", "turns"]].values.tolist() == [[1, 2], [2, 2]]
    assert by_turn(run)[["concurrency", "turn_index", "turns"]].values.tolist() == [[1, 0, 2], [2, 0, 2]]
    assert len(by_conversation(run)) == 4


def test_greedy_repeats_are_one_observation_at_each_level(tmp_path: Path) -> None:
    records = [
        turn(cell(repeat=repeat, concurrency=level), checks=checks(level == 1)) for level in (1, 2) for repeat in (0, 1)
    ]
    run = load(store(tmp_path, records, plan(conversations={"physics": 1}, repeats=2, concurrency=[1, 2])))
    assert by_setting(run)["checks_rate"].tolist() == [1.0, 0.0]
    assert by_setting(run)["turns"].tolist() == [2, 2]


def test_answers_of_different_levels_are_shown_apart(tmp_path: Path) -> None:
    run = two_levels(tmp_path, (0.0, 200))
    (first, _) = transcripts(run).exchanges
    assert [(answer.concurrency, answer.given) for answer in first.answers] == [(1, {0: (0,)}), (2, {0: (0,)})]
    assert "**pico · greedy · 2 at a time**" in markdown(run)


def test_a_slow_level_is_no_drift(tmp_path: Path) -> None:
    records = [
        turn(cell(repeat=repeat, concurrency=level), tpot_ms=2 * level, started_at=T0 + 10 * level + repeat)
        for level in (1, 2)
        for repeat in range(6)
    ]
    run = load(store(tmp_path, records, plan(conversations={"physics": 1}, repeats=6, concurrency=[1, 2])))
    assert [drift for drift in drifts(run) if drift.matters] == []


def test_the_report_shows_levels_only_where_there_are_any(tmp_path: Path) -> None:
    page = markdown(two_levels(tmp_path / "levels", (0.0, 200)))
    assert "## Throughput" in page
    assert "| pico | greedy | 2 | 2 | 2.00 | 80.0 | 8.00 | 1.60 |" in page
    single = load(store(tmp_path / "single", [turn(cell(), index) for index in range(2)]))
    assert not has_levels(single)
    assert "oncurrency" not in markdown(single)
    assert "Throughput" not in markdown(single)


def test_draws_in_a_batch_are_told(tmp_path: Path) -> None:
    of = plan(conversations=TALKS, concurrency=[2])
    records = [answered(cell(conversation_id=name, concurrency=2), 0.0, 200, 10, paired=False) for name in "ab"]
    run = load(store(tmp_path, records, of))
    assert any(note.startswith("Turns drawn in a batch: 2.") for note in notes(run))
