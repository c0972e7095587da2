"""What the harness costs: a turn through session, chat loop and driver, over a bare `model.generate`.

The engine `generate` runs the model in inference mode, which stock `generate` does not; both are compared, so that a
gain there does not hide a cost elsewhere.
"""

from contextlib import nullcontext

import pytest
import torch

from benchmarks.conftest import MODELS, backend
from harness.chat import Rules, replay
from harness.conversations.script import Conversation, Turn
from harness.records import Cell, Circumstances
from harness.runner.drive import drive

SAMPLINGS = {"greedy": {"do_sample": False}, "top_k=10": {"do_sample": True, "top_k": 10}}
NEW_TOKENS = {"builtin:pico": 64, "shape:llama-100m": 32}
ROUNDS = {"builtin:pico": 30, "shape:llama-100m": 10}


@pytest.mark.parametrize("mode", ["as it comes", "in inference mode"])
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("model", MODELS)
def test_a_turn_over_plain_generate(paired, model: str, sampling: str, mode: str) -> None:
    loaded = backend(model)
    tokens = NEW_TOKENS[model]
    settings = {**SAMPLINGS[sampling], "max_new_tokens": tokens}
    conversation = Conversation("one", (Turn("What is Newtonian mechanics?"),))
    circumstances = Circumstances(Cell("m", sampling, "one", 0, 0), "generated", "fixed", "generate", "reuse")

    def ours() -> None:
        dialog = replay(conversation, circumstances, Rules(settings))
        (record,) = drive(dialog, loaded.open_session(), loaded.gauges)
        assert record.completion_tokens == tokens

    messages = [{"role": "user", "content": "What is Newtonian mechanics?"}]
    prompt = loaded.tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    prompt = {name: prompt[name] for name in ("input_ids", "attention_mask")}

    def theirs() -> None:
        with torch.inference_mode() if mode == "in inference mode" else nullcontext():
            ids = loaded.model.generate(**prompt, **settings, eos_token_id=None)
        assert ids.shape[1] == prompt["input_ids"].shape[1] + tokens

    paired(ours, theirs, ROUNDS[model])
