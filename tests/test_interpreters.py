"""`python:` of a model spec: workers in another interpreter, launch by launch in one run, and what is told of them."""

from __future__ import annotations

import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import harness
from harness.analysis.compare import compare
from harness.analysis.fairness import OF_PYTHON
from harness.errors import DocumentError
from harness.report.words import machine
from harness.runner import interpreters
from harness.runner.messages import Checked, Progress, WorkerStarted
from harness.runner.run import execute
from harness.studies.replay import resolve
from tests.builders import launch, manifest, plan, store, turn
from tests.commands import harness as command

CONFIG = """
models:
  - {{model: "scripted:recital.yaml", label: new}}
  - {{model: "scripted:recital.yaml", label: last-good, python: "{python}"}}
conversations: [prompts.yaml]
sampling: {{max_new_tokens: 4}}
launches: 2
warmup: 0
"""


@pytest.fixture(scope="module")
def other_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A venv with this one's libraries but another transformers, as far as its metadata say."""
    folder = tmp_path_factory.mktemp("other") / "venv"
    venv.EnvBuilder(symlinks=True).create(folder)
    (site,) = (folder / "lib").glob("python*/site-packages")
    (site / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    info = site / "transformers-5.17.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 5.17.0\n")
    return folder / "bin" / "python"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "recital.yaml").write_text("lines: [Motion is all.]\nreal_time: true\ntoken_s: 0.001\n")
    (tmp_path / "prompts.yaml").write_text("conversations: [{id: a, turns: [{user: Hello}]}]\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(here: Path, python: str | Path) -> str:
    (here / "config.yaml").write_text(CONFIG.format(python=python))
    return "config.yaml"


def script(here: Path, text: str) -> Path:
    """An executable that is called as an interpreter would be."""
    path = here / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_two_interpreters_of_one_model_take_turns_in_one_run_and_what_differs_is_laid_to_them(
    here: Path, other_python: Path
) -> None:
    seen: list[Progress] = []
    path = execute(resolve(config(here, other_python)), results=here / "results", watch=seen.append)
    run = harness.load(path)

    assert [event.model for event in seen if isinstance(event, WorkerStarted)] == [
        "new", "last-good", "last-good", "new",
    ]  # fmt: skip
    assert (run.turns["state"] == "done").all()
    of = {entry["model"]: entry["environment"]["libraries"]["transformers"] for entry in run.manifest["launches"]}
    assert of["last-good"] == "5.17.0" != of["new"]
    assert f"transformers {of['new']} or 5.17.0" in machine(run)
    compared = compare(path, by="model")
    told = {row["field"]: row for row in compared.ledger.to_dict("records")}
    assert told["transformers"]["remark"] == OF_PYTHON
    assert told["transformers"]["candidate_value"] == "5.17.0"
    assert not len(compared.blockers)


def test_versions_of_workers_are_suspects_between_two_runs(tmp_path: Path) -> None:
    def stored(name: str, transformers: str | None) -> Path:
        libraries = {"torch": "2.11.0", "transformers": transformers}
        environment = None if transformers is None else {"python": "3.11.7", "libraries": libraries}
        return store(tmp_path, [turn()], run_id=name, launches=[launch("pico", 0, environment=environment)])

    new, older, before_it_was_told = stored("new", "5.23.0"), stored("older", "5.16.0"), stored("first", None)

    (row,) = compare(older, new).ledger.to_dict("records")
    assert (row["field"], row["baseline_value"], row["candidate_value"]) == ("transformers", "5.16.0", "5.23.0")
    assert (row["speed"], row["behaviour"]) == ("suspect", "suspect")
    # What an earlier version wrote tells of the command, which its workers shared.
    (row,) = compare(before_it_was_told, new).ledger.to_dict("records")
    assert row["baseline_value"] == manifest(plan())["environment"]["libraries"]["transformers"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be started: No such file or directory"),
        ("echo 'ModuleNotFoundError: No module named orjson' >&2; exit 1", "cannot run a worker: exit code 1: Module"),
        ("printf 'garbage'", "cannot run a worker: exit code 0"),
        (f"exec {sys.executable} -c \"import pickle, sys; sys.stdout.buffer.write(b'cno.such\\nModule\\n.')\"",
         "says what cannot be understood here: No module named 'no'"),
    ],
)  # fmt: skip
def test_an_interpreter_that_is_none_is_one_line_and_leaves_no_run(here: Path, text: str | None, said: str) -> None:
    python = here / "absent" if text is None else script(here, text)

    with pytest.raises(DocumentError) as raised:
        execute(resolve(config(here, python)), results=here / "results")

    (mistake,) = raised.value.mistakes
    assert mistake.subject == f"python: {python}"
    assert said in str(mistake)
    assert len(str(mistake).splitlines()) == 1
    assert list((here / "results").iterdir()) == []


def test_an_interpreter_that_understands_something_else_is_refused(
    here: Path, other_python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Misheard(interpreters.WorkerProcess):
        def events(self):  # type: ignore[no-untyped-def]
            for event in super().events():
                assert isinstance(event, Checked)
                yield Checked(interpreters.replace(event.job, threads=7), {})

    monkeypatch.setattr(interpreters, "WorkerProcess", Misheard)

    with pytest.raises(DocumentError, match="understands another thing than was said to it"):
        execute(resolve(config(here, other_python)), results=here / "results")


def test_models_are_looked_at_by_their_own_interpreter_before_anything_is_played(
    here: Path, other_python: Path
) -> None:
    (here / "broken.yaml").write_text("lines: []\n")
    plan = resolve(config(here, other_python), ['models.1.model="scripted:broken.yaml"'])
    seen: list[Progress] = []

    with pytest.raises(DocumentError, match=r"broken\.yaml:1:1: lines"):
        execute(plan, results=here / "results", watch=seen.append)

    assert not any(isinstance(event, WorkerStarted) for event in seen)


def test_a_relative_interpreter_is_found_from_any_directory(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = resolve(config(here, "venv/bin/python"))
    monkeypatch.chdir("/")

    assert plan.models[1].python == str(here / "venv" / "bin" / "python")


def test_what_runs_in_this_interpreter_says_so(here: Path, other_python: Path) -> None:
    config(here, other_python)

    talk = command("chat", "-c", "config.yaml", "--set", f"models.0.python={other_python}", cwd=here)
    planned = command("plan", "config.yaml", cwd=here)

    assert talk.returncode == 2
    assert "a talk runs in this interpreter" in talk.stderr
    assert f"its workers run in {other_python}" in planned.stdout
