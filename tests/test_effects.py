"""What two sides differ by: formulas by hand, and which turns may be set against each other."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.analysis.effects import BEHAVIOUR, Effect, behaviour_effect, launch_effect, memory_of, speed_effect
from harness.analysis.inference import Inference
from harness.analysis.pairing import LeftOut, work
from harness.analysis.sides import Pair, Side
from harness.records import Cell, Memory, TurnRecord
from tests.builders import checks, failed, launch
from tests.sides_and_runs import stored, timed

TWO = {"models": ("pico", "nano")}


def sides(run, other=None) -> tuple[Side, Side]:
    return (Side(run, "pico"), Side(run, "nano")) if other is None else (Side(run), Side(other))


def slower(factors: list[float]):
    """nano takes so much longer in each launch."""

    def make(cell: Cell, index: int) -> TurnRecord:
        factor = factors[cell.launch] if cell.model == "nano" else 1
        return timed(cell, index, ttft_ms=10 * (index + 1) * factor, tpot_ms=2 * factor)

    return make


def test_speed_is_the_mean_log_ratio_over_launches(tmp_path: Path) -> None:
    """Ratios 1.1, 1.2 and 1.3 by launch: geometric mean 1.19722; t-interval over their logarithms."""
    run = stored(tmp_path, slower([1.1, 1.2, 1.3]), launches=3, **TWO)
    logs = np.log([1.1, 1.2, 1.3])
    reach = math.exp(4.302653 * logs.std(ddof=1) / math.sqrt(3))

    found = speed_effect(*sides(run), "ttft_s")

    assert found.value == pytest.approx((1.1 * 1.2 * 1.3) ** (1 / 3))
    assert (found.low, found.high) == (pytest.approx(found.value / reach), pytest.approx(found.value * reach))
    assert (found.n, found.basis, found.paired, found.turns) == (3, "launches", True, 24)
    assert found.baseline == pytest.approx(0.010 * 24 ** (1 / 4))  # the geometric mean of 10, 20, 30 and 40 ms


def test_launches_of_two_runs_are_not_paired(tmp_path: Path) -> None:
    ours = stored(tmp_path, run_id="old", launches=2)
    theirs = stored(tmp_path, lambda cell, index: timed(cell, index, 10 + cell.launch), run_id="new", launches=3)

    found = speed_effect(*sides(ours, theirs), "ttft_s")

    assert found.value == pytest.approx((1.0 * 1.1 * 1.2) ** (1 / 3))
    assert (found.paired, found.n) == (False, 2)


def test_one_launch_has_a_ratio_and_nothing_to_judge_it_by(tmp_path: Path) -> None:
    found = speed_effect(*sides(stored(tmp_path, slower([1.5]), **TWO)), "tpot_s")

    assert found.value == pytest.approx(1.5)
    assert (found.low, found.p, found.needed(), found.answer(None)) == (None, None, None, "cannot tell")
    assert found.reason == "one launch says nothing about the next"


def test_a_slowdown_of_the_last_quarter_of_the_turns_shows_in_the_mean(tmp_path: Path) -> None:
    """Every fourth turn takes 20 % longer: the median would not move, the mean log ratio is ¼ log 1.2."""

    def make(cell: Cell, index: int) -> TurnRecord:
        jitter = 1 + 0.002 * cell.launch * (cell.model == "nano")
        return timed(cell, index, ttft_ms=10 * jitter * (1.2 if cell.model == "nano" and index == 3 else 1))

    found = speed_effect(*sides(stored(tmp_path, make, launches=4, **TWO)), "ttft_s")

    assert found.value == pytest.approx(1.2**0.25 * 1.003, rel=1e-3)
    assert found.answer(found.p) == "different"


def test_turns_of_other_prompts_or_lengths_are_not_paired(tmp_path: Path) -> None:
    def make(cell: Cell, index: int) -> TurnRecord:
        other = cell.model == "nano"
        if index == 1 and other:
            return timed(cell, index, 99, prompt_hash="another")
        if index == 2 and other:
            return timed(cell, index, 99, ids=7)
        return failed(cell, index) if index == 3 and other and cell.launch == 1 else timed(cell, index)

    shared = stored(tmp_path, make, launches=2, **TWO)
    found = speed_effect(*sides(shared), "ttft_s")

    assert found.value == 1
    assert found.turns == 6
    assert found.left_out == LeftOut(unanswered=6, other_prompt=6, other_length=6)
    assert str(found.left_out) == "6: prompts differ, 6: lengths differ, 6: not answered in every launch"


def test_per_token_times_are_compared_at_any_length_only_if_said_so(tmp_path: Path) -> None:
    run = stored(tmp_path, lambda cell, index: timed(cell, index, ids=5 if cell.model == "pico" else 7), **TWO)

    assert speed_effect(*sides(run), "tpot_s").reason == "no turn is the same work on both sides (24: lengths differ)"
    assert speed_effect(*sides(run), "tpot_s", any_length=True).turns == 24
    with pytest.raises(ValueError, match="e2e_s depends on how long a reply is"):
        speed_effect(*sides(run), "e2e_s", any_length=True)


def test_different_models_are_paired_by_the_script_where_it_is_all_they_were_sent(tmp_path: Path) -> None:
    def make(cell: Cell, index: int, **around: str) -> TurnRecord:
        return timed(cell, index, prompt_hash=f"{cell.model}-{index}", around=around)

    lanes = {
        lane: stored(tmp_path, lambda cell, index, lane=lane: make(cell, index, **dict(lane)), run_id=f"run-{number}",
                     **dict(lane), **TWO)
        for number, lane in enumerate(
            (("history", history), ("length", length))
            for history in ("scripted", "generated") for length in ("fixed", "natural")
        )
    }  # fmt: skip
    turns = {
        tuple(value for _, value in lane): speed_effect(*sides(run), "ttft_s").turns for lane, run in lanes.items()
    }

    assert turns == {
        ("scripted", "fixed"): 24,
        ("scripted", "natural"): 0,
        ("generated", "fixed"): 6,  # the first turn of each conversation
        ("generated", "natural"): 0,
    }


def test_the_same_model_with_other_prompts_is_not_paired_by_the_script(tmp_path: Path) -> None:
    """Its template or tokenizer has changed: that is other work."""

    def made(run_id: str):
        def make(cell: Cell, index: int) -> TurnRecord:
            around = {"history": "scripted", "length": "fixed"}
            return timed(cell, index, prompt_hash=f"{run_id}-{index}", around=around)

        return stored(tmp_path, make, run_id, history="scripted", length="fixed")

    assert speed_effect(*sides(made("old"), made("new")), "ttft_s").left_out == LeftOut(other_prompt=24)


def test_what_neither_side_pins_down_is_matched(tmp_path: Path) -> None:
    """cool is three times as slow as greedy on both models: that cancels."""

    def make(cell: Cell, index: int) -> TurnRecord:
        return timed(cell, index, 10 * (3 if cell.sampling == "cool" else 1) * (2 if cell.model == "nano" else 1))

    found = speed_effect(*sides(stored(tmp_path, make, samplings=("greedy", "cool"), **TWO)), "ttft_s")

    assert (found.value, found.turns) == (pytest.approx(2), 48)


def test_memory_is_the_most_over_the_turns_whatever_was_said(tmp_path: Path) -> None:
    def make(cell: Cell, index: int) -> TurnRecord:
        size = (index + 1) * 2**20 * (2 if cell.model == "nano" else 1)
        return timed(cell, index, prompt_hash=f"{cell}", memory=Memory(peak_memory_bytes=size, host_rss_bytes=0))

    shared = work(Pair(*sides(stored(tmp_path, make, **TWO))))

    assert memory_of(shared, "peak_memory_bytes").candidate == pytest.approx(8 * 2**20)
    assert memory_of(shared, "peak_memory_bytes").value == pytest.approx(2)
    assert memory_of(shared, "host_rss_bytes").reason == "some values are 0: they have no ratio"
    assert memory_of(shared, "device_used_bytes").reason == "not measured on both sides"


def test_loading_is_compared_by_launches(tmp_path: Path) -> None:
    took = [launch("pico", 0, load_s=1.0), launch("nano", 0, load_s=2.0), launch("nano", 1, load_s=4.5),
            launch("pico", 1, load_s=2.0)]  # fmt: skip
    run = stored(tmp_path, launches=2, manifest={"launches": took}, **TWO)

    assert launch_effect(*sides(run), "load_s").value == pytest.approx(math.sqrt(2 * 2.25))
    assert launch_effect(*sides(run), "first_turn_s").value == pytest.approx(1)
    same = launch_effect(Side(run, "pico"), Side(run, "pico"), "load_s")
    assert same.reason == "both sides were played by the same processes"


def test_loading_in_no_time_has_no_ratio(tmp_path: Path) -> None:
    run = stored(tmp_path, manifest={"launches": [launch("pico", 0, load_s=0.0), launch("nano", 0, load_s=0.0)]}, **TWO)

    assert launch_effect(*sides(run), "load_s").reason == "some values are 0: they have no ratio"


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(0.5, 2), min_size=1, max_size=4))
def test_swapping_sides_inverts_ratios(tmp_path_factory: pytest.TempPathFactory, factors: list[float]) -> None:
    run = stored(tmp_path_factory.mktemp("run"), slower(factors), launches=len(factors), conversations={"a": 2}, **TWO)
    ours, theirs = sides(run)

    there, back = speed_effect(ours, theirs, "ttft_s"), speed_effect(theirs, ours, "ttft_s")

    assert back.value == pytest.approx(1 / there.value)
    assert back.p == pytest.approx(there.p)
    if there.low is not None:
        assert (back.low, back.high) == pytest.approx((1 / there.high, 1 / there.low))
    assert [back.answer(back.p), back.needed()] == [there.answer(there.p), there.needed()]


def passing(rate):
    """`rate(cell, index)` of two checks are passed."""

    def make(cell: Cell, index: int) -> TurnRecord:
        n = rate(cell, index)
        return timed(cell, index, checks=checks(n >= 1, n >= 2))

    return make


def test_behaviour_is_the_mean_over_conversations(tmp_path: Path) -> None:
    """nano fails both checks of the last turn of three conversations: each loses a quarter; the mean is an eighth."""
    losing = ("physics", "memory", "poem")

    def rate(cell: Cell, index: int) -> int:
        return 0 if cell.model == "nano" and index == 3 and cell.conversation_id in losing else 2

    run = stored(tmp_path, passing(rate), checks=[2] * 4, **TWO)
    found = behaviour_effect(*sides(run), "check_pass_rate")

    assert (found.baseline, found.candidate, found.value) == (1, 0.875, -0.125)
    assert (found.n, found.basis, found.turns) == (6, "conversations", 24)
    assert found.answer(found.p) == "cannot tell"


def test_long_and_short_conversations_count_alike(tmp_path: Path) -> None:
    """nano fails everything in one conversation of nine turns, nothing in nine of one: a tenth of the conversations,
    though half of the checks."""
    talks = {"long": 9} | {f"short-{number}": 1 for number in range(9)}

    def rate(cell: Cell, _: int) -> int:
        return 0 if cell.model == "nano" and cell.conversation_id == "long" else 2

    run = stored(tmp_path, passing(rate), checks=[2] * 9, conversations=talks, **TWO)

    assert behaviour_effect(*sides(run), "check_pass_rate").candidate == pytest.approx(0.9)


def test_greedy_repeats_and_launches_are_one_observation(tmp_path: Path) -> None:
    def rate(cell: Cell, index: int) -> int:
        return 2 - (cell.model == "nano") * (index == 0) * (1 + (cell.conversation_id == "law"))

    once = stored(tmp_path, passing(rate), run_id="once", checks=[2] * 4, **TWO)
    often = stored(tmp_path, passing(rate), run_id="often", checks=[2] * 4, repeats=3, launches=2, **TWO)

    assert behaviour_effect(*sides(often), "check_pass_rate") == behaviour_effect(*sides(once), "check_pass_rate")


def test_a_turn_that_failed_has_failed_its_checks(tmp_path: Path) -> None:
    def make(cell: Cell, index: int) -> TurnRecord:
        return failed(cell, index) if cell.model == "nano" and index == 3 else passing(lambda *_: 2)(cell, index)

    run = stored(tmp_path, make, checks=[2] * 4, **TWO)

    assert behaviour_effect(*sides(run), "check_pass_rate").value == -0.25
    assert behaviour_effect(*sides(run), "failure_rate").value == 0.25
    assert behaviour_effect(*sides(run), "completion_tokens").turns == 18


def test_below_six_conversations_nothing_is_said_of_others(tmp_path: Path) -> None:
    run = stored(tmp_path, passing(lambda cell, _: 2 * (cell.model == "pico")), checks=[2] * 2,
                 conversations=dict.fromkeys("abcde", 2), **TWO)  # fmt: skip
    found = behaviour_effect(*sides(run), "check_pass_rate")

    assert (found.value, found.low, found.basis) == (-1, None, "few conversations")
    assert found.reason == "5 conversations say nothing about others"


@pytest.mark.parametrize("metric", ["check_pass_rate", "completion_tokens", "truncation_rate", "repetition"])
def test_replies_forced_to_a_length_are_not_judged(tmp_path: Path, metric: str) -> None:
    run = stored(tmp_path, lambda cell, index: timed(cell, index, around={"length": "fixed"}), length="fixed", **TWO)

    assert behaviour_effect(*sides(run), metric).reason == "replies are forced to a length, or come from random weights"
    assert behaviour_effect(*sides(run), "failure_rate").value == 0


def test_cut_off_replies_and_lengths_are_counted(tmp_path: Path) -> None:
    def make(cell: Cell, index: int) -> TurnRecord:
        long = cell.model == "nano" and index < 2
        return timed(cell, index, ids=9 if long else 5, finish_reason="max_length" if long else "eos")

    run = stored(tmp_path, make, **TWO)

    assert behaviour_effect(*sides(run), "truncation_rate").value == 0.5
    assert behaviour_effect(*sides(run), "completion_tokens").value == 2


def test_anything_that_turns_have_can_be_compared(tmp_path: Path) -> None:
    own = replace(BEHAVIOUR["repetition"], name="position",
                  of=lambda side: (side.turns["turn_index"], np.ones(len(side.turns))))  # fmt: skip

    assert behaviour_effect(*sides(stored(tmp_path, **TWO)), own).baseline == 1.5


def effect(low: float, high: float, p: float = 0.5) -> Effect:
    middle = (math.log(low) + math.log(high)) / 2
    return Effect("ttft_s", "ratio", 1, 1, Inference(middle, math.log(low), math.log(high), p, 4, 0.01, 3), "launches")


def test_there_are_three_answers() -> None:
    assert effect(1.02, 1.09).answer(0.01) == "different"
    assert effect(0.97, 1.04).answer(0.5) == "equivalent"
    assert effect(0.97, 1.06).answer(0.5) == "cannot tell"
    assert effect(0.97, 1.06).answer(0.5, margin=0.1) == "equivalent"
    assert effect(1 / 1.051, 1.0).answer(0.5) == "cannot tell"  # the margin of a ratio is as wide on either side
