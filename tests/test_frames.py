"""A run as a frame: every planned turn once, whatever became of it."""

from __future__ import annotations

from pathlib import Path

import orjson
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness
from harness.analysis.columns import COLUMNS
from harness.analysis.frames import load_many, save_parquet
from harness.errors import StoreError
from harness.metrics import METRICS
from harness.records import Failure, TurnRecord
from tests.builders import cell, checks, every_turn, failed, launch, manifest, plan, store, turn

STORED = Path(__file__).parent / "data" / "run-v1"
ABSENT_IN_ANY = (
    "reply",
    "ttft_s",
    "tpot_s",
    "completion_tokens",
    "checks_passed",
    "checks_total",
    "seed",
    "started_at",
)


def test_every_planned_turn_has_one_row(tmp_path: Path) -> None:
    of = plan(["pico", "nano"], ["greedy", "warm"], {"physics": 3, "memory": 2}, repeats=2, launches=2)
    run = harness.load(store(tmp_path, every_turn(of), of))

    keys = ["model", "sampling", "conversation_id", "repeat", "launch", "turn_index"]
    assert len(run.turns) == 2 * 2 * 5 * 2 * 2
    assert not run.turns.duplicated(keys).any()
    assert set(run.turns["state"]) == {"done"}


def test_columns_are_those_of_the_table_with_every_metric(tmp_path: Path) -> None:
    run = harness.load(store(tmp_path, [turn(), turn(index=1)]))

    assert list(run.turns.columns) == [column.name for column in COLUMNS]
    assert set(METRICS) <= set(run.turns.columns)
    assert list(run.warmup.columns) == list(run.turns.columns)
    assert len({column.name for column in COLUMNS}) == len(COLUMNS)


def test_a_row_holds_what_the_record_says(tmp_path: Path) -> None:
    record = turn(gold="Motion.", checks=checks(True, False, True), notices=("folded",), tokens_left=7)
    row = harness.load(store(tmp_path, [record], plan(conversations={"physics": 1}))).turns.iloc[0]

    assert (row["run_id"], row["model"], row["conversation_id"], row["phase"]) == (
        "a-run",
        "pico",
        "physics",
        "measure",
    )
    assert (row["reply"], row["gold"], row["prompt_tokens"], row["tokens_left"]) == (record.reply, "Motion.", 20, 7)
    assert (row["checks_passed"], row["checks_total"], row["notices"]) == (2, 3, ["folded"])
    assert row["checks"][1] == {"check": "contains: word1", "passed": False, "detail": "not there"}
    assert row["started_at"] == pd.Timestamp(record.started_at, unit="s", tz="UTC")
    assert row["itl_s"] == pytest.approx([0.002] * 4)
    for name, metric in METRICS.items():
        value = metric.formula(record)
        assert pd.isna(row[name]) if value is None else row[name] == pytest.approx(value)


def test_after_a_failure_the_rest_was_not_reached(tmp_path: Path) -> None:
    of = plan(conversations={"physics": 3})
    turns = harness.load(store(tmp_path, [turn(), failed(index=1)], of)).turns

    assert list(turns["state"]) == ["done", "failed", "not_reached"]
    assert list(turns["error"].fillna("")) == ["", "OutOfMemoryError", ""]
    assert (turns["error_phase"][1], turns["error_message"][1]) == ("prefill", "2 GiB more than there is")
    assert (turns["history"][2], turns["kv_cache"][2], turns["attempt"][2]) == ("generated", "reuse", 0)
    assert turns.loc[1:, ["ttft_s", "e2e_s", "itl_s"]].isna().all(axis=None)


def test_a_conversation_that_filled_up_leaves_turns_not_reached(tmp_path: Path) -> None:
    full = turn(finish_reason="max_length")

    assert list(harness.load(store(tmp_path, [full])).turns["state"]) == ["done", "not_reached"]


