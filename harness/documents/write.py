"""Files that appear whole or not at all, and replace nothing unasked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from harness.errors import UsageError


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
