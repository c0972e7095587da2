"""What a gate must not take for a pass, or for an alarm: gaps, mistakes in rules, nights of one evening."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pandas as pd
import pytest

from harness.analysis.decide import decide
from harness.analysis.floor import calibrate, read_floor, write_floor
from harness.analysis.frames import Run
from harness.analysis.gate import gate
from harness.analysis.gating.window import by_sitting
from harness.errors import StoreError, UsageError
from harness.records import Cell, TurnRecord
from tests.builders import failed
from tests.nights import again, day, night, noise, rules, usual


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return night(tmp_path_factory.mktemp("gate"), 0)


@pytest.fixture(scope="module")
def window(base: Run) -> list[Run]:
    dice = np.random.default_rng(0)
    return [again(base, number, noise(base, dice, nights=0.003, launches=0.003)) for number in range(1, 8)]


def at(run: Run, begun: str) -> Run:
    return replace(run, manifest={**run.manifest, "created_at": begun})


def without(run: Run, metric: str, rows: npt.NDArray[np.bool_]) -> Run:
    values = run.turns[metric].to_numpy(dtype=float, na_value=np.nan).copy()
    values[rows] = np.nan
    return replace(run, turns=run.turns.assign(**{metric: pd.array(values, dtype="Float64")}))


def test_a_run_that_was_made_before_the_night_confirms_nothing_of_it(base: Run, window: list[Run]) -> None:
    slow, earlier = again(base, 20, 0.18), again(base, 0, 0.0)

    with pytest.raises(UsageError, match="night-00: was made before night-20, and confirms nothing"):
        gate(slow, window, rules(tpot_s="+5%"), confirm=[earlier])


def test_what_every_night_measured_and_tonight_did_not_is_no_pass(base: Run, window: list[Run]) -> None:
    gone = (base.turns["conversation_id"] == "memory").to_numpy(dtype=bool)
    (verdict,) = gate(without(again(base, 20, 0.0), "tpot_s", gone), window, rules(tpot_s="+5%")).verdicts

    assert verdict.answer == "cannot tell"
    assert verdict.reason == "tpot_s of 2 turns was not measured tonight, and is in the window"


def test_what_no_night_measured_is_not_missed_tonight(base: Run, window: list[Run]) -> None:
    gone = (base.turns["conversation_id"] == "memory").to_numpy(dtype=bool)
    nights = [without(each, "tpot_s", gone) for each in (*window, again(base, 20, 0.0))]

    assert gate(nights[-1], nights[:-1], rules(tpot_s="+5%")).answer == "pass"


@pytest.mark.parametrize(
    "subject", ["tpot_s where conversation=memory, turn=7", "checks where conversation=one, turn=1"]
)
def test_conditions_that_no_turn_meets_together_are_refused(tmp_path: Path, subject: str) -> None:
    script = {"conversations": {"memory": 8, "one": 1, "two": 9}}
    nights = [night(tmp_path, number, **script) for number in (1, 2)]
    subject = subject.replace("turn=7", "turn=8")
    bound = "exact" if subject.startswith("checks") else "+5%"

    with pytest.raises(UsageError, match="there is no turn of which all of this is true"):
        gate(nights[1], nights[:1], rules(**{subject: bound, "failures": 0}))


def test_a_rule_on_the_speed_of_the_anchor_is_refused(base: Run, window: list[Run]) -> None:
    with pytest.raises(UsageError, match="the anchor is what speed is relative to"):
        gate(again(base, 20, 0.0), window, rules(anchor="pico", **{"tpot_s where model=pico": "+5%"}, failures=0))


def test_one_model_without_a_metric_does_not_hide_what_failed_in_another(tmp_path: Path) -> None:
    def blind(run: Run) -> Run:
        return without(run, "tpot_s", (run.turns["model"] == "nano").to_numpy(dtype=bool))

    nights = [blind(night(tmp_path, number, usual, models=["pico", "nano"])) for number in (1, 2, 3)]

    def tonight(cell: Cell, index: int) -> TurnRecord | None:
        if cell.model == "nano":
            return usual(cell, index)
        return failed(cell, index) if index == 0 else None

    judged = gate(blind(night(tmp_path, 20, tonight, models=["pico", "nano"])), nights, rules(tpot_s="+5%", failures=0))

    assert judged.answer == "regression"


def test_checks_that_were_not_played_are_not_run_though_other_models_have_none(tmp_path: Path) -> None:
    def bare(cell: Cell, index: int) -> TurnRecord | None:
        return usual(cell, index) if cell.model == "pico" else usual(cell, index, checks=())

    def babbling(run: Run) -> Run:
        models = [{**spec, "weights": "random"} if spec["label"] == "nano" else spec for spec in run.plan["models"]]
        turns = run.turns.copy()
        turns.loc[turns["model"] == "nano", "weights"] = "random"
        return replace(run, turns=turns, manifest={**run.manifest, "plan": {**run.plan, "models": models}})

    def tonight(cell: Cell, index: int) -> TurnRecord | None:
        return None if cell.model == "pico" else bare(cell, index)

    nights = [babbling(night(tmp_path, number, bare, models=["pico", "nano"])) for number in (1, 2, 3)]
    judged = gate(babbling(night(tmp_path, 20, tonight, models=["pico", "nano"])), nights, rules(checks="exact"))

    assert {verdict.model: verdict.answer for verdict in judged.verdicts} == {"pico": "not run", "nano": "cannot tell"}


# Nights of one evening.


def evening(base: Run, count: int, dice: np.random.Generator, shift: float = 0.0) -> list[Run]:
    """Runs of one evening, half an hour apart."""
    made = [again(base, 100 + n, shift + noise(base, dice, nights=0.001, launches=0.005)) for n in range(count)]
    return [at(run, f"2026-01-01T{18 + n // 2:02}:{30 * (n % 2):02}:00+00:00") for n, run in enumerate(made)]


def test_runs_of_one_evening_tell_nothing_of_how_days_differ(base: Run) -> None:
    calibrated = evening(base, 8, np.random.default_rng(1))
    slower = again(base, 20, 0.03)

    alone = gate(slower, calibrated, rules(tpot_s="auto"))
    floors = calibrate(calibrated, rules(tpot_s="auto"))[0].floors(rules(tpot_s="auto"))
    with_floor = gate(slower, calibrated, rules(tpot_s="auto"), floors)

    for judged in (alone, with_floor):
        assert (judged.answer, judged.verdicts[0].nights) == ("cannot tell", 1)
        assert "one night does not tell how much nights differ" in judged.verdicts[0].reason


def test_calibrate_bless_and_two_nights_make_a_window_that_decides(base: Run) -> None:
    dice = np.random.default_rng(2)
    calibrated = evening(base, 8, dice)
    days = [again(base, number, noise(base, dice, nights=0.003, launches=0.005)) for number in (2, 3, 4)]
    floors = calibrate(calibrated, rules(tpot_s="+50%"))[0].floors(rules(tpot_s="+50%"))

    judged = gate(days[-1], [*calibrated, *days[:2]], rules(tpot_s="+50%"), floors)

    assert (judged.answer, judged.verdicts[0].nights) == ("pass", 3)


def test_runs_of_the_same_evening_as_tonight_count_each_by_itself(base: Run) -> None:
    *earlier, last = evening(base, 8, np.random.default_rng(3))

    assert gate(last, earlier, rules(tpot_s="+10%")).verdicts[0].nights == 7


def test_launches_of_a_sitting_stay_together_from_its_first_run_on() -> None:
    values = [np.array([float(number)] * 2) for number in range(4)]
    begun = [pd.Timestamp(day(0)) + pd.Timedelta(hours=hours) for hours in (0, 11, 12, 36)]

    merged = by_sitting(values, [each.to_pydatetime() for each in begun], None)

    assert [each.tolist() for each in merged] == [[0.0, 0.0, 1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]


def test_days_that_differ_more_than_an_evening_are_red_in_one_night_of_a_hundred_at_the_most() -> None:
    """Twelve cells, 2 % from day to day, 0.2 % within the evening that was blessed, two nights after it."""
    dice, red = np.random.default_rng(7), 0
    for _ in range(60):
        cells = []
        for _ in range(12):
            days = dice.normal(0, 0.02, 4)
            runs = [days[0] + dice.normal(0, 0.002) + dice.normal(0, 0.01, 6) for _ in range(8)]
            nights = [np.concatenate(runs), *(level + dice.normal(0, 0.01, 6) for level in days[1:3])]
            tonight = days[3] + dice.normal(0, 0.01, 10)
            cells.append(decide(tonight[:6], nights, margin=None, family=12, confirm=tonight[6:]).answer)
        red += "regression" in cells

    assert red == 0


def test_auto_is_never_less_than_one_per_cent(base: Run) -> None:
    still = [again(base, number, 0.0) for number in range(1, 6)]
    flat = [replace(run, turns=run.turns.assign(tpot_s=pd.array([0.002] * len(run.turns), dtype="Float64")))
            for run in (*still, again(base, 20, 0.0))]  # fmt: skip
    slower = again(flat[-1], 20, 0.005)
    slow = again(flat[-1], 20, 0.02)

    assert gate(slower, flat[:-1], rules(tpot_s="auto")).answer == "pass"
    assert gate(slow, flat[:-1], rules(tpot_s="auto")).verdicts[0].answer == "suspicion"


# floor.json.


@pytest.mark.parametrize(
    "spoil",
    [
        lambda floor: floor.update(between=None),
        lambda floor: floor.update(launch="a"),
        lambda floor: floor.update(between=-1.0),
        lambda floor: floor.update(nights=0),
        lambda floor: floor.update(launches=0),
    ],
)
def test_a_floor_that_is_no_noise_is_told_with_its_file(
    tmp_path: Path, window: list[Run], spoil: Callable[[dict[str, Any]], None]
) -> None:
    path = tmp_path / "floor.json"
    write_floor(path, calibrate(window, rules(tpot_s="+5%"))[0])
    told = orjson.loads(path.read_bytes())
    spoil(told["cells"][0]["floor"])
    path.write_bytes(orjson.dumps(told))

    with pytest.raises(StoreError, match=r"floor.json: cannot be read"):
        read_floor(path)


def test_a_floor_of_another_device_or_config_is_refused(window: list[Run]) -> None:
    calibration = calibrate(window, rules(tpot_s="+5%"))[0]
    calibration.must_be_of(window[0])

    for other in ({"device": "nvidia-x1"}, {"config": "another"}):
        with pytest.raises(UsageError, match="and the calibration of"):
            replace(calibration, **other).must_be_of(window[0])
