"""The one chat loop.

`replay` is a generator that does no I/O: it *asks* (yields a `TurnRequest`), is *sent* the `Reply`, and *tells*
(yields the `TurnRecord`). Whoever drives it decides how a request is answered – by a model in this process, in a
batch with other conversations, over HTTP – and what becomes of the record; `harness run` and `harness chat` drive the
same loop.

    dialog = replay(conversation, …)
    request = next(dialog)            # a TurnRequest
    record = dialog.send(reply)       # its TurnRecord
    request = next(dialog)            # the next one, until StopIteration
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.backends.seam import Reply, TurnRequest
from harness.conversations.script import Conversation, Turn
from harness.conversations.variables import capture, fill_in
from harness.meters.clock import Clock, Stopwatch, real_clock
from harness.records import (
    CheckResult,
    Circumstances,
    Failure,
    Message,
    OnOverflow,
    TurnRecord,
    turn_seed,
)

Dialog = Generator[TurnRequest | TurnRecord, Reply | None, None]


@dataclass(frozen=True, slots=True)
class Rules:
    """How a conversation is played: constant over its turns."""

    sampling: Mapping[str, Any]
    """Generation parameters under Hugging Face's names."""
    seed: int = 0
    on_overflow: OnOverflow = "stop"
    timeout_s: float | None = None


def replay(
    conversation: Conversation,
    circumstances: Circumstances,
    rules: Rules,
    *,
    turns: Iterable[Turn] | None = None,
    clock: Clock = real_clock,
) -> Dialog:
    """Play a conversation, turn by turn.

    `turns` replaces the script's turns by ones that are not known beforehand: what a person types. A turn that fails
    ends the conversation – later turns would answer something that never happened – and so does a reply cut off by
    max_length or the context under `on_overflow: stop`.
    """
    history = conversation.opening()
    captured: dict[str, str] = {}
    for index, turn in enumerate(conversation.turns if turns is None else turns):
        user = fill_in(turn.user, captured)
        if circumstances.history == "fill" and turn.assistant is not None:
            missed = _capture(turn.capture, turn.assistant, captured)
            assert missed is None, "the loader has seen that gold replies hold what is captured from them"
            history += (Message("user", user), Message("assistant", turn.assistant))
            continue
        history += (Message("user", user),)
        request = TurnRequest(
            conversation_id=conversation.id,
            turn_index=index,
            messages=history,
            persona=conversation.persona,
            sampling=rules.sampling,
            seed=turn_seed(rules.seed, conversation.id, index, circumstances.cell.repeat),
            length=circumstances.length,
            on_overflow=rules.on_overflow,
            gold=turn.assistant,
            timeout_s=rules.timeout_s,
            stopwatch=Stopwatch(clock),
        )
        started_at = time.time()
        reply = yield request
        assert reply is not None, "the driver answers every request before it asks for the record"
        fed = turn.assistant if circumstances.history == "scripted" and turn.assistant is not None else reply.text
        failure = reply.failure or _capture(turn.capture, fed or "", captured)
        yield _record(conversation, circumstances, turn, request, reply, started_at, failure)
        if failure is not None or fed is None:
            return
        if rules.on_overflow == "stop" and reply.finish_reason in ("max_length", "context"):
            return
        history += (Message("assistant", fed),)


def _capture(patterns: Mapping[str, str], fed: str, captured: dict[str, str]) -> Failure | None:
    """Remember what the patterns find; a pattern that finds nothing leaves later turns without their variable."""
    for name, pattern in patterns.items():
        text = capture(pattern, fed)
        if text is None:
            return Failure("CaptureMissed", "capture", f"{name}: {pattern!r} is not in the reply")
        captured[name] = text
    return None


def _record(
    conversation: Conversation,
    circumstances: Circumstances,
    turn: Turn,
    request: TurnRequest,
    reply: Reply,
    started_at: float,
    failure: Failure | None,
) -> TurnRecord:
    return TurnRecord(
        circumstances=circumstances,
        turn_index=request.turn_index,
        seed=request.seed,
        started_at=started_at,
        user=request.messages[-1].content,
        gold=turn.assistant,
        reply=reply.text,
        reasoning=reply.reasoning,
        finish_reason="error" if failure is not None else reply.finish_reason,
        failure=failure,
        prompt_tokens=reply.prompt_tokens,
        cached_tokens=reply.cached_tokens,
        completion_tokens=reply.completion_tokens,
        completion_ids=reply.completion_ids,
        tokens_left=reply.tokens_left,
        visible_ids=reply.visible_ids,
        answer_ids=reply.answer_ids,
        gold_tokens=reply.gold_tokens,
        dropped_messages=reply.dropped_messages,
        prompt_hash=reply.prompt_hash,
        stamps=request.stopwatch.stamps(),
        memory=reply.memory,
        kv_cache_bytes=reply.kv_cache_bytes,
        devices=reply.devices,
        host_load=reply.host_load,
        batch_size=reply.batch_size,
        paired=reply.paired,
        checks=_checks(conversation, turn, reply) if reply.failure is None else (),
        notices=reply.notices,
    )


def _checks(conversation: Conversation, turn: Turn, reply: Reply) -> tuple[CheckResult, ...]:
    checks = (*turn.expect, *conversation.expect)
    if reply.completion_tokens == 0:  # the prompt was at the limit: what is not there cannot be right
        return tuple(CheckResult(check.name, False, "nothing was generated") for check in checks)
    return tuple(check.judge(reply.text or "", reply.completion_tokens) for check in checks)
