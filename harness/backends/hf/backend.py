"""A loaded model: what was loaded, what its settings amount to, and sessions with it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from harness.backends.hf.engines import Crank, Engine, demand_sampling, open_together, why_not_together
from harness.backends.hf.formats import Format
from harness.backends.hf.reasoning import special_texts
from harness.backends.hf.session import HfSession
from harness.backends.hf.settings import Settled, settle
from harness.backends.seam import EffectiveSettings, LoadReport, Reply, Session, TurnRequest
from harness.config.schema import ModelSpec
from harness.meters.gauges import Gauges
from harness.records import Length


class HfBackend:
    """A model of transformers and its tokenizer, loaded and warm. Made by `harness.backends.hf.load.load`."""

    def __init__(
        self,
        spec: ModelSpec,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        chat_format: Format,
        own: Mapping[str, Any],
        context_tokens: int | None,
        report: LoadReport,
        gauges: Gauges,
        crank: Crank,
    ) -> None:
        self.spec = spec
        self.model = model
        self.tokenizer = tokenizer
        self.format = chat_format
        self.report = report
        self.gauges = gauges
        self.specials = special_texts(tokenizer)
        self._own = own
        self.context_tokens = context_tokens
        self._settled: dict[str, Settled] = {}
        self._crank = crank
        self.together = open_together(self)
        """What answers several sessions at once, or one; None where each session has an engine of its own."""

    def effective(self, sampling: Mapping[str, Any], length: Length) -> EffectiveSettings:
        """What generation runs with for this sampling; raises UsageError for one that cannot be carried out."""
        return self.settled(sampling, length).effective

    def settled(self, sampling: Mapping[str, Any], length: Length) -> Settled:
        """The merged settings, made once for each sampling: merging takes longer than a tiny model's first id."""
        key = f"{length} {json.dumps(sampling, sort_keys=True, default=repr)}"
        if key not in self._settled:
            settled = settle(
                sampling,
                length,
                engine=self.spec.engine,
                own=self._own,
                stop_ids=self.format.stop_ids(),
                tokenizer_eos=self.tokenizer.eos_token_id,
                context_tokens=self.context_tokens,
            )
            demand_sampling(self.spec, self.model.config, settled, self.format)
            self._settled[key] = settled
        return self._settled[key]

    def open_engine(self) -> Engine | None:
        """What answers the turns of a new conversation; None where conversations share one."""
        return None if self._crank.open is None else self._crank.open()

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def count(self, text: str | None) -> int | None:
        """How many ids a text has in this model's tokens; None for no text."""
        return None if text is None else len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def open_session(self) -> HfSession:
        return HfSession(self)

    @property
    def why_not_together(self) -> str | None:
        return why_not_together(self.spec, self.model.config)

    def reply_many(self, asked: Sequence[tuple[Session, TurnRequest]]) -> Sequence[Reply]:
        assert self.together is not None, self.why_not_together
        return self.together.reply([(cast("HfSession", session), request, _nobody) for session, request in asked])


def _nobody(ids: Sequence[int]) -> None:
    """Who listens to the ids of a batch while it is answered."""
