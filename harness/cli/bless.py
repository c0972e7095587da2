"""`harness bless`: take runs into the window that later nights are held against."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Results


def bless(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Runs, their names, or night files.")],
    results: Results = Path("results"),
    force: Annotated[
        bool, typer.Option("--force", help="Also a run that is red, or that the window has not judged.")
    ] = False,
    reason: Annotated[str | None, typer.Option("--reason", help="Why; kept in the file.")] = None,
    anew: Annotated[
        bool, typer.Option("--anew", help="Let the window begin with these: what is older counts no more.")
    ] = False,
    device: Annotated[
        str | None, typer.Option("--device", help="What the runs are of, where that is not this machine.")
    ] = None,
) -> None:
    """Bless runs: from now on nights are held against them, too. The files are the lines on stdout."""
    from harness.studies.bless import bless as take_in

    for path in take_in(runs, results, device=device, force=force, anew=anew, reason=reason):
        typer.echo(path)
