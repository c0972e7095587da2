"""What measuring costs on this machine: per id, per turn, and how fine the clock is.

Every part is run in turn with the same loop without it, and the median of the differences is its cost. Two of them lie
within a measured time – the ticks, and the stamps of a turn – and are in every number this harness reports; the others
happen between turns, where they cost patience and nothing else.
"""

from __future__ import annotations

import gc
import os
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median

from harness.backends.scripted import Recital, ScriptedBackend
from harness.backends.seam import Reply, TurnRequest
from harness.chat import Rules, replay
from harness.conversations.script import Conversation, Turn
from harness.meters.clock import Stopwatch, real_clock
from harness.records import Cell, Circumstances, TurnRecord
from harness.runner.drive import collector_paused, drive
from harness.runner.messages import TurnDone
from harness.store import create

IDS = 64
"""Of the reply that all costs per turn are those of."""
_TICKS = 1000
_CLOCK_READS = 20_000
_ROUNDS = 101
"""Short ones, so that the median is one in which nothing else happened."""


@dataclass(frozen=True, slots=True)
class ClockFacts:
    """The clock that all stamps come from."""

    name: str
    declared_resolution_s: float
    smallest_step_s: float
    """Smallest difference seen between two readings that were not the same."""
    reading_s: float
    """What it takes to read it."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one part of measuring takes."""

    part: str
    per: str
    """An id, or a turn of `IDS` ids."""
    seconds: float
    in_measured_time: bool
    """Whether it is part of the numbers that are reported."""


def clock_facts() -> ClockFacts:
    """Look at the clock; the implementation is the one Python chose on this system."""
    readings = [real_clock() for _ in range(_CLOCK_READS)]
    info = time.get_clock_info("perf_counter")
    steps = [later - earlier for earlier, later in pairwise(readings) if later > earlier]
    return ClockFacts(
        name=f"{real_clock.__name__}, {info.implementation}",
        declared_resolution_s=info.resolution,
        smallest_step_s=min(steps) / 1e9,
        reading_s=(readings[-1] - readings[0]) / (_CLOCK_READS - 1) / 1e9,
    )


def meter_costs(folder: Path) -> tuple[Cost, ...]:
    """Measure every part. `folder` is where a run is made to append to: on the disk that runs are kept on."""
    conversation = Conversation("cost", (Turn("What does this cost?"),))
    circumstances = Circumstances(Cell("idle", "default", "cost", 0, 0), "generated", "natural", "generate", "reuse")
    backend = ScriptedBackend(Recital(lines=[" ".join(f"word{number}" for number in range(IDS))]))
    rules = Rules(sampling={})

    def dialog_answered(reply: Reply) -> TurnRecord:
        dialog = replay(conversation, circumstances, rules)
        next(dialog)
        record = dialog.send(reply)
        assert isinstance(record, TurnRecord), "the loop tells after it was answered"
        return record

    request = next(replay(conversation, circumstances, rules))
    assert isinstance(request, TurnRequest), "the loop asks before it tells"
    session = backend.open_session()

    def answer() -> Reply:
        return session.reply(replace(request, stopwatch=Stopwatch()), lambda ids: None)

    reply = answer()
    (record,) = drive(replay(conversation, circumstances, rules), session, backend.gauges)

    def gauges() -> None:
        backend.gauges.reset()
        backend.gauges.read()

    def collector() -> None:
        with collector_paused():
            pass

    with create(folder, "cost", {}) as writer, _pipe() as through, as_in_a_worker():

        def whole() -> None:
            for told in drive(replay(conversation, circumstances, rules), session, backend.gauges):
                writer.append(through(told))

        def synced() -> None:
            writer.append(record)
            writer.sync()

        per_turn: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "stamps": (_stamps, _nothing),
            "gauges reset and read": (gauges, _nothing),
            "garbage collected before, not during": (collector, _nothing),
            "request and record": (lambda: dialog_answered(reply), _nothing),
            "record through the pipe": (lambda: through(record), _nothing),
            "line appended": (lambda: writer.append(record), _nothing),
            "all of it, beyond the bare reply": (whole, answer),
            # Last: the disk is busy with it for a while.
            "line synced to disk (once per conversation)": (synced, lambda: writer.append(record)),
        }
        costs = [Cost("tick", "id", _difference(_ticks, _no_ticks) / _TICKS, in_measured_time=True)]
        costs += [
            Cost(part, "turn", _difference(with_it, without), in_measured_time=part == "stamps")
            for part, (with_it, without) in per_turn.items()
        ]
    return tuple(costs)


def _difference(with_it: Callable[[], object], without: Callable[[], object]) -> float:
    """Seconds by which `with_it` takes longer: the median over rounds in which both take turns."""
    differences = [_seconds(with_it) - _seconds(without) for _ in range(_ROUNDS)]
    return median(differences)


def _seconds(call: Callable[[], object]) -> float:
    start = real_clock()
    call()
    return (real_clock() - start) / 1e9


def _ticks() -> None:
    watch = Stopwatch()
    for _ in range(_TICKS):
        watch.tick(1)


def _no_ticks() -> None:
    Stopwatch()
    for _ in range(_TICKS):
        pass


def _stamps() -> None:
    watch = Stopwatch()
    watch.templated()
    watch.tokenized()
    watch.generated()
    watch.ready()


def _nothing() -> None:
    pass


@contextmanager
def _pipe() -> Iterator[Callable[[TurnRecord], TurnRecord]]:
    """Sends a record through a pipe as a worker does, and takes it out again at once: it fits into the pipe."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as out, os.fdopen(writing, "wb") as into:

        def through(record: TurnRecord) -> TurnRecord:
            pickle.dump(TurnDone(record), into)
            into.flush()
            told: TurnDone = pickle.load(out)  # noqa: S301 – written two lines above
            return told.record

        yield through


@contextmanager
def as_in_a_worker() -> Iterator[None]:
    """What was imported before is not looked through at every collection, as in a worker after its load."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
