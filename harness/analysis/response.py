"""What a setting does: one row for every value of every swept parameter.

A row is an average over the samplings that have the value, each weighing the same, and only over those that exist with
every value of the sweep (`sweep`), so that what changes along a curve is the parameter and nothing else. All samplings
of a launch are played by one loaded model, in a shuffled order, on the same seeds: what they drew are paired draws.

Conversations count only where every sampling of the sweep has the figure, so that all are of the same ones. Intervals:
of speed over launches – a t-interval of logarithms, or of differences for the cost of choosing a token –, of behaviour
over conversations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from statistics import fmean, stdev

import numpy as np
import pandas as pd

from harness.analysis.arrays import Array
from harness.analysis.clusters import over_conversations
from harness.analysis.frames import Run, once_per_run
from harness.analysis.measures import MEASURES, Figures, Measure, figures
from harness.analysis.settings import references
from harness.analysis.stats import Estimate, t_quantile
from harness.analysis.sweep import Level, Sweep, sweeps
from harness.analysis.tables import Row, table

_Settings = Mapping[str, Figures]
"""The figures of every sampling, of one model at one level of concurrency."""
_NAMES = (
    *("run_id", "model", "concurrency", "parameter", "over", "value", "number", "samplings", "greedy"),
    *("launches", "conversations"),
    *(column for name in MEASURES for column in (name, f"{name}_low", f"{name}_high", f"{name}_basis")),
)


def has_sweep(run: Run) -> bool:
    """Whether there is more than one sampling, and so anything to set against each other."""
    return len(run.plan["samplings"]) > 1


@once_per_run
def response(run: Run) -> pd.DataFrame:
    """One row per model × concurrency × swept parameter × value, in the order of the config.

    Columns: run_id model concurrency; parameter (Hugging Face's name; `setting` for named settings, `sampling` for
    every sampling by itself, which is left out where a parameter's rows are just that); over (the values of other
    parameters that are averaged over; rows that share model, concurrency, parameter and over are one curve); value
    (NA where a sampling does not say it) and number (the same, where it is one); samplings (how many are averaged);
    greedy (which sampling it is held against; NA where there is none, or it is that one itself); launches,
    conversations; and of every measure in `MEASURES` its value under its name, `_low`, `_high` and `_basis`. Seconds,
    tokens, and shares in [0, 1]. Reads turns.jsonl again; raises StoreError as `load` does.
    """
    found, held = figures(run), references(run)
    models = [spec["label"] for spec in run.plan["models"]]
    names = [sampling["name"] for sampling in run.plan["samplings"]]
    rows = []
    for model, concurrency in product(models, run.plan.get("concurrency", [1])):
        settings = {name: found[model, name, concurrency] for name in names if (model, name, concurrency) in found}
        for sweep in sweeps(run.manifest):
            if all(name in settings for level in sweep.levels for name in level.samplings):
                values = {name: _values(measure, sweep, settings) for name, measure in MEASURES.items()}
                rows += [
                    {
                        "run_id": run.run_id,
                        "model": model,
                        "concurrency": concurrency,
                        **_level(sweep, level, settings, {name: held.get((model, name)) for name in level.samplings}),
                        **_flat({name: values[name][number] for name in MEASURES}),
                    }
                    for number, level in enumerate(sweep.levels)
                ]
    return table(rows, _NAMES, value="string")


def _level(sweep: Sweep, level: Level, settings: _Settings, held: Mapping[str, str | None]) -> Row:
    greedy = dict.fromkeys(other for name, other in held.items() if other is not None and other != name)
    return {
        "parameter": sweep.parameter,
        "over": sweep.over,
        "value": level.value,
        "number": level.number,
        "samplings": len(level.samplings),
        "greedy": ", ".join(greedy) or None,
        "launches": max(settings[name].launches for name in level.samplings),
        "conversations": max(settings[name].conversations for name in level.samplings),
    }


def _flat(values: Mapping[str, Estimate]) -> Row:
    return {
        column: value
        for name, found in values.items()
        for column, value in (
            (name, found.value),
            (f"{name}_low", found.low),
            (f"{name}_high", found.high),
            (f"{name}_basis", found.basis),
        )
    }


def _values(measure: Measure, sweep: Sweep, settings: _Settings) -> Sequence[Estimate]:
    """A measure at every level of a sweep, averaged over the rests in which all levels have it that have it at all."""
    rests = range(len(sweep.levels[0].samplings))
    known = [[_has(settings[name], measure) for name in level.samplings] for level in sweep.levels]
    averaged = [rest for rest in rests if all(has[rest] for has in known if any(has))]
    chosen = [
        [settings[level.samplings[rest]] for rest in averaged] if any(has) else []
        for level, has in zip(sweep.levels, known, strict=True)
    ]
    everyone = [each for several in chosen for each in several]
    if not everyone:
        return [Estimate(None)] * len(chosen)
    if measure.sample == "launches":
        launches = set.intersection(*(set(each.speed[measure.name]) for each in everyone))
        return [_over_launches(measure, several, sorted(launches)) for several in chosen]
    everywhere = np.all([each.wholes[measure.name] > 0 for each in everyone], axis=0)
    return [_over_conversations(measure, several, everywhere) for several in chosen]


def _has(found: Figures, measure: Measure) -> bool:
    if measure.sample == "launches":
        return bool(found.speed[measure.name])
    return measure.name in found.wholes and bool(found.wholes[measure.name].any())


def _over_launches(measure: Measure, several: Sequence[Figures], launches: Sequence[int]) -> Estimate:
    """The mean over samplings in each launch, then over launches; geometric where all of it is positive, but never of
    differences."""
    values = [[each.speed[measure.name][launch] for each in several] for launch in launches]
    if not several or not launches:
        return Estimate(None)
    ratios = measure.name != "sampling_step_s" and min(map(min, values)) > 0
    by_launch = [fmean(map(math.log, each)) if ratios else fmean(each) for each in values]
    value = fmean(by_launch)
    if len(launches) < 2:
        return Estimate(math.exp(value) if ratios else value, basis="one launch", n=1)
    reach = t_quantile(len(launches) - 1) * stdev(by_launch) / math.sqrt(len(launches))
    value, low, high = (math.exp(end) if ratios else end for end in (value, value - reach, value + reach))
    return Estimate(value, low, high, "launches", len(launches))


def _over_conversations(measure: Measure, several: Sequence[Figures], everywhere: Array) -> Estimate:
    """The mean over conversations that have the figure in every sampling – in any of these, where it speaks of other
    replies in each of them."""
    if not several:
        return Estimate(None)
    parts, wholes = (np.array([getattr(each, side)[measure.name] for each in several]) for side in ("parts", "wholes"))
    counted = wholes.any(axis=0) if measure.conditional else everywhere
    parts, wholes = parts[:, counted], wholes[:, counted]
    turns = min(each.turns[measure.name] for each in several) if measure.share else None
    return over_conversations(parts, wholes, most=measure.most, turns=turns)
