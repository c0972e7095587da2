"""Settings that a study has tried, made of functions instead of measured."""

from __future__ import annotations

from collections.abc import Mapping

from harness.analysis.frames import load
from harness.analysis.sides import Side
from harness.analysis.tuning import Goals, Trial
from harness.config.figures import parse_limit, parse_objective
from tests import builders
from tests.builders import checks, failed, turn

TALKS = tuple(f"talk-{i}" for i in range(8))


def goals(*, maximize=("check_pass_rate",), minimize=(), limits=(), margin=0.05):
    objectives = [parse_objective(text, "higher") for text in maximize]
    objectives += [parse_objective(text, "lower") for text in minimize]
    return Goals(tuple(objectives), tuple(map(parse_limit, limits)), margin)


def trials(tmp_path, given: Mapping[str, object], *, repeats=1, launches=1, talks=TALKS, run_id="rung-0"):
    """A run in which every conversation is one turn: of each setting a function of (conversation, repeat, launch) gives
    what `builders.turn` takes, or None where the turn fails."""
    of = builders.plan(
        samplings={name: {"do_sample": True} for name in given},
        conversations=dict.fromkeys(talks, 1),
        checks=[4],
        repeats=repeats,
        launches=launches,
    )

    def record(cell, index):
        made = given[cell.sampling](talks.index(cell.conversation_id), cell.repeat, cell.launch)
        if made is None:
            return failed(cell, index)
        made = dict(made)
        passed = made.pop("passed", 4)
        return turn(cell, index, checks=checks(*(i < passed for i in range(4))), **made)

    run = load(builders.store(tmp_path, builders.every_turn(of, record), of, run_id))
    return run, [Trial(name, {"name": name}, (Side(run, sampling=name),)) for name in given]


def passing(n):
    return lambda talk, repeat, launch: {"passed": n}


HEAVY = (6, 7)
"""Conversations whose replies take ten times as long."""


def slow(factor, *, fails=()):
    """10 ms a token, 100 ms in the heavy conversations, times a factor."""
    return lambda talk, *_: None if talk in fails else {"tpot_ms": round((100 if talk in HEAVY else 10) * factor)}
