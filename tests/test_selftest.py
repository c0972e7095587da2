"""The selftest: a right meter passes, and every mistake that was ever made in measuring fails it."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import harness.chat
import harness.report.files
from harness.analysis.resolution import Spread, smallest_ratio
from harness.meters.clock import Stopwatch
from harness.metrics import METRICS, Quantities
from harness.records import Stamps, TurnRecord
from harness.studies.known import SHAPES, Exact, compare_exactly, expected_turns
from harness.studies.meter_cost import clock_facts, meter_costs
from harness.studies.realtime import PAUSED, PAUSES_IN, SPIN, compare_in_real_time, judged
from harness.studies.selftest import LAUNCHES, meter_is_right, resolution
from tests.commands import ENVIRONMENT
from tests.commands import harness as run_harness

ROOT = Path(__file__).parent.parent
Plant = Callable[[pytest.MonkeyPatch], None]


# --- what must come out -------------------------------------------------------------------------------------------


def test_a_turn_of_a_recital_is_expected_to_be_what_its_script_says() -> None:
    # "User: Say a few words.\nAssistant:" is six words; seven ids after 1.000003 + 2.000017 + 40.000101 ms, 7.000907 ms
    # apart, and 3.000041 ms to the text.
    first, second, third = expected_turns(SHAPES["one id at a time"])

    assert first.facts == {
        "state": "done", "finish_reason": "eos", "prompt_tokens": 6, "cached_tokens": 0, "completion_tokens": 7,
    }  # fmt: skip
    assert float(first.metrics["ttft_s"] or 0) == 0.043_000_121
    assert float(first.metrics["e2e_s"] or 0) == 0.088_005_604  # 43.000121 + 6 · 7.000907 + 3.000041
    assert float(first.metrics["tpot_s"] or 0) == 0.007_000_907
    assert [float(gap) for gap in first.gaps or ()] == [0.007_000_907] * 6
    # six and seven of before, "User: Some more of them, please.\nAssistant:"
    assert (second.facts["prompt_tokens"], second.facts["cached_tokens"]) == (6 + 7 + 7, 6 + 7 - 1)
    assert (third.facts["prompt_tokens"], third.facts["cached_tokens"]) == (20 + 4 + 5, 20 + 4 - 1)


def test_several_ids_in_the_first_arrival_leave_no_time_per_token_to_be_expected() -> None:
    first = expected_turns(SHAPES["several ids in the first arrival"])[0]

    assert float(first.metrics["ttft_s"] or 0) == 0.057_001_935  # three ids: two more of 7.000907 ms
    assert first.metrics["tpot_s"] is None
    assert first.gaps is None


def test_after_a_failed_turn_nothing_is_expected() -> None:
    states = [(turn.facts["state"], turn.metrics["e2e_s"]) for turn in expected_turns(SHAPES["a failed turn"])]

    assert [state for state, _ in states] == ["done", "failed", "not_reached"]
    assert [e2e for _, e2e in states[1:]] == [None, None]


def test_every_metric_of_time_is_expected() -> None:
    expected = expected_turns(SHAPES["one id at a time"])[0].metrics

    assert set(expected) == {name for name, metric in METRICS.items() if metric.unit in ("s", "tokens/s")}


def test_this_meter_is_right_to_the_nanosecond(tmp_path: Path) -> None:
    found = compare_exactly(tmp_path)

    assert found.deviations == ()
    assert found.turns == len(SHAPES) * 3
    assert {path.name for path in tmp_path.glob("exact/*")} >= {"report.md", "report.html", "summary.csv"}
    assert found.values > 300


# --- mistakes, planted --------------------------------------------------------------------------------------------


def in_stamps(change: Callable[[Stopwatch, Stamps], Stamps]) -> Plant:
    original = Stopwatch.stamps
    return lambda patch: patch.setattr(Stopwatch, "stamps", lambda watch: change(watch, original(watch)))


def in_records(change: Callable[[TurnRecord], TurnRecord]) -> Plant:
    original = harness.chat._record
    return lambda patch: patch.setattr(harness.chat, "_record", lambda *given: change(original(*given)))


def in_formula(name: str, over: Callable[[Quantities], Any]) -> Plant:
    def quietly(quantities: Quantities) -> Any:
        with np.errstate(all="ignore"):
            values = over(quantities)
        return np.where(np.isfinite(values), values, np.nan)

    return lambda patch: patch.setitem(METRICS, name, replace(METRICS[name], over=quietly))


def prompt_is_the_first_token(patch: pytest.MonkeyPatch) -> None:
    original = Stopwatch.tokenized

    def tokenized(watch: Stopwatch) -> None:
        original(watch)
        watch.tick(1)

    patch.setattr(Stopwatch, "tokenized", tokenized)


def every_arrival_is_one_id(patch: pytest.MonkeyPatch) -> None:
    original = Stopwatch.tick
    patch.setattr(Stopwatch, "tick", lambda watch, ids: original(watch, 1))


def ticks_are_carried_over(patch: pytest.MonkeyPatch) -> None:
    original, at, ids = Stopwatch.__init__, list[int](), list[int]()

    def begin(watch: Stopwatch, *clock: Any) -> None:
        original(watch, *clock)
        watch._tick_ns, watch._tick_ids = at, ids

    patch.setattr(Stopwatch, "__init__", begin)


def float32(watch: Stopwatch, stamps: Stamps) -> Stamps:
    """Absolute seconds in single precision, as a tensor of times would hold them."""

    def rounded(ns: int) -> float:
        return struct.unpack("f", struct.pack("f", ns / 1e9))[0]

    start = watch._start
    return replace(stamps, tick_ns=tuple(round((rounded(start + ns) - rounded(start)) * 1e9) for ns in stamps.tick_ns))


def the_mean_of_turns(patch: pytest.MonkeyPatch) -> None:
    original = harness.report.files.by_setting

    def by_setting(run: Any) -> Any:
        table = original(run)
        means = run.turns.groupby("model", sort=False)["e2e_s"].mean().tolist()
        return table.assign(e2e_s_p50=means)

    patch.setattr(harness.report.files, "by_setting", by_setting)


MISTAKES: dict[str, Plant] = {
    "n for n - 1": in_formula("tpot_s", lambda q: (q.last_ns - q.first_ns) / q.ids / 1e9),
    "the prompt taken for the first token": prompt_is_the_first_token,
    "TTFT inside ITL": in_stamps(lambda _, stamps: replace(stamps, tick_ns=(0, *stamps.tick_ns), tick_ids=None)),
    "TTFT inside the time per token": in_formula("tpot_s", lambda q: q.last_ns / (q.ids - 1) / 1e9),
    "absolute clock values in float32": in_stamps(float32),
    "ticks carried over from one turn to the next": ticks_are_carried_over,
    "an arrival counted as one id": every_arrival_is_one_id,
    "arrivals counted as tokens": in_records(
        lambda record: replace(record, completion_tokens=len(record.stamps.tick_ns))
    ),
    "the budget taken for tokens produced": in_records(lambda record: replace(record, completion_tokens=256)),
    "rate over the decoding alone": in_formula(
        "output_tokens_per_s", lambda q: q.completion_tokens / (q.last_ns - q.first_ns) * 1e9
    ),
    "the turn begins after the template": in_formula("ttft_s", lambda q: (q.first_ns - q.templated_ns) / 1e9),
    "a failed turn reported as TTFT 0": in_records(
        lambda record: (
            replace(record, failure=None, stamps=replace(record.stamps, tick_ns=(0,))) if record.failure else record
        )
    ),
    "cached ids counted as prefilled": in_formula(
        "prefill_tokens_per_s", lambda q: q.prompt_tokens / (q.first_ns - q.tokenized_ns) * 1e9
    ),
    "the mean of turns for their median": the_mean_of_turns,
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_meter_with_this_mistake_is_found_wrong(
    mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    MISTAKES[mistake](monkeypatch)
    # The pages are written but never looked at, and take most of the time; the meter that is right leaves all of them.
    monkeypatch.setattr(harness.report.files, "markdown", lambda run: "")
    monkeypatch.setattr(harness.report.files, "write_page", lambda runs, path: path)

    assert compare_exactly(tmp_path).deviations


# --- in real time -------------------------------------------------------------------------------------------------

STEP = 1e-7
MARGINS = {"ttft_s": 60e-6, "itl_s": 5e-6, "tpot_s": 5e-6, "e2e_s": 90e-6}


def rows(late_s: float = 0.0, every: int = 1) -> list[dict[str, Any]]:
    """Turns of the spinning recital that are late by so much with each pause, all of them or every so many-th."""
    found = []
    for number in range(12):
        late = late_s if number % every == 0 else 1e-7
        gap, ttft = 200e-6 + late, 1.2e-3 + 3 * late
        e2e = ttft + 6 * gap + 100e-6 + late
        told = {"ttft_s": ttft, "itl_s": [gap] * 6, "tpot_s": gap, "e2e_s": e2e}
        rates = {"output_tokens_per_s": 7 / e2e, "decode_tokens_per_s": 1 / gap}
        found.append({"model": "spin", **told, **rates})
    return found


def verdicts(rows: list[dict[str, Any]], margins: dict[str, float] = MARGINS) -> dict[str, bool | None]:
    return {row.metric: row.right for row in judged("spin", SPIN, rows, margins, STEP)}


def test_turns_that_take_as_long_as_planned_are_right() -> None:
    assert set(verdicts(rows(late_s=2e-6)).values()) == {True}


def test_a_busy_machine_that_leaves_some_turns_alone_does_not_make_a_right_meter_wrong() -> None:
    some = [row | {"model": "spin"} for row in rows(late_s=4e-3, every=2)]

    assert set(verdicts(some).values()) == {True}


def test_one_turn_that_is_faster_than_planned_is_wrong_on_any_machine() -> None:
    one = rows(2e-6)
    one[7] |= {"ttft_s": 1.19e-3}

    assert verdicts(one)["ttft_s"] is False
    assert verdicts(one, {**MARGINS, "ttft_s": 1.0})["ttft_s"] is False


def test_turns_that_are_all_late_are_wrong() -> None:
    late = verdicts(rows(late_s=40e-6))

    assert set(late.values()) == {False}


def test_where_the_margin_hides_a_miscounted_id_nothing_is_said() -> None:
    wide = dict.fromkeys(MARGINS, 1.0)

    assert set(verdicts(rows(late_s=40e-6), wide).values()) == {None}
    assert set(verdicts(rows(late_s=2e-6), wide).values()) == {None}


def test_turns_without_numbers_are_wrong_even_on_a_busy_machine() -> None:
    silent = [{"model": "spin", **dict.fromkeys((*PAUSES_IN, "output_tokens_per_s", "decode_tokens_per_s"))}]

    assert set(verdicts(silent).values()) == {False}
    assert set(verdicts(silent, dict.fromkeys(MARGINS, 1.0)).values()) == {False}


IN_WORKERS = """
import sys
if "harness.runner.worker" in sys.orig_argv:
    import struct
    from dataclasses import replace
    from harness.meters.clock import Stopwatch
