"""A row of promptfoo's CSV → a test: columns are variables, but for those that begin with two underscores.

question,__expected,__metadata:conversationId
Who founded Facebook?,icontains: zuckerberg,c1
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_ASSERTION = re.compile(r"(?P<type>[a-z]+(?:-[a-z]+)*)(?:\((?P<threshold>[\d.]+)\))?(?::\s?(?P<value>.*))?", re.DOTALL)
_ALONE = ("is-json", "contains-json", "not-is-json", "not-contains-json", "is-xml", "is-html", "is-sql", "is-refusal")
"""Assertions that need no value: any other lone word is the text that the reply must be."""
_METADATA = "__metadata:"


def test_of_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """The test that a row means."""
    expected = [value for name, value in row.items() if re.fullmatch(r"__expected\d*", name) and value]
    return {
        "vars": {name: value or "" for name, value in row.items() if not name.startswith("__")},
        "assert": [_assertion(text) for text in expected],
        "metadata": {
            name.removeprefix(_METADATA): value for name, value in row.items() if name.startswith(_METADATA) and value
        },
        **({"description": row["__description"]} if row.get("__description") else {}),
        **({"threshold": row["__threshold"]} if row.get("__threshold") else {}),
        "options": {key: row[f"__{key}"] for key in ("prefix", "suffix") if row.get(f"__{key}")},
    }


def _assertion(text: str) -> dict[str, Any]:
    found = _ASSERTION.fullmatch(text.strip())
    if found is None or (found["value"] is None and found["type"] not in _ALONE):
        return {"type": "equals", "value": text}
    return {"type": found["type"], "value": found["value"] or None, "threshold": found["threshold"]}
