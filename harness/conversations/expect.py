"""How checks are written: a list of items, each one check and its options.

    expect:
      - contains: motion
      - {contains_any: [force, motion], ignore_case: true}
      - max_words: 80

`KINDS` is the one table of checks; loading, the JSON Schema for editors and the documentation's test read it. An item
that is not understood is a mistake in the file, never a check that passes.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import regex

from harness.conversations import checks
from harness.conversations.script import Check
from harness.documents import Keys, Problem, described, did_you_mean

Item = Mapping[str, Any]


class UnusableError(Exception):
    """The value of a check cannot be used: a fact, and what to do about it."""

    def __init__(self, fact: str, remedy: str = "") -> None:
        super().__init__(fact)
        self.fact, self.remedy = fact, remedy


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of check: what it means, its value as JSON Schema, and how it is made of (value, ignore_case)."""

    meaning: str
    schema: Mapping[str, Any]
    make: Callable[[Any, bool], Check]
    takes_case: bool = False


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise UnusableError(
            f"should be text, not {described(value)}", "" if isinstance(value, list) else "write it in quotes"
        )
    if not value:
        raise UnusableError("should be text, not nothing", "every reply would do")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise UnusableError(f"should be a list of texts, not {described(value)}")
    return tuple(_text(entry) for entry in value)


def _count(value: Any, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UnusableError(f"should be a whole number from {least}, not {described(value)}")
    return value


def _share(value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < 1:
        raise UnusableError(f"should be a share from 0 to below 1, not {described(value)}")
    return float(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise UnusableError(f"should be true or false, not {described(value)}")
    return value


def _true(value: Any) -> None:
    if value is not True:
        raise UnusableError(f"should be true, not {described(value)}", "leave the check out if it is not wanted")


def _pattern(value: Any, ignore_case: bool) -> checks.Matches:
    try:
        checks.compiled(_text(value), ignore_case=ignore_case)
    except regex.error as error:
        raise UnusableError(f"is not a regular expression: {error}") from None
    return checks.Matches(value, ignore_case)


def _json(value: Any, _: bool) -> checks.Json:
    if not isinstance(value, dict):
        _true(value)
        return checks.Json()
    if importlib.util.find_spec("jsonschema") is None:
        raise UnusableError("a JSON Schema needs the package jsonschema", "pip install instruct-harness[json-schema]")
    import jsonschema

    try:
        jsonschema.validators.validator_for(value, default=jsonschema.Draft202012Validator).check_schema(value)
    except jsonschema.exceptions.SchemaError as error:
        raise UnusableError(f"is not a JSON Schema: {error.json_path}: {error.message}") from None
    return checks.Json(value)


def _one_line(value: Any, _: bool) -> checks.OneLine:
    _true(value)
    return checks.OneLine()


_TEXT = {"type": "string", "minLength": 1}
_TEXTS = {"type": "array", "items": _TEXT, "minItems": 1}
_FROM_0 = {"type": "integer", "minimum": 0}
_FROM_1 = {"type": "integer", "minimum": 1}

KINDS: Mapping[str, Kind] = {
    "contains": Kind(
        "The reply contains this text", _TEXT, lambda v, case: checks.Contains("contains", (_text(v),), case), True
    ),
    "contains_any": Kind(
        "The reply contains at least one of these texts", _TEXTS,
        lambda v, case: checks.Contains("contains_any", _texts(v), case), True,
    ),
    "contains_all": Kind(
        "The reply contains all of these texts", _TEXTS,
        lambda v, case: checks.Contains("contains_all", _texts(v), case), True,
    ),
    "not_contains": Kind(
        "The reply contains neither this text nor any of these texts", {"anyOf": [_TEXT, _TEXTS]},
        lambda v, case: checks.Contains("not_contains", _texts(v) if isinstance(v, list) else (_text(v),), case), True,
    ),
    "equals": Kind(
        "The reply is this text, white space around it aside", _TEXT,
        lambda v, case: checks.Equals(_text(v), case), True,
    ),
    "starts_with": Kind(
        "The reply begins with this text", _TEXT, lambda v, case: checks.StartsWith(_text(v), case), True
    ),
    "regex": Kind("This regular expression is found in the reply", _TEXT, _pattern, True),
    "max_words": Kind("At most so many words", _FROM_0, lambda v, _: checks.Size("max_words", _count(v, 0))),
    "min_words": Kind("At least so many words", _FROM_1, lambda v, _: checks.Size("min_words", _count(v, 1))),
    "max_tokens": Kind(
        "At most so many tokens of the model", _FROM_0, lambda v, _: checks.Size("max_tokens", _count(v, 0))
    ),
    "min_tokens": Kind(
        "At least so many tokens of the model", _FROM_1, lambda v, _: checks.Size("min_tokens", _count(v, 1))
    ),
    "json": Kind(
        "The reply is JSON (true), or JSON that fits this JSON Schema",
        {"anyOf": [{"const": True}, {"type": "object"}]}, _json,
    ),
    "one_line": Kind("The reply is a single line", {"const": True}, _one_line),
    "max_repetition": Kind(
        "At most this share of the reply repeats what it said before",
        {"type": "number", "minimum": 0, "exclusiveMaximum": 1}, lambda v, _: checks.Repetition(_share(v)),
    ),
    "refusal": Kind(
        "The reply declines to answer (true) or does not (false); a heuristic by phrases", {"type": "boolean"},
        lambda v, _: checks.Refusal(_flag(v)),
    ),
}  # fmt: skip


def read_checks(items: Any, path: Keys) -> tuple[tuple[Check, ...], list[Problem]]:
    """The checks of an `expect` list, and what is wrong with it."""
    found: list[Check] = []
    problems: list[Problem] = []
    for index, item in enumerate(items):
        check = _read_check(item, (*path, index))
        if isinstance(check, Problem):
            problems.append(check)
        elif check in found:
            problems.append(Problem((*path, index), f"{check.name} is in this list twice"))
        else:
            found.append(check)
    return tuple(found), problems


def _read_check(item: Any, path: Keys) -> Check | Problem:
    if not isinstance(item, dict):
        example = f"write {item}: true" if item in ("json", "one_line") else "write NAME: VALUE"
        return Problem(path, f"should be a mapping of a check to its value, not {described(item)}", example)
    unknown = [key for key in item if key not in KINDS and key != "ignore_case"]
    if unknown:
        return Problem((*path, unknown[0]), "unknown check", did_you_mean(str(unknown[0]), [*KINDS, "ignore_case"]))
    keys = [key for key in item if key in KINDS]
    if len(keys) != 1:
        return Problem(path, f"{len(keys)} checks in one item", "write one item per check" if keys else "name a check")
    key, kind = keys[0], KINDS[keys[0]]
    if "ignore_case" in item and not kind.takes_case:
        return Problem((*path, "ignore_case"), f"means nothing to {key}", "leave it out")
    at = "ignore_case"
    try:
        ignore_case = _flag(item.get("ignore_case", False))
        at = key
        return kind.make(item[key], ignore_case)
    except UnusableError as unusable:
        return Problem((*path, at), unusable.fact, unusable.remedy)


def check_schema() -> dict[str, Any]:
    """JSON Schema of one item of `expect`."""
    return {
        "anyOf": [
            {
                "type": "object",
                "properties": {
                    key: {**kind.schema, "description": kind.meaning},
                    **({"ignore_case": {"type": "boolean", "default": False}} if kind.takes_case else {}),
                },
                "required": [key],
                "additionalProperties": False,
            }
            for key, kind in KINDS.items()
        ]
    }
