"""Choosing the next id exactly as `generate` does: the same processors in the same order, the same draw.

Hugging Face's own logits processors are built by the model's own method from the merged settings. The draw is a
softmax over the whole vocabulary and one `torch.multinomial` of it: drawing among the k ids that top_k leaves over
would be cheaper, and would give other ids for the same seed.
"""

from __future__ import annotations

from copy import copy
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from harness.backends.failures import NonFiniteLogitsError

_HUGE = 1e30
"""Stands for infinity before the sampler: dividing it by a temperature leaves it finite, and exp(-1e30) is 0."""


class LastScores(LogitsProcessor):
    """Remembers the scores of the last step, so that they can be looked at when the turn is over.

    Looking at every step would force a synchronisation each time. One look at the end finds the same: a NaN that
    enters the key/value cache stays there, and every later step attends to it. Where torch samples on an accelerator,
    a NaN among the probabilities trips an assertion on the device that ends the whole process, so there the scores
    that go on to the sampler are made finite; that is one elementwise kernel on one row, queued like the others.
    """

    def __init__(self, *, make_finite: bool) -> None:
        self.scores: torch.Tensor | None = None
        self._make_finite = make_finite

    @classmethod
    def of(cls, config: GenerationConfig, device: torch.device, *, in_batch: bool = False) -> LastScores:
        """As it is needed for these settings on this device. In a batch one row must not fail the others' draw."""
        return cls(make_finite=bool(config.do_sample) and (in_batch or device.type != "cpu"))

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> Any:
        self.scores = scores
        if not self._make_finite:
            return scores
        return torch.nan_to_num(scores, nan=0.0, posinf=_HUGE, neginf=-_HUGE)

    def demand_finite(self) -> None:
        """Raise NonFiniteLogitsError if the scores hold NaN or +infinity, or nothing but -infinity (a mask's sign).

        Scores are (B, vocabulary); one bad row is enough. Costs a synchronisation.
        """
        if self.scores is not None and not bool(torch.isfinite(self.scores.amax(-1)).all()):
            raise NonFiniteLogitsError("the model's logits are not finite (NaN or infinity)")


def for_turn(config: GenerationConfig, prompt_tokens: int, room: int) -> GenerationConfig:
    """The settings of one turn: `room` ids at the most after a prompt of `prompt_tokens` ids."""
    turn = copy(config)
    turn.max_length = prompt_tokens + room
    if turn.min_new_tokens is not None:
        turn.min_new_tokens = min(turn.min_new_tokens, room)
    return turn


class Sampler:
    """Chooses the next id of each of B rows, for one turn."""

    def __init__(
        self,
        model: PreTrainedModel,
        config: GenerationConfig,
        prompt_ids: torch.Tensor,
        *,
        room: int,
        attention_mask: torch.Tensor | None = None,
        in_batch: bool = False,
    ) -> None:
        """`prompt_ids` are (B, n), `attention_mask` likewise where rows are padded on the left, both on the device
        that logits will be on; `config` holds merged settings and stays as it is.

        Draws come from torch's global generator: seed it (`torch.manual_seed`) before the first `pick`.
        """
        rows, tokens = prompt_ids.shape
        device = prompt_ids.device
        turn = for_turn(config, tokens, room)
        if turn.min_new_tokens is not None:
            turn.min_length = None  # as in generate, where the one overrides the other
        internals: Any = model
        internals._prepare_special_tokens(turn, True, device=device, batch_size=rows)
        self.last = LastScores.of(config, device, in_batch=in_batch)
        self._processors = internals._get_logits_processor(
            generation_config=turn,
            input_ids_seq_length=tokens,
            encoder_input_ids=prompt_ids,
            logits_processor=LogitsProcessorList([self.last]),
            device=device,
            model_kwargs={"attention_mask": attention_mask},
        )
        self._do_sample = bool(turn.do_sample)

    @property
    def reads_ids(self) -> bool:
        """Whether any processor looks at the ids so far (repetition penalties and the like do, temperature and top_k
        do not): where none does, `pick` may be given any ids."""
        first = type(self._processors[0]) if self._processors else LastScores
        return first is not LastScores or any("atermark" in type(one).__name__ for one in self._processors)

    def pick(self, input_ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """The next ids, (B,), for the ids so far (B, n) and the logits (B, vocabulary) of the last of them."""
        scores = logits.float()  # as generate does, whatever the model computes in
        for processor in self._processors:  # not through the list itself, which inspects every signature every time
            scores = processor(input_ids, scores)
        if not self._do_sample:
            return scores.argmax(-1)
        return torch.multinomial(torch.softmax(scores, dim=-1), num_samples=1).squeeze(1)

    def demand_finite(self) -> None:
        """Raise NonFiniteLogitsError if the last logits were not finite. Costs a synchronisation."""
        self.last.demand_finite()
