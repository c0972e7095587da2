"""MT-Bench's and Vicuna-bench's `question.jsonl`, and the dialogues of MT-Bench-101.

    {"question_id": 120, "category": "math", "turns": ["…", "…"], "reference": ["f(2) = 0", "x = 2"]}
    {"task": "GR", "id": 1, "history": [{"user": "…", "bot": "…"}, …]}

References and MT-Bench-101's `bot` lines become gold replies; an empty reference is none. Where MT-Bench asks with a
temperature by category, the tag of the category chooses its questions.
"""

from __future__ import annotations

from typing import Any

from harness.conversations.importing.draft import Draft, DraftTurn, each, named, tags_of
from harness.conversations.importing.ledger import CannotSayError, Ledger
from harness.conversations.importing.messages import Said, clean, talk
from harness.conversations.importing.records import Record

_QUESTION = {"question_id", "category", "turns", "reference"}
_DIALOGUE = {"task", "id", "history"}


def _question(record: Record, ledger: Ledger) -> Draft:
    value = record.value
    if not isinstance(value, dict) or not isinstance(value.get("turns"), list):
        raise CannotSayError("a question without turns")
    ledger.pass_over(value.keys() - _QUESTION)
    turns = [_text(turn, "a turn that is no text") for turn in value["turns"]]
    references = value.get("reference") or []
    if not isinstance(references, list) or len(references) > len(turns):
        ledger.note(record.line, "a reference that is no list with a text for each turn", "the reference is left out")
        references = []
    gold = [clean(each).strip() if isinstance(each, str) else "" for each in references]
    gold += [""] * (len(turns) - len(gold))
    if not turns or not all(turn.strip() for turn in turns):
        raise CannotSayError("an empty user message")
    return Draft(
        record.line,
        tuple(DraftTurn(turn, reference or None) for turn, reference in zip(turns, gold, strict=True)),
        named("mt-bench", value.get("question_id")),
        tags_of(value, "category"),
    )


def _dialogue(record: Record, ledger: Ledger) -> Draft:
    value = record.value
    if not isinstance(value, dict) or not isinstance(value.get("history"), list):
        raise CannotSayError("a dialogue without a history")
    ledger.pass_over(value.keys() - _DIALOGUE)
    messages: list[Said] = []
    for pair in value["history"]:
        if not isinstance(pair, dict):
            raise CannotSayError("a turn that is no text")
        messages.append(("user", _text(pair.get("user"), "a turn that is no text")))
        if pair.get("bot") is not None:
            messages.append(("assistant", _text(pair["bot"], "a bot line that is no text")))
    _, turns = talk(messages, record.line, ledger)
    return Draft(record.line, turns, named("mt-bench-101", value.get("id")), tags_of(value, "task"))


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise CannotSayError(what)
    return clean(value)


read_questions = each(_question)
read_dialogues = each(_dialogue)
