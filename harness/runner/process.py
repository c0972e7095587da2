"""A worker process as its parent sees it: started with a job, read until it ends, killed when it must be.

The parent blocks on the pipe; it never polls, and the worker waits for it after every event, so it takes no processor
time while a turn is being measured. Only a worker that stays silent far beyond the time-out of a turn is killed, by a
timer that sleeps until then.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import cast

import harness
from harness.errors import UsageError
from harness.records import Failure
from harness.runner.messages import Event, Job, Loaded

_LAST_WORDS_BYTES = 2000


class WorkerProcess:
    """One launch of one model. Use it as a context manager: at the end the process is gone, however the block ended."""

    def __init__(self, job: Job, log: Path, timeout_s: float | None) -> None:
        self._log = log.open("ab")
        self._log_start = self._log.tell()
        self._silence_limit_s = None if timeout_s is None else 2 * timeout_s + 10
        self._hung = False
        command, variables = _worker(job.spec.python)
        try:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **variables},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                start_new_session=True,  # Ctrl-C is for the parent, which ends the worker in its own time
            )
        except OSError as error:
            self._log.close()
            raise UsageError(f"python: {command[0]}", f"cannot be started: {error.strerror}") from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        with suppress(BrokenPipeError):  # if it died at once, `events` and `failure` tell
            pickle.dump(job, self._stdin)
            self._stdin.flush()

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait()
        self._stdout.close()
        with suppress(BrokenPipeError):  # closing flushes what a dead worker never read
            self._stdin.close()
        self._log.close()

    def events(self) -> Iterator[Event]:
        """What the worker says, until it ends. It goes on when the next event is asked for."""
        loaded = False
        while True:
            # Loading may download for hours; only turns have a time-out.
            timer = self._kill_later() if loaded and self._silence_limit_s is not None else None
            try:
                event = cast("Event", pickle.load(self._stdout))  # noqa: S301 – our own worker wrote it
            except (EOFError, pickle.UnpicklingError):  # it ended, perhaps in the middle of a word
                return
            finally:
                if timer is not None:
                    timer.cancel()
            loaded = loaded or isinstance(event, Loaded)
            yield event
            with suppress(BrokenPipeError):  # it has ended meanwhile, which the next read will tell
                self._stdin.write(b".")
                self._stdin.flush()

    def failure(self, phase: str) -> Failure:
        """Why the worker ended, in this phase, without finishing its work."""
        code = self._process.wait()
        if self._hung:
            return Failure("Timeout", phase, f"no sign of life for {self._silence_limit_s:g} s; the worker was killed")
        if code < 0:
            hint = " (out of memory?)" if -code == signal.SIGKILL else ""
            return Failure("WorkerDied", phase, f"killed by {signal.Signals(-code).name}{hint}")
        return Failure("WorkerDied", phase, f"exit code {code}: {self._last_words()}")

    def _kill_later(self) -> threading.Timer:
        timer = threading.Timer(self._silence_limit_s or 0, self._kill_hung)
        timer.daemon = True
        timer.start()
        return timer

    def _kill_hung(self) -> None:
        self._hung = True
        self._process.kill()

    def _last_words(self) -> str:
        """The last line of this worker's stderr."""
        with open(self._log.name, "rb") as log:
            log.seek(self._log_start)
            lines = log.read()[-_LAST_WORDS_BYTES:].decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


_THIS_HARNESS = """
import sys
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("harness", sys.argv[1] + "/__init__.py", submodule_search_locations=[sys.argv[1]])
sys.modules["harness"] = module_from_spec(spec)
spec.loader.exec_module(sys.modules["harness"])
from harness.runner.worker import main
main()
"""
"""Imports the package from a folder without what lies beside it, which may be all libraries of its parent."""


def _worker(python: str | None) -> tuple[list[str], dict[str, str]]:
    """The command of a worker and its variables: whatever its interpreter, it runs the harness that its parent runs,
    from wherever that was imported. Another interpreter imports everything else from its own place.

    -P: a random.py in the working directory must not be taken for the standard library's.
    """
    package = Path(harness.__file__).parent
    if python is not None:
        return [python, "-P", "-c", _THIS_HARNESS, str(package)], {}
    path = os.pathsep.join([str(package.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    return [sys.executable, "-P", "-m", "harness.runner.worker"], {"PYTHONPATH": path}
