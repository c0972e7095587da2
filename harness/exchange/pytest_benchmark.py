"""A run as pytest-benchmark saves its own, so that `pytest-benchmark compare` and its histograms show it.

A *benchmark* there is the same work, measured several times, in seconds, where less is better. Here that is one metric
of one turn of one conversation under one setting; its *rounds* are the repeats and launches of that turn. Metrics that
are no times have no place in the format, and pytest-benchmark pairs nothing: for a judgement there is `harness gate`.

The statistics are those that pytest-benchmark writes and reads back: the standard deviation over n − 1, the quartiles
as it computes them (medians of the halves of an even number of values, method 3 of the usual list for an odd one).
"""

from __future__ import annotations

import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from harness.analysis.frames import Run
from harness.documents import did_you_mean
from harness.errors import UsageError
from harness.metrics import METRICS

LATENCIES = ("ttft_s", "tpot_s", "e2e_s")
_WORK = ["model", "sampling", "concurrency", "conversation_id", "turn_index"]
"""What makes two turns of a run the same work, repeats and launches of it."""


def benchmarks(run: Run, metrics: Sequence[str] = LATENCIES) -> dict[str, Any]:
    """The run as the content of a file in pytest-benchmark's storage.

    Only turns that were answered have times; how many of a benchmark's turns were not is in its `extra_info`. Raises
    UsageError for a metric that is no time, and where no turn has a time at all.
    """
    for name in metrics:
        check_time(name)
    found = [
        _benchmark(run, metric, place, turns[metric].dropna().tolist(), int((turns["state"] != "done").sum()))
        for place, turns in run.turns.groupby(_WORK, sort=False, observed=True)
        for metric in metrics
        if turns[metric].notna().any()
    ]
    if not found:
        raise UsageError(run.run_id, f"has no turn with {', '.join(metrics)}", "see what failed: harness report")
    return {
        "machine_info": _machine(run.manifest["environment"]),
        "commit_info": _commit(run.manifest["environment"].get("git_commit")),
        "benchmarks": found,
        "datetime": str(run.manifest["created_at"]),
        "version": f"instruct-harness {run.manifest['harness_version']}",
    }


def is_a_time(name: str) -> bool:
    """Whether a metric is in seconds and less of it is better: all that pytest-benchmark can compare."""
    metric = METRICS.get(name)
    return metric is not None and (metric.unit, metric.direction) == ("s", "lower")


def times() -> list[str]:
    """The metrics that can be exported."""
    return [name for name in METRICS if is_a_time(name)]


def check_time(name: str) -> None:
    """Raises UsageError for a metric that pytest-benchmark cannot compare."""
    if not is_a_time(name):
        why = "is not in seconds, the one unit of pytest-benchmark" if name in METRICS else "is no metric"
        raise UsageError(name, why, did_you_mean(name, times()) or f"take some of {', '.join(times())}")


def _benchmark(run: Run, metric: str, place: Any, samples: Sequence[float], unanswered: int) -> dict[str, Any]:
    model, sampling, concurrency, conversation, turn = place
    level = f" at {concurrency}" if concurrency > 1 else ""
    setting = f"{model} {sampling}{level}"
    return {
        "group": f"{metric} {setting}",
        "name": f"{metric}[{setting} {conversation} {turn}]",
        "fullname": f"{metric}[{setting} {conversation} {turn}]",
        "params": {
            "metric": metric,
            "model": model,
            "sampling": sampling,
            "concurrency": int(concurrency),
            "conversation_id": conversation,
            "turn_index": int(turn),
        },
        "param": f"{setting} {conversation} {turn}",
        "extra_info": {"run_id": run.run_id, "unanswered_turns": unanswered},
        "options": {"timer": "instruct-harness"},
        "stats": stats(samples),
    }


def stats(samples: Sequence[float]) -> dict[str, Any]:
    """pytest-benchmark's statistics of one or more values in seconds, under its names."""
    ordered = sorted(samples)
    low, high = _quartiles(ordered)
    mean, spread, fence = statistics.mean(ordered), statistics.stdev(ordered) if len(ordered) > 1 else 0, high - low
    far = sum(not mean - spread <= value <= mean + spread for value in ordered)
    farther = sum(not low - 1.5 * fence <= value <= high + 1.5 * fence for value in ordered)
    total = sum(samples)
    return {
        "min": ordered[0],
        "max": ordered[-1],
        "mean": mean,
        "stddev": spread,
        "rounds": len(ordered),
        "median": statistics.median(ordered),
        "iqr": fence,
        "q1": low,
        "q3": high,
        "iqr_outliers": farther,
        "stddev_outliers": far,
        "outliers": f"{far};{farther}",
        "ld15iqr": ordered[bisect_left(ordered, low - 1.5 * fence)],
        "hd15iqr": ordered[bisect_right(ordered, high + 1.5 * fence) - 1],
        "ops": len(ordered) / total if total else 0,
        "total": total,
        "data": list(samples),
        "iterations": 1,
    }


def _quartiles(ordered: Sequence[float]) -> tuple[float, float]:
    n, rest = divmod(len(ordered), 4)
    if len(ordered) == 1:
        return ordered[0], ordered[0]
    if rest in (0, 2):
        half = len(ordered) // 2
        return statistics.median(ordered[:half]), statistics.median(ordered[half:])
    if rest == 1:
        return (
            0.25 * ordered[n - 1] + 0.75 * ordered[n],
            0.75 * ordered[3 * n] + 0.25 * ordered[3 * n + 1],
        )
    return (
        0.75 * ordered[n] + 0.25 * ordered[n + 1],
        0.25 * ordered[3 * n + 1] + 0.75 * ordered[3 * n + 2],
    )


def _machine(environment: Mapping[str, Any]) -> dict[str, Any]:
    """What pytest-benchmark holds of a machine, as far as the run knows it, and its accelerators."""
    return {
        "node": environment["host"],
        "system": environment["os"],
        "python_version": environment["python"],
        "cpu": {"brand_raw": environment["cpu"], "count": environment["cpu_threads"]},
        "gpus": environment["gpus"],
        "gpu_driver": environment["gpu_driver"],
        "libraries": environment["libraries"],
    }


def _commit(git_commit: str | None) -> dict[str, Any]:
    """The commit the run was started in; a `+` at its end says that the tree differed from it."""
    return {"id": (git_commit or "unversioned").removesuffix("+"), "dirty": bool(git_commit and "+" in git_commit)}
