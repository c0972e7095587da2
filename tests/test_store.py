"""The store loses nothing that was told and counts nothing twice."""

from __future__ import annotations

import errno
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import store
from harness.errors import StoreError
from harness.records import FORMAT, TurnRecord
from tests.builders import cell, failed, manifest, plan, turn


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A disk that fills up: a write that would pass `size` is cut short, the next one fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def create(results: Path, run_id: str = "a-run") -> store.RunWriter:
    return store.create(results, run_id, manifest(plan()))


def test_what_is_appended_is_read_back_in_order(tmp_path: Path) -> None:
    records = (turn(index=0), turn(index=1), failed(cell(repeat=1)))
    with create(tmp_path) as writer:
        for record in records:
            writer.append(record)
        writer.sync()

    assert store.read(tmp_path / "a-run").records == records
    assert store.read(tmp_path / "a-run").run_id == "a-run"


def test_a_record_can_be_read_while_its_run_goes_on(tmp_path: Path) -> None:
    with create(tmp_path) as writer:
        writer.append(turn())

        assert store.read(writer.path).records == (turn(),)


def test_a_run_just_begun_has_a_manifest_and_no_turns(tmp_path: Path) -> None:
    with create(tmp_path) as writer:
        assert store.read(writer.path).records == ()
        assert store.read_manifest(writer.path)["format"] == FORMAT


@pytest.mark.parametrize("torn", [b"{", b'{"circumstances":{"cell":{"model":"pi', b"\x00\x00"])
def test_a_torn_line_is_left_out_then_cut_and_counted(tmp_path: Path, torn: bytes) -> None:
    with create(tmp_path) as writer:
        writer.append(turn())
    with (writer.path / store.TURNS).open("ab") as file:
        file.write(torn)

    assert store.read(writer.path).records == (turn(),)
    again, records = store.reopen(writer.path)
    with again:
        again.append(turn(index=1))

    assert records == (turn(),)
    assert store.read(writer.path).records == (turn(), turn(index=1))
    assert store.read_manifest(writer.path)["torn_lines"] == 1


def test_a_whole_last_line_is_not_torn(tmp_path: Path) -> None:
    with create(tmp_path) as writer:
        writer.append(turn())
    again, records = store.reopen(writer.path)
    again.close()

    assert records == (turn(),)
    assert "torn_lines" not in store.read_manifest(writer.path)


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    with create(tmp_path) as writer:
        writer.append(turn())
    with (writer.path / store.TURNS).open("ab") as file:
        file.write(b"{}\n")

    with pytest.raises(StoreError, match=r"turns\.jsonl:2:1: not a turn record"):
        store.read(writer.path)


def test_two_writers_are_refused(tmp_path: Path) -> None:
    with create(tmp_path) as writer, pytest.raises(StoreError, match="another process is writing"):
        store.reopen(writer.path)


def test_the_lock_goes_with_its_writer(tmp_path: Path) -> None:
    with create(tmp_path) as writer:
        pass

    store.reopen(writer.path)[0].close()


def test_a_run_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    create(tmp_path).close()

    with pytest.raises(StoreError, match="exists already – choose another --run-id, or --resume it"):
        create(tmp_path)


def test_a_place_that_cannot_be_written_is_found_at_once(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file, not a directory")

    with pytest.raises(StoreError, match="cannot be written") as raised:
        create(tmp_path / "results")
    assert raised.value.exit_code == 2


def test_a_nearly_full_disk_is_found_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2**40, 2**40, 1000))

    with pytest.raises(StoreError, match="only 1000 bytes free"):
        create(tmp_path)
    assert store.runs(tmp_path) == []


def test_a_disk_that_fills_up_loses_only_the_line_it_refused(tmp_path: Path) -> None:
    with create(tmp_path) as writer:
        writer.append(turn())
        size = (writer.path / store.TURNS).stat().st_size
        with files_of_at_most(size + 100), pytest.raises(StoreError, match="cannot be written"):
            writer.append(turn(index=1))

    again, records = store.reopen(writer.path)
    with again:
        again.append(turn(index=1))
    assert records == (turn(),)
    assert store.read(writer.path).records == (turn(), turn(index=1))


