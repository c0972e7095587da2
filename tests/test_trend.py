"""Trends: the first bad night is named with what changed then, on a terminal, as data, and on a page."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from rich.console import Console

from harness.analysis.history import read_history
from harness.analysis.nights import keep
from harness.analysis.trend import Trend, trend
from harness.cli import main
from harness.meters.commits import commits_between
from harness.report.page.trend import trend_page, write_trend_page
from harness.report.trend import first_nights, show, sparkline, trend_csv, trend_json, trend_text
from tests.commands import harness
from tests.simulated_nights import BROKEN, DEVICE, simulated, write_nights

HOSTILE = "</script><script>window.pwned=1</script><img src=x onerror='window.pwned=1'>"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    write_nights(folder / "history")
    return folder


@pytest.fixture(scope="module")
def found(results: Path) -> Trend:
    return trend(read_history(results / "history"), results)


def told(trend: Trend, width: int = 120) -> str:
    out = io.StringIO()
    show(trend, Console(file=out, width=width))
    return out.getvalue()


def test_the_first_bad_night_is_named_with_what_changed_then(found: Trend) -> None:
    slower, larger = first_nights(found)

    assert (slower.run_id, slower.changed) == ("night-026", ("GPU driver: 575.1 → 580.2",))
    assert (larger.run_id, larger.changed) == ("night-016", ("transformers: 5.17.0 → 5.18.0",))
    assert {(line.name, line.figure.name) for line, _ in slower.turnings} == {
        (model + ", greedy", figure) for model in ("pico", "nano") for figure in ("tpot_s", "decode_tokens_per_s.p50")
    }
    assert {line.figure.name for line, _ in larger.turnings} == {"peak_memory_bytes.max"}
    assert all(turning.better is False for _, turning in found.turnings)


def test_the_size_of_a_change_is_a_ratio_with_its_interval(found: Trend) -> None:
    turnings = {(line.name, line.figure.name): turning for line, turning in found.turnings}
    tpot = turnings["pico, greedy", "tpot_s"]

    assert tpot.low < 1.06 < tpot.high
    assert tpot.effect == pytest.approx(tpot.after / tpot.before)
    memory = turnings["pico, greedy", "peak_memory_bytes.max"]
    assert memory.after - memory.before == pytest.approx(96 * 2**20, rel=1e-6)


def test_a_night_on_which_half_the_turns_failed_is_no_change(found: Trend) -> None:
    values = {line.figure.name: line.values["value"].iloc[BROKEN] for line in found.lines if line.name[:4] == "pico"}

    assert values["failures"] == pytest.approx(2 / 3)
    assert values["tpot_s"] == pytest.approx(0.0126, rel=0.03)
    assert all(turning.first != f"night-{BROKEN + 1:03}" for _, turning in found.turnings)


def test_what_changed_on_other_nights_that_may_have_been_the_first_is_told(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    for number, run in enumerate(simulated(40)):
        turns = run.turns.copy()
        turns["tpot_s"] = 0.01 * np.exp(random.normal(0, 0.03) + 0.05 * (number >= 20))
        libraries = {"torch": f"2.{number}.0", "transformers": "5.17.0"}
        environment = {**run.manifest["environment"], "libraries": libraries, "gpu_driver": "1"}
        manifest = {**run.manifest, "environment": environment}
        keep(replace(run, turns=turns, manifest=manifest), tmp_path / f"{run.run_id}.parquet")

    ((_, turning),) = trend(read_history(tmp_path, figures=["tpot_s"], device=DEVICE), tmp_path).turnings[:1]

    assert "night-021" in turning.among
    assert len(turning.near) == len(turning.among) - 1 > 0
    assert {turning.first, *(near.after for near in turning.near)} == set(turning.among)
    assert all("torch: 2." in near.told[0] for near in turning.near)


def test_the_commits_in_between_are_named(tmp_path: Path, results: Path) -> None:
    def git(*words: str) -> str:
        name = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
        environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull}
        done = subprocess.run(["git", *name, *words], cwd=tmp_path, env=environment, check=True, capture_output=True)
        return done.stdout.decode().strip()

    git("init", "-q")
    commits = []
    for subject in ("Begin", "Copy the cache each step", "Break a line"):
        git("commit", "-q", "--allow-empty", "-m", subject)
        commits.append(git("rev-parse", "HEAD"))

    assert commits_between(commits[0], commits[2] + "+", tmp_path) == (
        f"{commits[2][:7]} Break a line", f"{commits[1][:7]} Copy the cache each step",
    )  # fmt: skip
    assert commits_between(commits[0], commits[2], tmp_path, most=1)[1] == "… and 1 more"
    assert commits_between(commits[0], "0" * 40, tmp_path) is None
    assert commits_between("--output=/tmp/x", commits[0], tmp_path) is None
    assert commits_between(None, commits[0], tmp_path) is None

    for number, run in enumerate(simulated(32)):
        environment = {**run.manifest["environment"], "git_commit": commits[0 if number < 25 else 2]}
        keep(replace(run, manifest={**run.manifest, "environment": environment}), tmp_path / f"{run.run_id}.parquet")
    slower = first_nights(trend(read_history(tmp_path, figures=["tpot_s"]), tmp_path))[0]

    assert any("Copy the cache each step" in line for line in slower.changed)


def test_an_old_night_that_cannot_be_compared_is_said_to_be_so(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.analysis import frames
    from harness.errors import StoreError

    def refuse(path: str) -> None:
        raise StoreError(path, "holds a run of a format that this version cannot read")

    monkeypatch.setattr(frames, "load", refuse)
    first = first_nights(trend(read_history(results / "history"), results))[0]

    assert "holds a run of a format that this version cannot read" in first.changed[0]


def test_few_nights_say_how_many_it_takes(tmp_path: Path) -> None:
    found = trend(read_history(write_nights(tmp_path, 6)))

    assert found.turnings == ()
    assert "6 nights: change points take 10" in told(found)
    assert "No change points." in told(found)


def test_a_line_that_came_to_an_end_says_when(tmp_path: Path) -> None:
    *earlier, last = simulated(11)
    for run in (*earlier, replace(last, turns=last.turns[last.turns["model"] == "pico"])):
        keep(run, tmp_path / f"{run.run_id}.parquet")

    notes = {line.name: line.note for line in trend(read_history(tmp_path, figures=["ttft_s"])).lines}

    assert notes == {"pico, greedy": "", "nano, greedy": "none since night-010"}


def test_the_table_fits_a_terminal_and_names_the_night(found: Trend) -> None:
    text = told(found, 100)

    assert all(len(line) <= 100 for line in text.splitlines())
    assert "\x1b" not in text
    assert "From night-026 on (nightly on simulated-gpu-x1)" in text
    assert "changed that night: GPU driver: 575.1 → 580.2" in text
    assert "ruptures" in text


def test_sparklines_go_from_the_lowest_to_the_highest() -> None:
    assert sparkline([1, 2, 8]) == "▁▂█"
    assert sparkline([3, 3]) == "▄▄"


def test_json_has_every_value_and_every_change(found: Trend) -> None:
    told = json.loads(trend_json(found))
    line = next(line for line in told["lines"] if (line["model"], line["figure"]) == ("nano", "tpot_s"))
    (point,) = line["change_points"]

    assert len(told["nights"]) == len(line["values"]) == 40
    assert told["nights"][0]["created_at"] == "2026-01-05T03:00:00+00:00"
    assert (point["first"], point["change"], point["scale"]) == ("night-026", "worse", "ratio")
    assert point["changed"]["differences"] == [
        {"field": "GPU driver", "before": "575.1", "after": "580.2", "remark": ""}
    ]


def test_csv_has_a_row_per_night_and_figure_with_its_environment(found: Trend) -> None:
    rows = list(csv.DictReader(io.StringIO(trend_csv(found))))

    assert len(rows) == 40 * 12
    assert rows[-1]["driver"] == "580.2"


def test_text_has_one_line_per_change_point(found: Trend) -> None:
    lines = [line.split("\t") for line in trend_text(found).splitlines()]

    assert len(lines) == len(found.turnings) == 6
    assert [len(line) for line in lines] == [12] * 6
    assert lines[0][:3] == ["night-026", "nightly", "simulated-gpu-x1"]


class Page(HTMLParser):
    """The elements of a page, and where its links lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name == "href"]


