"""Models that name their own interpreter: whether each one can run a worker of this harness, asked before anything is
played.

A worker runs the harness of its parent on the libraries of its own interpreter, so that last-good and new versions of
torch or transformers take turns launch by launch within one run: what then differs between two specs of one model is
code and not machine. Parent and worker speak in pickles, which an interpreter with other versions of Python or pydantic
may read as something else – so a job goes there and has to come back equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness.config.schema import ModelSpec
from harness.errors import DocumentError, HarnessError, Mistake
from harness.runner.messages import Checked, Job, Refused
from harness.runner.process import WorkerProcess

_REMEDY = "it needs Python 3.11 or later, and what instruct-harness requires"


def ask(jobs: Sequence[Job], check_first: Sequence[ModelSpec], log: Path) -> dict[str, str]:
    """Ask the interpreters of these jobs, each once, what is wrong with them and with the models to `check_first`, as
    far as they can say without weights; the commits of these models by label. What they write to stderr goes to `log`.

    Raises DocumentError with all that is wrong.
    """
    mistakes: list[Mistake] = []
    commits: dict[str, str] = {}
    for job in {job.spec.python: job for job in jobs}.values():
        look_at = tuple(spec for spec in check_first if spec.python == job.spec.python)
        wrong, found = _asked(replace(job, check_first=look_at, check_only=True), log)
        mistakes += wrong
        commits |= found
    if mistakes:
        raise DocumentError(mistakes)
    return commits


def _asked(job: Job, log: Path) -> tuple[Sequence[Mistake], Mapping[str, str]]:
    subject = f"python: {job.spec.python}"
    try:
        with WorkerProcess(job, log, timeout_s=None) as worker:
            for event in worker.events():
                if isinstance(event, Refused):
                    return event.mistakes, {}
                if isinstance(event, Checked) and event.job == job:
                    return (), event.commits
                return [Mistake(subject, "understands another thing than was said to it", _REMEDY)], {}
            failure = worker.failure("load")
    except HarnessError as error:
        return error.mistakes, {}
    except (AttributeError, ImportError, TypeError, ValueError) as error:  # pickle raises whatever a class does
        return [Mistake(subject, f"says what cannot be understood here: {error}", _REMEDY)], {}
    return [Mistake(subject, f"cannot run a worker: {failure.message}", _REMEDY)], {}
