"""Tell what a gate said where it is looked for: verdict.json, JUnit XML, GitHub's summary and annotations.

Whatever the verdict is, it is told, and what cannot be written keeps nothing else from being written.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.analysis.verdict import Gate
from harness.errors import StoreError
from harness.exchange.github import SUMMARY_BYTES, log_lines, step_summary
from harness.exchange.junit import junit_xml
from harness.exchange.verdict_json import verdict_json
from harness.store import replace_file

JSON = "verdict.json"
JUNIT = "junit.xml"


@dataclass(frozen=True, slots=True)
class Published:
    """What was written, and what is left to print."""

    files: tuple[Path, ...]
    annotations: tuple[str, ...]
    """Lines for the log of GitHub Actions, stdout or stderr; none elsewhere."""
    problems: tuple[StoreError, ...]
    """Files that could not be written. The verdict stays what it is."""


def publish(
    gate: Gate, folder: Path | None, *, junit: Path | None = None, json: Path | None = None, github: bool | None = None
) -> Published:
    """Write verdict.json and junit.xml into `folder`, which is the run's, or to the files that are named instead.

    Without a folder only what is named is written. `github` adds to the summary that GITHUB_STEP_SUMMARY names and
    makes annotations; None: where GITHUB_ACTIONS is true, as it is in every step there.
    """
    wanted = {
        json or (folder / JSON if folder else None): verdict_json,
        junit or (folder / JUNIT if folder else None): junit_xml,
    }
    steps: dict[Path, Callable[[], None]] = {
        path: lambda path=path, text=text: replace_file(path, text(gate))  # type: ignore[misc]
        for path, text in wanted.items()
        if path is not None
    }
    actions = os.environ.get("GITHUB_ACTIONS") == "true" if github is None else github
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if actions and summary:
        steps[Path(summary)] = lambda: _add_to_summary(gate, Path(summary))
    problems: dict[Path, StoreError] = {}
    for path, write in steps.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write()
        except OSError as error:
            why = f"cannot be written: {error.strerror or error}"
            problems[path] = StoreError(str(path), why, "name another file, or make room for it")
    written = tuple(path for path in steps if path not in problems)
    return Published(written, tuple(log_lines(gate)) if actions else (), tuple(problems.values()))


def _add_to_summary(gate: Gate, path: Path) -> None:
    """Other commands of the step may have written to it before, and it is shown as a whole or not at all."""
    before = path.stat().st_size if path.exists() else 0
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(step_summary(gate, SUMMARY_BYTES - before))
