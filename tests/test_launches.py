"""What a launch says of itself: threads, processors, the parts of its cold start, what it holds after loading."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import harness
from harness.errors import DocumentError
from harness.meters import processors
from harness.meters.processors import keep_to
from harness.report.words import machine
from harness.runner.run import execute
from harness.studies.replay import resolve
from tests.builders import launch, plan, store, turn

LINUX = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system keeps no process to processors")
PARTS = ["import_s", "weights_s", "first_forward_s", "compile_s"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "recital.yaml").write_text("lines: [Motion is all.]\n")
    (tmp_path / "prompts.yaml").write_text("conversations: [{id: a, turns: [{user: Hello}]}]\n")
    (tmp_path / "config.yaml").write_text(
        "models: ['scripted:recital.yaml']\nconversations: [prompts.yaml]\nsampling: {max_new_tokens: 2}\nwarmup: 0\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@LINUX
def test_threads_affinity_and_the_parts_of_a_cold_start_are_recorded(
    here: Path, saved_model: Callable[..., Path]
) -> None:
    processor = max(os.sched_getaffinity(0))
    assignments = [f"models.0.model={saved_model()}", "threads=1", f"cpu_affinity=[{processor}]"]
    run = harness.load(execute(resolve("config.yaml", assignments), results=here / "results"))

    (entry,) = run.manifest["launches"]
    assert (entry["threads"], entry["cpu_affinity"]) == (1, [processor])
    assert (run.launches["threads"][0], run.launches["cpu_affinity"][0]) == (1, [processor])
    assert "computing with 1 thread ·" in machine(run)
    parts = pd.to_numeric(run.launches[PARTS].iloc[0]).sum()
    assert parts == pytest.approx(run.launches["load_s"][0], rel=1e-9)
    assert (run.launches[["import_s", "weights_s", "first_forward_s", "first_turn_s"]] > 0).all(axis=None)
    baseline = entry["facts"]
    assert {"memory_bytes", "reserved_memory_bytes", "device_used_bytes"} < baseline.keys()
    assert baseline["host_rss_bytes"] > baseline["weights_bytes"]


@LINUX
@pytest.mark.parametrize("wanted", ["[100000]", "[0, 100000]"])
def test_processors_the_machine_does_not_allow_are_one_line_before_anything_is_loaded(here: Path, wanted: str) -> None:
    with pytest.raises(DocumentError, match=r"^cpu_affinity: this machine does not let us run on processor") as raised:
        execute(resolve("config.yaml", [f"cpu_affinity={wanted}"]), results=here / "results")

    assert len(raised.value.mistakes) == 1
    assert "100000" in str(raised.value)
    assert "allowed: 0" in str(raised.value)
    assert list((here / "results").iterdir()) == []


@LINUX
def test_processors_that_are_allowed_are_kept_to() -> None:
    before = os.sched_getaffinity(0)
    try:
        assert keep_to([max(before), max(before)]) is None
        assert os.sched_getaffinity(0) == {max(before)}
    finally:
        os.sched_setaffinity(0, before)


def test_a_system_that_keeps_no_process_to_processors_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors, "allowed_processors", lambda: None)

    assert "cannot keep a process" in str(keep_to([0]))


def test_the_line_of_the_machine_says_what_differs_between_launches(tmp_path: Path) -> None:
    of = plan(launches=3)
    launches = [
        launch("pico", 0, threads=2, cpu_affinity=[0, 1, 2, 3]),
        launch("pico", 1, threads=4, cpu_affinity=[0, 2]),
        {"model": "pico", "launch": 2, "failure": {"kind": "OutOfMemory", "phase": "load", "message": "no room"}},
    ]
    line = machine(harness.load(store(tmp_path, [turn()], of, launches=launches)))

    assert "4 threads · computing with 2 threads or 4 threads · on processors 0, 2 only" in line


def test_a_run_that_says_nothing_of_threads_has_no_words_for_them(tmp_path: Path) -> None:
    assert "computing" not in machine(harness.load(store(tmp_path, [turn()])))


def test_the_wait_policy_of_openmp_is_part_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.meters.environment import environment

    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")

    assert environment()["variables"]["OMP_WAIT_POLICY"] == "PASSIVE"


def test_no_library_counts_processors_before_the_affinity_is_set() -> None:
    import subprocess

    script = "import sys, harness.runner.worker; print(sorted({'torch', 'numpy', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"