"""
WORKER_MISTAKES = {
    "the prompt taken for the first token": """
    tokenized = Stopwatch.tokenized
    def both(watch):
        tokenized(watch)
        watch.tick(1)
    Stopwatch.tokenized = both
""",
    "a tick that waits for the next id": """
    tick = Stopwatch.tick
    def late(watch, ids):
        end = watch._clock() + 150_000
        while watch._clock() < end:
            pass
        tick(watch, ids)
    Stopwatch.tick = late
""",
    "absolute clock values in float32": """
    stamps = Stopwatch.stamps
    def single(ns):
        return struct.unpack("f", struct.pack("f", ns / 1e9))[0]
    def rounded(watch):
        found, start = stamps(watch), watch._start
        return replace(found, tick_ns=tuple(round((single(start + ns) - single(start)) * 1e9) for ns in found.tick_ns))
    Stopwatch.stamps = rounded
""",
}


NOTHING_WRONG = Exact(turns=len(SHAPES) * 3, values=301, deviations=())
"""What the exact part says in a process that makes no mistake (`test_this_meter_is_right_to_the_nanosecond`)."""


@pytest.mark.parametrize("mistake", WORKER_MISTAKES)
def test_a_mistake_that_only_workers_make_is_seen_in_real_time(
    mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(IN_WORKERS + WORKER_MISTAKES[mistake])
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    found = compare_in_real_time(tmp_path / "runs", STEP)

    assert not meter_is_right(NOTHING_WRONG, found)


def test_every_recital_in_real_time_has_the_replies_that_its_margins_are_made_for() -> None:
    for recital in PAUSED.values():
        assert {turn.facts["completion_tokens"] for turn in expected_turns(recital)} == {7}


# --- cost, resolution and the command -----------------------------------------------------------------------------


def test_the_clock_tells_nanoseconds_apart_that_it_says_it_does() -> None:
    facts = clock_facts()

    assert facts.smallest_step_s >= facts.declared_resolution_s > 0
    assert facts.reading_s > 0


def test_costs_are_told_apart_by_whether_they_are_in_the_numbers(tmp_path: Path) -> None:
    costs = meter_costs(tmp_path)

    assert [cost.part for cost in costs if cost.in_measured_time] == ["tick", "stamps"]
    assert len({cost.part for cost in costs}) == len(costs) == 9


def test_the_resolution_is_given_with_what_is_known_of_the_spread() -> None:
    found = resolution(Spread("tpot_s", (0.0, 0.1), 10, None, between=0.07, between_low=0.03, between_high=2.0), 5)

    assert found.difference == smallest_ratio(0.07, 5) - 1
    assert (found.low, found.high) == (smallest_ratio(0.03, 5) - 1, smallest_ratio(2.0, 5) - 1)


def test_the_command_says_that_this_meter_is_right_and_what_it_resolves(tmp_path: Path) -> None:
    done = run_harness("selftest", "--launches", 2, "--format", "json", "--results", tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["right"]
    assert {row["launches"] for row in found["noise"]["resolutions"]} == {2, 3, 5, 10, 20}
    (folder,) = tmp_path.iterdir()
    assert {path.name for path in folder.glob("*/manifest.json")} == {"manifest.json"}
    assert {path.parent.name for path in folder.glob("*/manifest.json")} == {"cost", "exact", "known", "noise"}
    assert f"runs kept: {folder}" in done.stderr


def test_without_a_number_it_makes_the_launches_of_the_study() -> None:
    assert f"[default: {LAUNCHES};" in " ".join(run_harness("selftest", "--help").stdout.split())


def test_the_command_fails_where_the_meter_is_wrong_and_keeps_what_shows_it(tmp_path: Path) -> None:
    mistake = IN_WORKERS.replace('"harness.runner.worker" in sys.orig_argv', "True")
    (tmp_path / "sitecustomize.py").write_text(mistake + WORKER_MISTAKES["the prompt taken for the first token"])
    path = os.pathsep.join([str(tmp_path), str(ROOT)])

    done = subprocess.run(
        [sys.executable, "-m", "harness", "selftest"],
        env={**ENVIRONMENT, "PYTHONPATH": path, "TMPDIR": str(tmp_path)},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip

    assert done.returncode == 1, done.stderr
    assert "The meter is WRONG on this machine" in done.stdout
    assert "one id at a time, turn 0: ttft_s must be 0.043000121, is 0.00300002" in done.stdout
    kept = Path(done.stderr.split("runs kept: ")[1].strip())
    assert (kept / "exact" / "turns.jsonl").exists()
    assert not (kept / "noise").exists()  # a wrong meter resolves nothing
