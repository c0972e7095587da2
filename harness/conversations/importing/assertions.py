"""promptfoo's assertions → checks, where they mean the same.

They were read in promptfoo's sources. Three differ in what no reply is likely to depend on: `equals` and `starts-with`
here pass over white space around the reply, which a stored reply has lost anyway; `is-json` here also takes JSON in a
Markdown code fence; and a JavaScript pattern is read by Python's regex, where \\d and \\w know more than ASCII.
Everything else – judges, scripts, costs, latencies, what is inverted and has no check – is noted and left out.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from harness.conversations.expect import read_checks
from harness.conversations.importing.draft import Item
from harness.conversations.importing.ledger import CannotSayError, Ledger
from harness.conversations.importing.messages import clean
from harness.conversations.importing.templates import rendered
from harness.documents import described

_LEFT_OUT = "the check is left out"
_ANY_CASE = {"ignore_case": True}


def _one(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise CannotSayError("a value that is no text")
    return clean(str(value))


def _several(value: Any) -> list[str]:
    """A list of texts; promptfoo takes a text for one, with commas between."""
    if isinstance(value, str):
        value = [entry.strip() for entry in next(csv.reader([value], skipinitialspace=True), [])]
    if not isinstance(value, list):
        raise CannotSayError("a value that is no list")
    return list(dict.fromkeys(_one(entry) for entry in value))


def _words(value: Any) -> list[Item]:
    if isinstance(value, dict):
        return [{f"{key}_words": value[key]} for key in ("min", "max") if value.get(key) is not None]
    count = int(value)
    return [{"min_words": count}, {"max_words": count}] if count else [{"max_words": 0}]


def _json(value: Any) -> list[Item]:
    schema = json.loads(value) if isinstance(value, str) and value.strip() else value
    return [{"json": schema if isinstance(schema, dict) else True}]


_MEANING: Mapping[str, Callable[[Any], list[Item]]] = {
    "contains": lambda value: [{"contains": _one(value)}],
    "icontains": lambda value: [{"contains": _one(value), **_ANY_CASE}],
    "contains-any": lambda value: [{"contains_any": _several(value)}],
    "icontains-any": lambda value: [{"contains_any": _several(value), **_ANY_CASE}],
    "contains-all": lambda value: [{"contains_all": _several(value)}],
    "icontains-all": lambda value: [{"contains_all": _several(value), **_ANY_CASE}],
    "not-contains": lambda value: [{"not_contains": _one(value)}],
    "not-icontains": lambda value: [{"not_contains": _one(value), **_ANY_CASE}],
    "not-contains-any": lambda value: [{"not_contains": _several(value)}],
    "not-icontains-any": lambda value: [{"not_contains": _several(value), **_ANY_CASE}],
    "equals": lambda value: [{"equals": _one(value)}],
    "starts-with": lambda value: [{"starts_with": _one(value)}],
    "regex": lambda value: [{"regex": _one(value)}],
    "is-json": _json,
    "word-count": _words,
}


def checks_of(assertions: Iterable[Any], variables: Mapping[str, str], line: int, ledger: Ledger) -> tuple[Item, ...]:
    """The checks that assertions mean, each once; what they mean beyond that is noted."""
    found: list[Item] = []
    for assertion in assertions:
        kind = assertion.get("type") if isinstance(assertion, dict) else None
        if not isinstance(kind, str):
            ledger.note(line, "an assertion without a type", _LEFT_OUT)
        elif kind not in _MEANING:
            ledger.note(line, f"an assertion {described(kind)}", _LEFT_OUT)
        elif assertion.get("weight") == 0:
            ledger.note(line, "an assertion of no weight", _LEFT_OUT)
        else:
            items = _items(kind, assertion, variables)
            if items is None:
                ledger.note(line, f"an assertion {described(kind)} with a value that no check has", _LEFT_OUT)
            found += items or []
    return tuple({json.dumps(item, sort_keys=True): item for item in found}.values())


def _items(kind: str, assertion: Mapping[str, Any], variables: Mapping[str, str]) -> list[Item] | None:
    try:
        items = _MEANING[kind](_filled(assertion.get("value"), variables))
    except (CannotSayError, ValueError, TypeError, csv.Error):
        return None
    return items if items and not read_checks(items, ())[1] else None


def _filled(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_filled(entry, variables) for entry in value]
    if isinstance(value, str):
        if value.startswith("file://"):
            raise CannotSayError("a value in a file")
        return rendered(value, variables)
    return value
