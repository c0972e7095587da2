"""The page of a night: what got worse comes first, what was said otherwise stands side by side, and nothing acts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.analysis.changed import changed_replies, turned_checks
from harness.analysis.frames import Run
from harness.analysis.gate import gate
from harness.analysis.nights import keep
from harness.analysis.verdict import Gate
from harness.cli import main
from harness.errors import StoreError
from harness.report.page.night import night_page, write_night_page
from harness.studies.unheld import unheld
from tests import test_text_verdicts as forced
from tests.builders import checks
from tests.nights import again, night, rules, usual
from tests.test_page_in_browser import HOSTILE, chromium, opened  # noqa: F401 – fixtures

RULES = {"tpot_s": "+5%", "checks": "exact", "failures": 0}
WINDOW = (0.0, 0.004, -0.003, 0.001)
NIGHT = {
    "preflight": [{"about": "clocks", "level": "warning", "line": "held down by heat"}],
    "budget_s": 2700,
    "cut": True,
}


class Page(HTMLParser):
    """What a reader sees of a page, and which elements it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self._silent = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name == "href" and value and value.startswith(".")]
        self._silent += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        self.text += "" if self._silent else data


def said(text: str, *, met: bool) -> Any:
    """Turns like in any other night, but that of poem, which is answered so."""

    def make(cell: Any, index: int) -> Any:
        if cell.conversation_id != "poem":
            return usual(cell, index)
        return usual(cell, index, reply=text, checks=checks(met))

    return make


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def base(results: Path) -> Run:
    return night(results, 0, kept={"config": {"gate": {"rules": RULES}}})


@pytest.fixture(scope="module")
def judged(results: Path, base: Run) -> Gate:
    """A check was lost, and with it what was said; speed is as ever, and the machine had another driver."""
    window = [again(base, number, log) for number, log in enumerate(WINDOW, start=1)]
    tonight = night(results, 20, said("The study of matter and more.", met=False), kept={"night": NIGHT})
    environment = {**tonight.manifest["environment"], "host": "elsewhere"}
    tonight = replace(tonight, manifest={**tonight.manifest, "environment": environment})
    return gate(tonight, window, rules(**RULES))


def test_what_got_worse_comes_first_and_every_verdict_is_there(judged: Gate) -> None:
    text = Page(night_page(judged, judged.candidate.path)).text.split("Theme")[1]  # behind the links to the sections

    assert judged.answer == "regression"
    assert "Regression: night-20" in text
    assert "Regression against 4 nights, night-01 to night-04 (1 regression, 2 pass)" in text
    assert text.index("What got worse") < text.index("checks: exact") < text.index("What passed")
    for verdict in judged.verdicts:
        assert verdict.rule in text
        assert verdict.reason in text
    assert text.index("tpot_s: +5%") > text.index("What passed")


def test_what_the_night_went_through_is_told(judged: Gate) -> None:
    text = Page(night_page(judged, judged.candidate.path)).text

    assert "held down by heat" in text
    assert "45.0 min: it did not suffice" in text
    assert "night-01, night-02, night-03, night-04" in text
    assert "testbench" in text
    assert "elsewhere" in text
    for row in judged.ledger.to_dict("records"):
        assert row["field"] in text


def test_replies_and_lost_checks_stand_side_by_side_where_they_part(judged: Gate) -> None:
    page = night_page(judged, judged.candidate.path)

    replies, turned = changed_replies(judged), turned_checks(judged)
    assert list(zip(replies["conversation_id"], replies["turn_index"], replies["kind"], strict=True)) == [
        ("poem", 0, "open"),
        ("poem", 1, "open"),
    ]
    assert set(replies["baseline_run"]) == {"night-04"}
    assert {*replies["common"], *turned["common"]} == {len("The study of ")}
    assert set(turned["change"]) == {"lost"}
    assert page.count('The study of <mark class="fork">motion.</mark></div>') == 4
    assert page.count('The study of <mark class="fork">matter</mark> and more.</div>') == 4


