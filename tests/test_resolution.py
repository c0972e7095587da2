"""The spread of identical work, and the differences it lets one tell: by hand, and by simulated comparisons."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from statistics import stdev

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from harness.analysis.frames import load
from harness.analysis.resolution import smallest_ratio, spread
from tests.builders import cell, failed, plan, store, turn


def test_the_spread_is_that_of_the_mean_logarithms_of_the_launches(tmp_path: Path) -> None:
    tpot_ms = {  # launch, repeat, turn
        (0, 0, 0): 2, (0, 1, 0): 2, (0, 0, 1): 4, (0, 1, 1): 4,
        (1, 0, 0): 2, (1, 1, 0): 8, (1, 0, 1): 16, (1, 1, 1): 4,
        (2, 0, 0): 4, (2, 1, 0): 4, (2, 0, 1): 4, (2, 1, 1): 4,
    }  # fmt: skip
    records = [
        turn(cell(launch=launch, repeat=repeat), index, tpot_ms=ms) for (launch, repeat, index), ms in tpot_ms.items()
    ]

    found = spread(load(store(tmp_path, records, plan(launches=3, repeats=2))), "pico", "tpot_s")

    two = math.log(2)
    milli = math.log(0.001)
    # logarithms to the base of 2: turns of launch 0 are 1 and 2, of launch 1 (1+3)/2 and (4+2)/2, of launch 2 2 and 2
    assert found.launch_means == pytest.approx([milli + 1.5 * two, milli + 2.5 * two, milli + 2 * two])
    assert found.between == pytest.approx(two * stdev([1.5, 2.5, 2]))
    # only launch 1 has repeats that differ, by 2 and 2: four squares of 1 over six degrees, one per pair
    assert found.within == pytest.approx(two * math.sqrt(4 / 6))
    assert found.turns == 4
    # two degrees of freedom: χ² is −2 ln(1 − p), so its quantiles are 7.378 and 0.0506
    assert found.between_low == pytest.approx(found.between * math.sqrt(2 / 7.3778), rel=1e-4)
    assert found.between_high == pytest.approx(found.between * math.sqrt(2 / 0.050636), rel=1e-4)


def test_without_repeats_nothing_is_said_of_the_spread_within_a_launch(tmp_path: Path) -> None:
    records = [turn(cell(launch=launch), index) for launch, index in product(range(2), range(2))]

    assert spread(load(store(tmp_path, records, plan(launches=2))), "pico", "tpot_s").within is None


def test_one_launch_has_no_spread(tmp_path: Path) -> None:
    records = [turn(cell(), 0), turn(cell(), 1), failed(cell(launch=1), 0)]

    with pytest.raises(ValueError, match="1 launches of pico have a tpot_s: a spread takes two"):
        spread(load(store(tmp_path, records, plan(launches=2))), "pico", "tpot_s")


@pytest.mark.parametrize("launches", [2, 3, 5, 10])
def test_a_difference_of_the_size_of_the_resolution_is_found_in_four_of_five_comparisons(launches: int) -> None:
    sd, comparisons = 0.03, 20_000
    dice = np.random.default_rng(20)
    difference = math.log(smallest_ratio(sd, launches))

    baseline = dice.normal(0, sd, (comparisons, launches))
    candidate = dice.normal(difference, sd, (comparisons, launches))
    found = ttest_ind(candidate, baseline, axis=1).pvalue < 0.05

    assert found.mean() == pytest.approx(0.8, abs=0.01)  # its standard error is 0.003


def test_the_resolution_of_many_launches_is_that_of_the_normal_distribution() -> None:
    # (1.959964 + 0.841621) · √(2/1000), with hardly anything left of the t-distribution's tails
    assert math.log(smallest_ratio(1, 1000)) == pytest.approx(2.801585 * math.sqrt(2 / 1000), rel=1e-3)


@given(sd=st.floats(1e-4, 0.5), launches=st.integers(2, 40))
def test_more_launches_and_less_noise_tell_smaller_differences(sd: float, launches: int) -> None:
    assert 1 < smallest_ratio(sd, launches + 1) < smallest_ratio(sd, launches) < smallest_ratio(1.1 * sd, launches)


def test_one_launch_per_side_tells_nothing() -> None:
    with pytest.raises(ValueError, match="two launches per side"):
        smallest_ratio(0.01, 1)
