"""What one event of a stream tells of a reply: text, why it ended, how many tokens there were, or what went wrong.

    data: {"choices": [{"delta": {"content": "Hi"}, "finish_reason": null}]}
    data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 12}}
    data: [DONE]

Counts may come with the last text, after it, with every chunk (then they grow), or never.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from harness.backends.openai.faults import ServerFault
from harness.backends.openai.sse import Event
from harness.backends.openai.wire import said_in

_SHOWN = 120


@dataclass(frozen=True, slots=True)
class Usage:
    """What a server has counted."""

    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None = None
    """Prompt tokens that it did not have to compute; None where it does not say."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One event of a reply."""

    content: str = ""
    reasoning: str = ""
    finish: str | None = None
    stopped_by: str | None = None
    """The stop string that ended the reply, from servers that tell."""
    usage: Usage | None = None
    done: bool = False
    """Nothing more will come."""


def read_chunk(event: Event) -> Chunk:
    """What an event tells. Raises ServerFault where that is an error, or nothing of this API."""
    if event.data.strip() == "[DONE]":
        return Chunk(done=True)
    try:
        told = orjson.loads(event.data)
    except orjson.JSONDecodeError:
        raise ServerFault("MalformedReply", f"the stream holds what is no JSON: {_short(event.data)}") from None
    if not isinstance(told, dict):
        raise ServerFault("MalformedReply", f"the stream holds what is no chunk: {_short(event.data)}")
    if told.get("error") or event.name == "error" or told.get("object") == "error":
        raise ServerFault("StreamError", f"the server tells of an error: {_short(said_in(told, event.data))}")
    try:
        return _chunk(told)
    except (AttributeError, TypeError, ValueError, KeyError):
        raise ServerFault("MalformedReply", f"the stream holds what is no chunk: {_short(event.data)}") from None


def _chunk(told: dict[str, Any]) -> Chunk:
    usage = _usage(told.get("usage"))
    choices = told.get("choices") or []
    if not choices:
        return Chunk(usage=usage)
    choice = choices[0]
    delta = choice.get("delta") or {}
    stopped_by = choice.get("stop_reason", choice.get("matched_stop"))
    return Chunk(
        content=_text(delta.get("content")),
        reasoning=_text(delta.get("reasoning_content", delta.get("reasoning"))),
        finish=choice.get("finish_reason"),
        stopped_by=stopped_by if isinstance(stopped_by, str) else None,
        usage=usage,
    )


def _usage(told: Any) -> Usage | None:
    if told is None:
        return None
    details = told.get("prompt_tokens_details") or {}
    return Usage(
        _count(told.get("prompt_tokens")), _count(told.get("completion_tokens")), _count(details.get("cached_tokens"))
    )


def _count(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(value)
    return value


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"
