"""A history is read whole: what a night measured, what cannot be read, and nothing mixed that does not belong."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

import harness
from harness.analysis.frames import Run
from harness.analysis.history import NIGHT_COLUMNS, read_history
from harness.analysis.nightly_values import VALUE_COLUMNS, Watched, watched_by
from harness.analysis.nights import keep
from harness.errors import UsageError
from tests.builders import cell, checks, every_turn, failed, plan, store, turn
from tests.simulated_nights import simulated, write_nights


def night(tmp_path: Path, records: list, of: dict, run_id: str, day: int = 1, **values) -> Run:
    """A night in tmp_path/history, kept from a real run."""
    created = f"2026-01-{day:02}T03:00:00+00:00"
    run = harness.load(
        store(tmp_path / "runs", records, of, run_id, created_at=created, finished_at=None, config_name="x", **values)
    )
    keep(run, tmp_path / "history" / f"{run_id}.parquet")
    return run


def value(values: pd.DataFrame, run_id: str, figure: str) -> float:
    (found,) = values[(values["run_id"] == run_id) & (values["figure"] == figure)]["value"]
    return found


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    return list(simulated(6))


def write(nights: list[Run], folder: Path) -> Path:
    for run in nights:
        keep(run, folder / f"{run.run_id}.parquet")
    return folder


def told(run: Run, **values) -> Run:
    return replace(run, manifest={**run.manifest, **values})


def test_there_is_a_row_for_every_night_setting_and_gated_figure(nights: list[Run], tmp_path: Path) -> None:
    history = read_history(write(nights, tmp_path))

    assert list(history.nights.columns) == list(NIGHT_COLUMNS)
    assert list(history.values.columns) == list(VALUE_COLUMNS)
    assert list(history.nights["run_id"]) == [run.run_id for run in nights]
    assert len(history.values) == 6 * 2 * 6  # nights, models, rules
    assert set(history.values["figure"]) == {
        "ttft_s", "tpot_s", "decode_tokens_per_s.p50", "peak_memory_bytes.max", "checks", "failures",
    }  # fmt: skip
    assert history.notes == ()
    first = history.nights.iloc[0]
    assert (first["device"], first["config"], first["driver"], first["transformers"]) == (
        "simulated-gpu-x1", "nightly", "575.1", "5.17.0",
    )  # fmt: skip


def test_a_metric_is_the_geometric_mean_of_its_turns_and_launches(tmp_path: Path) -> None:
    of = plan(launches=2)
    took = {(0, 0): 10, (0, 1): 20, (1, 0): 20, (1, 1): 40}  # (launch, turn) → ms
    night(tmp_path, every_turn(of, lambda at, i: turn(at, i, ttft_ms=took[at.launch, i])), of, "a")

    row = read_history(tmp_path / "history", figures=["ttft_s"]).values.iloc[0]

    assert row["value"] == pytest.approx(0.020)
    assert row["launch_low"] == pytest.approx(0.010 * math.sqrt(2))
    assert row["launch_high"] == pytest.approx(0.020 * math.sqrt(2))
    assert (row["launches"], row["turns"]) == (2, 4)


def test_a_night_whose_slow_turns_failed_is_not_a_fast_one(tmp_path: Path) -> None:
    of = plan()

    def took(factor: float):
        return lambda at, i: turn(at, i, ttft_ms=round(factor * (10, 100)[i]))

    night(tmp_path, every_turn(of, took(1)), of, "a", 1)
    night(tmp_path, every_turn(of, took(1.2)), of, "b", 2)
    night(tmp_path, [turn(cell(), 0, ttft_ms=12), failed(cell(), 1)], of, "c", 3)

    values = read_history(tmp_path / "history", figures=["ttft_s"]).values

    assert value(values, "b", "ttft_s") / value(values, "a", "ttft_s") == pytest.approx(1.2)
    assert value(values, "c", "ttft_s") / value(values, "a", "ttft_s") == pytest.approx(1.2)


def test_checks_and_failures_count_every_turn_of_the_script(tmp_path: Path) -> None:
    of = plan(conversations={"physics": 3}, checks=[1, 2, 1])
    records = [turn(cell(), 0, checks=checks(True)), failed(cell(), 1)]
    night(tmp_path, records, of, "a")

    values = read_history(tmp_path / "history", figures=["checks", "failures"]).values

    assert value(values, "a", "checks") == pytest.approx(1 / 4)
    assert value(values, "a", "failures") == pytest.approx(2 / 3)  # one failed, one was never reached


def test_text_is_how_likely_the_same_replies_were(nights: list[Run], tmp_path: Path) -> None:
    """Two replies of −1 and −3 nats a token; the second night is 0.1 below, and forced one of them and its own."""

    def line(turn_index: int, ids: list[int], logprob: float) -> dict:
        cell = {"model": "pico", "sampling": "greedy", "concurrency": 1, "conversation_id": "physics"}
        return {"cell": cell, "turn_index": turn_index, "of": "x", "ids": ids, "prompt_hash": "a",
                "logprobs": [logprob - 0.5, logprob + 0.5], "margins": [], "why_not": None}  # fmt: skip

    told = [[line(0, [1, 2], -1), line(1, [3, 4], -3)], [line(1, [3, 4], -3.1), line(0, [7], -9)],
            [line(0, [1, 2], -1), line(1, [3, 4], -3), {**line(0, [5], 0), "logprobs": []}]]  # fmt: skip
    folder = write(nights[:3], tmp_path)
    for path, lines in zip(sorted(folder.iterdir()), told, strict=True):
        about = {**pq.read_metadata(path).metadata, b"forced": json.dumps(lines).encode()}
        pq.write_table(pq.read_table(path).replace_schema_metadata(about), path)

    values = read_history(folder, figures=["text"]).values

    assert list(values["value"]) == pytest.approx([-2, -2.1, -2])
    assert list(values["turns"]) == [2, 1, 2]
    assert set(values["unit"]) == {"nats"}


def test_statistics_are_of_each_launch_first(tmp_path: Path) -> None:
    of = plan(launches=2, conversations={"physics": 3})
    took = {0: (10, 20, 90), 1: (30, 80, 100)}
    night(tmp_path, every_turn(of, lambda at, i: turn(at, i, ttft_ms=took[at.launch][i])), of, "a")

    values = read_history(tmp_path / "history", figures=["ttft_s.p50", "ttft_s.max", "ttft_s.p95"]).values

    assert value(values, "a", "ttft_s.p50") == pytest.approx(0.040)  # √(20 · 80)
    assert value(values, "a", "ttft_s.max") == pytest.approx(0.001 * math.sqrt(90 * 100))
    assert "ttft_s.p95" not in set(values["figure"])  # of three turns there is none


def test_an_unreadable_night_is_named_and_stops_nothing(nights: list[Run], tmp_path: Path) -> None:
    folder = write(nights, tmp_path)
    torn = folder / "night-002.parquet"
    torn.write_bytes(torn.read_bytes()[:-100])
    (folder / "junk.parquet").write_text("not Parquet")
    pq.write_table(pq.read_table(folder / "night-003.parquet").replace_schema_metadata({}), folder / "other.parquet")
    middle = folder / "night-004.parquet"
    data = bytearray(middle.read_bytes())
    data[40:400] = bytes(360)
    middle.write_bytes(data)

    history = read_history(folder)

    assert list(history.nights["run_id"]) == ["night-001", "night-003", "night-005", "night-006"]
    assert list(history.nights["night"]) == [0, 1, 2, 3]
    assert set(history.values["night"]) == {0, 1, 2, 3}
    for name in ("night-002", "junk", "other", "night-004"):
        assert sum(f"{name}.parquet is left out" in note for note in history.notes) == 1, name


def test_a_night_of_a_later_format_is_named(nights: list[Run], tmp_path: Path) -> None:
    folder = write(nights[:2], tmp_path)
    table = pq.read_table(folder / "night-002.parquet")
    about = pq.read_metadata(folder / "night-002.parquet").metadata
    pq.write_table(table.replace_schema_metadata({**about, b"night_format": b"99"}), folder / "night-002.parquet")

    history = read_history(folder)

    assert len(history.nights) == 1
    assert "night format 99, this version reads" in history.notes[0]


def test_what_an_older_night_did_not_measure_is_absent_and_the_rest_is_there(nights: list[Run], tmp_path: Path) -> None:
    folder = write(nights[:2], tmp_path)
    about = pq.read_metadata(folder / "night-001.parquet").metadata
    table = pq.read_table(folder / "night-001.parquet").drop_columns(["tpot_s", "reply", "started_at"])
    pq.write_table(table.replace_schema_metadata(about), folder / "night-001.parquet")

    history = read_history(folder)
    counts = history.values.groupby("run_id")["figure"].nunique()

    assert history.notes == ()
    assert dict(counts) == {"night-001": 5, "night-002": 6}


def test_a_night_without_its_turns_names_is_not_guessed_at(nights: list[Run], tmp_path: Path) -> None:
    folder = write(nights[:2], tmp_path)
    about = pq.read_metadata(folder / "night-001.parquet").metadata
    table = pq.read_table(folder / "night-001.parquet").drop_columns(["concurrency"])
    pq.write_table(table.replace_schema_metadata(about), folder / "night-001.parquet")

    history = read_history(folder)

    assert list(history.nights["run_id"]) == ["night-002"]
    assert "no column concurrency" in history.notes[0]


def test_nights_stand_in_the_order_they_began_whatever_they_are_called(nights: list[Run], tmp_path: Path) -> None:
    at = "2026-01-09T03:00:00+00:00"
    late = told(nights[0], created_at="2026-02-01T03:00:00+02:00", finished_at="2026-01-01T00:00:00+00:00")
    same = [told(run, created_at=at, finished_at=None) for run in (nights[2], nights[1])]
    history = read_history(write([late, *same], tmp_path))

    assert list(history.nights["run_id"]) == ["night-002", "night-003", "night-001"]
    assert any("ordered by name: night-003" in note for note in history.notes)
    assert any("set back during night-001" in note for note in history.notes)


def test_a_night_from_the_future_is_noted(nights: list[Run], tmp_path: Path) -> None:
    history = read_history(write([told(nights[0], created_at="2999-01-01T00:00:00+00:00", finished_at=None)], tmp_path))

    assert "in the future" in history.notes[0]


def test_devices_and_configs_stand_beside_each_other(nights: list[Run], tmp_path: Path) -> None:
    environment = nights[1].manifest["environment"]
    other = told(nights[1], environment={**environment, "gpus": [{"name": "NVIDIA H100 80GB"}] * 2})
    third = told(nights[2], config_name="weekly")
    folder = write([nights[0], other, third], tmp_path)

    history = read_history(folder)

    lines = history.values.groupby(["device", "config"])["run_id"].unique()
    assert {line: list(names) for line, names in lines.items()} == {
        ("simulated-gpu-x1", "nightly"): ["night-001"],
        ("nvidia-h100-80gb-x2", "nightly"): ["night-002"],
        ("simulated-gpu-x1", "weekly"): ["night-003"],
    }
    assert list(read_history(folder, device="nvidia-h100-80gb-x2").nights["run_id"]) == ["night-002"]
    assert list(read_history(folder, device="h100").nights["run_id"]) == ["night-002"]
    assert list(read_history(folder, config="weekly").nights["run_id"]) == ["night-003"]


def test_since_is_a_date_or_days_before_the_newest(nights: list[Run], tmp_path: Path) -> None:
    folder = write(nights, tmp_path)  # 5 to 10 January

    assert len(read_history(folder, since="2026-01-09").nights) == 2
    assert len(read_history(folder, since="3d").nights) == 4
    for wrong in ("yesterday", "d", "12"):
        with pytest.raises(UsageError, match="write a date"):
            read_history(folder, since=wrong)


def test_what_the_gate_said_stands_beside_the_values(nights: list[Run], tmp_path: Path) -> None:
    folder = write(nights[:2], tmp_path / "results" / "history")
    pico = {"metric": "ttft_s", "statistic": None, "model": "pico", "sampling": "greedy", "concurrency": 1}
    verdicts = [
        {**pico, "answer": "pass"},
        {**pico, "answer": "suspicion"},
        {"metric": "peak_memory_bytes", "statistic": "max", "model": "nano", "sampling": None, "concurrency": None,
         "answer": "regression"},
    ]  # fmt: skip
    (tmp_path / "results" / "night-001").mkdir()
    beside = tmp_path / "results" / "night-001" / "verdict.json"
    beside.write_text(json.dumps({"answer": "regression", "verdicts": verdicts}))
    (tmp_path / "results" / "night-002").mkdir()
    (tmp_path / "results" / "night-002" / "verdict.json").write_text("{torn")
    (tmp_path / "results" / "night-001" / "report.html").write_text("")

    history = read_history(folder)
    said = history.values[history.values["night"] == 0].set_index(["model", "figure"])["answer"].dropna()

    assert dict(said) == {("pico", "ttft_s"): "suspicion", ("nano", "peak_memory_bytes.max"): "regression"}
    assert list(history.nights["answer"].fillna("")) == ["regression", ""]
    assert history.nights["page"][0].endswith("night-001/report.html")
    assert len(history.notes) == 1
    assert "stands without its verdict" in history.notes[0]


def test_only_what_is_watched_is_read(nights: list[Run], tmp_path: Path) -> None:
    folder = write(nights[:1], tmp_path)
    path = folder / "night-001.parquet"
    needed = [
        "model", "sampling", "concurrency", "conversation_id", "turn_index", "launch", "state", "length", "weights",
        "checks_passed", "ttft_s",
    ]  # fmt: skip
    about = pq.read_metadata(path).metadata
    pq.write_table(pq.read_table(path).select(needed).replace_schema_metadata(about), path)

    assert len(read_history(folder, figures=["ttft_s"]).values) == 2


def test_figures_are_named_as_in_rules() -> None:
    assert Watched.named("peak_memory_bytes").name == "peak_memory_bytes.max"
    assert Watched.named("e2e_s.p95").better == "lower"
    assert Watched.named("checks").scale == "difference"
    with pytest.raises(UsageError, match=r"ttft_s: .*|.*did you mean ttft_s"):
        Watched.named("tftt_s")
    with pytest.raises(UsageError, match="no statistic p42"):
        Watched.named("ttft_s.p42")


def test_rules_say_what_is_watched_and_unknown_ones_are_named(nights: list[Run], tmp_path: Path) -> None:
    rules = {"ttft_s per turn where model=pico": "+8%", "text": "divergence", "sparkle": "+1%"}
    watched, strange = watched_by({"gate": {"rules": rules}})
    history = read_history(write([told(nights[0], config={"gate": {"rules": rules}})], tmp_path))

    assert [each.name for each in watched] == ["ttft_s", "text"]
    assert strange == ("sparkle",)
    assert "rules that this version does not know: sparkle" in history.notes[0]


def test_without_rules_the_usual_figures_are_watched(nights: list[Run], tmp_path: Path) -> None:
    history = read_history(write([told(nights[0], config={})], tmp_path))

    assert {"ttft_s", "tpot_s", "e2e_s", "checks", "failures"} <= set(history.values["figure"])


def test_a_run_that_two_files_tell_of_is_one_night(nights: list[Run], tmp_path: Path) -> None:
    folder = write(nights[:2], tmp_path)
    keep(nights[0], folder / "copied.parquet")

    history = read_history(folder)

    assert list(history.nights["run_id"]) == ["night-001", "night-002"]
    assert len(history.notes) == 1
    assert "once more" in history.notes[0]


def test_no_folder_is_an_empty_history(tmp_path: Path) -> None:
    history = read_history(tmp_path / "nothing")

    assert len(history.nights) == len(history.values) == len(history.notes) == 0


def test_simulated_nights_say_that_they_are(tmp_path: Path) -> None:
    run = harness.load(write_nights(tmp_path, 1) / "night-001.parquet")

    assert "Simulated" in run.manifest["warnings"][0]
