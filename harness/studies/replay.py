"""The plain study: run a config, then write the run's reports beside its records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config.load import load_config, parse_config
from harness.config.plan import Plan
from harness.config.plan import plan as make_plan
from harness.config.schema import RunConfig
from harness.runner.messages import Watch
from harness.runner.run import execute

if TYPE_CHECKING:
    from harness.analysis.frames import Run

Config = str | PathLike[str] | Mapping[str, Any] | RunConfig


def run(
    config: Config,
    *,
    overrides: Sequence[str] = (),
    results: str | PathLike[str] = "results",
    run_id: str | None = None,
    resume: str | PathLike[str] | None = None,
    retry_failed: bool = False,
    watch: Watch = lambda progress: None,
) -> Path:
    """Do what `harness run` does: play every missing cell, write the reports, return the run's directory.

    `config` is a file, a mapping of the same shape, or a `RunConfig`; `overrides` are assignments such as
    `"sampling.top_k=[1, 10]"`. Raises HarnessError with one line per mistake before any weight is loaded.
    """
    return replay(
        resolve(config, overrides),
        results=Path(results),
        run_id=run_id,
        resume=None if resume is None else Path(resume),
        retry_failed=retry_failed,
        watch=watch,
    ).path


def resolve(config: Config, overrides: Sequence[str] = ()) -> Plan:
    """The plan of a config in any of its forms; raises DocumentError with all its mistakes."""
    if isinstance(config, RunConfig):
        config = config.model_dump(mode="json")
    if isinstance(config, Mapping):
        return make_plan(parse_config(config, overrides=overrides))
    return make_plan(load_config(config, overrides))


def replay(
    plan: Plan, *, results: Path, run_id: str | None, resume: Path | None, retry_failed: bool, watch: Watch
) -> Run:
    """Play the plan, write the reports, return the run; pandas is imported only after the last turn was measured."""
    path = execute(plan, results=results, run_id=run_id, resume=resume, retry_failed=retry_failed, watch=watch)
    from harness.analysis.frames import load
    from harness.report.files import write_reports

    played = load(path)
    write_reports(played)
    return played