def test_a_full_disk_is_called_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, text: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with create(tmp_path) as writer:
        monkeypatch.setattr(store, "replace_file", refuse)
        with pytest.raises(StoreError, match="the disk is full – free some space, then: harness run --resume"):
            writer.save_manifest()


def test_a_directory_without_a_manifest_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"not a run: no manifest\.json"):
        store.read(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99}', "{}"])
def test_a_manifest_of_another_format_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / store.MANIFEST).write_text(text)

    with pytest.raises(StoreError, match=r"format|cannot be read"):
        store.read(tmp_path)


def test_a_manifest_is_replaced_in_one_step(tmp_path: Path) -> None:
    with create(tmp_path) as writer:
        writer.manifest["finished_at"] = None
        writer.save_manifest()

        assert sorted(path.name for path in writer.path.iterdir()) == [".lock", "manifest.json", "turns.jsonl"]
        assert store.read_manifest(writer.path)["finished_at"] is None


def test_runs_are_listed_by_name(tmp_path: Path) -> None:
    for name in ("b", "a"):
        create(tmp_path, name).close()
    (tmp_path / "not-a-run").mkdir()

    assert [path.name for path in store.runs(tmp_path)] == ["a", "b"]


PLANNED = {"physics": [0, 1, 2]}


def attempt(number: int, *ends: str) -> list[TurnRecord]:
    """The turns of one attempt, told by how each ended: ok, failed or full (cut off by max_length)."""
    around = {"attempt": number}
    return [
        failed(index=index, around=around)
        if end == "failed"
        else turn(index=index, around=around, finish_reason="max_length" if end == "full" else "eos")
        for index, end in enumerate(ends)
    ]


@pytest.mark.parametrize(
    ("ends", "on_overflow", "complete"),
    [
        (["ok", "ok", "ok"], "stop", True),
        (["ok", "ok"], "stop", False),
        (["ok", "failed"], "stop", True),
        (["failed"], "stop", True),
        (["ok", "full"], "stop", True),
        (["ok", "full"], "drop_oldest", False),
        (["ok", "full", "ok"], "drop_oldest", True),
    ],
)
def test_an_attempt_is_complete_when_its_conversation_came_to_an_end(ends, on_overflow, complete) -> None:
    turns = attempt(0, *ends)

    assert store.settled(turns, PLANNED, on_overflow) == ({cell(): turns} if complete else {})


def test_only_planned_turns_have_to_be_there() -> None:
    answered = [turn(index=1), turn(index=4)]

    assert store.settled(answered, {"physics": [1, 4]}, "stop") == {cell(): answered}


def test_warm_up_settles_nothing() -> None:
    warm = [turn(index=index, around={"phase": "warmup"}) for index in range(3)]

    assert store.settled(warm, PLANNED, "stop") == {}
    assert store.next_attempts(warm) == {}


def test_the_next_attempt_follows_the_last_one_of_the_same_cell() -> None:
    records = [*attempt(0, "ok"), *attempt(1, "ok")]

    assert store.next_attempts(records) == {cell(): 2}


endings = st.lists(st.sampled_from(["ok", "failed", "full"]), min_size=1, max_size=3)


@settings(deadline=None)  # the machine may be busy
@given(st.lists(endings, max_size=5), st.randoms())
def test_the_latest_complete_attempt_counts_alone_in_whatever_order_conversations_were_told(attempts, random) -> None:
    told = [attempt(number, *ends) for number, ends in enumerate(attempts)]
    complete = [turns for turns in told if store.settled(turns, PLANNED, "stop")]
    random.shuffle(told)

    counted = store.settled([record for turns in told for record in turns], PLANNED, "stop")

    assert counted == ({cell(): complete[-1]} if complete else {})
