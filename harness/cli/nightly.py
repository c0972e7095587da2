"""`harness nightly`: play, judge, and tell, in one command for cron, GitHub Actions or Slurm."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import Results, Sets
from harness.cli.run import end_in_order

if TYPE_CHECKING:
    from harness.config.plan import Plan
    from harness.runner.messages import Watch
    from harness.studies.nightly import Night
    from harness.studies.preflight import Finding


def nightly(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A run config with a gate section.")],
    sets: Sets = None,
    results: Results = Path("results"),
    run_id: Annotated[str | None, typer.Option("--run-id", help="Name of the night; default: time and config.")] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", help="How long it may take, as 45min; instead of the config's own.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="End with 4, not with 0, where nobody can tell.")] = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Play also where the look at the machine says that nothing can be told.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no tables.")] = False,
) -> None:
    """Carry out a night. Its path is the last line on stdout; everything else goes to stderr.

    The same command again goes on with a night that was ended.

    Exit codes: 0 pass, or nobody can tell · 2 usage · 3 regression · 4 cannot tell (--strict), or nothing could be
    measured · 5 not comparable · 6 some turns failed.
    """
    from harness.studies.nightly import nightly as carry_out

    seconds, plan = _seconds(budget), _plan(config, sets or [])
    signal.signal(signal.SIGTERM, end_in_order)
    shown = _Shown(quiet=quiet)
    try:
        night = carry_out(
            plan,
            results=results,
            run_id=run_id,
            budget_s=seconds,
            anyway=anyway,
            playing=shown.playing,
            found=shown.findings,
        )
    except KeyboardInterrupt:
        shown.ended()
        sys.exit(130)
    except SystemExit:
        shown.ended()
        raise
    shown.judged(night, strict=strict)
    typer.echo(night.path)
    sys.exit(night.exit_code(strict=strict))


def _plan(config: Path, sets: Sequence[str]) -> Plan:
    from harness.config.load import load_config
    from harness.config.plan import plan

    return plan(load_config(config, sets))


def _seconds(budget: str | None) -> float | None:
    from harness.config.durations import seconds
    from harness.errors import UsageError

    try:
        return None if budget is None else seconds(budget)
    except ValueError as error:
        raise UsageError("--budget", str(error)) from None


class _Shown:
    """What is said on stderr."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet

    @contextmanager
    def playing(self, plan: Plan) -> Iterator[Watch]:
        from harness.cli.progress import ProgressDisplay

        with ProgressDisplay(plan, quiet=self._quiet) as display:
            yield display.show

    def findings(self, findings: Sequence[Finding]) -> None:
        for finding in findings:
            if finding.level != "ok" or not self._quiet:
                self._say(str(finding))

    def judged(self, night: Night, *, strict: bool) -> None:
        """The verdict, and what people have to know besides."""
        from rich.console import Console

        from harness.report.gate import headline, show

        if self._quiet:
            self._say(headline(night.gate))
        else:
            show(night.gate, Console(stderr=True))
        for line in (*night.annotations, *map(str, night.problems)):
            self._say(line)
        if night.cut:
            self._say("warning: the budget was spent, and not everything was run")
        if night.gate.answer == "cannot tell" and not strict:
            remedy = "" if night.gate.baseline else f"; when it is as it should be: harness bless {night.path}"
            self._say(f"warning: nobody can tell{remedy}")

    def ended(self) -> None:
        self._say("stopped; the same command goes on with this night")

    @staticmethod
    def _say(line: str) -> None:
        from harness.report.units import printable

        typer.echo(printable(line), err=True)
