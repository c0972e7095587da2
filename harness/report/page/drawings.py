"""The charts as a page carries them: the library that draws them, once, and a specification each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from harness.analysis.frames import Run
from harness.errors import UsageError
from harness.report.charts import Chart, charts
from harness.report.pictures import converter


@dataclass(frozen=True, slots=True)
class Drawings:
    """The charts of a page, and what draws them."""

    library: str
    """JavaScript that defines vegaEmbed; empty where there is nothing to draw."""
    by_run: tuple[tuple[Chart, ...], ...]
    missing: str = ""
    """Why there are none: one line with what to do about it."""


def drawings(runs: Sequence[Run]) -> Drawings:
    """The charts of every run; none without the extra `charts`."""
    try:
        drawn = tuple(tuple(charts(run)) for run in runs)
        return Drawings(_library() if any(drawn) else "", drawn)
    except UsageError as error:
        return Drawings("", (), str(error))


def _library() -> str:
    """Vega, Vega-Lite and vega-embed as one script. Putting it together takes seconds, so it is remembered; where
    nothing can be remembered, it takes them every time."""
    convert = converter()
    kept = _memory_file(version("vl-convert-python"))
    if kept is not None and kept.exists():
        return kept.read_text(encoding="utf-8")
    # What could end the script element early stands in strings, where a backslash more changes nothing.
    script: str = convert.javascript_bundle().replace("</script", "<\\/script").replace("<!--", "<\\!--")
    if kept is not None:
        with suppress(OSError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            beside = kept.with_suffix(f".{os.getpid()}")
            beside.write_text(script, encoding="utf-8")
            beside.replace(kept)
    return script


def _memory_file(of: str) -> Path | None:
    """Where the library is remembered; None for a user without a home."""
    caches = os.environ.get("XDG_CACHE_HOME")
    with suppress(RuntimeError):
        return (Path(caches) if caches else Path.home() / ".cache") / "instruct-harness" / f"charts-{of}.js"
    return None
