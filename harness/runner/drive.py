"""Drives the chat loop with one session: requests are answered one at a time, memory is gauged round each turn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from harness.backends.seam import OnTokens, Session, TurnRequest
from harness.chat import Dialog
from harness.meters.memory import MemoryGauge
from harness.records import TurnRecord


def drive(
    dialog: Dialog, session: Session, gauge: MemoryGauge, on_tokens: OnTokens = lambda ids: None
) -> Iterator[TurnRecord]:
    """Yield the record of every turn. The gauge is reset and read outside the timed part of the turn."""
    gauge.reset()
    for step in dialog:
        assert isinstance(step, TurnRequest), "the loop asks before it tells"
        reply = session.reply(step, on_tokens)
        record = dialog.send(replace(reply, memory=gauge.read()))
        assert isinstance(record, TurnRecord), "the loop tells after it was answered"
        yield record
        gauge.reset()
