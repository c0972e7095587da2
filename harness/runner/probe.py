"""Does a model compute alike every time? The same conversation, greedily, twice: equal to the bit, or where not.

It says what to make of a changed reply: on a machine that computes alike every time any difference has a cause. Ids
are those of two plays; log-probabilities, in which a difference shows before it becomes another id, are those of the
replies forced twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import TypeVar

from harness.backends.seam import Backend
from harness.chat import replay
from harness.forced import ForcedReply, recite
from harness.records import TurnRecord
from harness.runner.drive import drive
from harness.runner.forcing import own
from harness.runner.messages import Play, Probed

NO_IDS = "the texts are equal; a server tells no ids"
_Turn = TypeVar("_Turn")


def probe(backend: Backend, play: Play, alive: Callable[[], None]) -> Probed:
    """Play a conversation twice, and say its replies again twice; `alive` is called after every turn."""
    one, other = (_played(backend, play, alive) for _ in range(2))
    failed = next((record.failure for record in (*one, *other) if record.failure is not None), None)
    if failed is not None:
        return Probed(None, f"a turn failed: {failed.kind}: {failed.message}", 0, 0)
    tokens = 0
    for ours, theirs in zip_longest(one, other):
        if (what := _unlike(ours, theirs)) is not None:
            return Probed(False, f"turn {(ours or theirs).turn_index}: another {what}", len(one), tokens)
        assert ours is not None and theirs is not None, "they are not unlike"  # noqa: PT018
        at = _first_difference(ours.completion_ids, theirs.completion_ids)
        if at is not None:
            said = " then ".join(_at(ids, at) for ids in (ours.completion_ids, theirs.completion_ids))
            return Probed(False, f"turn {ours.turn_index}, id {at}: {said}", len(one), tokens + at)
        tokens += len(ours.completion_ids)
    for first, second in zip(*(_forced(backend, play, one, alive) for _ in range(2)), strict=True):
        why_not = first.why_not or second.why_not
        if why_not is not None:
            return Probed(None, f"the ids are equal; no log-probabilities: {why_not}", len(one), tokens)
        at = _first_difference(first.logprobs, second.logprobs)
        if at is not None:
            by = abs(first.logprobs[at] - second.logprobs[at])
            where = f"turn {first.turn_index}, id {at}"
            return Probed(False, f"{where}: equal ids, a log-probability differs by {by:.2g}", len(one), tokens)
    no_ids = not tokens and any(record.completion_tokens for record in one)
    return Probed(None if no_ids else True, NO_IDS if no_ids else None, len(one), tokens)


def _unlike(ours: TurnRecord | None, theirs: TurnRecord | None) -> str | None:
    """What of two turns is another thing altogether; None where their ids are to be compared."""
    if ours is None or theirs is None or ours.prompt_hash != theirs.prompt_hash:
        return "prompt"
    return "reply" if not ours.completion_ids and ours.reply != theirs.reply else None


def _played(backend: Backend, play: Play, alive: Callable[[], None]) -> Sequence[TurnRecord]:
    dialog = replay(play.conversation, play.circumstances, play.rules)
    return list(_told(drive(dialog, backend.open_session(), backend.gauges), alive))


def _forced(
    backend: Backend, play: Play, records: Sequence[TurnRecord], alive: Callable[[], None]
) -> Sequence[ForcedReply]:
    known = own(records, run_id="")
    session = backend.open_session()
    every = recite(known, play.conversation, play.circumstances, play.rules, session, wanted=lambda said: True)
    return list(_told(every, alive))


def _told(turns: Iterable[_Turn], alive: Callable[[], None]) -> Iterator[_Turn]:
    for turn in turns:
        alive()
        yield turn


def _first_difference(one: Sequence[float], other: Sequence[float]) -> int | None:
    """Where two sequences differ first, the end of one counting as something else; None where they are equal."""
    pairs = enumerate(zip_longest(one, other))
    return next((at for at, (ours, theirs) in pairs if ours != theirs), None)


def _at(ids: Sequence[int], at: int) -> str:
    return str(ids[at]) if at < len(ids) else "the end"
