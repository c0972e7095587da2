"""`harness score`: what was said, measured afterwards: from the text, by a judge, by votes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from harness.cli.options import Results

if TYPE_CHECKING:
    from harness.analysis.arrays import Axis
    from harness.analysis.frames import Run
    from harness.analysis.scoring.table import Scorer
    from harness.documents import Document
    from harness.studies.judging.ask import Judge, Judged

Say = Callable[[str], None]


def score(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Directories of runs, or their names.")],
    scorer: Annotated[
        list[str] | None, typer.Option("--scorer", help="Only these scorers of texts; several times for several.")
    ] = None,
    judge: Annotated[
        str | None, typer.Option("--judge", help="A model that judges: Hub id, directory, builtin:NAME, scripted:FILE.")
    ] = None,
    judge_set: Annotated[
        list[str] | None,
        typer.Option("--judge-set", help="How to load the judge, or how it generates: dtype=…, sampling.do_sample=…"),
    ] = None,
    trials: Annotated[
        int, typer.Option("--trials", min=1, help="Ask a sampling judge so often; the median counts.")
    ] = 1,
    pairs: Annotated[
        Literal["model", "sampling", "concurrency", "votes"] | None,
        typer.Option(
            "--pairs", help="Judge which of two is better, in both orders: along an axis, or what was voted on."
        ),
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", help="With --pairs: what the others are held against; default: the first.")
    ] = None,
    prompts: Annotated[
        list[Path] | None, typer.Option("--prompts", "-p", help="Rubrics from these files instead of the run's own.")
    ] = None,
    votes: Annotated[list[Path] | None, typer.Option("--votes", help="Votes that the report page saved.")] = None,
    voter: Annotated[str, typer.Option("--voter", help="Who cast the votes.")] = "anonymous",
    results: Results = Path("results"),
    output: Annotated[
        Literal["table", "csv", "json"],
        typer.Option("--format", help="What to print on stdout: means, or every score."),
    ] = "table",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Score the replies of stored runs, and print the scores. What is scored already is not scored again.

    csv and json have one row per score.
    """
    from harness.analysis.frames import load
    from harness.errors import UsageError
    from harness.report.files import write_reports
    from harness.store import find_run
    from harness.studies.judging.ask import judge_of
    from harness.studies.score import scorers_named
    from harness.studies.votes import read_votes

    if judge is None and (judge_set or pairs or base or prompts or trials > 1):
        raise UsageError("command line", "says how to judge, and not who judges", "name a judge: --judge MODEL")
    if base is not None and pairs in (None, "votes"):
        raise UsageError(f"--base {base}", "means nothing without an axis", "add --pairs model or --pairs sampling")
    texts = scorers_named(scorer or [])
    ballots = [read_votes(path) for path in votes or []]
    asked = None if judge is None else judge_of(judge, judge_set or [], trials)
    say = _silent if quiet else _say
    loaded = [load(find_run(named, results)) for named in runs]
    try:
        for run in loaded:
            _score_texts(run, texts, say)
            for ballot in ballots:
                _take(run, ballot, voter, say)
            if asked is not None:
                _judge(run, asked, pairs, base, prompts or [], say)
            write_reports(run)
    except KeyboardInterrupt:
        typer.echo("stopped; the same command again goes on", err=True)
        sys.exit(130)
    _show(loaded, output)


def _score_texts(run: Run, scorers: Sequence[Scorer], say: Say) -> None:
    from harness.studies.score import score

    done = score(run, scorers)
    for line in done.left_out:
        say(f"left out: {line}")
    say(f"{run.run_id}: {done.replies} replies, {done.scores} new scores")


def _take(run: Run, ballot: Document, voter: str, say: Say) -> None:
    from harness.studies.votes import take_votes

    taken = take_votes(run, ballot, voter)
    say(
        f"{run.run_id}: {taken.new} new votes of {voter}, {taken.there} known already"
        + (f", {taken.replaced} of the new ones in place of earlier ones" if taken.replaced else "")
        + (f", {taken.of_other_runs} of other runs left out" if taken.of_other_runs else "")
    )


def _judge(
    run: Run, judge: Judge, pairs: Axis | Literal["votes"] | None, base: str | None, prompts: Sequence[Path], say: Say
) -> None:
    from harness.analysis.sides import within
    from harness.studies.judging.ask import ask
    from harness.studies.judging.questions import about_pairs, about_replies, about_votes, rubrics_of

    rubrics = rubrics_of(run, prompts)
    if pairs is None:
        questions = about_replies(run, rubrics)
    elif pairs == "votes":
        questions = about_votes(run, rubrics)
    else:
        questions = about_pairs(run, rubrics, within(run, pairs, base))
    say(f"{run.run_id}: {judge.name} is asked …")
    judged = ask(run, judge, rubrics, questions, lambda so_far: _progress(so_far, say))
    without = f", {judged.no_verdict} without a verdict" if judged.no_verdict else ""
    say(f"{run.run_id}: {judged.answered} questions answered by {judge.name}{without}")


def _progress(judged: Judged, say: Say) -> None:
    """Ten lines at the most, however many questions there are."""
    tenth = max(1, judged.asked // 10)
    if judged.answered % tenth == 0 and judged.answered < judged.asked:
        say(f"{judged.answered}/{judged.asked}")


def _show(runs: Sequence[Run], output: Literal["table", "csv", "json"]) -> None:
    from rich.console import Console

    from harness.report.scores import listed, tables

    if output == "table":
        console = Console()
        for run in runs:
            console.print(run.run_id, style="bold", markup=False, highlight=False)
            for table in tables(run):
                console.print()
                console.print(table)
        return
    typer.echo(listed(runs, output), nl=False)


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _silent(text: str) -> None:
    """Says nothing."""
