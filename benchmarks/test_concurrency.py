"""Eighty conversations of two turns, eight at a time, against one after the other."""

import pytest

from benchmarks.conftest import backend
from harness.chat import Rules, replay
from harness.conversations.script import Conversation, Turn
from harness.records import Cell, Circumstances
from harness.runner.drive import drive, drive_together

CONVERSATIONS, AT_A_TIME = 80, 8
NEW_TOKENS = {"builtin:pico": 32, "shape:llama-100m": 8}
ROUNDS = {"builtin:pico": 5, "shape:llama-100m": 2}
SUBJECTS = ("motion", "energy", "heat", "light", "sound", "gravity", "atoms", "the sky")


@pytest.mark.parametrize("model", NEW_TOKENS)
def test_one_after_the_other_over_eight_at_a_time(paired, model: str) -> None:
    """Above 1: batching is that much faster in total."""
    talks = [
        Conversation(f"talk-{number}", (Turn(f"What is {SUBJECTS[number % 8]}, part {number}?"), Turn("And why?")))
        for number in range(CONVERSATIONS)
    ]
    rules = Rules({"do_sample": False, "max_new_tokens": NEW_TOKENS[model]})
    sequential, batched = backend(model, engine="generate"), backend(model, engine="batched")

    def dialogs(engine: str, concurrency: int):
        for talk in talks:
            cell = Cell("m", "greedy", talk.id, 0, 0, concurrency)
            yield replay(talk, Circumstances(cell, "generated", "fixed", engine, "reuse"), rules)

    def one_after_the_other() -> list:
        return [
            record.completion_ids
            for dialog in dialogs("generate", 1)
            for record in drive(dialog, sequential.open_session(), sequential.gauges)
        ]

    def together() -> list:
        news = drive_together(dialogs("batched", AT_A_TIME), batched, AT_A_TIME)
        told = sorted((one.index, one.record.turn_index, one.record.completion_ids) for one in news if one.record)
        return [ids for _, _, ids in told]

    assert together() == one_after_the_other()
    paired(one_after_the_other, together, ROUNDS[model])
