"""A run as one small file: what comes back is the run, and what cannot be read is said."""

from __future__ import annotations

import shutil
from pathlib import Path

import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import harness
from harness.analysis.columns import COLUMNS
from harness.analysis.divergence import divergence
from harness.analysis.fairness import fairness
from harness.analysis.flips import flips
from harness.analysis.frames import Run
from harness.analysis.nights import NIGHT_FORMAT, find_nights, forced_lines, keep
from harness.analysis.pairing import work
from harness.analysis.scores import scores
from harness.analysis.sides import across
from harness.analysis.summary import by_setting
from harness.errors import StoreError
from harness.records import Cell, TurnRecord
from harness.store import FORCED
from tests.builders import checks, every_turn, failed, plan, store, turn

DATA = Path(__file__).parent / "data"
SAID = "Newton's laws say how a body moves when a force acts on it, and that every force has one against it. "


def _night_of(results: Path, run_id: str = "a-run", **values: object) -> Path:
    return keep(
        harness.load(store(results, every_turn(plan()), run_id=run_id, **values)), results / f"{run_id}.parquet"
    )


def _with(path: Path, table: pa.Table | None = None, **told: str | None) -> Path:
    """The night file with another table, or with other metadata; without what is None."""
    about = {key.decode(): value.decode() for key, value in pq.read_metadata(path).metadata.items()} | told
    table = pq.read_table(path) if table is None else table
    with pq.ParquetWriter(path, table.schema.remove_metadata(), store_schema=False) as writer:
        writer.write_table(table.replace_schema_metadata(None))
        writer.add_key_value_metadata({name: value for name, value in about.items() if value is not None})
    return path


@pytest.mark.parametrize("stored", ["run-v1", "run-v2"])
def test_a_night_is_the_run_without_the_gaps_between_ids(stored: str, tmp_path: Path) -> None:
    run = harness.load(DATA / stored)
    night = harness.load(keep(run, tmp_path / "made" / "on the way" / "n.parquet"))

    assert (night.run_id, night.manifest, night.superseded) == (run.run_id, run.manifest, run.superseded)
    pd.testing.assert_frame_equal(night.turns.drop(columns="itl_s"), run.turns.drop(columns="itl_s"))
    pd.testing.assert_frame_equal(night.launches, run.launches)
    assert night.turns["itl_s"].isna().all()
    assert list(night.turns.dtypes) == list(run.turns.dtypes)
    assert (len(night.warmup), list(night.warmup.columns), len(night.samples)) == (0, list(run.warmup.columns), 0)
    assert (run.kept, night.kept) == (False, True)


def test_tables_comparisons_and_flips_of_a_night_are_those_of_its_run(tmp_path: Path) -> None:
    of = plan(["pico", "nano"], ["greedy", "warm"], {"physics": 2, "memory": 1}, launches=2)
    runs = [
        harness.load(store(tmp_path, [_said(record, word) for record in every_turn(of)], of, run_id=word))
        for word in ("yes", "no")
    ]
    nights = [harness.load(keep(run, tmp_path / f"{run.run_id}.parquet")) for run in runs]

    pd.testing.assert_frame_equal(by_setting(nights[0]), by_setting(runs[0]))
    pd.testing.assert_frame_equal(harness.compare(*nights).rows, harness.compare(*runs).rows)
    for ours, theirs in zip(across(*nights)[0], across(*runs)[0], strict=True):
        assert fairness(ours, work(ours)) == fairness(theirs, work(theirs))
        pd.testing.assert_frame_equal(flips(ours), flips(theirs))


def _said(record: TurnRecord, word: str) -> TurnRecord:
    return turn(record.circumstances.cell, record.turn_index, reply=f"{word}.", checks=checks(word == "yes"))


def test_what_is_not_kept_is_not_there(tmp_path: Path) -> None:
    of = plan(samplings={"greedy": {"do_sample": False}, "warm": {"do_sample": True}})
    run = harness.load(store(tmp_path, every_turn(of), of))
    night = harness.load(keep(run, tmp_path / "n.parquet"))

    assert not pd.isna(divergence(run).differs).all()
    assert pd.isna(divergence(night).differs).all()
    assert len(scores(night)) == 0


def test_a_night_may_be_kept_again(tmp_path: Path) -> None:
    run = _forced(tmp_path, [{"of": "blessed"}])
    once = keep(run, tmp_path / "once.parquet")
    again = keep(harness.load(once), tmp_path / "again.parquet")

    assert again.read_bytes() == once.read_bytes()


def test_a_night_keeps_how_likely_replies_were(tmp_path: Path) -> None:
    lines = [{"of": "blessed", "logprobs": [-0.25, -1.5]}, {"of": None}]
    run = _forced(tmp_path, lines)

    assert forced_lines(run) == lines
    assert forced_lines(harness.load(keep(run, tmp_path / "n.parquet"))) == lines
    assert forced_lines(harness.load(_night_of(tmp_path, "other"))) == []


def _forced(results: Path, lines: list[dict[str, object]]) -> Run:
    path = store(results, every_turn(plan()))
    (path / FORCED).write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines) + b'{"torn')
    return harness.load(path)


def test_failed_and_missing_turns_stay_what_they_are(tmp_path: Path) -> None:
    of = plan(conversations={"physics": 2, "memory": 1})
    path = store(tmp_path, [failed(Cell("pico", "greedy", "physics", 0, 0))], of)
    night = harness.load(keep(harness.load(path), tmp_path / "n.parquet"))

    assert list(night.turns["state"]) == ["failed", "not_reached", "missing"]


