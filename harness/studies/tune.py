"""Looking for the best setting of a model: tries many a little and the promising ones more, and judges the winner on
conversations that it has not seen.

    results/<study_id>/
      rung-0/ … validation/     ordinary runs, one per rung; of a search by proposals one per batch: rung-0-00 …
      tune.json                 the whole history
      tune.md                   the report
      best.yaml                 the recommended setting as a config
      generation_config.json    the same as transformers loads it

Every decision follows from what the runs hold: a study that is gone on with plays what is missing and decides the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson

from harness.analysis.figures import estimate, sample
from harness.analysis.frames import Run
from harness.analysis.sides import Side
from harness.analysis.tuned import Rung, Tuned
from harness.analysis.tuning import Choice, Goals, Trial, choose, compared, level, standings, stops, unanswered
from harness.analysis.validation import Validation, validate
from harness.config.matrix import Sampling
from harness.config.plan import Plan
from harness.config.study import StudyPlan
from harness.errors import ModelError, StoreError, UsageError
from harness.runner.messages import Watch
from harness.runner.run import label_of
from harness.store import replace_file
from harness.studies.replay import replay, resolve
from harness.studies.search import Scored, search
from harness.studies.tune_files import write_recommended, write_report

HISTORY = "tune.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class StudyStarted:
    """The study's directory exists."""

    path: Path
    resumed: bool


@dataclass(frozen=True, slots=True)
class PartStarted:
    """A run of the study begins."""

    name: str
    plan: Plan


@dataclass(frozen=True, slots=True)
class RungDone:
    """A rung has been played and judged; of a search by proposals also after each of its batches."""

    rung: Rung
    goes_on: bool
    """Whether another rung, or batch, follows."""


Tell = Callable[[StudyStarted | PartStarted | RungDone], None]


def tune(
    study: StudyPlan,
    *,
    results: Path,
    study_id: str | None = None,
    resume: Path | None = None,
    watch: Watch = lambda progress: None,
    tell: Tell = lambda event: None,
) -> Tuned:
    """Carry a study out, or go on with it, and leave its files; `watch` is told of turns, `tell` of rungs.

    `resume` names a study to go on with. Without it, one named `study_id` is gone on with if it exists, and without a
    `study_id` the latest unfinished study of the very same config.

    Raises UsageError where the study belongs to another config or wants a figure that this machine does not have,
    ModelError where the model answers nothing, StoreError where results cannot be written, and what a run raises.
    """
    proposals = search(study)
    path, history = _open(study, results, study_id, resume)
    started = _Study(study, path, history, watch, tell)
    tell(StudyStarted(path, resumed=bool(history)))
    return started.run(proposals)


def unfinished(results: Path, study_hash: str) -> Path | None:
    """The latest study of such a hash that has not come to its end."""
    for file in sorted(results.glob(f"*/{HISTORY}"), reverse=True):
        with suppress(StoreError):  # a study of another version is no business of this one
            history = read_history(file.parent)
            if history["study_hash"] == study_hash and history["finished_at"] is None:
                return file.parent
    return None


def read_history(path: Path) -> dict[str, Any]:
    """What tune.json of a study holds. Raises StoreError where there is none that this version reads."""
    try:
        history = orjson.loads((path / HISTORY).read_bytes())
    except FileNotFoundError:
        raise StoreError(str(path), f"not a study: no {HISTORY}", "give the path that `harness tune` printed") from None
    except (OSError, orjson.JSONDecodeError) as error:
        raise StoreError(str(path / HISTORY), f"cannot be read: {error}") from error
    if not isinstance(history, dict) or history.get("format") != FORMAT:
        raise StoreError(str(path / HISTORY), f"is not of format {FORMAT}", "use a matching version")
    return history


def _open(study: StudyPlan, results: Path, study_id: str | None, resume: Path | None) -> tuple[Path, dict[str, Any]]:
    """(the study's directory, what its history held before)"""
    now = datetime.now(UTC)
    named = results / study_id if study_id is not None else unfinished(results, study.study_hash)
    path = resume or named or results / f"{now:%Y%m%d-%H%M%S}-tune-{study.study_hash[:6]}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        new = not any(path.iterdir())
    except OSError as error:
        raise StoreError(str(path), f"cannot be written: {error.strerror}", "choose another --results") from error
    if new:
        return path, {}
    history = read_history(path)
    if history["study_hash"] != study.study_hash:
        raise UsageError(
            str(path), "is a study of another config", "resume it with its own config, or choose another --run-id"
        )
    return path, history


