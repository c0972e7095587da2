"""MultiChallenge: a given history and one last turn, with a question that a judge answers about the reply.

    {"QUESTION_ID": "…", "AXIS": "INFERENCE_MEMORY", "CONVERSATION": [{"role": "user", "content": "…"}, …],
     "TARGET_QUESTION": "…?", "PASS_CRITERIA": "YES"}

The axis becomes a tag, the assistant's messages gold replies: `history: fill` asks for the last reply only. The
question becomes the rubric of the last turn, for `harness score --judge`.
"""

from __future__ import annotations

from dataclasses import replace

from harness.conversations.importing.draft import Draft, each, named, tags_of
from harness.conversations.importing.ledger import CannotSayError, Ledger
from harness.conversations.importing.messages import clean, said, talk
from harness.conversations.importing.records import Record

_READ = {"QUESTION_ID", "AXIS", "CONVERSATION", "TARGET_QUESTION", "PASS_CRITERIA"}


def _challenge(record: Record, ledger: Ledger) -> Draft:
    value = record.value
    if not isinstance(value, dict):
        raise CannotSayError("a record that is no conversation")
    ledger.pass_over(value.keys() - _READ)
    system, turns = talk(said(value.get("CONVERSATION"), record.line, ledger), record.line, ledger)
    question, criteria = value.get("TARGET_QUESTION"), value.get("PASS_CRITERIA")
    if isinstance(question, str) and isinstance(criteria, str) and question.strip():
        text = f"{clean(question).strip()} The reply passes if the answer is {clean(criteria).strip()}."
        turns = (*turns[:-1], replace(turns[-1], rubric={"text": text, "verdict": "pass"}))
    elif question:
        ledger.note(record.line, "a question for a judge without a criterion", "the question is left out")
    return Draft(record.line, turns, named("multi-challenge", value.get("QUESTION_ID")), tags_of(value, "AXIS"), system)


read = each(_challenge)