def test_an_unfinished_conversation_is_missing_and_its_turns_count_nowhere(tmp_path: Path) -> None:
    run = harness.load(store(tmp_path, [turn()]))

    assert list(run.turns["state"]) == ["missing", "missing"]
    assert run.turns["attempt"].isna().all()
    assert run.superseded == 1


def test_only_the_latest_complete_attempt_counts(tmp_path: Path) -> None:
    again = {"attempt": 1}
    records = [turn(reply="old"), turn(reply="new", around=again), turn(index=1, reply="newer", around=again)]
    run = harness.load(store(tmp_path, records))

    assert list(run.turns["reply"]) == ["new", "newer"]
    assert list(run.turns["attempt"]) == [1, 1]
    assert run.superseded == 1


def test_what_an_attempt_did_not_reach_belongs_to_that_attempt(tmp_path: Path) -> None:
    again = {"attempt": 1}
    run = harness.load(store(tmp_path, [turn(), failed(around=again)]))

    assert list(run.turns["state"]) == ["failed", "not_reached"]
    assert list(run.turns["attempt"]) == [1, 1]


def test_absent_is_never_zero(tmp_path: Path) -> None:
    turns = harness.load(store(tmp_path, [failed()])).turns

    for name in ("ttft_s", "output_tokens_per_s", "host_rss_bytes", "completion_tokens", "checks_total"):
        assert turns[name].isna().all()
    assert turns["ttft_s"].mean() is pd.NA


def test_planned_turns_need_not_begin_at_zero(tmp_path: Path) -> None:
    of = plan(history="fill")
    of["conversations"][0]["turns"] = [1, 3]
    turns = harness.load(store(tmp_path, [turn(index=1)], of)).turns

    assert list(turns["turn_index"]) == [1, 3]
    assert set(turns["state"]) == {"missing"}
    assert set(turns["history"]) == {"fill"}


def test_warm_up_is_kept_apart(tmp_path: Path) -> None:
    warm = turn(around={"phase": "warmup"}, ttft_ms=90)
    run = harness.load(store(tmp_path, [warm, turn(), turn(index=1)]))

    assert list(run.warmup["ttft_s"]) == [0.09]
    assert set(run.warmup["phase"]) == {"warmup"}
    assert list(run.turns["ttft_s"]) == [0.01, 0.01]


def test_a_run_that_has_only_begun_has_its_rows_and_types(tmp_path: Path) -> None:
    run = harness.load(store(tmp_path, [], launches=[]))
    full = harness.load(STORED)

    assert list(run.turns["state"]) == ["missing", "missing"]
    assert (run.turns.dtypes == full.turns.dtypes).all()
    assert (run.warmup.dtypes == full.turns.dtypes).all()
    assert (run.launches.dtypes == full.launches.dtypes).all()


def test_launches_tell_what_loading_took_and_the_first_turn_after_it(tmp_path: Path) -> None:
    warm = turn(around={"phase": "warmup"}, ttft_ms=90, started_at=1.0)
    run = harness.load(store(tmp_path, [turn(), warm, turn(index=1)]))

    (row,) = run.launches.to_dict("records")
    assert (row["model"], row["launch"], row["load_s"], row["import_s"]) == ("pico", 0, 1.5, 1.0)
    assert row["first_turn_s"] == pytest.approx(0.100)  # 90 + 4 · 2 + 2 ms, however late its line came
    assert row["facts"]["dtype"] == "float32"


def test_a_launch_that_could_not_load_says_why_and_has_no_times(tmp_path: Path) -> None:
    failure = {"kind": "ModelError", "phase": "load", "message": "no such model"}
    entries = [{"model": "pico", "launch": 0, "failure": failure}, launch("pico", 0)]
    run = harness.load(store(tmp_path, [turn(), turn(index=1)], launches=entries))

    assert list(run.launches["error"].fillna("")) == ["ModelError: no such model", ""]
    assert list(run.launches["load_s"].isna()) == [True, False]
    assert list(run.launches["first_turn_s"].isna()) == [True, False]


