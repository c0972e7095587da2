"""The commands. The only room that prints or exits; every heavy import happens inside a command.

stdout is for machines (the path of a run, JSON, a transcript), stderr for people (progress, tables, notes).
Exit codes: 0 done or passed · 1 crash, or a meter that is wrong · 2 usage or config · 3 regression · 4 cannot tell, or
nothing to recommend · 5 not comparable · 6 some cells failed · 130 interrupted · 143 terminated.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from harness.cli import (
    bless,
    calibrate,
    chat,
    compare,
    export,
    gate,
    importing,
    init,
    models,
    nightly,
    plan,
    report,
    run,
    schema,
    score,
    selftest,
    trend,
    tune,
)
from harness.errors import HarnessError

app = typer.Typer(
    name="harness",
    help="Replay scripted conversations to instruct models: what they say, how fast, in how much memory.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("report")(report.report)
app.command("compare")(compare.compare)
app.command("gate")(gate.gate)
app.command("score")(score.score)
app.command("plan")(plan.plan)
app.command("chat")(chat.chat)
app.command("schema")(schema.schema)
app.add_typer(models.models, name="models")
app.command("init")(init.init)
app.command("import")(importing.convert)
app.command("export")(export.export)
app.command("selftest")(selftest.selftest)
app.command("tune")(tune.tune)
app.command("bless")(bless.bless)
app.command("calibrate")(calibrate.calibrate)
app.command("trend")(trend.trend)
app.command("nightly")(nightly.nightly)


def main(arguments: Sequence[str] | None = None) -> None:
    """The `harness` command: what goes wrong is one line per mistake on stderr and an exit code."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="harness")
    except HarnessError as error:
        print(error, file=sys.stderr)  # noqa: T201 – this room prints
        sys.exit(error.exit_code)
    except BrokenPipeError:  # `harness report | head` is not a mistake
        sys.stderr.close()
        sys.exit(0)
