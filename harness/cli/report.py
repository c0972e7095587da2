"""`harness report`: the tables of finished or unfinished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.cli.options import Results


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Directories of runs, or their names.")],
    results: Results = Path("results"),
    output: Annotated[
        Literal["table", "markdown", "csv", "json"], typer.Option("--format", help="What to print on stdout.")
    ] = "table",
    charts: Annotated[
        Literal["svg", "png"] | None, typer.Option("--charts", help="Draw charts into each run, as files of this kind.")
    ] = None,
) -> None:
    """Print tables, and write report.md, summary.csv and turns.parquet into each run."""
    from rich.console import Console

    from harness.analysis.frames import load
    from harness.analysis.summary import by_settings
    from harness.report.files import write_reports
    from harness.report.markdown import markdown
    from harness.report.terminal import show
    from harness.store import find_run

    loaded = [load(find_run(named, results)) for named in runs]
    for run in loaded:
        write_reports(run)
    if charts:
        from harness.report.pictures import FOLDER, write_pictures

        for run in loaded:
            drawn = write_pictures(run, charts)
            typer.echo(f"{len(drawn)} charts in {run.path / FOLDER}", err=True)
    if output == "table":
        for run in loaded:
            show(run, Console())
    elif output == "markdown":
        for run in loaded:
            typer.echo(markdown(run))
    else:
        table = by_settings(loaded)
        text = table.to_csv(index=False) if output == "csv" else table.to_json(orient="records", indent=2) + "\n"
        typer.echo(text, nl=False)
