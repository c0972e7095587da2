"""YAML with positions: every mistake of a file becomes `file:line:column: path: fact – remedy`, all of them at once.

A file is read in two steps. `read_document` turns the text into plain Python values and remembers where each key
stands; what is not YAML at all ends here. `fit` then holds the values against a `Shape` and returns every mismatch as
a `Problem` – a path, a fact, a remedy – which the document turns into a `Mistake` with its position. Rooms that know
more than shapes (is this a regex? does this parameter exist?) add problems of their own, so a user sees one list.

YAML here is 1.2: `no` is text, `1e-3` is a number, a duplicate key is a mistake, and dates stay text.
"""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode
from ruamel.yaml.reader import ReaderError

from harness.errors import DocumentError, Mistake

Keys = tuple[str | int, ...]
Source = str | PathLike[str]
_PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp")}
_MERGE = "tag:yaml.org,2002:merge"


class Shape(BaseModel):
    """A part of a file: frozen, strict about types (YAML has told 3 from "3") and about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


ShapeT = TypeVar("ShapeT", bound=Shape)


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
    """(path, assignment as written) of every `--set`."""

    def mistake(self, problem: Problem) -> Mistake:
        """The problem with its place: the key's own, or that of the nearest mapping around a key that is missing."""
        dotted = ".".join(str(key) for key in problem.path)
        for path, assignment in reversed(self.overrides):
            if path == problem.path[: len(path)]:
                subject = f"--set {assignment}" + (f": {dotted}" if len(problem.path) > len(path) else "")
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
        ordered = sorted((*self.problems, *problems), key=self.position)
        return list(dict.fromkeys(self.mistake(problem) for problem in ordered))


def read_document(path: Source) -> Document:
    """The values of a YAML file.

    Raises DocumentError (one line) if it cannot be read, is not YAML, is empty or holds something else than a mapping.
    """
    source = str(path)
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise DocumentError([Mistake(source, "no such file", _nearby(Path(path)))]) from None
    except IsADirectoryError:
        raise DocumentError(
            [Mistake(source, "is a directory, not a file", f"name its files: {source}/*.yaml")]
        ) from None
    except OSError as error:
        raise DocumentError([Mistake(source, f"cannot be read: {error.strerror}")]) from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = _line_and_column(data[: error.start].decode("utf-8", "replace"))
        raise DocumentError(
            [Mistake(f"{source}:{line}:{column}", f"byte 0x{data[error.start]:02x} is not UTF-8", "save it as UTF-8")]
        ) from None
    return parse_document(text, source)


def parse_document(text: str, source: str) -> Document:
    """The values of YAML text; errors name `source`. Raises DocumentError as `read_document` does."""
    node = _compose(text, source)
    if node is None:
        raise DocumentError([Mistake(f"{source}:1:1", "is empty", "see docs/ for the format")])
    reader = _Reader()
    value, parts = reader.plain(node, ())
    document = Document(source, {}, Place(1, 1, parts), tuple(reader.problems))
    if not isinstance(value, dict):
        fact = f"should be a mapping of keys to values, not {described(value)}"
        raise DocumentError(document.mistakes([Problem((), fact)]))
    return replace(document, value=value)


def document_of(value: Mapping[str, Any], source: str) -> Document:
    """A document made by a program: mappings, sequences and paths become plain dicts, lists and text."""
    plain = _plain(value)
    assert isinstance(plain, dict)
    return Document(source, plain)


def set_values(document: Document, assignments: Sequence[str]) -> Document:
    """The document after `a.b.0.c=value` for every assignment, values being YAML.

    Missing mappings on the way are made; an index must exist. Raises DocumentError naming every assignment that cannot
    be carried out.
    """
    value: Any = document.value
    overrides = list(document.overrides)
    mistakes: list[Mistake] = []
    for assignment in assignments:
        dotted, equals, text = assignment.partition("=")
        subject = f"--set {assignment}"
        if not equals or not all(dotted.strip().split(".")):
            mistakes.append(Mistake(subject, "is not an assignment", "write --set sampling.top_k=20"))
            continue
        try:
            node = _compose(text, subject)
            reader = _Reader()
            new = None if node is None else reader.plain(node, ())[0]
            if reader.problems:
                raise DocumentError([Mistake(subject, *reader.problems[0][1:3])])
            value, path = _assigned(value, dotted.strip().split("."), new, subject)
        except DocumentError as error:
            mistakes += error.mistakes
        else:
            overrides.append((path, assignment))
    if mistakes:
        raise DocumentError(mistakes)
    return replace(document, value=value, overrides=tuple(overrides))


def fit(value: Any, shape: type[ShapeT]) -> tuple[ShapeT | None, list[Problem]]:
    """The values as a shape, or everything that keeps them from being one."""
    try:
        return shape.model_validate(value), []
    except ValidationError as error:
        found = [_problem(details, value, shape) for details in error.errors(include_url=False)]
        return None, list({problem.path: problem for problem in reversed(found)}.values())[::-1]


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


