"""`harness gate`: a run held against the nights before it, by rules."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from harness.cli.options import Results

if TYPE_CHECKING:
    from harness.analysis.frames import Run
    from harness.analysis.gating.measured import Floors
    from harness.config.rules import Gating


def gate(
    candidate: Annotated[Path, typer.Argument(metavar="CANDIDATE", help="The run to judge: its directory, its name, or "
                                              "a night file.")],
    baseline: Annotated[list[Path], typer.Option("--baseline", "-b", help="A run, a night file, or a folder of night "
                                                 "files it is held against. Repeat it for several.")],
    config: Annotated[Path | None, typer.Option("--config", help="Judge by the gate section of this config; default: "
                                                "that of the run itself.")] = None,
    confirm: Annotated[list[Path] | None, typer.Option("--confirm", help="A run of further launches of what was "
                                                       "suspicious.")] = None,
    floor: Annotated[Path | None, typer.Option("--floor", help="The floor.json of harness calibrate; default: the one "
                                               "in a folder given as baseline.")] = None,
    results: Results = Path("results"),
    output: Annotated[Literal["text", "json", "markdown"], typer.Option("--format", help="What to print on stdout: a "
                                                                        "line per verdict, verdict.json, or a page.")
                      ] = "text",
    strict: Annotated[bool, typer.Option("--strict", help="Also what is only suspect – a driver, a version – makes "
                                         "numbers incomparable.")] = False,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write verdict.json there.")] = None,
    junit: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML there.")] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write the page of the night there: "
                                              "verdicts, and what was said otherwise.")] = None,
    github: Annotated[bool, typer.Option("--github", help="Annotations and a summary also outside GitHub Actions.")
                      ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No table.")] = False,
) -> None:  # fmt: skip
    """Say whether a run is worse than the nights before it. stdout is for programs; the table goes to stderr.

    Exit codes: 0 pass · 2 usage · 3 regression · 4 cannot tell · 5 not comparable · 6 some turns failed.
    """
    from rich.console import Console

    from harness.analysis.frames import load
    from harness.analysis.gate import gate as judge
    from harness.errors import StoreError
    from harness.exchange.publish import publish
    from harness.exchange.verdict_json import verdict_json
    from harness.report.gate import show
    from harness.report.gate_markdown import gate_markdown
    from harness.report.page.night import write_night_page
    from harness.report.units import printable

    run = _one(candidate, results)
    rules = _rules(run, config)
    window = [load(path) for named in baseline for path in _nights(named, results)]
    judged = judge(
        run, window, rules, _floors(run, floor, baseline, rules),
        confirm=[_one(named, results) for named in confirm or []], strict=strict,
    )  # fmt: skip
    if not quiet:
        show(judged, Console(stderr=True))
    if output == "json":
        typer.echo(verdict_json(judged), nl=False)
    elif output == "markdown":
        typer.echo(gate_markdown(judged), nl=False)
    else:
        for verdict in judged.verdicts:
            typer.echo(" ".join(printable(verdict.sentence).split()))
    told = publish(judged, None, json=json, junit=junit, github=github or None)
    problems = list(told.problems)
    if html is not None:
        try:
            write_night_page(judged, html)
        except StoreError as error:  # the verdict stays what it is
            problems.append(error)
    for line in (*told.annotations, *map(str, problems)):
        typer.echo(printable(line), err=True)
    sys.exit(judged.exit_code or (problems[0].exit_code if problems else 0))


def _floors(candidate: Run, named: Path | None, baselines: list[Path], rules: Gating) -> Floors:
    """What a calibration knows of the noise: of the file named, or of the one beside the window."""
    from harness.analysis.floor import FLOOR, read_floor
    from harness.errors import StoreError

    for path in [folder / FLOOR for folder in baselines] if named is None else [named]:
        found = read_floor(path)
        if found is not None:
            found.must_be_of(candidate)
            return found.floors(rules)
    if named is not None:
        raise StoreError(str(named), "there is no such file", "make one: harness calibrate CONFIG")
    return lambda rule, cell: None


def _one(named: Path, results: Path) -> Run:
    """A single run."""
    from harness.analysis.frames import load
    from harness.errors import UsageError

    paths = _nights(named, results)
    if len(paths) > 1:
        raise UsageError(str(named), f"holds {len(paths)} night files, and one run is judged", "name one of them")
    return load(paths[0])


def _nights(named: Path, results: Path) -> list[Path]:
    """The run of a directory or a name, a night file, or all of a folder; oldest first."""
    from harness.analysis.nights import find_nights
    from harness.errors import StoreError
    from harness.store import MANIFEST, find_run

    path = find_run(named, results)
    if (path / MANIFEST).exists() or not path.is_dir():
        return [path]
    nights = find_nights(path)
    if not nights:
        raise StoreError(str(path), "is neither a run nor a folder of night files", "give what harness run printed")
    return nights


def _rules(run: Run, config: Path | None) -> Gating:
    from harness.config.load import load_config
    from harness.config.rules import Gating
    from harness.documents import document_of, fit
    from harness.errors import DocumentError, UsageError

    if config is not None:
        found = load_config(config).gate
        if found is None:
            raise UsageError(str(config), "has no gate section", "write rules into it: docs/gate.md")
        return found
    given = run.manifest["config"].get("gate")
    if given is None:
        raise UsageError(run.run_id, "its config has no gate section", "name a config that has one: --config FILE")
    rules, problems = fit(given, Gating)
    if rules is None:
        raise DocumentError(document_of(given, f"{run.run_id}: gate").mistakes(problems))
    return rules
