"""Which format a file has, by its first record."""

from __future__ import annotations

from typing import Any, Literal, get_args

from harness.conversations.importing.records import Record
from harness.errors import UsageError

Format = Literal["mt-bench", "mt-bench-101", "multi-challenge", "sharegpt", "openai", "inspect", "promptfoo"]
FORMATS: tuple[Format, ...] = get_args(Format)


def format_of(record: Record, source: str) -> Format:
    """The format that a record is of. Raises UsageError if it is of none."""
    value = {"messages": record.value} if isinstance(record.value, list) else record.value
    signs = _signs(value) if isinstance(value, dict) else {}
    found = next((name for name, there in signs.items() if there), None)
    if found is None:
        keys = ", ".join(map(str, value)) if isinstance(value, dict) else type(value).__name__
        remedy = f"name the format: {', '.join(FORMATS)}"
        raise UsageError(f"{source}:{record.line}", f"is of no format that is known ({keys[:200]})", remedy)
    return found


def _signs(value: dict[str, Any]) -> dict[Format, bool]:
    """What each format would be known by; the first that is there counts."""
    spoken = [value[key] for key in ("conversations", "conversation") if isinstance(value.get(key), list)]
    with_roles = _has_role(value.get("messages")) or any(map(_has_role, spoken))
    return {
        "mt-bench": isinstance(value.get("turns"), list),
        "mt-bench-101": isinstance(value.get("history"), list),
        "multi-challenge": "CONVERSATION" in value,
        "sharegpt": bool(spoken) and not with_roles,
        "promptfoo": any(key in ("vars", "tests", "prompts") or str(key).startswith("__expected") for key in value),
        "openai": with_roles or isinstance(value.get("prompt"), list) or "ideal" in value,
        "inspect": "input" in value,
    }


def _has_role(messages: Any) -> bool:
    return isinstance(messages, list) and bool(messages) and isinstance(messages[0], dict) and "role" in messages[0]
