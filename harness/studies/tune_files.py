"""What a tuning study leaves beside its runs: the report, and the recommended setting for others to use."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.analysis.tuned import Tuned
from harness.config.study import StudyPlan
from harness.documents import yaml_text
from harness.errors import StoreError, UsageError
from harness.report.tuning import tune_markdown, verdict

CONFIG = "best.yaml"
GENERATION_CONFIG = "generation_config.json"
REPORT = "tune.md"
_MARK = "# Recommended by harness tune"


def write_report(tuned: Tuned) -> None:
    """Write tune.md. Raises StoreError where it cannot be written."""
    _write(tuned.path / REPORT, tune_markdown(tuned))


def write_recommended(study: StudyPlan, tuned: Tuned, effective: Mapping[str, Any]) -> None:
    """Write the recommended setting as best.yaml and generation_config.json; `effective` is what generation ran with.

    Under `length: fixed` that holds what forces replies to their length, so there only the setting itself is written.
    Raises StoreError where they cannot be written.
    """
    parameters = tuned.settings[str(tuned.recommended)]
    _write(tuned.path / CONFIG, recommended_config(study, tuned, parameters))
    values = dict(effective) if study.config.length == "natural" and effective else dict(parameters)
    known = {name: value for name, value in values.items() if value is not None}
    _write(tuned.path / GENERATION_CONFIG, json.dumps(known, indent=2, sort_keys=True) + "\n")


def recommended_config(study: StudyPlan, tuned: Tuned, parameters: Mapping[str, Any]) -> str:
    """The study's config with the recommended setting in the place of axes, ranges and the `tune` section."""
    config = study.config
    values = config.model_dump(mode="json", exclude_defaults=True, exclude={"tune", "lane"})
    models, conversations = values.pop("models"), values.pop("conversations")
    values.pop("sampling", None)
    lines = [f"{_MARK}, study {tuned.path.name}.", *(f"# {line}" for line in verdict(tuned))]
    document = {
        "models": [spec["model"] if set(spec) == {"model"} else spec for spec in models],
        "sampling": dict(parameters),
        "conversations": conversations["files"] if set(conversations) == {"files"} else conversations,
        **values,
    }
    return "".join(f"{' '.join(line.split())}\n" for line in lines) + yaml_text(document)


def may_write(path: Path) -> None:
    """Raises UsageError where a file is in the way that no study has written."""
    if path.is_dir():
        raise UsageError(f"--write {path}", "is a directory", "name a file")
    if path.exists() and not path.read_text(encoding="utf-8", errors="replace").startswith(_MARK):
        raise UsageError(f"--write {path}", "exists, and was not written by a study", "name another file")


def write_copy(tuned: Tuned, path: Path) -> None:
    """Put a copy of best.yaml where it is wanted. Raises StoreError where it cannot be written."""
    _write(path, (tuned.path / CONFIG).read_text(encoding="utf-8"))


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise StoreError(str(path), f"cannot be written: {error.strerror or error}") from error
