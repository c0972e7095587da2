"""Check pass rates as the Hub shows them: `.eval_results/*.yaml` in the repository of a model.

    - dataset: {id: org/conversations, task_id: default}
      value: 83.3
      date: '2026-01-02T03:04:05+00:00'
      notes: checks passed, in per cent; …

The format is the Hub's (https://huggingface.co/docs/hub/eval-results). It wants a data set of the Hub and a task in it,
which only the one who published the conversations can name. `value` is the pass rate in per cent, as leaderboards have
it. What decides the figure and has no field there – the model's revision, the settings, the interval – is in `notes`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from harness.analysis.frames import Run
from harness.analysis.summary import by_setting
from harness.errors import UsageError
from harness.records import short_hash

FOLDER = ".eval_results"


@dataclass(frozen=True, slots=True)
class Result:
    """One file: where it belongs (model's folder/.eval_results/name.yaml), and its text."""

    path: PurePosixPath
    text: str


def eval_results(run: Run, dataset: str, task: str = "default") -> list[Result]:
    """A file for every setting whose replies were checked.

    Raises UsageError where `dataset` is no name of a data set on the Hub, or nothing was checked: no checks in the
    script, replies forced to a length, or random weights.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    from ruamel.yaml import YAML

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", dataset):
        raise UsageError(f"--dataset {dataset}", "is no data set of the Hub", "write ORGANISATION/NAME")
    found = []
    for row in by_setting(run).to_dict("records"):
        if pd.isna(row["checks_rate"]):
            continue
        entry = EvalResultEntry(
            dataset_id=dataset,
            task_id=task,
            value=round(100 * row["checks_rate"], 2),
            date=str(run.manifest["created_at"]),
            notes="; ".join(_notes(run, row)),
        )
        stream = StringIO()
        yaml = YAML()
        yaml.width = 4096
        yaml.dump(eval_result_entries_to_yaml([entry]), stream)
        found.append(Result(_path(run, row, task), stream.getvalue()))
    if not found:
        raise UsageError(run.run_id, "has no checked replies to tell of", "give its conversations checks (expect)")
    return found


def revision(run: Run, label: str) -> str | None:
    """The commit that a model was loaded from, or else the revision it was asked for; None for what has none."""
    commits = [
        (entry.get("facts") or {}).get("commit") for entry in run.manifest["launches"] if entry["model"] == label
    ]
    return next((commit for commit in commits if commit), _spec(run, label).get("revision"))


def _notes(run: Run, row: Mapping[Any, Any]) -> list[str]:
    spec, plan = _spec(run, row["model"]), run.plan
    parameters = next(each["parameters"] for each in plan["samplings"] if each["name"] == row["sampling"])
    low, high = row["checks_low"], row["checks_high"]
    between = f", 95 % interval {100 * low:.1f}–{100 * high:.1f}" if pd.notna(low) else ""
    return [
        f"checks passed, in per cent{between}",
        f"{row['turns']} turns of {row['conversations']} conversations",
        f"model {spec['model']}, revision {revision(run, row['model']) or 'none'}",
        f"sampling {json.dumps(parameters, ensure_ascii=False)}",
        f"history {plan['history']}, length {plan['length']}, concurrency {row['concurrency']}",
        f"instruct-harness {run.manifest['harness_version']}, run {run.run_id}",
    ]


def _spec(run: Run, label: str) -> Mapping[str, Any]:
    spec: Mapping[str, Any] = next(spec for spec in run.plan["models"] if spec["label"] == label)
    return spec


def _path(run: Run, row: Mapping[Any, Any], task: str) -> PurePosixPath:
    level = f"-{row['concurrency']}-at-a-time" if len(run.plan.get("concurrency", [1])) > 1 else ""
    return PurePosixPath(_safe(row["model"]), FOLDER, f"{_safe(task)}-{_safe(row['sampling'])}{level}.yaml")


def _safe(name: str) -> str:
    """The name as that of a file; what had to be changed is told apart by a hash."""
    safe = re.sub(r"[^\w.-]+", "_", name).lstrip(".") or "_"
    return name if safe == name else f"{safe}-{short_hash(name.encode())[:6]}"
