"""What a run will look like, from a model's tokenizer and configs alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import TemplateError

from harness.backends.failures import first_line
from harness.backends.hf.engines import NOT_STOCK, demand_engine, demand_sampling, why_not_together
from harness.backends.hf.formats import choose_format
from harness.backends.hf.settings import settle
from harness.backends.hf.source import context_tokens, generation_config, open_source
from harness.backends.seam import Preview
from harness.config.schema import ChatFormat, ModelSpec
from harness.errors import ModelError
from harness.records import Length, Message, Persona


def preview(
    spec: ModelSpec,
    name: str,
    *,
    samplings: Mapping[str, Mapping[str, Any]],
    length: Length,
    messages: tuple[Message, ...],
    persona: Persona,
    chat_format: ChatFormat,
    template_now: str,
) -> Preview:
    """See `harness.backends.open.preview`; `name` is what from_pretrained takes."""
    source = open_source(spec, name)
    demand_engine(spec, source.config)
    own = generation_config(source)
    form = choose_format(
        source.tokenizer,
        chat_format,
        subject=spec.model,
        template_kwargs=spec.template_kwargs,
        template_now=template_now,
    )
    try:
        prompt, notices = form.render(messages, persona)
    except TemplateError as error:
        raise ModelError(spec.model, f"its chat template refuses the conversation: {first_line(error)}") from None
    context = context_tokens(source.config)
    settled = {
        label: settle(
            sampling,
            length,
            engine=spec.engine,
            own=own,
            stop_ids=form.stop_ids(),
            tokenizer_eos=source.tokenizer.eos_token_id,
            context_tokens=context,
        )
        for label, sampling in samplings.items()
    }
    for one in settled.values():
        demand_sampling(spec, source.config, one, form)
    engine = [NOT_STOCK[spec.engine]] if spec.engine in NOT_STOCK else []
    return Preview(
        prompt,
        len(form.encode(prompt)),
        context,
        {label: one.effective for label, one in settled.items()},
        (*source.notices, *form.notices, *engine, *notices),
        why_not_together=why_not_together(spec, source.config),
        commits=source.commits,
    )
