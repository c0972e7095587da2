"""What goes wrong in a night: each ends with the right answer and exit code, and loses nothing."""

from __future__ import annotations

import errno
import shutil
import signal
import time
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import harness
from harness import chat
from harness.analysis.baselines import history_file
from harness.analysis.nights import find_nights
from harness.errors import DocumentError, StoreError
from harness.runner.messages import CellDone, TurnDone, WorkerStarted
from harness.store import TURNS, RunWriter, read, read_manifest
from harness.studies import nightly as module
from harness.studies.nightly import Night
from tests.commands import harness as command
from tests.commands import start_harness
from tests.recited_nights import answers, bless_some, furnish, play, recital

DATA = Path(__file__).parent / "data"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return furnish(tmp_path, monkeypatch)


@pytest.fixture
def with_window(here: Path) -> Path:
    bless_some(play(here, run_id="first"), here / "results")
    return here


def watching(see: Any) -> Any:
    """A watch, as `nightly` takes it."""

    @contextmanager
    def playing(plan: Any) -> Any:
        yield see

    return playing


def reason(night: Night, model: str, name: str) -> str:
    return next(each.reason for each in night.gate.verdicts if (each.model, each.name) == (model, name))


def test_a_gpu_that_disappears_in_the_middle_is_red_and_the_turns_before_it_are_kept(with_window: Path) -> None:
    lost = "breakdown: {turn: 1, kind: AcceleratorError, message: 'CUDA error: device unavailable'}\n"
    (with_window / "two.yaml").write_text(recital(more=lost))

    night = play(with_window, run_id="second")

    assert night.exit_code(strict=False) == 3
    assert answers(night)["two", "failures"] == "regression"
    assert "2 × AcceleratorError in prefill (CUDA error: device unavailable)" in reason(night, "two", "failures")
    assert answers(night)["one", "failures"] == answers(night)["one", "checks"] == "pass"
    assert Counter(harness.load(night.kept).turns["state"]) == {"done": 6, "failed": 2}


def test_half_of_the_turns_failing_is_red_also_on_a_first_night_and_without_a_rule(here: Path) -> None:
    for name in ("one.yaml", "two.yaml"):
        (here / name).write_text(recital(more="breakdown: {turn: 0}\n"))

    first = play(here, run_id="first")
    without = play(here, "gate.rules={tpot_s: auto}", run_id="second")

    for night in (first, without):
        assert night.gate.answer == "some failed"
        assert night.exit_code(strict=False) == 6
        assert Counter(harness.load(night.kept).turns["state"]) == {"failed": 4, "not_reached": 4}


def test_a_model_that_cannot_be_loaded_costs_its_own_cells_only(with_window: Path) -> None:
    def lose(event: Any) -> None:
        if isinstance(event, WorkerStarted) and event.model == "two":
            (with_window / "two.yaml").unlink(missing_ok=True)

    night = play(with_window, run_id="second", playing=watching(lose))

    assert night.exit_code(strict=False) == 3
    assert answers(night)["two", "failures"] == "regression"
    assert answers(night)["one", "tpot_s.p50"] == "pass"
    assert (harness.load(night.kept).turns["model"] == "two").sum() == 4


def test_a_model_that_is_no_longer_there_is_said_before_anything_is_played(with_window: Path) -> None:
    (with_window / "two.yaml").unlink()

    with pytest.raises(DocumentError, match=r"two\.yaml") as raised:
        play(with_window, run_id="second")
    assert raised.value.exit_code == 2
    assert not (with_window / "results" / "second").exists()


