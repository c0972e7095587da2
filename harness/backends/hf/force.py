"""How likely a model finds a reply that it is made to say: one forward over prompt and reply, no sampling, no clock.

The logits of the last prompt id and of every id of the reply but its last are all that is needed. They are those of a
prefill, whose kernels round otherwise than the steps of decoding do; what is compared is always one such forward with
another over the very same ids, so that on a machine that computes alike every time the difference is nothing at all.

A row of logits is as long as the vocabulary. So a long reply is fed in pieces of `CHUNK` ids on a cache, where the
model keeps one that can be gone on with; others (recurrent states) take it whole. The pieces depend on nothing but the
number of ids, so that they are the same every night.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from inspect import signature
from itertools import pairwise
from typing import Any

import torch
from transformers import PreTrainedModel

from harness.backends.hf.cache import ConversationCache, why_not_reusable
from harness.backends.hf.generate import input_device
from harness.backends.seam import Forced

CHUNK = 256
"""Ids of a reply per forward: at 150 000 words, 154 MB of logits in float32."""


def why_not_forced(model: PreTrainedModel, prompt: int, ids: Sequence[int], context_tokens: int | None) -> str | None:
    """Why ids cannot be put after a prompt of so many ids; None if they can. On an accelerator an id or a position that
    a model has not ends the whole process, so it is asked before."""
    table: Any = model.get_input_embeddings()
    vocabulary = int(table.weight.shape[0])
    strange = [one for one in ids if not 0 <= one < vocabulary]
    if strange:
        return f"the model has {vocabulary} ids, and the reply holds {strange[0]}"
    if context_tokens is not None and prompt + len(ids) > context_tokens:
        return f"prompt and reply have {prompt + len(ids)} ids, and the context holds {context_tokens}"
    return None


def force(model: PreTrainedModel, prompt: Sequence[int], ids: Sequence[int], prompt_hash: str | None) -> Forced:
    """The log-probabilities of `ids` after `prompt`, and by how much the likeliest other id falls short of each.

    Raises whatever torch raises.
    """
    logprobs: list[float] = []
    best: list[int] = []
    margins: list[float] = []
    with torch.inference_mode():
        for said, logits in _pieces(model, prompt, ids):
            scores = torch.log_softmax(logits.float(), dim=-1)
            chosen = torch.tensor(said, device=scores.device)[:, None]
            told = scores.gather(-1, chosen)[:, 0]
            others, other_ids = scores.scatter(-1, chosen, -torch.inf).max(-1)
            logprobs += told.tolist()
            best += other_ids.tolist()
            margins += (told - others).tolist()
    if not all(map(_is_finite, (*logprobs, *margins))):
        return Forced(prompt_hash, why_not="the model's logits are not finite (NaN or infinity)")
    return Forced(prompt_hash, tuple(map(_short, logprobs)), tuple(best), tuple(map(_short, margins)))


def _pieces(
    model: PreTrainedModel, prompt: Sequence[int], ids: Sequence[int]
) -> Iterator[tuple[Sequence[int], torch.Tensor]]:
    """Some of the ids at a time, with the logits that each of them was chosen from: (ids, vocabulary)."""
    keeps = "logits_to_keep" in signature(type(model).forward).parameters
    chunk = CHUNK if len(ids) > CHUNK and why_not_reusable(model) is None else len(ids)
    cache: Any = None if chunk == len(ids) else ConversationCache(model, "reuse").new()
    steady: dict[str, Any] = {"use_cache": False} if cache is None else {"use_cache": True, "past_key_values": cache}
    everything = torch.tensor([[*prompt, *ids[:-1]]], dtype=torch.long, device=input_device(model))
    fed = 0
    for start, end in pairwise([*range(0, len(ids), chunk), len(ids)]):
        # The logits of the id before each of these: the last one of the prompt before the first.
        upto = len(prompt) + end - 1
        wanted: Any = {"logits_to_keep": end - start} if keeps else {}
        output: Any = model(input_ids=everything[:, fed:upto], **steady, **wanted)
        fed = upto
        yield ids[start:end], output.logits[0, -(end - start) :]


def _is_finite(value: float) -> bool:
    return abs(value) < float("inf")


def _short(value: float) -> float:
    """A float32 in the nine digits that tell it from every other: half as long in a file as the float64 it becomes."""
    return float(f"{value:.9g}")
