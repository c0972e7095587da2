"""configs/*.yaml, the command line or a Python mapping → RunConfig, with every mistake of all of them at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from harness.config.generation import GENERATION_PARAMETERS, is_axis
from harness.config.matrix import RESERVED, expand
from harness.config.plan import assemble
from harness.config.ranges import without_ranges
from harness.config.rules import rule_problems
from harness.config.schema import RunConfig
from harness.config.study import study_plan
from harness.documents import Assignment, Document, Problem, Source, document_of, fit, read_document, set_values
from harness.errors import DocumentError, Mistake
from harness.records import History, Length

_LANES: Mapping[str, Mapping[str, str]] = {
    "speed": {"history": "scripted", "length": "fixed"},
    "behaviour": {"history": "generated", "length": "natural"},
}
_CHOICES = {"history": get_args(History), "length": get_args(Length)}


def load_config(path: Source, overrides: Sequence[str | Assignment] = ()) -> RunConfig:
    """The config of a file, after `a.b.0.c=value` overrides (values are YAML).

    Its lane is resolved, its globs have become files (looked for in the current directory, then beside the config), and
    `plan` will accept it. Raises DocumentError with every mistake of the config, the overrides and the prompts files.
    """
    return _resolved(read_document(path), Path(path).parent, overrides)


def parse_config(
    values: Mapping[str, Any], source: str = "config", overrides: Sequence[str | Assignment] = ()
) -> RunConfig:
    """The config that a mapping means, as `load_config` would; mistakes name `source`."""
    return _resolved(document_of(values, source), None, overrides)


def _resolved(document: Document, folder: Path | None, overrides: Sequence[str | Assignment]) -> RunConfig:
    document = _overridden(document, overrides)
    value, problems = _in_lane(document.value)
    config, misfits = fit(value, RunConfig)
    problems += misfits
    # A config that does not fit is tried again without the keys that do not, so that the rest is looked at as well.
    wrong = {problem.path[0] for problem in misfits if problem.path}
    spare = {"models": [{"model": "-"}]} if "models" in wrong else {}
    looked_at = config or fit({key: value[key] for key in value if key not in wrong} | spare, RunConfig)[0]
    mistakes: list[Mistake] = []
    if looked_at is not None:
        plan, found, mistakes = assemble(looked_at.coming_from(document.source, document.value), folder)
        problems += found
        config = plan.config if plan is not None else None
        problems += rule_problems(plan) if plan is not None else []
        if plan is not None and plan.config.tune is not None:
            study, found, more = study_plan(plan, folder)
            problems, mistakes = problems + found, mistakes + more
            config = study.config if study is not None else None
    elif isinstance(value.get("sampling"), dict):
        listed, _, found = without_ranges(value["sampling"])
        problems += [*found, *expand(listed)[1]]
    if config is None or problems or document.problems:
        raise DocumentError([*document.mistakes(problems), *mistakes])
    return config


def _overridden(document: Document, overrides: Sequence[str | Assignment]) -> Document:
    mistakes: list[Mistake] = []
    document = replace(document, value=_spelt_out(document.value))
    for assignment in overrides:
        try:
            document = set_values(document, [assignment])
        except DocumentError as error:
            mistakes += error.mistakes
        else:
            document = replace(document, value=_spelt_out(document.value))
    if mistakes:
        raise DocumentError(mistakes)
    return document


def _spelt_out(value: dict[str, Any]) -> dict[str, Any]:
    """Models as mappings, so that `--set models.0.dtype=float32` works on `models: [builtin:pico]`."""
    models = value.get("models")
    if not isinstance(models, list):
        return value
    return {**value, "models": [{"model": spec} if isinstance(spec, str) else spec for spec in models]}


def _in_lane(value: dict[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """The values with what their lane means filled in, and what contradicts it."""
    lane = value.get("lane")
    if not isinstance(lane, str) or lane not in _LANES:
        return value, []
    meaning = _LANES[lane]
    problems = [
        Problem((key,), f"{value[key]} contradicts lane: {lane}, which means {key}: {meant}", "leave one of them out")
        for key, meant in meaning.items()
        if key in value and value[key] != meant and value[key] in _CHOICES[key]
    ]
    sampling = value.get("sampling", {})
    if lane == "speed" and isinstance(sampling, dict) and not _is_the_subject(sampling):
        sampling = {**sampling, "do_sample": False}
    # A history or length that is none stays, for the shape to refuse.
    meant = {key: value[key] if value.get(key, word) not in _CHOICES[key] else word for key, word in meaning.items()}
    return {**value, **meant, "sampling": sampling}, problems


def _is_the_subject(sampling: Mapping[str, Any]) -> bool:
    """Whether a config is about sampling, so that the speed lane must not make it greedy."""
    return (
        "do_sample" in sampling
        or bool(without_ranges(sampling)[1])
        or any(
            name in RESERVED or (name in GENERATION_PARAMETERS and is_axis(name, entry))
            for name, entry in sampling.items()
        )
    )
