"""prompts/*.yaml, and prompts/*.jsonl with one conversation per line, → conversations.

    conversations:
      - id: physics-professor
        persona: {description: Bob is a professor in Physics., user: Alice, assistant: Bob}
        turns:
          - user: What is Newtonian mechanics?
            expect: [{contains: motion}]

Every mistake of every file is reported at once, with its position. YAML is for people; JSON Lines, which are read
forty times as fast, are for a hundred thousand conversations.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import regex
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from harness.conversations.expect import read_checks
from harness.conversations.script import Conversation, Rubric, Turn
from harness.conversations.variables import VARIABLE, capture
from harness.documents import Document, Keys, Problem, Shape, Source, fit, read_document, read_lines
from harness.errors import DocumentError, Mistake
from harness.records import Persona

LINES = ".jsonl"
"""The ending of files that hold one conversation per line, as JSON."""
_MANY = 100
"""Mistakes after which a file of JSON Lines is read no further: it is meant to be something else."""

_Expect = Annotated[list[Any], Field(description="Checks the reply must pass: one check per item")]


class RubricShape(Shape):
    """By what a judge judges a reply, afterwards."""

    text: Annotated[str, Field(min_length=1, description="What makes a reply good, in words for the judge")]
    verdict: Annotated[
        Literal["score", "pass"], Field(description="score: from 1 to 10; pass: whether the reply passes")
    ] = "score"

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if not isinstance(value, (str, dict, RubricShape)):
            raise PydanticCustomError("several", "should be text or a mapping with text")
        return {"text": value} if isinstance(value, str) else value


class PersonaShape(Shape):
    """Who speaks."""

    description: Annotated[
        str | None, Field(description="A sentence about the assistant; first line of the system message")
    ] = None
    user: Annotated[str, Field(min_length=1, description="Name of the one who asks, in a transcript")] = "User"
    assistant: Annotated[str, Field(min_length=1, description="Name of the one who answers")] = "Assistant"


class TurnShape(Shape):
    """One user message and what belongs to it."""

    user: Annotated[
        str, Field(description="What the user says; {{ name }} is replaced by what an earlier turn captured")
    ]
    times: Annotated[
        int, Field(ge=1, description="How often the user says it, in one message: filler for long prompts")
    ] = 1
    literal: Annotated[bool, Field(description="{{ name }} in this text is just text, not a variable")] = False
    assistant: Annotated[str | None, Field(description="The gold reply, fed on by history: scripted")] = None
    expect: _Expect = Field(default_factory=list)
    capture: dict[str, str] = Field(
        default_factory=dict, description="Name → regular expression; its first group in the reply becomes {{ name }}"
    )
    rubric: Annotated[RubricShape | None, Field(description="By what a judge judges the reply")] = None


class ConversationShape(Shape):
    """One scripted conversation."""

    id: Annotated[str, Field(min_length=1, description="Unique name; results are kept under it")]
    tags: list[str] = Field(default_factory=list, description="Words to choose conversations by")
    language: Annotated[str | None, Field(description="Language tag such as en or de")] = None
    persona: PersonaShape = Field(default_factory=PersonaShape)
    system: Annotated[str | None, Field(description="System text, after the persona's description")] = None
    turns: Annotated[list[TurnShape], Field(min_length=1, description="What happens, turn by turn")]
    expect: _Expect = Field(default_factory=list)
    rubric: Annotated[
        RubricShape | None, Field(description="By what a judge judges replies to turns without their own")
    ] = None


class PromptsShape(Shape):
    """A prompts file."""

    conversations: Annotated[list[ConversationShape], Field(min_length=1)]
    rubric: Annotated[RubricShape | None, Field(description="The same for conversations without their own")] = None


def load_conversations(files: Sequence[Source]) -> tuple[Conversation, ...]:
    """The conversations of some files, in their order.

    Raises DocumentError with every mistake of every file: unknown keys and checks, patterns that do not compile,
    variables nothing captures, ids that occur twice …
    """
    mistakes: list[Mistake] = []
    conversations: list[Conversation] = []
    homes: dict[str, str] = {}
    for file in files:
        try:
            if Path(file).suffix == LINES:
                mistakes += _read_lines(file, conversations, homes)
                continue
            document = read_document(file)
        except DocumentError as error:
            mistakes += error.mistakes
            continue
        found, problems = _conversations(document)
        problems += _duplicates(document, homes)
        mistakes += document.mistakes(problems)
        conversations += found
    if mistakes:
        raise DocumentError(mistakes)
    return tuple(conversations)


def conversation_problems(value: Any) -> list[Problem]:
    """What keeps a value from being a conversation of a prompts file."""
    return _of_line(Document("", value if isinstance(value, dict) else {}))[1]


def _read_lines(file: Source, conversations: list[Conversation], homes: dict[str, str]) -> list[Mistake]:
    """Add the conversations of JSON Lines; the mistakes of its lines, which end the reading when there are many."""
    mistakes: list[Mistake] = []
    empty = True
    for document in read_lines(file):
        empty = False
        if isinstance(document, Mistake):
            mistakes.append(document)
        else:
            found, problems = _of_line(document)
            problems += _above(_duplicates(_whole(document), homes))
            mistakes += document.mistakes(problems)
            conversations += [replace(conversation, source=str(file)) for conversation in found]
        if len(mistakes) >= _MANY:
            return [*mistakes, Mistake(str(file), f"read no further than {_MANY} mistakes")]
    return [Mistake(str(file), "is empty", "one conversation per line")] if empty else mistakes


def _of_line(document: Document) -> tuple[list[Conversation], list[Problem]]:
    found, problems = _conversations(_whole(document))
    return found, _above(problems)


def _whole(document: Document) -> Document:
    """The conversation of a line as a file that holds only it."""
    return replace(document, value={"conversations": [document.value]})


def _above(problems: list[Problem]) -> list[Problem]:
    """The problems of such a file, without the path that leads to the line's own value."""
    return [problem._replace(path=problem.path[2:]) for problem in problems]


