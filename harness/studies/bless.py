"""Taking a run into the window that later nights are held against: deliberately, and never one that is red.

A window that followed whatever ran last would forgive a slow decline one night at a time. So nothing but this writes
into results/baselines/, and what was not good is only taken by force, with the reason kept in the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from harness.analysis.baselines import device_of, history_file, window_folder
from harness.analysis.frames import NIGHT, Run, load
from harness.analysis.nights import find_nights, keep
from harness.errors import StoreError, UsageError
from harness.meters.environment import environment
from harness.store import MANIFEST

VERDICT = "verdict.json"


def bless(
    named: Sequence[Path],
    results: Path,
    *,
    device: str | None = None,
    force: bool = False,
    anew: bool = False,
    reason: str | None = None,
) -> list[Path]:
    """Put runs into their window and return the files. Each of `named` is the directory of a run, its name, or a night
    file; `device` the one they are to be of, this machine if not given; `anew` lets the window begin with them.

    Raises UsageError where one must not be – another device, unfinished, turns that failed; without `force` also red,
    or not judged though there is a window to judge it by –, and then none is.
    """
    runs = sorted((load(_found(each, results)) for each in named), key=lambda run: str(run.manifest["created_at"]))
    around = environment()
    taken = []
    for run in runs:
        where = window_folder(results, _device(run, device or device_of(around)), _config(run))
        _must_be_whole(run)
        verdict = verdict_of(run.run_id, results if run.kept else run.path.parent)
        if not force:
            _must_not_be_red(run, verdict, bool(find_nights(where)))
        elif not reason:
            raise UsageError(run.run_id, "is taken by force", "say why, for whoever reads it in a year: --reason TEXT")
        blessed = {
            "at": datetime.now(UTC).isoformat(),
            "reason": reason,
            "commit": around["git_commit"],
            "anew": anew and run is runs[0],
            "forced": force,
            "answer": None if verdict is None else verdict["answer"],
        }
        taken.append((replace(run, manifest={**run.manifest, "blessed": blessed}), where / f"{run.run_id}{NIGHT}"))
    return [keep(run, path) for run, path in taken]


def verdict_of(run_id: str, results: Path) -> dict[str, Any] | None:
    """What was stored of the judgement of a run; None where it was not judged. Raises StoreError where it cannot be
    read."""
    path = results / run_id / VERDICT
    try:
        verdict = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, orjson.JSONDecodeError) as error:
        raise StoreError(str(path), f"cannot be read: {error}", "judge the run again") from error
    if not isinstance(verdict, dict) or "answer" not in verdict:
        raise StoreError(str(path), "is no verdict", "judge the run again")
    return verdict


def _found(named: Path, results: Path) -> Path:
    """A run by its path, by its name in the results, or by its name in the history."""
    if (named / MANIFEST).exists() or named.is_file():
        return named
    if (results / named / MANIFEST).exists():
        return results / named
    kept = history_file(results, named.name)
    return kept if kept.exists() else named


def _device(run: Run, expected: str) -> str:
    """The device of a run, which has to be one and the expected one."""
    manifest = run.manifest
    devices = dict.fromkeys(device_of(each) for each in [
        manifest["environment"], *(entry["environment"] for entry in manifest["resumed"])
    ])  # fmt: skip
    if len(devices) > 1:
        raise UsageError(run.run_id, f"was begun and gone on with on {' and '.join(devices)}", "bless another run")
    (device,) = devices
    if device != expected:
        fact = f"is of {device}, and not of {expected}"
        raise UsageError(run.run_id, fact, f"bless it there, or say --device {device}")
    return device


def _config(run: Run) -> str:
    name = run.manifest.get("config_name")
    if name is None:
        raise UsageError(run.run_id, "does not say what its config is called", "bless a run of this version")
    return str(name)


def _must_be_whole(run: Run) -> None:
    if run.manifest["finished_at"] is None:
        raise UsageError(run.run_id, "has not come to its end", f"finish it: harness run --resume {run.path}")
    states = run.turns["state"]
    holes = int((states != "done").sum())
    if holes:
        raise UsageError(run.run_id, f"{holes} of its {len(states)} turns failed or were not run", "bless another run")


def _must_not_be_red(run: Run, verdict: Mapping[str, Any] | None, there_is_a_window: bool) -> None:
    if "confirms" in run.manifest:
        fact = f"was played because something in {run.manifest['confirms']} was suspicious"
        raise UsageError(run.run_id, fact, "bless a night that was played for its own sake")
    if verdict is None:
        if there_is_a_window:
            remedy = f"harness gate {run.run_id} --baseline … --json {run.path}/{VERDICT}, or --force"
            raise UsageError(run.run_id, "was not judged by the window it is to join", remedy)
        return
    remedy = "look into it; if it is as it should be from now on: --force --anew --reason TEXT"
    if verdict["answer"] in ("regression", "not comparable", "some failed"):
        raise UsageError(run.run_id, f"its verdict is {verdict['answer']!r}", remedy)
    if verdict.get("counts", {}).get("suspicion"):
        raise UsageError(run.run_id, "something in it is suspicious, and was not confirmed or refuted", remedy)
