"""What moves the log-probabilities of a reply, and by how much: the table in docs/gate.md.

    python -m benchmarks.text_shifts builtin:pico builtin:nano llama

Every model replies greedily to the shipped prompts; the replies are forced on the same model loaded anew, with another
attention, another number of threads, in another dtype, and with one matrix changed. `llama` is the tests' tiny Llama of
random weights, whose logits are large, and whose next ids are never sure. A few minutes each, on a CPU.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from harness.analysis.text_floor import LEAST
from harness.backends.open import open_backend
from harness.chat import Rules, replay
from harness.config.schema import ModelSpec
from harness.conversations.script import Conversation
from harness.forced import ForcedReply, Known, recite
from harness.records import Cell, Circumstances
from harness.runner.drive import drive
from harness.runner.forcing import own
from harness.studies.replay import resolve
from tests import zoo

RULES = Rules(sampling={"max_new_tokens": 64})
MOST_CONVERSATIONS = 8
MATRIX = "layers.0.mlp.down_proj.weight"
EMBEDDINGS = "embed_tokens.weight"


class Variant(NamedTuple):
    """The model that is held against the one with the same dtype and nothing else of this."""

    name: str
    dtype: str = "float32"
    attention: str | None = None
    threads: int = 1
    scaled: tuple[str, float] | None = None
    against: str | None = None
    """Another dtype to be held against."""


VARIANTS = (
    Variant("loaded again"),
    Variant("another attention (eager)", attention="eager"),
    Variant("2 threads", threads=2),
    Variant("one matrix × 1.0001", scaled=(MATRIX, 1.0001)),
    Variant("one matrix × 1.001", scaled=(MATRIX, 1.001)),
    Variant("one matrix × 1.01", scaled=(MATRIX, 1.01)),
    Variant("embeddings × 1.01", scaled=(EMBEDDINGS, 1.01)),
    Variant("bfloat16 instead", "bfloat16", against="float32"),
    Variant("loaded again", "bfloat16"),
    Variant("another attention (eager)", "bfloat16", attention="eager"),
    Variant("one matrix × 1.01", "bfloat16", scaled=(MATRIX, 1.01)),
    Variant("one matrix × 1.03", "bfloat16", scaled=(MATRIX, 1.03)),
    Variant("another attention (eager)", "float16", attention="eager"),
    Variant("one matrix × 1.01", "float16", scaled=(MATRIX, 1.01)),
)


class Said(NamedTuple):
    """What a model said, and how likely it found it."""

    talks: Sequence[tuple[Conversation, Known]]
    forced: Sequence[ForcedReply]


def main(models: Sequence[str]) -> None:
    talks = resolve({"models": ["builtin:pico"], "conversations": ["prompts/*.yaml"]}).conversations
    print("| model | dtype | what is different | drift | worst | replies changed | beyond the floor |")
    print("|---|---|---|---|---|---|---|")
    for model in models:
        with tempfile.TemporaryDirectory() as folder:
            source = model if ":" in model else str(zoo.save(Path(folder), model))
            references: dict[str, Said] = {}
            for variant in VARIANTS:
                against = variant.against or variant.dtype
                if against not in references:
                    references[against] = _said(_load(source, Variant("", against)), talks[:MOST_CONVERSATIONS])
                _tell(model, variant, against, references[against], _load(source, variant))


def _load(source: str, variant: Variant) -> Any:
    torch.set_num_threads(variant.threads)
    spec = ModelSpec(model=source, dtype=variant.dtype, attn_implementation=variant.attention)  # type: ignore[arg-type]
    backend: Any = open_backend(spec, chat_format="auto", template_now="2026-01-01T00:00:00")
    if variant.scaled is not None:
        ending, by = variant.scaled
        (weights,) = [one for name, one in backend.model.named_parameters() if name.endswith(ending)]
        with torch.no_grad():
            weights.mul_(by)
    return backend


def _said(backend: Any, conversations: Sequence[Conversation]) -> Said:
    talks = []
    for conversation in conversations:
        dialog = replay(conversation, _around(conversation), RULES)
        records = list(drive(dialog, backend.open_session(), backend.gauges))
        talks.append((conversation, own([record for record in records if record.failure is None], "")))
    return Said(talks, _forced(backend, talks))


def _forced(backend: Any, talks: Sequence[tuple[Conversation, Known]]) -> Sequence[ForcedReply]:
    return [
        reply
        for talk, known in talks
        for reply in recite(known, talk, _around(talk), RULES, backend.open_session(), wanted=lambda said: True)
    ]


def _around(conversation: Conversation) -> Circumstances:
    return Circumstances(Cell("model", "greedy", conversation.id, 0, 0), "generated", "natural", "generate", "reuse")


def _tell(model: str, variant: Variant, against: str, reference: Said, backend: Any) -> None:
    pairs = zip(reference.forced, _forced(backend, reference.talks), strict=True)
    moved = [np.subtract(after.logprobs, before.logprobs) for before, after in pairs]
    drift = max(float(np.abs(one).mean()) for one in moved)
    worst = max(float(np.abs(one).max()) for one in moved)
    now = _said(backend, [talk for talk, _ in reference.talks])
    replies = [
        (before.ids, after.ids)
        for (_, ours), (_, theirs) in zip(reference.talks, now.talks, strict=True)
        for before, after in zip(ours.replies, theirs.replies, strict=False)
    ]
    changed = sum(before != after for before, after in replies)
    floor = LEAST[against]
    beyond = "yes" if drift > floor.drift or worst > floor.worst else "no"
    figures = f"{drift:.1e} | {worst:.1e} | {changed} of {len(replies)} | {beyond}"
    print(f"| {model} | {against} | {variant.name} | {figures} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or ["builtin:pico", "builtin:nano", "llama"])
