"""The engine `batched`: several conversations in lock-step, our own loop on the model's forward.

The prompts of all rows are prepared one after the other and prefilled in one forward; from then on every step gives
each row that is still talking one id: one forward, one copy of ids to the host. A row ends by itself – end of text,
stop string, room, time-out – and is stamped and read at that moment; the forward goes on to compute it, but what comes
out is masked, never counted and never ticked. So the times of a turn are those of a conversation that shares the
machine with others, and the time of a step is that of all its rows.

Where attention is full the cache is kept over turns for the whole batch (`joint_cache.py`). Under sliding windows and
in recurrent states, padding between a history and what follows it would be seen; there every turn is prefilled anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from transformers import DynamicCache, PreTrainedModel

from harness.backends.failures import UnbatchableError
from harness.backends.hf.arrivals import Arrivals
from harness.backends.hf.decode import for_decoding
from harness.backends.hf.generate import Generated, input_device
from harness.backends.hf.joint_cache import GrowingCache, JointCache
from harness.backends.hf.lockstep import Lockstep, keeps_cache, stretches_after
from harness.backends.hf.reasoning import Said
from harness.backends.hf.sampler import LastScores, Sampler
from harness.backends.hf.session import OpenTurn
from harness.backends.hf.together import Asked, Row, answer_rows
from harness.backends.seam import Reply

if TYPE_CHECKING:
    from harness.backends.hf.backend import HfBackend


class Batched:
    """Answers requests of several sessions together. One per loaded model, because it remembers the batch's cache."""

    def __init__(self, backend: HfBackend) -> None:
        self._model: PreTrainedModel = backend.model
        self._settled = backend.settled
        self._full = keeps_cache(type(backend.model), backend.model.config)
        self._keep = self._full and backend.spec.kv_cache == "reuse"
        self._cache = JointCache(backend.model)
        self._stretches_after = stretches_after(backend.model.config)

    def reply(self, asked: Asked) -> list[Reply]:
        """Answer one request of each session: see `together.answer_rows`."""
        return answer_rows(asked, self._settled, self._answer)

    def _answer(self, rows: Sequence[Row]) -> None:
        talks = [_Talk(row) for row in rows if not self._stretches(row)]
        if not talks:
            return
        steps = None
        with torch.inference_mode():
            try:
                steps = self._begin(talks)
                self._run(talks, steps)
            finally:  # whatever happens to the others, those that ended well have ended well
                self._finish(talks, steps)

    def _stretches(self, row: Row) -> bool:
        """Whether a row may become so long that it would change the others; then it has failed."""
        limit, ids = self._stretches_after, len(row.turn.prompt_ids) + row.turn.room
        if limit is None or ids <= limit:
            return False
        fact = (
            f"prompt and reply may have {ids} ids, and after {limit} the model's rotary embedding changes for all rows"
        )
        row.fail(UnbatchableError(f"{fact}; use engine: generate for so long ones"))
        return True

    def _begin(self, talks: Sequence[_Talk]) -> Lockstep:
        prompts = [talk.turn.prompt_ids for talk in talks]
        most_new = max(talk.turn.room for talk in talks)
        if not self._full:
            return Lockstep(self._model, prompts, DynamicCache(config=self._model.config), [0] * len(talks), most_new)
        taken = self._cache.take([(talk.row.session, prompt) for talk, prompt in zip(talks, prompts, strict=True)])
        for talk, cached in zip(talks, taken.cached, strict=True):
            talk.cached = cached
        return Lockstep(self._model, prompts, taken.cache, taken.cached, most_new)

    def _run(self, talks: Sequence[_Talk], steps: Lockstep) -> None:
        turns = [talk.turn for talk in talks]
        pick = _Picker(self._model, turns)
        torch.manual_seed(sum(turn.request.seed for turn in turns) % 2**32)  # a lone row's own
        logits = steps.prefill()
        with for_decoding(self._model):
            self._decode(talks, steps, pick, logits)

    def _decode(self, talks: Sequence[_Talk], steps: Lockstep, pick: _Picker, logits: torch.Tensor) -> None:
        while True:
            picked = pick(logits, [talk.arrivals.ids for talk in talks])
            ids = picked.tolist()  # the one synchronisation of a step
            talking = [(number, talk) for number, talk in enumerate(talks) if talk.goes_on]
            for _, talk in talking:
                talk.turn.request.stopwatch.tick(1)
            for number, talk in talking:
                try:
                    talk.hear(ids[number])
                except Exception as error:  # noqa: BLE001 - a time-out, or text that cannot be read: this row's alone
                    talk.row.fail(error)
                if not talk.goes_on:
                    talk.last.scores = pick.scores_of(number)
                    steps.hide(number)
            if not any(talk.goes_on for talk in talks):
                return
            logits = steps.step(picked)

    def _finish(self, talks: Sequence[_Talk], steps: Lockstep | None) -> None:
        """Make the replies, when nothing is timed any more, and hold the cache of the rows that ended well."""
        cache = steps.cache if steps is not None and isinstance(steps.cache, GrowingCache) else None
        sampled = bool(talks[0].row.turn.settled.config.do_sample)
        held = []
        for number, talk in enumerate(talks):
            if talk.said is None:
                continue
            try:
                reply = talk.finish(cache)
            except Exception as error:  # noqa: BLE001 - numbers that are none, or text that cannot be read
                talk.row.fail(error)
                continue
            talk.row.reply = replace(
                reply,
                batch_size=len(talks),
                paired=len(talks) == 1 or not sampled,
                kv_cache_bytes=None if cache is None else cache.nbytes // len(talks),
            )
            held.append((talk.row.session, number, [*talk.turn.prompt_ids, *talk.arrivals.ids[:-1]]))
        if self._keep and steps is not None and cache is not None and not any(talk.goes_on for talk in talks):
            self._cache.keep(held, cache, steps.mask)


