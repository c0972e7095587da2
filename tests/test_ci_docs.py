"""docs/ci.md does not lie: its commands run, in the order of the page, on the tests that stand in it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import harness.studies.nightly  # noqa: F401 – what a session in this process loads is forgotten when it ends
from harness.cli import main
from harness.studies.replay import resolve
from tests import recited
from tests.test_pytest_plugin import BENCHMARK, BY_HAND, PLUGIN, pytest_environment

pytest_plugins = ["pytester"]

METRICS = ("ttft_s", "tpot_s", "e2e_s")
PAGE = (Path(__file__).parent.parent / "docs" / "ci.md").read_text(encoding="utf-8")
COMMANDS = [line.removeprefix("$ ") for block in re.findall(r"```console\n(.*?)```", PAGE, flags=re.DOTALL)
            for line in block.splitlines()]  # fmt: skip
TESTS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
RECITAL = "lines: [Motion is all.]\nprefill_s: {}\ntoken_s: {}\n"
CONFIG = "models: ['scripted:recital.yaml']\nconversations: [prompts.yaml]\nlaunches: 2\n"
PROMPTS = "conversations: [{id: a, turns: [{user: What is it?, expect: [{contains: Motion}]}, {user: And then?}]}]\n"
NO_MACHINE = """
@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_generate_machine_info():
    return {}
"""
"""It takes pytest-benchmark a second to look at the processor."""
RULES = "gate: {rules: {ttft_s: +8%, checks: exact}}\n"


@pytest.fixture
def project(pytester: pytest.Pytester) -> Path:
    """A directory as the page supposes it; a scripted model is in the place of the real ones, on a clock by hand."""
    tmp_path = pytester.path
    for name, text in (
        ("recital.yaml", RECITAL.format(0.1, 0.02)), ("prompts.yaml", PROMPTS), ("configs/professor.yaml", CONFIG),
        ("configs/nightly.yaml", CONFIG + RULES), ("conftest.py", BY_HAND + NO_MACHINE),
        ("test_talks.py", TESTS[0].replace("builtin:pico", "scripted:recital.yaml")), ("test_speed.py", TESTS[1]),
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    for night in ("monday", "tuesday"):
        recited.execute(resolve("configs/nightly.yaml"), results=Path("results"), run_id=night)
    return tmp_path


def speed(*options: str) -> tuple[int, str]:
    """The page's benchmarks in a process of their own: the exit code, and what is said."""
    command = [sys.executable, "-m", "pytest", *PLUGIN, *BENCHMARK, "test_speed.py", *options]
    done = subprocess.run(command, env=pytest_environment(), capture_output=True, text=True, check=False, timeout=300)
    return done.returncode, done.stdout + done.stderr


def test_benchmarks_pass_an_equal_model_and_fail_on_one_that_is_slower_by_a_fifth(project: Path) -> None:
    save, compare = (shlex.split(command)[2:] for command in COMMANDS if command.startswith("pytest test_speed.py"))

    saved, equal = speed(*save), speed(*compare)
    (project / "recital.yaml").write_text(RECITAL.format(0.12, 0.024))
    slower = speed(*compare)

    assert (saved[0], equal[0], slower[0]) == (0, 0, 1), saved[1] + equal[1] + slower[1]
    assert "--benchmark-compare-fail=median:10%" in compare
    assert "Performance has regressed" in slower[1]
    for metric in METRICS:
        assert f"test_speed[{metric}] (0001" in slower[1]
    (file,) = project.glob(".benchmarks/*/0001_*.json")
    medians = {each["name"]: each["stats"]["median"] for each in json.loads(file.read_text())["benchmarks"]}
    assert [medians[f"test_speed[{metric}]"] for metric in METRICS] == [0.1, 0.02, 0.14]  # on that clock exact


def test_the_other_commands_do_what_the_page_says(
    project: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in pytest_environment().items():
        monkeypatch.setenv(name, value)
    ended = {}
    for command in ["pytest test_talks.py", *COMMANDS]:
        program, *arguments = shlex.split(command)
        if program == "harness":
            with pytest.raises(SystemExit) as stopped:
                main(arguments)
            ended[command] = stopped.value.code or 0
        elif program == "pytest-benchmark":
            shown = subprocess.run(
                [sys.executable, "-m", "pytest_benchmark", *arguments], capture_output=True, text=True, check=True
            ).stdout
            assert "ttft_s[recital default a 0]" in shown
        elif "test_speed.py" not in arguments:
            ended[command] = int(pytester.runpytest_inprocess(*PLUGIN, *arguments).ret)

    judged = {command for command in COMMANDS if command.startswith("harness gate")}
    assert {command for command, code in ended.items() if code} == judged
    assert {ended[command] for command in judged} == {4}  # one night does not tell how much nights differ
    assert {path.name for path in project.iterdir()} >= {"verdict.json", "junit.xml", "monday.json", "tuesday.json"}


def test_every_code_and_file_is_on_the_page() -> None:
    from harness.analysis.verdict import EXIT_CODES
    from harness.exchange.publish import JSON, JUNIT

    for answer, code in EXIT_CODES.items():
        assert f"{code} {answer.replace('some failed', 'some turns failed')}" in PAGE
    assert f"`{JSON}`" in PAGE
    assert f"`{JUNIT}`" in PAGE
