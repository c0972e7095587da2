"""What a setting is worth beside the default on held-out conversations."""

from __future__ import annotations

import numpy as np
import pytest

from harness.analysis.frames import load
from harness.analysis.inference import over_conversations
from harness.analysis.sides import Side
from harness.analysis.tuning import Trial, choose, standings
from harness.analysis.validation import validate
from harness.report.tuning import difference_text
from tests import builders
from tests.builders import checks, turn
from tests.tried import HEAVY, goals, passing, slow, trials


def answers(tmp_path, given, wanted, **more):
    run, _ = trials(tmp_path, given, **more)
    return validate(run, "new", "default", wanted)


def test_a_better_setting_is_told_from_the_default(tmp_path):
    given = {"default": passing(1), "new": lambda talk, *_: {"passed": 3 + talk % 2}}
    found = answers(tmp_path, given, goals())

    assert (found.answer, found.stands) == ("better", True)
    assert found.differences[0].change == pytest.approx(0.625)


def test_a_worse_setting_does_not_stand(tmp_path):
    given = {"default": lambda talk, *_: {"passed": 3 + talk % 2}, "new": passing(1)}
    found = answers(tmp_path, given, goals())

    assert (found.answer, found.stands) == ("worse", False)


def test_eight_equal_conversations_do_not_show_that_there_is_no_difference(tmp_path):
    found = answers(tmp_path, {"default": passing(4), "new": passing(4)}, goals())

    (difference,) = found.differences
    assert (found.answer, difference.change) == ("cannot tell", 0)
    assert "more conversations (59 at least, where none of them is worse) would narrow it" in difference.why
    assert found.stands  # and is no reason to go back on the choice


def test_sixty_do(tmp_path):
    talks = tuple(f"talk-{i}" for i in range(60))
    found = answers(tmp_path, {"default": passing(4), "new": passing(4)}, goals(), talks=talks)

    assert found.answer == "not worse"


def test_speed_takes_two_launches_and_varies_with_them(tmp_path):
    wanted = goals(maximize=[], minimize=["tpot_s.mean"])
    steady = {"default": lambda *_: {"tpot_ms": 10}, "new": lambda *_: {"tpot_ms": 8}}
    shaky = {"default": lambda *_: {"tpot_ms": 10}, "new": lambda talk, repeat, launch: {"tpot_ms": 6 + 4 * launch}}

    once = answers(tmp_path / "1", steady, wanted)
    thrice = answers(tmp_path / "2", steady, wanted, launches=3)
    unsure = answers(tmp_path / "3", shaky, wanted, launches=3)

    assert (once.answer, once.differences[0].why) == ("cannot tell", "one launch says nothing about the next")
    assert thrice.answer == "better"
    assert thrice.differences[0].low == pytest.approx(0.8)
    assert unsure.answer == "cannot tell"


def test_a_choice_that_breaks_a_limit_which_the_default_keeps_does_not_stand(tmp_path):
    wanted = goals(limits=["completion_tokens.mean < 10"])
    found = answers(tmp_path, {"default": lambda *_: {"ids": 5}, "new": lambda *_: {"ids": 12}}, wanted)
    mended = answers(tmp_path / "2", {"default": lambda *_: {"ids": 12}, "new": lambda *_: {"ids": 5}}, wanted)

    assert [(each.kept, each.kept_by_default) for each in found.limits] == [(False, True)]
    assert (found.stands, mended.stands) == (False, True)


def test_a_limit_broken_by_the_choice_and_unknown_of_the_default_does_not_stand(tmp_path):
    wanted = goals(limits=["tpot_s.mean < 1 ms"])
    found = answers(tmp_path, {"default": lambda *_: {"ids": 1}, "new": lambda *_: {"ids": 5, "tpot_ms": 10}}, wanted)

    assert [(each.kept, each.kept_by_default) for each in found.limits] == [(False, None)]
    assert not found.stands


def test_a_setting_that_fails_is_compared_by_what_both_answered_and_does_not_stand(tmp_path):
    wanted = goals(maximize=[], minimize=["tpot_s.mean"])
    given = {"default": slow(1), "new": slow(0.8, fails=HEAVY)}
    found = answers(tmp_path, given, wanted, launches=3)

    (difference,) = found.differences
    assert (difference.default.value, difference.candidate.value) == pytest.approx((0.010, 0.008))
    assert difference.change == pytest.approx(0.8)
    assert (difference.low, difference.high) == pytest.approx((0.8, 0.8))
    assert (difference.answer, found.stands) == ("cannot tell", False)
    assert (found.failed, found.failed_by_default) == (6, 0)  # 2 conversations · 3 launches
    assert difference.why == "it fails more turns than the default"


def uneven(path, passes):
    """Six conversations of one turn, and one of eight; whether a setting passes the check of a turn is a function of
    its name and whether it is of the long one."""
    talks = {f"talk-{i}": 1 for i in range(6)} | {"long": 8}
    of = builders.plan(samplings={"default": {"do_sample": True}, "new": {"do_sample": True}}, conversations=talks)
    run = load(
        builders.store(
            path,
            builders.every_turn(
                of,
                lambda cell, index: turn(
                    cell, index, checks=checks(passes(cell.sampling, cell.conversation_id == "long"))
                ),
            ),
            of,
        )
    )
    return run, [Trial(name, {}, (Side(run, sampling=name),)) for name in ("default", "new")]


def test_values_change_interval_and_choice_are_of_one_rate(tmp_path):
    """The new setting gains 6 checks in six conversations and loses 8 in one: of all 14 it passes fewer, although it
    is better in six of seven conversations."""
    run, made = uneven(tmp_path, lambda name, is_long: (name == "new") != is_long)
    found = validate(run, "new", "default", goals())

    (difference,) = found.differences
    assert (difference.default.value, difference.candidate.value) == pytest.approx((8 / 14, 6 / 14))
    assert difference.change == pytest.approx(-2 / 14)
    assert difference.low <= difference.change <= difference.high
    assert difference.answer == "cannot tell"
    assert chosen_of(made) == "default"


def test_a_conversation_of_more_turns_weighs_more_in_the_interval_as_in_the_rate(tmp_path):
    """All turns of all conversations change alike, so that the difference is 1 and its conversations' shares differ
    only by their turns: w/W is 0.5 for six of them and 4 for the long one."""
    run, _ = uneven(tmp_path, lambda name, _: name == "new")
    (difference,) = validate(run, "new", "default", goals()).differences

    expected = over_conversations(np.array([0.5] * 6 + [4.0]), 4.0)
    assert difference.change == pytest.approx(1) == expected.value
    assert difference.low == pytest.approx(expected.low)
    assert difference.high == pytest.approx(1)  # no rate changes by more
    assert difference_text(difference).startswith("100 % against 0 %, +100 points (95 %: +")


def chosen_of(made):
    return choose(standings(made, goals(), made[0]), goals(), "default").name


def test_of_a_maximum_nothing_is_claimed(tmp_path):
    wanted = goals(maximize=[], minimize=["tpot_s.max"])
    given = {"default": lambda *_: {"tpot_ms": 10}, "new": lambda *_: {"tpot_ms": 8}}
    found = answers(tmp_path, given, wanted, launches=3)

    (difference,) = found.differences
    assert (difference.answer, difference.low, difference.change) == ("cannot tell", None, pytest.approx(0.8))
    assert difference.why == "a maximum says nothing of what more turns would bring"
