"""Shapes: what a file may hold, as pydantic models, and every mismatch told in the words of the file."""

from __future__ import annotations

from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from harness.documents.values import Keys, Problem, described, did_you_mean


class Shape(BaseModel):
    """A part of a file: frozen, strict about types (YAML has told 3 from "3") and about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


ShapeT = TypeVar("ShapeT", bound=Shape)

_EXPECTED = {
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "list_type": "a list",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
}


def fit(value: Any, shape: type[ShapeT]) -> tuple[ShapeT | None, list[Problem]]:
    """The values as a shape, or everything that keeps them from being one."""
    try:
        return shape.model_validate(value), []
    except ValidationError as error:
        found = [_problem(details, value, shape) for details in error.errors(include_url=False)]
        return None, list({problem.path: problem for problem in reversed(found)}.values())[::-1]


def _problem(details: ErrorDetails, value: Any, shape: type[Shape]) -> Problem:
    kind, given = details["type"], details["input"]
    path = _path_in(value, details["loc"], missing=kind == "missing")
    fact, remedy = details["msg"].removeprefix("Value error, ").replace("Input should", "should"), ""
    if kind == "extra_forbidden":
        fact, remedy = "unknown key", did_you_mean(str(path[-1]), _known_keys(shape, details["loc"][:-1]))
    elif kind == "missing":
        fact, remedy = "is missing", "add it"
    elif kind in ("too_short", "string_too_short"):
        fact = "should not be empty"  # the only lower bound that our shapes have
    elif kind == "literal_error":
        words = _literals(details)
        fact = f"should be one of {', '.join(words)}, not {described(given)}"
        remedy = did_you_mean(given, words) if isinstance(given, str) else ""
        remedy = "" if remedy.startswith("known") else remedy
    elif kind in _EXPECTED:
        fact = f"should be {_EXPECTED[kind]}, not {described(given)}"
        remedy = "write it in quotes" if kind == "string_type" and isinstance(given, (int, float)) else ""
    elif kind != "value_error":
        fact = f"{fact}, not {described(given)}"
    return Problem(path, fact, remedy)


def _path_in(value: Any, loc: tuple[int | str, ...], *, missing: bool) -> Keys:
    """The path in the file of pydantic's location, which also names things that only pydantic knows of."""
    path: list[str | int] = []
    for index, key in enumerate(loc):
        if (isinstance(value, dict) and key in value) or (isinstance(value, list) and key in range(len(value))):
            value = value[key]  # type: ignore[index]
            path.append(key)
        elif missing and index == len(loc) - 1:
            path.append(key)
    return tuple(path)


def _literals(details: ErrorDetails) -> list[str]:
    # pydantic has them only in its sentence: "'auto', 'float32' or 'bfloat16'".
    expected = str(details.get("ctx", {}).get("expected", ""))
    return [word.strip(" '") for word in expected.replace(" or ", ", ").split(", ")]


def _known_keys(shape: type[Shape], loc: tuple[int | str, ...]) -> list[str]:
    """The keys of the shape that stands at a location."""
    here: list[type[Shape]] = [shape]
    for key in loc:
        stepped = [
            inner
            for known in here
            if key in known.model_fields
            for inner in _shapes(known.model_fields[str(key)].annotation)
        ]
        here = stepped or here
    return [name for known in here for name in known.model_fields]


def _shapes(annotation: Any) -> list[type[Shape]]:
    if isinstance(annotation, type) and issubclass(annotation, Shape):
        return [annotation]
    return [shape for argument in get_args(annotation) for shape in _shapes(argument)]
