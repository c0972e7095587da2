"""Writing: values as YAML the way people write it, and files that appear whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any, BinaryIO

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString, LiteralScalarString

from harness.errors import UsageError


def yaml_text(value: Any) -> str:
    """Plain values as a YAML document: lists indented, texts of several lines as blocks."""
    yaml = YAML()
    yaml.width = 110
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = StringIO()
    yaml.dump(_blocks(value), stream)
    # Where it breaks a line of text, the library leaves a space behind that means nothing.
    return re.sub(r" +$", "", stream.getvalue(), flags=re.MULTILINE)


def _blocks(value: Any) -> Any:
    """The value, its texts of several lines as blocks where they can be."""
    if isinstance(value, dict):
        return {key: _blocks(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_blocks(entry) for entry in value]
    if not isinstance(value, str) or value.isprintable():
        return value
    # Left to itself the library would take U+0085 and U+2028 for ends of lines.
    return LiteralScalarString(value) if _is_block(value) else DoubleQuotedScalarString(value)


def _is_block(text: str) -> bool:
    """Whether a YAML block shows these lines as they are."""
    lines = text.split("\n")
    ends = lines[0][:1].strip() and lines[-1]
    return len(lines) > 1 and bool(ends) and all(line == line.rstrip() and line.isprintable() for line in lines)


@contextmanager
def new_file(path: Path, *, force: bool) -> Iterator[BinaryIO]:
    """A stream whose content becomes the file when the block ends without an error; else nothing is left behind.

    Directories on the way to it are made. Raises UsageError where the file exists and `force` does not say to replace
    it, or cannot be written.
    """
    if path.exists() and not force:
        raise UsageError(str(path), "exists already", "choose another name, or --force")
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            yield file
        os.replace(part, path)
    except OSError as error:
        raise UsageError(str(path), f"cannot be written: {error.strerror}", "choose another place") from None
    finally:
        if part.exists():
            part.unlink()
