"""What a reply must satisfy. Every check is deterministic: the same reply is judged the same on every machine.

A check is a frozen value with a readable `name` that is stable over runs (`contains: motion`) and a `judge` that says
whether a reply passes and what was found. How checks are written in a prompts file is in `expect.py`.

Words are what white space separates; in languages that do not separate words, limit tokens instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import regex

from harness.conversations.refusals import refusal_phrase
from harness.conversations.repetition import repetition
from harness.records import CheckResult, short_hash

REGEX_SECONDS = 1.0
"""How long a pattern may search one reply. Ordinary patterns take microseconds; only runaway backtracking gets here,
and that would hold up the whole run."""

Presence = Literal["contains", "contains_any", "contains_all", "not_contains"]


@dataclass(frozen=True, slots=True)
class Contains:
    """Some texts are in the reply: the one, any, all, or none of them."""

    key: Presence
    texts: tuple[str, ...]
    ignore_case: bool = False

    @property
    def name(self) -> str:
        return _name(self.key, " | ".join(self.texts), ignore_case=self.ignore_case)

    def judge(self, reply: str, completion_tokens: int | None) -> CheckResult:
        fold = str.casefold if self.ignore_case else str
        within = fold(reply)
        found = [text for text in self.texts if fold(text) in within]
        missing = [text for text in self.texts if text not in found]
        if self.key == "not_contains":
            return CheckResult(self.name, not found, f"found {_list(found)}" if found else "")
        passed = bool(found) if self.key == "contains_any" else not missing
        return CheckResult(self.name, passed, "" if passed else f"{_list(missing)} not in the reply")


@dataclass(frozen=True, slots=True)
class Equals:
    """The reply is this text; white space around either does not count."""

    text: str
    ignore_case: bool = False

    @property
    def name(self) -> str:
        return _name("equals", self.text, ignore_case=self.ignore_case)

    def judge(self, reply: str, completion_tokens: int | None) -> CheckResult:
        fold = str.casefold if self.ignore_case else str
        passed = fold(reply.strip()) == fold(self.text.strip())
        return CheckResult(self.name, passed, "" if passed else f"the reply is {_excerpt(reply)}")


@dataclass(frozen=True, slots=True)
class StartsWith:
    """The reply begins with this text, white space before it aside."""

    text: str
    ignore_case: bool = False

    @property
    def name(self) -> str:
        return _name("starts_with", self.text, ignore_case=self.ignore_case)

    def judge(self, reply: str, completion_tokens: int | None) -> CheckResult:
        fold = str.casefold if self.ignore_case else str
        passed = fold(reply.lstrip()).startswith(fold(self.text))
        return CheckResult(self.name, passed, "" if passed else f"the reply begins {_excerpt(reply)}")


@dataclass(frozen=True, slots=True)
class Matches:
    """A regular expression is found somewhere in the reply, within `REGEX_SECONDS`."""

    pattern: str
    ignore_case: bool = False

    @property
    def name(self) -> str:
        return _name("regex", self.pattern, ignore_case=self.ignore_case)

    def judge(self, reply: str, completion_tokens: int | None) -> CheckResult:
        try:
            found = compiled(self.pattern, ignore_case=self.ignore_case).search(reply, timeout=REGEX_SECONDS)
        except TimeoutError:
            return CheckResult(self.name, False, f"the pattern took longer than {REGEX_SECONDS:g} s")
        return CheckResult(self.name, found is not None, f"found {_excerpt(found[0])}" if found else "no match")


@dataclass(frozen=True, slots=True)
class Size:
    """The reply has at most, or at least, so many words or tokens."""

    key: Literal["max_words", "min_words", "max_tokens", "min_tokens"]
    limit: int

    @property
    def name(self) -> str:
        return f"{self.key}: {self.limit}"

    def judge(self, reply: str, completion_tokens: int | None) -> CheckResult:
        unit = self.key[4:]
        size = len(reply.split()) if unit == "words" else completion_tokens
        if size is None:
            return CheckResult(self.name, False, "the number of tokens is not known")
        passed = size <= self.limit if self.key.startswith("max") else size >= self.limit
        return CheckResult(self.name, passed, f"{size} {unit}")


@dataclass(frozen=True, slots=True)
class OneLine:
    """The reply is a single line."""

    name = "one_line: true"

    def judge(self, reply: str, completion_tokens: int | None) -> CheckResult:
        lines = len(reply.strip().splitlines())
        return CheckResult(self.name, lines == 1, f"{lines} lines" if lines != 1 else "")


@dataclass(frozen=True, slots=True)
class Json:
    """The whole reply, or the whole of one Markdown code fence around it, is JSON; with a schema, JSON that fits it."""

    schema: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        if self.schema is None:
            return "json: true"
        return f"json: schema {short_hash(json.dumps(self.schema, sort_keys=True).encode())[:8]}"

    def judge(self, reply: str, completion_tokens: int | None) -> CheckResult:
        fenced = regex.fullmatch(r"```[ \t]*\w*[ \t]*\r?\n(.*?)\r?\n?```", reply.strip(), regex.DOTALL)
        try:
            value = json.loads(fenced[1] if fenced else reply, parse_constant=_refuse_constant)
            wrong = "" if self.schema is None else _schema_violation(value, self.schema)
        except RecursionError:
            wrong = "nested too deeply"
        except ValueError as error:
            wrong = f"not JSON: {error}"
        return CheckResult(self.name, not wrong, wrong)


@dataclass(frozen=True, slots=True)
class Repetition:
    """At most this share of the reply says again what it has said before (`repetition.repetition`)."""

    limit: float

    @property
    def name(self) -> str:
        return f"max_repetition: {self.limit:g}"

    def judge(self, reply: str, completion_tokens: int | None) -> CheckResult:
        share = repetition(reply)
        return CheckResult(self.name, share <= self.limit, f"{share:.2f} repeated")


@dataclass(frozen=True, slots=True)
class Refusal:
    """The reply declines to answer, or does not. A heuristic: phrases in a few languages (`refusals.py`)."""

    expected: bool

    @property
    def name(self) -> str:
        return f"refusal: {str(self.expected).lower()}"

    def judge(self, reply: str, completion_tokens: int | None) -> CheckResult:
        phrase = refusal_phrase(reply)
        detail = "no phrase of refusal" if phrase is None else f"found {phrase!r}"
        return CheckResult(self.name, (phrase is not None) == self.expected, detail)


def compiled(pattern: str, *, ignore_case: bool) -> regex.Pattern[str]:
    """The compiled pattern (the regex package caches it). Raises regex.error."""
    return regex.compile(pattern, regex.IGNORECASE if ignore_case else 0)


def _schema_violation(value: Any, schema: Mapping[str, Any]) -> str:
    """Where and how a value breaks a JSON Schema; empty if it does not."""
    import jsonschema
    import referencing

    validator = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    # An empty registry: a check must not fetch a $ref from the network.
    try:
        error = jsonschema.exceptions.best_match(validator(schema, registry=referencing.Registry()).iter_errors(value))
    except referencing.exceptions.Unresolvable as unresolvable:
        return f"the schema refers to {unresolvable.ref}, which is not in it"
    return "" if error is None else f"{error.json_path}: {_excerpt(error.message, 200)}"


def _refuse_constant(name: str) -> None:
    # Python's parser lets NaN and Infinity pass; JSON does not have them.
    raise ValueError(f"{name} is not JSON")


def _name(key: str, value: str, *, ignore_case: bool) -> str:
    return f"{key}: {' '.join(value.split())}" + (" (ignore_case)" if ignore_case else "")


def _list(texts: list[str]) -> str:
    return ", ".join(repr(text) for text in texts)


def _excerpt(text: str, length: int = 60) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= length else f"{text[:length]}…")
