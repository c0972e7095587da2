"""A foreign file → a prompts file, conversation by conversation, in memory that does not grow with them.

What is written is what `load_conversations` accepts: every conversation is held against the rules of prompts files
before it is written, and one that breaks them is left out and told. Ids are the source's own where it has any, with the
name of the format before mere numbers, and otherwise a hash of what is said, so that the same file gives the same ids
whatever is before or after. One that occurs again is numbered.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from harness.conversations.importing import inspect, mt_bench, multi_challenge, openai, promptfoo, sharegpt
from harness.conversations.importing.detect import Format, format_of
from harness.conversations.importing.draft import Draft, DraftTurn, Reader
from harness.conversations.importing.ledger import Ledger
from harness.conversations.importing.records import records
from harness.conversations.importing.targets import Target
from harness.conversations.load import conversation_problems
from harness.conversations.save import writer_for
from harness.conversations.variables import VARIABLE
from harness.documents import new_file
from harness.errors import DocumentError, Mistake, UsageError
from harness.records import short_hash


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import wrote, and what it could not take over as it was."""

    format: Format
    conversations: int
    turns: int
    ledger: Ledger


def convert(
    source: Path,
    output: Path,
    format: Format | None = None,  # noqa: A002 – the word of the command
    *,
    target: Target = None,
    strict: bool = False,
    force: bool = False,
) -> Imported:
    """Write the conversations of a foreign file as a prompts file, YAML or JSON Lines by its ending.

    `format` is told by the first record if it is None. `strict` takes everything or nothing. An existing output is
    replaced by `force` only, and in one step at the end. Raises UsageError, or DocumentError with what is wrong in the
    source.
    """
    writer = writer_for(output)
    ledger = Ledger()
    conversations = turns = 0
    with new_file(output, force=force) as file:
        found = records(source, ledger)
        first = next(found, None)
        if first is None:
            raise UsageError(str(source), "holds no record", "is it the right file?")
        known = format or format_of(first, str(source))
        file.write(writer.head)
        for entry in _entries(_reader(known, target)(chain([first], found), ledger), known, ledger):
            file.write(writer.item(entry))
            conversations += 1
            turns += len(entry["turns"])
        _check(source, conversations, ledger, strict=strict)
    return Imported(known, conversations, turns, ledger)


def _reader(format: Format, target: Target) -> Reader:  # noqa: A002
    readers: dict[Format, Reader] = {
        "mt-bench": mt_bench.read_questions,
        "mt-bench-101": mt_bench.read_dialogues,
        "multi-challenge": multi_challenge.read,
        "sharegpt": sharegpt.read,
        "openai": openai.reader(target),
        "inspect": inspect.reader(target),
        "promptfoo": promptfoo.read,
    }
    return readers[format]


def _check(source: Path, conversations: int, ledger: Ledger, *, strict: bool) -> None:
    """Raise DocumentError if nothing was found, or not everything under `strict`."""
    if conversations and not (strict and ledger.findings):
        return
    mistakes = [
        Mistake(
            f"{source}:{finding.lines[0]}",
            f"{finding.what}: {finding.became}" + (f" (and {finding.times - 1} more)" if finding.times > 1 else ""),
        )
        for finding in ledger.findings
    ]
    if not conversations:
        mistakes.append(Mistake(str(source), "no conversation that can be imported"))
    raise DocumentError(mistakes)


def _entries(drafts: Iterator[Draft], format: Format, ledger: Ledger) -> Iterator[dict[str, Any]]:  # noqa: A002
    """The conversations as a prompts file has them."""
    used: set[str] = set()
    numbers: dict[str, int] = {}
    for draft in drafts:
        entry = _entry(draft)
        problems = conversation_problems({"id": "-", **entry})
        if problems:
            where = ".".join(str(key) for key in problems[0].path)
            ledger.note(draft.line, f"{where}: {problems[0].fact}")
            continue
        name = draft.id or f"{format}-{short_hash(json.dumps(entry, sort_keys=True).encode())[:12]}"
        if name in used:
            ledger.note(draft.line, "an id that occurs again", "the conversation has a number behind its id")
            name = _numbered(name, used, numbers)
        used.add(name)
        yield {"id": name, **entry}


def _numbered(name: str, used: Collection[str], numbers: dict[str, int]) -> str:
    """The name with the next number behind it that makes it a new one."""
    number = numbers.get(name, 2)
    while f"{name}-{number}" in used:
        number += 1
    numbers[name] = number + 1
    return f"{name}-{number}"


def _entry(draft: Draft) -> dict[str, Any]:
    return {
        **({"tags": list(draft.tags)} if draft.tags else {}),
        **({"system": draft.system} if draft.system else {}),
        "turns": [_turn(turn) for turn in draft.turns],
    }


def _turn(turn: DraftTurn) -> dict[str, Any]:
    return {
        "user": turn.user,
        # Braces in what people wrote are no variables of a script.
        **({"literal": True} if VARIABLE.search(turn.user) else {}),
        **({"assistant": turn.assistant} if turn.assistant is not None else {}),
        **({"expect": [dict(item) for item in turn.expect]} if turn.expect else {}),
        **({"rubric": dict(turn.rubric)} if turn.rubric else {}),
    }
