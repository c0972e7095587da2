"""The page is put together here: the template, the style and the scripts joined, and a policy that lets nothing else
run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from markupsafe import Markup

from harness.analysis.frames import Run
from harness.errors import StoreError
from harness.report.page.best import best
from harness.report.page.compared import compared
from harness.report.page.drawings import drawings
from harness.report.page.facts import effective, facts, loaded
from harness.report.page.packed import pack
from harness.report.page.shell import ENVIRONMENT, asset, policy
from harness.report.page.tables import tables
from harness.report.themes import THEMES

REPORT = "report.html"
REPORT_OF_SEVERAL = "reports.html"
_SCRIPTS = ("dom.js", "tables.js", "data.js", "answers.js", "transcripts.js", "votes.js", "charts.js", "page.js")
"""Joined in this order into one module."""


def write_page(runs: Sequence[Run], path: Path) -> Path:
    """Write one page about these runs, and return its path. Raises StoreError where it cannot be written."""
    try:
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(page(runs))
    except OSError as error:
        raise StoreError(
            str(path), f"cannot be written: {error.strerror or error}", "name another file with --output"
        ) from error
    return path


def page(runs: Sequence[Run]) -> Iterator[str]:
    """The page, piece by piece."""
    style, theme = asset("page.css"), asset("theme.js")
    script = Markup("\n").join(asset(name) for name in _SCRIPTS)
    drawn = drawings(runs)
    library = Markup(drawn.library)  # noqa: S704 – not foreign
    template = ENVIRONMENT.from_string(asset("page.html.j2"))
    yield from template.generate(
        title=runs[0].run_id if len(runs) == 1 else f"{len(runs)} runs",
        policy=policy(style, [theme, script, *([library] if library else [])]),
        style=style,
        theme=theme,
        script=script,
        drawings=drawn,
        library=library,
        themes=THEMES,
        best=[best(run) for run in runs],
        runs=[facts(run) for run in runs],
        tables=list(tables(runs)),
        compared=compared(runs),
        settings=[each for each in (effective(runs), loaded(runs)) if each],
        transcripts=pack(runs),
        random=any(bool((run.turns["weights"] == "random").any()) for run in runs),
    )
