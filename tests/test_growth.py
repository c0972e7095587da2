"""What a growing context costs: slopes worked by hand, planted slopes found again."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import linregress, t

import harness
from harness.analysis.growth import growth, slope
from harness.analysis.stats import Estimate
from harness.records import Cell, Memory, TurnRecord
from tests.builders import every_turn, failed, plan, store, turn


def points(*rows: tuple[int, int, float, float]) -> pd.DataFrame:
    """(launch, conversation, x, y); every conversation's places are numbered."""
    frame = pd.DataFrame(rows, columns=["launch", "conversation", "x", "y"])
    frame["place"] = frame["conversation"] * 100 + frame.groupby(["launch", "conversation"]).cumcount()
    return frame


def line(launch: int, conversation: int, level: float, by: float, xs: tuple[int, ...] = (1, 2, 3)) -> list[Any]:
    return [(launch, conversation, x, level + by * x) for x in xs]


def test_the_slope_of_one_conversation_is_that_of_least_squares() -> None:
    """x 1 2 3, y 1 3 4: the means 2 and 8/3, Sxy = 3, Sxx = 2, slope 1.5; rests ∓1/6 ±1/3, squares 1/6, one degree of
    freedom: t(0.975; 1) = 12.706 · √(1/6 / 2)."""
    found = slope(points((0, 0, 1, 1), (0, 0, 2, 3), (0, 0, 3, 4)), "y", "x")

    assert found.value == pytest.approx(1.5)
    assert found.high == pytest.approx(1.5 + 12.7062 * math.sqrt(1 / 12), rel=1e-4)
    assert found.low == pytest.approx(1.5 - 12.7062 * math.sqrt(1 / 12), rel=1e-4)
    assert (found.basis, found.n) == ("one launch", 1)


def test_the_levels_of_conversations_are_no_growth() -> None:
    """One at 0 with short contexts, one at 100 with long ones: within each a unit of y per unit of x."""
    found = slope(points(*line(0, 0, 0, 1), *line(0, 1, 100, 1, (11, 12, 13))), "y", "x")

    assert found.value == pytest.approx(1)
    assert found.low == pytest.approx(1)


def test_the_interval_is_over_launches_where_there_are_several() -> None:
    """Slopes 1 and 3: their mean 2, their deviation √2, t(0.975; 1) = 12.706 · √2 / √2."""
    found = slope(points(*line(0, 0, 5, 1), *line(1, 0, 9, 3)), "y", "x")

    assert found.value == pytest.approx(2)
    assert found.high == pytest.approx(2 + 12.7062, rel=1e-4)
    assert (found.basis, found.n) == ("launches", 2)


def test_launches_are_compared_by_the_same_turns() -> None:
    """Launch 1 never came to the steep end that launch 0 has."""
    steep = (0, 0, 4, 1000.0)

    assert slope(points(*line(0, 0, 0, 1), steep, *line(1, 0, 0, 1)), "y", "x").value == pytest.approx(1)


@pytest.mark.parametrize(
    "rows", [[], line(0, 0, 0, 1, (1, 2)), line(0, 0, 0, 1, (2, 2, 2)), line(0, 0, 0, 1, (1, 2, 2))]
)
def test_fewer_than_three_contexts_have_no_slope(rows: list[Any]) -> None:
    assert slope(points(*rows), "y", "x") == Estimate(None)


def test_conversations_of_one_turn_each_have_no_slope() -> None:
    assert slope(points(*(line(0, number, 0, 1, (number,))[0] for number in range(5))), "y", "x") == Estimate(None)


def test_the_interval_of_one_launch_is_that_of_a_regression() -> None:
    dice = np.random.default_rng(3)
    xs, ys = np.arange(12.0), 3 * np.arange(12.0) + dice.normal(0, 1, 12)
    reference = linregress(xs, ys)
    found = slope(points(*((0, 0, x, y) for x, y in zip(xs, ys, strict=True))), "y", "x")

    assert found.value == pytest.approx(reference.slope)
    assert found.high is not None
    assert found.high - reference.slope == pytest.approx(t.ppf(0.975, 10) * reference.stderr)


