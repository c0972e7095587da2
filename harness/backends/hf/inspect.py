"""Looks at a model from outside: its config, its card, its tokenizer, and a dry run without weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

from jinja2 import TemplateError

from harness.backends.fit import Fit, Footprint, judge
from harness.backends.hf.dry_run import footprint
from harness.backends.hf.engines import model_class_of, why_not, why_not_together
from harness.backends.hf.formats import Format, TemplateFormat, choose_format
from harness.backends.hf.source import Source, generation_config, open_source, weight_files
from harness.backends.inspection import Demand, EngineSupport, Inspection, Template
from harness.backends.thoughts import MARKS
from harness.config.schema import ChatFormat, Engine, ModelSpec
from harness.conversations.script import Conversation
from harness.hub.card import read_card
from harness.hub.fetch import WEIGHTS, listing
from harness.meters.capacity import Capacity, capacities, host
from harness.records import Message, Persona, short_hash

_SYSTEM, _USER = "You are a probe for Xylophones.", "Say something of Zeppelins."
_TOOL = {
    "type": "function",
    "function": {
        "name": "count_quokkas", "description": "Counts.",
        "parameters": {"type": "object", "properties": {}, "required": []},
    },
}  # fmt: skip
"""Words that no template has of its own, so that finding them in a prompt means that it took them."""
_SWITCHES = ("enable_thinking", "reasoning_effort")


def inspect(
    spec: ModelSpec,
    name: str,
    *,
    conversations: Sequence[Conversation],
    new_tokens: int,
    concurrency: int,
    chat_format: ChatFormat,
    template_now: str,
    places: Sequence[Capacity] | None,
) -> Inspection:
    """See `harness.backends.open.inspect`; `name` is what from_pretrained takes."""
    source = open_source(spec, name)
    print_of = footprint(source)
    tokenizer = source.tokenizer
    form = choose_format(
        tokenizer, chat_format, subject=spec.model, template_kwargs=spec.template_kwargs, template_now=template_now
    )
    demands = tuple(_demand(form, one, new_tokens, print_of) for one in conversations)
    longest = max((demand.tokens for demand in demands), default=min(print_of.context_tokens or 4096, 4096))
    sizes = weight_files(source)
    return Inspection(
        model=spec.model,
        commit=None if source.held is None else source.held.commit,
        architecture=_architecture(source),
        model_type=source.config.model_type,
        footprint=print_of,
        disk_bytes=sum(sizes.values()) or None,
        formats=_formats(source),
        card=read_card(Path(source.name)),
        template=look_at_template(form, spec.template_kwargs, template_now),
        special_tokens={key: str(value) for key, value in tokenizer.special_tokens_map.items()},
        vocabulary=len(tokenizer),
        generation_config=generation_config(source),
        remote_code=bool(getattr(source.config, "auto_map", None)),
        engines=tuple(_support(spec, source, engine) for engine in get_args(Engine)),
        unusual=tuple(_unusual(source, print_of, form)),
        demands=demands,
        fits=fits(spec, print_of, longest, concurrency, places),
    )


def fits(
    spec: ModelSpec, print_of: Footprint, tokens: int, concurrency: int, places: Sequence[Capacity] | None
) -> tuple[Fit, ...]:
    """The fit on each of the places, or on each that the spec's device_map allows of this machine."""
    here = capacities() if places is None else tuple(places)
    accelerators = [place for place in here if place.is_accelerator]
    spare = host().usable_bytes if spec.device_map == "auto" else 0
    if places is None and spec.device_map in (None, "cpu"):
        accelerators = []
    chosen = accelerators or here
    return tuple(judge(print_of, place, tokens, concurrency, spare) for place in chosen)


def tokens_of(form: Format, conversation: Conversation, new_tokens: int) -> int:
    """How long the last prompt and its reply may become together: gold replies where there are any, others at their
    longest. A template that refuses the conversation is passed over by its plain text."""
    messages = list(conversation.opening())
    missing = 0
    for turn in conversation.turns[:-1]:
        messages += [Message("user", turn.user), Message("assistant", turn.assistant or "")]
        missing += 0 if turn.assistant is not None else new_tokens
    messages.append(Message("user", conversation.turns[-1].user))
    try:
        text, _ = form.render(messages, conversation.persona)
    except TemplateError:
        text = "\n".join(message.content for message in messages)
    return len(form.encode(text)) + missing + new_tokens


def _demand(form: Format, conversation: Conversation, new_tokens: int, print_of: Footprint) -> Demand:
    tokens = tokens_of(form, conversation, new_tokens)
    limit = print_of.context_tokens
    within = tokens if limit is None else min(tokens, limit)
    return Demand(conversation.id, within, print_of.cache_bytes(within), over_context=within < tokens)


