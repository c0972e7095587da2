"""A budget: the most informative settings first, what is not played is not run, and nothing runs on and on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.config.durations import seconds
from harness.config.plan import Plan
from harness.config.rules import Gating
from harness.records import Cell
from harness.runner.messages import CellDone, LoadFailed, Progress, WorkerStarted
from harness.store import read_manifest
from harness.studies import nightly as module
from harness.studies.budget import Budget, BudgetSpentError, by_information
from harness.studies.replay import resolve
from tests.recited_nights import answers, bless_some, furnish, play


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return furnish(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("text", "value"), [("45min", 2700), ("1h 30min", 5400), ("90 s", 90), ("1.5h", 5400), ("2min30s", 150)]
)
def test_times_are_written_as_people_write_them(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "45", "min", "0s", "45min and more", "1h 1h", "-5min"])
def test_what_is_no_time_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="is no time – write one such as 45min"):
        seconds(text)


class Hours:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def launch(budget: Budget, clock: Hours, plan: Plan, number: int, load_s: float, each_s: dict[str, float]) -> list[str]:
    """Make one launch of every model, of which loading and each model's conversation take so long; who was played."""
    played = []
    for spec in plan.launch_order(number):
        cells = [cell for cell in plan.cell_order(str(spec.label), number) if budget.wanted(cell)]
        if not cells:
            continue
        budget.watch(WorkerStarted(str(spec.label), number, plan.launches))
        clock.now += load_s
        budget.watch(LoadFailed(None))  # type: ignore[arg-type]  # it takes its time, too
        for cell in cells:
            clock.now += each_s[cell.model]
            budget.watch(CellDone(cell))
            played.append(cell.model)
    return played


def test_what_launches_take_decides_how_many_of_which_setting_are_made(here: Path) -> None:
    plan, clock = resolve("nightly.yaml", ["launches=4"]), Hours()
    order = [("two", "default", 1), ("one", "default", 1)]
    names = {cell.sampling for cell in plan.cells()}
    order = [(model, *names, 1) for model, _, _ in order]
    # A launch of `two` takes 1 + 9 s, of `one` 1 + 4: 15 s for both. Of 60 s all four fit, of 50 s two first.
    budget = Budget(plan, 51.0, order, clock)

    made = [launch(budget, clock, plan, number, 1.0, {"one": 4.0, "two": 9.0}) for number in range(4)]

    assert made[0] == ["one", "two"]  # nobody knows yet what they take
    assert [names.count("two") for names in made] == [1, 1, 1, 1]  # the first in the order has all of its launches
    assert sum(names.count("one") for names in made) == 2
    assert clock.now <= 51.0
    assert budget.cut


def test_with_time_enough_everything_is_played_and_nothing_is_cut(here: Path) -> None:
    plan, clock = resolve("nightly.yaml"), Hours()
    budget = Budget(plan, 100.0, by_information(plan, _gating(plan), None), clock)

    made = [launch(budget, clock, plan, number, 1.0, {"one": 4.0, "two": 9.0}) for number in range(2)]

    assert [sorted(names) for names in made] == [["one", "two"]] * 2
    assert not budget.cut


def test_a_first_launch_that_is_longer_than_the_budget_ends_between_two_conversations(here: Path) -> None:
    plan, clock = resolve("nightly.yaml"), Hours()
    budget = Budget(plan, 3.0, by_information(plan, _gating(plan), None), clock)

    with pytest.raises(BudgetSpentError):
        launch(budget, clock, plan, 0, 1.0, {"one": 4.0, "two": 9.0})
    assert not budget.wanted(Cell("two", "default", "a", 0, 1))


def _gating(plan: Plan) -> Gating:
    assert plan.config.gate is not None
    return plan.config.gate


def told(model: str, answer: str, **values: Any) -> dict[str, Any]:
    of = {"model": model, "sampling": None, "concurrency": None, "answer": answer, "scale": "ratio", "baseline": 1.0}
    return {**of, "low": 0.99, "high": 1.01, **values}


@pytest.mark.parametrize(
    ("rules", "before", "first"),
    [
        ({"ttft_s": "auto"}, [], "one"),  # as written
        ({"ttft_s": "auto"}, [told("one", "pass"), told("two", "suspicion")], "two"),
        ({"ttft_s": "auto"}, [told("one", "pass"), told("two", "cannot tell")], "two"),
        ({"ttft_s": "auto"}, [told("one", "pass"), told("two", "pass", high=1.2)], "two"),
        ({"ttft_s where model=two": "auto"}, [told("one", "cannot tell"), told("two", "pass")], "two"),
    ],
)
def test_the_most_informative_settings_come_first(
    here: Path, rules: dict[str, str], before: list[dict[str, Any]], first: str
) -> None:
    plan = resolve("nightly.yaml")
    order = by_information(plan, Gating(rules=rules), {"verdicts": before})

    assert next(model for model, _, _ in order) == first
    anchored = by_information(plan, Gating(rules=rules, anchor="one"), {"verdicts": before})
    assert anchored[0][0] == "one"  # what the others are relative to


def test_what_a_night_has_no_time_for_is_not_run_and_no_pass(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bless_some(play(here, run_id="first"), here / "results")
    seen: list[Progress] = []
    clock = Hours()

    class Slow(Budget):
        def __init__(self, plan: Plan, limit_s: float, order: Any) -> None:
            super().__init__(plan, limit_s, order, clock)

        def watch(self, event: Progress) -> None:
            clock.now += 10.0 if isinstance(event, CellDone) else 0.0
            seen.append(event)
            super().watch(event)

    monkeypatch.setattr(module, "Budget", Slow)

    night = play(here, run_id="second", budget_s=12.0)

    assert night.cut
    assert {verdict.answer for verdict in night.gate.verdicts if verdict.model == "two"} == {"not run"}
    assert night.gate.answer == "cannot tell"
    manifest = read_manifest(night.path)
    assert manifest["finished_at"] is not None
    assert (manifest["night"]["cut"], manifest["night"]["budget_s"]) == (True, 12.0)
    assert {model for model, _ in answers(night)} == {"one", "two"}
