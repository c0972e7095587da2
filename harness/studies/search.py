"""Which settings a study tries: all of the grid, or those that Optuna proposes.

A search is a generator: it yields settings to play, is sent how they did, and yields the next ones. So the runner stays
in charge, and a study that is gone on with finds the same settings: a proposal depends on the seed and on what was
measured, which is on the disk.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.config.matrix import Sampling, name_of
from harness.config.study import StudyPlan, seed_of
from harness.errors import UsageError

if TYPE_CHECKING:
    from optuna.trial import Trial

BATCH = 8
"""Settings that are proposed before any of them has been played: each batch is a run, which loads the model."""
_ASKS = 4
"""How often a batch asks per setting it wants: in a small grid most proposals have been played."""


@dataclass(frozen=True, slots=True)
class Scored:
    """How a setting did."""

    values: tuple[float, ...] | None
    """Of every objective; None where one is missing."""
    beyond: Mapping[str, float]
    """By how much it is beyond each limit, one of them being what fails with the default; 0 or less where it keeps
    it."""


Search = Generator[tuple[Sampling, ...], Mapping[str, Scored], None]


def search(study: StudyPlan) -> Search:
    """The settings of a study besides the default, in batches. Raises UsageError where Optuna is needed and missing."""
    if study.exhaustive:
        return _everything(study)
    if importlib.util.find_spec("optuna") is None:
        raise UsageError(
            "search: optuna", "the package optuna is not installed", "pip install 'instruct-harness[tune]'"
        )
    return _proposals(study)


def _everything(study: StudyPlan) -> Search:
    yield tuple(sampling for sampling in study.samplings if sampling.name != study.default.name)


def _proposals(study: StudyPlan) -> Search:
    """Batches of settings that the multi-objective tree-structured Parzen estimator (Ozaki et al., GECCO 2020) thinks
    promising; those it proposes again are answered from what is known."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    asked = optuna.create_study(
        directions=["minimize" if each.better == "lower" else "maximize" for each in study.tune.objectives],
        sampler=optuna.samplers.TPESampler(seed=seed_of(study.seed, "search"), constant_liar=True),
    )
    known: dict[str, Scored] = {}
    while wanted := min(BATCH, study.tune.trials - len(known)):
        trials: list[tuple[Trial, str]] = []
        batch: dict[str, Sampling] = {}
        while len(batch) < wanted and len(trials) < _ASKS * wanted:
            trial = asked.ask()
            sampling = _sampling(study, trial)
            trials.append((trial, sampling.name))
            if sampling.name not in known:
                batch[sampling.name] = sampling
        if not batch:
            return
        known |= yield tuple(batch.values())
        for trial, name in trials:
            _tell(asked, trial, known[name])


def _tell(asked: Any, trial: Any, scored: Scored) -> None:
    from optuna.trial import TrialState

    for limit, beyond in scored.beyond.items():
        trial.set_constraint(limit, beyond)
    if scored.values is None:
        asked.tell(trial, state=TrialState.FAIL)
    else:
        asked.tell(trial, scored.values)


def _sampling(study: StudyPlan, trial: Trial) -> Sampling:
    """The setting of a proposal: a value of every axis and from every range, numbers with three digits."""
    chosen: dict[str, Any] = {}
    for name, values in study.axes.items():
        if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
            ordered = sorted(values)  # a sampler can tell neighbours in a row of numbers
            chosen[name] = ordered[trial.suggest_int(name, 0, len(ordered) - 1)]
        else:
            chosen[name] = values[trial.suggest_categorical(name, list(range(len(values))))]
    for name, between in study.ranges.items():
        if between.whole:
            chosen[name] = trial.suggest_int(name, int(between.low), int(between.high), log=between.log)
        else:
            drawn = float(f"{trial.suggest_float(name, between.low, between.high, log=between.log):.3g}")
            chosen[name] = min(max(drawn, between.low), between.high)
    return Sampling(name_of("", chosen, list(chosen)), {**study.fixed, **chosen})
