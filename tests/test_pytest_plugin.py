"""The plugin in real pytest sessions: times of the harness as benchmarks, and a config as a file of tests.

tests/test_ci_docs.py has the proof that pytest-benchmark tells a slower model from an equal one.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import harness.studies.nightly  # noqa: F401 – what a session in this process loads is forgotten when it ends
from harness.runner.run import execute
from harness.studies.bless import bless
from harness.studies.replay import resolve
from tests.commands import ENVIRONMENT

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent
PLUGIN = ("-p", "harness.pytest_plugin")
BENCHMARK = ("-p", "pytest_benchmark.plugin")
XDIST = ("-p", "xdist.plugin")
CONFIG = """
models: ["scripted:recital.yaml"]
conversations: [prompts.yaml]
repeats: 2
"""
PROMPTS = """
conversations:
  - {id: mechanics, turns: [{user: Hello, expect: [{contains: motion}]}, {user: And?, expect: [{contains: forces}]}]}
  - {id: energy, turns: [{user: Hello}]}
"""
RECITAL = "lines: [all is motion now]\nprefill_s: 0.1\ntoken_s: 0.02\n"
BY_HAND = """
import pytest
from tests import recited

@pytest.fixture(autouse=True)
def by_hand(monkeypatch):
    monkeypatch.setattr("harness.runner.run.execute", recited.execute)
"""
"""A conftest.py that lets the scripted model recite on a clock turned by hand."""


def pytest_environment() -> dict[str, str]:
    """For a pytest of its own: with this harness, and no plugins but those that are named."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**ENVIRONMENT, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": paths}
    environment.pop("PYTEST_XDIST_WORKER", None)
    return environment


