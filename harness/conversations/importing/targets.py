"""What becomes of a target: the answer that a sample of inspect or evals is scored against.

What a target means is not in the data: inspect's `includes()`, `exact()` or a judge may look at it. So a target becomes
a check only when it is asked for, and then by the rule of inspect's `includes()` with its defaults: the last reply
contains it, or one of several, whatever the case.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from harness.conversations.importing.draft import DraftTurn, Item
from harness.conversations.importing.ledger import CannotSayError, Ledger
from harness.conversations.importing.messages import clean

Target = Literal["contains"] | None


def aimed_at(
    turns: tuple[DraftTurn, ...], wanted: Any, what: str, target: Target, line: int, ledger: Ledger
) -> tuple[DraftTurn, ...]:
    """The turns, the last one with the check that a target means."""
    texts = [clean(text) for text in (wanted if isinstance(wanted, list) else [wanted]) if isinstance(text, str)]
    texts = [text for text in texts if text.strip()]
    if not texts:
        if wanted not in (None, "", []):
            ledger.note(line, f"{what} that is no text", f"the {what} is left out")
        return turns
    if target is None:
        ledger.note(line, what, f"the {what} is left out: --target contains makes a check of it")
        return turns
    item: Item = {"contains": texts[0]} if len(texts) == 1 else {"contains_any": texts}
    if turns[-1].assistant is not None:
        raise CannotSayError(f"a {what} of a conversation that ends with the assistant")
    return (*turns[:-1], replace(turns[-1], expect=({**item, "ignore_case": True},)))
