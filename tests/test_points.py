"""The points of pictures: against runs made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import harness
from harness.analysis import points
from harness.analysis.points import along_context, distribution, evenly, launch_medians, launch_starts, over_time
from harness.analysis.tradeoffs import trade_offs
from harness.records import Memory
from tests.builders import cell, checks, failed, launch, plan, store, turn

T0 = 1_760_000_000.0


@given(st.integers(0, 400), st.integers(2, 50))
def test_what_is_kept_lies_evenly_and_has_both_ends(count: int, most: int) -> None:
    kept = evenly(count, most)

    assert len(kept) == min(count, most)
    assert len(set(kept.tolist())) == len(kept)
    if count:
        assert (kept[0], kept[-1]) == (0, count - 1)
    if count > most:
        gaps = np.diff(kept)
        assert gaps.max() - gaps.min() <= 1


def test_a_distribution_has_a_step_per_answered_turn(tmp_path: Path) -> None:
    of = plan(conversations={"a": 1, "b": 1, "c": 1, "d": 1})
    records = [
        turn(cell(conversation_id="a"), ttft_ms=30),
        turn(cell(conversation_id="b"), ttft_ms=10),
        failed(cell(conversation_id="c")),
        turn(cell(conversation_id="d"), ttft_ms=20),
    ]
    found = distribution(harness.load(store(tmp_path, records, of)), "ttft_s")

    assert found.turns == 3
    assert list(found.frame["value"]) == pytest.approx([0.01, 0.02, 0.03])
    assert list(found.frame["share"]) == pytest.approx([1 / 3, 2 / 3, 1])


def test_a_large_distribution_keeps_its_ends_and_the_ranks_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(points, "MOST_POINTS", 3)
    of = plan(conversations={f"c{n}": 1 for n in range(5)})
    records = [turn(cell(conversation_id=f"c{n}"), ttft_ms=10 + n) for n in range(5)]
    found = distribution(harness.load(store(tmp_path, records, of)), "ttft_s")

    assert found.turns == 5
    assert list(found.frame["value"]) == pytest.approx([0.010, 0.012, 0.014])
    assert list(found.frame["share"]) == pytest.approx([0.2, 0.6, 1])


def test_turns_stand_on_their_context(tmp_path: Path) -> None:
    records = [turn(index=0, prompt_tokens=40, ttft_ms=12), turn(index=1, prompt_tokens=90, ttft_ms=15)]
    frame = along_context(harness.load(store(tmp_path, records)), "ttft_s").frame

    assert frame[["context", "value"]].to_numpy() == pytest.approx(np.array([[40, 0.012], [90, 0.015]]))


def test_time_begins_with_the_first_turn_of_the_run(tmp_path: Path) -> None:
    of = plan(("pico", "nano"), conversations={"a": 1}, launches=2)
    starts = {("pico", 0): 5, ("nano", 0): 9, ("nano", 1): 12, ("pico", 1): 20}
    records = [
        turn(cell(model, conversation_id="a", launch=number), started_at=T0 + at, tpot_ms=at)
        for (model, number), at in starts.items()
    ]
    run = harness.load(store(tmp_path, records, of))
    frame = over_time(run, "tpot_s").frame
    began = launch_starts(run)

    assert list(zip(frame["model"], frame["second"], frame["value"], strict=True)) == [
        ("pico", 0, pytest.approx(0.005)),
        ("pico", 15, pytest.approx(0.02)),
        ("nano", 4, pytest.approx(0.009)),
        ("nano", 7, pytest.approx(0.012)),
    ]
    assert list(zip(began["model"], began["launch"], began["second"], strict=True)) == [
        ("pico", 0, 0), ("nano", 0, 4), ("nano", 1, 7), ("pico", 1, 15),
    ]  # fmt: skip


def test_launches_are_compared_by_the_turns_they_all_have(tmp_path: Path) -> None:
    of = plan(conversations={"a": 1, "b": 1}, launches=2)
    records = [
        turn(cell(conversation_id="a", launch=0), tpot_ms=2),
        turn(cell(conversation_id="b", launch=0), tpot_ms=50),
        turn(cell(conversation_id="a", launch=1), tpot_ms=3),
    ]
    frame = launch_medians(harness.load(store(tmp_path, records, of)), "tpot_s")

    assert list(zip(frame["launch"], frame["value"], strict=True)) == [
        (0, pytest.approx(0.002)),
        (1, pytest.approx(0.003)),
    ]


def test_host_memory_is_that_of_the_model_and_not_of_the_sampling(tmp_path: Path) -> None:
    of = plan(("pico", "nano"), ("a", "b"), {"c": 1})
    sizes = {("pico", "a"): 10, ("pico", "b"): 11, ("nano", "a"): 30, ("nano", "b"): 30}
    records = [
        turn(
            cell(model, sampling, "c"),
            tpot_ms=2 if sampling == "b" else 3,
            checks=checks(model == "nano"),
            memory=Memory(host_rss_bytes=size),
        )
        for (model, sampling), size in sizes.items()
    ]
    found = trade_offs(harness.load(store(tmp_path, records, of)))

    assert list(found.settings["memory_bytes"]) == [11, 11, 30, 30]
    assert list(found.settings["front"]) == [False, True, False, True]
    assert found.counted == ("checks_rate", "tpot_s_p50", "memory_bytes")
    assert found.recommended == {1: ("tpot_s_p50", "memory_bytes"), 3: ("checks_rate",)}


def test_a_setting_without_an_answer_is_not_comparable(tmp_path: Path) -> None:
    of = plan(("pico", "nano"), conversations={"c": 1})
    records = [turn(cell("pico", conversation_id="c")), failed(cell("nano", conversation_id="c"))]
    found = trade_offs(harness.load(store(tmp_path, records, of)))

    assert list(found.settings["comparable"]) == [True, False]
    assert list(found.settings["front"]) == [True, False]


def test_nothing_known_has_no_front(tmp_path: Path) -> None:
    found = trade_offs(harness.load(store(tmp_path, [], launches=[launch("pico", 0)])))

    assert (found.counted, found.recommended) == ((), {})