def _nearby(path: Path) -> str:
    siblings = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, siblings, n=1)
    return f"did you mean {path.parent / close[0]}?" if close else ""


def _line_and_column(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, PathLike) else value


def _compose(text: str, source: str) -> Node | None:
    # Nodes instead of values: they carry positions, and duplicate keys are still there to be reported.
    try:
        node: Node | None = YAML(typ="safe", pure=True).compose(text)
    except ReaderError as error:
        line, column = _line_and_column(text[: error.position])
        fact = f"character U+{error.character:04X} is not allowed in YAML"
        raise DocumentError([Mistake(f"{source}:{line}:{column}", fact)]) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        fact, remedy = _syntax(error)
        where = f":{mark.line + 1}:{mark.column + 1}" if mark and not source.startswith("--set") else ""
        raise DocumentError([Mistake(source + where, fact, remedy)]) from None
    return node


def _syntax(error: MarkedYAMLError) -> tuple[str, str]:
    problem = str(error.problem)
    if "'\\t'" in problem:
        return "a tab cannot indent YAML", "use spaces"
    if "another document" in problem:
        return "a second document begins here", "one file holds one document: remove the ---"
    if "mapping values are not allowed" in problem:
        return "not valid YAML: a colon where none can be", "quote text that holds a colon, and check the indentation"
    if "cannot start any token" in problem:
        return f"not valid YAML: {problem}", "quote the text"
    context = f" ({error.context})" if error.context else ""
    return f"not valid YAML: {problem}{context}", "check quotes, brackets and indentation"


class _Reader:
    """Walks the nodes of one document once; an anchor's values and places are shared by its aliases."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._constructor = SafeConstructor(loader=YAML(typ="safe", pure=True))
        self._seen: dict[int, tuple[Any, dict[Hashable, Place]]] = {}
        self._open: set[int] = set()

    def plain(self, node: Node, path: Keys) -> tuple[Any, dict[Hashable, Place]]:
        if id(node) in self._open:
            self.problems.append(Problem(path, "an alias that contains itself"))
            return None, {}
        if id(node) not in self._seen:
            self._open.add(id(node))
            self._seen[id(node)] = self._read(node, path)
            self._open.remove(id(node))
        return self._seen[id(node)]

    def _read(self, node: Node, path: Keys) -> tuple[Any, dict[Hashable, Place]]:
        if str(node.tag) not in _PLAIN:
            self.problems.append(Problem(path, f"the tag {node.tag} means nothing here", "leave it out"))
            return None, {}
        if isinstance(node, ScalarNode):
            return self._scalar(node, path), {}
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        values: list[Any] = []
        places: dict[Hashable, Place] = {}
        for index, item in enumerate(node.value):
            value, parts = self.plain(item, (*path, index))
            values.append(value)
            places[index] = Place(item.start_mark.line + 1, item.start_mark.column + 1, parts)
        return values, places

    def _scalar(self, node: ScalarNode, path: Keys) -> Any:
        if str(node.tag).endswith((":timestamp", ":str")):
            return str(node.value)
        try:
            return self._constructor.construct_object(node)
        except ValueError:
            self.problems.append(Problem(path, f"{node.value!r} is not a {str(node.tag).rpartition(':')[2]}"))
            return None

    def _mapping(self, node: MappingNode, path: Keys) -> tuple[dict[Any, Any], dict[Hashable, Place]]:
        values: dict[Any, Any] = {}
        places: dict[Hashable, Place] = {}
        merged: list[Node] = []
        for key_node, value_node in node.value:
            at = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            if str(key_node.tag) == _MERGE:
                merged += [value_node] if isinstance(value_node, MappingNode) else value_node.value
                continue
            key = self._scalar(key_node, path) if isinstance(key_node, ScalarNode) else None
            if not isinstance(key, (str, int)):
                self.problems.append(Problem(path, "a key that is not text", "quote it", at))
            elif key in places:
                self.problems.append(Problem((*path, key), "duplicate key", f"also in line {places[key].line}", at))
            else:
                value, parts = self.plain(value_node, (*path, key))
                values[key], places[key] = value, Place(*at, parts)
        for other in merged:
            value, parts = self.plain(other, path)
            if not isinstance(value, dict):
                self.problems.append(Problem(path, "<< merges mappings only"))
                continue
            # What the mapping says itself wins over what it merges in.
            values, places = {**value, **values}, {**parts, **places}
        return values, places


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


def _problem(details: ErrorDetails, value: Any, shape: type[Shape]) -> Problem:
    kind, given = details["type"], details["input"]
    path = _path_in(value, details["loc"], missing=kind == "missing")
    fact, remedy = details["msg"].removeprefix("Value error, ").replace("Input should", "should"), ""
    if kind == "extra_forbidden":
        fact, remedy = "unknown key", did_you_mean(str(path[-1]), _known_keys(shape, details["loc"][:-1]))
    elif kind == "missing":
        fact, remedy = "is missing", "add it"
    elif kind == "invalid_key":
        fact, remedy = "a key that is not text", "quote it"
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
