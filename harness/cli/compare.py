"""`harness compare`: runs, models, samplings or levels set against each other."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from harness.cli.options import Results

if TYPE_CHECKING:
    from harness.analysis.compare import Comparison


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="BASE [CANDIDATE]...", help="Directories of runs, or their names.")
    ],
    results: Results = Path("results"),
    by: Annotated[
        Literal["model", "sampling", "concurrency"] | None,
        typer.Option("--by", help="Compare the models, samplings or levels of one run with each other."),
    ] = None,
    base: Annotated[str | None, typer.Option("--base", help="With --by: the baseline; the first if not given.")] = None,
    lane: Annotated[
        Literal["speed", "behaviour", "both"],
        typer.Option("--lane", help="speed: times, memory, loading. behaviour: replies and flips."),
    ] = "both",
    margin: Annotated[
        float, typer.Option("--margin", help="Too small to matter: 0.05 is 5 % of speed, 5 points of rates.")
    ] = 0.05,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse, with exit code 5, where numbers are not comparable.")
    ] = False,
    output: Annotated[
        Literal["table", "markdown", "json", "csv"], typer.Option("--format", help="What to print on stdout.")
    ] = "table",
) -> None:
    """Say what differs between sides, how surely, and what would tell: different, equivalent or cannot tell."""
    from rich.console import Console

    from harness.analysis.compare import compare as compare_runs
    from harness.report.comparison import show
    from harness.report.comparison_json import comparison_json
    from harness.report.comparison_markdown import comparison_markdown
    from harness.report.units import printable
    from harness.store import find_run

    found = compare_runs(*(find_run(named, results) for named in runs), by=by, base=base, lane=lane, margin=margin)
    if strict:
        _refuse(found)
    if output == "table":
        show(found, Console())
    elif output == "markdown":
        typer.echo(comparison_markdown(found), nl=False)
    elif output == "csv":
        typer.echo(found.rows.to_csv(index=False), nl=False)
    else:
        typer.echo(comparison_json(found))
    for note in () if output == "markdown" else found.notes:
        print(f"! {printable(note)}", file=sys.stderr)  # noqa: T201 – this room prints


def _refuse(found: Comparison) -> None:
    """Raise NotComparableError where something blocks: one line for each thing."""
    from harness.errors import Mistake, NotComparableError

    blockers = found.blockers
    if len(blockers):
        raise NotComparableError(
            [
                Mistake(
                    f"{row['baseline']}, {row['candidate']}",
                    f"not comparable: {row['field']} is {row['baseline_value']} and {row['candidate_value']}",
                    row["remark"] if isinstance(row["remark"], str) else "",
                )
                for row in blockers.drop(columns=["pair", "setting"]).drop_duplicates().to_dict("records")
            ]
        )
