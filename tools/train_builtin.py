"""Trains the two built-in models, `pico` and `nano`, from the corpus beside this file.

What they are: tiny Llama-shaped chat models that know about a hundred questions of a small physics tutor by heart.
They stop by themselves and keep to the point in a conversation of twenty turns, so that a harness can be shown and
tested end to end without a download. What they are not: knowledgeable. A question outside the corpus gets a fluent
answer to another question, and a name told some turns ago is often forgotten. `nano` is a third of the size and
stopped early on purpose, so that it is visibly worse and there is something to compare.

Recipe: byte-level BPE with 1024 ids; Llama with tied embeddings; AdamW on the replies' tokens only (their end token
included); a linear warm-up and a cosine to zero, counted in steps and never in seconds, so that a slow machine trains
the same model; first short conversations (256 tokens), then long ones (1152 tokens, above twenty turns), without
which replies collapse once a history outgrows what was seen in training. Questions are varied at random (case,
end mark, a polite opening); the corpus's held-out phrasings never appear, not even as such a variation.

Time on two cores of a shared virtual machine: pico 9 to 20 minutes, depending on what else runs, nano 2.

    python tools/train_builtin.py pico              # train, save under harness/backends/builtin/, measure
    python tools/train_builtin.py pico --measure    # only measure what is saved
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from builtin_corpus import Corpus, Turn, converse, deal, load_corpus, reply_of
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

MODELS = Path(__file__).resolve().parent.parent / "harness" / "backends" / "builtin"

Message = dict[str, str]

# One special token opens each message and one closes it, so a message is tokenised alike wherever it stands.
BEGIN, END, PAD = "<|begin|>", "<|end|>", "<|pad|>"
SPECIAL = [PAD, BEGIN, END, "<|system|>", "<|user|>", "<|assistant|>"]
# The template writes <|begin|> itself and the tokenizer adds nothing: there is no second one to add by accident.
CHAT_TEMPLATE = (
    "{{- bos_token -}}\n"
    "{%- for message in messages -%}\n"
    "    {%- if message['role'] not in ['system', 'user', 'assistant'] -%}\n"
    "        {{- raise_exception('unknown role: ' + message['role']) -}}\n"
    "    {%- endif -%}\n"
    "    {{- '<|' + message['role'] + '|>' + message['content'] | trim + eos_token -}}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}\n"
    "    {{- '<|assistant|>' -}}\n"
    "{%- endif -%}\n"
)


@dataclass(frozen=True)
class Recipe:
    """The shape of a model and how long it is trained."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    short_steps: int
    long_steps: int
    peak_lr: float


RECIPES = {
    "pico": Recipe(
        hidden=192,
        layers=4,
        heads=6,
        kv_heads=3,
        intermediate=512,
        short_steps=600,
        long_steps=800,
        peak_lr=2e-3,
    ),
    "nano": Recipe(
        hidden=112,
        layers=3,
        heads=4,
        kv_heads=2,
        intermediate=304,
        short_steps=230,
        long_steps=150,
        peak_lr=2e-3,
    ),
}
VOCABULARY = 1024
MAX_POSITIONS = 2048
SHORT_BATCH, LONG_BATCH = (8, 256), (2, 1152)  # rows x tokens; both about 2000 tokens a step
WARM_UP_STEPS = 50


# ---- tokenizer and model ----


def build_tokenizer(corpus: Corpus, rng: random.Random) -> PreTrainedTokenizerFast:
    """Byte-level BPE over conversations sampled as in training."""
    texts: list[str] = []
    deck = deal(corpus, rng)
    for _ in range(300):
        persona, turns = converse(corpus, deck, rng, varied=True)
        texts.append(persona.system)
        for turn in islice(turns, 20):
            texts += [turn.question, turn.reply]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        extra_special_tokens=SPECIAL[3:],
        model_max_length=MAX_POSITIONS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=recipe.hidden,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.kv_heads,
            intermediate_size=recipe.intermediate,
            max_position_embeddings=MAX_POSITIONS,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


# ---- training ----


