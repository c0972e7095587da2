"""The page as a file: what is in it, what is left out and said to be, and that nothing foreign is markup."""

from __future__ import annotations

import gzip
import json
import re
from base64 import b64decode, b64encode
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import harness
from harness.analysis import plays as plays_module
from harness.analysis.plays import plays, talks, tellable
from harness.cli import main
from harness.errors import StoreError, UsageError
from harness.report import response
from harness.report.page import drawings, packed
from harness.report.page.packed import pack
from harness.report.page.shell import json as embedded
from harness.report.page.tables import Header, tables
from harness.report.page.write import page, write_page
from tests.builders import cell, checks, every_turn, failed, plan, store, turn

DATA = Path(__file__).parent / "data"
HOSTILE = "</script><script>window.pwned=1</script><img src=x onerror='window.pwned=1'><!-- \x1b[31m \u202eevil \x00"


def unpacked(text: str) -> Any:
    return json.loads(gzip.decompress(b64decode(text)))


class Elements(HTMLParser):
    """Every element of a page, with its attributes, and the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inline: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.cdata_elem is not None:
            self.inline.append((*self.tags[-1], data))


def assert_only_its_own_scripts(elements: Elements) -> None:
    """Every script and style is one that the policy of the page names."""
    policy = next(attributes["content"] or "" for _, attributes in elements.tags if attributes.get("http-equiv"))
    for tag, attributes, text in elements.inline:
        if attributes.get("type") not in ("application/x-transcripts", "application/x-index", "application/json"):
            assert b64encode(sha256(text.encode()).digest()).decode() in policy, tag


def of_data(name: str) -> str:
    return "".join(page([harness.load(DATA / name)]))


@pytest.fixture(scope="module")
def stored() -> str:
    return of_data("run-v1")


def test_a_page_is_written_whole_and_small(tmp_path: Path) -> None:
    path = write_page([harness.load(DATA / "run-v1")], tmp_path / "report.html")

    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert text.endswith("</html>\n")
    assert len(text) < 2_000_000


def test_a_page_that_cannot_be_written_is_one_line_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="--output"):
        write_page([harness.load(DATA / "run-v1")], tmp_path / "nowhere" / "report.html")


def test_the_page_loads_nothing_and_runs_only_its_own_scripts(stored: str) -> None:
    elements = Elements(stored)
    policy = next(attrs["content"] for tag, attrs in elements.tags if attrs.get("http-equiv"))

    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert_only_its_own_scripts(elements)
    for _, attributes in elements.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "style")]
        assert (attributes.get("href") or "#").startswith(("#", "data:,"))


def test_every_table_of_the_markdown_page_is_on_it(stored: str) -> None:
    markdown = (DATA / "run-v1.report.md").read_text(encoding="utf-8")
    headers = {cell.strip() for line in markdown.splitlines() if line.startswith("| model") for cell in line.split("|")}

    for header in headers - {""}:
        assert f">{header}<" in stored, header


def test_every_warning_is_on_it(stored: str) -> None:
    assert "nano: fp16 &lt;weights&gt; are `slow` on this CPU" in stored
    assert "Turns that failed: 1, never reached: 1." in stored


def test_tables_are_sorted_by_values_and_not_by_what_is_shown() -> None:
    (speed,) = (each for each in tables([harness.load(DATA / "run-v1")]) if each.name == "speed")
    place = [header.name for header in speed.headers].index("TTFT ms")
    shown = speed.rows[0].cells[place]

    assert (shown.value, shown.beside, shown.key) == ("11.0", "10.0–15.0", "0.011")


def test_foreign_text_is_never_markup(tmp_path: Path) -> None:
    of = plan(models=[HOSTILE], samplings=["<b>greedy</b>"], conversations={"<i>talk</i>": 1})
    one = turn(cell(HOSTILE, "<b>greedy</b>", "<i>talk</i>"), reply=HOSTILE, user=HOSTILE, checks=checks(True))
    run = harness.load(store(tmp_path, [one], of, warnings=[HOSTILE]))

    text = "".join(page([run]))

    elements = Elements(text)
    assert "img" not in {tag for tag, _ in elements.tags}
    assert_only_its_own_scripts(elements)
    for character in "\x1b\u202e\x00":
        assert character not in text
    assert "\\x1b[31m \\u202eevil \\x00" in text


def test_json_in_the_page_cannot_end_its_element() -> None:
    assert "<" not in embedded({"title": "</script><!--"})
    assert json.loads(embedded(["</script>"])) == ["</script>"]


def test_transcripts_hold_every_answer_of_every_play(tmp_path: Path) -> None:
    of = plan(models=["a", "b"], conversations={"talk": 2, "other": 1}, repeats=2, launches=2)
    records = every_turn(of, lambda at, index: turn(at, index, reply=f"{at.model}{at.launch}{at.repeat}{index}"))
    run = harness.load(store(tmp_path, records, of))

    made = pack([run])

    index = unpacked(made.index)
    (chunk,) = map(unpacked, made.chunks)
    assert (made.told, made.left_out) == (24, 0)
    assert [talk["id"] for talk in index["talks"]] == ["talk", "other"]
    for number, (_, model, _, _, launch, repeat) in enumerate(index["plays"]):
        for talk in index["talks"]:
            for place, (turn_index, codes, _) in enumerate(talk["turns"]):
                told = chunk[talk["place"]][place]
                which, *times = told["plays"][str(number)]
                assert told["said"][which]["reply"] == f"{model}{launch}{repeat}{turn_index}"
                assert times == [0.01, 0.002, 250.0, 0.02]
                assert len(set(codes)) == len(codes) == 8


def test_the_index_tells_flips_and_differences(tmp_path: Path) -> None:
    of = plan(models=["a", "b", "c"], conversations={"talk": 1})
    records = [
        turn(cell("a", conversation_id="talk"), reply="same", checks=checks(True)),
        turn(cell("b", conversation_id="talk"), reply="same", checks=checks(False)),
        failed(cell("c", conversation_id="talk")),
    ]

    index = unpacked(pack([harness.load(store(tmp_path, records, of))]).index)

    ((turn_index, codes, verdicts),) = index["talks"][0]["turns"]
    assert (turn_index, codes, verdicts) == (0, [0, 0, 1], [["contains: word0", "100"]])


def test_what_does_not_fit_is_counted_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of = plan(conversations={f"talk-{n}": 1 for n in range(50)})
    run = harness.load(store(tmp_path, every_turn(of), of))
    monkeypatch.setattr(packed, "MOST_BYTES", 0)
    monkeypatch.setattr(packed, "_CHUNK_BYTES", 1)

    made = pack([run])

    assert (made.told, made.left_out) == (1, 49)
    assert "Turns left out because the page would be too large: 49." in "".join(page([run]))


def test_of_very_many_repeats_and_very_long_replies_the_first_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = plan(models=["a", "b"], conversations={"talk": 1}, repeats=5)
    run = harness.load(store(tmp_path, every_turn(of, lambda at, i: turn(at, i, reply=f"{at.repeat}" * 100)), of))
    monkeypatch.setattr(plays_module, "MOST_PLAYS", 6)

    chosen = plays([run])
    (talk,) = talks([run], chosen)
    assert [(play.model, play.repeat) for play in chosen] == [(m, r) for r in range(3) for m in ("a", "b")]
    assert (talk.told, tellable([run])) == (6, 10)

    monkeypatch.setattr(plays_module, "MOST_CHARACTERS", 600)
    (talk,) = talks([run], chosen)
    assert sorted(talk.turns[0].by_play) == [0, 1, 2, 3]


def test_conversations_come_in_the_order_of_the_plan_however_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = plan(models=["a", "b"], conversations={f"talk-{n}": 3 for n in range(20)}, repeats=2)
    run = harness.load(
        store(tmp_path, sorted(every_turn(of), key=lambda each: each.circumstances.cell.conversation_id), of)
    )
    at_once = list(talks([run], plays([run])))
    monkeypatch.setattr(plays_module, "_TOGETHER", 1)

    assert list(talks([run], plays([run]))) == at_once
    assert [talk.conversation_id for talk in at_once] == [f"talk-{n}" for n in range(20)]
    assert all([turn.turn_index for turn in talk.turns] == [0, 1, 2] for talk in at_once)


def test_what_random_weights_said_is_not_shown(tmp_path: Path) -> None:
    of = plan(models=["a"], conversations={"talk": 1})
    of["models"][0]["weights"] = "random"
    run = harness.load(store(tmp_path, every_turn(of), of))

    assert pack([run]).told == 0
    assert "Random weights: replies mean nothing" in "".join(page([run]))


def test_a_page_over_several_runs_names_them_in_every_table(tmp_path: Path) -> None:
    of = plan(conversations={"talk": 2})
    runs = [harness.load(store(tmp_path, every_turn(of), of, run_id=name)) for name in ("monday", "tuesday")]

    text = "".join(page(runs))

    index = unpacked(re.findall(r'id="index">([^<]*)<', text)[0])
    assert [play[0] for play in index["plays"]] == ["monday", "tuesday"]
    for table in tables(runs):
        assert table.headers[0] == Header("run", is_text=True)
        assert {row.cells[0].value for row in table.rows} == {"monday", "tuesday"}


def test_a_run_without_a_single_turn_still_gets_a_page(tmp_path: Path) -> None:
    text = "".join(page([harness.load(store(tmp_path, []))]))

    assert "Turns still missing: 2." in text
    assert "There is nothing to show." in text


def test_the_order_of_plays_does_not_depend_on_the_machine(stored: str) -> None:
    assert stored == of_data("run-v1")


def test_the_first_screen_asks_what_the_run_was_made_for(stored: str) -> None:
    first = stored[stored.index("Which is best at what") : stored.index('id="beware"')]

    assert "<h3>pico or nano?</h3>" in first
    assert "Which passes most checks?" in first
    assert "conversations say nothing about others" in first


def test_what_a_run_has_several_of_is_compared_and_the_ledger_shown(stored: str) -> None:
    assert "Compared by model: run-v1" in stored
    assert 'id="table-answers-model"' in stored
    assert 'id="table-answers-sampling"' in stored
    assert 'id="table-fairness-model"' in stored


def test_runs_of_nothing_in_common_still_share_a_page(tmp_path: Path) -> None:
    runs = []
    for name in ("one", "other"):
        of = plan(models=[name, f"{name}-too"], conversations={name: 1})
        runs.append(harness.load(store(tmp_path, every_turn(of), of, run_id=name)))

    assert "The runs cannot be compared" in "".join(page(runs))


def test_a_large_run_is_compared_only_when_somebody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response, "MOST_TURNS", 10)

    assert "harness compare RUN --by model does it" in of_data("run-v1")


def test_without_the_extra_one_line_tells_how_to_get_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(run: object) -> None:
        raise UsageError("charts", "altair is not installed", "pip install it")

    monkeypatch.setattr(drawings, "charts", missing)
    text = of_data("run-v1")

    assert "charts: altair is not installed – pip install it" in text
    assert "vegaEmbed=" not in text


def test_the_command_writes_a_page_about_several_runs_and_prints_its_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of = plan(conversations={"talk": 1})
    for name in ("monday", "tuesday"):
        store(tmp_path, every_turn(of), of, run_id=name)
    report = ["report", "monday", "tuesday", "--results", str(tmp_path), "--html"]

    def printed(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert not ended.value.code
        return capsys.readouterr().out

    assert printed(*report) == f"{tmp_path / 'monday' / 'reports.html'}\n"
    assert printed(*report, "--output", str(tmp_path / "both.html")) == f"{tmp_path / 'both.html'}\n"
    assert printed("report", "monday", "--results", str(tmp_path), "--html").endswith("report.html\n")
    assert "tuesday" in (tmp_path / "both.html").read_text(encoding="utf-8")
    with pytest.raises(SystemExit) as refused:
        main(["report", "monday", "--results", str(tmp_path), "--output", "x.html"])
    assert refused.value.code == 2
    assert "add --html" in capsys.readouterr().err
