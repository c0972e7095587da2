"""Change points: what changed is found where it changed, and nothing is found where nothing did."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from harness.analysis import changepoints
from harness.analysis.changepoints import FEWEST, change_points, detector

DETECTORS = ("ruptures and running medians", "running medians")


def noise(nights: int, seed: int = 0, cv: float = 0.03) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, cv, nights)


@pytest.mark.parametrize("by", DETECTORS)
def test_a_step_is_found_with_its_night_and_size(by: str) -> None:
    values = noise(90)
    values[60:] += 0.10

    (found,) = change_points(values, 30, by)

    assert found.earliest <= 60 <= found.latest
    assert abs(found.first - 60) <= 1
    assert found.low < 0.10 < found.high
    assert found.shift == pytest.approx(found.after - found.before)


@pytest.mark.parametrize("by", DETECTORS)
def test_several_steps_are_each_found(by: str) -> None:
    values = noise(120, cv=0.01)
    values[40:] += 0.10
    values[80:] -= 0.05

    assert [found.first for found in change_points(values, 30, by)] == [40, 80]


def test_a_step_without_any_noise_is_exact() -> None:
    values = np.repeat([2.0, 3.0], 20)

    (found,) = change_points(values)

    assert (found.first, found.earliest, found.latest) == (20, 20, 20)
    assert (found.before, found.after, found.low, found.high) == (2.0, 3.0, 1.0, 1.0)


def test_the_interval_is_that_of_student_by_hand() -> None:
    """Two stretches of 10, each alternating ±1 round 0 and 100: nights are unlike their neighbours, so ρ counts as
    the bias alone. Left over are 20 squares of 1 on 18 degrees of freedom."""
    values = np.tile([-1.0, 1.0], 10)
    values[10:] += 100

    (found,) = change_points(values)

    inflation = (1 + 0) / (1 - 0)  # seen −0.95, lifted by 0.1, held at 0
    error = np.sqrt(20 / 18 * inflation * (1 / 10 + 1 / 10))
    assert found.shift == 100
    assert found.high - found.shift == pytest.approx(error * 2.10092, rel=1e-4)  # t of 18 degrees, 97.5 %


@pytest.mark.parametrize("by", DETECTORS)
def test_wild_nights_are_no_change(by: str) -> None:
    values = noise(90)
    values[[20, 55, 56]] += 0.3

    assert change_points(values, 30, by) == ()


@pytest.mark.parametrize("values", [np.zeros(50), np.full(50, 7.5)], ids=["zero", "same"])
def test_what_never_changes_has_none(values: np.ndarray) -> None:
    assert change_points(values) == ()


def test_rounding_is_no_change() -> None:
    values = np.full(50, 2.0)
    values[25:] = np.nextafter(2.0, 3.0)
    with_a_wild_night = np.where(np.arange(50) == 40, 1.0, values)

    assert change_points(values) == change_points(with_a_wild_night) == ()


def test_few_nights_are_no_series() -> None:
    values = np.repeat([1.0, 2.0], [4, 5])

    assert len(values) < FEWEST
    assert change_points(values) == ()
    assert len(change_points(np.repeat([1.0, 2.0], [5, 5]))) == 1


def test_the_unit_does_not_matter() -> None:
    values = noise(90)
    values[60:] += 0.08

    assert [each.first for each in change_points(values * 1e9)] == [each.first for each in change_points(values)]


def test_more_series_take_more_to_be_sure() -> None:
    values = noise(60)
    values[30:] += 0.032

    assert len(change_points(values, 1)) == 1
    assert change_points(values, 100_000) == ()


@pytest.mark.parametrize("by", DETECTORS)
def test_tables_without_a_change_are_quiet(by: str) -> None:
    """benchmarks/trend_power.py has the rates; this notices when they are lost."""
    random = np.random.default_rng(7)
    alike = np.empty((200, 60))
    alike[:, 0] = random.normal(size=200)
    for night in range(1, 60):
        alike[:, night] = 0.3 * alike[:, night - 1] + np.sqrt(1 - 0.09) * random.normal(size=200)

    assert sum(len(change_points(line, 20, by)) for line in alike) <= 1


def test_two_clocks_that_take_turns_are_no_change() -> None:
    random = np.random.default_rng(3)
    lines = [random.normal(0, 0.01, 120) + 0.06 * (random.random(120) < 0.3) for _ in range(40)]

    assert sum(len(change_points(line, 20)) for line in lines) == 0


def test_without_ruptures_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert detector() == "ruptures and running medians"
    monkeypatch.setitem(sys.modules, "ruptures", None)
    monkeypatch.setattr(changepoints, "find_spec", lambda name: None)
    values = noise(60)
    values[30:] += 0.1

    assert detector() == "running medians"
    assert len(change_points(values)) == 1
