"""The front of Pareto and what stands out on it, against examples worked by hand and against the definition."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.pareto import BALANCED, comparable, front, recommended

QUALITY_AND_TIME = {"quality": "higher", "seconds": "lower"}


def settings(**rows: tuple[float | None, ...]) -> pd.DataFrame:
    return pd.DataFrame.from_dict(rows, orient="index", columns=["quality", "seconds"], dtype="Float64")


def on_front(values: pd.DataFrame) -> set[str]:
    return set(values.index[front(values, QUALITY_AND_TIME)])


def test_who_is_beaten_in_everything_is_not_on_the_front() -> None:
    values = settings(good=(0.9, 2.0), fast=(0.5, 1.0), middle=(0.7, 1.5), beaten=(0.6, 1.6), slow=(0.9, 2.1))

    assert on_front(values) == {"good", "fast", "middle"}


def test_equal_rows_are_on_the_front_together() -> None:
    assert on_front(settings(a=(0.9, 1.0), b=(0.9, 1.0), c=(0.9, 1.1))) == {"a", "b"}


def test_what_has_no_value_is_not_on_the_front_and_keeps_nobody_from_it() -> None:
    values = settings(unknown=(1.0, None), known=(0.5, 1.0), nothing=(None, None))

    assert on_front(values) == {"known"}
    assert list(comparable(values, QUALITY_AND_TIME)) == [False, True, False]


def test_a_front_of_nothing_is_empty() -> None:
    values = settings(a=(1.0, 1.0)).iloc[:0]

    assert list(front(values, QUALITY_AND_TIME)) == []
    assert recommended(values, QUALITY_AND_TIME) == {}
    assert recommended(settings(a=(None, 1.0)), QUALITY_AND_TIME) == {}


VALUE = st.one_of(st.none(), st.integers(0, 4).map(float))


@given(st.lists(st.tuples(VALUE, VALUE, VALUE), max_size=25))
def test_the_front_is_what_the_definition_says(rows: list[tuple[float | None, ...]]) -> None:
    directions = {"a": "lower", "b": "higher", "c": "lower"}
    values = pd.DataFrame(rows, columns=["a", "b", "c"], dtype="Float64")

    def dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
        gains = [sign * (theirs - ours) for sign, ours, theirs in zip((1, -1, 1), one, other, strict=True)]
        return min(gains) >= 0 and max(gains) > 0

    known = [row for row in rows if None not in row]
    expected = [None not in row and not any(dominates(other, row) for other in known) for row in rows]

    assert list(front(values, directions)) == expected
    assert set(recommended(values, directions)) <= set(np.flatnonzero(expected))


def test_the_balanced_one_gives_up_least_where_it_gives_up_most() -> None:
    # Between 0.5 and 0.9 of quality, and 1 and 2 seconds:  shares given up, and the greater of them
    values = settings(
        good=(0.9, 2.0),  #                                   0      1      1
        near=(0.8, 1.5),  #                                   0.25   0.5    0.5
        even=(0.74, 1.38),  #                                 0.4    0.38   0.4
        quick=(0.6, 1.1),  #                                  0.75   0.1    0.75
        fast=(0.5, 1.0),  #                                   1      0      1
    )

    assert recommended(values, QUALITY_AND_TIME) == {
        "good": ("quality",),
        "even": (BALANCED,),
        "fast": ("seconds",),
    }


def test_between_two_extremes_there_is_no_middle() -> None:
    values = settings(good=(0.9, 2.0), fast=(0.5, 1.0))

    assert recommended(values, QUALITY_AND_TIME) == {"good": ("quality",), "fast": ("seconds",)}


def test_who_is_best_at_everything_is_all_that_is_recommended() -> None:
    values = settings(worse=(0.5, 2.0), best=(0.9, 1.0))

    assert recommended(values, QUALITY_AND_TIME) == {"best": ("quality", "seconds", BALANCED)}


def test_of_equally_good_ones_the_one_that_gives_up_less_elsewhere_is_named() -> None:
    directions = {"quality": "higher", "seconds": "lower", "bytes": "lower"}
    values = pd.DataFrame(
        {"quality": [0.9, 0.9, 0.5], "seconds": [2.0, 1.5, 1.0], "bytes": [1.0, 2.0, 3.0]}, index=["a", "b", "c"]
    )
    # a is the worst in seconds, c in quality and bytes; b gives up half of the seconds and half of the bytes.

    assert recommended(values, directions) == {"a": ("bytes",), "b": ("quality", BALANCED), "c": ("seconds",)}


def test_rows_keep_their_labels() -> None:
    values = settings(a=(0.5, 2.0), b=(0.9, 1.0)).set_axis([("pico", 1), ("nano", 1)])

    assert front(values, QUALITY_AND_TIME).to_dict() == {("pico", 1): False, ("nano", 1): True}
    assert list(recommended(values, QUALITY_AND_TIME)) == [("nano", 1)]
