"""A worker process: loads one model, plays the conversations of its job, and reports every event as it happens.

One process is one *launch*: a fresh interpreter, one load, all samplings of that launch. Events leave by the original
stdout; file descriptor 1 is then pointed at stderr, so that nothing a library prints can get between them. A thread
that waits for the parent's end of stdin to close ends the process when the parent is gone, however it went.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
from collections.abc import Callable
from typing import BinaryIO

from harness.backends.open import open_backend, preview
from harness.backends.seam import Backend
from harness.chat import replay
from harness.errors import HarnessError, Mistake
from harness.records import Failure, Message
from harness.runner.drive import drive
from harness.runner.messages import CellDone, Event, Job, Loaded, LoadFailed, Play, Refused, TurnDone

Say = Callable[[Event], None]


def main() -> None:
    events = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    job: Job = pickle.load(sys.stdin.buffer)  # noqa: S301 – our own parent wrote it
    threading.Thread(target=_end_with_parent, args=(sys.stdin.buffer,), daemon=True).start()

    def say(event: Event) -> None:
        pickle.dump(event, events)
        events.flush()

    work(job, say)


def work(job: Job, say: Say) -> None:
    """Do a job in this process."""
    if mistakes := _check(job):
        say(Refused(mistakes))
        return
    try:
        backend = open_backend(job.spec, chat_format=job.chat_format, template_now=job.template_now)
        length = job.plays[0].circumstances.length
        effective = {name: backend.effective(sampling, length) for name, sampling in job.samplings.items()}
    except HarnessError as error:
        say(LoadFailed(Failure(type(error).__name__, "load", str(error))))
        return
    torch = sys.modules.get("torch")
    say(Loaded(backend.report, effective, torch.get_num_threads() if torch is not None else None))
    for play in (*job.warmups, *job.plays):
        _play(play, backend, say)


def _check(job: Job) -> tuple[Mistake, ...]:
    """What is wrong with the models of the run, as far as their tokenizers and configs tell."""
    first = job.plays[0]
    mistakes: list[Mistake] = []
    for spec in job.check_first:
        try:
            preview(
                spec,
                samplings=job.samplings,
                length=first.circumstances.length,
                messages=(*first.conversation.opening(), Message("user", first.conversation.turns[0].user)),
                persona=first.conversation.persona,
                chat_format=job.chat_format,
                template_now=job.template_now,
            )
        except HarnessError as error:
            mistakes += error.mistakes
    return tuple(mistakes)


def _play(play: Play, backend: Backend, say: Say) -> None:
    dialog = replay(play.conversation, play.circumstances, play.rules)
    for record in drive(dialog, backend.open_session(), backend.gauge):
        say(TurnDone(record))
    if play.circumstances.phase == "measure":
        say(CellDone(play.circumstances.cell))


def _end_with_parent(stdin: BinaryIO) -> None:
    stdin.read()  # returns only when the parent has closed its end
    os._exit(1)


if __name__ == "__main__":
    main()
