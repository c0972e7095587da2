"""A worker without a process of its own: importing torch anew for every launch takes longer than all the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.runner.worker import work


class InThisProcess:
    """Stands in for `harness.runner.process.WorkerProcess`; the process it shares outlives it, so it cannot die."""

    def __init__(self, job: Any, log: Path, timeout_s: float | None) -> None:
        self._job = job

    def __enter__(self) -> InThisProcess:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def events(self) -> list[Any]:
        said: list[Any] = []
        work(self._job, said.append)
        return said