def test_the_page_stands_for_itself(found: Trend, tmp_path: Path) -> None:
    text = write_trend_page(found, tmp_path / "trend.html").read_text(encoding="utf-8")
    page = Page(text)

    assert "://" not in text
    assert "default-src &#39;none&#39;" in text
    assert page.tags.count("svg") == len(found.lines)
    assert page.tags.count("circle") == 40 * 12
    assert text.count('class="mark bad"') == 6
    assert "From night-026 on, 2026-01-30" in text
    assert "GPU driver: 575.1 → 580.2" in text


def test_nights_link_to_their_pages_and_have_the_colour_of_their_verdict(tmp_path: Path) -> None:
    write_nights(tmp_path / "a b" / "history", 3)
    run = tmp_path / "a b" / "night-002"
    run.mkdir()
    (run / "report.html").write_text("")
    (run / "verdict.json").write_text('{"answer": "regression", "verdicts": []}')

    page = trend_page(trend(read_history(tmp_path / "a b" / "history")), tmp_path / "elsewhere")
    links = {link for link in Page(page).links if link.startswith(".")}

    assert links == {"./../a%20b/night-002/report.html"}
    assert (tmp_path / "elsewhere" / unquote(links.pop())).resolve() == (run / "report.html").resolve()
    assert '<td class="bad">regression</td>' in page


