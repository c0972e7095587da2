"""`harness import`: public scripts as prompts files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from harness.conversations.importing.convert import Imported

_FORMATS = Literal["auto", "mt-bench", "mt-bench-101", "multi-challenge", "sharegpt", "openai", "inspect", "promptfoo"]
_MANY_FOR_YAML = 2000


def convert(
    format: Annotated[_FORMATS, typer.Argument(help="What the file is; auto looks at its first record.")],  # noqa: A002
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON, JSON Lines, CSV or YAML.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="prompts/x.yaml, or prompts/x.jsonl if it is large.")],
    target: Annotated[
        Literal["contains"] | None,
        typer.Option(help="Make a check of inspect's target and of evals' ideal: the last reply contains it."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Write nothing unless all can be taken over.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write the conversations of a public file as a prompts file. What could not be taken over is listed on stderr."""
    from harness.conversations.importing.convert import convert as imported

    found = imported(file, output, None if format == "auto" else format, target=target, strict=strict, force=force)
    typer.echo("\n".join(_told(file, output, found)), err=True)
    typer.echo(output)


def _told(file: Path, output: Path, found: Imported) -> list[str]:
    from harness.report.units import printable

    conversations = f"{found.conversations} conversation{'s' if found.conversations != 1 else ''}"
    lines = [f"{found.format}: {conversations} with {found.turns} turn{'s' if found.turns != 1 else ''}"]
    for finding in found.ledger.findings:
        where = ", ".join(f"{file}:{line}" for line in finding.lines)
        more = " …" if finding.times > len(finding.lines) else ""
        lines.append(f"  {finding.times} × {printable(finding.what)}: {finding.became} ({where}{more})")
    if found.ledger.unread:
        lines.append(f"  fields that were not read: {printable(', '.join(found.ledger.unread))}")
    if found.conversations > _MANY_FOR_YAML and output.suffix != ".jsonl":
        lines.append(f"  many for YAML: {output.with_suffix('.jsonl')} would be read forty times as fast")
    return lines
