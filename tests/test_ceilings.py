"""A utilisation that cannot be is said to be impossible, unless the ceiling does not hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import harness
from harness.analysis.ceilings import impossible
from harness.analysis.frames import Run
from harness.analysis.notes import notes
from harness.analysis.summary import by_setting
from harness.records import DeviceTurn
from harness.report.markdown import markdown
from tests.builders import cell, launch, plan, store, turn


def roofline(**values: Any) -> dict[str, Any]:
    """A decoded token reads 1 MB: at 2 ms a token 0.5 GB/s. A prompt of 20 in 7 ms is 20 · 7000 / 7 ms = 20 MFLOP/s."""
    return {
        "weight_bytes_per_token": 1_000_000,
        "kv_bytes_per_token": 0,
        "flops_per_token": 7_000,
        "attention_flops_per_token_pair": 0,
        "copy_bytes_per_s": 1e9,
        "matrix_flops_per_s": 40e6,
        "fits_in_cache": False,
        **values,
    }


def run_of(tmp_path: Path, of: dict[str, Any] | None = None, *records: Any, **ceilings: Any) -> Run:
    launches = [launch("pico", 0, roofline=roofline(**ceilings))]
    return harness.load(store(tmp_path, records or [turn(), turn(index=1)], of, launches=launches))


def test_shares_of_the_ceilings_are_in_the_summary_and_on_the_page(tmp_path: Path) -> None:
    devices = (DeviceTurn("cuda:0", energy_mj=10_000), DeviceTurn("cuda:1", energy_mj=5_000))
    run = run_of(tmp_path, None, turn(devices=devices, kv_cache_bytes=2**20), turn(index=1, kv_cache_bytes=2**21))
    (row,) = by_setting(run).to_dict("records")

    assert row["bandwidth_utilisation_p50"] == pytest.approx(0.5)
    assert row["prefill_flop_utilisation_p50"] == pytest.approx(0.5)
    assert (row["energy_j_p50"], row["energy_per_token_j_p50"]) == (15, 3)
    assert row["kv_cache_bytes"] == 2**21
    header, _, values = markdown(run).split("## Speed by setting\n\n")[1].splitlines()[:3]
    shown = dict(zip(header.split(" | "), values.split(" | "), strict=True))
    assert [shown[name] for name in ("of bandwidth", "of matrix rate", "J/turn", "J/token", "KV cache")] == [
        "50 %", "50 %", "15.0", "3.00", "2.00 MiB",
    ]  # fmt: skip


def test_what_is_possible_is_not_remarked_upon(tmp_path: Path) -> None:
    assert list(impossible(run_of(tmp_path, copy_bytes_per_s=0.48e9, matrix_flops_per_s=20e6))) == []


def test_more_than_the_bandwidth_is_impossible(tmp_path: Path) -> None:
    run = run_of(tmp_path, copy_bytes_per_s=0.25e9)

    (said,) = impossible(run)
    assert said.startswith(
        "pico: share of the memory bandwidth above 105 % in 2 turns, up to 200 %. That is impossible"
    )
    assert said in notes(run)


def test_weights_in_the_cache_need_no_bandwidth_but_still_their_products(tmp_path: Path) -> None:
    run = run_of(tmp_path, copy_bytes_per_s=0.25e9, matrix_flops_per_s=10e6, fits_in_cache=True)

    (said,) = impossible(run)
    assert said.startswith("pico: share of the matrix rate in prefill above 105 % in 2 turns, up to 200 %.")


def test_weights_in_the_cache_of_a_model_within_its_ceilings_are_not_remarked_upon(tmp_path: Path) -> None:
    assert list(impossible(run_of(tmp_path, fits_in_cache=True))) == []


def test_a_run_without_ceilings_has_nothing_impossible(tmp_path: Path) -> None:
    run = harness.load(store(tmp_path, [turn(cell())], plan(conversations={"physics": 1})))

    assert list(impossible(run)) == []
    assert pd.isna(by_setting(run)["bandwidth_utilisation_p50"][0])
