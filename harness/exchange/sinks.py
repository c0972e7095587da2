"""Sinks: where the figures of a finished run can be sent. MLflow and trackio are built in, others are plug-ins.

A sink is one function. It is given a `Delivery`, does with it what its tracker wants, and says where it went:

    def send(delivery: Delivery) -> str: ...

A package of its own offers it under the entry point group `instruct_harness.sinks`:

    [project.entry-points."instruct_harness.sinks"]
    wall = "my_package:send"        # harness export RUN --to wall

Sinks see a run after it is stored, never while it is measured.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from harness.analysis.frames import Run
from harness.analysis.summary import by_setting
from harness.documents import did_you_mean
from harness.errors import HarnessError, UsageError
from harness.exchange.eval_results import revision

GROUP = "instruct_harness.sinks"
BUILT_IN = {
    name: EntryPoint(name, f"harness.exchange.{module}:send", GROUP)
    for name, module in (("mlflow", "to_mlflow"), ("trackio", "to_trackio"))
}
_ARTIFACTS = ("manifest.json", "report.md", "report.html", "summary.csv", "turns.parquet")
_OF_SPEC = ("model", "dtype", "attn_implementation", "engine", "kv_cache", "weights", "quantization")
_OF_PLAN = ("history", "length", "repeats", "launches", "seed")

Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Setting:
    """One model × sampling × level of concurrency: what was set, and the figures of `summary.by_setting`."""

    name: str
    params: Mapping[str, Value]
    metrics: Mapping[str, float]
    """Seconds, bytes, tokens and rates, under the names they have everywhere; what is absent is not there."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a sink is given of a run."""

    project: str
    """The experiment or project to send it to."""
    run_id: str
    tags: Mapping[str, str]
    """The run as a whole: versions, machine."""
    settings: tuple[Setting, ...]
    artifacts: tuple[Path, ...]
    """The manifest, and what `harness report` has written."""


class Sink(Protocol):
    """Sends a run somewhere and says where: a URL or a path. A HarnessError is told in one line, like any other."""

    def __call__(self, delivery: Delivery) -> str: ...


def send(run: Run, to: str, project: str) -> str:
    """Send a run to the sink of that name; returns where it went.

    Raises UsageError for an unknown sink or one whose package is missing, HarnessError with what the sink ran into.
    """
    sink = _sink(to)
    try:
        with redirect_stdout(sys.stderr):  # what trackers have to say is for people
            return sink(delivery(run, project))
    except HarnessError:
        raise
    except Exception as error:
        told = " ".join(str(error).split())[:300]
        raise HarnessError(f"sink {to}", f"failed: {type(error).__name__}: {told}") from error


def delivery(run: Run, project: str) -> Delivery:
    """The run as sinks are given it."""
    environment = run.manifest["environment"]
    libraries = environment["libraries"]
    return Delivery(
        project=project,
        run_id=run.run_id,
        tags={
            "harness_version": str(run.manifest["harness_version"]),
            "config_hash": str(run.manifest["config_hash"]),
            "cpu": str(environment["cpu"]),
            "gpus": ", ".join(gpu["name"] for gpu in environment["gpus"]),
            **{name: str(libraries[name]) for name in ("torch", "transformers") if libraries.get(name)},
        },
        settings=tuple(_setting(run, row) for row in by_setting(run).to_dict("records")),
        artifacts=tuple(run.path / name for name in _ARTIFACTS if (run.path / name).exists()),
    )


def _sink(name: str) -> Sink:
    plugged = {point.name: point for point in entry_points(group=GROUP)}
    known = {**plugged, **BUILT_IN}
    if name not in known:
        raise UsageError(f"--to {name}", "no such sink", did_you_mean(name, known))
    try:
        sink: Sink = known[name].load()
    except (ImportError, AttributeError) as error:
        raise UsageError(f"--to {name}", f"cannot be loaded: {error}", f"see {known[name].value}") from error
    return sink


def _setting(run: Run, row: Mapping[Any, Any]) -> Setting:
    spec = next(spec for spec in run.plan["models"] if spec["label"] == row["model"])
    parameters = next(each["parameters"] for each in run.plan["samplings"] if each["name"] == row["sampling"])
    params = {
        "label": row["model"],
        "sampling": row["sampling"],
        "concurrency": row["concurrency"],
        "revision": revision(run, row["model"]),
        **{name: spec.get(name) for name in _OF_SPEC},
        **{name: run.plan.get(name) for name in _OF_PLAN},
        **parameters,
    }
    level = f" · {row['concurrency']} at a time" if row["concurrency"] > 1 else ""
    return Setting(
        name=f"{row['model']} · {row['sampling']}{level}",
        params={name: _plain(value) for name, value in params.items() if value is not None},
        metrics={
            name: float(value)
            for name, value in row.items()
            if name != "concurrency" and not isinstance(value, str) and pd.notna(value)
        },
    )


def _plain(value: Any) -> Value:
    return value if isinstance(value, (str, int, float, bool)) else str(value)
