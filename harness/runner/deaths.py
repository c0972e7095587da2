"""When a worker process dies: what it was at, which conversations it was playing, and the records left of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.backends.seam import Reply, TurnRequest
from harness.chat import replay
from harness.records import Cell, Failure, TurnRecord
from harness.runner.messages import Event, Job, Loaded, Play, Probed, Warmed


@dataclass(frozen=True, slots=True)
class Death:
    """A worker's death: why, and how many conversations it had finished."""

    failure: Failure
    finished: int


class Stage:
    """How far a worker has come with its job, by what it says."""

    def __init__(self, job: Job) -> None:
        self._loaded = False
        self._warmups = len(job.warmups)
        self._probes = job.probe is not None

    def heard(self, event: Event) -> None:
        match event:
            case Loaded():
                self._loaded = True
            case Warmed():
                self._warmups -= 1
            case Probed():
                self._probes = False

    @property
    def phase(self) -> Literal["load", "warmup", "probe", "measure"]:
        """What it is at."""
        if not self._loaded:
            return "load"
        if self._warmups:
            return "warmup"
        return "probe" if self._probes else "measure"

    @property
    def measures(self) -> bool:
        """Whether it plays the conversations that are measured, or has played them."""
        return self.phase == "measure"


def in_flight(undone: Sequence[Cell], *, together: bool) -> Sequence[Cell]:
    """Who was being played when a worker died: the first of the cells that are not done, and its lane's next ones
    where it plays conversations together."""
    if not undone:
        return []
    first = undone[0]
    lane = (first.sampling, first.repeat, first.concurrency)
    same = [cell for cell in undone if (cell.sampling, cell.repeat, cell.concurrency) == lane]
    return same[: first.concurrency if together else 1]


def failed_turn(play: Play, told: Sequence[TurnRecord], failure: Failure) -> TurnRecord | None:
    """The record of the turn a worker died in: the chat loop played again over the replies it had told.

    None if it had told all of them and died before it could say that the conversation had ended.
    """
    answers: Iterator[Reply] = iter([Reply(text=record.reply, finish_reason=record.finish_reason) for record in told])
    dialog = replay(play.conversation, play.circumstances, play.rules)
    for request in dialog:
        assert isinstance(request, TurnRequest), "the loop asks before it tells"
        answer = next(answers, None)
        record = dialog.send(answer or Reply(failure=failure))
        if answer is None:
            assert isinstance(record, TurnRecord), "the loop tells after it was answered"
            return record
    return None