def test_a_disk_that_fills_ends_the_night_and_the_same_command_completes_it(
    with_window: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, room = RunWriter.append, [5]

    def until_full(self: RunWriter, record: Any) -> None:
        room[0] -= 1
        self._guarded(_no_room if room[0] < 0 else lambda: append(self, record))

    monkeypatch.setattr(RunWriter, "append", until_full)
    with pytest.raises(StoreError, match="the disk is full – free some space") as raised:
        play(with_window)
    assert raised.value.exit_code == 2
    monkeypatch.setattr(RunWriter, "append", append)

    night = play(with_window)

    assert set(answers(night).values()) == {"pass"}
    assert len(read(night.path).records) >= 8
    assert (harness.load(night.kept).turns["state"] == "done").all()
    assert len(list((with_window / "results").glob("*/manifest.json"))) == 2


def _no_room() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_reports_that_cannot_be_written_change_no_verdict(with_window: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(run: Any) -> None:
        raise StoreError(str(run.path), "the disk is full")

    monkeypatch.setattr(module, "write_reports", full)

    night = play(with_window, run_id="second")

    assert [str(problem).partition(": ")[2] for problem in night.problems] == ["the disk is full"]
    assert night.exit_code(strict=True) == 0
    assert (night.path / "verdict.json").exists()


def test_a_baseline_of_another_driver_is_compared_and_named_as_a_suspect(here: Path) -> None:
    night = play(here, run_id="first")
    environment = {**read_manifest(night.path)["environment"], "gpu_driver": "570.1"}
    bless_some(night, here / "results", environment=environment)
    (here / "two.yaml").write_text(recital(token_s=0.008))

    red = play(here, run_id="second")

    assert red.exit_code(strict=False) == 3
    (verdict,) = red.gate.of("regression")
    assert "GPU driver 570.1 → none" in verdict.suspects
    assert set(red.gate.ledger["field"]) == {"GPU driver"}
    assert answers(red)["one", "tpot_s.p50"] == "pass"


def test_a_baseline_of_another_gpu_is_not_comparable(here: Path) -> None:
    night = play(here, run_id="first")
    environment = {**read_manifest(night.path)["environment"], "gpus": [{"name": "NVIDIA A", "memory_bytes": 1}]}
    bless_some(night, here / "results", environment=environment)

    other = play(here, run_id="second")

    assert other.exit_code(strict=False) == 5
    assert answers(other)["one", "tpot_s.p50"] == "not comparable"
    assert "GPU NVIDIA A → none" in reason(other, "one", "tpot_s.p50")
    assert other.kept.exists()


def test_a_clock_that_was_set_back_makes_a_night_of_its_own(with_window: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = with_window / "results"
    with pytest.raises(KeyboardInterrupt):
        play(with_window, playing=watching(_stop_after(1)))
    (killed,) = [path for path in results.glob("*/manifest.json") if path.parent.name != "first"]
    with RunWriter(killed.parent, dict(read_manifest(killed.parent))) as writer:  # as if begun in three days
        writer.manifest["created_at"] = (datetime.now(UTC) + timedelta(days=3)).isoformat()
        writer.save_manifest()
    ticking = iter(range(2_000_000_000, 0, -3600))
    monkeypatch.setattr(chat, "time", type("Clock", (), {"time": staticmethod(lambda: float(next(ticking)))}))

    night = play(with_window)

    assert night.path.name != killed.parent.name
    assert set(answers(night).values()) == {"pass"}
    assert killed.exists()
    assert {path.stem for path in find_nights(results / "history")} == {"first", night.path.name}


def test_two_nights_begun_in_one_second_have_two_names(with_window: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Standing(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime(2026, 11, 1, 3, tzinfo=tz)

    monkeypatch.setattr(module, "datetime", Standing)

    names = [play(with_window).path.name for _ in range(2)]

    assert names[1] == f"{names[0]}-2"


def _stop_after(conversations: int) -> Any:
    left = [conversations]

    def see(event: Any) -> None:
        left[0] -= isinstance(event, CellDone)
        if left[0] < 0 or (left[0] == 0 and isinstance(event, CellDone)):
            raise KeyboardInterrupt

    return see


def test_a_night_killed_at_nine_tenths_is_completed_by_the_same_command(here: Path) -> None:
    options = ["nightly", "nightly.yaml", "-q", "--set", "launches=1", "--set", "repeats=9"]
    for name in ("one.yaml", "two.yaml"):
        (here / name).write_text(recital(token_s=0.001))
    process = start_harness(*options, cwd=here)
    while not (lines := _lines(here / "results")) or lines < 0.9 * 36:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()

    done = command(*options, cwd=here)

    assert done.returncode == 0, done.stderr
    (path,) = (here / "results").glob("2*/manifest.json")
    assert done.stdout.splitlines() == [f"results/{path.parent.name}"]
    turns = harness.load(history_file(here / "results", path.parent.name)).turns
    assert (turns["state"] == "done").all()
    assert len(turns) == 36
    assert max(Counter(
        (record.circumstances.cell, record.turn_index) for record in read(path.parent).records
    ).values()) <= 2  # but for the conversation in flight nothing was played twice  # fmt: skip


def _lines(results: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in results.glob(f"*/{TURNS}"))


def test_a_night_ended_before_its_verdict_is_judged_by_the_same_command_and_not_played_again(
    with_window: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(run: Any) -> None:
        raise SystemExit(143)

    monkeypatch.setattr(module, "write_reports", ended)
    with pytest.raises(SystemExit):
        play(with_window)
    monkeypatch.setattr(module, "write_reports", lambda run: [])
    (name,) = {path.stem for path in find_nights(with_window / "results" / "history")} - {"first"}
    seen: list[Any] = []

    night = play(with_window, playing=watching(seen.append))

    assert night.path.name == name
    assert not any(isinstance(event, TurnDone) for event in seen)
    assert set(answers(night).values()) == {"pass"}
    assert play(with_window, playing=watching(seen.append)).path.name != name  # the next night is another one


def test_a_night_ended_while_it_confirms_goes_on_with_that(with_window: Path) -> None:
    (with_window / "two.yaml").write_text(recital(token_s=0.008))
    with pytest.raises(KeyboardInterrupt):
        play(with_window, playing=watching(_stop_after(5)))  # four of the night itself

    night = play(with_window)

    assert night.exit_code(strict=False) == 3
    assert len(list((with_window / "results").glob("*-confirm*"))) == 1
    assert len(night.gate.confirmed_by) == 1


def test_two_nights_at_once_do_not_measure_each_other(with_window: Path) -> None:
    refused = []

    def intrude(event: Any) -> None:
        if isinstance(event, WorkerStarted) and not refused:
            with pytest.raises(StoreError, match="another night is under way – wait for it, or stop it") as raised:
                play(with_window, run_id="other")
            refused.append(raised.value.exit_code)

    night = play(with_window, run_id="second", playing=watching(intrude))

    assert refused == [2]
    assert set(answers(night).values()) == {"pass"}
    assert not (with_window / "results" / "other").exists()


def test_nights_of_an_older_format_in_history_and_window_do_no_harm(with_window: Path) -> None:
    results = with_window / "results"
    shutil.copy(DATA / "night-v1.parquet", results / "history" / "old.parquet")
    (results / "history" / "torn.parquet").write_bytes(b"PAR1")
    old = results / "ancient"
    old.mkdir()
    (old / "manifest.json").write_text('{"format": 1}')
    (blessed,) = list(results.glob("baselines/*/nightly/day-1.parquet"))
    table = pq.read_table(blessed)  # as a version before that knew less of a turn
    metadata = pq.read_metadata(blessed).metadata
    with pq.ParquetWriter(blessed, table.drop_columns(["kv_cache_bytes", "notices"]).schema) as writer:
        writer.write_table(table.drop_columns(["kv_cache_bytes", "notices"]))
        writer.add_key_value_metadata({key: value for key, value in metadata.items() if key != b"ARROW:schema"})

    night = play(with_window, run_id="second")

    assert set(answers(night).values()) == {"pass"}
    assert [run.run_id for run in night.gate.baseline] == ["day-1", "day-2", "day-3"]


def test_a_window_that_another_plan_was_blessed_into_is_not_comparable(here: Path) -> None:
    bless_some(play(here, run_id="first"), here / "results")

    night = play(here, "sampling.max_new_tokens=4", run_id="second")

    assert night.exit_code(strict=False) == 5
