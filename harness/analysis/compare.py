"""Two or more sides set against each other: what differs besides, what differs in numbers, what flipped.

    comparison = harness.compare("results/monday", "results/tuesday")
    comparison = harness.compare("results/quickstart", by="model")
    comparison.rows         one row per pair of settings and metric, with one of three answers
    comparison.ledger       what differs between the sides besides the thing compared
    comparison.flips        the checks that went from pass to fail or back
    comparison.by_turn      where in the conversations speed changed; by_conversation: in which of them

The more is looked at, the more is found by chance. So the p-values of all rows are adjusted together (Benjamini and
Hochberg, Journal of the Royal Statistical Society B 57, 1995): of the rows called *different*, 5 % are so by chance,
and where nothing differs at all, one table in twenty has any.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from harness.analysis.arrays import SETTING, Axis
from harness.analysis.effects import (
    BEHAVIOUR,
    MARGIN,
    Effect,
    behaviour_effect,
    launch_effect,
    memory_of,
    speed_of,
)
from harness.analysis.fairness import Difference, fairness, what
from harness.analysis.flips import FLIP_COLUMNS, flips
from harness.analysis.frames import Run, load
from harness.analysis.inference import adjusted
from harness.analysis.pairing import Work, work
from harness.analysis.sides import Pair, Side, across, axes_of, within
from harness.analysis.stability import instabilities, stabilities
from harness.analysis.stats import CONFIDENCE
from harness.analysis.summary import MEMORY
from harness.errors import UsageError
from harness.metrics import METRICS, Direction

Lane = Literal["speed", "behaviour", "both"]
Estimand = Literal["speed", "memory", "loading", "behaviour"]
SPEED = ("ttft_s", "tpot_s", "e2e_s", "output_tokens_per_s")
PER_TEXT = "s_per_1k_gold_chars"
"""Told beside tokens per second where the tokens of one side are not those of the other."""
LOADING: Mapping[str, str] = {"load_s": "Load", "first_turn_s": "First turn"}
"""Of a launch, with their titles: seconds, less is better."""
BROKEN_DOWN = ("ttft_s", "tpot_s", "e2e_s")
MOST_CONVERSATIONS = 200
"""More rows of a table by conversation are not read; the first of the plan are told."""

_PAIR = {"pair": "Int64", "baseline": "string", "candidate": "string", "setting": "string"}
_FOUND = {"effect": "Float64", "low": "Float64", "high": "Float64", "p": "Float64", "q": "Float64", "answer": "string"}
ROW_COLUMNS = {
    **_PAIR,
    **dict.fromkeys(("baseline_run", "candidate_run", "estimand", "metric", "title", "unit"), "string"),
    **dict.fromkeys(("direction", "scale"), "string"),
    **dict.fromkeys(("baseline_value", "candidate_value"), "Float64"),
    **_FOUND,
    "better": "string",
    "n": "Int64",
    "basis": "string",
    "turns": "Int64",
    "left_out": "Int64",
    "left_out_why": "string",
    "needed": "Int64",
    "needed_as_seen": "Int64",
    "reason": "string",
}
LEDGER_COLUMNS = {**_PAIR, **dict.fromkeys(("field", "baseline_value", "candidate_value"), "string"),
                  **dict.fromkeys(("speed", "behaviour", "remark"), "string")}  # fmt: skip
_BREAKDOWN = {**_PAIR, "metric": "string", "turns": "Int64", **_FOUND}
NOT_COMPARABLE = "not comparable"


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """What was found; the frames are described in docs/compare.md."""

    runs: tuple[Run, ...]
    pairs: tuple[Pair, ...]
    alone: tuple[Side, ...]
    """Settings of one run that the other does not have."""
    compared: str
    """The thing compared: run, model, sampling, concurrency, or what the specs of a model differ in."""
    margin: float
    lane: Lane
    ledger: pd.DataFrame
    rows: pd.DataFrame
    by_turn: pd.DataFrame
    by_conversation: pd.DataFrame
    flips: pd.DataFrame

    @property
    def blockers(self) -> pd.DataFrame:
        """The rows of the ledger that make numbers of this lane incomparable."""
        kinds = ["speed", "behaviour"] if self.lane == "both" else [self.lane]
        return self.ledger[(self.ledger[kinds] == "blocker").any(axis=1)]

    @property
    def notes(self) -> tuple[str, ...]:
        """What keeps numbers from meaning what they seem to mean, besides the ledger; one sentence each."""
        told = [f"Only in {side.run.run_id}: {side.label}." for side in self.alone]
        for run in self.runs:
            found = [*run.manifest["warnings"], *instabilities(stabilities(run))]
            missing = int((run.turns["state"] == "missing").sum())
            found += [f"turns still missing: {missing}; harness run --resume completes it"] if missing else []
            told += [f"{run.run_id}: {note}" if len(self.runs) > 1 else note for note in found]
        return tuple(told)


def compare(
    baseline: Run | Side | str | Path,
    *candidates: Run | Side | str | Path,
    by: Axis | None = None,
    base: str | None = None,
    lane: Lane = "both",
    margin: float = MARGIN,
) -> Comparison:
    """Set runs against each other, or, with `by`, the models, samplings or levels of one run.

    baseline, candidates: runs, their directories or names, or sides of one's own choosing. `base` is the value that the
    others are held against, the first if not given. `margin` is what is too small to matter: 0.05 is 5 % of a speed, 5
    points of a rate. `lane` keeps speed (with memory and loading) or behaviour only.

    Raises UsageError where there is nothing to compare, StoreError where there is no run, ValueError where one side of
    one's own choosing pins down what the other does not.
    """
    if not 0 < margin < 1:
        raise UsageError(
            "margin", f"should be above 0 and below 1, not {margin:g}", "0.05 is 5 % of a speed, 5 points of a rate"
        )
    sides = [each if isinstance(each, Run | Side) else load(each) for each in (baseline, *candidates)]
    pairs, alone = _pairs(sides, by, base)
    runs = dict.fromkeys(side.run if isinstance(side, Side) else side for side in sides)
    shared = [work(pair) for pair in pairs]
    ledgers = [fairness(pair, each) for pair, each in zip(pairs, shared, strict=True)]
    wanted: set[Estimand] = {"behaviour"} if lane == "behaviour" else {"speed", "memory", "loading"}
    wanted |= {"behaviour"} if lane == "both" else set()
    named = [_named(pair) for pair in pairs]
    numbered = [{"pair": number, **names} for number, names in enumerate(named)]
    timed = [
        (names, each)
        for names, each, found in zip(numbered, shared, ledgers, strict=True)
        if "speed" in wanted and not any(difference.speed == "blocker" for difference in found)
    ]
    return Comparison(
        runs=tuple(runs),
        pairs=pairs,
        alone=alone,
        compared=" and ".join(dict.fromkeys(map(what, pairs))),
        margin=margin,
        lane=lane,
        ledger=_frame(
            [
                {**names, **difference.columns}
                for names, found in zip(numbered, ledgers, strict=True)
                for difference in found
            ],
            LEDGER_COLUMNS,
        ),
        rows=_rows(numbered, shared, ledgers, wanted, margin),
        by_turn=_breakdown(timed, "turn_index", "Int64", margin),
        by_conversation=_breakdown(timed, "conversation_id", "string", margin),
        flips=_flips(numbered, pairs) if "behaviour" in wanted else _flips([], []),
    )


def _pairs(sides: Sequence[Run | Side], by: Axis | None, base: str | None) -> tuple[tuple[Pair, ...], tuple[Side, ...]]:
    first, *others = sides
    if by is not None:
        if others or not isinstance(first, Run):
            raise UsageError("--by", "compares within one run", "give one run, or leave --by out")
        return within(first, by, base), ()
    if base is not None:
        raise UsageError("--base", "is a value of the axis that --by names", "the first run is the baseline of others")
    if not others:
        several = [name for name, values in axes_of(_run(first)).items() if len(values) > 1]
        remedy = f"use --by {' or --by '.join(several)}, or name a second run" if several else "name a second run"
        raise UsageError(_run(first).run_id, "is one run: nothing to compare it with", remedy)
    if any(isinstance(side, Side) for side in sides):
        chosen = [side if isinstance(side, Side) else Side(side) for side in sides]
        return tuple(Pair(chosen[0], other) for other in chosen[1:]), ()
    pairs: list[Pair] = []
    alone: list[Side] = []
    for other in others:
        found, left = across(_run(first), _run(other))
        pairs += found
        alone += left
    return tuple(pairs), tuple(dict.fromkeys(alone))


def _run(side: Run | Side) -> Run:
    return side.run if isinstance(side, Side) else side


def _named(pair: Pair) -> dict[str, str]:
    """What the sides are called – by what they differ in, or by their runs – and what they have in common."""
    ours, theirs = (", ".join(str(getattr(side, axis)) for axis in pair.compared) or side.run.run_id for side in pair)
    common = {name: getattr(pair.baseline, name) for name in SETTING if name not in pair.compared}
    axes = [axes_of(side.run) for side in pair]
    told = [
        f"concurrency {value}" if name == "concurrency" else str(value)
        for name, value in common.items()
        if value is not None and max(len(values[name]) for values in axes) > 1
    ]
    return {"baseline": ours, "candidate": theirs, "setting": ", ".join(told)}


def _rows(
    named: Sequence[Mapping[str, Any]],
    shared: Sequence[Work],
    ledgers: Sequence[Sequence[Difference]],
    wanted: set[Estimand],
    margin: float,
) -> pd.DataFrame:
    found = []
    loaded: set[tuple[Any, ...]] = set()
    for names, each, ledger in zip(named, shared, ledgers, strict=True):
        processes = tuple((side.run, side.model) for side in each.pair)
        once = wanted - {"loading"} if processes in loaded else wanted  # whatever they played, they loaded once
        loaded.add(processes)
        blocked = {
            "speed": [difference.field for difference in ledger if difference.speed == "blocker"],
            "behaviour": [difference.field for difference in ledger if difference.behaviour == "blocker"],
        }
        runs = {"baseline_run": each.pair.baseline.run.run_id, "candidate_run": each.pair.candidate.run.run_id}
        for estimand, effect in _effects(each, once):
            why = blocked["behaviour" if estimand == "behaviour" else "speed"]
            found.append(({**names, **runs, "estimand": estimand, **_about(effect.metric)}, effect, why))
    tested = [None if why else effect.p for _, effect, why in found]
    # Planned as if the row had to be found alone, which BH asks more of than of one among others.
    level = (1 - CONFIDENCE) / max(1, sum(p is not None for p in tested))
    return _frame(
        [
            {**about, **_told(effect, q, why, margin, level, about)}
            for (about, effect, why), q in zip(found, adjusted(tested), strict=True)
        ],
        ROW_COLUMNS,
    )


def _effects(shared: Work, wanted: set[Estimand]) -> Iterator[tuple[Estimand, Effect]]:
    """Every effect there is to speak of; what no side ever measured, or both have in common, is left out."""
    ours, theirs = shared.pair
    if "speed" in wanted:
        for metric in (*SPEED, *([PER_TEXT] if _other_tokens(shared) else [])):
            yield "speed", speed_of(shared, metric)
    if "memory" in wanted:
        for metric in MEMORY:
            if any(side.run.turns[metric].notna().any() for side in shared.pair):
                yield "memory", memory_of(shared, metric)
    if "loading" in wanted and not (ours.run is theirs.run and ours.model == theirs.model):
        for metric in LOADING:
            yield "loading", launch_effect(ours, theirs, metric)
    if "behaviour" in wanted:
        for name in BEHAVIOUR:
            yield "behaviour", behaviour_effect(ours, theirs, name)


def _other_tokens(shared: Work) -> bool:
    """Whether the sides count in different tokens."""
    sizes = [{entry.get("facts", {}).get("vocabulary") for entry in side.launches} for side in shared.pair]
    return bool(shared.by_script.any()) or sizes[0] != sizes[1]


def _about(metric: str) -> dict[str, str]:
    title, unit, direction = _described(metric)
    return {"metric": metric, "title": title, "unit": unit, "direction": direction}


def _described(metric: str) -> tuple[str, str, Direction]:
    known = METRICS.get(metric) or BEHAVIOUR.get(metric)
    return (LOADING[metric], "s", "lower") if known is None else (known.title, known.unit, known.direction)


def _told(
    effect: Effect, q: float | None, blocked: Sequence[str], margin: float, level: float, about: Mapping[str, Any]
) -> dict[str, Any]:
    answer = NOT_COMPARABLE if blocked and effect.value is not None else effect.answer(q, margin)
    return {
        "scale": effect.scale,
        "baseline_value": effect.baseline,
        "candidate_value": effect.candidate,
        "effect": effect.value,
        "low": effect.low,
        "high": effect.high,
        "p": effect.p,
        "q": q,
        "answer": answer,
        "better": _better(effect, about) if answer == "different" else None,
        "n": effect.n if effect.inference else None,
        "basis": effect.basis,
        "turns": effect.turns,
        "left_out": effect.left_out.total,
        "left_out_why": str(effect.left_out) or None,
        "needed": effect.needed(margin, level) if answer == "cannot tell" else None,
        "needed_as_seen": effect.needed(margin, level, as_seen=True) if answer == "cannot tell" else None,
        "reason": _why(effect, answer, blocked, margin),
    }


def _why(effect: Effect, answer: str, blocked: Sequence[str], margin: float) -> str | None:
    """What there is to know of an answer."""
    if blocked and effect.value is not None:
        return f"{', '.join(blocked)} differ{'s' if len(blocked) == 1 else ''}"
    return "smaller than the margin" if answer == "different" and effect.within(margin) else effect.reason


def _better(effect: Effect, about: Mapping[str, Any]) -> str | None:
    if about["direction"] == "neither" or effect.inference is None:
        return None
    return str(about["candidate" if (effect.inference.value > 0) == (about["direction"] == "higher") else "baseline"])


def _breakdown(timed: Sequence[tuple[Mapping[str, Any], Work]], key: str, dtype: str, margin: float) -> pd.DataFrame:
    """`speed_of` for the turns of every position, or of every conversation; q is over this whole table."""
    found = []
    for names, each in timed:
        codes, values = pd.factorize(getattr(each, key)[each.same()], sort=key == "turn_index")
        same = np.full(len(each.answered), -1)
        same[each.same()] = codes
        found += [
            ({**names, key: value}, speed_of(each, metric, only=same == code))
            for code, value in enumerate(values[:MOST_CONVERSATIONS].tolist())
            for metric in BROKEN_DOWN
        ]
    rows = []
    for (about, effect), q in zip(found, adjusted([effect.p for _, effect in found]), strict=True):
        numbers = {name: getattr(effect, name) for name in ("metric", "turns", "low", "high", "p")}
        rows.append({**about, **numbers, "effect": effect.value, "q": q, "answer": effect.answer(q, margin)})
    return _frame(rows, {**_PAIR, key: dtype, **_BREAKDOWN})


def _flips(named: Sequence[Mapping[str, Any]], pairs: Sequence[Pair]) -> pd.DataFrame:
    frames = [flips(pair).assign(**names) for names, pair in zip(named, pairs, strict=True)]
    told = [frame for frame in frames if len(frame)]
    columns = {**_PAIR, **FLIP_COLUMNS}
    return pd.concat(told, ignore_index=True).astype(columns)[list(columns)] if told else _frame([], columns)


def _frame(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> pd.DataFrame:
    return pd.DataFrame(
        {name: pd.Series([row.get(name) for row in rows], dtype=dtype) for name, dtype in columns.items()}
    )
