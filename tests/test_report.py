"""Reports: a golden page of a stored run, and replies that try to break out of it."""

from __future__ import annotations

import re
import shutil
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import harness
from harness.analysis.frames import Run
from harness.errors import StoreError
from harness.report.files import write_reports
from harness.report.markdown import escaped, fenced, markdown, spans
from harness.report.terminal import show
from harness.report.units import count, interval, memory, ms, number, percent, percents, printable
from tests.builders import cell, checks, every_turn, failed, launch, plan, store, turn

DATA = Path(__file__).parent / "data"


def shown(run: Run, width: int = 80) -> str:
    console = Console(file=StringIO(), width=width)
    show(run, console)
    assert isinstance(console.file, StringIO)
    return "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())


def test_the_page_of_a_stored_run_is_golden() -> None:
    assert markdown(harness.load(DATA / "run-v1")) == (DATA / "run-v1.report.md").read_text(encoding="utf-8")


def test_the_terminal_of_a_stored_run_is_golden() -> None:
    assert shown(harness.load(DATA / "run-v1"), 100) == (DATA / "run-v1.terminal.txt").read_text(encoding="utf-8")


def test_reports_are_written_beside_the_run_and_may_be_written_again(tmp_path: Path) -> None:
    shutil.copytree(DATA / "run-v1", tmp_path / "run-v1")
    run = harness.load(tmp_path / "run-v1")

    paths = write_reports(run)
    first = [path.read_bytes() for path in paths]

    assert [path.name for path in paths] == ["report.md", "summary.csv", "turns.parquet", "report.html"]
    assert {path.parent for path in paths} == {run.path}
    assert [path.read_bytes() for path in write_reports(run)] == first
    assert len(pd.read_parquet(paths[2])) == len(run.turns)


def test_the_csv_has_raw_units_and_empty_fields_for_what_is_absent(tmp_path: Path) -> None:
    shutil.copytree(DATA / "run-v1", tmp_path / "run-v1")
    _, path, *_ = write_reports(harness.load(tmp_path / "run-v1"))
    summary = pd.read_csv(path)

    assert list(summary["model"] + " " + summary["sampling"]) == [
        "pico greedy",
        "pico top_k=50",
        "nano greedy",
        "nano top_k=50",
    ]
    assert summary["ttft_s_p50"][0] == pytest.approx(0.011)
    assert summary["peak_memory_bytes"].isna().all()


def test_a_directory_that_cannot_be_written_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    shutil.copytree(DATA / "run-v1", tmp_path / "run-v1")
    (tmp_path / "run-v1" / "report.md").mkdir()

    with pytest.raises(StoreError, match="cannot be written"):
        write_reports(harness.load(tmp_path / "run-v1"))


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_the_terminal(width: int) -> None:
    assert max(len(line) for line in shown(harness.load(DATA / "run-v1"), width).splitlines()) <= width


def test_a_run_that_has_only_begun_can_be_shown(tmp_path: Path) -> None:
    run = harness.load(store(tmp_path, [], launches=[]))

    assert "Turns still missing: 2" in shown(run)
    assert "Turns still missing: 2" in markdown(run)


def test_a_run_whose_model_did_not_load_says_why(tmp_path: Path) -> None:
    failure = {"kind": "ModelError", "phase": "load", "message": "no such model"}
    run = harness.load(
        store(
            tmp_path, [failed()], launches=[{"model": "pico", "launch": 0, "failure": failure}], warnings=["pico: no"]
        )
    )

    assert "ModelError: no such model" in markdown(run)
    assert "! pico: no" in shown(run)
    assert "never reached: 1" in shown(run)


def test_every_warning_of_the_run_is_shown(tmp_path: Path) -> None:
    run = harness.load(store(tmp_path, [turn(), turn(index=1)], warnings=["top_k has no effect", "weights on disk"]))

    for text in (shown(run), markdown(run)):
        assert "has no effect" in text
        assert "weights on disk" in text


HOSTILE = [
    "```\n# Heading\n<script>alert(1)</script>",
    "````text\n```\nstill inside\n````",
    "`" * 50,
    "~~~\nx\n~~~",
    "\r```\r<img src=x onerror=alert(1)>",
    "    ```\n\t```",
    "\x1b[2J\x1b]0;owned\x07",
    "\u202egnp.exe",
    "",
    "|\n|---|\n",
]


def blocks(page: str) -> list[str]:
    """The fenced blocks of a page, as CommonMark reads them (§4.5): closed by a fence at least as long."""
    found: list[str] = []
    fence, inside = "", [""]
    for line in page.split("\n"):
        ends = re.fullmatch(r" {0,3}(`{3,}) *", line)
        if fence and ends and len(ends[1]) >= len(fence):
            found.append("\n".join(inside))
            fence = ""
        elif fence:
            inside.append(line)
        elif begins := re.match(r" {0,3}(`{3,})[^`]*$", line):
            fence, inside = begins[1], []
    assert not fence
    return found


