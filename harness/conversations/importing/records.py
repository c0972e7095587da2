"""A foreign file → its records one at a time, with their lines: JSON Lines, JSON arrays, CSV and YAML.

Files of conversations come as one JSON array of gigabytes, often on a single line. Such an array is decoded element by
element in a window of its text that moves forward, so that memory holds one element and the window. YAML is read as a
whole: nobody keeps much in it.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from harness.conversations.importing.ledger import Ledger
from harness.documents import Document, described, read_document
from harness.errors import DocumentError, Mistake

_CHUNK = 2**20
"""Characters that are read at a time."""
_LONGEST = 2**26
"""Characters of one record: 64 million are no conversation, but a file with a bracket or a quote missing."""
_BLANK = re.compile(r"[ \t\n\r]*")
_SLACK = 16
"""A value that breaks off is complained about this near to the end of the text, or at the beginning of a string."""


@dataclass(frozen=True, slots=True)
class Record:
    """One value of a file and the line it begins in; of YAML the whole document, with the places of its parts."""

    value: Any
    line: int
    document: Document | None = None


def records(path: Path, ledger: Ledger) -> Iterator[Record]:
    """The records of a file. Lines that are not JSON are noted and passed over.

    Raises DocumentError where the file cannot be read, is no text, or cannot be read on from some place.
    """
    try:
        if path.suffix in (".yaml", ".yml"):
            yield _yaml(path)
        elif path.suffix == ".csv":
            yield from _rows(path)
        elif _is_lines(path):
            yield from _lines(path, ledger)
        else:
            yield from _values(path)
    except OSError as error:
        raise DocumentError([Mistake(str(path), f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        fact = f"byte 0x{error.object[error.start]:02x} is not UTF-8"
        raise DocumentError([Mistake(str(path), fact, "save it as UTF-8")]) from None


def _yaml(path: Path) -> Record:
    document = read_document(path, list_as="tests")
    if document.problems:
        raise DocumentError(document.mistakes([]))
    return Record(document.value, 1, document)


def _rows(path: Path) -> Iterator[Record]:
    csv.field_size_limit(_LONGEST)
    with path.open(encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file, strict=True)
        line = 2
        try:
            for row in table:
                yield Record({str(key): value for key, value in row.items() if key is not None}, line)
                line = table.line_num + 1
        except csv.Error as error:
            raise DocumentError([Mistake(f"{path}:{line}", f"not CSV: {error}")]) from None


def _is_lines(path: Path) -> bool:
    """Whether the first line is a value by itself and another follows."""
    with path.open("rb") as file:
        head = file.read(_CHUNK)
    first, _, rest = head.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")
    if not rest.strip():
        return False
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return True


def _lines(path: Path, ledger: Ledger) -> Iterator[Record]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(_LONGEST):
            number += 1
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line.strip():
                continue
            try:
                yield Record(json.loads(line), number)
            except (ValueError, RecursionError):
                ledger.note(number, "a line that is not JSON", "the line is left out")


def _values(path: Path) -> Iterator[Record]:
    """The elements of an array, or values one after the other. An array of messages is one value."""
    with path.open(encoding="utf-8-sig") as file:
        window = _Window(file, str(path))
        if window.next() != "[":
            while window.next():
                yield Record(window.value(), window.began)
            return
        window.step()
        elements = _elements(window)
        first = next(elements, None)
        if first is None:
            return
        if isinstance(first.value, dict) and {"role", "content"} <= first.value.keys():
            yield Record([first.value, *(element.value for element in elements)], first.line)
            return
        yield first
        yield from elements


def _elements(window: _Window) -> Iterator[Record]:
    while window.next() != "]":
        yield Record(window.value(), window.began)
        if window.next() == ",":
            window.step()
        elif window.next() != "]":
            raise window.mistake("expected , or ] after an element of the list")


class _Window:
    """A part of a file's text that moves forward, and grows while a value does not end in it."""

    def __init__(self, file: TextIO, source: str) -> None:
        self._file, self._source = file, source
        self._text = ""
        self._at = 0
        self._line = 1
        self._decode = json.JSONDecoder().raw_decode
        self.began = 1
        """The line in which the last value begins."""

    def next(self) -> str:
        """The next character that is not blank; nothing at the end."""
        while True:
            blank = _BLANK.match(self._text, self._at)
            assert blank is not None, "the pattern matches nothing, too"
            self._advance(blank.end())
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def step(self) -> None:
        """Pass over that character."""
        self._advance(self._at + 1)

    def value(self) -> Any:
        """The next value. Raises DocumentError where there is none."""
        self.next()
        self.began = self._line
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                far = error.pos < len(self._text) - _SLACK and not error.msg.startswith("Unterminated string")
                if far or not self._more():
                    self._advance(error.pos)
                    raise self.mistake(f"not JSON: {error.msg}") from None
            except ValueError as error:  # a number of thousands of digits
                raise self.mistake(f"not JSON: {error}") from None
            except RecursionError:
                raise self.mistake("nested too deeply") from None
            else:
                # At the very end of the text a number may go on.
                if end < len(self._text) or not self._more():
                    self._advance(end)
                    return value

    def mistake(self, fact: str) -> DocumentError:
        """What is wrong where the window stands."""
        return DocumentError([Mistake(f"{self._source}:{self._line}", fact)])

    def _advance(self, to: int) -> None:
        self._line += self._text.count("\n", self._at, to)
        self._at = to

    def _more(self) -> bool:
        """Read as much again as is still needed, so that all growing together costs as much as reading; False at the
        end of the file."""
        self._text = self._text[self._at :]
        self._at = 0
        if len(self._text) > _LONGEST:
            what = described(self._text[:20])
            raise self.mistake(f"a value of more than {_LONGEST // 2**20} million characters begins here: {what}")
        read = self._file.read(max(_CHUNK, len(self._text)))
        self._text += read
        return bool(read)
