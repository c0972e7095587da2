"""The decision of the gate: its formulas by hand, its answers, and what no night may do to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, t

from harness.analysis.decide import ALIKE, FALSE_ALARMS, Decision, Floor, _Noise, components, decide, trimmed

LEVEL = 0.0
STILL = Floor(launch=1e-4, launch_freedom=1e6, between=1e-4 / 4, nights=400, launches=4, autocorrelation=0.0)
"""Launches that vary by 1 %, nights that add nothing; so long measured that nothing is left to guess."""
WINDOW = [np.array([-0.01, 0.01, -0.01, 0.01])] * 10


def _nights(count: int, launches: int = 5, night: float = 0.005, launch: float = 0.01, seed: int = 0) -> list[Any]:
    draw = np.random.default_rng(seed)
    return [draw.normal(0, night) + draw.normal(0, launch, launches) for _ in range(count)]


def _night(value: float, launches: int = 4) -> Any:
    return np.full(launches, value) + np.resize([-0.001, 0.001], launches)


class TestNumbers:
    """Worked by hand."""

    def test_a_value_is_the_mean_without_its_extremes(self) -> None:
        assert trimmed(np.array([1.0, 2.0, 3.0, 6.0]), 5) == 3.0
        assert trimmed(np.array([9.0, 2.0, 3.0, 1.0, 4.0]), 5) == 3.0
        assert trimmed(np.array([[9.0, 2.0, 3.0, 1.0, 4.0], [0.0, 0.0, 0.0, 0.0, 50.0]]), 5).tolist() == [3.0, 0.0]

    def test_the_variance_of_launches_is_pooled_over_nights(self) -> None:
        found = components([np.array([1.0, 3.0]), np.array([10.0, 14.0, 12.0]), np.array([5.0])])

        assert found.launch == pytest.approx((2 + 8) / (1 + 2))
        assert (found.launch_freedom, found.nights) == (3, 3)
        assert found.launches == pytest.approx(3 / (1 / 2 + 1 / 3 + 1))
        assert found.between == pytest.approx(np.var([2, 12, 5], ddof=1))
        assert found.drift == pytest.approx(1.5), "the median of +10, −7 and +3 / 2"

    def test_of_five_launches_yuens_variance_is_taken(self) -> None:
        found = components([np.array([0.0, 1.0, 2.0, 3.0, 100.0])])

        winsorised = np.array([1.0, 1.0, 2.0, 3.0, 3.0])
        of_the_mean = ((winsorised - 2) ** 2).sum() / (3 * 2)
        assert found.launch == pytest.approx(5 * of_the_mean)
        assert (found.launch_freedom, found.between) == (2, 0)

    def test_alike_nights_vary_less_than_all_do(self) -> None:
        # With ρ = ½ the mean of 3 nights has the variance σ²/3 · (1 + 2 (⅔·½ + ⅓·¼)) = σ²/3 · 11/6.
        few = replace(STILL, nights=3, between=1e-3, launches=4)
        assert few.shrunk == pytest.approx((3 - 11 / 6) / 2)
        assert few.night == pytest.approx((1e-3 - 1e-4 / 4) / few.shrunk)
        assert few.night_freedom == pytest.approx(2 * (1 - ALIKE**2) / (1 + ALIKE**2))

    @pytest.mark.parametrize("alike", [0.0, 0.6])
    def test_components_are_found_again(self, alike: float) -> None:
        draw = np.random.default_rng(1)
        found = []
        for _ in range(400):
            level = [draw.normal()]
            while len(level) < 10:
                level.append(alike * level[-1] + (1 - alike**2) ** 0.5 * draw.normal())
            nights = [0.01 * each + draw.normal(0, 0.01, 4) for each in level]
            told = components(nights)
            found.append((told.launch, told.between, replace(told, autocorrelation=alike).night))
        launch, between, night = np.mean(found, axis=0)
        assert launch == pytest.approx(1e-4, rel=0.05)
        # With ρ = 0 as much is taken for granted as ρ = ½ would hide.
        expected = 1e-4 if alike else 1e-4 / replace(STILL, nights=10).shrunk
        assert night == pytest.approx(expected, rel=0.1)
        assert between < 1.4e-4

    def test_the_error_is_normal_where_all_is_known(self) -> None:
        noise = _Noise(STILL, None, launches=40)
        for level in (0.05, 0.001):
            assert noise.reach(4, level) == pytest.approx(norm.isf(level) * 0.01 * (1 / 4 + 1 / 40) ** 0.5, rel=0.04)

    @pytest.mark.parametrize("nights", [5, 20])
    @pytest.mark.parametrize("level", [0.05, 0.001])
    def test_the_error_is_students_where_nights_alone_vary(self, nights: int, level: float) -> None:
        floor = Floor(0.0, 0.0, between=1.0, nights=nights, launches=1)
        expected = t.isf(level, floor.night_freedom) * ((1 + 1 / nights) / floor.shrunk) ** 0.5

        assert _Noise(floor, None, launches=nights).reach(1, level) == pytest.approx(expected, rel=0.02)

    def test_what_nights_add_no_launch_takes_away(self) -> None:
        noise = _Noise(components(_nights(20, night=0.02)), None, 100)

        assert noise.reach(10_000, 0.05) > 0.02
        assert noise.reach(5, 0.05) > noise.reach(50, 0.05) > noise.reach(10_000, 0.05)

    def test_a_calibration_makes_few_nights_tell_more(self) -> None:
        window, floor = _nights(4), components(_nights(30, seed=1))
        alone, calibrated = (decide(_night(0), window, margin=None, floor=each) for each in (None, floor))

        assert calibrated.resolvable is not None
        assert alone.resolvable is not None
        assert calibrated.resolvable < alone.resolvable / 2

    def test_nights_that_differ_more_than_the_calibration_are_believed(self) -> None:
        calm = components(_nights(20, night=0.0, seed=1))
        wild = [night + level for night, level in zip(_nights(10), np.linspace(-0.2, 0.2, 10), strict=True)]
        alone, calibrated = (decide(_night(0), wild, margin=None, floor=each) for each in (None, calm))

        assert calibrated.resolvable == pytest.approx(alone.resolvable, rel=0.1)


class TestAnswers:
    def _decide(self, value: float, margin: float | None = 0.05, again: float | None = None, **values: Any) -> Decision:
        fresh = None if again is None else _night(again)
        return decide(_night(value), WINDOW, **{"margin": margin, "floor": STILL, "confirm": fresh, **values})

    def test_within_a_margin_that_can_be_held_is_a_pass(self) -> None:
        found = self._decide(0.04)

        assert (found.answer, found.reason) == ("pass", "")
        assert found.change == pytest.approx(0.04)
        assert found.resolvable == pytest.approx(norm.isf(FALSE_ALARMS) * 0.01 * (1 / 4 + 1 / 40) ** 0.5, rel=0.04)
        assert found.high - found.change == pytest.approx(found.resolvable)
        assert found.at_most == pytest.approx(0.04 + norm.isf(0.05) * 0.01 * (1 / 4 + 1 / 40) ** 0.5, rel=0.04)
        assert (found.launches, found.nights, found.needed) == (4, 10, None)

    def test_beyond_it_is_a_suspicion_until_it_is_seen_again(self) -> None:
        assert self._decide(0.06).answer == "suspicion"
        assert self._decide(0.06, again=0.06).answer == "regression"
        assert self._decide(0.06, again=0.06).launches == 8

    def test_what_fresh_launches_do_not_see_is_a_pass_that_says_so(self) -> None:
        for first, again in ((0.06, 0.0), (0.12, 0.02)):
            found = self._decide(first, again=again)
            assert (found.answer, found.reason) == (
                "pass",
                "fresh launches did not see it again" if first == 0.12 else "",
            )

    def test_faster_is_no_regression(self) -> None:
        assert self._decide(-0.5).answer == "pass"
        assert self._decide(0.5, worse=-1).answer == "pass"
        assert self._decide(-0.06, worse=-1, again=-0.06).answer == "regression"

    def test_auto_is_as_little_as_can_be_resolved(self) -> None:
        found = self._decide(0.005, margin=None)
        assert (found.answer, found.margin) == ("pass", found.resolvable)
        assert self._decide(found.resolvable + 0.001, margin=None).answer == "suspicion"

    def test_auto_allows_no_more_than_it_may(self) -> None:
        noisy = _nights(5, night=0.3)
        free = decide(_night(0.0), noisy, margin=None)
        held = decide(_night(0.0), noisy, margin=None, most=0.4)
        assert (free.answer, free.margin) == ("pass", free.resolvable)
        assert free.resolvable > 0.4
        assert (held.answer, held.margin) == ("cannot tell", 0.4)

    def test_a_larger_family_takes_a_larger_margin(self) -> None:
        one, many = (self._decide(0.0, margin=None, family=family).resolvable for family in (1, 50))
        assert many / one == pytest.approx(norm.isf(FALSE_ALARMS / 50) / norm.isf(FALSE_ALARMS), rel=0.02)

    def test_confirming_launches_count_for_what_can_be_resolved(self) -> None:
        before = self._decide(0.06, confirm_launches=4)
        assert before.resolvable == pytest.approx(self._decide(0.06, again=0.06).resolvable)
        assert before.resolvable < self._decide(0.06).resolvable

    def test_a_margin_that_cannot_be_held_names_the_launches_that_would(self) -> None:
        found = self._decide(0.008, margin=0.01)

        assert found.answer == "cannot tell"
        assert found.reason == f"the noise is too large for this margin: {found.needed} launches would"
        enough, too_few = (
            decide(_night(0, count), WINDOW, margin=None, floor=STILL).resolvable
            for count in (found.needed, found.needed - 1)
        )
        assert enough <= 0.01 < too_few

    def test_or_says_that_none_would(self) -> None:
        found = decide(_night(0.0), _nights(10, night=0.03), margin=0.01)
        assert (found.answer, found.needed) == ("cannot tell", None)
        assert "no number of launches would, but more nights or an anchor may" in found.reason

    def test_a_margin_that_cannot_be_held_is_passed_where_the_worsening_is_surely_smaller(self) -> None:
        found = self._decide(-0.01, margin=0.01)
        assert found.margin < found.resolvable
        assert (found.answer, found.at_most < 0.01) == ("pass", True)

    def test_what_is_twice_as_slow_is_seen_whatever_the_margin(self) -> None:
        assert self._decide(0.7, margin=0.001).answer == "suspicion"
        assert self._decide(0.7, margin=0.001, again=0.7).answer == "regression"

    def test_two_nights_without_a_calibration_cannot_tell(self) -> None:
        found = decide(_night(0.0), WINDOW[:2], margin=0.05)
        assert (found.answer, found.resolvable, found.low) == ("cannot tell", None, None)
        assert found.reason == "2 nights do not tell how much nights differ: 3 do, or a calibration"
        assert decide(_night(0.0), WINDOW[:1], margin=0.05).reason.startswith("one night does not tell")
        assert decide(_night(0.0), WINDOW[:1], margin=0.05, floor=STILL).answer == "pass"
        assert decide(_night(0.0), WINDOW[:3], margin=0.9).answer == "pass"

    def test_a_clock_that_does_not_vary_decides_everything(self) -> None:
        window = [np.full(2, 0.3)] * 3
        assert decide(np.full(2, 0.3), window, margin=None).answer == "pass"
        assert decide(np.full(2, 0.3000001), window, margin=None).answer == "suspicion"
        assert decide(np.full(2, 0.1 + 0.2), window, margin=None).answer == "pass", "0.1 + 0.2 is not 0.3"

    def test_no_launch_no_night_no_number_is_an_error(self) -> None:
        for tonight, window in (([], WINDOW), ([0.0], []), ([0.0], [np.array([])]), ([np.nan], WINDOW)):
            with pytest.raises(ValueError, match=r"nothing to decide by|no numbers"):
                decide(np.array(tonight), window, margin=0.05)


class TestDisturbed:
    def test_launch_moves_nothing(self) -> None:
        calm = decide(_night(0.0, 5), _nights(10), margin=0.05, floor=STILL)
        tonight = _night(0.0, 5)
        tonight[2] = 3.0
        disturbed = decide(tonight, _nights(10), margin=0.05, floor=STILL)

        assert disturbed.answer == "pass"
        assert disturbed.change == pytest.approx(calm.change, abs=0.001)

    def test_night_in_the_window_moves_little(self) -> None:
        window = _nights(10)
        calm = decide(_night(0.0), window, margin=None)
        window[3] = window[3] + 3.0
        disturbed = decide(_night(0.0), window, margin=None)

        assert disturbed.change == pytest.approx(calm.change, abs=0.005)
        assert disturbed.resolvable < 2.5 * calm.resolvable


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(-5, 5), st.floats(0.1, 10), st.integers(1, 6), st.integers(3, 12))
def test_only_what_changed_counts(seed: int, shift: float, scale: float, launches: int, count: int) -> None:
    """Neither where zero is, nor the unit, nor which way is worse makes a difference."""
    *window, tonight = _nights(count + 1, launches, seed=seed)
    found = decide(tonight, window, margin=0.01, family=3, confirm_launches=launches)
    moved = decide(
        tonight + shift, [night + shift for night in window], margin=0.01, family=3, confirm_launches=launches
    )
    scaled = decide(
        -scale * tonight, [-scale * night for night in window], margin=0.01 * scale, worse=-1, family=3,
        confirm_launches=launches,
    )  # fmt: skip

    assert moved.answer == found.answer == scaled.answer
    assert moved.change == pytest.approx(found.change, abs=1e-9)
    assert moved.resolvable == pytest.approx(found.resolvable, rel=1e-6)
    assert scaled.resolvable == pytest.approx(scale * found.resolvable, rel=1e-6)
    assert scaled.at_most == pytest.approx(scale * found.at_most, rel=1e-6, abs=1e-9)
    assert (scaled.needed, moved.needed) == (found.needed, found.needed)
