"""What a model's card says of it, in the block of YAML at its top. Whoever wrote it may have written anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import metadata_load

CARD = "README.md"


@dataclass(frozen=True, slots=True)
class Card:
    """The fields of a card that tell whether a model is one to try; empty where it says nothing."""

    languages: tuple[str, ...] = ()
    licence: str | None = None
    datasets: tuple[str, ...] = ()
    """What it says the model was trained on."""
    base_models: tuple[str, ...] = ()
    library: str | None = None
    task: str | None = None
    tags: tuple[str, ...] = ()


def read_card(folder: Path) -> Card | None:
    """The card of a model that lies in a folder; None where there is none that can be read."""
    path = folder / CARD
    if not path.is_file():
        return None
    try:
        said = metadata_load(path)
    except Exception:  # noqa: BLE001 – anybody may have written anything there, and its reader raises as many kinds
        return None
    return card_of(said or {})


def card_of(said: Any) -> Card:
    """A card from its fields, of which any may be missing or of the wrong kind."""
    said = said if isinstance(said, dict) else {}
    licence = _text(said.get("license"))
    if licence == "other":
        licence = _text(said.get("license_name")) or licence
    return Card(
        languages=_texts(said.get("language")),
        licence=licence,
        datasets=_texts(said.get("datasets")),
        base_models=_texts(said.get("base_model")),
        library=_text(said.get("library_name")),
        task=_text(said.get("pipeline_tag")),
        tags=_texts(said.get("tags")),
    )


def _texts(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    # YAML takes the language `no` for a truth value, as cards that mean Norwegian show.
    return tuple("no" if one is False else str(one) for one in values if one is not None)


def _text(value: Any) -> str | None:
    found = _texts(value)
    return found[0] if found else None
