"""The ledger of phases: it balances, turn by turn and setting by setting."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness
from harness.analysis.phases import by_phase
from harness.metrics import METRICS, PHASES
from harness.records import Stamps
from tests.builders import MS, cell, failed, plan, store, turn

BEGUN = st.integers(0, 10**12)


@given(st.lists(BEGUN, min_size=5, max_size=5).map(sorted), st.integers(0, 10))
def test_the_phases_of_every_turn_add_up_to_the_whole(stamps: list[int], more: int) -> None:
    """Exactly, in whole nanoseconds; each phase in seconds is its nanoseconds."""
    templated, tokenized, first, generated, ready = stamps
    record = turn(stamps=Stamps(templated, tokenized, generated, ready, (first, *[generated] * more)))
    spent = [METRICS[name].formula(record) for name in PHASES]

    assert None not in spent
    assert sum(round(seconds * 1e9) for seconds in spent if seconds is not None) == ready
    assert METRICS["e2e_s"].formula(record) == ready / 1e9


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(st.integers(3, 500), st.integers(0, 50), st.integers(1, 20)), min_size=1, max_size=6))
def test_the_shares_of_a_setting_add_up_to_one(turns: list[tuple[int, int, int]]) -> None:
    records = [turn(index=index, ttft_ms=ttft, tpot_ms=tpot, ids=ids) for index, (ttft, tpot, ids) in enumerate(turns)]
    with tempfile.TemporaryDirectory() as folder:
        (row,) = by_phase(
            harness.load(store(Path(folder), records, plan(conversations={"physics": len(turns)})))
        ).to_dict("records")

    assert sum(row[f"{name}_share"] for name in PHASES) == pytest.approx(1)


def test_by_hand(tmp_path: Path) -> None:
    """Two turns, in ms: 1 + 2 + 7 + 9 + 1 = 20 and 1 + 2 + 17 + 9 + 1 = 30."""
    records = [turn(ttft_ms=10, tpot_ms=2), turn(index=1, ttft_ms=20, tpot_ms=2)]
    (row,) = by_phase(harness.load(store(tmp_path, records))).to_dict("records")

    assert row["turns"] == 2
    assert row["prefill_s_p50"] == pytest.approx((0.007 + 0.017) / 2)
    assert row["prefill_s_share"] == pytest.approx((7 + 17) / (20 + 30))
    assert row["template_s_share"] == pytest.approx(2 / 50)
    assert row["e2e_s_p50"] == pytest.approx(0.025)


def test_turns_without_all_phases_are_not_in_the_ledger(tmp_path: Path) -> None:
    unspoken = replace(turn(index=1), stamps=Stamps(1 * MS, 3 * MS), completion_tokens=0)
    of = plan(conversations={"physics": 3})
    (row,) = by_phase(harness.load(store(tmp_path, [turn(), unspoken, failed(index=2)], of))).to_dict("records")

    assert row["turns"] == 1


def test_a_setting_that_answered_nothing_has_a_row_of_nothing(tmp_path: Path) -> None:
    (row,) = by_phase(harness.load(store(tmp_path, [failed(cell())]))).to_dict("records")

    assert row["turns"] == 0
    assert pd.isna(row["prefill_s_share"])
    assert pd.isna(row["e2e_s_p50"])
