"""The page of a history in headless Chromium: it is drawn, follows the theme, and nothing foreign acts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.analysis.history import read_history
from harness.analysis.trend import trend
from harness.report.page.trend import write_trend_page
from tests.simulated_nights import write_nights
from tests.test_page_in_browser import HOSTILE, chromium, opened  # noqa: F401 – fixtures


def test_the_trend_page_shows_lines_and_marks_and_runs_nothing_foreign(
    tmp_path: Path,
    opened: Callable[..., Any],  # noqa: F811
) -> None:
    history = read_history(write_nights(tmp_path / "history", 30, config_name=HOSTILE))
    page = opened(write_trend_page(trend(history), tmp_path / "trend.html"), color_scheme="dark")

    assert page.evaluate("window.pwned === undefined")
    assert HOSTILE in page.locator("h2").all_inner_texts()[1]
    assert page.locator("main img, main script").count() == 0
    first = page.locator("article.first").first
    assert "From night-026 on" in first.inner_text()
    assert "GPU driver: 575.1 → 580.2" in first.inner_text()
    first.locator(".turning a").first.click()
    line = page.locator("figure.line:target")
    assert line.locator("circle").count() == 30
    assert line.locator(".mark.bad line").bounding_box()["height"] > 50
    assert line.locator(".through").evaluate("path => getComputedStyle(path).stroke !== 'none'")
    red = "Number(getComputedStyle(document.body).backgroundColor.match(/[0-9.]+/g)[0])"
    assert page.evaluate(red) < 128
    page.locator("#theme").click()
    assert page.evaluate(red) > 128
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 794, "height": 1123})
    assert page.evaluate("document.documentElement.scrollWidth") == 794
    assert not page.locator(".top").is_visible()
