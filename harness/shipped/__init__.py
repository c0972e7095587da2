"""The configs and conversations that come with the package: beside this file in a wheel, at the top of a checkout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_FOLDERS = ("configs", "prompts")


def shipped_files() -> Iterator[tuple[PurePosixPath, bytes]]:
    """(path relative to a working directory, content) of every shipped file."""
    here = Path(__file__).parent
    root = here if (here / _FOLDERS[0]).is_dir() else here.parent.parent
    for folder in _FOLDERS:
        for path in sorted((root / folder).iterdir()):
            if path.suffix in (".yaml", ".json"):
                yield PurePosixPath(folder, path.name), path.read_bytes()