def _architecture(source: Source) -> str:
    known = model_class_of(source.config)
    said: Any = getattr(source.config, "architectures", None) or ["?"]
    return known.__name__ if known is not None else str(said[0])


def _formats(source: Source) -> tuple[str, ...]:
    """The suffixes of the weights there are, in whatever form."""
    names: Iterable[str] = ()
    if source.held is not None:
        names = listing(source.held.model, source.held.commit) or ()
    elif Path(source.name).is_dir():
        names = (str(path) for path in Path(source.name).iterdir())
    return tuple(sorted({Path(name).suffix.removeprefix(".") for name in names if name.endswith(WEIGHTS)}))


def _support(spec: ModelSpec, source: Source, engine: Engine) -> EngineSupport:
    with_it = spec.model_copy(update={"engine": engine})
    why = why_not(with_it, source.config)
    return EngineSupport(engine, why, why if why is not None else why_not_together(with_it, source.config))


# --- the chat template ------------------------------------------------------------------------------------------------


def look_at_template(form: Format, template_kwargs: Mapping[str, Any], template_now: str) -> Template | None:
    """What a chat template does; None where prompts are transcripts."""
    if not isinstance(form, TemplateFormat):
        return None
    user = [Message("user", _USER)]
    system = [Message("system", _SYSTEM), *user]
    _, folded = form.render(system, Persona())
    plain = form.with_arguments(dict(template_kwargs))
    with_tool = form.with_arguments({**template_kwargs, "tools": [_TOOL]})
    return Template(
        digest=short_hash(form.template.encode()),
        system=folded[0] if folded else "own turn",
        alternates=_refuses(plain, [*user, *user]),
        tools=_says(with_tool, user, "count_quokkas"),
        reasoning=_reasoning(plain, user),
        dated=_dated(form.template, datetime.fromisoformat(template_now)),
    )


def _reasoning(form: TemplateFormat, user: list[Message]) -> str:
    template = form.template
    switches = [name for name in _SWITCHES if name in template]
    prompt = _rendered(form, user) or ""
    opened = next((start for start, _ in MARKS if prompt.rstrip().endswith(start)), None)
    if opened is not None:
        how = f"the prompt opens {opened}"
    elif any(start in template or end in template for start, end in MARKS):
        how = "the template knows a block of reasoning"
    else:
        how = "none"
    return f"{how}; template_kwargs: {', '.join(switches)}" if switches else how


def _dated(template: str, now: datetime) -> bool:
    return "strftime_now" in template or "date_string" in template


def _refuses(form: TemplateFormat, messages: list[Message]) -> bool:
    return _rendered(form, messages) is None


def _says(form: TemplateFormat, messages: list[Message], word: str) -> bool:
    return word in (_rendered(form, messages) or "")


def _rendered(form: TemplateFormat, messages: list[Message]) -> str | None:
    try:
        return form.render(messages, Persona())[0]
    except TemplateError:
        return None


# --- what is unusual --------------------------------------------------------------------------------------------------


def _unusual(source: Source, print_of: Footprint, form: Format) -> Iterable[str]:
    """One line for everything about a model that one would not expect of it."""
    config: Any = source.config
    text = config.get_text_config(decoder=True)
    tokenizer = source.tokenizer
    yield from source.notices
    yield from form.notices
    if text is not config:
        yield "takes more than text: only its language model is used"
    if print_of.context_tokens is None:
        yield "has no limit of context that its config would tell"
    if print_of.window_tokens is not None:
        share = print_of.windowed_kv_bytes_per_token / max(print_of.kv_bytes_per_token, 1)
        yield f"{share:.0%} of its cache is of layers that look back {print_of.window_tokens} tokens only"
    if print_of.state_bytes:
        yield f"keeps a recurrent state of {print_of.state_bytes} bytes per conversation, which cannot be taken back"
    experts = next((value for name in ("num_local_experts", "num_experts", "n_routed_experts")
                    if isinstance(value := getattr(text, name, None), int)), 0)  # fmt: skip
    if experts > 1:
        yield f"is a mixture of {experts} experts: all of them take memory, few of them time"
    if getattr(config, "quantization_config", None) is not None:
        yield "its weights are stored quantised"
    if tokenizer.eos_token_id is None:
        yield "its tokenizer has no end of text"
    if len(tokenizer) > text.vocab_size:
        yield f"its tokenizer has {len(tokenizer)} ids, and the model knows {text.vocab_size}"
    if print_of.dtype == "float32" and source.spec.dtype == "auto":
        yield "is loaded in float32, which takes twice the memory of bfloat16"
