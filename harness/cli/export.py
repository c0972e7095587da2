"""`harness export`: the tables of a run in other formats, results for the Hub, figures for a tracker, benchmarks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from harness.cli.options import Results

if TYPE_CHECKING:
    from harness.analysis.frames import Run

_FORMATS = Literal["csv", "json", "jsonl", "markdown", "latex", "parquet", "eval-results"]
_TABLES = Literal["turns", "by_setting", "by_turn", "by_conversation", "launches"]


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run, or its name.")],
    results: Results = Path("results"),
    format: Annotated[_FORMATS, typer.Option("--format", "-f", help="How to write it.")] = "csv",  # noqa: A002
    table: Annotated[_TABLES, typer.Option("--table", "-t", help="Which table.")] = "by_setting",
    columns: Annotated[
        str | None, typer.Option(help="Only these columns: model,ttft_s_p50,checks_rate; of pytest-benchmark: metrics.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file instead of stdout; a directory for eval-results.")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="CSV: leave alone what a spreadsheet would compute.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    dataset: Annotated[str | None, typer.Option(help="eval-results: the data set on the Hub, ORG/NAME.")] = None,
    task: Annotated[str, typer.Option(help="eval-results: the task of that data set.")] = "default",
    to: Annotated[
        str | None,
        typer.Option(
            help="Send it to mlflow, trackio or the sink of a plug-in instead; pytest-benchmark: as a file for that."
        ),
    ] = None,
    project: Annotated[str, typer.Option(help="With --to: the experiment or project.")] = "instruct-harness",
) -> None:
    """Write a table of a run to stdout or a file, or send its figures to a tracker."""
    from harness.analysis.frames import load
    from harness.store import find_run

    loaded = load(find_run(run, results))
    if to == "pytest-benchmark":
        _pytest_benchmark(loaded, columns, output, force=force)
    elif to is not None:
        from harness.exchange.sinks import send

        typer.echo(send(loaded, to, project))
    elif format == "eval-results":
        _eval_results(loaded, dataset, task, output, force=force)
    else:
        _table(loaded, table, _names(columns), format, output, raw=raw, force=force)


def _names(columns: str | None) -> list[str]:
    return [name.strip() for name in columns.split(",")] if columns else []


def _table(
    run: Run,
    name: _TABLES,
    columns: list[str],
    format: Literal["csv", "json", "jsonl", "markdown", "latex", "parquet"],  # noqa: A002
    output: Path | None,
    *,
    raw: bool,
    force: bool,
) -> None:
    from harness.documents import new_file
    from harness.errors import UsageError
    from harness.exchange.formats import write
    from harness.exchange.tables import table_of

    if output is None and format == "parquet":
        raise UsageError("--format parquet", "is no text for a terminal", "name a file with -o")
    frame = table_of(run, name, columns)
    if output is None:
        write(frame, format, sys.stdout.buffer, raw=raw)
        sys.stdout.buffer.flush()
        return
    with new_file(output, force=force) as file:
        write(frame, format, file, raw=raw)
    typer.echo(output)


def _eval_results(run: Run, dataset: str | None, task: str, output: Path | None, *, force: bool) -> None:
    from harness.documents import new_file
    from harness.errors import UsageError
    from harness.exchange.eval_results import eval_results

    if dataset is None:
        raise UsageError("--format eval-results", "needs --dataset", "name the data set on the Hub that was played")
    found = eval_results(run, dataset, task)
    if output is None and len(found) > 1:
        raise UsageError(
            "--format eval-results", f"writes {len(found)} files, one per setting", "name a directory with -o"
        )
    for result in found:
        if output is None:
            typer.echo(result.text, nl=False)
            continue
        path = output / result.path
        with new_file(path, force=force) as file:
            file.write(result.text.encode())
        typer.echo(path)


def _pytest_benchmark(run: Run, columns: str | None, output: Path | None, *, force: bool) -> None:
    import orjson

    from harness.documents import new_file
    from harness.exchange.pytest_benchmark import LATENCIES, benchmarks

    text = orjson.dumps(benchmarks(run, _names(columns) or LATENCIES), option=orjson.OPT_INDENT_2) + b"\n"
    if output is None:
        typer.echo(text, nl=False)
        return
    with new_file(output, force=force) as file:
        file.write(text)
    typer.echo(output)
