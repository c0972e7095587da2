"""What a setting does: every figure by hand, averages over the same others only, and what intervals are over."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from statistics import stdev
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import harness
from harness.analysis.clusters import over_conversations
from harness.analysis.measures import MEASURES
from harness.analysis.response import response
from harness.analysis.stats import pass_rate, t_quantile
from harness.analysis.summary import by_setting
from harness.cli.report import report as print_report
from harness.records import Cell, TurnRecord
from harness.report import response as report
from harness.report.markdown import markdown
from harness.report.terminal import show
from tests.builders import MS, cell, checks, failed, plan, stamps, store, turn

WARM = {"do_sample": True, "temperature": 0.7}
GRID: dict[str, Any] = {
    "greedy": {"do_sample": False},
    "k=5": {**WARM, "top_k": 5},
    "k=50": {**WARM, "top_k": 50},
}
SQUARE: dict[str, Any] = {
    f"k={k},t={t}": {"do_sample": True, "top_k": k, "temperature": t} for k in (5, 50) for t in (0.5, 1.0)
}


def rows_of(path: Path, records: Iterable[TurnRecord], of: dict[str, Any], **values: Any) -> dict[str, dict[str, Any]]:
    """The rows of a response table, by value."""
    frame = response(harness.load(store(path, records, of, **values)))
    return {str(row["value"]): {str(name): value for name, value in row.items()} for row in frame.to_dict("records")}


def said(sampling: str, reply: str, ids: tuple[int, ...] = (1, 2, 3), **values: Any) -> TurnRecord:
    """A turn of one sampling; `index` and the axes of its cell are among the values."""
    axes = {name: values.pop(name) for name in ("conversation_id", "repeat", "launch") if name in values}
    index = values.pop("index", 0)
    return turn(cell(sampling=sampling, **axes), index, ids=len(ids), reply=reply, completion_ids=ids, **values)


class TestAgreement:
    OF = plan(samplings={"warm": WARM}, conversations={"physics": 2}, repeats=3)

    def test_of_pairs_of_repeats_with_the_same_prompt_the_share_that_said_the_same(self, tmp_path: Path) -> None:
        """First turn: yes, yes, no – one pair of three agrees. Second turn: two repeats share a prompt, and agree but
        for case and white space; the third was asked something else."""
        replies = ["Yes it is.", "yes  it is.\n", "No."]
        second = [("Right.", "aa"), ("right.", "aa"), ("Right.", "bb")]
        records = [
            record
            for repeat in range(3)
            for record in (
                said("warm", replies[repeat], repeat=repeat),
                said("warm", second[repeat][0], repeat=repeat, index=1, prompt_hash=second[repeat][1]),
            )
        ]
        row = rows_of(tmp_path, records, self.OF)["warm"]

        assert row["agreement_rate"] == pytest.approx(2 / 4)
        assert pd.isna(row["reproduction_rate"]), "one launch"
        assert pd.isna(row["agreement_rate_low"]), "one conversation"

    def test_launches_repeat_the_seeds_and_are_no_repeats(self, tmp_path: Path) -> None:
        """Two launches, two repeats: repeats never agree, launches agree in three of four pairs."""
        replies = {(0, 0): "a", (0, 1): "b", (1, 0): "a", (1, 1): "c"}
        of = plan(samplings={"warm": WARM}, conversations={"x": 1, "y": 1}, repeats=2, launches=2)
        records = [
            said("warm", "b" if (talk, launch, repeat) == ("x", 1, 1) else text,
                 conversation_id=talk, launch=launch, repeat=repeat)
            for talk in "xy" for (launch, repeat), text in replies.items()
        ]  # fmt: skip
        row = rows_of(tmp_path, records, of)["warm"]

        assert row["agreement_rate"] == 0
        assert row["reproduction_rate"] == pytest.approx(3 / 4)
        assert row["reproduction_rate_basis"] == "few conversations"

    def test_failed_and_empty_turns_are_no_answers(self, tmp_path: Path) -> None:
        of = plan(samplings={"warm": WARM}, conversations={"physics": 1}, repeats=4)
        empty = said("warm", "", (), repeat=2, finish_reason="max_length")
        records = [said("warm", "a"), failed(cell(sampling="warm", repeat=1)), empty, said("warm", "b", repeat=3)]

        assert rows_of(tmp_path, records, of)["warm"]["agreement_rate"] == 0  # the one pair there is


class TestDivergence:
    def of(self, turns: int = 1, **values: Any) -> dict[str, Any]:
        return plan(samplings=GRID, conversations={"physics": turns}, **values)

    def test_where_the_first_id_differs(self, tmp_path: Path) -> None:
        """Against 1 2 3 4: one repeat the same, one from id 2 on, one that ends where greedy goes on."""
        greedy = [said("greedy", "g", (1, 2, 3, 4), repeat=repeat) for repeat in range(3)]
        ids = [(1, 2, 3, 4), (1, 2, 2**32, 4, 5), (1, 2, 3)]
        warm = [said("k=5", "w", each, repeat=repeat) for repeat, each in enumerate(ids)]
        rows = rows_of(tmp_path, [*greedy, *warm], self.of(repeats=3))

        assert rows["k=5"]["divergence_rate"] == pytest.approx(2 / 3)
        assert rows["k=5"]["divergence_token"] == pytest.approx((2 + 3) / 2)
        assert rows["k=5"]["divergence_share"] == pytest.approx((2 / 4 + 3 / 4) / 2)
        assert rows["k=5"]["greedy"] == "greedy"
        assert pd.isna(rows["greedy"]["divergence_rate"])
        assert pd.isna(rows["greedy"]["greedy"])

    def test_a_reply_that_was_cut_off_while_it_said_the_same_has_not_differed(self, tmp_path: Path) -> None:
        greedy = said("greedy", "g", (1, 2, 3, 4))
        short = said("k=5", "s", (1, 2), finish_reason="max_new_tokens")
        other = said("k=50", "o", (1, 7), finish_reason="max_new_tokens")
        rows = rows_of(tmp_path, [greedy, short, other], self.of())

        assert rows["k=5"]["divergence_rate"] == 0
        assert pd.isna(rows["k=5"]["divergence_token"])
        assert (rows["k=50"]["divergence_rate"], rows["k=50"]["divergence_token"]) == (1, 1)

    def test_only_the_very_same_prompt_is_held_against(self, tmp_path: Path) -> None:
        records = [
            *(said("greedy", "g", (1, 2), index=index, prompt_hash=f"{index}") for index in range(2)),
            *(said("k=5", "w", (1, 2), index=index, prompt_hash=f"{3 * index}") for index in range(2)),
            *(said("k=50", "w", (5,), index=index, prompt_hash="other") for index in range(2)),
        ]
        rows = rows_of(tmp_path, records, self.of(2))

        assert rows["k=5"]["divergence_rate"] == 0
        assert pd.isna(rows["k=50"]["divergence_rate"])

    def test_attempts_that_do_not_count_and_warm_up_are_not_read(self, tmp_path: Path) -> None:
        broken = said("k=5", "w", (8,), index=0)
        again = said("k=5", "w", (1, 2), around={"attempt": 1})
        warm = said("k=5", "w", (9,), around={"phase": "warmup"})
        of = self.of(2)
        last = [said(name, "w", (1,), index=1, **extra) for name, extra in
                (("greedy", {}), ("k=5", {"around": {"attempt": 1}}))]  # fmt: skip
        rows = rows_of(tmp_path, [warm, said("greedy", "g", (1, 2)), broken, again, *last], of)

        assert rows["k=5"]["divergence_rate"] == 0


class TestChoosing:
    def timed(self, sampling: str, tpot_ms: float, ids: int, **values: Any) -> TurnRecord:
        return said(sampling, "x", tuple(range(ids)), stamps=stamps(10, tpot_ms, ids), **values)

    def test_only_steps_that_both_made_after_the_same_prompt(self, tmp_path: Path) -> None:
        """Greedy takes 2 ms a step, and 50 ms in its last one, which the shorter reply never made."""
        slow_end = stamps(10, 2, 6)
        slow_end = replace(slow_end, tick_ns=(*slow_end.tick_ns[:-1], slow_end.tick_ns[-2] + 50 * MS))
        greedy = said("greedy", "x", tuple(range(6)), stamps=slow_end)
        rows = rows_of(
            tmp_path,
            [greedy, self.timed("k=5", 3, 4), self.timed("k=50", 9, 4, prompt_hash="other")],
            plan(samplings=GRID, conversations={"physics": 1}),
        )

        assert rows["k=5"]["sampling_step_s"] == pytest.approx(0.001)
        assert (rows["k=5"]["sampling_step_s_basis"], pd.isna(rows["k=5"]["sampling_step_s_low"])) == (
            "one launch",
            True,
        )
        assert pd.isna(rows["k=50"]["sampling_step_s"])
        assert pd.isna(rows["greedy"]["sampling_step_s"])

    def test_launches_are_the_sample_and_each_is_held_against_its_own_greedy(self, tmp_path: Path) -> None:
        """The second launch is twice as slow as a whole; a step of choosing takes 1, 2 and 3 ms in the three."""
        base, costs = (2, 4, 2), (1, 2, 3)
        records = [
            record
            for launch in range(3)
            for record in (
                self.timed("greedy", base[launch], 5, launch=launch),
                self.timed("k=5", base[launch] + costs[launch], 5, launch=launch),
            )
        ]
        row = rows_of(tmp_path, records, plan(samplings=GRID, conversations={"physics": 1}, launches=3))["k=5"]

        assert row["sampling_step_s"] == pytest.approx(0.002)
        reach = t_quantile(2) * stdev([0.001, 0.002, 0.003]) / math.sqrt(3)
        assert (row["sampling_step_s_low"], row["sampling_step_s_high"]) == pytest.approx(
            (0.002 - reach, 0.002 + reach)
        )
        assert (row["sampling_step_s_basis"], row["launches"]) == ("launches", 3)


class TestAverages:
    def test_a_value_is_the_mean_over_the_same_values_of_all_else(self, tmp_path: Path) -> None:
        tokens = {"k=5,t=0.5": 2, "k=5,t=1.0": 4, "k=50,t=0.5": 6, "k=50,t=1.0": 16}
        of = plan(samplings=SQUARE, conversations={"a": 1, "b": 1})
        records = [
            said(name, "x", tuple(range(count + (talk == "b"))), conversation_id=talk)
            for name, count in tokens.items()
            for talk in "ab"
        ]
        rows = rows_of(tmp_path, records, of)

        assert rows["5"]["completion_tokens"] == pytest.approx((2.5 + 4.5) / 2)
        assert rows["50"]["completion_tokens"] == pytest.approx((6.5 + 16.5) / 2)
        assert rows["0.5"]["completion_tokens"] == pytest.approx((2.5 + 6.5) / 2)
        assert rows["5"]["over"] == "temperature=0.5, 1"
        assert rows["5"]["samplings"] == 2
        reach = t_quantile(1) * 0.5  # both conversations are half a token from the mean, in every sampling
        assert rows["5"]["completion_tokens_low"] == pytest.approx(max(0, 3.5 - reach))
        assert rows["5"]["completion_tokens_high"] == pytest.approx(3.5 + reach)

    def test_conversations_that_one_setting_never_answered_are_left_out_of_all(self, tmp_path: Path) -> None:
        of = plan(samplings=GRID, conversations={"a": 1, "b": 1})
        records = [
            said("k=5", "x", (1, 2), conversation_id="a"),
            said("k=5", "x", (1, 2, 3, 4), conversation_id="b"),
            said("k=50", "x", (1,), conversation_id="a"),
            failed(cell(sampling="k=50", conversation_id="b")),
        ]
        rows = rows_of(tmp_path, records, of)

        assert (rows["5"]["completion_tokens"], rows["50"]["completion_tokens"]) == (2, 1)

    def test_a_greedy_value_of_the_axis_is_no_hole_in_the_others(self, tmp_path: Path) -> None:
        """top_k=1 is greedy itself; 5 and 50 are held against it all the same."""
        of = plan(samplings={f"k={k}": {**WARM, "top_k": k} for k in (1, 5, 50)}, conversations={"physics": 1})
        records = [said("k=1", "x", (1, 2)), said("k=5", "x", (1, 2)), said("k=50", "x", (3,))]
        rows = rows_of(tmp_path, records, of)

        assert [rows[k]["divergence_rate"] for k in ("5", "50")] == [0, 1]
        assert pd.isna(rows["1"]["divergence_rate"])
        assert {rows[k]["greedy"] for k in ("5", "50")} == {"k=1"}

    def test_figures_of_single_samplings_are_those_of_the_summary(self, tmp_path: Path) -> None:
        run = harness.load(Path(__file__).parent / "data" / "run-v1")
        settings = by_setting(run).set_index(["model", "sampling"])
        rows = response(run)
        rows = rows.assign(sampling=rows["value"].replace({"50": "top_k=50"})).set_index(["model", "sampling"])

        for name, summary in {
            "completion_tokens": "completion_tokens_mean",
            "truncated_rate": "truncated_rate",
            "repetition": "repetition_mean",
            "checks_rate": "checks_rate",
            "e2e_s": "e2e_s_p50",
            "tpot_s": "tpot_s_p50",
        }.items():
            expected = settings[summary].reindex(rows.index).to_numpy(dtype=float)
            assert rows[name].to_numpy(dtype=float) == pytest.approx(expected), name

    def test_what_is_forced_or_random_says_nothing_and_is_timed_all_the_same(self, tmp_path: Path) -> None:
        of = plan(samplings=GRID, conversations={"physics": 1}, length="fixed")
        records = [said(name, "x", (1, 2), around={"length": "fixed"}) for name in GRID]
        row = rows_of(tmp_path, records, of)["5"]

        assert row["e2e_s"] > 0
        behaviour = [name for name, measure in MEASURES.items() if measure.sample == "conversations"]
        assert pd.isna(pd.Series([row[name] for name in behaviour])).all()

    def test_levels_of_concurrency_are_never_mixed(self, tmp_path: Path) -> None:
        of = plan(samplings=GRID, conversations={"a": 1}, concurrency=[1, 2])
        records = [
            turn(Cell("pico", name, "a", 0, 0, level), reply="x", ids=2 * level, completion_ids=(1,) * 2 * level)
            for name in GRID
            for level in (1, 2)
        ]
        frame = response(harness.load(store(tmp_path, records, of)))

        found = frame[frame["parameter"] == "top_k"].groupby("concurrency")["completion_tokens"].unique()
        assert {level: values.tolist() for level, values in found.items()} == {1: [2.0], 2: [4.0]}


def test_every_measure_has_its_columns_and_every_column_its_type(tmp_path: Path) -> None:
    frame = response(harness.load(store(tmp_path, [], plan(samplings=GRID))))
    filled = response(harness.load(Path(__file__).parent / "data" / "run-v1"))

    for name in MEASURES:
        assert [str(filled[f"{name}{end}"].dtype) for end in ("", "_low", "_high", "_basis")] == [
            "Float64", "Float64", "Float64", "string",
        ]  # fmt: skip
    assert frame["completion_tokens"].isna().all()
    assert list(frame.columns) == list(filled.columns)


def test_a_very_large_run_says_that_the_table_waits_to_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    run = harness.load(Path(__file__).parent / "data" / "run-v1")
    monkeypatch.setattr(report, "MOST_TURNS", len(run.turns) - 1)
    console = Console(file=StringIO(), width=200)
    show(run, console)
    assert isinstance(console.file, StringIO)

    for page in (markdown(run), console.file.getvalue()):
        assert "harness report RUN --table response" in page
        assert "choosing ms/token" not in page


@pytest.mark.parametrize(
    ("table", "first"),
    [("response", "run_id,model,concurrency,parameter,over,value"), ("length-limits", "run_id,model")],
)
def test_either_table_can_be_asked_for_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, table: Any, first: str
) -> None:
    # The page that is written beside a run whatever is asked for takes most of the time, and is not what is asked for.
    monkeypatch.setattr("harness.report.files.write_page", lambda runs, path: path)
    of = plan(samplings={"short": {"max_length": 9}, "long": {"max_length": 99}}, conversations={"physics": 1})
    cut = said("short", "x", (1,), finish_reason="max_length", tokens_left=0)
    path = store(tmp_path, [cut, said("long", "x", (1, 2), tokens_left=60)], of)
    told = {}
    for form in ("csv", "json", "markdown", "table"):
        print_report([path, path], output=form, table=table)  # type: ignore[arg-type]
        told[form] = capsys.readouterr().out

    assert told["csv"].startswith(first)
    assert len(told["csv"].splitlines()) == 1 + 2 * 2
    assert len(json.loads(told["json"])) == 2 * 2
    for form in ("markdown", "table"):
        assert "By turn" not in told[form]
        assert told[form].count({"response": "What a setting changes", "length-limits": "Where the length runs"}[table])


def test_loops_and_checks_are_counted(tmp_path: Path) -> None:
    of = plan(samplings=GRID, conversations={"a": 1, "b": 1}, checks=[2])
    loop = "no " * 12
    records = [
        said("k=5", loop, conversation_id="a", checks=checks(True, False)),
        said("k=5", "All is well.", conversation_id="b", checks=checks(True, True)),
        said("k=50", "Fine.", conversation_id="a", checks=checks(False, False)),
        failed(cell(sampling="k=50", conversation_id="b")),
        said("greedy", "Fine.", conversation_id="a", checks=checks(True, True)),
        said("greedy", "Fine.", conversation_id="b", checks=checks(True, True)),
    ]
    rows = rows_of(tmp_path, records, of)

    assert (rows["5"]["loop_rate"], rows["5"]["longest_loop"]) == (1, 12), "k=50 answered in a alone"
    assert (rows["5"]["checks_rate"], rows["50"]["checks_rate"]) == (3 / 4, 0)


class TestOverConversations:
    def test_one_sampling_of_shares_is_the_pass_rate_of_the_summary(self) -> None:
        passed, total = np.array([3.0, 1, 4, 0, 2, 2, 5]), np.array([4.0, 4, 4, 2, 2, 3, 5])

        found, expected = over_conversations(passed[None], total[None], turns=12), pass_rate(passed, total, 12)

        assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))
        assert (found.basis, found.n) == (expected.basis, expected.n)

    @given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 4)), min_size=2, max_size=9))
    def test_a_sampling_averaged_with_itself_is_itself(self, values: list[tuple[float, int]]) -> None:
        parts, wholes = np.array(values, dtype=float).T
        once, twice = over_conversations(parts[None], wholes[None]), over_conversations(
            np.stack([parts, parts]), np.stack([wholes, wholes])
        )  # fmt: skip

        assert twice.value == pytest.approx(once.value)
        assert (twice.low is None) == (once.low is None)
        if once.low is not None:
            assert (twice.low, twice.high) == pytest.approx((once.low, once.high), abs=1e-9)

    def test_a_single_conversation_and_equal_ones_have_no_interval(self) -> None:
        one = over_conversations(np.array([[3.0]]), np.array([[2.0]]))
        equal = over_conversations(np.array([[3.0, 3.0, 6.0]]), np.array([[1.0, 1.0, 2.0]]))

        assert (one.value, one.low, one.n) == (1.5, None, 1)
        assert (equal.value, equal.low, equal.n) == (3.0, None, 3)

    def test_intervals_cover_what_they_say(self) -> None:
        """Of 400 samples of twelve conversations, 95 % of the intervals of two averaged samplings that share their
        conversations' ease hold the truth; a normal interval that forgot they do would hold it in 80."""
        dice = np.random.default_rng(0)
        held = 0
        for _ in range(400):
            ease = dice.normal(0, 1, 12)
            parts = np.stack([5 + ease, 6 + ease]) + dice.normal(0, 0.3, (2, 12))
            found = over_conversations(parts, np.ones((2, 12)))
            assert found.low is not None
            assert found.high is not None
            held += found.low <= 5.5 <= found.high

        assert 0.92 <= held / 400 <= 0.98
