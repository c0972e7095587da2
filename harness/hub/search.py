"""Finds models: on the Hub, page by page until enough fit; or, where it cannot be asked, in the local cache.

The Hub filters by words, task, language, library, licence, size and gate itself. What it cannot filter by – when a
model was updated, how often it was downloaded, whether it has a chat template – is looked at here, model by model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import HfApi, ModelInfo, constants
from huggingface_hub.errors import HfHubHTTPError

from harness.hub.cache import cached_commit, cached_models, snapshot_of
from harness.hub.card import Card, card_of, read_card
from harness.hub.reach import UNREACHABLE, explanation, is_unreachable

Sort = Literal["downloads", "likes", "updated", "created", "trending", "parameters", "name"]
SORTS: dict[Sort, Any] = {
    "downloads": "downloads", "likes": "likes", "updated": "last_modified", "created": "created_at",
    "trending": "trending_score",
}  # fmt: skip
"""What the Hub sorts by, in its own words; the rest is sorted here, after the most downloaded were found."""
MOST_LOOKED_AT = 2000
"""Models that are looked at for filters of our own before the search ends."""
_ASKED_FOR: Any = [
    "cardData", "config", "createdAt", "downloads", "gated", "lastModified", "library_name", "likes", "pipeline_tag",
    "safetensors", "sha", "tags",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a model has to be; None: anything."""

    words: str | None = None
    task: str | None = None
    language: str | None = None
    library: str | None = None
    licence: str | None = None
    author: str | None = None
    least_parameters: int | None = None
    most_parameters: int | None = None
    least_downloads: int | None = None
    updated_since: date | None = None
    chat_template: bool | None = None
    gated: bool | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A model that was found; None for what is not known of it."""

    model: str
    commit: str | None
    task: str | None
    library: str | None
    languages: tuple[str, ...]
    licence: str | None
    parameters: int | None
    """As the headers of its safetensors files say."""
    downloads: int | None
    """In the last thirty days."""
    likes: int | None
    updated: datetime | None
    chat_template: bool | None
    gated: bool | None


@dataclass(frozen=True, slots=True)
class Search:
    """What was found, and what there is to know about how."""

    found: tuple[Found, ...]
    notices: tuple[str, ...] = ()


def search(wanted: Wanted, *, sort: Sort, limit: int) -> Search:
    """The first `limit` models that are as wanted. Raises ModelError where the Hub refuses to answer."""
    if constants.HF_HUB_OFFLINE:
        return _in_cache(wanted, sort, limit, "HF_HUB_OFFLINE is set")
    try:
        return _on_hub(wanted, sort, limit)
    except (HfHubHTTPError, *UNREACHABLE) as error:
        if not is_unreachable(error):
            raise explanation("models search", None, error) from error
        return _in_cache(wanted, sort, limit, f"the Hub could not be asked ({type(error).__name__})")


def _on_hub(wanted: Wanted, sort: Sort, limit: int) -> Search:
    tags = [tag for tag in (wanted.language, wanted.library) if tag is not None]
    if wanted.licence is not None:
        tags.append(f"license:{wanted.licence}")
    answers = HfApi().list_models(
        search=wanted.words,
        filter=tags or None,
        pipeline_tag=wanted.task,
        author=wanted.author,
        num_parameters=_range(wanted.least_parameters, wanted.most_parameters),
        gated=wanted.gated,
        sort=SORTS.get(sort, "downloads"),
        expand=_ASKED_FOR,
    )
    found: list[Found] = []
    for looked_at, info in enumerate(answers, 1):
        one = _found(info)
        if _fits(wanted, one, only=_OURS):
            found.append(one)
        if len(found) == limit:
            break
        if looked_at == MOST_LOOKED_AT:
            note = f"{MOST_LOOKED_AT} models were looked at, and no more: filter by words, task or size to see others"
            return Search(tuple(_sorted(found, sort)), (note,))
    return Search(tuple(_sorted(found, sort)))


def _range(least: int | None, most: int | None) -> str | None:
    """A range of parameters as the Hub writes it: min:1B,max:8B; there a unit is a must."""
    parts = [f"{name}:{value / 10**6:g}M" for name, value in (("min", least), ("max", most)) if value is not None]
    return ",".join(parts) or None


def _found(info: ModelInfo) -> Found:
    data: Any = info.card_data
    card = card_of(None if data is None else data.to_dict())
    tags: list[str] = info.tags or []
    licence = next((tag.partition(":")[2] for tag in tags if tag.startswith("license:")), None)
    safetensors = info.safetensors
    return Found(
        model=info.id,
        commit=info.sha,
        task=info.pipeline_tag,
        library=info.library_name,
        languages=card.languages,
        licence=card.licence or licence,
        parameters=None if safetensors is None else safetensors.total,
        downloads=info.downloads,
        likes=info.likes,
        updated=info.last_modified,
        chat_template=_has_template(info.config),
        gated=None if info.gated is None else bool(info.gated),
    )


def _has_template(config: Any) -> bool | None:
    """Whether the Hub has seen a chat template; it keeps that of the tokenizer's config and of a file of its own."""
    if not isinstance(config, dict):
        return None
    tokenizer = config.get("tokenizer_config")
    inside = isinstance(tokenizer, dict) and bool(tokenizer.get("chat_template"))
    return inside or bool(config.get("chat_template_jinja"))


