"""What the harness costs: a turn through session, chat loop and driver, over a bare `model.generate`."""

import pytest

from harness.backends.open import open_backend
from harness.chat import Rules, replay
from harness.config.schema import ModelSpec
from harness.conversations.script import Conversation, Turn
from harness.records import Cell, Circumstances
from harness.runner.drive import drive

NEW_TOKENS = 64
SAMPLINGS = {
    "greedy": {"do_sample": False, "max_new_tokens": NEW_TOKENS},
    "top_k=10": {"do_sample": True, "top_k": 10, "max_new_tokens": NEW_TOKENS},
}


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_turn_over_plain_generate(paired, sampling: str) -> None:
    backend = open_backend(ModelSpec(model="builtin:pico"), chat_format="auto", template_now="2026-01-01T00:00:00")
    conversation = Conversation("one", (Turn("What is Newtonian mechanics?"),))
    circumstances = Circumstances(Cell("pico", sampling, "one", 0, 0), "generated", "fixed", "generate", "reuse")

    def ours() -> None:
        dialog = replay(conversation, circumstances, Rules(SAMPLINGS[sampling]))
        (record,) = drive(dialog, backend.open_session(), backend.gauges)
        assert record.completion_tokens == NEW_TOKENS

    messages = [{"role": "user", "content": "What is Newtonian mechanics?"}]
    prompt = backend.tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )

    def theirs() -> None:
        ids = backend.model.generate(**prompt, **SAMPLINGS[sampling], eos_token_id=None)
        assert ids.shape[1] == prompt["input_ids"].shape[1] + NEW_TOKENS

    paired(ours, theirs, rounds=30)