@pytest.fixture
def project(pytester: pytest.Pytester) -> Path:
    """A directory with a config, a model and conversations; the current one."""
    for name, text in (("config.yaml", CONFIG), ("prompts.yaml", PROMPTS), ("recital.yaml", RECITAL)):
        (pytester.path / name).write_text(text)
    (pytester.path / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider\nfilterwarnings = error\n")
    return pytester.path


@pytest.fixture
def run(project: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """pytest in the project: its exit code and what it says."""
    for name, value in pytest_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)

    def start(*arguments: str) -> tuple[int, str]:
        done = pytester.runpytest_inprocess(*arguments)
        return int(done.ret), done.stdout.str() + done.stderr.str()

    return start


# --- replay -----------------------------------------------------------------------------------------------------------


def test_replay_without_a_benchmark_gives_the_run_back(project, run) -> None:
    (project / "conftest.py").write_text(BY_HAND)
    (project / "test_talk.py").write_text(
        "import pytest\n"
        "from harness.errors import UsageError\n"
        "def test_a_conversation(replay):\n"
        "    talk = {'id': 'a', 'turns': [{'user': 'Hello', 'expect': [{'contains': 'motion'}]}]}\n"
        "    played = replay(talk, models=['scripted:recital.yaml'], overrides=['repeats=3'])\n"
        "    assert list(played.turns['checks_passed']) == [1, 1, 1]\n"
        "def test_a_config_is_played_once(replay):\n"
        "    assert replay('config.yaml') is replay({'models': ['scripted:recital.yaml'], 'repeats': 2,\n"
        "                                            'conversations': ['prompts.yaml']})\n"
        "    assert len(replay('prompts.yaml', models=['scripted:recital.yaml']).turns) == 3\n"
        "def test_a_metric_needs_a_benchmark(replay):\n"
        "    with pytest.raises(UsageError, match='needs pytest-benchmark'):\n"
        "        replay('config.yaml', metric='ttft_s')\n"
    )

    code, said = run(*PLUGIN)

    assert code == 0, said
    assert not (project / "results").exists()


def test_a_benchmark_is_of_the_turns_that_were_asked_for_and_fails_where_one_has_no_answer(project, run) -> None:
    (project / "conftest.py").write_text(BY_HAND)
    (project / "broken.yaml").write_text(RECITAL + "breakdown: {turn: 1}\n")
    (project / "test_where.py").write_text(
        "import pytest\n"
        "def test_one_turn(replay, benchmark):\n"
        "    replay('config.yaml', metric='e2e_s', where={'conversation_id': 'energy'})\n"
        "    assert benchmark.stats.stats.rounds == 2\n"
        "def test_lost(replay, benchmark):\n"
        "    replay('config.yaml', overrides=['models.0=scripted:broken.yaml'], metric='e2e_s')\n"
        "def test_no_time(replay, benchmark):\n"
        "    replay('config.yaml', metric='decode_tokens_per_s')\n"
    )

    code, said = run(*PLUGIN, *BENCHMARK, "-rf")

    assert code == 1
    assert "2 failed, 1 passed" in said
    assert "2 of 6 turns were not answered" in said
    assert "decode_tokens_per_s: is not in seconds" in said


# --- pytest --harness -------------------------------------------------------------------------------------------------


def test_a_config_is_a_file_of_tests_one_for_each_cell(project, run) -> None:
    (project / "test_other.py").write_text("def test_other(): pass\n")

    code, said = run(*PLUGIN, "--harness", "config.yaml", "-v")

    assert code == 1, said
    assert "test_other" not in said
    assert "config.yaml::recital-default-energy-launch0-repeat0 PASSED" in said
    assert "config.yaml::recital-default-mechanics-launch0-repeat1 FAILED" in said
    assert "turn 1: contains: forces" in said
    assert "turn 0" not in said
    assert "2 failed, 2 passed" in said
    (path,) = (project / "results").iterdir()
    assert f"more: harness report results/{path.name}" in said


def test_a_config_with_rules_is_judged_by_its_blessed_nights(project, run) -> None:
    rules = "launches: 2\nwarmup: 0\ngate: {rules: {checks: exact, ttft_s: +50%}}\n"
    (project / "config.yaml").write_text(CONFIG.replace("repeats: 2", rules))
    bless([execute(resolve("config.yaml"), results=Path("results"))], Path("results"))
    (project / "recital.yaml").write_text(RECITAL.replace("motion", "still"))

    _, said = run(*PLUGIN, "--harness", "config.yaml", "-rA", "--junit-xml=junit.xml")

    assert "4 failed" in said, said  # a verdict about a setting is one about all its cells
    assert "turn 0: contains: motion" in said
    assert "checks of recital, default: regression" in said
    assert re.search(r"Captured gate call -+\nttft_s of recital, default: cannot tell", said)
    assert '<property name="cannot tell" value="ttft_s of recital' in (project / "junit.xml").read_text()
    (night,) = (project / "results" / "history").iterdir()
    assert (project / "results" / night.stem / "verdict.json").exists()


def test_processes_of_xdist_share_one_run(project, run) -> None:
    _, said = run(*PLUGIN, *XDIST, "--harness", "config.yaml", "-n", "2")

    assert "2 failed, 2 passed" in said, said
    (path,) = (project / "results").iterdir()
    assert len((path / "turns.jsonl").read_text().splitlines()) >= 6


def test_a_mistake_in_a_config_is_told_without_a_traceback(project, run) -> None:
    (project / "config.yaml").write_text(CONFIG.replace("repeats", "repeat"))

    code, said = run(*PLUGIN, "--harness", "config.yaml")

    assert code == 2
    assert "config.yaml:4:1: repeat: unknown key" in said
    assert "Traceback" not in said


# --- in everybody's way -----------------------------------------------------------------------------------------------


def test_nothing_heavy_is_imported_before_a_test_asks_for_it(project) -> None:
    (project / "test_idle.py").write_text("def test_speed(replay): pass\n")
    (project / "heavy.py").write_text(
        "import sys\n"
        "def pytest_unconfigure():\n"
        "    names = {'torch', 'transformers', 'pandas', 'pyarrow', 'pydantic', 'scipy', 'harness.studies'}\n"
        "    print('heavy:', sorted(names & set(sys.modules)))\n"
    )
    (project / "conftest.py").write_text("import sys; sys.path.insert(0, '.')\npytest_plugins = ['heavy']\n")

    for arguments in (["--help"], []):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *PLUGIN, *arguments],
            cwd=project, env=pytest_environment(), capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert "heavy: []" in done.stdout
    assert "1 passed" in done.stdout
