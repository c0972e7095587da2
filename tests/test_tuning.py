"""The rules of a study: who stops, who goes on, what is recommended, as functions of what was measured."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.analysis.figures import Sample, profile
from harness.analysis.sides import Side
from harness.analysis.stats import Estimate
from harness.analysis.tuning import CHANCE, Standing, Trial, choose, dominated, level, standings, stops
from harness.report.tuning import state
from tests.tried import HEAVY, TALKS, goals, passing, slow, trials


def judged(made, wanted, *, keep=0.0, default="default"):
    anchor = next(trial for trial in made if trial.name == default)
    found = standings(made, wanted, anchor)
    chance = level(len(wanted.objectives), len(made), 2)
    return found, stops(made, found, wanted, anchor, chance, keep)


def test_a_setting_that_is_worse_everywhere_for_certain_stops(tmp_path):
    _, made = trials(tmp_path, {"default": passing(3), "good": passing(4), "bad": passing(1)})

    found, stopped = judged(made, goals())

    assert [each.on_front for each in found] == [False, True, False]
    assert stopped == {"bad": "dominated by good"}  # the default never stops


def test_what_cannot_be_told_apart_from_the_front_goes_on(tmp_path):
    rare = {"default": passing(4), "nearly": lambda talk, repeat, launch: {"passed": 0 if talk < 2 else 4}}
    _, made = trials(tmp_path, rare)

    found, stopped = judged(made, goals())

    assert found[1].figures["check_pass_rate"].value == pytest.approx(0.75)
    assert stopped == {}  # two conversations say how rare it is, not how bad


def test_being_better_at_something_beyond_the_margin_keeps_a_setting(tmp_path):
    fast = {
        "default": lambda *_: {"passed": 4, "ids": 20},
        "short": lambda *_: {"passed": 1, "ids": 5},
        "long": lambda *_: {"passed": 1, "ids": 20},
    }
    _, made = trials(tmp_path, fast)

    _, stopped = judged(made, goals(minimize=["completion_tokens.mean"]))

    assert list(stopped) == ["long"]


def test_fewer_than_six_conversations_stop_nobody_but_at_a_maximum(tmp_path):
    few = TALKS[:5]
    given = {"default": passing(4), "bad": passing(0), "long": lambda *_: {"ids": 50}}
    _, made = trials(tmp_path, given, talks=few)

    _, stopped = judged(made, goals(limits=["completion_tokens.max < 20"]))

    assert stopped == {"long": "breaks completion_tokens.max < 20"}


def test_a_limit_that_is_broken_clearly_stops_a_setting_and_one_that_may_not_be_does_not(tmp_path):
    def cut(often):
        return lambda talk, *_: {"finish_reason": "max_new_tokens" if talk < often else "eos"}

    _, made = trials(tmp_path, {"default": cut(0), "always": cut(8), "once": cut(1)})

    found, stopped = judged(made, goals(limits=["truncation_rate < 5 %"]))

    assert stopped == {"always": "breaks truncation_rate < 5 %"}
    assert [each.broken for each in found] == [(), ("truncation_rate < 5 %",), ("truncation_rate < 5 %",)]
    assert not found[2].on_front


def test_a_share_of_the_settings_goes_on_and_the_most_beaten_stop_first(tmp_path):
    given = {"default": passing(4), "a": passing(3), "b": passing(2), "c": passing(1)}
    _, made = trials(tmp_path, given)

    assert set(judged(made, goals(), keep=0.0)[1]) == {"a", "b", "c"}
    assert len(judged(made, goals(), keep=0.5)[1]) == 2
    assert judged(made, goals(), keep=1.0)[1] == {}


def test_a_setting_that_was_never_answered_stops(tmp_path):
    given = {"default": passing(4), "dumb": lambda *_: {"ids": 0, "visible_ids": None}}
    _, made = trials(tmp_path, given)

    _, stopped = judged(made, goals(minimize=["tpot_s.p50"]))

    assert stopped == {"dumb": "no turn of it has a tpot_s"}


def test_settings_of_different_processes_are_compared_by_way_of_the_default(tmp_path):
    """The second process is twice as slow as the first: `a` and `b` are equally good all the same."""
    first, made = trials(
        tmp_path / "1", {"default": lambda *_: {"tpot_ms": 10}, "a": lambda *_: {"tpot_ms": 8}}, run_id="rung-0-00"
    )
    second, more = trials(
        tmp_path / "2",
        {"default": lambda *_: {"tpot_ms": 20}, "b": lambda *_: {"tpot_ms": 16}, "c": lambda *_: {"tpot_ms": 12}},
        run_id="rung-0-01",
    )
    both = Trial("default", {}, (Side(first, sampling="default"), Side(second, sampling="default")))

    _, stopped = judged([both, made[1], *more[1:]], goals(maximize=[], minimize=["tpot_s.mean"]))

    # By its values `a` (8 ms) is the front; relative to the default c is the best, and nobody beats it or b.
    assert stopped == {}


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    levels=st.lists(st.integers(0, 4), min_size=2, max_size=5, unique=True),
    sizes=st.lists(st.integers(5, 9), min_size=5, max_size=5),
    keep=st.sampled_from([0.0, 0.5]),
)
def test_halving_never_drops_the_best_of_a_deterministic_study(tmp_path_factory, levels, sizes, keep):
    given = {
        "default" if i == 0 else f"s{i}": (lambda *_, n=n, ids=sizes[i]: {"passed": n, "ids": ids})
        for i, n in enumerate(levels)
    }
    _, made = trials(tmp_path_factory.mktemp("study"), given)
    wanted = goals(minimize=["completion_tokens.mean"])

    found, stopped = judged(made, wanted, keep=keep)
    whole = choose(found, wanted, "default")
    left = [trial for trial in made if trial.name not in stopped]
    halved = choose(standings(left, wanted, made[0]), wanted, "default")

    assert not {each.name for each in found if each.on_front} & set(stopped)
    assert halved.name == whole.name


def test_the_level_leaves_five_per_cent_to_the_whole_study():
    assert level(2, 11, 3) * 2 * 10 * 2 == pytest.approx(CHANCE)
    assert level(1, 1, 1) == CHANCE


def test_of_equal_settings_each_is_lost_as_rarely_as_is_said():
    """Eight settings without a difference but for chance: the luckiest of them beats another for certain in at most
    5 % of studies, here counted over 80 of them."""
    dice = np.random.default_rng(7)
    wanted = goals(maximize=[], minimize=["e2e_s.mean"])
    figure, codes, turns = wanted.objectives[0].figure, np.arange(8), np.repeat(np.arange(8), 4)
    lost = 0
    for _ in range(80):
        talk = dice.normal(0, 0.5, 8)
        drawn = [np.exp((talk + dice.normal(0, 0.3, 8))[turns] + dice.normal(0, 0.2, 32)) for _ in range(8)]
        profiles = [
            profile(
                figure,
                Sample(values, np.ones(32), turns, np.zeros(32, dtype=np.int64), np.arange(32), np.arange(32)),
                codes,
            )
            for values in drawn
        ]
        best = profiles[int(np.argmin([values.mean() for values in drawn]))]
        lost += sum(dominated([own], [best], wanted, level(1, 8, 2)) for own in profiles if own is not best)

    assert lost / (8 * 80) <= CHANCE


# ---- the recommendation ----------------------------------------------------------------------------------


def chosen(tmp_path, given, wanted):
    _, made = trials(tmp_path, given)
    return choose(standings(made, wanted, made[0]), wanted, "default")


def test_the_first_objective_counts_first_and_the_next_decides_within_the_margin(tmp_path):
    given = {
        "default": lambda *_: {"passed": 2, "ids": 5},
        "best": lambda *_: {"passed": 4, "ids": 9},
        "same but short": lambda talk, *_: {"passed": 3 if talk == 0 else 4, "ids": 6},
    }
    choice = chosen(tmp_path, given, goals(minimize=["completion_tokens.mean"]))

    assert choice.name == "same but short"  # 31 of 32 is within five points of 32 of 32
    assert choice.reasons == (
        "check_pass_rate: 2 of 3 are within the margin of the best, best.",
        "completion_tokens.mean: 1 of 2 are within the margin of the best, same but short.",
    )


def test_the_default_stays_where_nothing_beats_it_beyond_the_margin(tmp_path):
    given = {"default": lambda talk, *_: {"passed": 3 if talk == 0 else 4}, "best": passing(4)}
    assert chosen(tmp_path, given, goals()).name == "default"


def test_nothing_is_recommended_beyond_the_limits(tmp_path):
    given = {"default": passing(4), "other": passing(3)}
    assert chosen(tmp_path, given, goals(limits=["completion_tokens.mean < 3"])) is None


def test_a_setting_that_fails_where_the_work_is_heavy_is_no_faster_for_it(tmp_path):
    _, made = trials(tmp_path, {"default": slow(1), "fails": slow(1, fails=HEAVY), "slower": slow(1.2)})
    wanted = goals(maximize=[], minimize=["tpot_s.mean"])

    found, stopped = judged(made, wanted)

    assert found[1].figures["tpot_s.mean"].value == pytest.approx(0.010)  # of the turns it has answered
    assert [(each.fails_more, each.on_front) for each in found] == [(False, True), (True, False), (False, False)]
    assert state(found[1], None) == "fails more turns than the default"
    assert choose(found, wanted, "default").name == "default"
    assert "slower" not in stopped or stopped["slower"] == "dominated by default"


def test_where_the_default_fails_settings_are_held_against_it_over_the_turns_that_both_answered(tmp_path):
    """The default fails the heavy turns, so its mean is of light ones: 10 ms. A setting that answers them all has a
    larger mean, and is faster all the same."""
    given = {"default": slow(1, fails=HEAVY), "equal": slow(1), "faster": slow(0.8)}
    _, made = trials(tmp_path, given)
    wanted = goals(maximize=[], minimize=["tpot_s.mean"])

    found, _ = judged(made, wanted)

    assert found[2].figures["tpot_s.mean"].value == pytest.approx(0.8 * 0.0325)  # (6 · 10 + 2 · 100) / 8 ms
    assert [each.compared["tpot_s.mean"] for each in found] == pytest.approx([0.010, 0.010, 0.008])
    assert choose(found, wanted, "default").name == "faster"


def test_a_setting_without_the_figure_of_a_limit_keeps_nobody_from_being_chosen(tmp_path):
    """`unknown` is better in both objectives than `known`, but a reply of one token leaves it 59 times per token, which
    are too few for a p95."""
    given = {
        "default": lambda *_: {"passed": 2, "ids": 9},
        "unknown": lambda talk, *_: {"passed": 4, "ids": 5 if talk else 1},
        "known": lambda *_: {"passed": 3, "ids": 6},
    }
    wanted = goals(minimize=["completion_tokens.mean"], limits=["tpot_s.p95 < 1 s"])
    _, made = trials(tmp_path, given, talks=tuple(f"talk-{i}" for i in range(60)))

    found, _ = judged(made, wanted)

    assert found[1].figures["tpot_s.p95"].value is None
    assert [each.on_front for each in found] == [False, False, True]
    assert choose(found, wanted, "default").name == "known"


def test_a_figure_that_nobody_has_yet_keeps_nobody_off_the_front(tmp_path):
    _, made = trials(tmp_path, {"default": passing(3), "good": passing(4)})

    found, _ = judged(made, goals(limits=["tpot_s.p95 < 1 s"]))

    assert [each.on_front for each in found] == [False, True]


def test_it_is_said_among_which_settings_nothing_is_better_than_the_default():
    """`fast` is ten times as fast, and out of the question by its checks only."""
    wanted = goals(minimize=["e2e_s.mean"])
    numbers = {"default": (0.90, 10.0), "best": (0.94, 10.0), "fast": (0.885, 1.0)}
    found = []
    for name, values in numbers.items():
        compared = dict(zip(("check_pass_rate", "e2e_s.mean"), values, strict=True))
        figures = {figure: Estimate(value) for figure, value in compared.items()}
        found.append(Standing(name, {}, (), 10, figures, compared, (), False, True))

    choice = choose(found, wanted, "default")

    assert choice.name == "default"
    assert choice.reasons[-1] == (
        "The default is among them: of those within the margin of the best in check_pass_rate, nothing is better "
        "beyond the margin in e2e_s.mean."
    )
