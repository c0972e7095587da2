"""Charts as files of their own, SVG or PNG, drawn without a browser. The only place that knows vl-convert."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from harness.analysis.frames import Run
from harness.errors import StoreError, UsageError
from harness.report.charts import Chart, charts
from harness.report.themes import THEMES, Theme

Format = Literal["svg", "png"]
FOLDER = "charts"
_WIDTH = 640
"""Pixels of the drawing, axes aside: what fits a page of A4 and a slide."""
_SCALE = 2
"""Pixels of a PNG for each of the drawing."""


def write_pictures(run: Run, form: Format) -> list[Path]:
    """Write every chart of a run to charts/NAME.svg or .png in its directory, and return the paths.

    Raises UsageError without the extra `charts`, and StoreError where the directory cannot be written to.
    """
    drawn = [(chart.name, picture(chart, form)) for chart in charts(run)]
    folder = run.path / FOLDER
    try:
        folder.mkdir(exist_ok=True)
        for name, content in drawn:
            (folder / f"{name}.{form}").write_bytes(content)
    except OSError as error:
        raise StoreError(
            str(folder), f"cannot be written: {error.strerror or error}", "report on a copy in a place that can"
        ) from error
    return [folder / f"{name}.{form}" for name, _ in drawn]


def picture(chart: Chart, form: Format, theme: Theme = "light") -> bytes:
    """A chart under its title, on a background of its own: nobody knows on what a file will lie.

    Raises UsageError without the extra `charts`.
    """
    convert = converter()
    background = {"light": "white", "dark": "#0d1117"}[theme]
    spec = {
        **chart.spec,
        "title": chart.title,
        "width": _WIDTH,
        "autosize": "pad",
        "background": background,
    }
    config = dict(THEMES[theme])
    if form == "svg":
        drawn: str = convert.vegalite_to_svg(spec, config=config)
        return drawn.encode()
    pixels: bytes = convert.vegalite_to_png(spec, config=config, scale=_SCALE)
    return pixels


def converter() -> Any:
    """vl-convert. Raises UsageError without the extra `charts`."""
    try:
        import vl_convert
    except ImportError:
        raise UsageError("charts", "vl-convert is not installed", "pip install 'instruct-harness[charts]'") from None
    return vl_convert
