"""The sampling section becomes samplings: every combination of its axes, by name.

    top_k: [1, 10]                    an axis: a list where one value is meant
    temperature: 0.7                  in every sampling
    eos_token_id: [[2], [2, 3]]       an axis of a list-valued parameter: a list of lists
    settings:                         named samplings over the base; one that sets an axis to one value drops the axis
      greedy: {do_sample: false, top_k: null}
    exclude: [{top_k: 10, temperature: 0.7}]    leaves out what matches all of it
    include: [{top_k: 100}]           adds one sampling; it says a value for every axis

Number of samplings = Σ over settings of Π (lengths of the axes) − excluded + included.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from harness.config.generation import GENERATION_PARAMETERS, NOT_PARAMETERS, checked, is_axis, refusal
from harness.documents import Keys, Problem, described, did_you_mean

RESERVED = ("settings", "include", "exclude")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to generate: generation parameters under Hugging Face's names, and a name that is unique in its run."""

    name: str
    parameters: Mapping[str, Any]


def expand(sampling: Mapping[str, Any], under: Keys = ("sampling",)) -> tuple[tuple[Sampling, ...], list[Problem]]:
    """The samplings of a sampling section, and what is wrong with it (then the samplings mean nothing).

    The order is that of the file: settings one after the other, the last axis turning fastest, included ones last.
    Paths of the problems begin with `under`.
    """
    problems: list[Problem] = []
    base = _parameters({k: v for k, v in sampling.items() if k not in RESERVED}, under, problems)
    settings = _settings(sampling["settings"], under, problems) if "settings" in sampling else {"": {}}
    excluded = _partials(sampling.get("exclude", []), (*under, "exclude"), problems)
    included = _partials(sampling.get("include", []), (*under, "include"), problems)
    if problems:
        return (), problems
    found = [each for name, own in settings.items() for each in _combinations(name, {**base, **own})]
    for index, partial in enumerate(excluded):
        kept = [each for each in found if not _matches(each.parameters, partial)]
        if len(kept) == len(found):
            problems.append(
                Problem((*under, "exclude", index), "excludes nothing", "no sampling has all of these values")
            )
        found = kept
    axes = [name for name, value in base.items() if is_axis(name, value)]
    for index, partial in enumerate(included):
        where = (*under, "include", index)
        unsaid = [name for name in axes if name not in partial]
        several = [name for name, value in partial.items() if is_axis(name, value)]
        if unsaid:
            problems.append(
                Problem(where, f"does not say {', '.join(unsaid)}", "an included sampling has a value for every axis")
            )
        elif several:
            problems.append(
                Problem((*where, several[0]), "should be one value", "an included sampling is one sampling")
            )
        else:
            found.append(
                Sampling(name_of("", partial, [*axes, *(k for k in partial if k not in axes)]), {**base, **partial})
            )
    if not found and not problems:
        problems.append(Problem((*under, "exclude"), "leaves no sampling"))
    problems += _twins(found, under)
    problems += _contradictions(found, under, base)
    return tuple(found), problems


def _parameters(given: Mapping[Any, Any], where: Keys, problems: list[Problem]) -> dict[str, Any]:
    """The parameters of one mapping, checked; axes stay lists."""
    result: dict[str, Any] = {}
    for name, value in given.items():
        path = (*where, name)
        if name not in GENERATION_PARAMETERS:
            problems.append(_unknown(name, path))
            continue
        axis = is_axis(name, value)
        values = value if axis else [value]
        reason = refusal(name, values)
        if reason:
            problems.append(Problem(path, "cannot be set here", reason))
            continue
        fitted = [checked(name, entry) for entry in values]
        for index, (entry, wrong) in enumerate(fitted):
            entry_path = (*path, index) if axis else path
            if wrong:
                problems.append(Problem(entry_path, wrong))
            elif entry in [earlier for earlier, _ in fitted[:index]]:
                problems.append(Problem(entry_path, f"{_text(entry)} is in this axis twice"))
        if axis and not values:
            problems.append(Problem(path, "an axis without values", "leave it out"))
        result[name] = [entry for entry, _ in fitted] if axis else fitted[0][0]
    return result


