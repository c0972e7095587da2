"""A worker process: loads one model, plays the conversations of its job, and reports every event as it happens.

One process is one *launch*: a fresh interpreter, one load, all samplings of that launch. Events leave by the original
stdout; file descriptor 1 is then pointed at stderr, so that nothing a library prints can get between them.

After every event the worker waits until the parent has done with it – written the line, drawn the progress – so that
the parent sleeps while a turn is timed. Had both worked at once, the time to the first token of a small model on two
processors would come out some 7 % too long (`benchmarks/test_observer.py`).
"""

from __future__ import annotations

import gc
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from harness.backends.open import open_backend, preview
from harness.backends.seam import Backend
from harness.chat import Dialog, replay
from harness.config.schema import ModelSpec
from harness.errors import HarnessError, Mistake, UsageError
from harness.meters.accelerators import open_nvml
from harness.meters.environment import interpreter
from harness.meters.processors import allowed_processors, keep_to
from harness.meters.sampler import Sampler
from harness.records import Failure, Message, TurnRecord
from harness.runner.drive import Told, drive, drive_together
from harness.runner.forcing import by_play, force
from harness.runner.messages import (
    Alive,
    CellDone,
    Checked,
    Event,
    ForcedTurn,
    Job,
    Loaded,
    LoadFailed,
    Pinned,
    Play,
    Refused,
    Sampled,
    TurnDone,
    at_commit,
    commits_of,
)
from harness.runner.order import lanes, unbatchable, warm_up
from harness.runner.probe import probe

Say = Callable[[Event], None]


def main() -> None:
    events = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    job: Job = pickle.load(sys.stdin.buffer)  # noqa: S301 – our own parent wrote it
    heard = threading.Semaphore(0)
    threading.Thread(target=_listen, args=(sys.stdin.buffer, heard), daemon=True).start()

    def say(event: Event) -> None:
        pickle.dump(event, events)
        events.flush()
        heard.acquire()

    work(job, say)


def work(job: Job, say: Say) -> None:
    """Do a job in this process."""
    if job.cpu_affinity is not None:
        why_not = keep_to(job.cpu_affinity)  # before any library counts the processors it has
        if why_not is not None:
            say(Refused((why_not,)))
            return
    mistakes, commits = _check(job)
    if mistakes:
        say(Refused(mistakes))
        return
    if job.check_only:
        say(Checked(job, commits))
        return
    if commits:
        say(Pinned(commits))
    try:
        backend = open_backend(
            at_commit(job.spec, commits),
            chat_format=job.chat_format,
            template_now=job.template_now,
            threads=job.threads,
        )
        length = job.every_play[0].circumstances.length
        effective = {name: backend.effective(sampling, length) for name, sampling in job.samplings.items()}
        if mistake := _unbatchable(job, job.spec, backend.why_not_together):
            raise UsageError(mistake.subject, mistake.fact, mistake.remedy)
    except HarnessError as error:
        say(LoadFailed(Failure(type(error).__name__, "load", str(error))))
        return
    gc.freeze()  # what loading left behind is not looked through at every collection between turns
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch is not None else None
    say(Loaded(backend.report, effective, threads, allowed_processors(), backend.why_not_together, interpreter()))
    played = _play(job, backend, say)
    if job.force is not None:
        for forced in force(backend, job.force, played):
            say(ForcedTurn(forced))


def _play(job: Job, backend: Backend, say: Say) -> list[tuple[Play, list[TurnRecord]]]:
    """Warm up, probe, and play; returns the plays whose replies may be forced, with their records."""
    played: list[tuple[Play, list[TurnRecord]]] = []
    with _sampled(job, backend, say) as say_more:
        player = _Player(backend, say_more)
        for play in job.warmups:
            say_more(warm_up(play, job.warmup_passes, player.play))
        if job.probe is not None:
            say_more(probe(backend, job.probe, lambda: say_more(Alive())))
        for lane in lanes(job.plays):
            told = player.play(lane)
            if job.force is not None and lane[0].circumstances.cell.repeat == 0:
                played += by_play(lane, told)
    return played


@contextmanager
def _sampled(job: Job, backend: Backend, say: Say) -> Iterator[Say]:
    """`say`, with what the background sampler saw said after every turn, where the job wants one to run.

    Samples wait for the turn to end, so that nobody else wakes while it is timed and a worker that hangs stays silent.
    """
    if job.sample_devices_s is None or not job.plays:
        yield say
        return
    cell, devices = job.plays[0].circumstances.cell, backend.gauges.devices
    sampler = Sampler(job.sample_devices_s, cell.model, cell.launch, devices, open_nvml() if devices else None)

    def say_both(event: Event) -> None:
        say(event)
        if isinstance(event, TurnDone):
            say(Sampled(*sampler.drain()))

    with sampler:
        yield say_both


def _check(job: Job) -> tuple[tuple[Mistake, ...], dict[str, str]]:
    """What is wrong with the models of the run, as far as their tokenizers and configs tell; and their commits."""
    first = job.every_play[0]
    mistakes: list[Mistake] = []
    commits: dict[str, str] = {}
    for spec in job.check_first:
        try:
            seen = preview(
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
            continue
        commits |= commits_of(spec, seen.commits)
        if mistake := _unbatchable(job, spec, seen.why_not_together):
            mistakes.append(mistake)
    return tuple(mistakes), commits


def _unbatchable(job: Job, spec: ModelSpec, why_not_together: str | None) -> Mistake | None:
    """What is wrong with a model that was to play conversations together, cannot, and may not play them in turn."""
    together = max(play.circumstances.cell.concurrency for play in job.every_play)
    if together == 1 or why_not_together is None or job.sequential_if_unbatchable:
        return None
    return unbatchable(spec, together, why_not_together)


class _Player:
    """Plays conversations with a loaded model, one after the other or several at a time."""

    def __init__(self, backend: Backend, say: Say) -> None:
        self._backend = backend
        self._say = say
        self._together = backend.why_not_together is None

    def play(self, lane: Sequence[Play]) -> list[TurnRecord]:
        """Play the conversations of a lane, reporting every turn and the end of every measured conversation."""
        concurrency = lane[0].circumstances.cell.concurrency
        dialogs = [replay(play.conversation, play.circumstances, play.rules) for play in lane]
        if concurrency > 1 and self._together:
            news = drive_together(dialogs, self._backend, concurrency)
        else:
            news = self._in_turn(dialogs)
        told = []
        for index, record in ((one.index, one.record) for one in news):
            if record is not None:
                self._say(TurnDone(record))
                told.append(record)
            elif lane[index].circumstances.phase == "measure":
                self._say(CellDone(lane[index].circumstances.cell))
        return told

    def _in_turn(self, dialogs: Sequence[Dialog]) -> Iterator[Told]:
        for index, dialog in enumerate(dialogs):
            for record in drive(dialog, self._backend.open_session(), self._backend.gauges):
                yield Told(index, record)
            yield Told(index, None)


def _listen(stdin: BinaryIO, heard: threading.Semaphore) -> None:
    """Pass on every byte of the parent; when it has closed its end it is gone, however it went, and so is this."""
    while stdin.read(1):
        heard.release()
    os._exit(1)


if __name__ == "__main__":
    main()