def test_a_near_tie_is_told_apart_from_a_change_with_margins(tmp_path: Path) -> None:
    far = {**forced.FLIPPED, "ids": (8, 6, 7, 2), "logprobs": (-2.5, -1.0, -0.25, -0.1)}
    before = forced.night(tmp_path, "before")
    own = {("a", 0): forced.FLIPPED, ("a", 1): {"ids": (1,), "prompt_hash": "other", "logprobs": (-1.0,)}}
    of = {"before": {("a", 0): {}, ("b", 0): {}}}
    texts = {("a", 0): "It is force.", ("b", 0): "Heat."}
    after = forced.night(tmp_path, "after", own={**own, ("b", 0): far}, of=of, texts=texts)
    judged = gate(after, [before], rules(text="divergence"))

    found = changed_replies(judged)
    assert list(zip(found["conversation_id"], found["turn_index"], found["kind"], strict=True)) == [
        ("b", 0, "change"),
        ("a", 0, "near tie"),
        ("a", 1, "another prompt"),
    ]
    text = Page(night_page(judged, after.path)).text
    assert (
        "They part at token 1: before preferred its own by 0.00100 nats, tonight preferred its own by 0.00100" in text
    )
    assert "They part at token 0: before preferred its own by 2.00 nats, tonight preferred another by 2.00" in text


def test_sampled_replies_and_equal_ones_are_not_shown(results: Path, base: Run) -> None:
    same = gate(again(base, 21, 0.0), [base], rules(**RULES))
    assert changed_replies(same).empty
    assert "Replies that changed" not in night_page(same, results)

    drawn = {"samplings": {"hot": {"do_sample": True}}}
    monday, tuesday = (night(results, number, said(text, met=True), **drawn) for number, text in ((30, "A"), (31, "B")))
    assert changed_replies(gate(tuesday, [monday], rules(failures=0))).empty


def test_a_first_night_and_a_slow_one_have_pages_too(results: Path, base: Run) -> None:
    first = unheld(base, rules(tpot_s="+5%"), "a-device", ())
    text = Page(night_page(first, results)).text
    assert "Cannot tell against no baseline" in text
    assert "What is not decided" in text

    window = [again(base, number, log) for number, log in enumerate(WINDOW, start=1)]
    slow, more = (again(base, number, np.log(1.2)) for number in (20, 21))
    text = Page(night_page(gate(slow, window, rules(**RULES), confirm=[more]), results)).text
    assert "+19.9 %" in text
    assert "confirmed by night-21" in text


def test_a_page_links_to_the_pages_that_are_there(results: Path, judged: Gate, tmp_path: Path) -> None:
    run = judged.candidate.path
    assert Page(night_page(judged, run)).links == []
    assert Page(night_page(judged, run, trend=results / "trend.html")).links == ["./../trend.html"]

    (run / "report.html").write_text("")
    (results / "trend.html").write_text("")
    assert Page(night_page(judged, run)).links == ["./report.html", "./../trend.html"]
    path = write_night_page(judged, tmp_path / "a page.html")
    assert [(path.parent / link).resolve() for link in Page(path.read_text()).links] == [
        run / "report.html",
        results / "trend.html",
    ]
    with pytest.raises(StoreError, match="cannot be written"):
        write_night_page(judged, tmp_path / "nowhere" / "nightly.html")


