"""`harness trend`: what nights measured, one after the other, and since when it is otherwise."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

HISTORY = Path("results/history")


def trend(
    folder: Annotated[Path, typer.Argument(metavar="[HISTORY_DIR]", help="The folder of the night files.")] = HISTORY,
    config: Annotated[str | None, typer.Option("--config", help="Only nights of the config of this name.")] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="Only nights on a device whose name holds this text.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="Only nights from this date on, or 90d before the newest.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric", help="What to show instead of what the rules name: ttft_s, e2e_s.p50, checks, failures."
        ),
    ] = None,
    output: Annotated[
        Literal["text", "json", "csv", "html"],
        typer.Option(
            "--format", help="What to print on stdout: change points, one a line; everything; all values; the page."
        ),
    ] = "text",
    html: Annotated[Path | None, typer.Option("--html", help="Write the page to this file.")] = None,
) -> None:
    """Show every gated figure over the nights, its change points, and what changed in the environment then."""
    from rich.console import Console

    from harness.analysis.history import read_history
    from harness.analysis.trend import trend as trend_of
    from harness.report.page.trend import trend_page, write_trend_page
    from harness.report.trend import show, trend_csv, trend_json, trend_text
    from harness.report.units import printable

    history = read_history(folder, config=config, device=device, since=since, figures=metric or ())
    found = trend_of(history)
    if len(history.nights):
        show(found, Console(stderr=True))
    else:
        print(f"{folder}: no nights{_of(config, device)} – harness nightly adds one", file=sys.stderr)  # noqa: T201
    for note in history.notes:
        print(f"! {printable(note)}", file=sys.stderr)  # noqa: T201 – this room prints
    if html is not None:
        write_trend_page(found, html)
    if output == "html":
        typer.echo(trend_page(found, Path()), nl=False)
    else:
        typer.echo({"text": trend_text, "json": trend_json, "csv": trend_csv}[output](found), nl=False)
    if html is not None and output == "text":
        typer.echo(html)


def _of(config: str | None, device: str | None) -> str:
    return (f" of {config}" if config else "") + (f" on {device}" if device else "")
