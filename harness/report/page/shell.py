"""What every page is made with: our own files, an environment that escapes whatever is foreign, and a policy that lets
nothing run but what is in the page."""

from __future__ import annotations

import hashlib
import os
from base64 import b64encode
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from harness.report.units import printable

ANSWER_CLASSES = {"pass": "good", "regression": "bad", "suspicion": "doubt", "cannot tell": "doubt",
                  "some failed": "bad", "not comparable": "doubt", "not run": "doubt"}  # fmt: skip
"""Colours of verdicts; none for a night that nobody judged."""


def asset(name: str) -> Markup:
    """A file of this package."""
    return Markup((files("harness.report.page") / name).read_text(encoding="utf-8"))  # noqa: S704 – our own files


def policy(style: str, scripts: Sequence[str]) -> str:
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


def link(page: str | Path, folder: Path) -> str:
    """A page as it is linked to from a folder; ./ keeps a name with a colon from being read as a scheme."""
    return "./" + quote(Path(os.path.relpath(page, folder)).as_posix())


def _visible(value: Any) -> Any:
    """Foreign text with everything that does not show written out; the template escapes it afterwards."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


ENVIRONMENT = Environment(
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_visible,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
ENVIRONMENT.filters["json"] = json