def test_hostile_labels_are_shown_and_are_no_elements(tmp_path: Path) -> None:
    hostile = f"{HOSTILE}\x1b[31m\u202e"
    for number, run in enumerate(simulated(12)):
        turns = run.turns.copy()
        turns["model"] = turns["model"].replace({"pico": hostile})
        turns["tpot_s"] = 0.01 + 0.001 * (number >= 6)
        plan = json.loads(json.dumps(run.plan).replace('"pico"', json.dumps(hostile)))
        environment = {**run.manifest["environment"], "host": HOSTILE, "gpu_driver": HOSTILE if number >= 6 else "1",
                       "gpus": [{"name": HOSTILE}], "git_commit": f"--output={HOSTILE}"}  # fmt: skip
        manifest = {**run.manifest, "plan": plan, "environment": environment, "config_name": HOSTILE}
        manifest["launches"] = [
            {**launch, "model": launch["model"].replace("pico", hostile)} for launch in run.manifest["launches"]
        ]
        keep(replace(run, turns=turns, manifest=manifest), tmp_path / f"{run.run_id}.parquet")
    found = trend(read_history(tmp_path))

    page, harmless = trend_page(found, tmp_path), Page(trend_page(trend(read_history(tmp_path / "none")), tmp_path))
    assert len(found.turnings) >= 1
    assert "&lt;img src=x" in page
    assert Page(page).tags.count("script") == harmless.tags.count("script") == 2
    assert "img" not in Page(page).tags
    for text in (page, told(found), trend_text(found)):
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "\\x1b[31m" in told(found)


def test_the_command_prints_the_table_beside_what_machines_read(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "trend.html"

    with pytest.raises(SystemExit) as exit_:
        main(["trend", str(results / "history"), "--metric", "tpot_s", "--html", str(page)])

    said = capsys.readouterr()
    assert exit_.value.code == 0
    assert said.out.splitlines()[-1] == str(page)
    assert said.out.splitlines()[0].startswith("night-026\tnightly\t")
    assert "▁" in said.err
    assert page.exists()


def test_an_empty_history_is_one_clear_line_and_no_failure(tmp_path: Path) -> None:
    done = harness("trend", cwd=tmp_path)

    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "results/history: no nights – harness nightly adds one\n"


def test_what_cannot_be_meant_is_a_usage_error(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["trend", str(results / "history"), "--metric", "tftt_s"])

    assert exit_.value.code == 2
    assert capsys.readouterr().err == "tftt_s: is nothing that can be watched – did you mean ttft_s?\n"


def test_the_page_about_trends_shows_what_its_commands_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parent.parent / "docs" / "trend.md").read_text(encoding="utf-8")
    shown = page.split("```text\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "110")
    write_nights(Path("results/history"))
    capsys.readouterr()

    for command in ("harness trend\n", "harness trend --html results/trend.html\n"):
        assert f"$ {command}" in page
        with pytest.raises(SystemExit):
            main(command.split()[1:])
        assert [line.rstrip() for line in capsys.readouterr().err.splitlines()] == shown.splitlines()
    assert Path("results/trend.html").exists()
