"""Drives the chat loop: one conversation with one session, or several that are answered together.

Memory, energy and load are gauged round each turn, outside its timed part, and Python's garbage collector runs
between turns, never in one.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice

from harness.backends.seam import Backend, OnTokens, Session, TurnRequest
from harness.chat import Dialog
from harness.meters.gauges import Gauges
from harness.records import TurnRecord


def drive(
    dialog: Dialog, session: Session, gauges: Gauges, on_tokens: OnTokens = lambda ids: None
) -> Iterator[TurnRecord]:
    """Yield the record of every turn of one conversation."""
    while True:
        with collector_paused():
            gauges.reset()
            request = next(dialog, None)
            if request is None:
                return
            assert isinstance(request, TurnRequest), "the loop asks before it tells"
            reply = session.reply(request, on_tokens)
            seen = gauges.read()
        record = dialog.send(replace(reply, memory=seen.memory, devices=seen.devices, host_load=seen.host_load))
        assert isinstance(record, TurnRecord), "the loop tells after it was answered"
        yield record


@dataclass(frozen=True, slots=True)
class Told:
    """News of one of several conversations: a turn's record, or, without one, that it has ended."""

    index: int
    record: TurnRecord | None


def drive_together(dialogs: Iterable[Dialog], backend: Backend, concurrency: int) -> Iterator[Told]:
    """Play conversations so many at a time, the requests of each step answered together; when one ends the next begins.

    Nothing is gauged: what the process does in a step is no single turn's. Records are told after the whole step, so
    that no stopwatch runs meanwhile.
    """
    waiting = enumerate(dialogs)
    playing: dict[int, tuple[Dialog, Session]] = {}
    while True:
        news: list[Told] = []
        with collector_paused():
            asked = _ask(waiting, playing, backend, concurrency, news)
            replies = backend.reply_many([(playing[index][1], request) for index, request in asked]) if asked else []
        for (index, _), reply in zip(asked, replies, strict=True):
            record = playing[index][0].send(reply)
            assert isinstance(record, TurnRecord), "the loop tells after it was answered"
            news.append(Told(index, record))
        yield from news
        if not asked:
            return


def _ask(
    waiting: Iterator[tuple[int, Dialog]],
    playing: dict[int, tuple[Dialog, Session]],
    backend: Backend,
    concurrency: int,
    news: list[Told],
) -> Sequence[tuple[int, TurnRequest]]:
    """The next request of every conversation in play, new ones taking the places of those that ended."""
    asked: list[tuple[int, TurnRequest]] = []
    fresh = [*playing, *_begin(waiting, playing, backend, concurrency)]
    while fresh:
        for index in fresh:
            request = next(playing[index][0], None)
            if request is None:
                del playing[index]
                news.append(Told(index, None))
            else:
                assert isinstance(request, TurnRequest), "the loop asks before it tells"
                asked.append((index, request))
        fresh = _begin(waiting, playing, backend, concurrency)
    return asked


def _begin(
    waiting: Iterator[tuple[int, Dialog]],
    playing: dict[int, tuple[Dialog, Session]],
    backend: Backend,
    concurrency: int,
) -> list[int]:
    """Fill the free places; returns who has taken one."""
    begun = []
    for index, dialog in islice(waiting, concurrency - len(playing)):
        playing[index] = (dialog, backend.open_session())
        begun.append(index)
    return begun


@contextmanager
def collector_paused() -> Iterator[None]:
    """Python's garbage collector waits outside: a collection takes as long as many a turn of a small model."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
