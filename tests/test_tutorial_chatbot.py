"""The chatbot this project grew from: a Falcon, a transcript of Alice and Bob, the newline as end of text.

Our replies must be those of the tutorial's loop over transformers' text-generation pipeline, turn by turn. A tiny
Falcon learns a few lines here, so that it ends them as the tutorial's model does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import transformers as hf

from harness.backends.open import open_backend
from harness.chat import Rules, replay
from harness.config.schema import ModelSpec
from harness.conversations.script import Conversation, Turn
from harness.records import Cell, Circumstances, Persona, TurnRecord, turn_seed
from tests import zoo
from tests.conftest import TEMPLATE_NOW

PERSONA = "Bob is a professor in Physics."
QUESTIONS = (
    "What is motion?",
    "How about energies?",
    "Who are you?",
    "What is motion?",
    "And the sky?",
    "Who are you?",
)
LESSON = (
    f"{PERSONA}\nAlice: What is motion?\nBob: It is described by forces.\nAlice: How about energies?\n"
    "Bob: Instead of forces, energies.\nAlice: Who are you?\nBob: I am Bob.\n"
)


@pytest.fixture(scope="module")
def falcon(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("falcon")
    torch.manual_seed(0)
    config = zoo.CONFIGS["falcon"]()
    config.initializer_range = 0.05
    model, tokenizer = hf.AutoModelForCausalLM.from_config(config), zoo.tokenizer(None)
    ids = torch.tensor([tokenizer(LESSON)["input_ids"]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.generation_config = hf.GenerationConfig(bos_token_id=3, eos_token_id=2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class Line(NamedTuple):
    prompt: str
    reply: str


def tutorial(
    folder: Path, newline: int, questions: tuple[str, ...], seed_of: Callable[[int], int], **settings: Any
) -> list[Line]:
    """The loop of the tutorial. It seeds each turn, and names the temperature that transformers 4 had by default:
    since version 5 the pipeline would bring in 0.7 of its own."""
    pipe = hf.pipeline("text-generation", model=str(folder), device_map="auto")
    history, lines = [PERSONA], []
    for turn, question in enumerate(questions):
        history.append(f"Alice: {question}")
        prompt = "\n".join([*history, "Bob:"])
        torch.manual_seed(seed_of(turn))
        (output,) = pipe(prompt, return_full_text=False, eos_token_id=newline, **settings)
        lines.append(Line(prompt, output["generated_text"].strip()))
        history.append(f"Bob: {lines[-1].reply}")
    return lines


class Talk(NamedTuple):
    records: list[TurnRecord]
    prompts: list[str]


def ours(folder: Path, newline: int, questions: tuple[str, ...], kv_cache: str = "fresh", **sampling: Any) -> Talk:
    backend: Any = open_backend(
        ModelSpec(model=str(folder), kv_cache=kv_cache), chat_format="transcript", template_now=TEMPLATE_NOW
    )
    prompts: list[str] = []
    encode = backend.format.encode
    backend.format.encode = lambda text: prompts.append(text) or encode(text)
    conversation = Conversation(
        "tutorial", tuple(Turn(question) for question in questions), persona=Persona(PERSONA, "Alice", "Bob")
    )
    around = Circumstances(Cell("falcon", "tutorial", "tutorial", 0, 0), "generated", "natural", "generate", kv_cache)
    dialog = replay(conversation, around, Rules({**sampling, "eos_token_id": newline}))
    session = backend.open_session()
    return Talk([dialog.send(session.reply(request, lambda ids: None)) for request in dialog], prompts)


@pytest.fixture(scope="module")
def newline() -> int:
    (one,) = zoo.tokenizer()("\n")["input_ids"]
    return one


def seed_of(turn: int) -> int:
    return turn_seed(0, "tutorial", turn, 0)


GREEDY = {"do_sample": False, "max_length": 400}
SAMPLED = {"do_sample": True, "top_k": 10, "max_length": 400}


@pytest.mark.parametrize("kv_cache", ["fresh", "reuse"])
@pytest.mark.parametrize(
    "settings", [GREEDY, SAMPLED, {**SAMPLED, "temperature": 3.0}], ids=["greedy", "sampled", "hot"]
)
def test_replies_are_those_of_the_pipeline_turn_by_turn(
    settings: dict[str, Any], kv_cache: str, falcon: Path, newline: int
) -> None:
    talk = ours(falcon, newline, QUESTIONS, kv_cache, **settings)
    reference = {"temperature": 1.0, **settings} if settings["do_sample"] else settings
    # As long as the conversation lasts: a hot one reaches max_length, where the tutorial's loop raises.
    expected = tutorial(falcon, newline, QUESTIONS[: len(talk.records)], seed_of, **reference)
    assert talk.prompts == [line.prompt for line in expected]
    assert [record.reply for record in talk.records] == [line.reply for line in expected]
    assert len(talk.records) >= 2
    if settings is not GREEDY:
        return
    assert len(talk.records) == len(QUESTIONS)
    assert {record.finish_reason for record in talk.records} == {"stop"}
    assert talk.records[0].reply == "It is described by forces."


def test_reaching_max_length_ends_the_conversation(falcon: Path, newline: int) -> None:
    whole = ours(falcon, newline, QUESTIONS, **GREEDY).records
    third = whole[2]
    limit = third.prompt_tokens + third.completion_tokens - 2
    records = ours(falcon, newline, QUESTIONS, do_sample=False, max_length=limit).records
    assert [record.finish_reason for record in records] == ["stop", "stop", "max_length"]
    assert records[2].completion_tokens == third.completion_tokens - 2
    assert records[2].tokens_left == 0


def test_a_prompt_at_the_limit_is_a_record_without_ids(falcon: Path, newline: int) -> None:
    whole = ours(falcon, newline, QUESTIONS, **GREEDY).records
    records = ours(falcon, newline, QUESTIONS, do_sample=False, max_length=whole[2].prompt_tokens).records
    assert [record.finish_reason for record in records] == ["stop", "stop", "max_length"]
    last = records[2]
    assert (last.failure, last.completion_tokens, last.reply, last.stamps.ticks) == (None, 0, "", ())
    with pytest.raises(ValueError, match="max_length"):
        tutorial(falcon, newline, QUESTIONS[:3], seed_of, do_sample=False, max_length=whole[2].prompt_tokens)