def test_a_night_of_thirty_turns_in_five_launches_is_small(tmp_path: Path) -> None:
    of = plan(["pico"], ["greedy"], {f"c{number}": 5 for number in range(6)}, launches=5, repeats=2)
    records = [
        turn(record.circumstances.cell, record.turn_index, ids=64, ttft_ms=10 + n, tpot_ms=2 + n, reply=SAID * 3)
        for n, record in enumerate(every_turn(of))
    ]
    night = keep(harness.load(store(tmp_path, records, of)), tmp_path / "n.parquet")

    assert night.stat().st_size < 100_000


def test_nights_are_found_in_the_order_in_which_they_began(tmp_path: Path) -> None:
    for run_id, day in (("c", 3), ("a", 2), ("b", 11)):
        _night_of(tmp_path, run_id, created_at=f"2026-01-{day:02}T03:04:05+00:00")

    assert [path.stem for path in find_nights(tmp_path)] == ["a", "c", "b"]
    assert find_nights(tmp_path / "nowhere") == []


def test_a_column_that_an_older_night_has_not_is_absent(tmp_path: Path) -> None:
    path = _night_of(tmp_path)
    _with(path, pq.read_table(path).drop_columns(["kv_cache_bytes", "checks", "ttft_s"]))
    night = harness.load(path)

    assert list(night.turns.columns) == [column.name for column in COLUMNS]
    assert night.turns[["kv_cache_bytes", "checks", "ttft_s"]].isna().all(axis=None)
    assert str(night.turns["ttft_s"].dtype) == "Float64"


def test_a_column_that_this_version_does_not_know_is_passed_over(tmp_path: Path) -> None:
    path = _night_of(tmp_path)
    table = pq.read_table(path)
    _with(path, table.append_column("feeling", pa.array(["good"] * len(table))))

    assert list(harness.load(path).turns.columns) == [column.name for column in COLUMNS]


class TestRefusals:
    """In one line, and never by leaving a night out."""

    def _refused(self, path: Path) -> str:
        with pytest.raises(StoreError) as one:
            harness.load(path)
        if path.exists():
            with pytest.raises(StoreError) as all_of_them:
                find_nights(path.parent)
            assert str(all_of_them.value) == str(one.value)
        assert "\n" not in str(one.value)
        return str(one.value)

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        assert "n.parquet: cannot be read: " in self._refused(tmp_path / "n.parquet")

    def test_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "n.parquet").write_text("nothing of the kind")
        assert "n.parquet: cannot be read: " in self._refused(tmp_path / "n.parquet")

    def test_half_a_file(self, tmp_path: Path) -> None:
        path = _night_of(tmp_path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert "cannot be read: " in self._refused(path)

    def test_a_table_that_is_no_night(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"a": [1]}), tmp_path / "n.parquet")
        assert "not a night file – " in self._refused(tmp_path / "n.parquet")

    def test_a_later_format(self, tmp_path: Path) -> None:
        path = _with(_night_of(tmp_path), night_format=str(NIGHT_FORMAT + 1))
        assert "night format 2, this version reads 1 – use a matching version" in self._refused(path)

    def test_a_run_of_a_later_format(self, tmp_path: Path) -> None:
        path = _with(_night_of(tmp_path), manifest='{"format": 99}', launches="[]")
        with pytest.raises(StoreError, match="holds a run of a format that this version cannot read"):
            harness.load(path)

    def test_metadata_that_is_not_there_or_makes_no_sense(self, tmp_path: Path) -> None:
        for told in ({"manifest": None}, {"manifest": "{"}, {"launches": "[7]"}, {"superseded": "some"}):
            with pytest.raises(StoreError, match="cannot be read: "):
                harness.load(_with(_night_of(tmp_path / str(told)), **told))

    def test_a_page_that_was_changed_on_the_disk(self, tmp_path: Path) -> None:
        path = _night_of(tmp_path)
        text = bytearray(path.read_bytes())
        text[len(text) // 8] ^= 0xFF
        path.write_bytes(text)
        with pytest.raises(StoreError, match="cannot be read: "):
            harness.load(path)

    def test_a_place_that_cannot_be_written(self, tmp_path: Path) -> None:
        run = harness.load(_night_of(tmp_path))
        (tmp_path / "file").touch()
        with pytest.raises(StoreError, match=r"cannot be written: .* – choose another place"):
            keep(run, tmp_path / "file" / "n.parquet")

    def test_forced_lines_that_are_none(self, tmp_path: Path) -> None:
        path = store(tmp_path, every_turn(plan()))
        (path / FORCED).write_text("hello\n")
        with pytest.raises(StoreError, match="holds a line that is not JSON"):
            keep(harness.load(path), tmp_path / "n.parquet")


def test_the_first_format_is_read_for_ever(tmp_path: Path) -> None:
    """The golden file of night format 1; kept by the first version that wrote any."""
    shutil.copy(DATA / "night-v1.parquet", tmp_path)
    (path,) = find_nights(tmp_path)
    night = harness.load(path)

    assert night.run_id == "golden"
    assert list(night.turns["state"]) == ["done", "done", "failed", "not_reached", "done", "done"]
    assert night.turns["ttft_s"].dropna().tolist() == pytest.approx([0.01, 0.02, 0.01, 0.02])
    assert night.turns["reply"][0] == "The study of motion."
    assert (night.launches["first_turn_s"][0], night.launches["load_s"][1]) == (pytest.approx(0.02), 1.5)
    assert forced_lines(night) == [{"of": "golden", "logprobs": [-0.5]}]
