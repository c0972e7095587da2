"""Values set on top of a document: `a.b.0.c=value` assignments, as `--set` takes them.

An option that is short for an assignment (`--top-k ten` for `sampling.top_k=ten`) is an `Assignment` that knows how it
was typed, because a mistake is to be found where one typed it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.documents.read import parse_value
from harness.documents.values import Document, Keys, described, encodable
from harness.errors import DocumentError, Mistake


@dataclass(frozen=True, slots=True)
class Assignment:
    """`text` is `a.b.0.c=value`; `typed` is the option that mistakes name, where it is another than `--set`."""

    text: str
    typed: str = ""

    @property
    def subject(self) -> str:
        return self.typed or f"--set {self.text}"


def set_values(document: Document, assignments: Sequence[str | Assignment]) -> Document:
    """The document after `a.b.0.c=value` for every assignment, values being YAML.

    Missing mappings on the way are made; an index must exist. Raises DocumentError naming every assignment that cannot
    be carried out.
    """
    value: Any = document.value
    overrides = list(document.overrides)
    mistakes: list[Mistake] = []
    for each in assignments:
        assignment = Assignment(each) if isinstance(each, str) else each
        dotted, equals, text = assignment.text.partition("=")
        subject = assignment.subject
        if encodable(assignment.text) is None:
            mistakes.append(Mistake(ascii(subject), "holds bytes that are not text"))
            continue
        if not equals or not all(dotted.strip().split(".")):
            mistakes.append(Mistake(subject, "is not an assignment", "write --set sampling.top_k=20"))
            continue
        try:
            new = parse_value(text, subject)
            value, path = _assigned(value, dotted.strip().split("."), new, subject)
        except DocumentError as error:
            mistakes += error.mistakes
        else:
            overrides.append((path, subject))
    if mistakes:
        raise DocumentError(mistakes)
    return replace(document, value=value, overrides=tuple(overrides))


def _assigned(value: Any, keys: Sequence[str], new: Any, subject: str) -> tuple[Any, Keys]:
    """A copy of `value` with one entry set, and the path of that entry (list indexes as ints)."""
    if not keys:
        return new, ()
    key, *rest = keys
    if isinstance(value, list):
        if not key.isdecimal() or int(key) >= len(value):
            fact = f"{key} is not one of the indexes 0 … {len(value) - 1}" if value else "the list is empty"
            raise DocumentError([Mistake(subject, fact)])
        inner, path = _assigned(value[int(key)], rest, new, subject)
        return [*value[: int(key)], inner, *value[int(key) + 1 :]], (int(key), *path)
    if value is not None and not isinstance(value, dict):
        raise DocumentError([Mistake(subject, f"there is no {key} in {described(value)}")])
    entries = value or {}
    inner, path = _assigned(entries.get(key), rest, new, subject)
    return {**entries, key: inner}, (key, *path)
