"""Which checks went from pass to fail, and back."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.analysis.flips import flips
from harness.analysis.sides import Pair, Side
from harness.records import Cell, CheckResult, TurnRecord
from tests.builders import checks, failed
from tests.sides_and_runs import stored, timed

PAIR = {"models": ("pico", "nano"), "conversations": {"physics": 2, "memory": 2}}


def found(run) -> list[tuple]:
    told = flips(Pair(Side(run, "pico"), Side(run, "nano")))
    return list(told[["conversation_id", "turn_index", "check", "change"]].itertuples(index=False, name=None))


def saying(passed):
    """A turn whose two checks pass as `passed(cell, index)` says; the reply tells who said it."""

    def make(cell: Cell, index: int) -> TurnRecord:
        reply = f"{cell.model} in launch {cell.launch}, repeat {cell.repeat}"
        return timed(cell, index, checks=checks(*passed(cell, index)), reply=reply)

    return make


def test_checks_that_changed_are_told_with_both_replies(tmp_path: Path) -> None:
    def passed(cell: Cell, index: int) -> tuple[bool, bool]:
        nano = cell.model == "nano"
        return (not (nano and index == 0), nano or cell.conversation_id == "physics")

    run = stored(tmp_path, saying(passed), **PAIR)
    told = flips(Pair(Side(run, "pico"), Side(run, "nano")))

    assert found(run) == [
        ("physics", 0, "contains: word0", "lost"),
        ("memory", 0, "contains: word0", "lost"),
        ("memory", 0, "contains: word1", "gained"),
        ("memory", 1, "contains: word1", "gained"),
    ]
    assert told["baseline_reply"][0] == "pico in launch 0, repeat 0"
    assert told["candidate_reply"][0] == "nano in launch 0, repeat 0"
    assert (told["baseline_detail"][0], told["candidate_detail"][0]) == ("", "not there")


def test_of_repeats_the_majority_counts_and_the_rates_are_told(tmp_path: Path) -> None:
    """nano passes in one of four plays, pico in three: a flip; where both pass in most, there is none."""

    def passed(cell: Cell, index: int) -> tuple[bool, bool]:
        play = cell.launch * 2 + cell.repeat
        return (play > 2 if cell.model == "nano" else play > 0, play > 0)

    run = stored(tmp_path, saying(passed), repeats=2, launches=2, models=PAIR["models"], conversations={"physics": 1})
    told = flips(Pair(Side(run, "pico"), Side(run, "nano")))

    assert told[["baseline_rate", "candidate_rate", "baseline_times", "candidate_times"]].to_numpy().tolist() == [
        [0.75, 0.25, 4, 4]
    ]
    assert told["baseline_reply"][0] == "pico in launch 0, repeat 1"  # the first that went as most did
    assert told["candidate_reply"][0] == "nano in launch 0, repeat 0"


def test_a_turn_that_failed_has_lost_its_checks(tmp_path: Path) -> None:
    good = saying(lambda *_: (True, True))

    def make(cell: Cell, index: int) -> TurnRecord:
        return failed(cell, index) if cell.model == "nano" and index == 1 else good(cell, index)

    run = stored(tmp_path, make, **PAIR)
    told = flips(Pair(Side(run, "pico"), Side(run, "nano")))

    assert told["turn_index"].tolist() == [1] * 4
    assert set(told["change"]) == {"lost"}
    assert told["candidate_reply"].isna().all()
    assert set(told["candidate_detail"]) == {"OutOfMemoryError"}


def test_checks_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    def make(cell: Cell, index: int) -> TurnRecord:
        twice = (CheckResult("matches", True), CheckResult("matches", cell.model == "pico"))
        return timed(cell, index, checks=twice)

    assert found(stored(tmp_path, make, **PAIR)) == [
        (talk, turn, "matches", "lost") for talk in ("physics", "memory") for turn in (0, 1)
    ]


def test_a_check_that_one_side_never_made_is_no_flip(tmp_path: Path) -> None:
    make = saying(lambda cell, _: (True, True) if cell.model == "pico" else (True,))

    assert found(stored(tmp_path, make, **PAIR)) == []


@pytest.mark.parametrize("length", ["natural", "fixed"])
def test_replies_forced_to_a_length_have_no_flips(tmp_path: Path, length: str) -> None:
    def make(cell: Cell, index: int) -> TurnRecord:
        return timed(cell, index, checks=checks(cell.model == "pico"), around={"length": length})

    assert len(found(stored(tmp_path, make, length=length, **PAIR))) == (4 if length == "natural" else 0)


def test_nothing_checked_nothing_flipped(tmp_path: Path) -> None:
    assert found(stored(tmp_path, **PAIR)) == []
