"""What a response table shows of a setting: the one table of its figures, and how each is had from the turns.

Figures of speed have a value per launch, the sample that their intervals are over. Figures of behaviour are ratios with
a numerator and a denominator per conversation (`clusters`). What is forced to a length, or comes from random weights,
says nothing: no figure of behaviour speaks of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from harness.analysis.agreement import Pairs, agreeing, answers
from harness.analysis.arrays import SETTING, STATES, Array, View, by_launch, groups, view
from harness.analysis.divergence import divergence
from harness.analysis.frames import Run, once_per_run
from harness.analysis.ledger import Ledger, ledger, observed, passed
from harness.analysis.sampling_step import sampling_steps
from harness.analysis.stats import median
from harness.analysis.variety import distincts, longest_loops
from harness.conversations.variety import SIZES
from harness.metrics import Direction

_TOGETHER = 100_000
"""Replies that are brought into Python at a time."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure of a setting."""

    name: str
    title: str
    unit: Literal["s", "tokens", "units", "ratio"]
    direction: Direction
    sample: Literal["launches", "conversations"]
    """What its interval is over."""
    definition: str
    most: float = np.inf
    """How large a mean can be at all."""
    share: bool = False
    """Whether it is a share of turns that either are so or are not."""
    conditional: bool = False
    """Whether it speaks of some replies only, others in every sampling."""


