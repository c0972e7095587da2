"""`harness models`: look at a model before it is loaded; find one."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from harness.cli.options import DEFAULT_MAX_NEW_TOKENS, Prompts, Sets

if TYPE_CHECKING:
    from harness.config.schema import ModelSpec
    from harness.meters.capacity import Capacity

models = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Find a model, and look at it before it is loaded."
)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30, "t": 10**12, "ti": 2**40}


@models.command("inspect")
def inspect(
    model: Annotated[str, typer.Argument(help="Hub id, directory, builtin:NAME or shape:NAME.")],
    prompts: Prompts = None,
    memory: Annotated[
        list[str] | None, typer.Option("--memory", help="Of a device that is not here: 24GiB; several times.")
    ] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, help="Conversations at a time.")] = 1,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", min=1, help="The longest reply, in tokens.")
    ] = DEFAULT_MAX_NEW_TOKENS,
    sets: Sets = None,
    format: Annotated[Literal["text", "json"], typer.Option("--format")] = "text",  # noqa: A002
) -> None:
    """What config, card and tokenizer say of a model, which engines run it, and whether it fits. Reads no weights.

    --set takes the fields of a model spec: --set revision=v1.1 --set dtype=bfloat16.
    """
    from harness.backends.open import inspect as look
    from harness.config.schema import RunConfig
    from harness.conversations.load import load_conversations
    from harness.errors import UsageError
    from harness.report.inspection import as_text, as_values

    seen = look(
        _spec(model, sets or []),
        conversations=load_conversations(_files(prompts)) if prompts else (),
        new_tokens=max_new_tokens,
        concurrency=concurrency,
        chat_format=RunConfig.model_fields["chat_format"].default,
        template_now=RunConfig.model_fields["template_now"].default,
        places=[_imagined(one) for one in memory] if memory else None,
    )
    if seen is None:
        fact = "has no weights here that could be looked at"
        raise UsageError(model, fact, "name a Hub id or a directory; what a server takes is told by harness plan")
    typer.echo(json.dumps(as_values(seen), indent=2, default=str) if format == "json" else as_text(seen))


@models.command("search")
def search(
    words: Annotated[str | None, typer.Argument(help="Words in the model's name: instruct.")] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="The Hub's pipeline tag; 'any' for all.")
    ] = "text-generation",
    language: Annotated[str | None, typer.Option("--language", help="As cards name it: en, de …")] = None,
    library: Annotated[str | None, typer.Option("--library", help="transformers, gguf …")] = None,
    licence: Annotated[str | None, typer.Option("--licence", "--license", help="apache-2.0, mit …")] = None,
    author: Annotated[str | None, typer.Option("--author", help="Who published it.")] = None,
    min_parameters: Annotated[str | None, typer.Option("--min-parameters", help="500M, 7B …")] = None,
    max_parameters: Annotated[str | None, typer.Option("--max-parameters", help="8B …")] = None,
    min_downloads: Annotated[int | None, typer.Option("--min-downloads", min=0, help="In the last 30 days.")] = None,
    updated_since: Annotated[str | None, typer.Option("--updated-since", help="A date: 2026-01-31.")] = None,
    chat_template: Annotated[bool | None, typer.Option("--chat-template/--no-chat-template", help="Has one.")] = None,
    gated: Annotated[bool | None, typer.Option("--gated/--open", help="Terms have to be accepted, or not.")] = None,
    sort: Annotated[
        Literal["downloads", "likes", "updated", "created", "trending", "parameters", "name"],
        typer.Option("--sort", help="Largest or newest first; names from a."),
    ] = "downloads",
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many.")] = 20,
    prompts: Prompts = None,
    to_config: Annotated[Path | None, typer.Option("--to-config", help="Write them as a run config.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    format: Annotated[Literal["table", "json", "csv"], typer.Option("--format")] = "table",  # noqa: A002
) -> None:
    """Find models on the Hub; offline, in the local cache.

    --to-config writes those that are shown as a run config, each at the commit it has now, with the prompts of -p.
    """
    from harness.documents import new_file, yaml_text
    from harness.hub.search import Wanted, as_config, rows
    from harness.hub.search import search as find
    from harness.report.found import laid_out

    wanted = Wanted(
        words=words,
        task=None if task == "any" else task,
        language=language,
        library=library,
        licence=licence,
        author=author,
        least_parameters=_count(min_parameters, "--min-parameters"),
        most_parameters=_count(max_parameters, "--max-parameters"),
        least_downloads=min_downloads,
        updated_since=_date(updated_since),
        chat_template=chat_template,
        gated=gated,
    )
    found = find(wanted, sort=sort, limit=limit)
    for notice in found.notices:
        typer.echo(f"note: {notice}", err=True)
    typer.echo(laid_out(list(rows(found.found)), format))
    if to_config is None:
        return
    if not found.found:
        from harness.errors import UsageError

        raise UsageError(str(to_config), "was not written: nothing was found", "ask for less")
    with new_file(to_config, force=force) as file:
        file.write(yaml_text(as_config(found.found, prompts or ["prompts/*.yaml"])).encode())
    typer.echo(f"look at it: harness plan {to_config}", err=True)


def _count(text: str | None, subject: str) -> int | None:
    """7B or 500M as a number."""
    from harness.errors import UsageError

    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kmbt]?)", text.strip().lower())
    if found is None:
        raise UsageError(subject, f"{text!r} is no number of parameters", "write 7B or 500M")
    return int(float(found[1]) * {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}[found[2]])


def _date(text: str | None) -> date | None:
    from harness.errors import UsageError

    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise UsageError("--updated-since", f"{text!r} is no date", "write 2026-01-31") from None


def _spec(model: str, sets: list[str]) -> ModelSpec:
    from harness.config.schema import ModelSpec
    from harness.documents import document_of, fit, set_values
    from harness.errors import DocumentError

    document = set_values(document_of({"model": model}, "command line"), sets)
    spec, problems = fit(document.value, ModelSpec)
    if spec is None:
        raise DocumentError(document.mistakes(problems))
    return spec


def _files(prompts: list[str]) -> list[str]:
    from harness.config.files import find_files
    from harness.errors import DocumentError, Mistake

    files, problems = find_files(prompts, None, ("prompts",))
    if problems:
        raise DocumentError([Mistake("--prompts", problem.fact, problem.remedy) for problem in problems])
    return list(files)


def _imagined(text: str) -> Capacity:
    from harness.meters.capacity import imagined

    return imagined(bytes_of(text, "--memory"))


def bytes_of(text: str, subject: str) -> int:
    """24GiB, 24G, 512MB or 1000000 as bytes. Raises UsageError about `subject`."""
    from harness.errors import UsageError

    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", text.lower())
    if found is None or float(found[1]) == 0:
        raise UsageError(subject, f"{text!r} is no size", "write 24GiB")
    return int(float(found[1]) * _UNITS[found[2] or ""])
