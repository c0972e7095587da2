"""The reference pages say what the tables say, and leave nothing out."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

import harness
from harness.analysis.columns import COLUMNS, arrow_type
from harness.analysis.stats import CONVERSATIONS_TO_GENERALISE
from harness.analysis.summary import by_setting
from harness.config.figures import SAMPLES_FOR_P95, SAMPLES_FOR_P99
from harness.metrics import METRICS
from harness.records import TurnRecord
from harness.report.files import write_reports
from harness.runner.run import execute
from harness.studies.replay import resolve
from tests.builders import cell, every_turn, failed, manifest, plan, store, turn

ROOT = Path(__file__).parent.parent
METRICS_PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
FORMATS_PAGE = (ROOT / "docs" / "file-formats.md").read_text(encoding="utf-8")


def rows(page: str, header: str) -> list[list[str]]:
    """The rows of the table with this header."""
    lines = page.split(header + "\n", 1)[1].split("\n\n", 1)[0].splitlines()[1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def named(cells: list[list[str]]) -> set[str]:
    """Everything in backticks in the first column."""
    return {name for row in cells for name in re.findall(r"`([^`]+)`", row[0])}


def test_the_table_of_metrics_is_complete_and_equal() -> None:
    assert rows(METRICS_PAGE, "| name | title | unit | better | definition |") == [
        [f"`{metric.name}`", metric.title, metric.unit, metric.direction, metric.definition]
        for metric in METRICS.values()
    ]


def test_every_column_of_turns_is_documented_with_type_unit_and_absence() -> None:
    documented = rows(FORMATS_PAGE, "| column | type | unit | absent | meaning |")

    assert documented == [
        [f"`{column.name}`", column.kind, column.unit, column.absent, column.meaning] for column in COLUMNS
    ]


def test_types_are_those_of_the_file() -> None:
    documented = rows(FORMATS_PAGE, "| type | in pandas | in turns.parquet |")
    told = {kind.strip("*"): arrow.strip("`").split("`")[0] for kind, _, arrow in documented}

    assert {column.kind for column in COLUMNS} == told.keys()
    for kind, arrow in told.items():
        assert str(arrow_type(kind)).replace("item: ", "").replace("element: ", "") == arrow


def test_columns_are_absent_where_the_page_says_so(tmp_path: Path) -> None:
    of = plan(conversations={"a": 3, "b": 1})
    records = [turn(cell(conversation_id="a"), 0), failed(cell(conversation_id="a"), 1)]
    turns = harness.load(store(tmp_path, records, of)).turns.set_index("state")

    for column in COLUMNS:
        there = turns[column.name].notna() if column.name != "state" else None
        if there is None or not column.absent:
            assert there is None or there.all(), column.name
        elif column.absent.startswith("unplayed"):
            assert not there[["not_reached", "missing"]].any(), column.name
        elif column.absent.startswith("unanswered"):
            assert not there[["failed", "not_reached", "missing"]].any(), column.name
        if column.absent in ("unplayed", "unanswered"):
            assert there is not None
            assert there["done"].all(), column.name
        if column.absent == "unplayed":
            assert there is not None
            assert there["failed"].all(), column.name


@pytest.mark.parametrize("number", [0, 1])
def test_the_examples_read_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    write_reports(harness.load(store(tmp_path / "results", every_turn(plan()), run_id="quickstart")))
    monkeypatch.chdir(tmp_path)
    section = FORMATS_PAGE.split("### Reading it elsewhere")[1]
    examples = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)

    exec(compile(examples[number], "docs/file-formats.md", "exec"), {})


def test_every_key_of_the_manifest_is_documented() -> None:
    keys = {"format", "run_id", "torn_lines", *manifest(plan())}

    assert named(rows(FORMATS_PAGE.split("## manifest.json")[1], "| key | what it holds |")) == keys


def test_every_field_of_a_record_is_documented() -> None:
    page = FORMATS_PAGE.split("## turns.jsonl")[1]

    assert named(rows(page, "| key | what it holds |")) == {field.name for field in fields(TurnRecord)}


def test_every_column_of_launches_is_documented() -> None:
    run = harness.load(ROOT / "tests" / "data" / "run-v1")

    assert named(rows(FORMATS_PAGE, "| column | meaning |")) == set(run.launches.columns)


def test_every_column_of_the_summary_is_documented() -> None:
    run = harness.load(ROOT / "tests" / "data" / "run-v1")
    summaries = METRICS_PAGE.split("## Summaries")[1]
    words = set(re.findall(r"`([\w…]+)`", summaries))

    for column in by_setting(run).columns:
        ending = "…_" + column.rsplit("_", 1)[-1]
        assert column in words or ending in words, column


def test_the_limits_are_those_of_the_code() -> None:
    assert f"hidden below {SAMPLES_FOR_P95} and {SAMPLES_FOR_P99} turns" in METRICS_PAGE
    assert CONVERSATIONS_TO_GENERALISE == 6
    assert "Fewer than six are marked" in METRICS_PAGE


def test_a_run_that_was_really_made_is_documented_and_can_be_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recital.yaml").write_text("lines: [Motion is all.]\ntoken_s: 0.001\nreal_time: true\n")
    (tmp_path / "prompts.yaml").write_text("conversations: [{id: a, turns: [{user: Hello}, {user: Bye}]}]\n")
    (tmp_path / "config.yaml").write_text("models: ['scripted:recital.yaml']\nconversations: [prompts.yaml]\n")
    monkeypatch.chdir(tmp_path)

    run = harness.load(execute(resolve("config.yaml", []), results=tmp_path / "results"))
    write_reports(run)

    keys = named(rows(FORMATS_PAGE.split("## manifest.json")[1], "| key | what it holds |"))
    assert set(run.manifest) | {"torn_lines"} == keys
    assert list(run.turns["state"]) == ["done", "done"]
    assert len(run.warmup) >= 4  # two passes at least
    assert run.launches["first_turn_s"].notna().all()
