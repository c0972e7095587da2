"""`harness init`: the shipped configs and conversations, written where one can edit them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def init(
    directory: Annotated[Path, typer.Argument(help="Where to write them.")] = Path(),
) -> None:
    """Write configs/, prompts/ and their schemas into a directory. Existing files are kept."""
    from harness.errors import UsageError
    from harness.shipped import shipped_files

    written = kept = 0
    for relative, text in shipped_files():
        target = directory / relative
        if target.exists():
            kept += 1
            continue
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(text)
        except OSError as error:
            raise UsageError(str(target), f"cannot be written: {error.strerror}", "choose another directory") from None
        written += 1
    there = "" if directory == Path() else f"cd {directory} && "
    typer.echo(f"{written} files written, {kept} kept; now: {there}harness run configs/quickstart.yaml", err=True)
    typer.echo(directory / "configs")
