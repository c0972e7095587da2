"""Engines against each other: the very same turn, greedy, by `decode` and by `generate` (both in inference mode)."""

import pytest

from benchmarks.conftest import MODELS, backend
from benchmarks.test_overhead import NEW_TOKENS, ROUNDS
from harness.chat import Rules, replay
from harness.conversations.script import Conversation, Turn
from harness.records import Cell, Circumstances
from harness.runner.drive import drive


@pytest.mark.parametrize("sampling", [{"do_sample": False}, {"do_sample": True, "top_k": 10}], ids=["greedy", "top_k"])
@pytest.mark.parametrize("model", MODELS)
def test_generate_over_decode(paired, model: str, sampling: dict) -> None:
    """Above 1: our loop is that much faster."""
    conversation = Conversation("one", (Turn("What is Newtonian mechanics?"),))
    rules = Rules({**sampling, "max_new_tokens": NEW_TOKENS[model]})

    def play(engine: str):
        loaded = backend(model, engine=engine)
        circumstances = Circumstances(Cell("m", "s", "one", 0, 0), "generated", "fixed", engine, "reuse")

        def once() -> tuple[int, ...]:
            (record,) = drive(replay(conversation, circumstances, rules), loaded.open_session(), loaded.gauges)
            assert record.failure is None
            return record.completion_ids

        return once

    generate, decode = play("generate"), play("decode")
    assert generate() == decode()
    paired(generate, decode, ROUNDS[model])