@pytest.mark.parametrize("reply", HOSTILE)
def test_a_hostile_reply_stays_in_its_fence(tmp_path: Path, reply: str) -> None:
    record = turn(reply=reply, user=reply, gold=reply, reasoning=reply)
    page = markdown(harness.load(store(tmp_path, [record], plan(conversations={"physics": 1}))))

    assert blocks(page) == [printable(reply)] * 4
    assert "\x1b" not in page


@settings(deadline=None)  # the machine may be busy
@given(st.text(alphabet=st.sampled_from("`~ \n\r\tab<#"), max_size=60))
def test_no_text_can_end_its_fence(text: str) -> None:
    assert blocks(f"before\n\n{fenced(text)}\nafter") == [printable(text)]


def test_hostile_names_and_messages_mean_nothing_in_markdown(tmp_path: Path) -> None:
    of = plan(["<b>`|x"], conversations={"# _a_": 1})
    record = turn(cell("<b>`|x", conversation_id="# _a_"), checks=checks(False), notices=("x",))
    page = markdown(harness.load(store(tmp_path, [record], of, warnings=["[link](http://x)\n# not a heading"])))

    assert "| \\<b\\>\\`\\|x |" in page
    assert "### \\# \\_a\\_" in page
    assert "- \\[link\\](http://x) \\# not a heading" in page
    assert len({line.count("|") - line.count("\\|") for line in page.splitlines() if "0123" in line}) <= 1


def test_hostile_names_mean_nothing_on_a_terminal(tmp_path: Path) -> None:
    label = "[red]x[/red]\x1b[31m"
    of = plan([label], conversations={"physics": 1})
    text = shown(harness.load(store(tmp_path, [turn(cell(label))], of, warnings=["[bold]beware[/nothing]"])), 120)

    assert "[red]x[/red]\\x1b[31m" in text
    assert "[bold]beware[/nothing]" in text


def test_text_that_does_not_show_is_written_out_and_emoji_stay() -> None:
    assert printable("a\x00b\x1b[0m\u202ec\ud800") == "a\\x00b\\x1b[0m\\u202ec\\ud800"
    assert printable("👩\u200d🔬 می\u200cخواهم\ttab\r\nline") == "👩\u200d🔬 می\u200cخواهم\ttab\nline"


def test_an_underscore_within_a_word_needs_no_escape() -> None:
    assert escaped("top_k=50 _x_ a*b") == "top_k=50 \\_x\\_ a\\*b"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01234, "0.0123"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123"), (1234.5, "1234"), (0, "0"), (pd.NA, "–")],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_units_are_for_people() -> None:
    assert (ms(0.0123), ms(None)) == ("12.3", "–")
    assert (memory(3 * 2**30), memory(250 * 2**20), memory(pd.NA)) == ("3.00 GiB", "250 MiB", "–")
    assert (count(5), count(5.5), count(None)) == ("5", "5.5", "–")
    assert (interval(1.0, 2.0, number), interval(None, 2.0, number)) == ("1.00–2.00", "")
    assert (percents(0.006, 0.9988), percents(pd.NA, pd.NA)) == ("0–100 %", "")


@pytest.mark.parametrize(
    ("rate", "text"), [(0, "0 %"), (0.001, "<1 %"), (0.5, "50 %"), (0.999, ">99 %"), (1, "100 %"), (None, "–")]
)
def test_almost_none_and_almost_all_are_never_none_and_all(rate: float, text: str) -> None:
    assert percent(rate) == text


def test_spans_join_neighbours() -> None:
    assert spans([0]) == "0"
    assert spans([2, 0, 1, 5, 7, 8]) == "0–2, 5, 7–8"


def test_what_was_loaded_is_said_once_and_again_where_a_launch_differs(tmp_path: Path) -> None:
    effective = {"greedy": {"values": {"do_sample": False}, "warnings": []}}
    entries = [
        launch("pico", 0, effective=effective),
        launch("pico", 1, effective=effective, facts={"parameters": 1_700_000, "dtype": "float16"}),
    ]
    page = markdown(harness.load(store(tmp_path, [], plan(launches=2), launches=entries)))

    assert "- pico, launch 0: parameters: 1700000, dtype: float32\n" in page
    assert "- pico with greedy, launch 0: do_sample: False\n- pico, launch 1: dtype: float16\n" in page


def test_a_page_that_leaves_something_out_says_so_and_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.analysis.transcripts.MOST_TURNS", 1)
    monkeypatch.setattr("harness.report.markdown._MOST_ROWS", 2)
    of = plan(conversations={f"c{number}": 1 for number in range(5)})
    page = markdown(harness.load(store(tmp_path, every_turn(of), of)))

    assert "The first 2 of 5 conversations; turns.parquet has all of them" in page
    assert "Turns left out because the page would be too long: 4." in page
    assert re.findall(r"^### (.*)", page, re.MULTILINE) == ["c0"]
