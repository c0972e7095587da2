"""What can be said of a model before a byte of its weights is read: plain values, for whoever shows or stores them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.backends.fit import Fit, Footprint
from harness.hub.card import Card


@dataclass(frozen=True, slots=True)
class Template:
    """What the chat template does with a conversation, found by trying."""

    digest: str
    system: str
    """`own turn`, or why it is put before the first user message."""
    alternates: bool
    """Whether it refuses two messages of one side in a row."""
    tools: bool
    """Whether tools that are passed show in the prompt."""
    reasoning: str
    """`none`; or how a block of reasoning comes about."""
    dated: bool
    """Whether it prints today's date."""


@dataclass(frozen=True, slots=True)
class EngineSupport:
    """Whether one of our engines runs the model."""

    engine: str
    why_not: str | None
    why_not_together: str | None
    """Why it cannot answer several conversations at once."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What the conversations of a prompts file ask of a model."""

    conversation_id: str
    tokens: int
    """Of its last prompt and reply; replies without a gold text count as long as they may become."""
    cache_bytes: int
    over_context: bool


@dataclass(frozen=True, slots=True)
class Inspection:
    """A model, looked at from outside."""

    model: str
    commit: str | None
    architecture: str
    model_type: str
    footprint: Footprint
    disk_bytes: int | None
    """Of the weights that would be loaded; None where there are none."""
    formats: tuple[str, ...]
    card: Card | None
    template: Template | None
    special_tokens: Mapping[str, str]
    vocabulary: int
    generation_config: Mapping[str, Any]
    remote_code: bool
    engines: tuple[EngineSupport, ...]
    unusual: tuple[str, ...]
    demands: tuple[Demand, ...]
    fits: tuple[Fit, ...]
