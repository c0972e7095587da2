"""`harness tune`: look for the best setting of a model, within limits."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import Results, Sets
from harness.cli.run import SOME_CELLS_FAILED, end_in_order

if TYPE_CHECKING:
    from harness.config.study import StudyPlan

NOTHING_RECOMMENDED = 4


def tune(
    config: Annotated[Path | None, typer.Argument(metavar="[CONFIG]", help="A run config with a tune section.")] = None,
    sets: Sets = None,
    results: Results = Path("results"),
    run_id: Annotated[str | None, typer.Option("--run-id", help="Name of the study; default: time and config.")] = None,
    resume: Annotated[Path | None, typer.Option("--resume", help="Go on with this study.")] = None,
    write: Annotated[
        Path | None, typer.Option("--write", help="Also write the recommended setting to this file, as a config.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no tables.")] = False,
) -> None:
    """Choose among the settings of a config by its tune section. The study's path is the last line on stdout.

    The same command again completes what a killed study left undone.
    """
    from harness.analysis.tuning import Goals
    from harness.cli.tune_display import TuneDisplay
    from harness.report.tuning import verdict
    from harness.studies.tune import tune as carry_out
    from harness.studies.tune_files import may_write, write_copy

    if resume is not None and not resume.exists() and (results / resume).exists():
        resume = results / resume
    study = _study(config, resume, sets or [])
    if write is not None:
        may_write(write)
    signal.signal(signal.SIGTERM, end_in_order)
    goals = Goals(study.tune.objectives, study.tune.limits, study.tune.margin)
    display = TuneDisplay(goals, study.default.name, quiet=quiet)
    try:
        with display:
            tuned = carry_out(
                study, results=results, study_id=run_id, resume=resume, watch=display.show, tell=display.tell
            )
    except KeyboardInterrupt:
        _say_how_to_go_on(display.path)
        sys.exit(130)
    except SystemExit:
        _say_how_to_go_on(display.path)
        raise
    if write is not None and tuned.recommended is not None:
        write_copy(tuned, write)
    if not quiet:
        for line in verdict(tuned):
            typer.echo(line, err=True)
    typer.echo(tuned.path)
    if tuned.recommended is None:
        sys.exit(NOTHING_RECOMMENDED)
    if tuned.any_failed:
        sys.exit(SOME_CELLS_FAILED)


def _study(config: Path | None, resume: Path | None, sets: list[str]) -> StudyPlan:
    from harness.config.load import load_config, parse_config
    from harness.config.study import study_of
    from harness.errors import UsageError
    from harness.studies.tune import read_history

    if config is not None:
        return study_of(load_config(config, sets))
    if resume is None:
        raise UsageError("command line", "no config", "give a CONFIG with a tune section, or --resume a study")
    return study_of(parse_config(read_history(resume)["config"], source=str(resume), overrides=sets))


def _say_how_to_go_on(path: Path | None) -> None:
    if path is not None:
        typer.echo(f"stopped; go on with: harness tune --resume {path}", err=True)