def test_parquet_round_trips(tmp_path: Path) -> None:
    of = plan(conversations={"physics": 3})
    run = harness.load(store(tmp_path, [turn(checks=checks(True), notices=("a", "b")), failed(index=1)], of))
    back = pd.read_parquet(save_parquet(run))

    lists = [column.name for column in COLUMNS if column.kind in ("reals", "texts", "checks")]
    pd.testing.assert_frame_equal(back.drop(columns=lists), run.turns.drop(columns=lists))
    for name in lists:
        assert [None if value is None else list(value) for value in back[name]] == [
            None if value is pd.NA else value for value in run.turns[name]
        ]


def test_a_parquet_column_without_a_value_keeps_its_type(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    run = harness.load(store(tmp_path, []))
    schema = pq.read_schema(save_parquet(run))

    assert str(schema.field("itl_s").type) == "list<element: double>"
    assert str(schema.field("peak_memory_bytes").type) == "int64"


def test_a_run_is_found_by_its_name_under_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path / "results", [turn(), turn(index=1)])
    monkeypatch.chdir(tmp_path)

    assert harness.load("a-run").run_id == harness.load("results/a-run").run_id == "a-run"


def test_several_runs_keep_their_order(tmp_path: Path) -> None:
    paths = [store(tmp_path, [], run_id=name) for name in ("b", "a")]

    assert [run.run_id for run in load_many(paths)] == ["b", "a"]


def test_no_run_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a run"):
        harness.load(tmp_path)


def test_turns_of_an_unplanned_conversation_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="has turns of chemistry, which its plan does not know"):
        harness.load(store(tmp_path, [turn(cell(conversation_id="chemistry"))]))


def test_loading_writes_nothing(tmp_path: Path) -> None:
    path = store(tmp_path, [turn()])
    before = {file: file.read_bytes() for file in path.iterdir()}
    harness.load(path)

    assert {file: file.read_bytes() for file in path.iterdir()} == before


ENDS = st.builds(
    lambda ok, end: [*["ok"] * ok, *end], st.integers(0, 3), st.sampled_from([[], ["ok"], ["failed"], ["full"]])
)
"""How the turns of a conversation ended: nothing comes after a turn that failed or filled it up."""


@settings(max_examples=40, deadline=None)  # the machine may be busy
@given(st.lists(ENDS, min_size=2, max_size=2))
def test_whatever_was_told_every_planned_turn_has_one_row(tmp_path_factory: pytest.TempPathFactory, told) -> None:
    of = plan(conversations={"physics": 4}, repeats=2)
    records: list[TurnRecord] = []
    for repeat, ends in enumerate(told):
        for index, end in enumerate(ends):
            broken = Failure("Timeout", "decode", "") if end == "failed" else None
            reason = "max_length" if end == "full" else "eos"
            records.append(turn(cell(repeat=repeat), index, failure=broken, finish_reason=reason))
    turns = harness.load(store(tmp_path_factory.mktemp("run"), records, of)).turns

    assert list(turns["turn_index"]) == [0, 1, 2, 3] * 2
    assert turns.loc[turns["state"] != "done", list(METRICS)].isna().all(axis=None)
    for _, conversation in turns.groupby("repeat"):
        states = list(conversation["state"])
        assert set(states) == {"missing"} or states == sorted(states, key=["done", "failed", "not_reached"].index)


def test_the_manifest_is_at_hand(tmp_path: Path) -> None:
    run = harness.load(store(tmp_path, []))

    assert run.manifest["environment"] == orjson.loads(orjson.dumps(manifest(plan())))["environment"]
    assert run.plan["repeats"] == 1


def test_a_run_shows_itself_in_a_line() -> None:
    run = harness.load(Path(__file__).parent / "data" / "run-v1")

    assert repr(run) == f"<Run {run.run_id}: {len(run.turns)} turns in {run.path}>"