class _Talk:
    """A row in lock-step with others: what it has said so far."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.turn = row.turn
        self.arrivals = Arrivals(row.turn, row.on_tokens)
        self.cached = 0
        self.said: Said | None = None
        """The text, once the row has ended well."""
        self.last = LastScores(make_finite=False)
        """The model's scores of the row's last step."""

    @property
    def goes_on(self) -> bool:
        return self.said is None and self.row.failure is None

    def hear(self, one: int) -> None:
        """An id has been ticked: end the row if this was its last, stamping `generated` and `ready`."""
        self.arrivals.look([one])
        ids, turn = self.arrivals.ids, self.turn
        if self.arrivals.stopped or one in turn.settled.eos_ids or len(ids) == turn.room:
            turn.request.stopwatch.generated()
            self.said = self.row.session.read(turn, ids)

    def finish(self, cache: GrowingCache | None) -> Reply:
        """The reply of a row that ended well. Raises NonFiniteLogitsError."""
        assert self.said is not None, "the row has ended well"
        generated = Generated(tuple(self.arrivals.ids), self.arrivals.stopped, self.last, self.cached, cache)
        return self.row.session.told(self.turn, generated, self.said)


class _Picker:
    """Chooses the next id of every row, as `generate` would for that row alone.

    A processor that looks at the ids so far – a repetition penalty, a least length – must not see the padding of a
    shorter row, so with such settings every row has a sampler of its own.
    """

    def __init__(self, model: PreTrainedModel, turns: Sequence[OpenTurn]) -> None:
        self._device, config = input_device(model), turns[0].settled.config
        self._unread = self._ids([[0]] * len(turns))
        self._prompts: list[torch.Tensor] = []
        together = Sampler(model, config, self._unread, room=max(turn.room for turn in turns), in_batch=True)
        self._samplers = [together]
        if together.reads_ids:
            self._prompts = [self._ids([turn.prompt_ids]) for turn in turns]
            self._samplers = [
                Sampler(model, config, ids, room=turn.room, in_batch=True)
                for ids, turn in zip(self._prompts, turns, strict=True)
            ]

    def __call__(self, logits: torch.Tensor, said: Sequence[Sequence[int]]) -> torch.Tensor:
        """The next ids, shaped (rows,), for logits (rows, vocabulary) and what each row has said so far."""
        if not self._prompts:
            return self._samplers[0].pick(self._unread, logits)
        picked = [
            sampler.pick(torch.cat([prompt, self._ids([ids])], dim=1), logits[row : row + 1])
            for row, (sampler, prompt, ids) in enumerate(zip(self._samplers, self._prompts, said, strict=True))
        ]
        return torch.cat(picked)

    def scores_of(self, row: int) -> torch.Tensor:
        """The model's scores for a row in the last step, shaped (1, vocabulary)."""
        scores = self._samplers[row if self._prompts else 0].last.scores
        assert scores is not None, "an id has been picked"
        return scores if self._prompts else scores[row : row + 1].clone()  # else they would keep those of all rows

    def _ids(self, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        return torch.tensor(ids, dtype=torch.long, device=self._device)
