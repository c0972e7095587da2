"""A run in pytest-benchmark's eyes: the real tool reads what is exported, and computes the same of it."""

from __future__ import annotations

import csv
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_benchmark.stats import Stats

import harness
from harness.errors import UsageError
from harness.exchange.pytest_benchmark import benchmarks, stats, times
from tests.builders import cell, every_turn, failed, plan, store, turn


def night(results: Path, run_id: str, slower: float = 1.0) -> Path:
    """Three launches of a conversation of two turns; every time is `slower` times as long."""
    of = plan(launches=3)
    records = every_turn(
        of,
        lambda each, index: turn(each, index, ttft_ms=int((200 + 20 * each.launch) * slower), tpot_ms=int(20 * slower)),
    )
    return store(results, records, of, run_id=run_id)


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=40))
def test_statistics_are_those_that_pytest_benchmark_computes(samples: list[float]) -> None:
    theirs = Stats()
    for value in samples:
        theirs.update(value)

    ours = stats(samples)

    assert {name: ours[name] for name in theirs.fields} == pytest.approx(theirs.as_dict())


def test_a_benchmark_is_one_metric_of_one_turn_over_launches_and_repeats(tmp_path: Path) -> None:
    of = benchmarks(harness.load(night(tmp_path, "a")))

    first = of["benchmarks"][0]
    assert [each["name"] for each in of["benchmarks"]] == [
        f"{metric}[pico greedy physics {index}]" for index in (0, 1) for metric in ("ttft_s", "tpot_s", "e2e_s")
    ]
    assert first["stats"]["data"] == [0.20, 0.22, 0.24]
    assert (first["stats"]["median"], first["stats"]["rounds"]) == (0.22, 3)
    assert first["extra_info"] == {"run_id": "a", "unanswered_turns": 0}
    assert of["commit_info"] == {"id": "abc123", "dirty": False}
    assert of["machine_info"]["cpu"] == {"brand_raw": "An Honest CPU", "count": 4}


def test_the_real_command_compares_two_exported_runs(tmp_path: Path, command: Any) -> None:
    for run_id, slower in (("monday", 1.0), ("tuesday", 1.25)):
        path, file = night(tmp_path / "results", run_id, slower), tmp_path / f"{run_id}.json"
        assert command("export", path, "--to", "pytest-benchmark", "-o", file) == (0, f"{file}\n", "")

    files = ["monday.json", "tuesday.json"]
    options = ["--group-by=fullname", "--columns=median,iqr,rounds", "--csv=table.csv"]
    compare = [sys.executable, "-m", "pytest_benchmark", "compare", *files, *options]
    shown = subprocess.run(compare, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    with (tmp_path / "table.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["name"] == "ttft_s[pico greedy physics 0]"]
    assert sorted(float(row["median"]) for row in rows) == pytest.approx([0.22, 0.275])
    assert "(1.25)" in shown


def test_turns_without_an_answer_are_no_samples_and_are_told(tmp_path: Path) -> None:
    of = plan(launches=2)
    records = [turn(cell(), 0), turn(cell(), 1), failed(cell(launch=1), 0)]

    first, *_ = benchmarks(harness.load(store(tmp_path, records, of)))["benchmarks"]

    assert (first["stats"]["rounds"], first["extra_info"]["unanswered_turns"]) == (1, 1)


def test_only_times_can_be_exported(tmp_path: Path) -> None:
    run = harness.load(night(tmp_path, "a"))

    assert {"ttft_s", "prefill_s", "e2e_s"} < set(times())
    with pytest.raises(UsageError, match="decode_tokens_per_s: is not in seconds"):
        benchmarks(run, ["decode_tokens_per_s"])
    with pytest.raises(UsageError, match=r"ttft_z: is no metric – did you mean ttft_s\?"):
        benchmarks(run, ["ttft_z"])
    with pytest.raises(UsageError, match="has no turn with ttft_s"):
        benchmarks(harness.load(store(tmp_path, [failed()], run_id="b")), ["ttft_s"])


def test_the_json_goes_to_stdout_unless_a_file_is_named(tmp_path: Path, command: Any) -> None:
    path = night(tmp_path, "a")

    code, out, err = command("export", path, "--to", "pytest-benchmark", "--columns", "prefill_s")

    assert (code, err) == (0, "")
    assert statistics.median(json.loads(out)["benchmarks"][0]["stats"]["data"]) == pytest.approx(0.217)
