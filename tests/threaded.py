"""Workers in threads of this process instead of processes of their own: a launch takes milliseconds, for tests of what
is made of launches. What makes a launch fresh, and what happens when one is killed, is for real processes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue

from harness.records import Failure
from harness.runner import worker
from harness.runner.messages import Event, Job


class ThreadedWorker:
    """Stands in for `runner.process.WorkerProcess`."""

    def __init__(self, job: Job, log: Path, timeout_s: float | None) -> None:
        self._job = job
        self._told: SimpleQueue[Event | None] = SimpleQueue()
        self._heard = threading.Semaphore(0)
        self._left = False

    def __enter__(self) -> ThreadedWorker:
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._left = True
        self._heard.release()
        self._thread.join()

    def events(self) -> Iterator[Event]:
        while (event := self._told.get()) is not None:
            yield event
            self._heard.release()

    def failure(self, phase: str) -> Failure:
        return Failure("WorkerDied", phase, "it ended")

    def _work(self) -> None:
        try:
            worker.work(self._job, self._say)
        except InterruptedError:
            pass
        finally:
            self._told.put(None)

    def _say(self, event: Event) -> None:
        self._told.put(event)
        self._heard.acquire()
        if self._left:
            raise InterruptedError
