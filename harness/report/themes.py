"""How charts look, light and dark: the one place with their colours. A spec names none, so that switching the theme is
giving it the other configuration.

The colours of series are those of Okabe and Ito (Color Universal Design, 2008), which people of every kind of colour
vision tell apart, made darker for a light background and lighter for a dark one until each has three times its
contrast (WCAG 2.2, 1.4.11); their yellow and black are left out where they would not show.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Theme = Literal["light", "dark"]
FONT = "system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', sans-serif"


def _config(text: str, quiet: str, grid: str, series: list[str]) -> dict[str, Any]:
    return {
        "background": "transparent",
        "font": FONT,
        "view": {"stroke": None},
        "padding": 4,
        "title": {"color": text, "fontSize": 14, "fontWeight": 600, "anchor": "start", "frame": "group", "offset": 10},
        "axis": {
            "labelColor": text,
            "titleColor": text,
            "labelFontSize": 11,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "gridColor": grid,
            "domainColor": quiet,
            "tickColor": quiet,
            "labelLimit": 150,
            "labelOverlap": True,
        },
        "axisX": {"grid": False},
        "axisY": {"domain": False, "ticks": False},
        "legend": {
            "orient": "bottom",
            "direction": "horizontal",
            "columns": 3,
            "layout": {"bottom": {"anchor": "start", "direction": "vertical", "margin": 6}},
            "labelColor": text,
            "titleColor": text,
            "labelFontSize": 11,
            "labelLimit": 160,
            "symbolLimit": 60,
            "symbolOpacity": 1,
            "symbolStrokeWidth": 2,
            "title": None,
        },
        "range": {"category": series, "ordinal": series},
        "line": {"strokeWidth": 2},
        "point": {"filled": True, "size": 50, "opacity": 1},
        "text": {"color": text, "fontSize": 11},
        "rule": {"color": quiet},
        "bar": {"discreteBandSize": {"band": 0.7}},
        "style": {"band": {"fillOpacity": 0.15}, "quiet": {"stroke": quiet, "color": quiet}},
    }


THEMES: Mapping[Theme, Mapping[str, Any]] = {
    "light": _config(
        "#1f2328", "#59636e", "#e4e7eb",
        ["#0072b2", "#d55e00", "#008862", "#b8588f", "#8f6a00", "#2f7fb5", "#7a4fb5", "#6b6b6b"],
    ),
    "dark": _config(
        "#e6edf3", "#9198a1", "#2f363d",
        ["#56b4e9", "#ff9248", "#2bc797", "#e293c4", "#f0e442", "#8ab0ff", "#c4a3f5", "#b0b0b0"],
    ),
}  # fmt: skip
"""For every theme the configuration of Vega-Lite: given beside a spec (vega-embed's `config`), or as its `config`."""
