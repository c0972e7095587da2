"""docs/compare.md: its commands run as they stand, and show what the page shows."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from harness.analysis.compare import ROW_COLUMNS
from tests.commands import ENVIRONMENT, harness

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "compare.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
FIRST, SECOND = (
    [shlex.split(line.removeprefix("$ harness ")) for line in text.splitlines()]
    for language, text in BLOCKS
    if language == "console"
)


def test_the_example_of_behaviour_shows_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Greedy replies of models that come with the package: the same every time."""
    shutil.copytree(ROOT / "prompts", tmp_path / "prompts")
    monkeypatch.setitem(ENVIRONMENT, "COLUMNS", "110")
    shown = next(text for language, text in BLOCKS if language == "text")

    run, compare = (harness(*command, cwd=tmp_path) for command in FIRST)

    assert run.returncode == 0, run.stderr
    assert [line.rstrip() for line in compare.stdout.splitlines()] == shown.splitlines()


def test_the_example_of_speed_is_one_that_can_be_run() -> None:
    assert [command[0] for command in SECOND] == ["run", "compare"]
    assert (ROOT / SECOND[0][1]).exists()


def test_every_column_of_the_rows_is_documented() -> None:
    table = PAGE.split("## The columns of `rows`")[1].split("\n\n")[2]
    named = [name for line in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", line.split("|")[1])]

    assert sorted(named) == sorted(ROW_COLUMNS)
