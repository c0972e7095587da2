"""What a run will look like, from a model's tokenizer and configs alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import TemplateError

from harness.backends.failures import first_line
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
    effective = {
        label: settle(
            sampling,
            length,
            own=own,
            stop_ids=form.stop_ids(),
            tokenizer_eos=source.tokenizer.eos_token_id,
            context_tokens=context,
        ).effective
        for label, sampling in samplings.items()
    }
    return Preview(
        prompt,
        len(form.encode(prompt)),
        context,
        effective,
        (*source.notices, *form.notices, *notices),
        why_not_together=f"the engine {spec.engine} answers one conversation at a time",
    )