_TABLE = (
    Measure("sampling_step_s", "Cost of choosing a token", "s", "lower", "launches",
            "time per token beyond greedy's, over the steps that both made after the same prompt"),
    Measure("tpot_s", "Time per output token", "s", "lower", "launches",
            "typical `tpot_s` of a turn"),
    Measure("e2e_s", "End to end", "s", "lower", "launches",
            "typical `e2e_s` of a turn; it grows with the length of the reply"),
    Measure("completion_tokens", "Tokens of a reply", "tokens", "neither", "conversations",
            "mean over turns that generated something"),
    Measure("truncated_rate", "Cut off", "ratio", "lower", "conversations",
            "share of answered turns that ended by max_new_tokens, max_length or context", share=True),
    Measure("repetition", "Repetition", "ratio", "lower", "conversations",
            "mean over replies of the share that had been said before", most=1),
    *(Measure(f"distinct_{size}", f"Distinct-{size}", "ratio", "neither", "conversations",
              f"mean over replies of different / all runs of {size} unit{'s' * (size > 1)}", most=1)
      for size in SIZES),
    Measure("longest_loop", "Longest loop", "units", "lower", "conversations",
            "mean over replies of the units in the longest stretch that says one passage over and over"),
    Measure("loop_rate", "Replies with a loop", "ratio", "lower", "conversations",
            "share of replies that have any such stretch", share=True),
    Measure("agreement_rate", "Agreement of repeats", "ratio", "neither", "conversations",
            "share of pairs of repeats, asked the same prompt, that gave the same answer", share=True),
    Measure("reproduction_rate", "Same answer in another launch", "ratio", "higher", "conversations",
            "share of pairs of launches, asked the same prompt with the same seed, that gave the same answer",
            share=True),
    Measure("checks_rate", "Checks passed", "ratio", "higher", "conversations",
            "checks passed / checks to be met; a turn that failed or was not reached passes none", share=True),
    Measure("divergence_rate", "Replies unlike greedy", "ratio", "neither", "conversations",
            "share of replies whose ids differ from greedy's to the same prompt", share=True),
    Measure("divergence_token", "First id unlike greedy", "tokens", "neither", "conversations",
            "mean position of the first id that differs, from 0, over replies that differ", conditional=True),
    Measure("divergence_share", "The same, as a share", "ratio", "neither", "conversations",
            "mean over replies that differ of that position / length of the greedy reply", most=1, conditional=True),
)  # fmt: skip
MEASURES: Mapping[str, Measure] = {measure.name: measure for measure in _TABLE}


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one setting."""

    launches: int
    conversations: int
    speed: Mapping[str, Mapping[int, float]]
    """By name, then by launch."""
    parts: Mapping[str, Array]
    """Numerators by name, one per conversation of the run."""
    wholes: Mapping[str, Array]
    """Denominators, likewise; 0 where a conversation has no such figure."""
    turns: Mapping[str, int]
    """How many turns are behind a share; turns that had to come out alike count once."""


@once_per_run
def figures(run: Run) -> Mapping[tuple[Any, ...], Figures]:
    """The figures of every (model, sampling, concurrency) of a run."""
    everything, checks, said, by_row = view(run), ledger(run), answers(run), _by_row(run)
    size = int(everything["conversation"].max(initial=-1)) + 1
    return {
        keys: _figures(turns, (keys[0], keys[1]) in checks.greedy, checks, said, by_row, size)
        for keys, turns in groups(run.turns, SETTING, everything)
    }


def _by_row(run: Run) -> dict[str, Array]:
    """What is known of single turns and is not among the columns of `Run.turns`; NaN where a turn has none."""
    everything, unlike = view(run), divergence(run)
    repetition, cut_off = everything["repetition"], everything["cut_off"]
    done = everything["state"] == STATES.index("done")
    wording = _wording(run, ~np.isnan(repetition), repetition > 0)
    return {
        "sampling_step_s": sampling_steps(run),
        "completion_tokens": np.where(everything["completion_tokens"] > 0, everything["completion_tokens"], np.nan),
        "truncated_rate": np.where(done, cut_off, np.nan),
        "repetition": repetition,
        **wording,
        "loop_rate": np.where(np.isnan(wording["longest_loop"]), np.nan, wording["longest_loop"] > 0),
        "divergence_rate": unlike.differs,
        "divergence_token": unlike.token,
        "divergence_share": unlike.share,
    }


def _wording(run: Run, spoken: Array, repeating: Array) -> dict[str, Array]:
    """Distinct-n and the longest loop of every reply that means something; a loop is repetition, so that only replies
    that repeat anything are searched for one."""
    made = {f"distinct_{size}": np.full(len(spoken), np.nan) for size in SIZES}
    loop = np.where(spoken, 0.0, np.nan)
    replies = run.turns["reply"]
    for start in range(0, len(spoken), _TOGETHER):
        rows = start + np.flatnonzero(spoken[start : start + _TOGETHER])
        shares = distincts(replies.iloc[rows].tolist())
        for size, values in zip(SIZES, shares, strict=True):
            made[f"distinct_{size}"][rows] = values
        rows = rows[repeating[rows]]
        loop[rows] = longest_loops(replies.iloc[rows].tolist())
    return {**made, "longest_loop": loop}


def _figures(turns: View, greedy: bool, checks: Ledger, said: Any, by_row: Mapping[str, Array], size: int) -> Figures:
    done = turns.done
    meaningful = not turns.babble
    parts, wholes, counts = {}, {}, {}
    for name in by_row.keys() & MEASURES.keys() if meaningful else ():
        if MEASURES[name].sample == "conversations":
            known = done.where(~np.isnan(by_row[name][done.rows]))
            parts[name] = np.bincount(known["conversation"], by_row[name][known.rows], size)
            wholes[name] = np.bincount(known["conversation"], minlength=size).astype(np.float64)
            counts[name] = len(np.unique(observed(known, greedy=greedy)))
    if meaningful:
        spoken = done.where(done["completion_tokens"] > 0)
        found = {
            "agreement_rate": agreeing(spoken, said, "repeat", size),
            "reproduction_rate": agreeing(spoken, said, "launch", size),
            "checks_rate": _checked(turns, greedy, checks, size),
        }
        parts |= {name: pairs.same for name, pairs in found.items()}
        wholes |= {name: pairs.pairs for name, pairs in found.items()}
        counts |= {name: pairs.turns for name, pairs in found.items()}
    played = turns.where(turns["state"] != STATES.index("missing"))
    return Figures(
        launches=len(np.unique(played["launch"])),
        conversations=len(np.unique(played["conversation"])),
        speed={
            name: _middles(done, by_row.get(name), name) for name, each in MEASURES.items() if each.sample == "launches"
        },
        parts=parts,
        wholes=wholes,
        turns=counts,
    )


def _middles(done: View, values: Array | None, name: str) -> dict[int, float]:
    """The median of each launch, of the turns that have a value in every launch."""
    if values is not None:
        known = {axis: done.arrays[axis] for axis in ("launch", "repeat", "place")}
        done = View({**known, name: values}, done.rows)
    return {launch: median(values) for launch, values in by_launch(done, name).items() if len(values)}


def _checked(turns: View, greedy: bool, checks: Ledger, size: int) -> Pairs:
    """Checks passed, of checks to be met."""
    due = checks.expected[turns.rows]
    owing = turns.where((turns["state"] != STATES.index("missing")) & (due > 0))
    conversation = owing["conversation"]
    return Pairs(
        np.bincount(conversation, passed(owing), size),
        np.bincount(conversation, checks.expected[owing.rows], size),
        len(np.unique(observed(owing, greedy=greedy))),
    )
