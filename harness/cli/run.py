"""`harness run`: play the cells of a config and report on them."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import (
    Concurrency,
    ConfigFile,
    DoSample,
    Lane,
    Launches,
    MaxLength,
    MaxNewTokens,
    Models,
    Prompts,
    Repeats,
    RepetitionPenalty,
    Results,
    Sets,
    Temperature,
    TopK,
    TopP,
    Variants,
    assignments_of,
    plan_of,
    sampling_assignments,
)

if TYPE_CHECKING:
    from harness.analysis.frames import Run

SOME_CELLS_FAILED = 6


def run(
    config: ConfigFile = None,
    model: Models = None,
    variants: Variants = None,
    prompts: Prompts = None,
    top_k: TopK = None,
    top_p: TopP = None,
    temperature: Temperature = None,
    repetition_penalty: RepetitionPenalty = None,
    max_length: MaxLength = None,
    max_new_tokens: MaxNewTokens = None,
    do_sample: DoSample = None,
    lane: Lane = None,
    repeats: Repeats = None,
    launches: Launches = None,
    concurrency: Concurrency = None,
    sets: Sets = None,
    results: Results = Path("results"),
    run_id: Annotated[str | None, typer.Option("--run-id", help="Name of the run; default: time and config.")] = None,
    resume: Annotated[Path | None, typer.Option("--resume", help="Go on with this run.")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Play failed conversations again.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no tables.")] = False,
) -> None:
    """Replay the conversations of a config to its models. The run's path is the last line on stdout.

    The same command again completes what a killed run left undone.
    """
    from harness.cli.progress import ProgressDisplay
    from harness.store import find_run, read_manifest
    from harness.studies.replay import replay, resolve

    sampling = sampling_assignments(
        top_k=top_k,
        top_p=top_p,
        temperature=temperature,
        repetition_penalty=repetition_penalty,
        max_length=max_length,
        max_new_tokens=max_new_tokens,
        do_sample=do_sample,
    )
    levels = None if concurrency is None else f"[{concurrency}]"
    listed = None if variants is None else f"[{variants}]"
    assignments = [
        *sampling,
        *assignments_of(sets, lane=lane, repeats=repeats, launches=launches, concurrency=levels, variants=listed),
    ]
    if resume is not None:
        resume = find_run(resume, results)
    if resume is not None and config is None and not model and not prompts:
        plan = resolve(read_manifest(resume)["config"], assignments)
    else:
        plan = plan_of(config, model, prompts, assignments)

    signal.signal(signal.SIGTERM, end_in_order)
    display = ProgressDisplay(plan, quiet=quiet)
    try:
        with display:
            played = replay(
                plan, results=results, run_id=run_id, resume=resume, retry_failed=retry_failed, watch=display.show
            )
    except KeyboardInterrupt:
        _say_how_to_go_on(display.path)
        sys.exit(130)
    except SystemExit:
        _say_how_to_go_on(display.path)
        raise
    if not quiet:
        _show(played)
    typer.echo(played.path)
    if (played.turns["state"] == "failed").any():
        sys.exit(SOME_CELLS_FAILED)


def _show(played: Run) -> None:
    from rich.console import Console

    from harness.report.terminal import show

    show(played, Console(stderr=True))


def end_in_order(signal_number: int, frame: object) -> None:
    """SIGTERM unwinds the stack, so that the worker is ended and the store is closed."""
    sys.exit(128 + signal_number)


def _say_how_to_go_on(path: Path | None) -> None:
    if path is not None:
        typer.echo(f"stopped; go on with: harness run --resume {path}", err=True)