class Rows:
    """Deals training rows: one conversation each, as long as asked, labels on the replies only."""

    def __init__(self, corpus: Corpus, tokenizer: PreTrainedTokenizerFast, rng: random.Random) -> None:
        self.corpus, self.tokenizer, self.rng = corpus, tokenizer, rng
        self.deck = deal(corpus, rng)

    def row(self, length: int) -> tuple[list[int], list[int]]:
        """Ids and labels of exactly `length` tokens; -100 marks what bears no loss."""
        persona, turns = converse(self.corpus, self.deck, self.rng, varied=True)
        head = BEGIN + (f"<|system|>{persona.system}{END}" if persona.system else "")
        ids = self.encode(head)
        labels = [-100] * len(ids)
        while len(ids) < length:
            turn = next(turns)
            asked = self.encode(f"<|user|>{turn.question}{END}<|assistant|>")
            replied = self.encode(turn.reply + END)
            ids += asked + replied
            labels += [-100] * len(asked) + replied
        return ids[:length], labels[:length]

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def batch(self, rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        ids, labels = zip(*(self.row(length) for _ in range(rows)), strict=True)
        return torch.tensor(ids), torch.tensor(labels)


def train(model: LlamaForCausalLM, rows: Rows, recipe: Recipe, scale: float) -> None:
    """Train in place; prints the loss now and then."""
    short, long = round(recipe.short_steps * scale), round(recipe.long_steps * scale)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.peak_lr, betas=(0.9, 0.98), weight_decay=0.1)

    def factor(step: int) -> float:
        warm = min(1.0, (step + 1) / WARM_UP_STEPS)
        return warm * 0.5 * (1 + math.cos(math.pi * step / (short + long)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    started = time.perf_counter()
    model.train()
    for step in range(short + long):
        # One short batch in four, later too: the first turn of a conversation must not be forgotten.
        ids, labels = rows.batch(*(SHORT_BATCH if step < short or step % 4 == 0 else LONG_BATCH))
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 50 == 49:
            print(
                f"step {step + 1}/{short + long} loss {loss:.4f} {time.perf_counter() - started:.0f} s",
                flush=True,
            )


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """An ordinary Hugging Face folder: float16 on disk for size, declared float32 for speed on a CPU."""
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    ids = {"bos_token_id": model.config.bos_token_id, "eos_token_id": model.config.eos_token_id}
    GenerationConfig(**ids, pad_token_id=model.config.pad_token_id).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["dtype"] = "float32"  # half precision is slow on a CPU; loading converts at no loss
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


# ---- measuring ----


class Examiner:
    """Asks a saved model, greedily and in float32, and counts the replies that are exactly right."""

    def __init__(self, folder: Path, corpus: Corpus) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder)
        self.corpus = corpus

    def replies(self, histories: Sequence[list[Message]]) -> list[str]:
        """The next reply to each history; histories are answered in one left-padded batch."""
        texts = [
            self.tokenizer.apply_chat_template(history, tokenize=False, add_generation_prompt=True)
            for history in histories
        ]
        batch = self.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        batch.pop("token_type_ids", None)
        with torch.inference_mode():
            ids = self.model.generate(**batch, do_sample=False, max_new_tokens=64)
        return self.tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)

    def misses(self, turns: Sequence[Turn], system: str = "") -> list[tuple[str, str]]:
        """(question, wrong reply) of the turns that fail when asked alone."""
        head = [{"role": "system", "content": system}] if system else []
        missed = []
        for start in range(0, len(turns), 128):
            chunk = turns[start : start + 128]
            replies = self.replies([[*head, {"role": "user", "content": turn.question}] for turn in chunk])
            missed += [(t.question, r) for t, r in zip(chunk, replies, strict=True) if t.reply != r]
        return missed

    def alone(self, *, held_out: bool, persona: int = 0) -> list[Turn]:
        """Every trained phrasing, or every held-out one, as the first turn of a conversation."""
        user = self.corpus.users[0]
        return [
            Turn(
                phrasing.replace("{user}", user),
                reply_of(entry, self.corpus.personas[persona], user if entry.gives_user else None),
            )
            for entry in self.corpus.entries
            for phrasing in ([entry.held_out] if held_out else entry.phrasings)
        ]

    def long_talk(self, conversations: int, turns: int, seed: int = 0) -> list[tuple[int, str, str]]:
        """(turn, question, wrong reply) over seeded conversations whose own replies are fed back."""
        rng = random.Random(seed)
        deck = deal(self.corpus, rng)
        scripts, histories = [], []
        for _ in range(conversations):
            persona, endless = converse(self.corpus, deck, rng, varied=False)
            scripts.append(list(islice(endless, turns)))
            histories.append([{"role": "system", "content": persona.system}] if persona.system else [])
        missed = []
        for index in range(turns):
            for script, history in zip(scripts, histories, strict=True):
                history.append({"role": "user", "content": script[index].question})
            for script, history, reply in zip(scripts, histories, self.replies(histories), strict=True):
                history.append({"role": "assistant", "content": reply})
                if reply != script[index].reply:
                    missed.append((index, script[index].question, reply))
        return missed


def report(examiner: Examiner) -> None:
    """Print the figures that docs/builtin-models.md publishes, with every miss."""
    persona = 1  # "Bob is a professor in Physics."
    system = examiner.corpus.personas[persona].system
    for title, turns, head in (
        ("trained phrasings", examiner.alone(held_out=False), ""),
        (f"trained phrasings, system {system!r}", examiner.alone(held_out=False, persona=persona), system),
        ("held-out phrasings", examiner.alone(held_out=True), ""),
    ):
        missed = examiner.misses(turns, head)
        print(f"{title}: {len(turns) - len(missed)}/{len(turns)} exact")
        for question, reply in missed:
            print(f"    {question}  ->  {reply}")
    talked = examiner.long_talk(8, 20)
    print(f"turns of 8 conversations of 20: {160 - len(talked)}/160 exact")
    for index, question, reply in talked:
        print(f"    turn {index + 1}: {question}  ->  {reply}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and measure a built-in model.")
    parser.add_argument("model", choices=sorted(RECIPES))
    parser.add_argument("--measure", action="store_true", help="measure what is saved, train nothing")
    parser.add_argument("--steps-scale", type=float, default=1.0, help="factor on the number of steps")
    parser.add_argument("--out", type=Path, help="folder to save to and measure (default: the package's own)")
    options = parser.parse_args()
    folder = options.out or MODELS / options.model
    corpus = load_corpus()
    if not options.measure:
        torch.manual_seed(0)
        rng = random.Random(0)
        tokenizer = build_tokenizer(corpus, rng)
        recipe = RECIPES[options.model]
        model = build_model(recipe, tokenizer)
        print(f"{options.model}: {model.num_parameters():,} parameters, {len(tokenizer)} ids", flush=True)
        train(model, Rows(corpus, tokenizer, rng), recipe, options.steps_scale)
        save(model, tokenizer, folder)
    report(Examiner(folder, corpus))


if __name__ == "__main__":
    main()
