"""The questions a judge is to be asked about a run: one per reply, or one per pair of replies and order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.analysis.frames import Run
from harness.analysis.scores import given
from harness.analysis.scoring.said import Said, said
from harness.analysis.sides import Pair
from harness.config.plan import conversation_digest
from harness.conversations.load import load_conversations
from harness.conversations.script import Rubric
from harness.documents import Source
from harness.errors import DocumentError, Mistake, UsageError
from harness.records import Message, ReplyId, short_hash
from harness.studies.judging.prompts import DEFAULT_RUBRIC, SYSTEM, pair, single
from harness.studies.judging.verdicts import Kind

Rubrics = Mapping[tuple[str, int], Rubric]
"""By (conversation, turn)."""


@dataclass(frozen=True, slots=True)
class Question:
    """One thing to ask of a judge, once per trial."""

    scorer: str
    kind: Kind
    row: int
    """The reply's place in `Run.turns`; that of the reply it is held against, or -1, is"""
    other: int
    reply: ReplyId
    against: ReplyId | None
    swapped: bool
    rubric: Rubric
    text: str | None
    """None: both replies end the very same conversation, and nobody needs to be asked."""

    @property
    def asked(self) -> str | None:
        """Stands for the question, word by word: equal questions are asked once."""
        return None if self.text is None else short_hash(f"{SYSTEM}\n{self.text}".encode())


def rubrics_of(run: Run, files: Sequence[Source] = ()) -> Rubrics:
    """The rubrics that the run was stored with, those of its conversations in `files` in their place.

    Raises DocumentError for a faulty file, and where a conversation has changed since the run.
    """
    found: dict[tuple[str, int], Rubric] = {}
    plan = {conversation["id"]: conversation for conversation in run.plan["conversations"]}
    for name, conversation in plan.items():
        # The first versions stored none.
        stored = conversation.get("rubrics") or [None] * len(conversation["turns"])
        for turn, rubric in zip(conversation["turns"], stored, strict=True):
            found[name, turn] = Rubric(**rubric) if rubric else DEFAULT_RUBRIC
    mistakes = []
    for conversation in load_conversations(files) if files else ():
        if conversation.id not in plan:
            continue
        if plan[conversation.id].get("digest") != conversation_digest(conversation):
            fact = "has changed since the run, by more than its rubrics"
            mistakes.append(Mistake(f"{conversation.source}: {conversation.id}", fact, "give it as it was then"))
        for turn in plan[conversation.id]["turns"]:
            if turn < len(conversation.turns):
                rubric = conversation.turns[turn].rubric or conversation.rubric or DEFAULT_RUBRIC
                found[conversation.id, turn] = rubric
    if mistakes:
        raise DocumentError(mistakes)
    return found


def about_replies(run: Run, rubrics: Rubrics) -> Iterator[Question]:
    """A question about every reply. Raises UsageError under `history: fill`."""
    for one in _judgeable(run):
        rubric = rubrics[one.id.cell.conversation_id, one.id.turn_index]
        scorer = "judge_pass" if rubric.verdict == "pass" else "judge_score"
        text = single(rubric, _conversation(one))
        yield Question(scorer, rubric.verdict, one.row, -1, one.id, None, False, rubric, text)


def about_pairs(run: Run, rubrics: Rubrics, pairs: Iterable[Pair]) -> Iterator[Question]:
    """Two questions, one for each order, about the replies of two settings to the same turn in the same launch and
    repeat, for every pair of settings. Raises UsageError under `history: fill`."""
    by_setting: dict[tuple[object, ...], dict[tuple[object, ...], Said]] = {}
    for one in _judgeable(run):
        cell = one.id.cell
        place = (cell.conversation_id, one.id.turn_index, cell.launch, cell.repeat)
        by_setting.setdefault((cell.model, cell.sampling, cell.concurrency), {})[place] = one
    for baseline, candidate in pairs:
        (first,), (second,) = baseline.settings, candidate.settings
        others = by_setting.get(second, {})
        for turn, one in by_setting.get(first, {}).items():
            if turn in others:
                yield from _both_orders(one, others[turn], rubrics)


def about_votes(run: Run, rubrics: Rubrics) -> Iterator[Question]:
    """The same about the pairs of replies of this run that people voted on: what agreement is counted over."""
    lines = given(run).lines
    votes = lines[(lines["scorer"] == "human") & (lines["other"] >= 0)]
    by_row = {one.row: one for one in _judgeable(run)}
    for row, other in dict.fromkeys(zip(votes["row"].tolist(), votes["other"].tolist(), strict=True)):
        yield from _both_orders(by_row[row], by_row[other], rubrics)


def _both_orders(base: Said, one: Said, rubrics: Rubrics) -> Iterator[Question]:
    rubric = rubrics[base.id.cell.conversation_id, base.id.turn_index]
    shown = _conversation(base), _conversation(one)
    for swapped in (False, True):
        text = None if shown[0] == shown[1] else pair(rubric, *(shown[::-1] if swapped else shown))
        yield Question("judge_pair", "pair", base.row, one.row, base.id, one.id, swapped, rubric, text)


def _judgeable(run: Run) -> Iterator[Said]:
    if run.plan["history"] == "fill":
        remedy = "judge a run with history: generated or scripted"
        raise UsageError(run.run_id, "history: fill stores only the turns it generated, not what they answer", remedy)
    return said(run)


def _conversation(one: Said) -> tuple[Message, ...]:
    return (*one.before, Message("user", one.user), Message("assistant", one.reply))
