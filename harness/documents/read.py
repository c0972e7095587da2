"""YAML text → plain values and the place of every key.

The reader works on ruamel's nodes instead of its values: they carry positions, and duplicate keys are still there to be
reported.
"""

from __future__ import annotations

import difflib
from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from harness.documents.values import Document, Keys, Place, Problem, Source, described, encodable
from harness.errors import DocumentError, Mistake

_YAML = "tag:yaml.org,2002:"
_PLAIN = {
    MappingNode: {f"{_YAML}map"},
    SequenceNode: {f"{_YAML}seq"},
    ScalarNode: {f"{_YAML}{kind}" for kind in ("str", "int", "float", "bool", "null", "timestamp")},
}
_MERGE = f"{_YAML}merge"


def read_document(path: Source, *, list_as: str | None = None) -> Document:
    """The values of a YAML file; a list at the top is taken to stand under the key `list_as`, where that is given.

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
    return parse_document(text, source, list_as=list_as)


def parse_document(text: str, source: str, *, list_as: str | None = None) -> Document:
    """The values of YAML text; errors name `source`. Raises DocumentError as `read_document` does."""
    value, parts, problems = _read(text, source, positions=True)
    if value is None:
        raise DocumentError([Mistake(f"{source}:1:1", "is empty", "see docs/ for the format")])
    if isinstance(value, list) and list_as is not None:
        value, parts = {list_as: value}, {list_as: Place(1, 1, parts)}
        problems = [problem._replace(path=(list_as, *problem.path)) for problem in problems]
    document = Document(source, {}, Place(1, 1, parts), tuple(problems))
    if not isinstance(value, dict):
        fact = f"should be a mapping of keys to values, not {described(value)}"
        raise DocumentError(document.mistakes([Problem((), fact)]))
    return replace(document, value=value)


def parse_value(text: str, subject: str) -> Any:
    """One YAML value of any kind, None if there is none. Raises DocumentError about `subject`, without positions."""
    value, _, problems = _read(text, subject, positions=False)
    if problems:
        raise DocumentError([Mistake(subject, problem.fact, problem.remedy) for problem in problems])
    return value


def _nearby(path: Path) -> str:
    siblings = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, siblings, n=1)
    return f"did you mean {path.parent / close[0]}?" if close else ""


def _line_and_column(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def _read(text: str, source: str, *, positions: bool) -> tuple[Any, dict[Hashable, Place], list[Problem]]:
    reader = _Reader()
    try:
        node = _compose(text, source, positions=positions)
        value, parts = (None, {}) if node is None else reader.plain(node, ())
    except RecursionError:
        raise DocumentError([Mistake(source, "is nested too deeply")]) from None
    return value, parts, reader.problems


def _compose(text: str, source: str, *, positions: bool) -> Node | None:
    try:
        node: Node | None = YAML(typ="safe", pure=True).compose(text)
    except ReaderError as error:
        line, column = _line_and_column(text[: error.position])
        fact = f"character U+{error.character:04X} is not allowed in YAML"
        raise DocumentError([Mistake(f"{source}:{line}:{column}" if positions else source, fact)]) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        fact, remedy = _syntax(error)
        where = f":{mark.line + 1}:{mark.column + 1}" if mark and positions else ""
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
        if not isinstance(node, ScalarNode) and str(node.tag) not in _PLAIN[type(node)]:
            self._tag_problem(node, path)
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

    def _tag_problem(self, node: Node, path: Keys) -> None:
        self.problems.append(Problem(path, f"the tag {node.tag} means nothing here", "leave it out"))

    def _scalar(self, node: ScalarNode, path: Keys) -> Any:
        """The value of a scalar; None with a problem if it has none."""
        if str(node.tag) not in _PLAIN[ScalarNode]:
            self._tag_problem(node, path)
            return None
        if str(node.tag).endswith((":timestamp", ":str")):
            text = encodable(str(node.value))
            if text is None:
                self.problems.append(Problem(path, "holds half of a surrogate pair", "write the character itself"))
            return text
        try:
            return self._constructor.construct_object(node)
        except (ValueError, LookupError):  # !!int x, !!bool maybe, !!float ""
            kind = str(node.tag).removeprefix(_YAML)
            self.problems.append(Problem(path, f"{described(str(node.value))} is not !!{kind}"))
            return None

    def _mapping(self, node: MappingNode, path: Keys) -> tuple[dict[Any, Any], dict[Hashable, Place]]:
        values: dict[Any, Any] = {}
        places: dict[Hashable, Place] = {}
        merged: list[Node] = []
        for key_node, value_node in node.value:
            at = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            if str(key_node.tag) == _MERGE:
                merged += value_node.value if isinstance(value_node, SequenceNode) else [value_node]
                continue
            complaints = len(self.problems)
            key = self._scalar(key_node, path) if isinstance(key_node, ScalarNode) else None
            if len(self.problems) > complaints:
                self.problems[-1] = self.problems[-1]._replace(at=at)
            elif not isinstance(key, str):
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
