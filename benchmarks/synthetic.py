"""Runs that were never played, written by the real store: for measuring what a report of very many turns takes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.records import Cell, CheckResult, Circumstances, HostLoad, Memory, Stamps, TurnRecord
from harness.store import create

MODELS, SAMPLINGS, CONVERSATIONS, TURNS = 2, 5, 500, 20
IDS, LETTERS = 64, 200
WORDS = [
    f"{start}{middle}{end}" for start in "bdfgk" for middle in ("a", "en", "iro", "ust") for end in ("l", "tion", "s")
]


def write(results: Path, turns: int, *, synced: bool = False) -> Path:
    """A run of (about) so many turns: models × samplings × conversations of twenty turns, in as many repeats as that
    takes, two launches. `synced` makes sure of the disk after every conversation, as a real run does."""
    per_repeat = MODELS * SAMPLINGS * CONVERSATIONS * TURNS * 2
    conversations = max(1, CONVERSATIONS * turns // per_repeat) if turns < per_repeat else CONVERSATIONS
    repeats = max(1, turns // per_repeat)
    plan = _plan(conversations, repeats)
    with create(results, "synthetic", _manifest(plan)) as writer:
        for record in records(conversations, repeats):
            writer.append(record)
            if synced and record.turn_index == TURNS - 1:
                writer.sync()
    return writer.path


def records(conversations: int, repeats: int) -> Iterator[TurnRecord]:
    """The turns of such a run, in the order in which they would be played."""
    dice = random.Random(0)
    now = 1_790_000_000.0
    for launch in range(2):
        for model in range(MODELS):
            for repeat in range(repeats):
                for sampling in range(SAMPLINGS):
                    for conversation in range(conversations):
                        cell = Cell(f"model-{model}", f"top_k={sampling}", f"talk-{conversation}", repeat, launch)
                        around = Circumstances(cell, "generated", "natural", "generate", "reuse")
                        for index in range(TURNS):
                            record = _turn(around, index, now, dice)
                            now += (record.stamps.ready_ns or 0) / 1e9
                            yield record


def _turn(around: Circumstances, index: int, now: float, dice: random.Random) -> TurnRecord:
    at = 8_000_000 + index * 300_000 + dice.randrange(2_000_000)
    ticks = []
    for _ in range(IDS):
        ticks.append(at)
        at += 3_000_000 + dice.randrange(900_000)
    reply = " ".join(dice.choices(WORDS, k=45))[:LETTERS]
    return TurnRecord(
        circumstances=around,
        turn_index=index,
        seed=dice.randrange(2**32),
        started_at=now,
        user=f"Question {index}: what is it that moves, and why?",
        reply=reply,
        finish_reason="eos" if dice.random() < 0.9 else "max_new_tokens",
        prompt_tokens=60 * (index + 1),
        cached_tokens=60 * index,
        completion_tokens=IDS,
        completion_ids=tuple(dice.choices(range(30_000), k=IDS)),
        tokens_left=4096 - 60 * (index + 1),
        visible_ids=1,
        answer_ids=1,
        prompt_hash=f"{dice.randrange(2**64):016x}",
        stamps=Stamps(40_000, 190_000, ticks[-1] + 30_000, ticks[-1] + 90_000, tuple(ticks)),
        memory=Memory(host_rss_bytes=3 * 2**30),
        kv_cache_bytes=60_000 * (index + 1),
        host_load=HostLoad(0.25, 0.25, 0.26),
        checks=(CheckResult("max_words: 80", dice.random() < 0.95),),
    )


def _plan(conversations: int, repeats: int) -> dict[str, Any]:
    return {
        "models": [
            {"model": f"m/model-{number}", "label": f"model-{number}", "engine": "generate", "kv_cache": "reuse"}
            for number in range(MODELS)
        ],
        "samplings": [
            {"name": f"top_k={number}", "parameters": {"do_sample": True, "top_k": number + 2}}
            for number in range(SAMPLINGS)
        ],
        "conversations": [
            {"id": f"talk-{number}", "turns": list(range(TURNS)), "checks": [1] * TURNS}
            for number in range(conversations)
        ],
        "repeats": repeats,
        "launches": 2,
        "concurrency": [1],
        "history": "generated",
        "length": "natural",
        "on_overflow": "stop",
    }


def _manifest(plan: dict[str, Any]) -> dict[str, Any]:
    return {
        "created_at": "2026-01-02T03:04:05+00:00",
        "finished_at": "2026-01-02T03:04:05+00:00",
        "resumed": [],
        "command": ["harness", "run"],
        "harness_version": "0",
        "config_hash": "0" * 16,
        "config": {},
        "plan": plan,
        "environment": {
            "cpu": "any",
            "cpu_threads": 2,
            "memory_bytes": 2**34,
            "gpus": [],
            "libraries": {},
            "variables": {},
        },
        "launches": [],
        "warnings": [],
    }
