"""The plugin in real pytest sessions: pytest-benchmark on the harness' times, and a config as a file of tests."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.runner.run import execute
from harness.studies.bless import bless
from harness.studies.replay import resolve
from tests.commands import ENVIRONMENT

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
SPEED = """
import pytest

@pytest.mark.parametrize("metric", ["ttft_s", "tpot_s", "e2e_s"])
def test_speed(replay, benchmark, metric):
    replay("config.yaml", metric=metric)
"""
BY_HAND = "import harness.runner.run\nfrom tests import recited\nharness.runner.run.execute = recited.execute\n"
"""A conftest.py that lets the scripted model recite on a clock turned by hand."""


def recital(slower: float = 1.0) -> str:
    return f"lines: [all is motion now]\nprefill_s: {0.1 * slower}\ntoken_s: {0.02 * slower}\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory with a config, a model and conversations."""
    for name, text in (("config.yaml", CONFIG), ("prompts.yaml", PROMPTS), ("recital.yaml", recital())):
        (tmp_path / name).write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider\nfilterwarnings = error\n")
    return tmp_path


@pytest.fixture
def run(project: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """pytest in the project, with no plugins but those that are named."""

    def start(*arguments: str) -> subprocess.CompletedProcess[str]:
        paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**ENVIRONMENT, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": paths}
        environment.pop("PYTEST_XDIST_WORKER", None)
        command = [sys.executable, "-m", "pytest", *arguments]
        return subprocess.run(
            command, cwd=project, env=environment, capture_output=True, text=True, check=False, timeout=300
        )

    return start


# --- replay -----------------------------------------------------------------------------------------------------------


def test_pytest_benchmark_fails_on_a_model_that_is_slower_by_a_fifth_and_passes_an_equal_one(project, run) -> None:
    (project / "test_speed.py").write_text(SPEED)
    (project / "conftest.py").write_text(BY_HAND + "def pytest_benchmark_generate_machine_info(): return {}\n")
    compare = ("--benchmark-compare", "--benchmark-compare-fail=median:10%")

    saved = run(*PLUGIN, *BENCHMARK, "--benchmark-autosave", "--benchmark-json=saved.json")
    equal = run(*PLUGIN, *BENCHMARK, *compare)
    (project / "recital.yaml").write_text(recital(slower=1.2))
    slower = run(*PLUGIN, *BENCHMARK, *compare)

    assert (saved.returncode, equal.returncode) == (0, 0), saved.stdout + equal.stdout + equal.stderr
    data = {
        each["param"]: each["stats"]["data"] for each in json.loads((project / "saved.json").read_text())["benchmarks"]
    }
    assert data == {"ttft_s": [0.1] * 6, "tpot_s": [0.02] * 6, "e2e_s": [0.16] * 6}  # 3 turns, 2 repeats, exact
    assert slower.returncode == 1
    assert "Performance has regressed" in slower.stderr
    for metric in ("ttft_s", "tpot_s", "e2e_s"):
        assert f"test_speed[{metric}] (0001" in slower.stderr


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

    done = run(*PLUGIN)

    assert done.returncode == 0, done.stdout
    assert not (project / "results").exists()


def test_a_benchmark_is_of_the_turns_that_were_asked_for_and_fails_where_one_has_no_answer(project, run) -> None:
    (project / "conftest.py").write_text(BY_HAND)
    (project / "broken.yaml").write_text(recital() + "breakdown: {turn: 1}\n")
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

    done = run(*PLUGIN, *BENCHMARK, "-rf")

    assert done.returncode == 1
    assert "2 failed, 1 passed" in done.stdout
    assert "2 of 6 turns were not answered" in done.stdout
    assert "decode_tokens_per_s: is not in seconds" in done.stdout


# --- pytest --harness -------------------------------------------------------------------------------------------------


def test_a_config_is_a_file_of_tests_one_for_each_cell(project, run) -> None:
    (project / "test_other.py").write_text("def test_other(): pass\n")

    done = run(*PLUGIN, "--harness", "config.yaml", "-v")

    assert done.returncode == 1, done.stdout + done.stderr
    assert "test_other" not in done.stdout
    assert "config.yaml::recital-default-energy-launch0-repeat0 PASSED" in done.stdout
    assert "config.yaml::recital-default-mechanics-launch0-repeat1 FAILED" in done.stdout
    assert "turn 1: contains: forces" in done.stdout
    assert "turn 0" not in done.stdout
    assert "2 failed, 2 passed" in done.stdout
    (path,) = (project / "results").iterdir()
    assert f"more: harness report results/{path.name}" in done.stdout


def test_a_config_with_rules_is_judged_by_its_blessed_nights(project, run, monkeypatch) -> None:
    rules = "launches: 2\nwarmup: 0\ngate: {rules: {checks: exact, ttft_s: +50%}}\n"
    (project / "config.yaml").write_text(CONFIG.replace("repeats: 2", rules))
    monkeypatch.chdir(project)
    bless(execute(resolve("config.yaml"), results=Path("results")), Path("results"))
    (project / "recital.yaml").write_text(recital().replace("motion", "still"))

    done = run(*PLUGIN, "--harness", "config.yaml", "-rA", "--junit-xml=junit.xml")

    assert "4 failed" in done.stdout, done.stdout + done.stderr  # a verdict about a setting is one about all its cells
    assert "turn 0: contains: motion" in done.stdout
    assert "checks of recital, default: regression" in done.stdout
    assert re.search(r"- gate -+\nttft_s of recital, default: cannot tell", done.stdout)
    assert '<property name="cannot tell" value="ttft_s of recital' in (project / "junit.xml").read_text()
    (night,) = (project / "results" / "history").iterdir()
    assert (project / "results" / night.stem / "verdict.json").exists()


def test_processes_of_xdist_share_one_run(project, run) -> None:
    done = run(*PLUGIN, *XDIST, "--harness", "config.yaml", "-n", "2")

    assert "2 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    (path,) = (project / "results").iterdir()
    assert len((path / "turns.jsonl").read_text().splitlines()) >= 6


def test_a_mistake_in_a_config_is_told_without_a_traceback(project, run) -> None:
    (project / "config.yaml").write_text(CONFIG.replace("repeats", "repeat"))

    done = run(*PLUGIN, "--harness", "config.yaml")

    assert done.returncode == 2
    assert "config.yaml:4:1: repeat: unknown key" in done.stdout
    assert "Traceback" not in done.stdout


# --- in everybody's way -----------------------------------------------------------------------------------------------


def test_nothing_heavy_is_imported_before_a_test_asks_for_it(project, run) -> None:
    (project / "test_idle.py").write_text("def test_speed(replay): pass\n")
    (project / "heavy.py").write_text(
        "import sys\n"
        "def pytest_unconfigure():\n"
        "    names = {'torch', 'transformers', 'pandas', 'pyarrow', 'pydantic', 'scipy', 'harness.studies'}\n"
        "    print('heavy:', sorted(names & set(sys.modules)))\n"
    )
    (project / "conftest.py").write_text("import sys; sys.path.insert(0, '.')\npytest_plugins = ['heavy']\n")

    assert "heavy: []" in run(*PLUGIN, "--help").stdout
    done = run(*PLUGIN)
    assert "1 passed" in done.stdout
    assert "heavy: []" in done.stdout
