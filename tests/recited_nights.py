"""A folder in which nights of recited models are carried out in milliseconds, and windows for them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import harness
from harness.analysis.baselines import device_of, window_folder
from harness.analysis.nights import keep
from harness.backends.scripted import Recital, ScriptedBackend, read_recital
from harness.config.schema import ModelSpec
from harness.meters.clock import HandCrankedClock
from harness.meters.environment import environment
from harness.runner import run as runner
from harness.runner import worker
from harness.studies import nightly as module
from harness.studies.nightly import Night, nightly
from harness.studies.preflight import Finding
from harness.studies.replay import resolve
from tests.threaded import ThreadedWorker

CONFIG = """
models:
  - {model: "scripted:one.yaml", label: one}
  - {model: "scripted:two.yaml", label: two}
sampling: {max_new_tokens: 8}
conversations: [prompts.yaml]
launches: 2
warmup: 0
gate:
  rules: {"tpot_s.p50": "+60%", checks: exact, failures: 0}
  confirm_launches: 2
"""
PROMPTS = """
conversations:
  - id: a
    turns: [{user: Hello, expect: [{contains: Motion}]}, {user: Again}]
"""
LOOK = (Finding("disk", "ok", "room enough"),)


def recital(token_s: float = 0.002, line: str = "Motion is all there is my friend", more: str = "") -> str:
    return f"lines: [{line}]\ntoken_s: {token_s}\nreal_time: true\n{more}"


def furnish(folder: Path, patch: pytest.MonkeyPatch, *, reports: bool = False) -> Path:
    """Configs and recitals in the current directory. Workers are threads with a clock that moves by what is recited and
    nothing else, and whole reports are not written."""
    texts = {"nightly.yaml": CONFIG, "prompts.yaml": PROMPTS, "one.yaml": recital(), "two.yaml": recital()}
    for name, text in texts.items():
        (folder / name).write_text(text)
    patch.chdir(folder)
    patch.delenv("GITHUB_ACTIONS", raising=False)
    patch.setattr(runner, "WorkerProcess", ThreadedWorker)
    clock = HandCrankedClock()
    patch.setattr(worker, "replay", partial(worker.replay, clock=clock))
    patch.setattr(worker, "open_backend", lambda spec, **_: ScriptedBackend(_recital(spec), clock=clock))
    patch.setattr(module, "preflight", lambda seen, before: LOOK)
    patch.setattr(module, "readiness", lambda results, nvml: None)
    if not reports:
        patch.setattr(module, "write_reports", lambda run: [])
        patch.setattr(module._Night, "_write_trend", lambda night: None)
        patch.setattr(module, "write_night_page", lambda *_, **__: None)
    return folder


def _recital(spec: ModelSpec) -> Recital:
    return read_recital(spec.model.removeprefix("scripted:"))


def play(here: Path, *overrides: str, **values: Any) -> Night:
    return nightly(resolve("nightly.yaml", overrides), results=here / "results", **values)


def bless_some(night: Night, results: Path, days: int = 3, **manifest: Any) -> None:
    """A window of so many nights, all of which measured what this one did; `manifest` are other values of theirs."""
    run = harness.load(night.path)
    where = window_folder(results, device_of(environment()), "nightly")
    for day in range(1, days + 1):
        about = {"run_id": f"day-{day}", "created_at": f"2026-01-0{day}T03:00:00+00:00"}
        keep(replace(run, manifest={**run.manifest, **about, **manifest}), where / f"day-{day}.parquet")


def answers(night: Night) -> dict[tuple[str, str], str]:
    return {(verdict.model, verdict.name): verdict.answer for verdict in night.gate.verdicts}