def test_a_long_reply_is_cut_round_the_place_where_it_parts(results: Path, base: Run) -> None:
    long = "word " * 4_000
    monday, tuesday = (
        night(results, number, said(f"{long}{end} {long}", met=True)) for number, end in ((40, "one"), (41, "two"))
    )
    page = night_page(gate(tuesday, [monday], rules(failures=0)), results)

    assert '<mark class="fork">two</mark>' in page
    assert "19400 characters that both have" in page
    assert len(page) < 100_000


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Gate:
    """Whatever can be foreign is."""
    results = tmp_path_factory.mktemp("hostile")
    text = f"{HOSTILE} \x1b[31mred \u202eorder \x00 \u2066"
    of = {"models": [HOSTILE], "samplings": [f"<i>{HOSTILE}"], "conversations": {HOSTILE: 2}}

    def saying(what: str, *, met: bool) -> Any:
        failed = replace(checks(met)[0], check=HOSTILE, detail=HOSTILE)
        return lambda cell, index: usual(cell, index, user=text, reply=what + text, checks=(failed,))

    environment = {"host": HOSTILE, "gpu_driver": HOSTILE, "git_commit": HOSTILE, "cpu": HOSTILE}
    about = {
        "warnings": [HOSTILE],
        "night": {"preflight": [{"about": HOSTILE, "level": HOSTILE, "line": HOSTILE}], "budget_s": 60, "cut": False},
    }
    monday = night(results, 1, saying("a ", met=True), **of)
    tuesday = night(results, 2, saying("b ", met=False), kept=about, **of)
    manifest = {**tuesday.manifest, "environment": {**tuesday.manifest["environment"], **environment}}
    return gate(replace(tuesday, manifest=manifest), [monday], rules(**RULES))


def test_hostile_labels_and_replies_are_shown_and_are_no_elements(hostile: Gate, judged: Gate) -> None:
    page, harmless = night_page(hostile, hostile.candidate.path), night_page(judged, judged.candidate.path)

    assert set(Page(page).tags) <= {*Page(harmless).tags, "ul", "li"}
    assert Page(page).tags.count("script") == Page(harmless).tags.count("script") == 2
    assert HOSTILE in Page(page).text
    assert "\\x1b[31mred \\u202eorder \\x00 \\u2066" in page
    assert not {"\x1b", "\u202e", "\x00", "\u2066"} & set(page)
    assert "&lt;img src=x onerror=&#39;window.pwned=1&#39;&gt;" in page


def test_in_a_browser_nothing_foreign_runs_and_nothing_overflows(
    hostile: Gate,
    tmp_path: Path,
    opened: Callable[..., Any],  # noqa: F811
) -> None:
    page = opened(
        write_night_page(hostile, tmp_path / "nightly.html"),
        color_scheme="dark",
        viewport={"width": 390, "height": 844},
    )

    assert page.evaluate("window.pwned === undefined")
    assert page.locator("main img, main script, main i").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    left, right = (page.locator(f".pair .{side}").first.bounding_box() for side in ("left", "right"))
    assert right["y"] >= left["y"] + left["height"]
    assert HOSTILE in page.locator("#replies .reply").first.inner_text()
    red = "Number(getComputedStyle(document.body).backgroundColor.match(/[0-9.]+/g)[0])"
    assert page.evaluate(red) < 128
    page.locator("#theme").click()
    assert page.evaluate(red) > 128
    colour = "heading => getComputedStyle(heading).color"
    assert page.locator("h1 span").evaluate(colour) != page.locator("h1").evaluate(colour)
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 794, "height": 1123})
    assert page.evaluate("document.documentElement.scrollWidth") == 794
    assert not page.locator(".top").is_visible()


def test_the_command_writes_it(judged: Gate, base: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, log in enumerate(WINDOW, start=1):
        keep(again(base, number, log), tmp_path / "window" / f"{number}.parquet")
    tonight = keep(again(base, 20, 0.0), tmp_path / "tonight.parquet")

    page = tmp_path / "page.html"
    with pytest.raises(SystemExit) as ended:
        main(["gate", str(tonight), "-b", str(tmp_path / "window"), "--quiet", "--html", str(page)])

    assert (ended.value.code or 0) == 0
    assert "Pass: night-20" in Page(page.read_text(encoding="utf-8")).text
    assert capsys.readouterr().err == ""