def _unknown(name: Any, path: Keys) -> Problem:
    if name in NOT_PARAMETERS:
        return Problem(path, "is not a generation parameter", NOT_PARAMETERS[name])
    if name in RESERVED:
        return Problem(path, "stands in the wrong place", "it belongs directly under sampling")
    remedy = did_you_mean(str(name), [*GENERATION_PARAMETERS, *RESERVED])
    return Problem(path, "unknown key", remedy or "names are those of transformers.GenerationConfig")


def _settings(given: Any, under: Keys, problems: list[Problem]) -> dict[str, dict[str, Any]]:
    """Named settings; without them there is the one setting without a name."""
    where = (*under, "settings")
    if not isinstance(given, dict) or not given:
        problems.append(Problem(where, f"should be a mapping of names to parameters, not {described(given)}"))
        return {}
    result = {}
    for name, own in given.items():
        if not isinstance(name, str) or not name.strip():
            problems.append(Problem((*where, name), "a name that is not text", "quote it"))
        elif not isinstance(own, dict):
            problems.append(
                Problem(
                    (*where, name), f"should be a mapping of parameters, not {described(own)}", "write {} for the base"
                )
            )
        else:
            result[name] = _parameters(own, (*where, name), problems)
    return result


def _partials(given: Any, where: Keys, problems: list[Problem]) -> list[dict[str, Any]]:
    if not isinstance(given, list):
        problems.append(Problem(where, f"should be a list of mappings, not {described(given)}"))
        return []
    result = []
    for index, partial in enumerate(given):
        if partial == {}:
            problems.append(Problem((*where, index), "should not be empty"))
        elif not isinstance(partial, dict):
            problems.append(Problem((*where, index), f"should be a mapping of parameters, not {described(partial)}"))
        else:
            result.append(_parameters(partial, (*where, index), problems))
    return result


def _combinations(setting: str, parameters: Mapping[str, Any]) -> Iterator[Sampling]:
    axes = [name for name, value in parameters.items() if is_axis(name, value)]
    for values in product(*(parameters[name] for name in axes)):
        chosen = dict(zip(axes, values, strict=True))
        yield Sampling(name_of(setting, chosen, axes), {**parameters, **chosen})


def name_of(setting: str, chosen: Mapping[str, Any], order: list[str]) -> str:
    """What a sampling is called: its setting, then the values that were chosen for it, in the order of their names."""
    parts = [setting] if setting else []
    parts += [f"{name}={_text(chosen[name])}" for name in order if name in chosen]
    return ",".join(parts) or "default"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _matches(parameters: Mapping[str, Any], partial: Mapping[str, Any]) -> bool:
    """Whether the parameters have every value of the partial mapping; a list there means any of its values."""
    return all(
        name in parameters and parameters[name] in (value if is_axis(name, value) else [value])
        for name, value in partial.items()
    )


def _twins(samplings: list[Sampling], under: Keys) -> Iterator[Problem]:
    for index, sampling in enumerate(samplings):
        for earlier in samplings[:index]:
            if sampling.parameters == earlier.parameters:
                yield Problem(under, f"{sampling.name} and {earlier.name} are the same sampling", "leave one out")
            elif sampling.name == earlier.name:
                yield Problem(under, f"two samplings are named {sampling.name}", "name them with settings")


def _contradictions(samplings: list[Sampling], under: Keys, base: Mapping[str, Any]) -> Iterator[Problem]:
    """Least lengths above the greatest: transformers would warn, and the reply end at the greatest."""
    for least, most in (("min_new_tokens", "max_new_tokens"), ("min_length", "max_length")):
        for sampling in samplings:
            low, high = sampling.parameters.get(least), sampling.parameters.get(most)
            if low is not None and high is not None and low > high:
                which = f" in {sampling.name}" if len(samplings) > 1 else ""
                path = (*under, least) if least in base else under
                yield Problem(path, f"{least}: {low} is more than {most}: {high}{which}")
