"""Intervals against numbers worked by hand, and the laws they obey."""

from __future__ import annotations

import math
import random
from statistics import median
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.analysis.stats import Estimate, effective_size, percentile, typical, wilson
from harness.analysis.stats import pass_rate as pass_rate_of_conversations

times = st.floats(1e-6, 1e6)
launches = st.dictionaries(st.integers(0, 9), st.lists(times, min_size=1, max_size=12), min_size=1, max_size=5)


class Tally(NamedTuple):
    """The checks of one turn: how many passed out of how many."""

    conversation: str
    passed: float
    total: int


def tallies(**passed: list[int]) -> list[Tally]:
    """One check per turn; a list of turns for each conversation."""
    return [Tally(name, each, 1) for name, turns in passed.items() for each in turns]


def pass_rate(turns: list[Tally]) -> Estimate:
    names = sorted({tally.conversation for tally in turns})
    passed = [sum(tally.passed for tally in turns if tally.conversation == name) for name in names]
    total = [sum(tally.total for tally in turns if tally.conversation == name) for name in names]
    return pass_rate_of_conversations(passed, total, sum(tally.total > 0 for tally in turns))


def test_a_percentile_lies_between_order_statistics() -> None:
    assert percentile([4, 1, 3, 2], 50) == 2.5
    assert percentile([7], 50) == 7
    assert percentile(range(1, 61), 95) == pytest.approx(57.05)  # 59 · 0.95 = 56.05 past the first


@pytest.mark.parametrize(("q", "needed"), [(95, 60), (99, 300)])
def test_a_tail_of_too_few_samples_is_hidden(q: float, needed: int) -> None:
    assert percentile(range(needed - 1), q) is None
    assert percentile(range(needed), q) is not None


def test_nothing_has_no_percentile() -> None:
    assert percentile([], 50) is None


@settings(deadline=None)  # the machine may be busy
@given(st.lists(times, min_size=1, max_size=30), st.sampled_from([10, 50, 90]))
def test_percentiles_are_numpys(values: list[float], q: float) -> None:
    assert percentile(values, q) == pytest.approx(np.percentile(values, q))


def test_three_launches_have_a_t_interval_over_logarithms() -> None:
    """Medians 1, e, e²: logarithms 0, 1, 2 with mean 1 and deviation 1; t(2) = 4.302653, over √3."""
    estimate = typical({0: [0.5, 1, 9], 1: [math.e], 2: [math.exp(2), math.exp(2)]})

    assert estimate.value == pytest.approx(math.e)
    assert estimate.low == pytest.approx(0.226696, rel=1e-5)
    assert estimate.high == pytest.approx(32.59434, rel=1e-5)
    assert (estimate.basis, estimate.n) == ("launches", 3)


def test_one_launch_has_the_interval_of_order_statistics_and_says_so() -> None:
    """Six values: the median lies between the extremes in all but 2 of 64 cases, 96.9 %."""
    assert typical({3: [6, 5, 4, 3, 2, 1]}) == Estimate(3.5, 1, 6, "one launch", 1)
    assert typical({0: list(range(1, 21))}) == Estimate(10.5, 6, 15, "one launch", 1)  # 95.9 %


def test_five_values_of_one_launch_have_no_interval() -> None:
    assert typical({0: [1, 2, 3, 4, 5]}) == Estimate(3, n=1)


def test_a_thousand_turns_of_one_launch_are_one_launch() -> None:
    assert typical({0: [1.0] * 1000}).basis == "one launch"
    assert typical({0: [1.0] * 1000, 1: []}).n == 1


def test_no_values_have_no_estimate() -> None:
    assert typical({}) == typical({0: [], 1: []}) == Estimate(None)


def test_times_of_zero_have_a_median_but_no_logarithm() -> None:
    assert typical({0: [0, 0], 1: [2, 2]}) == Estimate(1, n=2)


@settings(deadline=None)  # the machine may be busy
@given(launches)
def test_the_typical_value_lies_in_its_interval_and_among_the_medians(by_launch: dict[int, list[float]]) -> None:
    estimate = typical(by_launch)
    medians = [median(values) for values in by_launch.values()]

    assert estimate.value is not None
    assert min(medians) * (1 - 1e-9) <= estimate.value <= max(medians) * (1 + 1e-9)
    if estimate.low is not None and estimate.high is not None:
        assert estimate.low <= estimate.value <= estimate.high


@settings(deadline=None)  # the machine may be busy
@given(launches, st.floats(1e-3, 1e3))
def test_a_slower_machine_scales_value_and_interval(by_launch: dict[int, list[float]], factor: float) -> None:
    before = typical(by_launch)
    after = typical({launch: [factor * value for value in values] for launch, values in by_launch.items()})

    assert after.basis == before.basis
    for name in ("value", "low", "high"):
        was, now = getattr(before, name), getattr(after, name)
        assert (was is None) == (now is None)
        if was is not None and 1e-200 < was < 1e200:
            assert now == pytest.approx(factor * was, rel=1e-6)


