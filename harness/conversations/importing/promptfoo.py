"""promptfoo's tests: a config, a file of tests (YAML, JSON, JSON Lines), or CSV.

    prompts: ["Translate {{text}} to {{language}}."]
    tests:
      - vars: {question: Where does he live?}
        metadata: {conversationId: c1}
        assert: [{type: icontains, value: california}]

Every test is a turn: tests that share a `conversationId` make one conversation, in the order of the file, any other
test is one by itself, and so are all without an id where a prompt uses `_conversation`. The user says the first prompt
of the config with the test's variables filled in; where the prompt is not at hand or is more than names in braces, the
test's only variable is what the user says. `vars.messages` holds a conversation of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from harness.conversations.importing.assertions import checks_of
from harness.conversations.importing.draft import Draft, DraftTurn, named, tags_of
from harness.conversations.importing.ledger import CannotSayError, Ledger
from harness.conversations.importing.messages import clean, said, talk
from harness.conversations.importing.prompts import Prompt, prompt_of
from harness.conversations.importing.records import Record
from harness.conversations.importing.rows import test_of_row
from harness.documents import Problem, described

_CONFIG = {"prompts", "tests", "defaultTest", "scenarios"}
_TEST = {"vars", "assert", "metadata", "description", "options", "threshold"}
_TAGS = ("category", "axis", "topic", "tags")


@dataclass(slots=True)
class _Talk:
    """A conversation that tests are added to."""

    draft: Draft
    aside: Ledger = field(default_factory=Ledger)
    reason: str = ""
    """Why it cannot be said."""


@dataclass(slots=True)
class _Suite:
    """What all tests share."""

    prompt: Prompt = field(default_factory=Prompt)
    default: Mapping[str, Any] = field(default_factory=dict)


def read(records: Iterator[Record], ledger: Ledger) -> Iterator[Draft]:
    """The conversations of the tests. They are held in memory until the last test is read."""
    talks: dict[str, _Talk] = {}
    for line, given, suite in _tests(records, ledger):
        test = _with_defaults(given, suite.default)
        about = test["metadata"] if isinstance(test.get("metadata"), dict) else {}
        shared = about.get("conversationId", "" if suite.prompt.together else None)
        key = f"shared {shared}" if shared is not None else f"line {len(talks)}"
        own = named("promptfoo", shared or test.get("description"))
        known = talks.setdefault(key, _Talk(Draft(line, (), own, tags_of(about, *_TAGS))))
        try:
            system, turns = _turns(test, suite.prompt, line, known.aside)
            if known.draft.turns and system != known.draft.system:
                raise CannotSayError("system texts that differ within a conversation")
            known.draft = replace(known.draft, system=system, turns=(*known.draft.turns, *turns))
        except CannotSayError as reason:
            known.reason = known.reason or str(reason)
    for known in talks.values():
        if known.reason:
            ledger.note(known.draft.line, known.reason)
        else:
            ledger.add(known.aside)
            yield known.draft


def _tests(records: Iterator[Record], ledger: Ledger) -> Iterator[tuple[int, Mapping[str, Any], _Suite]]:
    plain = _Suite()
    for record in records:
        value = record.value
        if not isinstance(value, dict):
            ledger.note(record.line, "a test that is no mapping", "the test is left out")
        elif "vars" not in value and ("tests" in value or "prompts" in value):
            yield from _of_config(record, ledger)
        elif "vars" in value or "assert" in value:
            yield record.line, value, plain
        else:
            yield record.line, test_of_row(value), plain


def _of_config(record: Record, ledger: Ledger) -> Iterator[tuple[int, Mapping[str, Any], _Suite]]:
    config = record.value
    line = _line(record, ())
    ledger.pass_over(config.keys() - _CONFIG)
    if config.get("scenarios"):
        ledger.note(_line(record, ("scenarios",)), "scenarios", "their tests are left out")
    default = config.get("defaultTest") or {}
    if not isinstance(default, dict):
        ledger.note(_line(record, ("defaultTest",)), "a default test in a file", "it is left out")
        default = {}
    suite = _Suite(prompt_of(config.get("prompts"), _line(record, ("prompts",)), ledger), default)
    tests = config.get("tests") or []
    for index, test in enumerate(tests if isinstance(tests, list) else [tests]):
        line = _line(record, ("tests", index))
        if isinstance(test, dict) and ("vars" in test or "assert" in test):
            yield line, test, suite
        else:
            ledger.note(line, "tests in another file", "they are left out: import that file, too")


def _line(record: Record, path: tuple[str | int, ...]) -> int:
    return record.line if record.document is None else record.document.position(Problem(path, ""))[0]


def _with_defaults(test: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**default, **test}
    for key in ("vars", "metadata", "options"):
        parts = [part[key] for part in (default, test) if isinstance(part.get(key), dict)]
        if parts:
            merged[key] = {name: value for part in parts for name, value in part.items()}
    checks = [part["assert"] for part in (default, test) if isinstance(part.get("assert"), list)]
    return {**merged, "assert": [check for part in checks for check in part]}


def _turns(
    test: Mapping[str, Any], prompt: Prompt, line: int, ledger: Ledger
) -> tuple[str | None, tuple[DraftTurn, ...]]:
    ledger.pass_over(test.keys() - _TEST)
    options = test.get("options") or {}
    if not isinstance(options, dict) or "prefix" in options or "suffix" in options:
        raise CannotSayError("a prefix or suffix of the prompt")
    for option in options:
        ledger.note(line, f"the option {described(option)} of a test", "it is left out")
    if test.get("threshold") is not None:
        ledger.note(line, "a threshold of a test", "it is left out")
    given = test.get("vars")
    if not isinstance(given, dict):
        raise CannotSayError("variables that are no mapping")
    if isinstance(given.get("messages"), list):
        system, turns = talk(said([_spelt_out(each) for each in given["messages"]], line, ledger), line, ledger)
        variables: dict[str, str] = {}
    else:
        variables = {str(name): _text(value) for name, value in given.items()}
        system, turns = talk(prompt.messages(variables), line, ledger)
    if turns[-1].assistant is not None:
        raise CannotSayError("a test that ends with the assistant")
    return system, (*turns[:-1], replace(turns[-1], expect=checks_of(test["assert"], variables, line, ledger)))


def _spelt_out(message: Any) -> Any:
    """The short form `- user: …` as `{role: user, content: …}`."""
    if isinstance(message, dict) and len(message) == 1:
        ((role, content),) = message.items()
        return {"role": role, "content": content}
    return message


def _text(value: Any) -> str:
    if isinstance(value, list):
        raise CannotSayError("a variable with several values")
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise CannotSayError("a variable that is no text")
    if isinstance(value, str) and value.startswith("file://"):
        raise CannotSayError("a variable in a file")
    return clean(str(value))
