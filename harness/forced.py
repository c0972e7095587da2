"""What was said is said once more: how likely a model finds replies that are known, id by id.

Greedy text jumps – one id that was nearly a tie turns out the other way, and everything after it is different – while
the log-probabilities of a text that is held fixed move smoothly with the model. So a reply of an earlier run is
*forced* on the model of today: its prompt is made, its ids are put after it, and one forward tells how likely each was.

`recite` plays the conversation by the one chat loop, its known replies taking the place of the model's, so a prompt is
the same, id by id, as it was when the reply was given. Nothing here is timed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from harness.backends.seam import Forced, Reply, Session, TurnRequest
from harness.chat import Rules, replay
from harness.conversations.script import Conversation
from harness.records import Cell, Circumstances, FinishReason, TurnRecord


@dataclass(frozen=True, slots=True)
class Said:
    """A reply that is known, as far as it is needed to go on from it and to say it again."""

    turn_index: int
    reply: str | None
    """The text that was fed on under `history: generated`."""
    finish_reason: FinishReason | None
    ids: tuple[int, ...]
    prompt_hash: str | None
    """Of the prompt it was given to."""

    @classmethod
    def in_record(cls, record: TurnRecord) -> Said:
        """The reply that a record tells of."""
        return cls(record.turn_index, record.reply, record.finish_reason, record.completion_ids, record.prompt_hash)


@dataclass(frozen=True, slots=True)
class Known:
    """A conversation whose replies are known: those that a greedy setting of a run gave to it."""

    of: str
    """The run's id."""
    model: str
    sampling: str
    concurrency: int
    conversation_id: str
    replies: tuple[Said, ...]
    """In the order of the turns, from the first one that was generated, without a gap."""

    @property
    def cell(self) -> Cell:
        """The cell of the present run that has these replies forced on it: repeat 0 of launch 0."""
        return Cell(self.model, self.sampling, self.conversation_id, 0, 0, self.concurrency)


@dataclass(frozen=True, slots=True)
class ForcedReply:
    """What came of forcing one reply; a line of forced.jsonl. Logarithms are natural."""

    cell: Cell
    """Of this run: repeat 0 of launch 0."""
    turn_index: int
    of: str
    """The run that gave the reply."""
    ids: tuple[int, ...]
    prompt_hash: str | None
    """Of the prompt that the ids were put after; None where it could not be made."""
    logprobs: tuple[float, ...] = ()
    """Of each id, given all before it."""
    best: tuple[int, ...] = ()
    """The likeliest other id in each place."""
    margins: tuple[float, ...] = ()
    """The log-probability of each id minus that of the likeliest other: below 0 where the model would rather have said
    the other."""
    why_not: str | None = None
    """Why there are no log-probabilities; None where there are."""


def recite(
    known: Known,
    conversation: Conversation,
    circumstances: Circumstances,
    rules: Rules,
    session: Session,
    *,
    wanted: Callable[[Said], bool],
) -> Iterator[ForcedReply]:
    """Say the known replies of a conversation again, and tell of the `wanted` ones how likely they were.

    Every wanted reply is told of; what cannot be forced, by `why_not`.
    """
    left = {said.turn_index: said for said in known.replies}
    dialog = replay(conversation, circumstances, rules)
    for request in dialog:
        assert isinstance(request, TurnRequest), "the loop asks before it tells"
        said = left.pop(request.turn_index, None)
        if said is None:  # the conversation had ended here
            break
        if said.ids and wanted(said):
            yield _line(known, said, session.force(request, said.ids))
        dialog.send(Reply(text=said.reply, finish_reason=said.finish_reason))
    for said in left.values():
        if said.ids and wanted(said):
            yield _line(known, said, Forced(why_not="the conversation does not come to this turn any more"))


def _line(known: Known, said: Said, found: Forced) -> ForcedReply:
    return ForcedReply(
        cell=known.cell,
        turn_index=said.turn_index,
        of=known.of,
        ids=said.ids,
        prompt_hash=found.prompt_hash,
        logprobs=found.logprobs,
        best=found.best,
        margins=found.margins,
        why_not=found.why_not,
    )
