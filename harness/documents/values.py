"""A document: plain values, where they came from, and how a problem in them becomes a mistake with a position."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any, NamedTuple

from harness.errors import Mistake

Keys = tuple[str | int, ...]
Source = str | PathLike[str]


class Problem(NamedTuple):
    """Something wrong at a path of a document, before it is known where that stands."""

    path: Keys
    fact: str
    remedy: str = ""
    at: tuple[int, int] | None = None
    """(line, column) where it is not the path that says where: the second of two equal keys."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a key or an item stands (both counted from 1), and where its parts do."""

    line: int
    column: int
    parts: Mapping[Hashable, Place]


@dataclass(frozen=True, slots=True)
class Document:
    """Plain values, and where they came from: a file, the command line, or a Python caller."""

    source: str
    value: dict[str, Any]
    place: Place | None = None
    """None for values that were never a file."""
    problems: tuple[Problem, ...] = ()
    """What the reader itself objects to: duplicate keys, unknown tags."""
    overrides: tuple[tuple[Keys, str], ...] = ()
    """(path, the option as it was typed) of every value set on top."""

    def mistake(self, problem: Problem) -> Mistake:
        """The problem with its place: the key's own, or that of the nearest mapping around a key that is missing."""
        dotted = ".".join(str(key) for key in problem.path)
        for path, typed in reversed(self.overrides):
            if path == problem.path[: len(path)]:
                subject = typed + (f": {dotted}" if len(problem.path) > len(path) else "")
                return Mistake(subject, problem.fact, problem.remedy)
        subject = self.source
        if self.place is not None:
            subject += ":{}:{}".format(*self.position(problem))
        return Mistake(subject + (f": {dotted}" if dotted else ""), problem.fact, problem.remedy)

    def position(self, problem: Problem) -> tuple[int, int]:
        """(line, column), both from 1; (0, 0) if the document was never a file."""
        place = self.place
        if place is None or problem.at is not None:
            return problem.at or (0, 0)
        for key in problem.path:
            if key not in place.parts:
                break
            place = place.parts[key]
        return place.line, place.column

    def mistakes(self, problems: Iterable[Problem]) -> list[Mistake]:
        """The reader's problems and these, in the order of the file, none said twice."""
        # What the reader could not make a value of is None now; that this None does not fit is not another mistake.
        unread = {problem.path for problem in self.problems if problem.at is None}
        fresh = [problem for problem in problems if problem.path not in unread]
        ordered = sorted((*self.problems, *fresh), key=self.position)
        return list(dict.fromkeys(self.mistake(problem) for problem in ordered))


def document_of(value: Mapping[str, Any], source: str) -> Document:
    """A document made by a program: mappings, sequences and paths become plain dicts, lists and text."""
    problems: list[Problem] = []
    plain = _plain(value, (), problems)
    assert isinstance(plain, dict)
    return Document(source, plain, problems=tuple(problems))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A remedy: the known word that is most like this one, or all of them if they are few."""
    words = list(known)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    return f"known: {', '.join(words)}" if 0 < len(words) <= 20 else ""


def described(value: Any) -> str:
    """A value in an error message: itself as YAML has it if that is short, else its kind."""
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "a mapping"
    text = "a list" if isinstance(value, list) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def encodable(text: str) -> str | None:
    """The text as UTF-8 can hold it, or None: pairs of surrogates (JSON's \\ud83d\\ude00) become one character, and a
    lone one, which no file and no tokenizer takes, is not text."""
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        return None


def _plain(value: Any, path: Keys, problems: list[Problem]) -> Any:
    if isinstance(value, Mapping):
        keys = [key for key in value if isinstance(key, str) and encodable(key) is not None]
        problems += [Problem((*path, described(key)), "a key that is not text") for key in value if key not in keys]
        return {key: _plain(value[key], (*path, key), problems) for key in keys}
    if isinstance(value, (list, tuple)):
        return [_plain(entry, (*path, index), problems) for index, entry in enumerate(value)]
    if isinstance(value, PathLike):
        value = str(value)
    if isinstance(value, str) and (text := encodable(value)) != value:
        if text is None:
            problems.append(Problem(path, "holds half of a surrogate pair", "write the character itself"))
        return text
    return value