def test_intervals_over_launches_hold_the_planted_slope_as_often_as_they_say() -> None:
    dice = np.random.default_rng(5)
    held, runs = 0, 300
    for _ in range(runs):
        rows = []
        for launch in range(4):
            by = 2 + dice.normal(0, 0.3)
            for conversation in range(3):
                level = dice.normal(0, 10)
                rows += [(launch, conversation, x, level + by * x + dice.normal(0, 1)) for x in range(6)]
        found = slope(points(*rows), "y", "x")
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 2 <= found.high

    assert 0.92 <= held / runs <= 0.98


def grown(tmp_path: Path, make: Callable[[Cell, int], TurnRecord], of: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The rows of `growth` by metric."""
    rows = growth(harness.load(store(tmp_path, every_turn(of, make), of))).to_dict("records")
    return {row["metric"]: row for row in rows}


def test_planted_slopes_come_back_per_thousand_tokens(tmp_path: Path) -> None:
    """A turn adds 20 tokens to the context and sends 20 + 5 · index new ones."""

    def make(cell: Cell, index: int) -> TurnRecord:
        new = 20 + 5 * index
        return turn(
            cell, index, ttft_ms=10 + 3 * new, tpot_ms=2 + 4 * index, memory=Memory(host_rss_bytes=7000 * (index + 1)),
            cached_tokens=20 * (index + 1) - new, kv_cache_bytes=3 * 20 * (index + 1),
        )  # fmt: skip

    rows = grown(tmp_path, make, plan(conversations={"physics": 4}, launches=2))

    assert rows["tpot_s"]["per_1k_context"] == pytest.approx(0.004 / 20 * 1000)
    assert rows["tpot_s"]["per_turn"] == pytest.approx(0.004)
    assert rows["ttft_s"]["per_1k_new"] == pytest.approx(3.0)
    assert rows["ttft_s"]["per_turn"] == pytest.approx(0.015)
    assert rows["host_rss_bytes"]["per_1k_context"] == pytest.approx(7000 / 20 * 1000)
    assert rows["kv_cache_bytes"]["per_1k_context"] == pytest.approx(3000)
    assert "peak_memory_bytes" not in rows
    assert pd.isna(rows["tpot_s"]["per_1k_new"])
    assert (rows["tpot_s"]["basis"], rows["tpot_s"]["launches"]) == ("launches", 2)
    assert (rows["tpot_s"]["context_low"], rows["tpot_s"]["context_high"]) == (20, 80)


def test_a_stall_in_one_of_three_repeats_moves_nothing(tmp_path: Path) -> None:
    def make(cell: Cell, index: int) -> TurnRecord:
        stalled = (cell.repeat, index) == (1, 2)
        return turn(cell, index, tpot_ms=5000 if stalled else 2 + index)

    rows = grown(tmp_path, make, plan(conversations={"physics": 4}, repeats=3))
    assert rows["tpot_s"]["per_turn"] == pytest.approx(0.001)


def test_prompts_at_the_limit_and_failed_turns_are_no_points(tmp_path: Path) -> None:
    def make(cell: Cell, index: int) -> TurnRecord:
        if index == 3:
            return turn(cell, index, ids=0, memory=Memory(host_rss_bytes=1))
        return turn(cell, index, tpot_ms=2 + index, memory=Memory(host_rss_bytes=1000 * (index + 1)))

    rows = grown(tmp_path / "limit", make, plan(conversations={"physics": 4}))
    assert rows["host_rss_bytes"]["per_turn"] == pytest.approx(1000)

    of = plan(conversations={"physics": 3})
    run = harness.load(store(tmp_path / "failed", [turn(), turn(index=1), failed(index=2)], of))
    assert len(growth(run)) == 0