def _conversations(document: Document) -> tuple[list[Conversation], list[Problem]]:
    shape, problems = fit(document.value, PromptsShape)
    # Checks, patterns and variables are looked at even where the shape is wrong elsewhere: one list of mistakes.
    problems += [problem for turns in _turn_lists(document.value) for problem in _turn_problems(turns)]
    problems += [problem for path, expect in _expect_lists(document.value) for problem in read_checks(expect, path)[1]]
    if shape is None or problems or document.problems:
        return [], problems
    return [_conversation(each, shape.rubric, document.source) for each in shape.conversations], []


def _conversation(shape: ConversationShape, rubric: RubricShape | None, source: str) -> Conversation:
    return Conversation(
        id=shape.id,
        turns=tuple(
            Turn(
                " ".join([turn.user] * turn.times),
                turn.assistant,
                read_checks(turn.expect, ())[0],
                turn.capture,
                _rubric(turn.rubric),
            )
            for turn in shape.turns
        ),
        tags=tuple(shape.tags),
        language=shape.language,
        persona=Persona(shape.persona.description, shape.persona.user, shape.persona.assistant),
        system=shape.system,
        expect=read_checks(shape.expect, ())[0],
        rubric=_rubric(shape.rubric or rubric),
        source=source,
    )


def _rubric(shape: RubricShape | None) -> Rubric | None:
    return None if shape is None else Rubric(shape.text, shape.verdict)


def _entries(value: Any, path: Keys) -> Iterator[tuple[Keys, dict[str, Any]]]:
    if isinstance(value, list):
        yield from (((*path, index), entry) for index, entry in enumerate(value) if isinstance(entry, dict))


def _turn_lists(value: dict[str, Any]) -> Iterator[list[tuple[Keys, dict[str, Any]]]]:
    for path, conversation in _entries(value.get("conversations"), ("conversations",)):
        yield list(_entries(conversation.get("turns"), (*path, "turns")))


def _expect_lists(value: dict[str, Any]) -> Iterator[tuple[Keys, list[Any]]]:
    for path, conversation in _entries(value.get("conversations"), ("conversations",)):
        for where, holder in ((path, conversation), *_entries(conversation.get("turns"), (*path, "turns"))):
            if isinstance(holder.get("expect"), list):
                yield (*where, "expect"), holder["expect"]


def _turn_problems(turns: list[tuple[Keys, dict[str, Any]]]) -> Iterator[Problem]:
    """What only makes sense turn after turn: texts, variables and what captures them."""
    captured: set[str] = set()
    for path, turn in turns:
        user, gold, capture = turn.get("user"), turn.get("assistant"), turn.get("capture")
        if isinstance(user, str):
            if not user.strip():
                yield Problem((*path, "user"), "is empty", "a turn begins with something the user says")
            for name in VARIABLE.findall(user):
                yield from _variable_problems((*path, "user"), name, name in captured, turn.get("literal") is True)
        if isinstance(gold, str) and not gold.strip():
            yield Problem((*path, "assistant"), "is empty", "leave it out if there is no gold reply")
        for name, pattern in capture.items() if isinstance(capture, dict) else ():
            captured.add(str(name))
            yield from _capture_problems((*path, "capture", name), str(name), pattern, gold)


def _variable_problems(path: Keys, name: str, captured: bool, literal: bool) -> Iterator[Problem]:
    if captured and literal:
        yield Problem(path, f"{{{{ {name} }}}} is captured by an earlier turn", "choose another name, or no literal")
    elif not captured and not literal:
        remedy = f"add capture: {{{name}: REGEX}} to one, or literal: true to this turn"
        yield Problem(path, f"{{{{ {name} }}}} is not captured by an earlier turn", remedy)


def _capture_problems(path: Keys, name: str, pattern: Any, gold: Any) -> Iterator[Problem]:
    if not re.fullmatch(r"\w+", name):
        yield Problem(path, "should be a name of letters, digits and _")
    if not isinstance(pattern, str):
        return
    try:
        captured = capture(pattern, gold if isinstance(gold, str) else "")
    except regex.error as error:
        yield Problem(path, f"is not a regular expression: {error}")
        return
    if isinstance(gold, str) and captured is None:
        yield Problem(path, "finds nothing in this turn's own gold reply", "under history: scripted that would fail")


def _duplicates(document: Document, homes: dict[str, str]) -> list[Problem]:
    problems = []
    for path, conversation in _entries(document.value.get("conversations"), ("conversations",)):
        name = conversation.get("id")
        if not isinstance(name, str):
            continue
        where = (*path, "id")
        if name in homes:
            problems.append(Problem(where, f"{name} is the id of another conversation", f"see {homes[name]}"))
        homes.setdefault(name, document.mistake(Problem(where, "")).subject.rpartition(": ")[0])
    return problems
