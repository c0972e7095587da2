"""The window that nights are held against: what gets into it, from where, and what is looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

import harness
from harness.analysis import baselines
from harness.analysis.baselines import device_of, other_devices, slug, window, window_folder
from harness.analysis.nights import keep
from harness.errors import UsageError
from harness.studies import bless as module
from harness.studies.bless import VERDICT
from harness.studies.bless import bless as bless_all
from tests.builders import every_turn, failed, manifest, plan, store, turn
from tests.commands import harness as command

HERE = manifest(plan())["environment"]
GPU = {**HERE, "gpus": [{"name": "NVIDIA H100 80GB HBM3"}]}
DEVICE = "an-honest-cpu-x4"


@pytest.fixture(autouse=True)
def this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "environment", lambda: HERE)


def night(results: Path, name: str = "one", answer: str | None = None, records: Any = None, **values: Any) -> Path:
    path = store(results, records or every_turn(plan()), run_id=name, **{"config_name": "nightly", **values})
    if answer is not None:
        (path / VERDICT).write_bytes(orjson.dumps({"answer": answer}))
    return path


def bless(named: Path, results: Path, **values: Any) -> Path:
    (file,) = bless_all([named], results, **values)
    return file


@pytest.mark.parametrize(
    ("gpus", "device"),
    [
        ([], "an-honest-cpu-x4"),
        (["NVIDIA H100 80GB HBM3"], "nvidia-h100-80gb-hbm3-x1"),
        (["A (1)", "A (1)", "B"], "a-1-x2-b-x1"),
    ],
)
def test_a_device_is_named_by_its_gpus_or_else_by_its_processor(gpus: list[str], device: str) -> None:
    assert device_of({**HERE, "gpus": [{"name": name} for name in gpus]}) == device


def test_no_name_leads_out_of_the_folder() -> None:
    assert slug("../../etc/Nightly  run") == "etc-nightly-run"
    assert slug("…") == "unnamed"


def test_a_blessed_run_lies_in_the_window_of_its_device_and_config_and_says_who_let_it_in(tmp_path: Path) -> None:
    file = bless(night(tmp_path), tmp_path, reason="first of its kind")

    assert file == tmp_path / "baselines" / DEVICE / "nightly" / "one.parquet"
    (kept,) = window(tmp_path, DEVICE, "nightly", 10)
    assert len(kept.turns) == 2
    blessed = kept.manifest["blessed"]
    assert (blessed["reason"], blessed["commit"], blessed["answer"]) == ("first of its kind", "abc123", None)
    assert blessed["at"].startswith("20")


@pytest.mark.parametrize("named", ["one", "results/one", "results/history/one.parquet"])
def test_a_run_is_found_by_its_path_its_name_and_in_the_history(
    tmp_path: Path, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    results = Path("results")
    path = night(results)
    keep(harness.load(path), baselines.history_file(results, "one"))

    assert bless(Path(named), results).exists()


def test_a_night_whose_directory_is_gone_is_blessed_from_the_history(tmp_path: Path) -> None:
    elsewhere = harness.load(night(tmp_path / "gone"))
    keep(elsewhere, baselines.history_file(tmp_path, "one"))

    assert bless(Path("one"), tmp_path).exists()


@pytest.mark.parametrize("answer", ["regression", "not comparable", "some failed"])
def test_red_is_taken_by_force_only(tmp_path: Path, answer: str) -> None:
    path = night(tmp_path, answer=answer)

    with pytest.raises(UsageError, match=f"its verdict is '{answer}' – look into it"):
        bless(path, tmp_path)
    kept = harness.load(bless(path, tmp_path, force=True, reason="the new driver is what we have now"))

    assert (kept.manifest["blessed"]["forced"], kept.manifest["blessed"]["answer"]) == (True, answer)


@pytest.mark.parametrize("answer", ["pass", "cannot tell"])
def test_a_night_that_is_not_red_is_taken(tmp_path: Path, answer: str) -> None:
    bless(night(tmp_path, "one"), tmp_path)

    assert bless(night(tmp_path, "two", answer=answer), tmp_path).exists()


def test_a_run_that_its_window_has_not_judged_is_not_taken(tmp_path: Path) -> None:
    bless(night(tmp_path, "one"), tmp_path)

    with pytest.raises(UsageError, match="two: was not judged by the window it is to join"):
        bless(night(tmp_path, "two"), tmp_path)


def test_the_first_runs_are_taken_together_and_all_or_none_of_them(tmp_path: Path) -> None:
    paths = [night(tmp_path, f"calibration-{day}", created_at=f"2026-01-0{day}T03:00:00+00:00") for day in (1, 3, 2)]
    broken = night(tmp_path, "broken", records=[turn(), failed(index=1)])

    with pytest.raises(UsageError, match="broken: 1 of its 2 turns failed"):
        bless_all([*paths, broken], tmp_path)
    assert window(tmp_path, DEVICE, "nightly", 10) == ()

    bless_all(paths, tmp_path, anew=True)
    found = window(tmp_path, DEVICE, "nightly", 10)
    assert [run.run_id for run in found] == ["calibration-1", "calibration-2", "calibration-3"]


def test_an_unfinished_run_and_one_with_holes_are_not_taken_even_by_force(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has not come to its end – finish it: harness run --resume"):
        bless(night(tmp_path, "killed", finished_at=None), tmp_path, force=True)
    with pytest.raises(UsageError, match="1 of its 2 turns failed or were not run"):
        bless(night(tmp_path, "broken", records=[turn(), failed(index=1)]), tmp_path, force=True)


def test_a_run_of_another_device_is_taken_only_where_that_is_said(tmp_path: Path) -> None:
    path = night(tmp_path, environment=GPU)
    other = "nvidia-h100-80gb-hbm3-x1"

    with pytest.raises(UsageError, match=f"is of {other}, and not of {DEVICE} – bless it there, or say --device"):
        bless(path, tmp_path)
    assert bless(path, tmp_path, device=other).parent.parent.name == other
    assert window(tmp_path, DEVICE, "nightly", 10) == ()
    assert other_devices(tmp_path, DEVICE, "nightly") == [other]
    assert other_devices(tmp_path, other, "nightly") == []


def test_a_run_that_was_gone_on_with_on_another_device_is_of_no_window(tmp_path: Path) -> None:
    path = night(tmp_path, resumed=[{"at": "2026-01-02T03:04:05+00:00", "environment": GPU}])

    with pytest.raises(UsageError, match="was begun and gone on with on an-honest-cpu-x4 and nvidia"):
        bless(path, tmp_path, force=True)


def test_a_run_that_names_no_config_has_no_window(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not say what its config is called"):
        bless(store(tmp_path, every_turn(plan()), config_name=None), tmp_path)


def test_a_window_holds_the_newest_nights_and_older_ones_stay_where_they_are(tmp_path: Path) -> None:
    for day in (3, 1, 2, 4):
        bless(night(tmp_path, f"day-{day}", "pass", created_at=f"2026-01-0{day}T03:00:00+00:00"), tmp_path)

    assert [run.run_id for run in window(tmp_path, DEVICE, "nightly", 3)] == ["day-2", "day-3", "day-4"]
    assert len(list(window_folder(tmp_path, DEVICE, "nightly").iterdir())) == 4


def test_a_window_begins_anew_where_that_was_said(tmp_path: Path) -> None:
    for day in (1, 2, 3):
        path = night(tmp_path, f"day-{day}", "pass", created_at=f"2026-01-0{day}T03:00:00+00:00")
        bless(path, tmp_path, anew=day == 2)

    assert [run.run_id for run in window(tmp_path, DEVICE, "nightly", 10)] == ["day-2", "day-3"]


def test_the_command_prints_the_file_and_says_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    night(tmp_path, "one", environment=GPU)
    options = ["--results", tmp_path, "--device", "nvidia-h100-80gb-hbm3-x1"]

    done = command("bless", "one", *options, "--reason", "the first", cwd=tmp_path)
    refused = command("bless", "two", *options, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).exists()
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)


def test_an_open_suspicion_and_launches_that_were_to_confirm_one_are_taken_by_force_only(tmp_path: Path) -> None:
    suspicious = night(tmp_path, "suspicious")
    (suspicious / VERDICT).write_bytes(orjson.dumps({"answer": "cannot tell", "counts": {"suspicion": 1}}))
    further = night(tmp_path, "further", confirms="suspicious")

    with pytest.raises(UsageError, match="not confirmed or refuted"):
        bless(suspicious, tmp_path)
    with pytest.raises(UsageError, match="was played because something in suspicious was suspicious"):
        bless(further, tmp_path)
    assert bless(suspicious, tmp_path, force=True, reason="known").exists()
