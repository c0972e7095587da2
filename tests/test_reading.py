"""Reading a run by columns says what reading it record by record says."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness
from harness.analysis import lines
from harness.errors import StoreError
from harness.metrics import METRICS, itl_s
from harness.records import Cell, Roofline, TurnRecord
from harness.store import read, settled
from tests.builders import failed, manifest, plan, store, ticked, turn
from tests.test_records import records

PLAN = plan(["pico", "nano"], conversations={"physics": 2, "memory": 3}, repeats=2, concurrency=[1, 4])
ROOFLINE = {
    "weight_bytes_per_token": 1_000_000,
    "kv_bytes_per_token": 1_000,
    "flops_per_token": 2_000,
    "attention_flops_per_token_pair": 10,
    "copy_bytes_per_s": 1e9,
    "matrix_flops_per_s": 1e8,
    "fits_in_cache": False,
}
KEYS = ["model", "sampling", "concurrency", "conversation_id", "launch", "repeat", "turn_index"]
ticks = st.lists(st.tuples(st.integers(0, 10**10), st.integers(1, 3)), max_size=4)


@st.composite
def written(draw: st.DrawFn) -> TurnRecord:
    """Any record of a cell of the plan, in any attempt and any order."""
    record = draw(records)
    cell = Cell(
        draw(st.sampled_from(["pico", "nano"])),
        "greedy",
        draw(st.sampled_from(["physics", "memory"])),
        draw(st.integers(0, 1)),
        0,
        draw(st.sampled_from([1, 4])),
    )
    around = replace(record.circumstances, cell=cell, attempt=draw(st.integers(0, 2)))
    return replace(
        record,
        circumstances=around,
        turn_index=draw(st.integers(0, 2)),
        started_at=draw(st.integers(0, 2**31)) / 1,
        stamps=ticked(record.stamps, *sorted(draw(ticks))),
        visible_ids=draw(st.none() | st.integers(1, 9)),
    )


def slowly(path: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Every turn that counts, by its place in the plan."""
    stored = read(path)
    planned = {conversation["id"]: conversation["turns"] for conversation in PLAN["conversations"]}
    counting = settled(stored.records, planned, PLAN["on_overflow"])
    return {
        tuple({**_cell(cell), "turn_index": record.turn_index}[key] for key in KEYS): _row(record)
        for cell, turns in counting.items()
        for record in turns
        if record.turn_index in planned[cell.conversation_id]
    }


def _cell(cell: Cell) -> dict[str, Any]:
    return {name: getattr(cell, name) for name in KEYS if name != "turn_index"}


def _row(record: TurnRecord) -> dict[str, Any]:
    roofline = Roofline(**ROOFLINE) if record.circumstances.cell.model == "pico" else None
    return {
        "state": "failed" if record.failure else "done",
        "reply": record.reply,
        "error": record.failure.kind if record.failure else None,
        "checks_passed": sum(check.passed for check in record.checks) if record.checks else None,
        "notices": list(record.notices),
        "itl_s": itl_s(record),
        **{name: metric.formula(record, roofline) for name, metric in METRICS.items()},
    }


@settings(deadline=None, max_examples=60)  # the machine may be busy
@given(st.lists(written(), max_size=12))
def test_columns_say_what_records_say(told: list[TurnRecord]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        launches = [{**entry, "roofline": ROOFLINE} for entry in manifest(PLAN)["launches"] if entry["model"] == "pico"]
        path = store(Path(folder), told, PLAN, launches=launches)
        turns = harness.load(path).turns
        expected = slowly(path)

    rows = {tuple(row[key] for key in KEYS): row for row in turns.to_dict("records")}
    assert len(rows) == len(turns) == 2 * 2 * 2 * 5  # models × levels × repeats × turns
    answered = {place: row for place, row in rows.items() if row["state"] in ("done", "failed")}
    assert answered.keys() == expected.keys()
    for place, row in answered.items():
        for name, value in expected[place].items():
            seen = row[name] if isinstance(row[name], list) or not pd.isna(row[name]) else None
            assert seen == (pytest.approx(value, rel=1e-12) if isinstance(value, float) else value), name


def test_the_line_that_is_no_record_is_named(tmp_path: Path) -> None:
    path = store(tmp_path, [turn(), turn(index=1)])
    with (path / "turns.jsonl").open("ab") as file:
        file.write(b'{"circumstances": {}}\n')

    with pytest.raises(StoreError, match=r"turns\.jsonl:3:1: not a turn record"):
        harness.load(path)


@pytest.mark.parametrize("size", [1, 1000, 3000])
def test_lines_are_whole_whatever_is_read_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    of = plan(conversations={"physics": 8})
    path = store(tmp_path, [turn(index=index, reply=f"word {index} " * 100 * index) for index in range(8)], of)
    whole = harness.load(path).turns
    monkeypatch.setattr(lines, "_BLOCK", size)

    pd.testing.assert_frame_equal(harness.load(path).turns, whole)
    assert set(whole["state"]) == {"done"}


@pytest.mark.parametrize("torn", [b"", b"{", b"x" * 5000])
@pytest.mark.parametrize("size", [100, 10_000])
def test_a_torn_line_is_left_out_however_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: bytes, size: int
) -> None:
    path = store(tmp_path, [turn(), failed(index=1)])
    with (path / "turns.jsonl").open("ab") as file:
        file.write(torn)
    monkeypatch.setattr(lines, "_BLOCK", size)

    assert list(harness.load(path).turns["state"]) == ["done", "failed"]
