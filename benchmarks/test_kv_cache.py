"""What keeping the KV cache across the turns of a conversation is worth: twenty turns, against the tutorial's loop.

The tutorial's loop puts the whole dialog into the prompt of every turn and calls `model.generate` on it.
"""

import statistics

import pytest
import torch

from benchmarks.conftest import MODELS, backend
from harness.chat import Rules, replay
from harness.conversations.script import Conversation, Turn
from harness.metrics import METRICS
from harness.records import Cell, Circumstances
from harness.runner.drive import drive

NEW_TOKENS = 16
ROUNDS = {"builtin:pico": 10, "shape:llama-100m": 2}


@pytest.mark.parametrize("model", MODELS)
def test_the_tutorials_loop_over_twenty_turns_with_reuse(paired, report, model: str) -> None:
    """Above 1: keeping the cache is that much faster. Beside it: time to first token of turn 20 over turn 1."""
    # Short lines: the synthetic tokenizer of a shape makes every byte a token, and prefilling thousands takes minutes.
    conversation = Conversation(
        "twenty", tuple(Turn(f"Question {number}, please?", f"Answer {number}, it is.") for number in range(20))
    )
    loaded = backend(model)
    rules = Rules({"do_sample": False, "max_new_tokens": NEW_TOKENS})
    circumstances = Circumstances(Cell("m", "greedy", conversation.id, 0, 0), "scripted", "fixed", "generate", "reuse")
    growth: list[float] = []

    def ours() -> None:
        turns = list(drive(replay(conversation, circumstances, rules), loaded.open_session(), loaded.gauges))
        assert len(turns) == 20
        first, *_, last = [METRICS["ttft_s"].formula(turn) for turn in turns]
        growth.append(last / first)

    def tutorials_loop() -> None:
        messages = []
        for turn in conversation.turns:
            messages.append({"role": "user", "content": turn.user})
            prompt = loaded.tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            with torch.no_grad():
                loaded.model.generate(
                    input_ids=prompt["input_ids"],
                    attention_mask=prompt["attention_mask"],
                    do_sample=False,
                    max_new_tokens=NEW_TOKENS,
                    eos_token_id=None,
                )
            messages.append({"role": "assistant", "content": turn.assistant or ""})

    paired(tutorials_loop, ours, ROUNDS[model], name="total")
    report("TTFT of turn 20 over turn 1", growth)
    assert statistics.median(growth) > 0
