"""JSON Lines → one document per line, named `file:line`: the form of files too large for YAML."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from harness.documents.values import Document, Source, described
from harness.errors import DocumentError, Mistake


def read_lines(path: Source) -> Iterator[Document | Mistake]:
    """The JSON objects of a file, one after the other; empty lines are passed over.

    A line that is not a JSON object is yielded as a mistake, and the next one is read. Raises DocumentError if the file
    cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _document(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line, f"{path}:{number}")
    except OSError as error:
        raise DocumentError([Mistake(str(path), f"cannot be read: {error.strerror}")]) from None


def _document(line: bytes, source: str) -> Document | Mistake:
    try:
        orjson.loads(line)  # the stricter of the two: no NaN, no half of a surrogate pair, UTF-8 only
        value = json.loads(line, object_pairs_hook=_once)
    except orjson.JSONDecodeError as error:
        return Mistake(f"{source}:{error.colno}", f"not JSON: {error.msg}", "one object per line")
    except _TwiceError as error:
        return Mistake(f"{source}: {error}", "duplicate key")
    if not isinstance(value, dict):
        return Mistake(source, f"should be a mapping of keys to values, not {described(value)}")
    return Document(source, value)


class _TwiceError(Exception):
    """A key stands twice in one object."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _TwiceError(next(key for key in keys if keys.count(key) > 1))
    return made
