"""Interleaved pairs: the one way speed is measured here."""

import statistics
from collections.abc import Callable
from time import perf_counter

import pytest


@pytest.fixture
def paired(benchmark, capsys) -> Callable[[Callable[[], None], Callable[[], None], int], float]:
    """Run `ours` and `theirs` in turn; returns the median of ours/theirs, which is also kept with the benchmark."""

    def measure(ours: Callable[[], None], theirs: Callable[[], None], rounds: int) -> float:
        ours()
        theirs()
        their_seconds: list[float] = []

        def before_each_round() -> None:
            start = perf_counter()
            theirs()
            their_seconds.append(perf_counter() - start)

        benchmark.pedantic(ours, setup=before_each_round, rounds=rounds)
        ratios = [own / their for own, their in zip(benchmark.stats.stats.data, their_seconds, strict=True)]
        ratio = statistics.median(ratios)
        quarters = statistics.quantiles(ratios, n=4)
        benchmark.extra_info["median_ratio"] = ratio
        with capsys.disabled():
            print(
                f"\n{benchmark.name}: ratio {ratio:.3f} (quartiles {quarters[0]:.3f}–{quarters[2]:.3f}, {rounds} pairs)"
            )
        return ratio

    return measure
