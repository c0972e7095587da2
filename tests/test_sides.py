"""Which turns are a side, and which sides are set against each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.analysis.sides import Pair, Side, across, within
from harness.errors import UsageError
from tests.sides_and_runs import stored

MATRIX = {"models": ("pico", "nano"), "samplings": ("greedy", "cool"), "concurrency": [1, 4]}


def labels(pairs: tuple[Pair, ...]) -> list[tuple[str, str]]:
    return [(pair.baseline.label, pair.candidate.label) for pair in pairs]


def test_a_side_holds_the_turns_of_what_it_pins_down(tmp_path: Path) -> None:
    run = stored(tmp_path, **MATRIX)

    assert len(Side(run).turns) == 8 * 24
    assert len(Side(run, model="nano").turns) == 4 * 24
    assert len(Side(run, "nano", "cool", 4).turns) == 24
    assert Side(run, sampling="cool").settings == (
        ("pico", "cool", 1), ("pico", "cool", 4), ("nano", "cool", 1), ("nano", "cool", 4),
    )  # fmt: skip


def test_a_side_is_called_by_what_it_pins_down(tmp_path: Path) -> None:
    run = stored(tmp_path, **MATRIX)

    assert Side(run).label == "a-run"
    assert Side(run, "nano", "cool", 4).label == "nano, cool, concurrency=4"


def test_within_a_run_the_first_is_the_baseline_for_every_other_setting(tmp_path: Path) -> None:
    run = stored(tmp_path, models=("pico", "nano", "micro"), samplings=("greedy", "cool"))

    assert labels(within(run, "model")) == [
        ("pico, greedy, concurrency=1", "nano, greedy, concurrency=1"),
        ("pico, cool, concurrency=1", "nano, cool, concurrency=1"),
        ("pico, greedy, concurrency=1", "micro, greedy, concurrency=1"),
        ("pico, cool, concurrency=1", "micro, cool, concurrency=1"),
    ]
    assert [pair.baseline.sampling for pair in within(run, "sampling", "cool")] == ["cool"] * 3


def test_a_level_can_be_the_baseline(tmp_path: Path) -> None:
    pairs = within(stored(tmp_path, concurrency=[1, 4]), "concurrency", "4")

    assert [(pair.baseline.concurrency, pair.candidate.concurrency) for pair in pairs] == [(4, 1)]


def test_runs_are_paired_by_equal_settings(tmp_path: Path) -> None:
    ours = stored(tmp_path, run_id="old", samplings=("greedy", "cool"))
    theirs = stored(tmp_path, run_id="new", samplings=("greedy", "hot"))

    pairs, alone = across(ours, theirs)

    assert [(pair.baseline.sampling, pair.candidate.sampling) for pair in pairs] == [("greedy", "greedy")]
    assert [(side.run.run_id, side.sampling) for side in alone] == [("old", "cool"), ("new", "hot")]


def test_runs_of_one_setting_are_paired_whatever_it_is_called(tmp_path: Path) -> None:
    ours = stored(tmp_path, run_id="old")
    theirs = stored(tmp_path, run_id="new", models=("nano",), samplings=("cool",))

    pairs, alone = across(ours, theirs)

    assert labels(pairs) == [("pico, greedy, concurrency=1", "nano, cool, concurrency=1")]
    assert pairs[0].compared == ("model", "sampling")
    assert alone == ()


def test_one_model_against_another_is_paired_by_sampling(tmp_path: Path) -> None:
    ours = stored(tmp_path, run_id="old", samplings=("greedy", "cool"))
    theirs = stored(tmp_path, run_id="new", models=("nano",), samplings=("cool", "greedy"))

    assert [pair.candidate.sampling for pair in across(ours, theirs)[0]] == ["greedy", "cool"]


@pytest.mark.parametrize(
    ("axis", "base", "said"),
    [
        ("sampling", None, "has one sampling, greedy: nothing to compare it with – use --by model"),
        ("model", "piko", "has no model piko – did you mean pico?"),
    ],
)
def test_what_cannot_be_compared_is_said(tmp_path: Path, axis: str, base: str | None, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        within(stored(tmp_path, models=("pico", "nano")), axis, base)


def test_runs_without_a_common_setting_are_refused(tmp_path: Path) -> None:
    ours = stored(tmp_path, run_id="old", samplings=("greedy", "cool"))
    theirs = stored(tmp_path, run_id="new", samplings=("hot", "warm"))

    with pytest.raises(UsageError, match="old, new: no setting of one is a setting of the other"):
        across(ours, theirs)


def test_sides_must_pin_down_the_same(tmp_path: Path) -> None:
    run = stored(tmp_path, models=("pico", "nano"), samplings=("greedy", "cool"))

    assert Pair(Side(run, "pico"), Side(run, "nano")).matched == ("sampling", "concurrency")
    with pytest.raises(ValueError, match="only one side pins down sampling"):
        _ = Pair(Side(run, "pico"), Side(run, "nano", "cool")).matched