@dataclass
class _Tried:
    """A setting, and where it has been played."""

    sampling: Sampling
    sides: list[Side] = field(default_factory=list)

    @property
    def trial(self) -> Trial:
        return Trial(self.sampling.name, self.sampling.parameters, tuple(self.sides))


class _Study:
    """One study in progress."""

    def __init__(self, study: StudyPlan, path: Path, before: Mapping[str, Any], watch: Watch, tell: Tell) -> None:
        self._study = study
        self._path = path
        self._watch = watch
        self._tell = tell
        self._goals = Goals(study.tune.objectives, study.tune.limits, study.tune.margin)
        most = len(study.samplings) if study.exhaustive else study.tune.trials + 1
        self._chance = level(len(study.tune.objectives), most, len(study.tune.rungs))
        self._tried = {study.default.name: _Tried(study.default)}
        self._rungs: list[Rung] = []
        self._warnings: dict[str, None] = {}
        self._any_failed = False
        self._created_at = before.get("created_at", datetime.now(UTC).isoformat())
        self._save(None)

    def run(self, proposals: Any) -> Tuned:
        alive = self._first_rung(proposals)
        for number in range(1, len(self._study.tune.rungs)):
            if len(alive) < 2:
                break
            self._play(f"rung-{number}", self._study.rung(number, [each.sampling for each in alive]))
            alive = self._judged(number, alive, (f"rung-{number}",))
        found = standings([each.trial for each in alive], self._goals, self._default)
        choice = choose(found, self._goals, self._study.default.name)
        validation = None if choice is None else self._validate(choice)
        tuned = self._tuned(choice, validation)
        if tuned.recommended is not None:
            write_recommended(self._study, tuned, self._effective(tuned.recommended))
        write_report(tuned)
        self._save(tuned)
        return tuned

    def _first_rung(self, proposals: Any) -> list[_Tried]:
        """Play what the search proposes, the default beside every batch."""
        batch: tuple[Sampling, ...] = next(proposals)
        names: list[str] = []
        while True:
            name = "rung-0" if self._study.exhaustive else f"rung-0-{len(names):02}"
            for sampling in batch:
                self._tried[sampling.name] = _Tried(sampling)
            run = self._play(name, self._study.rung(0, [self._study.default, *batch]))
            if not names:
                self._must_be_measurable(run)
            names.append(name)
            try:
                batch = proposals.send({sampling.name: self._scored(sampling.name) for sampling in batch})
            except StopIteration:
                return self._judged(0, list(self._tried.values()), tuple(names))
            found = standings([each.trial for each in self._tried.values()], self._goals, self._default)
            self._tell(RungDone(Rung(0, self._study.tune.rungs[0], tuple(names), found, {}), goes_on=True))

    @property
    def _default(self) -> Trial:
        return self._tried[self._study.default.name].trial

    @property
    def _n_rungs(self) -> int:
        return len(self._study.tune.rungs)

    def _play(self, name: str, config: Mapping[str, Any]) -> Run:
        """Play a part of the study, and note whose turns it holds."""
        run = self._replay(name, resolve(config))
        for sampling in run.plan["samplings"]:
            self._tried[sampling["name"]].sides.append(Side(run, sampling=sampling["name"]))
        return run

    def _replay(self, name: str, plan: Plan) -> Run:
        self._tell(PartStarted(name, plan))
        run = replay(plan, results=self._path, run_id=name, resume=None, retry_failed=False, watch=self._watch)
        self._any_failed = self._any_failed or bool((run.turns["state"] == "failed").any())
        self._warnings |= dict.fromkeys(run.manifest["warnings"])
        return run

    def _must_be_measurable(self, run: Run) -> None:
        """The first run tells what there is on this machine; a study without one of its figures has no end."""
        if not (run.turns["state"] == "done").any():
            told = run.turns["error_message"].dropna()
            why = f": {told.iloc[0]}" if len(told) else ""
            raise ModelError(str(run.plan["models"][0]["label"]), f"answered no turn{why}", f"look into {run.path}")
        for figure in self._goals.figures:
            if not any(len(sample(figure, each.sides).values) for each in self._tried.values() if each.sides):
                remedy = "without an accelerator host_rss_bytes is the figure" if "memory" in figure.quantity else ""
                raise UsageError(f"tune: {figure.name}", f"no turn of this machine has a {figure.quantity}", remedy)

    def _scored(self, name: str) -> Scored:
        sides, trial = self._tried[name].sides, self._tried[name].trial
        values = [compared(each.figure, trial, self._default) for each in self._goals.objectives]
        beyond = {"failed turns": float(unanswered(trial.sides) - unanswered(trial.beside(self._default)))}
        for limit in self._goals.limits:
            value = estimate(limit.figure, sample(limit.figure, sides)).value
            if value is not None:
                over = value - limit.bound if limit.better == "lower" else limit.bound - value
                # A strict bound is not kept by a value that equals it.
                beyond[limit.text] = over if over or limit.keeps(value) else sys.float_info.min
        known = tuple(value for value in values if value is not None)
        return Scored(known if len(known) == len(values) else None, beyond)

    def _judged(self, number: int, alive: Sequence[_Tried], runs: tuple[str, ...]) -> list[_Tried]:
        """Those that go on after a rung."""
        trials = [each.trial for each in alive]
        found = standings(trials, self._goals, self._default)
        stopped: Mapping[str, str] = {}
        if number < self._n_rungs - 1:
            stopped = stops(trials, found, self._goals, self._default, self._chance, self._study.tune.keep)
        rung = Rung(number, self._study.tune.rungs[number], runs, found, stopped)
        self._rungs.append(rung)
        self._save(None)
        self._tell(RungDone(rung, goes_on=number < self._n_rungs - 1))
        return [each for each in alive if each.sampling.name not in stopped]

    def _validate(self, choice: Choice) -> Validation:
        sampling = self._tried[choice.name].sampling
        run = self._replay("validation", resolve(self._study.validation(sampling)))
        return validate(run, choice.name, self._study.default.name, self._goals)

    def _effective(self, name: str) -> Mapping[str, Any]:
        """What generation really ran with under a setting: the model's own values and the setting's."""
        launches = self._tried[name].sides[-1].run.manifest["launches"]
        return next((dict(entry["effective"][name]["values"]) for entry in launches if "effective" in entry), {})

    def _tuned(self, choice: Choice | None, validation: Validation | None) -> Tuned:
        study = self._study
        (spec,) = resolve(study.rung(0, [study.default])).models
        return Tuned(
            path=self._path,
            model=label_of(spec),
            config=study.config.source,
            search="exhaustive" if study.exhaustive else "optuna",
            seed=study.seed,
            goals=self._goals,
            default=study.default.name,
            tuned_on=tuple(talk.id for talk in study.tuned_on),
            held_out=tuple(talk.id for talk in study.held_out),
            chance=self._chance,
            rungs=tuple(self._rungs),
            choice=choice,
            validation=validation,
            paired=max(study.config.concurrency) == 1,
            warnings=tuple(self._warnings),
            any_failed=self._any_failed,
        )

    def _save(self, tuned: Tuned | None) -> None:
        """Replace tune.json; `tuned` once the study has come to its end."""
        config = self._study.config.model_dump(mode="json")
        config["conversations"]["files"] = [str(Path(file).absolute()) for file in config["conversations"]["files"]]
        held = config["tune"]["holdout"]
        held["files"] = [str(Path(file).absolute()) for file in held["files"]]
        history = {
            "format": FORMAT,
            "study_id": self._path.name,
            "created_at": self._created_at,
            "finished_at": None if tuned is None else datetime.now(UTC).isoformat(),
            "command": sys.argv,
            "harness_version": version("instruct-harness"),
            "study_hash": self._study.study_hash,
            "config": config,
            "default": self._study.default.name,
            "tuned_on": [talk.id for talk in self._study.tuned_on],
            "held_out": [talk.id for talk in self._study.held_out],
            "rungs": self._rungs,
            "choice": tuned and tuned.choice,
            "validation": tuned
            and tuned.validation
            and {**_fields(tuned.validation), "answer": tuned.validation.answer},
            "recommended": tuned and tuned.recommended,
            "parameters": tuned and tuned.recommended and tuned.settings[tuned.recommended],
        }
        replace_file(
            self._path / HISTORY, orjson.dumps(history, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY)
        )


def _fields(validation: Validation) -> dict[str, Any]:
    fields: dict[str, Any] = orjson.loads(orjson.dumps(validation, option=orjson.OPT_SERIALIZE_NUMPY))
    return fields
