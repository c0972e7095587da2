"""The pages about import and export do not lie: every command in them runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import harness
from harness.cli import main
from harness.exchange.tables import TABLES
from tests.builders import checks, every_turn, plan, store, turn
from tests.questions import question_file

DOCS = Path(__file__).parent.parent / "docs"


def commands(page: str) -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def run_all(page: str) -> None:
    for command in commands(page):
        name, *arguments = shlex.split(command)
        assert name == "harness"
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert not ended.value.code, command


def test_the_commands_about_import_do_what_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "question.jsonl").write_text(question_file().splitlines(keepends=True)[30])
    (tmp_path / "prompts").mkdir()

    run_all("import.md")

    path = Path(capfd.readouterr().out.splitlines()[-1])
    assert set(harness.load(path).turns["state"]) == {"done"}


def test_the_commands_about_export_do_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store(tmp_path / "results", every_turn(plan(), lambda of, n: turn(of, n, checks=checks(True))), run_id="quickstart")

    run_all("export.md")

    assert {path.name for path in tmp_path.iterdir()} == {"results", "summary.csv", "turns.jsonl", "hub", "benchmarks"}


def test_every_table_is_on_the_page() -> None:
    page = (DOCS / "export.md").read_text(encoding="utf-8")

    assert [name for name in TABLES if f"`{name}`" not in page] == []
