"""The page is put together here: the template, the style and the scripts joined, and a policy that lets nothing else
run."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from harness.analysis.frames import Run
from harness.errors import StoreError
from harness.report.page.best import best
from harness.report.page.compared import compared
from harness.report.page.drawings import drawings
from harness.report.page.facts import effective, facts, loaded
from harness.report.page.packed import pack
from harness.report.page.tables import tables
from harness.report.themes import THEMES
from harness.report.units import printable

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
    style, theme = _asset("page.css"), _asset("theme.js")
    script = Markup("\n").join(_asset(name) for name in _SCRIPTS)
    drawn = drawings(runs)
    library = Markup(drawn.library)  # noqa: S704 – not foreign
    template = _ENVIRONMENT.from_string(_asset("page.html.j2"))
    yield from template.generate(
        title=runs[0].run_id if len(runs) == 1 else f"{len(runs)} runs",
        policy=_policy(style, [theme, script, *([library] if library else [])]),
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


def _asset(name: str) -> Markup:
    return Markup((files("harness.report.page") / name).read_text(encoding="utf-8"))  # noqa: S704 – our own files


def _policy(style: str, scripts: Sequence[str]) -> str:
    """Nothing is loaded from anywhere, and only these very scripts run."""
    allowed = " ".join(_hash(script) for script in scripts)
    return (
        f"default-src 'none'; script-src {allowed}; style-src {_hash(style)}; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )


def _hash(text: str) -> str:
    """As a Content-Security-Policy names an inline script or style (CSP level 3, §8.3)."""
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def json(value: Any) -> Markup:
    """A value as JSON inside a script element: what could end the element is written otherwise."""
    return Markup(orjson.dumps(value).decode().replace("<", "\\u003c"))  # noqa: S704 – no < is left in it


def _visible(value: Any) -> Any:
    """Foreign text with everything that does not show written out; the template escapes it afterwards."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


_ENVIRONMENT = Environment(
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_visible,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_ENVIRONMENT.filters["json"] = json
