"""The page in headless Chromium, opened from a file: what a reader does with it, and that nothing foreign acts."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import harness
from harness.records import CheckResult
from harness.report.page.write import write_page
from harness.studies.votes import read_votes
from tests.builders import cell, checks, every_turn, failed, plan, store, turn

HOSTILE = "</script><script>window.pwned=1</script><img src=x onerror='window.pwned=1'>"
READY = "html[data-ready]"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        assert not os.environ.get("CI"), "no Chromium on PATH: apt-get install chromium"
        pytest.skip("no Chromium on PATH: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])  # CI runs as root
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Open a page file; when the test ends, nothing may have been complained about or asked for."""
    contexts, complaints, requests = [], [], []

    def open_page(path: Path, address: str = "", **options: Any) -> Any:
        context = chromium.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        contexts.append(context)
        shown = context.new_page()
        shown.on("console", lambda message: complaints.append(message.text))
        shown.on("pageerror", lambda error: complaints.append(str(error)))
        shown.on("request", lambda request: requests.append(request.url))
        shown.goto(path.as_uri() + address)
        shown.wait_for_selector(READY, state="attached")
        return shown

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
    assert {url.partition(":")[0] for url in requests} <= {"file", "data", "blob"}
    assert len({url.partition("#")[0] for url in requests if url.startswith("file:")}) <= 1


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, two samplings, three conversations, two repeats; they differ in the second turn and one check."""

    def said(at, index):
        reply = f"Motion is what bodies do, says {at.model}." if index == 1 else "The study of motion."
        told = checks(not (at.model == "nano" and at.conversation_id == "optics" and index == 1))
        ttft_ms = 10 + 10 * (at.model == "nano") + index + at.repeat
        return turn(
            at, index, reply=reply, checks=told, ttft_ms=ttft_ms, gold="The study of motion." if index == 0 else None
        )

    of = plan(
        models=["pico", "nano"],
        samplings={"greedy": {"do_sample": False}, "top_k=50": {"do_sample": True, "top_k": 50}},
        conversations={"mechanics": 3, "optics": 2, "memory": 1},
        repeats=2,
    )
    results = tmp_path_factory.mktemp("results")
    return write_page([harness.load(store(results, every_turn(of, said), of))], results / "report.html")


def column(page: Any, table: str, header: str) -> list[str]:
    """The cells of a column as they stand, of the rows that are shown."""
    headers = page.locator(f"#table-{table} th").all_inner_texts()
    place = [text.strip() for text in headers].index(header) + 1
    return [
        text.strip()
        for text in page.locator(f"#table-{table} tbody tr:visible td:nth-child({place})").all_inner_texts()
    ]


def shown_models(page: Any, table: str = "turns") -> set[str]:
    return set(column(page, table, "model"))


def test_headers_sort_by_click_and_by_keyboard(report: Path, opened: Callable[..., Any]) -> None:
    page = opened(report)
    header = page.locator("#table-turns th", has_text="TTFT ms")

    header.locator("button").click()
    ascending = column(page, "turns", "TTFT ms")
    assert header.get_attribute("aria-sort") == "ascending"
    header.locator("button").focus()
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "descending"
    assert [float(text.split()[0]) for text in ascending] == sorted(float(text.split()[0]) for text in ascending)
    assert [text.split()[0] for text in column(page, "turns", "TTFT ms")] == [t.split()[0] for t in reversed(ascending)]
    page.locator("#table-turns th", has_text="model").locator("button").focus()
    page.keyboard.press("Space")
    assert column(page, "turns", "model") == sorted(column(page, "turns", "model"))
    assert header.get_attribute("aria-sort") == "none"


def test_tables_are_filtered_by_text_model_and_sampling(report: Path, opened: Callable[..., Any]) -> None:
    page = opened(report)
    page.select_option("#filter select[name=model]", "nano")
    assert shown_models(page) == {"nano"}
    page.select_option("#filter select[name=sampling]", "greedy")
    assert set(column(page, "turns", "sampling")) == {"greedy"}
    page.fill("#filter input", "OPTICS")
    assert set(column(page, "conversations", "conversation")) == {"optics"}
    assert page.locator("#filter output").inner_text().startswith("1 of ")
    page.fill("#filter input", "")
    page.select_option("#filter select[name=model]", "")
    page.select_option("#filter select[name=sampling]", "")
    assert shown_models(page) == {"pico", "nano"}


def test_long_tables_are_shown_a_hundred_rows_at_a_time(tmp_path: Path, opened: Callable[..., Any]) -> None:
    of = plan(conversations={f"talk-{n}": 1 for n in range(250)})
    page = opened(write_page([harness.load(store(tmp_path, every_turn(of), of))], tmp_path / "report.html"))

    assert page.locator("#table-conversations tbody tr:visible").count() == 100
    page.locator("#table-conversations .more").click()
    assert page.locator("#table-conversations tbody tr:visible").count() == 200
    page.fill("#filter input", "talk-249")
    assert column(page, "conversations", "conversation") == ["talk-249"]


def test_two_sides_show_where_they_part(report: Path, opened: Callable[..., Any]) -> None:
    page = opened(report)
    page.select_option("select[name=right-setting]", label="nano · greedy")

    verdict = page.locator("#verdict")
    assert verdict.inner_text() == "1 of 3 turns differ; the first difference is in turn 1, at character 32."
    turn_1 = page.locator("[data-turn='1']")
    assert turn_1.locator(".left mark").inner_text() == "pico."
    assert turn_1.locator(".right mark").inner_text() == "nano."
    assert turn_1.locator("h4 .badge").inner_text() == "first difference"
    assert page.locator("mark").count() == 2
    assert "TTFT 11 ms" in turn_1.locator(".left .facts").inner_text()
    assert "TTFT 21 ms" in turn_1.locator(".right .facts").inner_text()
    assert page.locator("[data-turn='0'] details.gold").count() == 1
    page.select_option("select[name=right-repeat]", "1")
    assert "TTFT 22 ms" in turn_1.locator(".right .facts").inner_text()
    assert turn_1.locator(".right h5").inner_text() == "nano · greedy · repeat 1"


def test_a_flip_is_one_click_away_and_shown_in_place(report: Path, opened: Callable[..., Any]) -> None:
    page = opened(report, "#talk=mechanics&left=0&right=2")
    assert (
        page.locator("#flips summary")
        .inner_text()
        .startswith("1 flip: checks that passed on one side only – 1 left, 0 right")
    )
    page.locator("#flips summary").click()
    page.locator("#flips .flip").click()

    flipped = page.locator("[data-turn='1'].wanted")
    flipped.wait_for()
    assert page.locator("select[name=talk]").evaluate("select => select.selectedOptions[0].text") == "optics"
    assert (
        flipped.locator(".right .failed").inner_text().replace("\xa0", " ").startswith("✗ contains: word0 – not there")
    )
    assert flipped.locator(".right .badge").inner_text() == "flip"
    assert flipped.evaluate("turn => turn === document.activeElement")
    assert "talk=optics" in page.url
    assert "turn=1" in page.url


def test_the_address_brings_the_choice_back(report: Path, opened: Callable[..., Any]) -> None:
    page = opened(report, "#talk=optics&left=3&right=6&turn=1")

    page.locator("[data-turn='1'].wanted").wait_for()
    assert page.locator("[data-turn='1'] .left h5").inner_text() == "nano · top_k=50 · repeat 0"
    assert page.locator("[data-turn='1'] .right h5").inner_text() == "nano · greedy · repeat 1"
    page.keyboard.press("x")
    page.locator("[data-turn='1'] .left h5", has_text="nano · greedy · repeat 1").wait_for()
    assert "left=6&right=3" in page.url


def test_keys_walk_through_conversations_and_differences(report: Path, opened: Callable[..., Any]) -> None:
    page = opened(report, "#talk=mechanics&left=0&right=2")
    where = "select => select.selectedOptions[0].text"
    talk = page.locator("select[name=talk]")

    page.keyboard.press("n")
    assert talk.evaluate(where) == "optics"
    page.keyboard.press("p")
    assert talk.evaluate(where) == "mechanics"
    page.keyboard.press("j")
    page.locator("[data-turn='1'].wanted").wait_for()
    page.keyboard.press("j")
    page.wait_for_url("**talk=optics**")
    page.keyboard.press("j")
    assert page.locator("#verdict").inner_text() == "No later difference."
    page.keyboard.press("k")
    page.wait_for_url("**talk=mechanics**")
    page.locator("#filter input").focus()
    page.keyboard.press("n")
    assert page.locator("#filter input").input_value() == "n"
    assert talk.evaluate(where) == "mechanics"


def test_hostile_replies_are_shown_and_do_nothing(tmp_path: Path, opened: Callable[..., Any]) -> None:
    long = "x" * 1_000_000
    said = [f"{HOSTILE} \x1b[31mred \u202eorder\u2066 \x00 \ud7ff\U000e0041", long, long + HOSTILE, "سلام <b>bold</b>"]
    of = plan(models=[HOSTILE, "b"], samplings=["<i>greedy</i>"], conversations={HOSTILE: len(said)})
    check = CheckResult(HOSTILE, False, HOSTILE)
    records = every_turn(
        of,
        lambda at, i: turn(
            at, i, user=HOSTILE, reply=said[i] + at.model, reasoning=HOSTILE, gold=HOSTILE, checks=(check,)
        ),
    )
    path = write_page([harness.load(store(tmp_path, records, of, warnings=[HOSTILE]))], tmp_path / "report.html")
    page = opened(path)

    reply = page.locator("[data-turn='0'] .left .reply").last
    assert HOSTILE in reply.inner_text()
    assert "\\x1b[31mred \\u202eorder\\u2066 \\x00" in reply.inner_text()
    assert "\\U000e0041" in reply.inner_text()
    page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
    late = page.locator("[data-turn='2'] .left .reply").last
    assert "characters that both have" in late.inner_text()
    late.locator("button").click()
    assert len(late.inner_text()) > 1_000_000
    assert page.evaluate("window.pwned === undefined")
    assert page.locator("main img, main b, main i").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_follows_the_system_and_the_switch(report: Path, opened: Callable[..., Any], scheme: str) -> None:
    page = opened(report, color_scheme=scheme)

    def is_dark() -> bool:
        red = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/[0-9.]+/g)[0]")
        return float(red) < 128

    assert is_dark() == (scheme == "dark")
    page.locator("#theme").click()
    assert is_dark() == (scheme == "light")


def test_charts_are_drawn_when_they_come_near_and_again_in_the_other_theme(
    report: Path, opened: Callable[..., Any]
) -> None:
    pytest.importorskip("altair", reason="charts are an extra")
    page = opened(report, color_scheme="light")
    chart = page.locator("figure.chart").first

    chart.scroll_into_view_if_needed()
    chart.locator("svg").wait_for()
    light = chart.locator("svg").inner_html()
    page.locator("#theme").click()
    page.locator("figure.chart[data-drawn=dark]").first.wait_for()
    page.wait_for_timeout(300)
    assert chart.locator("svg").inner_html() != light
    page.locator("figure.chart").last.scroll_into_view_if_needed()
    page.locator("figure.chart").last.locator("svg").wait_for()


def test_on_paper_there_are_no_controls_and_no_dark(report: Path, opened: Callable[..., Any]) -> None:
    page = opened(report, color_scheme="dark")
    page.emulate_media(media="print")

    for selector in (".top", "#filter", "#sides", "#vote", ".steps >> nth=0"):
        assert not page.locator(selector).is_visible()
    assert page.locator("#table-speed").is_visible()
    assert page.locator("[data-turn='0'] .left .reply").is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor.match(/[0-9.]+/g)[0] > 200")
    page.set_viewport_size({"width": 794, "height": 1123})  # A4
    assert page.evaluate("document.documentElement.scrollWidth") == 794
    assert len(page.pdf()) > 10_000


def test_on_a_phone_only_tables_scroll_sideways(report: Path, opened: Callable[..., Any]) -> None:
    page = opened(report, viewport={"width": 390, "height": 844}, device_scale_factor=2, is_mobile=True, has_touch=True)
    page.select_option("select[name=right-setting]", label="nano · greedy")
    page.locator("[data-turn='1'] mark").first.wait_for()

    assert page.evaluate("document.documentElement.scrollWidth") == 390
    left, right = (page.locator(f"[data-turn='1'] .{side}").bounding_box() for side in ("left", "right"))
    assert right["y"] >= left["y"] + left["height"]


def test_votes_are_blind_and_saved_in_the_file_that_score_reads(report: Path, opened: Callable[..., Any]) -> None:
    page = opened(report)
    page.select_option("#ballots select[name=one]", label="pico · greedy")
    page.select_option("#ballots select[name=other]", label="nano · greedy")
    preferred = []
    for cast, key in enumerate(("3", "2")):
        page.locator(f"#ballot [data-cast='{cast}']").wait_for()
        texts = [page.locator(f"#ballot .{side} .reply").last.inner_text() for side in ("left", "right")]
        assert not page.locator("#ballot .answer", has_text="greedy").count()
        preferred.append((key, ["pico" if "pico" in text else "nano" for text in texts]))
        page.locator("#ballot").focus()
        page.keyboard.press(key)
    page.locator("#ballot", has_text="There is no turn left").wait_for()

    with page.expect_download() as download:
        page.locator("#save").click()

    assert download.value.suggested_filename == "votes-a-run.json"
    assert len(read_votes(Path(download.value.path())).value["votes"]) == 2
    saved = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert saved["format"] == 1
    assert len(saved["votes"]) == 2
    for vote, (key, models) in zip(saved["votes"], preferred, strict=True):
        assert list(vote) == ["conversation_id", "turn_index", "left", "right", "preferred"]
        assert vote["preferred"] == {"1": "left", "2": "tie", "3": "right"}[key]
        assert [vote["left"]["model"], vote["right"]["model"]] == models
        assert set(vote["left"]) == {"run_id", "model", "sampling", "concurrency", "launch", "repeat"}
        assert (vote["left"]["run_id"], vote["turn_index"]) == ("a-run", 1)
    page.locator("#reveal").click()
    cells = page.locator("#count td").all_inner_texts()
    assert {cells[0], cells[4]} == {"pico · greedy", "nano · greedy"}
    assert sum(map(int, cells[1:4])) == 2


def test_votes_last_until_they_are_forgotten(report: Path, opened: Callable[..., Any]) -> None:
    page = opened(report)
    page.locator("#ballot .choices button").first.click()
    page.locator("#votes", has_text="1 vote").wait_for()

    page.reload()
    page.wait_for_selector(READY, state="attached")
    assert page.locator("#votes").inner_text().startswith("1 vote")
    page.on("dialog", lambda dialog: dialog.accept())
    page.locator("#forget").click()
    assert page.locator("#votes").inner_text() == "0 votes"
    assert page.locator("#save").is_disabled()


def test_without_storage_the_page_works_and_says_that_votes_do_not_last(
    report: Path, opened: Callable[..., Any], chromium: Any
) -> None:
    page = opened(report)
    page.add_init_script(
        "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError'); }})"
    )
    page.reload()
    page.wait_for_selector(READY, state="attached")

    page.locator("#theme").click()
    page.locator("#ballot .choices button").first.click()
    page.locator("#votes", has_text="save them before you close the page").wait_for()


def test_failed_and_unreached_turns_have_their_place(tmp_path: Path, opened: Callable[..., Any]) -> None:
    of = plan(models=["a", "b"], conversations={"talk": 2})
    records = [
        turn(cell("a", conversation_id="talk"), 0),
        turn(cell("a", conversation_id="talk"), 1),
        failed(cell("b", conversation_id="talk"), 0),
    ]
    page = opened(write_page([harness.load(store(tmp_path, records, of))], tmp_path / "report.html"))

    assert "OutOfMemoryError (prefill): 2 GiB more than there is" in page.locator("[data-turn='0'] .right").inner_text()
    assert "not reached" in page.locator("[data-turn='1'] .right").inner_text()
    assert page.locator("#verdict").inner_text().startswith("2 of 2 turns differ; the first difference is in turn 0")


def test_a_page_without_transcripts_opens_too(tmp_path: Path, opened: Callable[..., Any]) -> None:
    page = opened(write_page([harness.load(store(tmp_path, []))], tmp_path / "report.html"))

    assert page.locator("#transcripts").inner_text().endswith("There is nothing to show.")