def test_wilsons_interval_is_the_textbooks() -> None:
    """5 of 10 at 95 %: 0.2366 to 0.7634."""
    assert wilson(0.5, 10, 1.959964) == pytest.approx((0.236593, 0.763407), abs=1e-6)
    assert wilson(0, 10, 1.959964) == pytest.approx((0, 0.277533), abs=1e-6)


def test_the_design_effect_is_worked_by_hand() -> None:
    """4/4, 2/4 and 3/4: p = 3/4, v = 3/2 · (1 + 1 + 0)/144 = 1/48, so 12 turns are worth (3/16)/(1/48) = 9."""
    assert effective_size(3 / 4, 1 / 48, clusters=3, turns=12) == pytest.approx(9)

    estimate = pass_rate(tallies(a=[1, 1, 1, 1], b=[1, 1, 0, 0], c=[1, 1, 1, 0]))

    assert estimate.value == 0.75
    assert (estimate.low, estimate.high) == pytest.approx(
        (0.188763, 0.974797), abs=1e-5
    )  # Wilson, n = 9, t(2) = 4.302653
    assert (estimate.basis, estimate.n) == ("few conversations", 3)


def test_turns_that_all_agree_within_a_conversation_are_worth_one_each() -> None:
    assert effective_size(0.5, variance=0.25, clusters=2, turns=20) == 2


def test_conversations_that_are_all_alike_are_worth_their_turns() -> None:
    assert effective_size(0.5, variance=0, clusters=5, turns=20) == 20


def test_where_every_turn_passes_only_the_conversations_count() -> None:
    assert effective_size(1.0, variance=0, clusters=5, turns=50) == 5
    assert pass_rate(tallies(a=[1] * 50, b=[1] * 50)) == pass_rate(tallies(a=[1], b=[1]))


def test_one_conversation_has_a_rate_and_no_interval() -> None:
    assert pass_rate(tallies(a=[1, 0, 1, 1])) == Estimate(0.75, n=1)


@pytest.mark.parametrize(
    ("conversations", "basis"), [(2, "few conversations"), (5, "few conversations"), (6, "conversations")]
)
def test_fewer_than_six_conversations_are_marked(conversations: int, basis: str) -> None:
    assert pass_rate(tallies(**{f"c{index}": [index % 2] for index in range(conversations)})).basis == basis


def test_nothing_checked_has_no_rate() -> None:
    assert pass_rate([]) == pass_rate([Tally("a", 0, 0)]) == Estimate(None)


def test_a_turn_without_checks_weighs_nothing() -> None:
    assert pass_rate([*tallies(a=[1, 0], b=[1, 1]), Tally("c", 0, 0)]) == pass_rate(tallies(a=[1, 0], b=[1, 1]))


def test_a_turn_weighs_as_much_as_it_has_checks() -> None:
    assert pass_rate([Tally("a", 3, 3), Tally("b", 0, 1)]).value == 0.75


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_a_rate_lies_in_its_interval_between_none_and_all(given_tallies: list[tuple[str, int, int]]) -> None:
    estimate = pass_rate([Tally(name, min(passed, total), total) for name, passed, total in given_tallies])

    if estimate.low is not None and estimate.high is not None and estimate.value is not None:
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


@settings(deadline=None)  # the machine may be busy
@given(st.dictionaries(st.sampled_from("abcdefgh"), st.lists(st.integers(0, 1), min_size=1, max_size=6), min_size=2))
def test_failures_and_passes_are_mirror_images(passed: dict[str, list[int]]) -> None:
    there = pass_rate(tallies(**passed))
    back = pass_rate(tallies(**{name: [1 - each for each in turns] for name, turns in passed.items()}))

    assert (there.value, there.low, there.high) == pytest.approx((1 - back.value, 1 - back.high, 1 - back.low))


@pytest.mark.parametrize("conversations", [3, 6])
def test_intervals_cover_the_truth_although_turns_of_a_conversation_are_alike(conversations: int) -> None:
    """70 % pass on average, with a correlation of 0.4 within a conversation, as turns that share a history have."""
    luck = random.Random(1)
    covered = 0
    for _ in range(400):
        rates = [luck.betavariate(1.05, 0.45) for _ in range(conversations)]
        estimate = pass_rate(
            tallies(**{f"c{i}": [luck.random() < rate for _ in range(8)] for i, rate in enumerate(rates)})
        )
        covered += estimate.low <= 0.7 <= estimate.high

    assert covered >= 0.93 * 400