# --- the local cache --------------------------------------------------------------------------------------------------


def _in_cache(wanted: Wanted, sort: Sort, limit: int, why: str) -> Search:
    here = [_cached(name) for name in cached_models()]
    asked = [name for name in _FILTERS if getattr(wanted, name) is not None]
    found = [one for one in here if _fits(wanted, one, only=asked, unknown_fits=True)]
    unknown = [name for name in asked if any(_is_unknown(one, name) for one in found)]
    notes = [f"{why}: these are the models of the local cache ({constants.HF_HUB_CACHE})"]
    if unknown:
        notes.append(f"the cache does not tell of all of them: {', '.join(unknown)}")
    return Search(tuple(_sorted(found, sort)[:limit]), tuple(notes))


def _cached(name: str) -> Found:
    snapshots = snapshot_of(name, "").glob("*")
    commit = cached_commit(name, None) or max(snapshots, key=lambda path: path.stat().st_mtime).name
    folder = snapshot_of(name, commit)
    card = read_card(folder) or Card()
    updated = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
    return Found(
        model=name,
        commit=commit,
        task=card.task,
        library=card.library,
        languages=card.languages,
        licence=card.licence,
        parameters=None,
        downloads=None,
        likes=None,
        updated=updated,
        chat_template=(folder / "chat_template.jinja").exists() or _says_template(folder / "tokenizer_config.json"),
        gated=None,
    )


def _says_template(path: Path) -> bool:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # there is none, or none that can be read
        return False
    return isinstance(said, dict) and bool(said.get("chat_template"))


# --- filters and order ------------------------------------------------------------------------------------------------


def _is_at_least(value: Any, wanted: Any) -> bool:
    return value is not None and bool(value >= wanted)


def _is_at_most(value: Any, wanted: Any) -> bool:
    return value is not None and bool(value <= wanted)


def _is(value: Any, wanted: Any) -> bool:
    return bool(value == wanted)


_FILTERS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "words": ("model", lambda name, words: words.lower() in name.lower()),
    "author": ("model", lambda name, author: name.partition("/")[0] == author),
    "task": ("task", _is),
    "library": ("library", _is),
    "language": ("languages", lambda languages, language: language in languages),
    "licence": ("licence", _is),
    "least_parameters": ("parameters", _is_at_least),
    "most_parameters": ("parameters", _is_at_most),
    "least_downloads": ("downloads", _is_at_least),
    "updated_since": ("updated", lambda at, since: at is not None and at.date() >= since),
    "chat_template": ("chat_template", _is),
    "gated": ("gated", _is),
}
"""Filter → the field of a model it looks at, and whether a value of that will do."""
_OURS = frozenset({"least_downloads", "updated_since", "chat_template"})


def _fits(wanted: Wanted, one: Found, *, only: Iterable[str], unknown_fits: bool = False) -> bool:
    for name in only:
        field, will_do = _FILTERS[name]
        asked = getattr(wanted, name)
        if asked is None or (unknown_fits and _is_unknown(one, name)):
            continue
        if not will_do(getattr(one, field), asked):
            return False
    return True


def _is_unknown(one: Found, name: str) -> bool:
    return getattr(one, _FILTERS[name][0]) in (None, ())


def _sorted(found: Iterable[Found], sort: Sort) -> list[Found]:
    """In the order asked for; what is not known comes last. The Hub's own order is kept for what only it knows."""
    field = {"downloads": "downloads", "likes": "likes", "updated": "updated", "parameters": "parameters"}.get(sort)
    models = list(found)
    if sort == "name":
        return sorted(models, key=lambda one: one.model.lower())
    if field is None:
        return models
    known = [one for one in models if getattr(one, field) is not None]
    known.sort(key=lambda one: getattr(one, field), reverse=True)
    return [*known, *(one for one in models if getattr(one, field) is None)]


def as_config(found: Iterable[Found], prompts: Iterable[str]) -> dict[str, Any]:
    """A run config of these models, each at the commit it has now."""
    models = ({"model": one.model, **({"revision": one.commit} if one.commit is not None else {})} for one in found)
    return {
        "models": list(models),
        "sampling": {"do_sample": False, "max_new_tokens": 256},
        "conversations": list(prompts),
    }


def rows(found: Iterable[Found]) -> Iterator[dict[str, Any]]:
    """The models as plain values, for JSON and CSV."""
    for one in found:
        yield {
            "model": one.model,
            "commit": one.commit,
            "task": one.task,
            "library": one.library,
            "languages": list(one.languages),
            "licence": one.licence,
            "parameters": one.parameters,
            "downloads": one.downloads,
            "likes": one.likes,
            "updated": None if one.updated is None else one.updated.isoformat(),
            "chat_template": one.chat_template,
            "gated": one.gated,
        }
