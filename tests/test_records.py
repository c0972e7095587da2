"""Records survive the disk, and files of every format version still read."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.records import (
    FORMAT,
    Cell,
    CheckResult,
    Circumstances,
    DeviceState,
    DeviceTurn,
    Failure,
    HostLoad,
    Memory,
    Stamps,
    TurnRecord,
    decode,
    short_hash,
    turn_seed,
)
from harness.store import read, rooflines
from tests.builders import checks, failed, turn

DATA = Path(__file__).parent / "data"

text = st.text(max_size=20)
whole = st.integers(0, 2**53)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


seconds = st.floats(0, 1e6)
states = st.builds(
    DeviceState,
    *[maybe(whole)] * 3,
    power_w=maybe(seconds),
    throttle=maybe(st.lists(text, max_size=2).map(tuple)),
    processes=maybe(whole),
)
records = st.builds(
    TurnRecord,
    circumstances=st.builds(
        Circumstances,
        cell=st.builds(Cell, text, text, text, whole, whole, whole),
        history=st.sampled_from(["generated", "scripted", "fill"]),
        length=st.sampled_from(["natural", "fixed"]),
        engine=text,
        kv_cache=st.sampled_from(["reuse", "fresh"]),
        phase=st.sampled_from(["warmup", "measure"]),
        attempt=whole,
    ),
    turn_index=whole,
    seed=st.integers(0, 2**32 - 1),
    started_at=st.floats(0, 1e12),
    user=text,
    gold=maybe(text),
    reply=maybe(text),
    reasoning=maybe(text),
    finish_reason=maybe(st.sampled_from(["eos", "stop", "max_new_tokens", "max_length", "context", "error"])),
    failure=maybe(st.builds(Failure, text, text, text)),
    prompt_tokens=maybe(whole),
    cached_tokens=maybe(whole),
    completion_tokens=maybe(whole),
    completion_ids=st.lists(whole, max_size=5).map(tuple),
    tokens_left=maybe(whole),
    visible_ids=maybe(whole),
    answer_ids=maybe(whole),
    gold_tokens=maybe(whole),
    dropped_messages=whole,
    prompt_hash=maybe(text),
    stamps=st.builds(
        Stamps,
        *[maybe(whole)] * 4,
        st.lists(whole, max_size=5).map(tuple),
        maybe(st.lists(whole, max_size=5).map(tuple)),
    ),
    memory=st.builds(Memory, *[maybe(whole)] * 4),
    kv_cache_bytes=maybe(whole),
    devices=st.lists(st.builds(DeviceTurn, text, *[maybe(whole)] * 4, before=states, after=states), max_size=2).map(
        tuple
    ),
    host_load=maybe(st.builds(HostLoad, seconds, seconds, seconds)),
    batch_size=whole,
    paired=st.booleans(),
    checks=st.lists(st.builds(CheckResult, text, st.booleans(), text), max_size=3).map(tuple),
    notices=st.lists(text, max_size=3).map(tuple),
)


@settings(deadline=None)  # the machine may be busy
@given(records)
def test_what_is_written_is_what_is_read(record: TurnRecord) -> None:
    assert decode(orjson.loads(orjson.dumps(record))) == record


@pytest.mark.parametrize("name", [field.name for field in fields(TurnRecord)])
def test_a_line_without_a_field_is_refused(name: str) -> None:
    line = orjson.loads(orjson.dumps(turn()))
    del line[name]

    with pytest.raises(KeyError, match=name):
        decode(line)


def test_a_run_of_format_1_still_reads() -> None:
    run = read(DATA / "run-v1")

    assert run.manifest["format"] == 1
    assert [type(record) for record in run.records] == [TurnRecord] * len(run.records)
    assert run.records[0].circumstances == Circumstances(
        Cell("pico", "greedy", "physics", 0, 0), "generated", "natural", "generate", "reuse", phase="warmup"
    )
    assert run.records[1].checks == checks(True, False)
    assert run.records[1].stamps.ticks[0] == (10_000_000, 1)
    assert [record.failure.kind for record in run.records if record.failure] == ["OutOfMemoryError"]


def test_a_run_of_format_2_reads() -> None:
    run = read(DATA / "run-v2")
    told = run.records[1]

    assert run.manifest["format"] == 2
    assert told.stamps.ticks[0] == (10_000_000, 1)
    assert told.devices[0].after == DeviceState(1980, 2619, 61, 402.5, ("sw_power_cap",), 1)
    assert told.host_load == HostLoad(0.021, 0.02, 0.03)
    assert (told.kv_cache_bytes, told.batch_size, told.paired) == (1_234_567, 1, True)
    assert rooflines(run.manifest)["pico", 0].copy_bytes_per_s == 4.0e12


def test_every_format_up_to_today_has_a_stored_run() -> None:
    assert [(DATA / f"run-v{version}").is_dir() for version in range(1, FORMAT + 1)] == [True] * FORMAT


def test_a_failed_record_keeps_why() -> None:
    record = failed()

    assert decode(orjson.loads(orjson.dumps(record))).failure == record.failure


def test_seeds_are_paired_between_settings_and_differ_between_turns_and_repeats() -> None:
    assert turn_seed(0, "physics", 1, 2) == turn_seed(0, "physics", 1, 2)
    assert (
        len({turn_seed(base, id_, i, r) for base in (0, 1) for id_ in "ab" for i in range(3) for r in range(3)}) == 36
    )


def test_seeds_are_the_same_in_every_version() -> None:
    """The first 32 bits of SHA-256 of `0/physics/0/0`; a run can be repeated years later."""
    assert turn_seed(0, "physics", 0, 0) == 2517700336


def test_a_hash_is_sixteen_hex_digits_of_sha256() -> None:
    assert short_hash(b"") == "e3b0c44298fc1c14"
