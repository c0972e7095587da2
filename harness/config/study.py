"""A tuning study, carried out on paper: the settings to choose from, the default they are held against, the
conversations they are tuned on, and those that judge the choice.

Everything a study plays is an ordinary run of an ordinary config: `rung` and `validation` are the values of such ones.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config.figures import ABOUT_REPLIES, Figure
from harness.config.files import choose, find_files
from harness.config.generation import checked, is_axis
from harness.config.matrix import RESERVED, Sampling, expand
from harness.config.plan import Plan, assemble, conversation_digest, history_mistakes
from harness.config.ranges import Range, without_ranges
from harness.config.schema import ConversationFilter, RunConfig
from harness.config.tuning import MOST_EXHAUSTIVE, Tuning
from harness.conversations.load import load_conversations
from harness.conversations.script import Conversation
from harness.documents import Keys, Problem, document_of
from harness.errors import DocumentError, Mistake, UsageError
from harness.records import short_hash

Parameters = Mapping[str, Any]
DEFAULT = "default"


@dataclass(frozen=True)
class StudyPlan:
    """What a study chooses from, and what it plays."""

    config: RunConfig
    """With its globs resolved."""
    tune: Tuning
    seed: int
    default: Sampling
    """What everything is held against: the setting named `default`, or else the model's own values of whatever is
    tuned."""
    samplings: tuple[Sampling, ...]
    """Every setting of the grid, the default first; with ranges, the default only counts."""
    axes: Mapping[str, Sequence[Any]]
    """The listed values of every axis; empty where the settings are no plain grid."""
    ranges: Mapping[str, Range]
    fixed: Parameters
    """The parameters that every setting of axes and ranges shares."""
    tuned_on: tuple[Conversation, ...]
    held_out: tuple[Conversation, ...]

    @property
    def exhaustive(self) -> bool:
        """Whether every setting is tried."""
        if self.tune.search == "auto":
            return not self.ranges and len(self.samplings) <= MOST_EXHAUSTIVE
        return self.tune.search == "exhaustive"

    @property
    def study_hash(self) -> str:
        """Stands for everything that decides what the study does: equal hashes mean that it can be gone on with."""
        config = self.config.model_dump(mode="json", exclude={"conversations": True, "gate": True, "tune": {"holdout"}})
        digests = [[conversation_digest(talk) for talk in talks] for talks in (self.tuned_on, self.held_out)]
        return short_hash(json.dumps([config, digests], sort_keys=True).encode())

    def rung(self, number: int, samplings: Sequence[Sampling]) -> dict[str, Any]:
        """The config of some settings in one rung, which has draws of its own: the same for all settings, others than
        in any other rung."""
        return self._config(samplings, self.tuned_on, f"rung {number}", self.tune.rungs[number], self.config.launches)

    def validation(self, candidate: Sampling) -> dict[str, Any]:
        """The config that sets a setting against the default: conversations that were held out, fresh draws."""
        samplings = [self.default] if candidate.name == self.default.name else [self.default, candidate]
        how = self.tune.validation
        return self._config(samplings, self.held_out, "validation", how.repeats, how.launches)

    def _config(
        self, samplings: Sequence[Sampling], talks: Sequence[Conversation], part: str, repeats: int, launches: int
    ) -> dict[str, Any]:
        return {
            **self.config.model_dump(mode="json", exclude={"tune", "gate", "lane"}),
            "sampling": {"settings": {sampling.name: dict(sampling.parameters) for sampling in samplings}},
            "conversations": {
                "files": list(dict.fromkeys(talk.source for talk in talks)),
                "ids": [talk.id for talk in talks],
            },
            "seed": seed_of(self.seed, part),
            "repeats": repeats,
            "launches": launches,
        }


def seed_of(base: int, part: str) -> int:
    """The base seed of one part of a study, in [0, 2**32): parts draw independently of each other."""
    return int.from_bytes(hashlib.sha256(f"{base}/{part}".encode()).digest()[:4], "big")


def study_of(config: RunConfig) -> StudyPlan:
    """The study of a config that was loaded. Raises UsageError where it has no `tune` section, and DocumentError with
    everything that keeps the study from being carried out."""
    if config.tune is None:
        raise UsageError(config.source, "has no tune section", "say what to tune for, e.g. maximize: check_pass_rate")
    planned, problems, mistakes = assemble(config, None)
    study = None
    if planned is not None:
        study, problems, mistakes = study_plan(planned, None)
    if study is None:
        document = document_of(config.given, config.source)
        raise DocumentError([*document.mistakes(problems), *mistakes])
    return study


def study_plan(planned: Plan, folder: Path | None) -> tuple[StudyPlan | None, list[Problem], list[Mistake]]:
    """The study of a planned config with a `tune` section, or None with what is wrong; `folder` is the config file's
    own."""
    config, tune = planned.config, planned.config.tune
    assert tune is not None, "only a config with a tune section makes a study"
    seed = config.seed if tune.seed is None else tune.seed
    mistakes: list[Mistake] = []
    tuned_on, held_out, files, problems = _split(tune, planned, seed, folder, mistakes)
    problems += _not_one(planned)
    rest, ranges, _ = without_ranges(config.sampling)
    fixed, axes = _fixed_and_axes(rest)
    default, samplings = _default_first(planned.samplings, fixed)
    if len(samplings) < 2 and not ranges:
        fact = "has one setting only, so there is nothing to choose from"
        problems.append(Problem(("sampling",), fact, "make an axis of it: top_k: [10, 50]"))
    plain = not any(name in rest for name in RESERVED)
    tune = tune.model_copy(update={"holdout": tune.holdout.model_copy(update={"files": files})})
    config = config.model_copy(update={"tune": tune}).coming_from(config.source, config.given)
    study = StudyPlan(config, tune, seed, default, samplings, axes if plain else {}, ranges, fixed, tuned_on, held_out)
    problems += _search_problems(study, plain=plain)
    if tuned_on and held_out:
        problems += _figure_problems(study)
    return (None if problems or mistakes else study), problems, mistakes


def _not_one(planned: Plan) -> list[Problem]:
    problems = []
    if len(planned.models) > 1:
        fact = f"{len(planned.models)} models, and a study tunes one"
        problems.append(Problem(("models",), fact, "tune each by itself, then harness compare"))
    if len(planned.config.concurrency) > 1:
        problems.append(Problem(("concurrency",), "several levels, and a study plays at one", "choose one"))
    return problems


def _fixed_and_axes(rest: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    base = {name: value for name, value in rest.items() if name not in RESERVED}
    axes = {name: [checked(name, each)[0] for each in value] for name, value in base.items() if is_axis(name, value)}
    # One setting of what is left, so that its values are what transformers takes.
    (fixed,) = expand({name: value for name, value in base.items() if name not in axes})[0]
    return dict(fixed.parameters), axes


def _default_first(samplings: Sequence[Sampling], fixed: Parameters) -> tuple[Sampling, tuple[Sampling, ...]]:
    """The default, and all settings with it in front."""
    own = Sampling(DEFAULT, fixed)
    default = next(
        (each for each in samplings if each.name == DEFAULT),
        next((each for each in samplings if each.parameters == fixed), own),
    )
    return default, (default, *(each for each in samplings if each.name != default.name))


def _split(
    tune: Tuning, planned: Plan, seed: int, folder: Path | None, mistakes: list[Mistake]
) -> tuple[tuple[Conversation, ...], tuple[Conversation, ...], list[str], list[Problem]]:
    """(conversations to tune on, those held out, the files these come from if they are files of their own, problems)"""
    talks, holdout, under = planned.conversations, tune.holdout, ("tune", "holdout")
    if holdout.files:
        return _held_files(holdout.files, planned, folder, mistakes)
    if len(talks) < 2:
        fact = "one conversation cannot be tuned on and held out"
        return (), (), [], [Problem(under, fact, "add conversations, or name files of others")]
    if holdout.share is not None:
        n = min(max(round(holdout.share * len(talks)), 1), len(talks) - 1)
        dice = random.Random(f"{seed}/holdout")  # noqa: S311 - a choice that can be repeated, not a secret
        chosen = set(dice.sample([talk.id for talk in talks], n))
        problems: list[Problem] = []
    else:
        wanted = ConversationFilter(files=["-"], tags=holdout.tags, ids=holdout.ids)
        kept, problems = choose(talks, wanted, under)
        chosen = {talk.id for talk in kept}
    tuned_on = tuple(talk for talk in talks if talk.id not in chosen)
    if not tuned_on:
        problems.append(Problem(under, "holds out every conversation", "leave some to tune on"))
    return tuned_on, tuple(talk for talk in talks if talk.id in chosen), [], problems


def _held_files(
    patterns: list[str], planned: Plan, folder: Path | None, mistakes: list[Mistake]
) -> tuple[tuple[Conversation, ...], tuple[Conversation, ...], list[str], list[Problem]]:
    under: Keys = ("tune", "holdout", "files")
    files, problems = find_files(patterns, folder, under)
    held: tuple[Conversation, ...] = ()
    try:
        held = load_conversations(files) if not problems else ()
        mistakes += history_mistakes(planned.config, held)
    except DocumentError as error:
        mistakes += error.mistakes
    seen = {conversation_digest(talk) for talk in planned.conversations}
    both = [talk.id for talk in held if conversation_digest(talk) in seen]
    if both:
        more = f" and {len(both) - 1} more" if len(both) > 1 else ""
        problems.append(Problem(under, f"{both[0]}{more}: tuned on as well", "hold out other conversations"))
    return planned.conversations, held, files, problems


def _search_problems(study: StudyPlan, *, plain: bool) -> list[Problem]:
    path: Keys = ("tune", "search")
    if study.exhaustive:
        if study.ranges:
            name = next(iter(study.ranges))
            return [Problem(("sampling", name), "is a range, which cannot be tried in full", "use search: optuna")]
        return []
    if not plain:
        fact = "optuna chooses among axes and ranges, not among settings, include or exclude"
        return [Problem(path, fact, "use search: exhaustive")]
    return []


def _figure_problems(study: StudyPlan) -> list[Problem]:
    """Figures that this study cannot have, whatever it measures."""
    tune, config = study.tune, study.config
    turns = sum(_turns(config, talk) for talk in study.tuned_on) * sum(tune.rungs) * config.launches
    babble = config.length == "fixed" or any(spec.weights == "random" for spec in config.models)
    problems = []
    for path, figure in _figures(study):
        if turns < figure.least_turns:
            fact = f"{figure.name} takes {figure.least_turns} turns of a setting, and this study plays {turns}"
            problems.append(Problem(path, fact, f"more rungs, launches or conversations, or {figure.quantity}.p50"))
        if babble and figure.quantity in ABOUT_REPLIES:
            fact = f"{figure.name} means nothing where replies are forced to a length, or weights are random"
            problems.append(Problem(path, fact, "use length: natural and a trained model"))
        elif figure.quantity == "check_pass_rate":
            for talks, which in ((study.tuned_on, "to tune on"), (study.held_out, "held out")):
                if not any(talk.expect or any(turn.expect for turn in talk.turns) for talk in talks):
                    problems.append(Problem(path, f"no conversation {which} has a check", "write expect: into some"))
    return problems


def _figures(study: StudyPlan) -> list[tuple[Keys, Figure]]:
    """Every objective and limit with the place where it stands."""
    tune, given = study.tune, study.config.given.get("tune", {})
    objectives = iter(tune.objectives)
    found: list[tuple[Keys, Figure]] = []
    for key, texts, figures in (
        ("maximize", tune.maximize, [next(objectives).figure for _ in tune.maximize]),
        ("minimize", tune.minimize, [next(objectives).figure for _ in tune.minimize]),
        ("subject_to", tune.subject_to, [limit.figure for limit in tune.limits]),
    ):
        listed = isinstance(given.get(key), list)
        found += [
            (("tune", key, index) if listed else ("tune", key), figure)
            for index, figure in zip(range(len(texts)), figures, strict=True)
        ]
    return found


def _turns(config: RunConfig, talk: Conversation) -> int:
    return sum(config.history != "fill" or turn.assistant is None for turn in talk.turns)
