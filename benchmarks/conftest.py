"""Interleaved pairs: the one way speed is measured here."""

import gc
import statistics
from collections.abc import Callable, Sequence
from time import perf_counter

import pytest

from harness.backends.open import open_backend
from harness.config.schema import ModelSpec

TEMPLATE_NOW = "2026-01-01T00:00:00"
MODELS = ("builtin:pico", "shape:llama-100m")
"""A model so small that everything but the model shows, and one whose layers take most of the time."""


def backend(model: str, **spec):
    """A loaded model, as a worker has one; `spec` are fields of its ModelSpec."""
    loaded = open_backend(
        ModelSpec(model=model, dtype="float32", **spec), chat_format="auto", template_now=TEMPLATE_NOW
    )
    gc.freeze()  # between turns only what came since is looked through for garbage
    return loaded


@pytest.fixture
def report(benchmark, capsys) -> Callable[..., float]:
    """Keep the ratios of pairs with the benchmark and print their median and quartiles; returns the median."""

    def keep(name: str, ratios: Sequence[float]) -> float:
        ratio = statistics.median(ratios)
        low, _, high = statistics.quantiles(ratios, n=4)
        benchmark.extra_info[name] = {"median": ratio, "quartiles": [low, high], "pairs": len(ratios)}
        with capsys.disabled():
            print(f"\n{benchmark.name}: {name} {ratio:.3f} (quartiles {low:.3f}–{high:.3f}, {len(ratios)} pairs)")
        return ratio

    return keep


@pytest.fixture
def paired(benchmark, report) -> Callable[..., float]:
    """Run `ours` and `theirs` in turn; returns the median of ours/theirs, which is also kept with the benchmark."""

    def measure(ours: Callable[[], object], theirs: Callable[[], object], rounds: int, name: str = "ratio") -> float:
        ours()
        theirs()
        their_seconds: list[float] = []

        def before_each_round() -> None:
            start = perf_counter()
            theirs()
            their_seconds.append(perf_counter() - start)

        benchmark.pedantic(ours, setup=before_each_round, rounds=rounds)
        return report(name, [own / their for own, their in zip(benchmark.stats.stats.data, their_seconds, strict=True)])

    return measure
