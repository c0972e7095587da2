"""The ready templates: well-formed, careful with what they are allowed, and their scripts do what they say.

What needs the service – its runners, its actions, its schedule – cannot be tried here. The scripts of the steps can:
with the real `harness`, a scripted model and a bare repository in the place of the service's.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
NIGHTLY = ROOT / ".github" / "workflows" / "nightly-gpu.yml"
SBATCH = ROOT / "templates" / "nightly.sbatch"
CRON = ROOT / "templates" / "nightly.cron"
BIN = Path(sys.executable).parent
CONTEXTS = {"inputs", "env", "vars", "github", "matrix"}
"""What the expressions of the workflows may speak of: no secrets among them."""


def read(path: Path) -> dict[str, Any]:
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))  # YAML 1.2: `on` is no truth value


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in read(path)["jobs"].values() for step in job["steps"]]


def script(name: str) -> str:
    (found,) = [step["run"] for step in steps(NIGHTLY) if step.get("name") == name]
    return found


def bash(text: str, cwd: Path, environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """A script as the runner starts it."""
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", *arguments, "-c", text]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=120)


# --- workflows --------------------------------------------------------------------------------------------------------


def test_workflows_fit_the_schema_of_the_service() -> None:
    command = [BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert len(WORKFLOWS) == 2
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_is_allowed_as_little_as_it_needs(path: Path) -> None:
    workflow = read(path)

    assert workflow["permissions"] in ({}, {"contents": "read"})
    for job in workflow["jobs"].values():
        assert job.get("permissions", {}) in ({}, {"contents": "write"})
        assert job["timeout-minutes"] <= 180
    for step in steps(path):
        assert re.fullmatch(r"actions/[a-z-]+@v\d+", step.get("uses", "actions/none@v1"))
    expressions = re.findall(r"\$\{\{(.*?)\}\}", path.read_text(encoding="utf-8"))
    spoken_of = {name for each in expressions for name in re.findall(r"([a-z]+)\.", re.sub(r"'.*?'", "", each))}
    assert spoken_of <= CONTEXTS


def test_nothing_a_stranger_sent_runs_on_a_machine_of_ones_own() -> None:
    workflow = read(NIGHTLY)

    assert set(workflow["on"]) == {"schedule", "workflow_dispatch"}
    assert workflow["concurrency"] == {"group": "nightly-gpu", "cancel-in-progress": False}
    assert workflow["jobs"]["night"]["runs-on"] == ["self-hosted", "linux", "gpu"]
    assert workflow["jobs"]["night"]["env"]["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_expression_is_pasted_into_a_script(path: Path) -> None:
    scripts = [step["run"] for step in steps(path) if "run" in step]

    assert scripts
    for text in scripts:
        assert "${{" not in text  # what somebody typed would be part of the script
        done = subprocess.run(
            [BIN / "shellcheck", "--shell=bash", "-"], input=text, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout


def test_what_a_night_left_is_kept_whatever_its_verdict() -> None:
    after = steps(NIGHTLY)[-2:]

    assert [step["if"] for step in after] == ["${{ always() }}"] * 2
    assert (after[0]["name"], after[1]["uses"].partition("@")[0]) == ("Keep the history", "actions/upload-artifact")


def test_the_versions_that_are_tested_are_those_that_are_promised() -> None:
    classifiers = (ROOT / "pyproject.toml").read_text()
    tested = read(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]

    assert tested == re.findall(r"Python :: (3\.\d+)", classifiers)


# --- the history branch -----------------------------------------------------------------------------------------------


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A bare repository with one commit on main."""
    bare, first = tmp_path / "origin.git", tmp_path / "first"
    git("init", "--quiet", "--bare", bare)
    git("init", "--quiet", "--initial-branch=main", first)
    (first / "README.md").write_text("A project.\n")
    git("-C", first, "add", "README.md")
    git("-C", first, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message=Begin")
    git("-C", first, "push", "--quiet", bare, "main")
    return bare


def git(*words: str | Path) -> str:
    return subprocess.run(["git", *map(str, words)], capture_output=True, text=True, check=True).stdout


class Runner:
    """A machine with a checkout of its own."""

    def __init__(self, folder: Path, origin: Path, night: str) -> None:
        self.checkout, self.results, temporary = folder / "checkout", folder / "results", folder / "temp"
        for each in (self.results, temporary):
            each.mkdir(parents=True)
        git("clone", "--quiet", "--branch=main", origin, self.checkout)
        self.environment = {
            **os.environ,
            "HISTORY": "harness-history",
            "RESULTS": str(self.results),
            "NIGHT": night,
            "RUNNER_TEMP": str(temporary),
            "GITHUB_ACTOR": "someone",
        }

    def step(self, name: str) -> str:
        done = bash(script(name), self.checkout, self.environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def leaves(self, name: str) -> None:
        for file in (f"history/{name}.parquet", f"baselines/a-gpu-x1/nightly/{name}.parquet"):
            (self.results / file).parent.mkdir(parents=True, exist_ok=True)
            (self.results / file).write_text(name)


def kept(origin: Path) -> list[str]:
    return git("-C", origin, "ls-tree", "-r", "--name-only", "harness-history").splitlines()


def test_the_history_begins_with_the_first_night_and_holds_nothing_else(origin: Path, tmp_path: Path) -> None:
    runner = Runner(tmp_path / "a", origin, "night-1")

    assert "this night begins it" in runner.step("Take the history")
    assert "Nothing new" in runner.step("Keep the history")
    runner.leaves("one")
    runner.step("Keep the history")

    assert kept(origin) == ["baselines/a-gpu-x1/nightly/one.parquet", "history/one.parquet"]
    assert git("-C", origin, "log", "--format=%s", "harness-history") == "night-1\n"
    assert "Nothing new" in runner.step("Keep the history")


def test_two_runners_unite_their_nights(origin: Path, tmp_path: Path) -> None:
    first, second = Runner(tmp_path / "a", origin, "night-1"), Runner(tmp_path / "b", origin, "night-2")
    first.step("Take the history")
    second.step("Take the history")
    first.leaves("one")
    second.leaves("two")

    first.step("Keep the history")
    second.step("Keep the history")  # knows nothing of the first one's

    assert [name for name in kept(origin) if "history" in name] == ["history/one.parquet", "history/two.parquet"]
    first.step("Take the history")
    assert (first.results / "history" / "two.parquet").read_text() == "two"


RECITAL = "lines: [All is motion now.]\nprefill_s: 0.002\ntoken_s: 0.001\nreal_time: spin\n"
CONFIG = """
models: ["scripted:{0}/recital.yaml"]
conversations: ["{0}/prompts.yaml"]
launches: 2
warmup: 0
gate: {{rules: {{ttft_s: +50%, checks: exact, failures: 0}}}}
"""
PROMPTS = "conversations: [{id: a, turns: [{user: Hello, expect: [{contains: motion}]}, {user: Bye}]}]\n"


def test_a_night_is_played_kept_and_blessed_by_the_steps_of_the_workflow(origin: Path, tmp_path: Path) -> None:
    for name, text in (("recital.yaml", RECITAL), ("prompts.yaml", PROMPTS), ("mine.yaml", CONFIG.format(tmp_path))):
        (tmp_path / name).write_text(text)
    stand_in(tmp_path / "bin" / "harness", f'exec "{sys.executable}" -m harness "$@"')
    runner = Runner(tmp_path / "a", origin, "night-1")
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    summary = tmp_path / "summary.md"
    runner.environment |= {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": paths, "CONFIG": str(tmp_path / "mine.yaml"),
        "BLESS": "night-1", "GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary), "HF_HUB_OFFLINE": "1",
    }  # fmt: skip

    runner.step("Take the history")
    assert runner.step("Play and judge") == f"{runner.results}/night-1\n"  # nobody can tell, and that is no failure
    runner.step("Keep the history")
    before = kept(origin)
    runner.step("Bless")
    runner.step("Keep the history")

    assert before == ["history/night-1.parquet"]
    assert re.fullmatch(r"baselines/[a-z0-9-]+/mine/night-1\.parquet", kept(origin)[0])
    assert summary.read_text().startswith("## ⚠️ Nobody can tell: night-1")
    assert {path.name for path in (runner.results / "night-1").iterdir()} >= {
        "verdict.json",
        "junit.xml",
        "turns.jsonl",
    }


# --- Slurm and cron ---------------------------------------------------------------------------------------------------


def stand_in(path: Path, text: str) -> Path:
    """A program that does as the text says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
    return path


def test_scripts_are_sound() -> None:
    done = subprocess.run([BIN / "shellcheck", SBATCH], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout
    options = re.findall(r"^#SBATCH --(\S+)", SBATCH.read_text(), flags=re.MULTILINE)
    assert {"requeue", "signal=B:TERM@120", "dependency=singleton", "open-mode=append"} <= set(options)


@pytest.mark.parametrize(("restarts", "requeued"), [("0", True), ("3", False)])
def test_a_slurm_night_that_is_cut_off_ends_in_order_and_is_put_back(
    tmp_path: Path, restarts: str, requeued: bool
) -> None:
    harness = stand_in(
        tmp_path / "bin" / "harness", 'trap "sleep 0.2; exit 143" TERM\necho "$@" > said\nsleep 60 & wait'
    )
    stand_in(tmp_path / "bin" / "scontrol", 'echo "$@" > requeued')
    environment = {
        **os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "HARNESS": str(harness),
        "SLURM_JOB_ID": "42", "SLURM_RESTART_COUNT": restarts,
    }  # fmt: skip
    job = subprocess.Popen(["bash", SBATCH, "mine.yaml"], cwd=tmp_path, env=environment, start_new_session=True)
    while not (tmp_path / "said").exists():
        time.sleep(0.02)
    try:
        job.send_signal(signal.SIGTERM)
        code = job.wait(timeout=30)
    finally:
        os.killpg(job.pid, signal.SIGKILL)  # the sleep that the stand-in leaves behind

    assert code == 143
    assert (tmp_path / "said").read_text() == "nightly mine.yaml --results results --run-id night-42\n"
    assert (tmp_path / "requeued").exists() == requeued


@pytest.mark.parametrize("code", [0, 3])
def test_a_slurm_night_ends_with_the_code_of_its_verdict(tmp_path: Path, code: int) -> None:
    harness = stand_in(tmp_path / "harness", f"exit {code}")
    environment = {**os.environ, "HARNESS": str(harness), "SLURM_JOB_ID": "42"}

    assert subprocess.run(["bash", SBATCH], cwd=tmp_path, env=environment, check=False).returncode == code


def cron_line() -> tuple[list[str], str]:
    """The five fields, and the command."""
    (line,) = [line for line in CRON.read_text().splitlines() if re.match(r"[\d*]", line)]
    *fields, command = line.split(maxsplit=5)
    return fields, command


def test_cron_sends_the_end_of_the_log_only_where_a_night_was_not_good(tmp_path: Path) -> None:
    fields, command = cron_line()
    environment = {**os.environ, "HARNESS_HOME": str(tmp_path)}
    told = []
    for code in (0, 4):
        stand_in(tmp_path / ".venv" / "bin" / "harness", f'echo "$HF_HUB_OFFLINE $@"; exit {code}')
        told.append(
            subprocess.run(["/bin/bash", "-c", command], env=environment, capture_output=True, text=True, check=True)
        )

    assert (fields, "%" in command) == (["17", "2", "*", "*", "*"], False)  # to cron, a % ends the command
    assert told[0].stdout == ""
    assert told[1].stdout.startswith("harness nightly ended with 4\n")
    assert (tmp_path / "nightly.log").read_text() == "1 nightly configs/nightly.yaml\n" * 2


def test_cron_begins_no_night_while_another_one_runs(tmp_path: Path) -> None:
    stand_in(tmp_path / ".venv" / "bin" / "harness", "echo played")
    environment = {**os.environ, "HARNESS_HOME": str(tmp_path)}

    with subprocess.Popen(["flock", tmp_path / ".nightly.lock", "cat"], stdin=subprocess.PIPE) as other:
        while subprocess.run(["flock", "--nonblock", tmp_path / ".nightly.lock", "true"], check=False).returncode == 0:
            time.sleep(0.02)
        done = subprocess.run(
            ["/bin/bash", "-c", cron_line()[1]], env=environment, capture_output=True, text=True, check=False
        )
        other.communicate(b"")

    assert "ended with 1" in done.stdout
    assert (tmp_path / "nightly.log").read_text() == ""
