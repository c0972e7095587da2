"""`harness models`: look at a model before it is loaded; find one."""

from __future__ import annotations

import json
import re
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
        raise UsageError(model, "is no model: it recites lines", "name a model")
    typer.echo(json.dumps(as_values(seen), indent=2, default=str) if format == "json" else as_text(seen))


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
