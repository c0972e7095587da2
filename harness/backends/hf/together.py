"""What the engines that answer several conversations at once have in common: who can be answered, and their rows."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.backends.failures import failure_of
from harness.backends.hf.generate import free_memory, synchronize
from harness.backends.hf.session import HfSession, OpenTurn
from harness.backends.hf.settings import Settled
from harness.backends.seam import OnTokens, Reply, TurnRequest
from harness.records import Failure

Asked = Sequence[tuple[HfSession, TurnRequest, OnTokens]]


@dataclass(slots=True)
class Row:
    """One conversation among those that are answered together: its turn, and what has become of it."""

    session: HfSession
    turn: OpenTurn
    on_tokens: OnTokens
    failure: Failure | None = None
    reply: Reply | None = None

    @property
    def open(self) -> bool:
        return self.failure is None and self.reply is None

    def fail(self, error: Exception) -> None:
        self.failure = failure_of(error, self.turn.phase)


def answer_rows(
    asked: Asked, settled: Callable[[Any, Any], Settled], answer: Callable[[Sequence[Row]], None]
) -> list[Reply]:
    """Prepare the prompts of all rows, one after the other, let `answer` answer those that have room for a reply, and
    collect the replies.

    All ask for the same sampling and length; `settled` merges their settings. What goes wrong in a row is in its reply
    and does not touch the others; `answer` raises for what goes wrong in all that are still open. Raises UsageError
    for a sampling that cannot be carried out at all.
    """
    rows = [Row(session, OpenTurn(req, settled(req.sampling, req.length)), on) for session, req, on in asked]
    assert all(row.turn.settled is rows[0].turn.settled for row in rows), "a batch is of one sampling and length"
    for row in rows:
        _prepare(row)
    if still_open := [row for row in rows if row.open]:
        try:
            answer(still_open)
        except Exception as error:  # noqa: BLE001 - it was for all that had not ended yet
            for row in still_open:
                if row.open:
                    row.fail(error)
    if any(row.failure is not None and row.failure.kind == "OutOfMemory" for row in rows):
        gc.collect()  # only here has the traceback let go of the tensors it held
        free_memory()
    synchronize()  # what this step left on the device is no business of the next one's stopwatches
    return [row.reply or Reply(failure=row.failure, **row.turn.facts) for row in rows]


def _prepare(row: Row) -> None:
    try:
        row.session.prepare(row.turn)
        if row.turn.room == 0:
            row.reply = row.session.nothing(row.turn)
    except Exception as error:  # noqa: BLE001 - whatever happens inside a turn is that turn's failure
        row.fail(error)
