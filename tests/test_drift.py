"""A machine that slows down while a run goes on is found, and other differences are not taken for it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from harness.analysis.drift import drifts
from harness.analysis.notes import notes
from harness.records import Cell, TurnRecord
from tests.builders import every_turn, plan, run_of, turn


def drifting(slower: float, of: dict[str, Any]) -> list[TurnRecord]:
    """Every repeat takes `slower` more of the first one's time than the one before; launches differ by 30 %."""

    def make(of_cell: Cell, index: int) -> TurnRecord:
        tpot_ms = round(1000 * (1 + 0.3 * of_cell.launch) * (1 + slower * of_cell.repeat)) + of_cell.repeat % 3
        started = 1e9 + 1000 * of_cell.launch + 10 * of_cell.repeat + (of_cell.conversation_id == "memory") * 3 + index
        return turn(of_cell, index, tpot_ms=tpot_ms, started_at=started)

    return every_turn(of, make)


def test_a_machine_that_slows_down_is_found(tmp_path: Path) -> None:
    of = plan(conversations={"physics": 2, "memory": 2}, repeats=6, launches=2)
    run = run_of(tmp_path, drifting(0.02, of), of)

    (drift,) = drifts(run)
    assert drift.change == pytest.approx(1.09 / 1.01 - 1, abs=0.01)  # repeats 4 and 5 against 0 and 1
    assert drift.matters
    assert any(re.search(r"pico is unstable \(drift\): a token took (7|8|9) % more time", note) for note in notes(run))


def test_launches_that_merely_differ_are_no_drift(tmp_path: Path) -> None:
    of = plan(conversations={"physics": 2, "memory": 2}, repeats=6, launches=2)
    run = run_of(tmp_path, drifting(0.0, of), of)

    assert not any(drift.matters for drift in drifts(run))


def test_a_slow_setting_played_last_is_no_drift(tmp_path: Path) -> None:
    of = plan(samplings=["quick", "slow"], conversations={"physics": 2}, repeats=8)

    def make(of_cell: Cell, index: int) -> TurnRecord:
        slow = of_cell.sampling == "slow"
        tpot_ms = (2000 if slow else 1000) + of_cell.repeat * 3 % 8
        return turn(of_cell, index, tpot_ms=tpot_ms, started_at=1e9 + 100 * slow + 10 * of_cell.repeat + index)

    assert not any(drift.matters for drift in drifts(run_of(tmp_path, every_turn(of, make), of)))


def test_without_repeats_there_is_no_drift_to_see(tmp_path: Path) -> None:
    of = plan(conversations={"physics": 4})

    assert drifts(run_of(tmp_path, every_turn(of), of)) == []
