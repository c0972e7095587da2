"""What was run and where, in a line each: the same words on every kind of report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.analysis.frames import Run
from harness.report.units import memory


def matrix(run: Run) -> str:
    """How many of everything."""
    plan = run.plan
    parts = [
        several(len(plan["models"]), "model"),
        several(len(plan["samplings"]), "sampling"),
        several(len(plan["conversations"]), "conversation"),
        several(plan["repeats"], "repeat"),
        several(plan["launches"], "launch"),
    ]
    levels = plan.get("concurrency", [1])
    if len(levels) > 1:
        parts.append(f"{len(levels)} levels of concurrency")
    return " × ".join(parts) + f" = {len(run.turns)} turns"


def lane(run: Run) -> str:
    """The choices that change what the numbers mean."""
    random = [str(model["label"]) for model in run.plan["models"] if model.get("weights") == "random"]
    engines = sorted({str(model.get("engine")) for model in run.plan["models"]})
    caches = sorted({str(model.get("kv_cache")) for model in run.plan["models"]})
    levels = [str(level) for level in run.plan.get("concurrency", [1])]
    return " · ".join(
        [
            f"history: {run.plan['history']}",
            f"length: {run.plan['length']}",
            f"kv_cache: {', '.join(caches)}",
            f"engine: {', '.join(engines)}",
            *([f"concurrency: {', '.join(levels)}"] if levels != ["1"] else []),
            *([f"random weights: {', '.join(random)}"] if random else []),
        ]
    )


def machine(run: Run) -> str:
    """Where it ran."""
    environment: Mapping[str, Any] = run.manifest["environment"]
    gpus = [gpu["name"] for gpu in environment["gpus"]]
    return " · ".join(
        [
            *(f"{gpus.count(name)} × {name}" for name in dict.fromkeys(gpus)),
            f"{environment['cpu'] or 'unknown CPU'}, {environment['cpu_threads']} threads",
            *_used(run.manifest["launches"], environment["cpu_threads"]),
            memory(environment["memory_bytes"]),
            *_libraries(environment, run.manifest["launches"]),
        ]
    )


def _libraries(around: Mapping[str, Any], launches: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What the launches ran on, or where they do not say the command: models may name interpreters of their own."""
    told = [entry["environment"] for entry in launches if entry.get("environment")] or [around]
    for name in ("torch", "transformers"):
        versions = dict.fromkeys(str(each["libraries"][name]) for each in told if each["libraries"].get(name))
        if versions:
            yield f"{name} {' or '.join(versions)}"


def _used(launches: Sequence[Mapping[str, Any]], processors: int) -> list[str]:
    """How many threads the launches computed with, and on which processors where that was not all of them."""
    threads = dict.fromkeys(several(entry["threads"], "thread") for entry in launches if entry.get("threads"))
    kept_to = dict.fromkeys(
        ", ".join(map(str, entry["cpu_affinity"]))
        for entry in launches
        if entry.get("cpu_affinity") and len(entry["cpu_affinity"]) < processors
    )
    return [
        *([f"computing with {' or '.join(threads)}"] if threads else []),
        *([f"on processors {' or '.join(kept_to)} only"] if kept_to else []),
    ]


def several(n: int, what: str) -> str:
    """`1 launch`, `2 launches`."""
    plural = "es" if what.endswith("h") else "s"
    return f"{n} {what}{'' if n == 1 else plural}"
