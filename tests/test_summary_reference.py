"""Summaries work on arrays; here their figures are worked out once more, turn by turn, in plain Python."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from math import exp, log
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness
from harness.analysis.columns import COLUMNS
from harness.analysis.frames import Run
from harness.analysis.summary import by_conversation, by_setting, by_turn
from harness.conversations.repetition import repetition
from harness.records import Cell, Failure, TurnRecord
from tests.builders import checks, plan, store, turn

PLAN = plan(
    ["pico", "nano"],
    {"greedy": {"do_sample": False}, "warm": {"do_sample": True}},
    conversations={"physics": 2, "memory": 3},
    repeats=2,
    launches=2,
    concurrency=[1, 4],
)
for each in PLAN["conversations"]:
    each["checks"] = [2, 0, 1][: len(each["turns"])]
SETTING = ("model", "sampling", "concurrency")
WORDS = ["the", "cat", "sat", "on", "a", "mat", ",", "."]
Row = dict[str, Any]


@st.composite
def conversation(draw: st.DrawFn, cell: Cell, turns: int) -> list[TurnRecord]:
    """What became of one cell: played to its end, failed, filled up, or broken off."""
    told: list[TurnRecord] = []
    for index in range(draw(st.integers(0, turns))):
        ending = draw(st.sampled_from(["eos", "eos", "eos", "max_new_tokens", "max_length", "failed"]))
        failure = Failure("Timeout", "decode", "") if ending == "failed" else None
        passed = draw(st.lists(st.booleans(), min_size=2, max_size=2))[: (2, 0, 1)[index]]
        record = turn(
            cell,
            index,
            ttft_ms=draw(st.integers(4, 99)),
            tpot_ms=draw(st.integers(0, 9)),
            ids=draw(st.sampled_from([1, 2, 5])),
            reply=" ".join(draw(st.lists(st.sampled_from(WORDS), max_size=12))),
            finish_reason="error" if failure else ending,
            failure=failure,
            checks=checks(*passed),
        )
        told.append(record)
        if ending in ("failed", "max_length"):
            break
    return told


@st.composite
def played(draw: st.DrawFn) -> list[TurnRecord]:
    return [
        record
        for model in ("pico", "nano")
        for sampling in ("greedy", "warm")
        for name, turns in (("physics", 2), ("memory", 3))
        for level in (1, 4)
        for launch in (0, 1)
        for repeat in (0, 1)
        for record in draw(conversation(Cell(model, sampling, name, repeat, launch, level), turns))
    ]


def grouped(run: Run, keys: Iterable[str]) -> dict[tuple[Any, ...], list[Row]]:
    groups: dict[tuple[Any, ...], list[Row]] = {}
    lists = [column.name for column in COLUMNS if column.kind in ("reals", "texts", "checks")]
    for row in run.turns.drop(columns=lists).to_dict("records"):
        known = {str(name): None if pd.isna(value) else value for name, value in row.items()}
        groups.setdefault(tuple(known[key] for key in keys), []).append(known)
    return groups


def rate(rows: list[Row]) -> float | None:
    """Checks passed over checks due; the launches of a turn and repeat are one observation, their mean, and all repeats
    of a greedy turn are."""
    due = {one["id"]: dict(zip(one["turns"], one["checks"], strict=True)) for one in PLAN["conversations"]}
    seen: dict[tuple[Any, ...], list[int]] = {}
    for row in rows:
        if row["state"] != "missing":
            place = (row["conversation_id"], row["turn_index"], None if row["sampling"] == "greedy" else row["repeat"])
            seen.setdefault(place, []).append(row["checks_passed"] or 0 if row["state"] == "done" else 0)
    total = sum(due[name][index] for name, index, _ in seen)
    return sum(fmean(each) for each in seen.values()) / total if total else None


def typical(rows: list[Row], metric: str) -> float | None:
    """The geometric mean of the launches' medians, over the turns that every launch has."""
    by_launch: dict[int, dict[tuple[Any, ...], float]] = {}
    for row in rows:
        if row["state"] == "done" and row[metric] is not None:
            place = (row["conversation_id"], row["turn_index"], row["repeat"])
            by_launch.setdefault(row["launch"], {})[place] = row[metric]
    common = set.intersection(*map(set, by_launch.values())) if by_launch else set()
    medians = [median(values[place] for place in common) for values in by_launch.values()] if common else []
    if len(medians) < 2 or min(medians) <= 0:
        return median(medians) if medians else None
    return exp(fmean(map(log, medians)))


def mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return fmean(found) if found else None


def counts(rows: list[Row]) -> Row:
    states = ("done", "failed", "not_reached", "missing")
    return {
        "conversations": len({row["conversation_id"] for row in rows}),
        "turns": len(rows),
        **{state: sum(row["state"] == state for row in rows) for state in states},
        "checks_rate": rate(rows),
    }


def behaviour(rows: list[Row]) -> Row:
    done = [row for row in rows if row["state"] == "done"]
    return {
        "completion_tokens_mean": mean(row["completion_tokens"] for row in done),
        "truncated_rate": mean(row["finish_reason"] in ("max_new_tokens", "max_length", "context") for row in done),
        "repetition_mean": mean(repetition(row["reply"]) for row in done),
    }


def a_setting(rows: list[Row]) -> Row:
    done = [row for row in rows if row["state"] == "done"]
    return {
        **counts(rows),
        **behaviour(rows),
        "launches": len({row["launch"] for row in rows if row["state"] != "missing"}),
        "completion_tokens_p50": median(row["completion_tokens"] for row in done) if done else None,
        "host_rss_bytes": max((row["host_rss_bytes"] for row in done), default=None),
        **{f"{metric}_p50": typical(rows, metric) for metric in ("ttft_s", "tpot_s", "e2e_s")},
    }


def a_turn(rows: list[Row]) -> Row:
    prompts = [row["prompt_tokens"] for row in rows if row["state"] == "done"]
    return {
        **counts(rows),
        "prompt_tokens_p50": median(prompts) if prompts else None,
        **{f"{metric}_p50": typical(rows, metric) for metric in ("prefill_s", "ttft_s", "output_tokens_per_s")},
    }


def a_conversation(rows: list[Row]) -> Row:
    return {**counts(rows), **behaviour(rows), "e2e_s_p50": typical(rows, "e2e_s")}


TABLES: list[tuple[Callable[[Run], pd.DataFrame], tuple[str, ...], Callable[[list[Row]], Row]]] = [
    (by_setting, SETTING, a_setting),
    (by_turn, (*SETTING, "turn_index"), a_turn),
    (by_conversation, (*SETTING, "conversation_id"), a_conversation),
]


@settings(deadline=None, max_examples=25)  # the machine may be busy
@given(played())
def test_summaries_on_arrays_say_what_plain_arithmetic_says(told: list[TurnRecord]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = harness.load(store(Path(folder), told, PLAN))

    for summarise, keys, reference in TABLES:
        rows = summarise(run).to_dict("records")
        expected = grouped(run, keys)
        assert [tuple(row[key] for key in keys) for row in rows] == list(expected)
        for row, turns in zip(rows, expected.values(), strict=True):
            for name, value in reference(turns).items():
                seen = None if pd.isna(row[name]) else row[name]
                assert seen == (value if value is None else pytest.approx(value)), (summarise.__name__, name)
