"""Effects of launches and of conversations: against numbers worked by hand, against scipy, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import permutation_test, ttest_ind, ttest_rel

from harness.analysis.inference import (
    Inference,
    conversations_needed,
    launches_needed,
    over_conversations,
    over_launches,
)

small = st.floats(-1, 1).map(lambda value: round(value, 3))
differences = st.lists(small, min_size=6, max_size=10).map(np.array)


def test_paired_launches_are_judged_by_the_spread_of_their_differences() -> None:
    """Differences 0.1, 0.2, 0.3: mean 0.2, deviation 0.1; t(2) = 4.302653, over √3."""
    found = over_launches(np.array([1.0, 5.0, 9.0]), np.array([1.1, 5.2, 9.3]), paired=True)

    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == (pytest.approx(0.2 - 0.248414, abs=1e-5), pytest.approx(0.2 + 0.248414, abs=1e-5))
    assert found.p == pytest.approx(ttest_rel([1.1, 5.2, 9.3], [1.0, 5.0, 9.0]).pvalue)
    assert (found.n, found.degrees, found.sd) == (3, 2, pytest.approx(0.1))


def test_launches_of_two_runs_are_judged_by_the_spread_of_each_side() -> None:
    ours, theirs = np.array([1.0, 1.2, 1.4, 1.3]), np.array([1.5, 1.9, 1.6])
    welch = ttest_ind(theirs, ours, equal_var=False)

    found = over_launches(ours, theirs, paired=False)

    assert found.p == pytest.approx(welch.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(welch.confidence_interval(0.95)))
    assert (found.n, found.degrees) == (3, 5)


@pytest.mark.parametrize("paired", [True, False])
def test_one_launch_has_a_value_and_no_interval(paired: bool) -> None:
    assert over_launches(np.array([1.0]), np.array([1.5]), paired) == Inference(0.5, n=1)


@pytest.mark.parametrize(("shift", "p"), [(0.0, 1.0), (0.5, 0.0)])
def test_launches_that_do_not_vary_leave_no_doubt(shift: float, p: float) -> None:
    same = np.array([0.1, 0.2, 0.3])

    found = over_launches(same, same + shift, paired=True)

    assert (found.low, found.high, found.p) == (pytest.approx(shift), pytest.approx(shift), p)


def test_six_conversations_of_one_sign_are_just_enough() -> None:
    """2 of 64 sign flips give a mean as far from 0; each of the 64 parts of the line holds θ equally likely, so the
    95 % interval leaves out the first and the last: it goes from the smallest single difference to the largest."""
    found = over_conversations(np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.9]), 1)

    assert found.value == pytest.approx(0.4)
    assert (found.low, found.high, found.p) == (pytest.approx(0.1), pytest.approx(0.9), 2 / 64)


def test_five_conversations_have_no_interval() -> None:
    assert over_conversations(np.array([0.1, 0.2, 0.3, 0.4, 0.5]), 1).low is None
    assert over_conversations(np.array([0.1]), 1) == Inference(0.1, n=1, common=0.1)


def test_the_p_value_is_that_of_an_exact_permutation_test() -> None:
    seen = np.array([0.3, -0.1, 0.25, 0.4, 0.05, -0.02, 0.31, 0.11])

    exact = permutation_test((seen,), np.mean, permutation_type="samples", n_resamples=np.inf)

    assert over_conversations(seen, 1).p == pytest.approx(exact.pvalue)


def test_no_difference_in_a_few_conversations_does_not_show_that_there_is_none() -> None:
    """The rule of three: with none of 20, up to 1 − 0.05^(1/20) = 13.9 % of all conversations may still differ."""
    found = over_conversations(np.zeros(20), 1)

    assert (found.value, found.p) == (0, 1)
    assert (found.low, found.high) == (pytest.approx(-0.139, abs=1e-3), pytest.approx(0.139, abs=1e-3))
    assert conversations_needed(found, 0.05, 1) == 59  # 1 − 0.05^(1/59) = 4.95 %


def test_the_same_loss_in_a_few_conversations_does_not_show_that_all_have_it() -> None:
    """Up to 1 − 0.05^(1/6) = 39.3 % of all conversations may keep what six of six lost. Where all six lost a quarter,
    as many may have lost all: 0.607 × 0.25 + 0.393 = 0.545."""
    everything, quarter = over_conversations(np.full(6, -1.0), 1), over_conversations(np.full(6, -0.25), 1)

    assert (everything.low, everything.high) == (-1, pytest.approx(-0.607, abs=1e-3))
    assert (quarter.low, quarter.high) == (pytest.approx(-0.545, abs=1e-3), pytest.approx(-0.152, abs=1e-3))
    assert quarter.p == 2 / 64


@pytest.mark.parametrize("lost", [[1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 1], [1, 1, 1, 0.9, 0.8, 0], [1] * 999 + [0]])
def test_no_interval_goes_beyond_what_conversations_can_differ_by(lost: list[float]) -> None:
    found = over_conversations(-np.array(lost, dtype=float), 1)

    assert -1 <= found.low <= found.value <= found.high <= 1


@settings(deadline=None)
@given(differences)
def test_swapping_sides_turns_the_sign(seen: np.ndarray) -> None:
    there, back = over_conversations(seen, 1), over_conversations(-seen, 1)

    assert (back.value, back.low, back.high) == pytest.approx((-there.value, -there.high, -there.low))
    assert back.p == there.p


@settings(deadline=None)
@given(differences)
def test_the_interval_excludes_no_difference_exactly_where_p_is_small(seen: np.ndarray) -> None:
    found = over_conversations(seen, 1)

    assert (found.p <= 0.05) == (found.low > 1e-9 or found.high < -1e-9)


@settings(deadline=None)
@given(st.lists(small, min_size=2, max_size=6).map(np.array), st.lists(small, min_size=2, max_size=6).map(np.array))
def test_swapping_launches_turns_the_sign(ours: np.ndarray, theirs: np.ndarray) -> None:
    there, back = over_launches(ours, theirs, False), over_launches(theirs, ours, False)

    assert back.value == pytest.approx(-there.value)
    assert (back.low, back.high, back.p) == pytest.approx((-there.high, -there.low, there.p))


SHAPES = {
    "normal": (lambda dice, size: dice.normal(0, 0.1, size), 0),
    "skewed": (lambda dice, size: dice.gamma(2, 0.1, size) - 0.2, 0),
    "mostly alike": (lambda dice, size: np.where(dice.random(size) < 0.15, -0.5, 0.0), -0.075),
    "a few either way": (lambda dice, size: np.where(dice.random(size) < 0.3, dice.choice([-1, 1], size) / 3, 0), 0),
    "a rare loss": (lambda dice, size: np.where(dice.random(size) < 0.05, -1.0, 0.0), -0.05),
    "lost but for a few": (lambda dice, size: np.where(dice.random(size) < 0.9, -1.0, 0.0), -0.9),
    "lost but for a rare one": (lambda dice, size: np.where(dice.random(size) < 0.95, -1.0, 0.0), -0.95),
    "a small loss, rarely of all": (lambda dice, size: np.where(dice.random(size) < 0.9, -0.2, -1.0), -0.28),
}
"""How differences come about, and their mean."""


@pytest.mark.parametrize("n", [6, 12, 20])
@pytest.mark.parametrize("shape", SHAPES)
def test_intervals_over_conversations_cover_the_mean(shape: str, n: int) -> None:
    """Of 400 samples 95 % or so; 92.5 % leaves room for the luck of the draw."""
    draw, mean = SHAPES[shape]
    found = [over_conversations(sample, 1) for sample in draw(np.random.default_rng(n), (400, n))]

    assert np.mean([each.low <= mean <= each.high for each in found]) >= 0.925


@pytest.mark.parametrize(("launches", "paired"), [(2, True), (4, True), (2, False), (4, False)])
def test_so_many_launches_as_are_needed_find_the_difference(launches: int, paired: bool) -> None:
    """A pilot of a few launches says how many more; experiments of that size find the margin in 80 % of cases or more,
    whatever luck the pilot had."""
    dice = np.random.default_rng(launches)
    sd, shift, found = 0.03, math.log(1.05), []
    for _ in range(200):
        pilot = over_launches(*dice.normal(0, sd, (2, launches)), paired)
        n = launches_needed(pilot, shift, paired)
        assert n is not None
        trials = dice.normal(0, sd, (10, 2, n))
        found += [over_launches(ours, theirs + shift, paired).p <= 0.05 for ours, theirs in trials]

    assert np.mean(found) >= 0.8


def test_so_many_conversations_as_are_needed_find_the_difference() -> None:
    dice = np.random.default_rng(0)
    found = []
    for _ in range(60):
        pilot = over_conversations(dice.normal(0, 0.1, 10), 1)
        n = conversations_needed(pilot, 0.05, 1)
        assert n is not None
        found += [over_conversations(sample, 1).p <= 0.05 for sample in dice.normal(0.05, 0.1, (5, n))]

    assert np.mean(found) >= 0.8


def test_rare_differences_need_so_many_conversations_that_they_are_seen() -> None:
    """One of twenty lost a fifth: 59 show that no more than 5 % differ unseen, as where none of them did."""
    one, none = np.zeros(20), np.zeros(20)
    one[0] = -0.2

    assert conversations_needed(over_conversations(one, 1), 0.05, 1) == 59
    assert conversations_needed(over_conversations(none, 1), 0.05, 1) == 59


@pytest.mark.parametrize(("size", "seen", "of"), [(0.2, 1, 20), (0.2, 3, 20), (0.5, 1, 20), (1.0, 1, 20), (0.5, 5, 30)])
@pytest.mark.parametrize("level", [0.05, 0.05 / 9])
def test_so_many_conversations_as_rare_differences_need_tell(size: float, seen: int, of: int, level: float) -> None:
    """Differences of one size, as rare as makes the mean one the margin."""
    margin, dice = 0.05, np.random.default_rng(1)
    n = conversations_needed(over_conversations(np.repeat([-size, 0.0], [seen, of - seen]), 1), margin, 1, level)
    assert n is not None
    samples = np.where(dice.random((100, n)) < margin / size, -size, 0.0)
    found = [over_conversations(sample, 1) for sample in samples]

    assert np.mean([each.p <= level or each.low >= -margin for each in found]) >= 0.75  # 80 %, and the luck of the draw


def test_conversations_that_all_lost_the_same_need_no_more_than_the_level_does() -> None:
    """2 of 2ⁿ flips: p = 2⁻⁵ for six; 0.05 / 9 takes nine."""
    found = over_conversations(np.full(6, -1.0), 1)

    assert [conversations_needed(found, 0.05, 1, level) for level in (0.05, 0.05 / 9)] == [6, 9]


def test_a_level_of_many_rows_is_reached_by_as_many_conversations_as_are_needed() -> None:
    """500 rows: 2 of 16 384 drawn flips would be p = 0.00012 at best."""
    level, dice, found = 0.05 / 500, np.random.default_rng(2), []
    for _ in range(10):
        n = conversations_needed(over_conversations(dice.normal(0.1, 0.1, 10), 1), 0.1, 1, level)
        assert n is not None
        found += [over_conversations(sample, 1).p <= level for sample in dice.normal(0.1, 0.1, (10, n))]
    alike = conversations_needed(over_conversations(np.full(10, 0.1), 1), 0.1, 1, level)

    assert np.mean(found) >= 0.8
    assert over_conversations(np.full(alike, 0.1), 1).p <= level < over_conversations(np.full(alike - 1, 0.1), 1).p


def test_p_beyond_what_is_drawn_is_no_smaller_than_that_of_all_flips() -> None:
    """20 of one sign: 2 of 2²⁰ flips; the bound is 2 × 3.18 × P(normal > √20)."""
    found = over_conversations(np.full(20, 0.1), 1)

    assert found.p == pytest.approx(6.356 * 3.87e-6, rel=1e-2)
    assert found.p > 2 / 2**20


def test_known_spread_needs_the_textbook_number_of_launches() -> None:
    """Two-sided t-test, 5 %, power 80 %, effect of one standard deviation: 17 per group, 10 pairs."""
    known = Inference(0.0, n=9, sd=1.0, degrees=10**9)

    assert launches_needed(known, 1.0, paired=False) == 17
    assert launches_needed(known, 1.0, paired=True) == 10


def test_one_launch_tells_nothing_of_how_many_it_takes() -> None:
    assert launches_needed(Inference(0.5, n=1), 0.05, paired=True) is None
