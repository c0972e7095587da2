"""`harness calibrate`: how much a machine's numbers differ though nothing changes."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import Results, Sets
from harness.cli.run import end_in_order

if TYPE_CHECKING:
    from harness.runner.messages import Progress, Watch

CANNOT_TELL = 4


def calibrate(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A run config, with a gate section or without.")],
    runs: Annotated[int, typer.Option("--runs", help="How often to repeat it; 20 tell the noise well.")] = 20,
    sets: Sets = None,
    results: Results = Path("results"),
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")] = False,
) -> None:
    """Repeat a config, and store what launches and runs differ by though nothing changed. The path is on stdout.

    The same command again goes on where it was stopped. Exit code 4: the noise is too large for some margin.
    """
    from harness.config.load import load_config
    from harness.config.plan import plan as planned
    from harness.runner.messages import WorkerStarted
    from harness.studies.calibrate import calibrate as measure

    def watch(number: int) -> Watch:
        def show(progress: Progress) -> None:
            if isinstance(progress, WorkerStarted) and not quiet:
                launch = f"launch {progress.launch + 1} of {progress.launches}"
                typer.echo(f"run {number} of {runs}: {progress.model}, {launch}", err=True)

        return show

    signal.signal(signal.SIGTERM, end_in_order)
    with _saying_how_to_go_on():
        found = measure(planned(load_config(config, sets or [])), results, runs, watch)
    if not quiet:
        from rich.console import Console

        from harness.report.floor import show as show_table

        show_table(found.calibration, found.resolutions, found.confirm_launches, Console(stderr=True))
    typer.echo(found.path)
    if not all(each.holds for each in found.resolutions):
        sys.exit(CANNOT_TELL)


@contextmanager
def _saying_how_to_go_on() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("stopped; the same command again goes on", err=True)
        sys.exit(130)
