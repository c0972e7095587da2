"""The transcripts as a page carries them: compressed chunks of conversations, and an index of what differs.

The index holds for every turn which plays said the same and which checks they passed, so that the page can list flips
and find differences without unpacking a word; the words are in the chunks. All of it is JSON, compressed by gzip and
written as base64, in which nothing can mean anything to HTML.
"""

from __future__ import annotations

import gzip
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import orjson
from markupsafe import Markup

from harness.analysis.frames import Run
from harness.analysis.plays import PlayedTurn, Said, Talk, plays, talks, tellable

MOST_BYTES = 32 * 2**20
"""Of chunks on a page: as much as a browser opens from a disk in a second or two."""
_CHUNK_BYTES = 400_000
"""JSON that is unpacked at a time, give or take a conversation."""


@dataclass(frozen=True, slots=True)
class Packed:
    """What was said, as much of it as a page can hold."""

    index: Markup
    chunks: tuple[Markup, ...]
    told: int
    """Turns that are in the chunks."""
    left_out: int
    """Turns that are not, for want of room."""


def pack(runs: Sequence[Run]) -> Packed:
    """The conversations of some runs, in the order of their plans, until `MOST_BYTES` are full."""
    everybody = plays(runs)
    chunks: list[Markup] = []
    indexed: list[dict[str, Any]] = []
    waiting: list[bytes] = []
    told = 0

    def close() -> None:
        if waiting:
            chunks.append(_compressed(b"[" + b",".join(waiting) + b"]"))
            waiting.clear()

    for talk in talks(runs, everybody):
        if sum(map(len, chunks)) > MOST_BYTES:
            break
        indexed.append({**_indexed(talk, len(everybody)), "chunk": len(chunks), "place": len(waiting)})
        waiting.append(orjson.dumps([_turn(turn) for turn in talk.turns]))
        told += talk.told
        if sum(map(len, waiting)) > _CHUNK_BYTES:
            close()
    close()
    index = {"plays": [astuple(play) for play in everybody], "talks": indexed}
    return Packed(_compressed(orjson.dumps(index)), tuple(chunks), told, tellable(runs) - told)


def _compressed(text: bytes) -> Markup:
    return Markup(b64encode(gzip.compress(text, compresslevel=6, mtime=0)).decode())  # noqa: S704 – letters and digits


def _indexed(talk: Talk, n_plays: int) -> dict[str, Any]:
    return {"id": talk.conversation_id, "turns": [_differences(turn, n_plays) for turn in talk.turns]}


def _differences(turn: PlayedTurn, n_plays: int) -> list[Any]:
    """[turn_index, the code of each play's reply, [[check, a letter for each play], …]]: equal codes are equal replies,
    -1 is none; 1 is a check passed, 0 one that was not, as are all of a turn that failed; - is not checked."""
    codes = [-1] * n_plays
    replies: dict[Any, int] = {}
    checked = {check: ["-"] * n_plays for said in turn.said for check, _, _ in said.checks}
    for play, (place, _) in turn.by_play.items():
        said = turn.said[place]
        if said.state != "not_reached":
            codes[play] = replies.setdefault((said.reply, said.error), len(replies))
        if said.state != "done":
            for verdicts in checked.values():
                verdicts[play] = "0"
        for check, passed, _ in said.checks:
            if checked[check][play] != "0":  # of two checks of one name both have to pass
                checked[check][play] = "1" if passed else "0"
    return [turn.turn_index, codes, [[check, "".join(verdicts)] for check, verdicts in checked.items()]]


def _turn(turn: PlayedTurn) -> dict[str, Any]:
    return {
        "gold": turn.gold,
        "said": [_said(said) for said in turn.said],
        "plays": {str(play): [place, *times] for play, (place, times) in turn.by_play.items()},
    }


def _said(said: Said) -> dict[str, Any]:
    return {
        "state": said.state,
        "user": said.user,
        "reply": said.reply,
        "reasoning": said.reasoning,
        "finish": said.finish_reason,
        "error": said.error,
        "checks": said.checks,
        "prompt": said.prompt_tokens,
        "completion": said.completion_tokens,
    }
