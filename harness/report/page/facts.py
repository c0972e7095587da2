"""What the page says besides its tables: what was run and where, what to beware of, what each model really ran with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.analysis.frames import Run
from harness.analysis.notes import notes
from harness.report.markdown_tables import Cell, Cells
from harness.report.page.tables import Table, table
from harness.report.units import ABSENT
from harness.report.words import lane, machine, matrix


@dataclass(frozen=True, slots=True)
class Facts:
    """One run in words."""

    run_id: str
    lines: tuple[str, ...]
    """What was run, how, on what machine."""
    warnings: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    """(name, value)"""


def facts(run: Run) -> Facts:
    """What there is to say about a run."""
    manifest = run.manifest
    made = [
        ("created", str(manifest.get("created_at"))),
        ("finished", str(manifest.get("finished_at") or "not yet")),
        ("command", " ".join(map(str, manifest.get("command", ())))),
        ("harness", str(manifest.get("harness_version"))),
        ("config hash", str(manifest.get("config_hash"))),
    ]
    return Facts(
        run.run_id,
        (matrix(run), lane(run), machine(run)),
        (*manifest["warnings"], *notes(run)),
        (*made, *_environment(manifest["environment"])),
    )


def effective(runs: Sequence[Run]) -> Table | None:
    """What generation really ran with, a row for each model and sampling, and for each launch where that changed; None
    where no launch told."""
    rows: list[dict[str, Any]] = []
    for run in runs:
        said: dict[tuple[str, str], Any] = {}
        for launch in run.manifest["launches"]:
            for sampling, settings in launch.get("effective", {}).items():
                setting = (launch["model"], sampling)
                if said.get(setting) != settings["values"]:
                    said[setting] = settings["values"]
                    model, _ = setting
                    setting_of = {"run": run.run_id, "model": model, "sampling": sampling, "launch": launch["launch"]}
                    rows.append({**settings["values"], **setting_of})
    if not rows:
        return None
    parameters = sorted({name for row in rows for name in row} - {"run", "model", "sampling", "launch"})
    names = [*(["run"] if len(runs) > 1 else []), "model", "sampling", "launch"]
    # Objects: False and 0 in one column stay what they are.
    frame = pd.DataFrame(
        {name: pd.Series([row.get(name) for row in rows], dtype=object) for name in (*names, *parameters)}
    )
    of: Cells = {name: Cell(name, _value(name)) for name in frame.columns}
    return table("effective", "Effective settings", frame, of, EFFECTIVE, texts=frozenset(frame.columns))


EFFECTIVE = (
    "What generation ran with after the model's own generation config, the config and its sampling were merged; a "
    "dash is a parameter that was not set."
)


def loaded(runs: Sequence[Run]) -> Table | None:
    """What each model was once it was loaded, a column for each, and for a later launch where anything changed; None
    where no launch told."""
    columns: dict[str, dict[str, Any]] = {}
    for run in runs:
        said: dict[str, Any] = {}
        for launch in run.manifest["launches"]:
            told = launch.get("facts", {})
            of_run = f"{run.run_id}: " if len(runs) > 1 else ""
            later = f", launch {launch['launch']}" if launch["model"] in said else ""
            if told and said.get(launch["model"]) != told:
                columns[f"{of_run}{launch['model']}{later}"] = said[launch["model"]] = told
    if not columns:
        return None
    names = list(dict.fromkeys(name for told in columns.values() for name in told))
    frame = pd.DataFrame(
        {"fact": names, **{of: [told.get(name) for name in names] for of, told in columns.items()}}, dtype=object
    )
    of: Cells = {name: Cell(name, _value(name)) for name in frame.columns}
    return table("loaded", "What was loaded", frame, of, LOADED, texts=frozenset(frame.columns))


LOADED = "Bytes, and floating-point operations per token, are those of the model alone; a dash is what nobody knows."


def _value(name: str) -> Any:
    return lambda row: ABSENT if row[name] is None else str(row[name])


def _environment(environment: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in environment.items():
        if isinstance(value, Mapping):
            yield name, _pairs(value) or "none"
        elif isinstance(value, list):
            yield name, "; ".join(_pairs(entry) for entry in value) or "none"
        else:
            yield name, ABSENT if value is None else str(value)


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in values.items())
