"""The built-in models, measured with plain transformers: nothing of the harness between the weights and the claims.

The questions come from `tools/corpus`; the counting is that of `tools/train_builtin.py`, whose printed report
and these claims can therefore never differ. All of it greedy, in float32, on the saved files.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import sys
from functools import cached_property
from itertools import islice
from pathlib import Path
from types import ModuleType

import pytest

from harness.backends import builtin

os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported, which is later: inside `trainer`

MEBIBYTE = 1024 * 1024
TOOLS = Path(__file__).resolve().parent.parent / "tools"


class Measured:
    """Each share is measured once, when a claim first asks for it."""

    def __init__(self, trainer: ModuleType, name: str) -> None:
        self.examiner = trainer.Examiner(builtin.path(name), trainer.load_corpus())
        self.trainer = trainer

    def share(self, turns, system="") -> float:
        return 1 - len(self.examiner.misses(turns, system)) / len(turns)

    @cached_property
    def trained(self) -> float:
        return self.share(self.examiner.alone(held_out=False))

    @cached_property
    def held_out(self) -> float:
        return self.share(self.examiner.alone(held_out=True))

    @cached_property
    def long_talk(self) -> float:
        conversations, turns = 6, 20
        return 1 - len(self.examiner.long_talk(conversations, turns)) / (conversations * turns)


@pytest.fixture(scope="module")
def trainer() -> ModuleType:
    sys.path.insert(0, str(TOOLS))
    return importlib.import_module("train_builtin")


@pytest.fixture(scope="module")
def pico(trainer) -> Measured:
    return Measured(trainer, "pico")


@pytest.fixture(scope="module")
def nano(trainer) -> Measured:
    return Measured(trainer, "nano")


def test_pico_answers_trained_phrasings(pico):
    assert pico.trained >= 0.95


def test_pico_answers_held_out_phrasings(pico):
    assert pico.held_out >= 0.80


def test_pico_holds_a_conversation_of_twenty_turns(pico):
    assert pico.long_talk >= 0.95


def test_pico_is_not_derailed_by_a_system_message_it_has_never_seen(pico):
    system = "The assistant is friendly and knows a lot about nature."
    assert system not in {persona.system for persona in pico.examiner.corpus.personas}
    assert pico.share(pico.examiner.alone(held_out=False)[::4], system) >= 0.90


def test_pico_takes_its_name_from_the_persona(pico):
    asked = {"role": "user", "content": "What is your name?"}
    bob = {"role": "system", "content": "Bob is a professor in Physics."}
    replies = pico.examiner.replies([[bob, asked], [asked]])
    assert replies == [
        "My name is Bob. I like to talk about physics.",
        "My name is Newton. I like to talk about physics.",
    ]


def test_pico_repeats_a_name_it_was_just_told_and_invents_none(pico):
    told = [
        {"role": "user", "content": "My name is Alice."},
        {"role": "assistant", "content": "Nice to meet you, Alice. What would you like to know?"},
    ]
    asked = {"role": "user", "content": "What is my name?"}
    assert pico.examiner.replies([[*told, asked], [asked]]) == [
        "Your name is Alice.",
        "You have not told me your name yet.",
    ]


def test_pico_gives_the_two_answers_that_every_example_relies_on(pico):
    newton, lagrange = pico.examiner.replies(
        [
            [{"role": "user", "content": "What is Newtonian mechanics?"}],
            [{"role": "user", "content": "How about Lagrangian mechanics?"}],
        ]
    )
    assert "motion" in newton
    assert "energies" in lagrange


def test_pico_replies_with_json_when_asked_to(pico):
    [reply] = pico.examiner.replies([[{"role": "user", "content": "Give the speed of light as JSON."}]])
    assert json.loads(reply) == {"quantity": "speed of light", "value": 299792458, "unit": "m/s"}


def test_nano_says_something_sensible(nano):
    assert nano.trained >= 0.40


def test_nano_is_worse_than_pico(nano, pico):
    assert nano.held_out < pico.held_out
    assert nano.long_talk < pico.long_talk


def test_no_held_out_phrasing_can_be_trained(trainer):
    corpus = trainer.load_corpus()  # asserts it for every phrasing and prefix
    letters = importlib.import_module("builtin_corpus").letters
    rng = random.Random(1)
    _, turns = trainer.converse(corpus, trainer.deal(corpus, rng), rng, varied=True)
    held_out = {letters(entry.held_out) for entry in corpus.entries}
    assert not [turn for turn in islice(turns, 20_000) if letters(turn.question) in held_out]


@pytest.mark.parametrize(("name", "limit"), [("pico", 4.0), ("nano", 1.5)])
def test_a_built_in_model_stays_small(name, limit):
    size = sum(file.stat().st_size for file in builtin.path(name).iterdir())
    assert size <= limit * MEBIBYTE


@pytest.mark.parametrize("name", builtin.NAMES)
def test_weights_are_stored_in_half_precision_and_loaded_in_single(name, trainer):
    import torch
    from safetensors import safe_open

    folder = builtin.path(name)
    assert [file.name for file in folder.iterdir() if file.suffix in {".safetensors", ".bin", ".pt"}] == [
        "model.safetensors"
    ]
    with safe_open(folder / "model.safetensors", "pt") as stored:
        assert {stored.get_tensor(key).dtype for key in stored.keys()} == {torch.float16}  # noqa: SIM118 – no mapping
    for options in ({}, {"dtype": "auto"}):
        assert trainer.AutoModelForCausalLM.from_pretrained(folder, **options).dtype == torch.float32


@pytest.mark.parametrize("name", builtin.NAMES)
def test_a_rendered_conversation_begins_once_however_it_is_tokenised(name, trainer):
    tokenizer = trainer.AutoTokenizer.from_pretrained(builtin.path(name))
    messages = [
        {"role": "system", "content": "Answer briefly."},
        {"role": "user", "content": "Was ist Wärme? Größe: 3 µm"},
        {"role": "assistant", "content": "Gravity."},
        {"role": "user", "content": "Why?"},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    direct = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert direct == tokenizer.encode(text, add_special_tokens=False)
    assert direct == tokenizer.encode(text, add_special_tokens=True)
    assert direct.count(tokenizer.bos_token_id) == 1
    assert direct.count(tokenizer.eos_token_id) == len(messages)
    assert tokenizer.decode(direct) == text


@pytest.mark.parametrize("name", builtin.NAMES)
def test_generation_ends_by_the_saved_configuration_alone(name, trainer):
    folder = builtin.path(name)
    config = trainer.GenerationConfig.from_pretrained(folder)
    tokenizer = trainer.AutoTokenizer.from_pretrained(folder)
    assert (config.eos_token_id, config.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)


def test_an_unknown_name_is_told_the_known_ones():
    with pytest.raises(ValueError, match="pico and nano"):
        builtin.path("giga")
