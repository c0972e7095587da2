"""Votes of people on pairs of replies: the file that the page saves becomes scores beside the judge's.

    {"format": 1, "votes": [{"conversation_id": "…", "turn_index": 0, "preferred": "left",
      "left": {"run_id": "…", "model": "…", "sampling": "…", "concurrency": 1, "launch": 0, "repeat": 0},
      "right": {…}}]}

Votes may come in several files and more than once: a voter's later vote on a pair replaces the earlier one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from harness.analysis.frames import Run
from harness.analysis.preferences import answered, pairs_of
from harness.analysis.scores import REPLY, given
from harness.documents import Document, Problem, Shape, Source, fit, read_document
from harness.errors import DocumentError
from harness.records import Cell, ReplyId, Score
from harness.store import ScoreWriter
from harness.studies.setups import counts, setup_of

_Count = Annotated[int, Field(ge=0)]
_VALUE = {"left": 1.0, "tie": 0.5, "right": 0.0}


class SideShape(Shape):
    """One of the two replies: of which run, setting, launch and repeat."""

    run_id: str
    model: str
    sampling: str
    concurrency: Annotated[int, Field(ge=1)]
    launch: _Count
    repeat: _Count


class VoteShape(Shape):
    """Which of two replies to the same turn somebody preferred."""

    conversation_id: str
    turn_index: _Count
    left: SideShape
    right: SideShape
    preferred: Literal["left", "right", "tie"]


class VotesShape(Shape):
    """A file of votes."""

    format: Literal[1]
    votes: list[VoteShape]


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of the votes of a file."""

    new: int
    replaced: int
    """Of the new ones those that replace an earlier vote of the same voter."""
    there: int
    """Known already, word for word."""
    of_other_runs: int
    """Neither reply is of this run."""


def read_votes(path: Source) -> Document:
    """The file as it stands; raises DocumentError with every mistake in its form."""
    document = read_document(path)
    shape, problems = fit(document.value, VotesShape)
    mistakes = document.mistakes(problems)
    if shape is None or mistakes:
        raise DocumentError(mistakes)
    return document


def take_votes(run: Run, document: Document, voter: str) -> Taken:
    """Store the votes on replies of a run as scores of the scorer `human`.

    Raises DocumentError, and stores none, where votes are about replies that the run does not have.
    """
    votes = VotesShape.model_validate(document.value).votes
    rows = _rows(run, votes)
    mine = {number: vote for number, vote in enumerate(votes) if run.run_id in (vote.left.run_id, vote.right.run_id)}
    problems = [problem for number, vote in mine.items() for problem in _problems(run, number, vote, rows)]
    if problems:
        raise DocumentError(document.mistakes(problems))
    setup = setup_of("human", {}, by=voter)
    with ScoreWriter(run.path) as writer:
        found = given(run, [setup])
        lines = found.lines[found.lines["config_hash"] == setup.config_hash]
        known = dict(zip(pairs_of(run, lines), lines["value"].tolist(), strict=True))
        cast = {}
        for number, vote in mine.items():
            score = _score(run, vote, rows[number], setup.config_hash)
            cast[_key(score)] = score
        fresh = [score for key, score in cast.items() if known.get(key) != score.value]
        opening = [] if counts(found, setup) or not fresh else [setup]
        writer.append([*opening, *fresh])
    replaced = sum(_key(score) in known for score in fresh)
    return Taken(len(fresh), replaced, len(cast) - len(fresh), len(votes) - len(mine))


_Rows = tuple[int, int]
"""Where the left and the right reply stand in `Run.turns`; -1 for one that is none of this run."""
_Key = tuple[Any, ...]


def _rows(run: Run, votes: Sequence[VoteShape]) -> list[_Rows]:
    sides = ([vote.left for vote in votes], [vote.right for vote in votes])
    found = [answered(run, [_named(vote, side) for vote, side in zip(votes, same, strict=True)]) for same in sides]
    mine = [
        [row if side.run_id == run.run_id else -1 for row, side in zip(rows, same, strict=True)]
        for rows, same in zip(found, sides, strict=True)
    ]
    return list(zip(*mine, strict=True))


def _named(vote: VoteShape, side: SideShape) -> tuple[Any, ...]:
    """The reply's name in the order of `REPLY`."""
    place = (vote.conversation_id, vote.turn_index)
    return (side.model, side.sampling, side.concurrency, *place, side.launch, side.repeat)


def _problems(run: Run, number: int, vote: VoteShape, rows: Sequence[_Rows]) -> Iterator[Problem]:
    if vote.left == vote.right:
        yield Problem(("votes", number), "both sides are the same reply")
        return
    for name, row in zip(("left", "right"), rows[number], strict=True):
        side: SideShape = getattr(vote, name)
        if side.run_id == run.run_id and row == -1:
            said = ", ".join(f"{part} {value}" for part, value in zip(REPLY, _named(vote, side), strict=True))
            yield Problem(("votes", number, name), f"{run.run_id} has no such reply: {said}")


def _score(run: Run, vote: VoteShape, rows: _Rows, config_hash: str) -> Score:
    """A vote, the reply of this run – of two the earlier one in its plan – first."""
    value = _VALUE[vote.preferred]
    sides = (vote.left, vote.right)
    if rows[0] == -1 or -1 < rows[1] < rows[0]:
        value, sides, rows = 1 - value, sides[::-1], rows[::-1]
    first, second = (_reply(run, vote, side, row) for side, row in zip(sides, rows, strict=True))
    return Score(config_hash, first, value, against=second)


def _reply(run: Run, vote: VoteShape, side: SideShape, row: int) -> ReplyId:
    cell = Cell(side.model, side.sampling, vote.conversation_id, side.repeat, side.launch, side.concurrency)
    if row == -1:
        return ReplyId(cell, vote.turn_index, run_id=side.run_id)
    return ReplyId(cell, vote.turn_index, int(run.turns["attempt"].iloc[row]))


def _key(score: Score) -> _Key:
    """What a vote is about."""
    against, cell = score.against, score.reply.cell
    assert against is not None, "a vote is about two replies"
    other = against.cell
    first = (cell.model, cell.sampling, cell.concurrency, cell.conversation_id, score.reply.turn_index, cell.launch,
             cell.repeat)  # fmt: skip
    return (*first, against.run_id, other.model, other.sampling, other.concurrency, other.launch, other.repeat)
