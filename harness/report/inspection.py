"""A model's inspection as lines of text, and as values for JSON. What its card says is untrusted: made printable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from harness.backends.fit import Fit, Footprint
from harness.backends.inspection import EngineSupport, Inspection, Template
from harness.hub.card import Card
from harness.report.units import printable

_WIDTH = 20
_SHOWN = 8
"""Languages, datasets and the like that are listed before an ellipsis."""


def as_values(seen: Inspection) -> dict[str, Any]:
    """The inspection as JSON has it: every field under its name, bytes and tokens as whole numbers."""
    return asdict(seen)


def as_text(seen: Inspection) -> str:
    """The inspection as a page for a terminal."""
    rows = [
        ("model", seen.model + (f" at {seen.commit}" if seen.commit else "")),
        ("architecture", f"{seen.architecture} ({seen.model_type})"),
        ("parameters", f"{seen.footprint.parameters:,}"),
        ("dtype", seen.footprint.dtype),
        ("on disk", f"{size(seen.disk_bytes)} ({', '.join(seen.formats)})" if seen.formats else "no weights"),
        *_card(seen.card),
        ("context", f"{seen.footprint.context_tokens:,} tokens" if seen.footprint.context_tokens else "not limited"),
        *_template(seen.template),
        ("special tokens", ", ".join(f"{name} {text}" for name, text in seen.special_tokens.items()) or "none"),
        ("vocabulary", f"{seen.vocabulary:,}"),
        ("generation config", _pairs(seen.generation_config)),
        ("remote code", "its config names code that comes with it" if seen.remote_code else "none"),
    ]
    lines = [f"{name:<{_WIDTH}}{printable(str(value))}" for name, value in rows]
    lines += ["", "engines"]
    for one in seen.engines:
        lines.append(f"  {one.engine:<{_WIDTH - 2}}{_supported(one)}")
    if seen.unusual:
        lines += ["", "unusual", *(f"  {printable(line)}" for line in seen.unusual)]
    lines += ["", "memory (estimated)", *(f"  {line}" for line in memory_lines(seen.footprint))]
    for demand in seen.demands:
        over = ", more than its context" if demand.over_context else ""
        lines.append(f"  {printable(demand.conversation_id):<{_WIDTH - 2}}{demand.tokens:,} tokens{over}: "
                     f"cache of {size(demand.cache_bytes)}")  # fmt: skip
    lines += ["", "fit", *(f"  {fit_line(fit)}" for fit in seen.fits)]
    return "\n".join(lines)


def memory_lines(footprint: Footprint) -> Iterable[str]:
    """What the model takes, line by line."""
    stored = ", ".join(f"{name} {size(held)}" for name, held in footprint.weight_bytes_as.items())
    yield f"{'weights':<{_WIDTH - 2}}{size(footprint.weight_bytes)} as loaded; {stored}"
    window = ""
    if footprint.window_tokens is not None:
        part = size(footprint.windowed_kv_bytes_per_token)
        window = f", {part} of it up to {footprint.window_tokens:,} tokens only"
    yield f"{'cache per token':<{_WIDTH - 2}}{size(footprint.kv_bytes_per_token)}{window}"
    if footprint.state_bytes:
        yield f"{'state':<{_WIDTH - 2}}{size(footprint.state_bytes)} per conversation"
    works = ", ".join(f"{size(footprint.work_bytes(tokens))} for {tokens:,}" for tokens in (1024, 8192))
    yield f"{'activations':<{_WIDTH - 2}}{works} tokens of prompt"


def fit_line(fit: Fit) -> str:
    """One device: the answer, what is needed of what there is, and how far it would go."""
    at = f"{fit.conversations} × {fit.tokens:,} tokens" if fit.conversations > 1 else f"{fit.tokens:,} tokens"
    far = "not a single token"
    if fit.largest_context is not None:
        far = f"up to {fit.largest_context:,} tokens, or {fit.largest_concurrency or 0:,} × {fit.tokens:,}"
    return f"{fit.device}: {fit.answer}: {size(fit.needed_bytes)} of {size(fit.usable_bytes)} at {at}; {far}"


def size(held: int | None) -> str:
    """Bytes in the unit that a reader would choose: 512 B, 1.5 KiB, 14.96 GiB."""
    if held is None:
        return "unknown"
    for unit, step in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if held >= step:
            return f"{held / step:.2f} {unit}"
    return f"{held} B"


def _supported(one: EngineSupport) -> str:
    if one.why_not is not None:
        return f"no: {one.why_not}"
    if one.why_not_together is not None:
        return f"yes; not together: {one.why_not_together}"
    return "yes, also several conversations together"


def _card(card: Card | None) -> Iterable[tuple[str, str]]:
    if card is None:
        yield "card", "none"
        return
    yield "languages", _listed(card.languages) or "not said"
    yield "licence", card.licence or "not said"
    yield "trained on", _listed(card.datasets) or "not said"
    if card.base_models:
        yield "made from", _listed(card.base_models)
    yield "library", card.library or "not said"


def _template(template: Template | None) -> Iterable[tuple[str, str]]:
    if template is None:
        yield "chat template", "none: prompts are transcripts"
        return
    yield "chat template", template.digest
    yield "  system message", template.system
    yield "  roles", "have to alternate" if template.alternates else "in any order"
    yield "  tools", "yes" if template.tools else "no"
    yield "  reasoning", template.reasoning
    if template.dated:
        yield "  date", "prints today's; runs freeze it (template_now)"


def _listed(values: tuple[str, ...]) -> str:
    return ", ".join(values[:_SHOWN]) + (f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else "")


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(values.items())) or "empty"
