"""Where a run is written: one that is gone on with, or a new one with its manifest."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from harness.config.plan import Plan
from harness.errors import StoreError, UsageError
from harness.meters.environment import environment
from harness.records import TurnRecord
from harness.store import RunWriter, create, read_manifest, reopen, runs


def run_to_go_on_with(plan: Plan, results: Path, run_id: str | None) -> Path | None:
    """The run named `run_id` if it exists; without a name the latest unfinished run of the very same config."""
    if run_id is not None:
        return results / run_id if (results / run_id).exists() else None
    for path in reversed(runs(results)):
        with suppress(StoreError):  # a run of another version is no business of this one
            manifest = read_manifest(path)
            if manifest.get("config_hash") == plan.config_hash and manifest.get("finished_at", "") is None:
                return path
    return None


def open_run(
    plan: Plan, results: Path, run_id: str | None, path: Path | None, notes: Mapping[str, Any]
) -> tuple[RunWriter, tuple[TurnRecord, ...]]:
    """The writer of the run at `path`, with its records so far, or of a new one, whose manifest has these `notes` too.

    Raises UsageError where the run belongs to another config, StoreError where results cannot be written.
    """
    now = datetime.now(UTC)
    if path is not None:
        writer, records = reopen(path)
        if writer.manifest["config_hash"] != plan.config_hash:
            writer.close()
            raise UsageError(
                str(path), "is a run of another config", "resume it with its own config, or choose another --run-id"
            )
        writer.manifest["resumed"] = [
            *writer.manifest["resumed"],
            {"at": now.isoformat(), "environment": environment()},
        ]
        return writer, records
    manifest = {
        "created_at": now.isoformat(),
        "finished_at": None,
        "resumed": [],
        "command": sys.argv,
        "harness_version": version("instruct-harness"),
        "config_hash": plan.config_hash,
        "config_name": plan.config.name,
        "config": _config_for_resuming(plan),
        "plan": plan.resolved(),
        "environment": environment(),
        "commits": {},
        "launches": [],
        "warnings": [],
        **notes,
    }
    return create(results, run_id or f"{now:%Y%m%d-%H%M%S}-{plan.config_hash[:6]}", manifest), ()


def _config_for_resuming(plan: Plan) -> dict[str, Any]:
    """The config with absolute paths, so that the run can be gone on with from any directory."""
    config = plan.config.model_dump(mode="json")
    config["conversations"]["files"] = [str(Path(file).absolute()) for file in config["conversations"]["files"]]
    return config
