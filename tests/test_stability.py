"""Whether the machine held still: variances told apart, and every sign of an unstable one with its reason."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.frames import Run
from harness.analysis.notes import notes
from harness.analysis.spread import Spread, spread
from harness.analysis.stability import Stability, stabilities
from harness.analysis.summary import by_setting
from harness.records import Cell, DeviceState, DeviceTurn, HostLoad, TurnRecord
from tests.builders import every_turn, launch, plan, run_of, turn


def spread_of(table: list[list[list[float]]]) -> Spread:
    """Of times by work, launch and repeat."""
    rows = [
        (work, number, time)
        for work, launches in enumerate(table)
        for number, times in enumerate(launches)
        for time in times
    ]
    work, number, times = (np.array(column) for column in zip(*rows, strict=True))
    return spread(work, number, times.astype(float))


class TestSpread:
    def test_by_hand(self) -> None:
        """Logarithms: work 0 is 1 | 3 in the two launches, work 1 is 2 | 6. Less the means of the works, 2 and 4:
        -1 | 1 and -2 | 2, launch means -1.5 | 1.5, rests 0.5 | -0.5 and -0.5 | 0.5. So within² = 1 / (4 − 2 − 2 + 1),
        and of the launches 4 · 1.5² / (2 − 1) = 9 is left (9 − 1) / 2 = 4."""
        found = spread_of([[[math.e], [math.e**3]], [[math.e**2], [math.e**6]]])

        assert found.turn_sd == pytest.approx(1)
        assert found.launch_sd == pytest.approx(2)
        assert found.degrees == 1

    def test_one_launch_shows_what_repeats_differ_in_and_nothing_of_launches(self) -> None:
        """Logarithms 1, 3 and 7, 7: squares about their means 1 + 1 and 0, with 4 − 2 degrees of freedom."""
        found = spread_of([[[math.e, math.e**3]], [[math.e**7, math.e**7]]])

        assert found == Spread(None, pytest.approx(1), 2)

    def test_work_done_once_shows_nothing(self) -> None:
        assert spread_of([[[1.0]], [[5.0]]]) == Spread()
        assert spread(np.array([], int), np.array([], int), np.array([])) == Spread()

    def test_one_work_in_two_launches_cannot_tell_launch_from_turn(self) -> None:
        assert spread_of([[[1.0], [2.0]]]) == Spread()

    def test_work_that_one_launch_did_not_do_as_often_is_left_out(self) -> None:
        whole = [[[1.0], [2.0]], [[3.0], [7.0]]]

        assert spread_of([*whole, [[1000.0, 1.0], [5.0]]]) == spread_of(whole)

    def test_launches_that_differ_less_than_turns_do_not_differ(self) -> None:
        found = spread_of([[[1.0, 9.0], [9.0, 1.0]]])

        assert found.launch_sd == 0
        assert found.turn_sd is not None

    @pytest.mark.parametrize(("launch_sd", "turn_sd"), [(0.1, 0.02), (0.02, 0.1), (0.0, 0.05)])
    def test_planted_deviations_are_recovered(self, launch_sd: float, turn_sd: float) -> None:
        """Their squares are estimated without bias, so the mean of many estimates tells (the cut at 0 aside)."""
        dice = np.random.default_rng(1)
        launches, works, repeats = 8, 12, 2
        squares = []
        for _ in range(300):
            logs = (
                dice.normal(0, 1, (works, 1, 1))
                + dice.normal(0, launch_sd, (1, launches, 1))
                + dice.normal(0, turn_sd, (works, launches, repeats))
            )
            found = spread_of(np.exp(logs).tolist())
            assert found.launch_sd is not None
            assert found.turn_sd is not None
            squares.append((found.launch_sd**2, found.turn_sd**2))
        between, within = np.mean(squares, axis=0)

        assert math.sqrt(within) == pytest.approx(turn_sd, rel=0.02)
        assert math.sqrt(between) == pytest.approx(launch_sd, rel=0.1, abs=0.01)

    @given(
        st.lists(st.lists(st.floats(0.1, 10), min_size=3, max_size=3), min_size=2, max_size=5),
        st.floats(0.01, 100),
    )
    def test_the_unit_of_time_and_the_size_of_the_work_do_not_matter(self, times: list[list[float]], k: float) -> None:
        plain = spread_of([[[time] for time in row] for row in times])
        scaled = spread_of([[[time * k * (work + 1)] for time in row] for work, row in enumerate(times)])

        assert scaled.turn_sd == pytest.approx(plain.turn_sd, rel=1e-6, abs=1e-6)
        assert scaled.launch_sd == pytest.approx(plain.launch_sd, rel=1e-6, abs=1e-6)


def only(run: Run) -> Stability:
    (found,) = stabilities(run)
    return found


REPEATED = plan(conversations={"physics": 2}, repeats=6)


def uneven(by: float) -> list[TurnRecord]:
    """Every other repeat takes `by` more time per token."""
    return every_turn(
        REPEATED,
        lambda cell, index: turn(cell, index, ttft_ms=1000, tpot_ms=round(1000 * (1 + by * (cell.repeat % 2)))),
    )


def test_the_same_work_that_takes_different_times_is_unstable(tmp_path: Path) -> None:
    """The logarithms lie log(1.5) / 2 = 0.203 to either side of the mean of 6: √(12 · 0.203² / (12 − 2)) = 22 %."""
    run = run_of(tmp_path, uneven(0.5), REPEATED)

    assert only(run).badge == "unstable: spread"
    (reason,) = only(run).reasons
    assert reason.size == pytest.approx(math.log(1.5) / 2 * math.sqrt(12 / 10))
    assert reason.fact == "time per output token of the very same work varies by 22 % within a launch (limit 10 %)"
    assert f"pico is unstable (spread): {reason.fact}; " in notes(run)[-1]


def test_the_same_work_in_the_same_time_is_stable(tmp_path: Path) -> None:
    assert only(run_of(tmp_path, uneven(0.01), REPEATED)).badge == "stable"


def test_different_prompts_are_different_work(tmp_path: Path) -> None:
    """What sampled replies make of turn 1 differs, and so may its time."""
    of = plan(conversations={"physics": 1}, repeats=8)
    records = every_turn(
        of, lambda cell, index: turn(cell, index, tpot_ms=1000 * (1 + cell.repeat), prompt_hash=f"{cell.repeat:016x}")
    )

    assert only(run_of(tmp_path, records, of)).badge is None


def test_few_repeats_are_too_few_to_judge(tmp_path: Path) -> None:
    of = plan(conversations={"physics": 1}, repeats=2)
    records = every_turn(of, lambda cell, index: turn(cell, index, tpot_ms=1000 * (1 + cell.repeat)))

    found = only(run_of(tmp_path, records, of))
    assert found.spreads["tpot_s"].turn_sd is not None
    assert found.badge is None


def test_launch_and_turn_deviations_stand_side_by_side_in_the_summary(tmp_path: Path) -> None:
    """Launch 1 is slower by a factor of 1.21: √((log(1.21)² / 2)), as nothing else differs."""
    of = plan(conversations={"physics": 2}, launches=2)
    records = every_turn(of, lambda cell, index: turn(cell, index, tpot_ms=1210 if cell.launch else 1000))
    (row,) = by_setting(run_of(tmp_path, records, of)).to_dict("records")

    assert row["tpot_s_launch_sd"] == pytest.approx(math.log(1.21) / math.sqrt(2))
    assert row["tpot_s_turn_sd"] == pytest.approx(0, abs=1e-9)
    assert row["ttft_s_launch_sd"] == pytest.approx(0, abs=1e-9)
    assert pd.isna(row["stability"])  # one degree of freedom


def on_a_gpu(*throttle: str, processes: int = 1) -> dict[str, Any]:
    state = DeviceState(throttle=throttle, processes=processes)
    return {"devices": (DeviceTurn("cuda:0", before=DeviceState(throttle=()), after=state),)}


def test_clocks_held_down_are_unstable(tmp_path: Path) -> None:
    records = [turn(**on_a_gpu("sw_power_cap", "applications_clocks_setting")), turn(index=1, **on_a_gpu())]
    found = only(run_of(tmp_path, records))

    assert found.badge == "unstable: throttling"
    assert found.reasons[0].size == 0.5
    assert found.reasons[0].fact == "clocks were held down before or after 50 % of the turns (sw_power_cap)"


@pytest.mark.parametrize("reason", ["gpu_idle", "applications_clocks_setting", "display_clock_setting"])
def test_an_idle_accelerator_and_clocks_someone_has_set_are_no_throttling(tmp_path: Path, reason: str) -> None:
    assert only(run_of(tmp_path, [turn(**on_a_gpu(reason)), turn(index=1)])).badge is None


def test_other_processes_on_the_accelerator_are_unstable(tmp_path: Path) -> None:
    run = run_of(tmp_path, [turn(**on_a_gpu(processes=2)), turn(index=1, **on_a_gpu())])

    assert run.turns["device_processes"].tolist() == [2, 1]
    assert only(run).badge == "unstable: shared accelerator"


def test_foreign_load_is_weighted_by_time(tmp_path: Path) -> None:
    """18 ms with nobody else, then 98 ms with one other processor busy: 98 / 116 of a processor, of four."""
    records = [
        turn(ttft_ms=8, tpot_ms=2, host_load=HostLoad(0.02, 0.02, 0.02)),
        turn(index=1, ttft_ms=88, tpot_ms=2, host_load=HostLoad(0.1, 0.1, 0.2)),
    ]
    found = only(run_of(tmp_path, records))

    assert found.foreign_load == pytest.approx(98 / (98 + 18))
    assert found.badge == "unstable: foreign load"
    assert found.reasons[0].fact == "other processes kept 0.8 of 4 processors busy (limit 10 %)"


def test_steps_of_the_kernels_clock_average_out(tmp_path: Path) -> None:
    """Two turns of 5 ms, of which the kernel charged 10 ms to one and nothing to the other: nobody else was there."""
    records = [
        turn(host_load=HostLoad(0.005, 0.005, 0.010)),
        turn(index=1, host_load=HostLoad(0.005, 0.005, 0.0)),
    ]
    run = run_of(tmp_path, records)

    assert run.turns["foreign_load"].tolist() == pytest.approx([1, -1])
    assert only(run).foreign_load == pytest.approx(0)
    assert only(run).badge is None


def test_a_warm_up_that_never_settled_is_unstable(tmp_path: Path) -> None:
    def warmed(settled: bool | None, passes: int) -> list[dict[str, Any]]:
        return [{"sampling": "greedy", "concurrency": 1, "passes": passes, "settled": settled}]

    of = plan(["pico", "nano"], conversations={"physics": 1})
    launches = [launch("pico", 0, warmups=warmed(False, 5)), launch("nano", 0, warmups=warmed(None, 1))]
    pico, nano = stabilities(run_of(tmp_path, every_turn(of), of, launches=launches))

    assert (pico.badge, nano.badge) == ("unstable: warm-up", None)
    assert pico.reasons[0].fact == ("after 5 warm-up passes the last two still did not take the same time, in 1 launch")


def test_the_worst_setting_speaks_for_its_model(tmp_path: Path) -> None:
    of = plan(samplings=["calm", "wild"], conversations={"physics": 1}, repeats=8)

    def make(cell: Cell, index: int) -> TurnRecord:
        by = 0.9 if cell.sampling == "wild" else 0.4
        return turn(cell, index, tpot_ms=round(1000 * (1 + by * (cell.repeat % 2))))

    (note,) = [note for note in notes(run_of(tmp_path, every_turn(of, make), of)) if "unstable" in note]
    assert note.startswith("pico is unstable (spread, worst with wild): time per output token")
