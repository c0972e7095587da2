"""`harness report`: the tables of finished or unfinished runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from harness.cli.options import Results

if TYPE_CHECKING:
    from harness.analysis.frames import Run


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Directories of runs, or their names.")],
    results: Results = Path("results"),
    output: Annotated[
        Literal["table", "markdown", "csv", "json"], typer.Option("--format", help="What to print on stdout.")
    ] = "table",
    charts: Annotated[
        Literal["svg", "png"] | None, typer.Option("--charts", help="Draw charts into each run, as files of this kind.")
    ] = None,
    table: Annotated[
        Literal["response", "length-limits"] | None,
        typer.Option(
            help="Print this table alone: what each setting does, or where max_length and the context bite. Without it "
            "csv and json hold the figures by setting."
        ),
    ] = None,
    html: Annotated[
        bool,
        typer.Option("--html", help="Print the path of report.html instead; of several runs, of one page about all."),
    ] = False,
    page: Annotated[Path | None, typer.Option("--output", help="Write the page of --html to this file.")] = None,
) -> None:
    """Print tables, and write report.md, report.html, summary.csv and turns.parquet into each run."""
    from rich.console import Console

    from harness.analysis.frames import load
    from harness.analysis.length_limit import length_limits
    from harness.analysis.response import response
    from harness.analysis.summary import by_setting
    from harness.analysis.tables import of_several
    from harness.errors import UsageError
    from harness.report.files import write_reports
    from harness.report.markdown import markdown
    from harness.report.response import ALONE
    from harness.report.terminal import show
    from harness.store import find_run

    if page is not None and not html:
        raise UsageError("--output", "says where a page is written", "add --html")
    loaded = [load(find_run(named, results)) for named in runs]
    for run in loaded:
        write_reports(run)
    if charts:
        from harness.report.pictures import FOLDER, write_pictures

        for run in loaded:
            drawn = write_pictures(run, charts)
            typer.echo(f"{len(drawn)} charts in {run.path / FOLDER}", err=True)
    if html:
        typer.echo(_page(loaded, page))
        return
    if output in ("csv", "json"):
        frame = {"response": response, "length-limits": length_limits}.get(table or "", by_setting)
        found = of_several(map(frame, loaded))
        text = found.to_csv(index=False) if output == "csv" else found.to_json(orient="records", indent=2) + "\n"
        typer.echo(text, nl=False)
        return
    for run in loaded:
        if output == "markdown":
            typer.echo(markdown(run) if table is None else "\n".join(ALONE[table].markdown(run)))
        elif table is None:
            show(run, Console())
        else:
            for each in ALONE[table].terminal(run):
                Console().print(each, "")


def _page(loaded: list[Run], page: Path | None) -> Path:
    """The page about these runs: where it was asked for, or in the first of them."""
    from harness.report.page.write import REPORT, REPORT_OF_SEVERAL, write_page

    if page is None and len(loaded) == 1:
        return loaded[0].path / REPORT  # it has just been written
    return write_page(loaded, page or loaded[0].path / REPORT_OF_SEVERAL)
