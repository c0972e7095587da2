"""`harness plan`: what a run would do, from configs and tokenizers alone."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import (
    DEFAULT_MAX_NEW_TOKENS,
    Concurrency,
    ConfigFile,
    DoSample,
    Lane,
    Launches,
    MaxLength,
    MaxNewTokens,
    Models,
    Prompts,
    Repeats,
    RepetitionPenalty,
    Results,
    Sets,
    Temperature,
    TopK,
    TopP,
    Variants,
    assignments_of,
    plan_of,
    sampling_assignments,
)

_SHOWN = 20
"""Conversations that are listed by name."""

if TYPE_CHECKING:
    from harness.backends.seam import Preview
    from harness.config.plan import Plan
    from harness.config.schema import ModelSpec
    from harness.errors import Mistake


def plan(
    config: ConfigFile = None,
    model: Models = None,
    variants: Variants = None,
    prompts: Prompts = None,
    top_k: TopK = None,
    top_p: TopP = None,
    temperature: Temperature = None,
    repetition_penalty: RepetitionPenalty = None,
    max_length: MaxLength = None,
    max_new_tokens: MaxNewTokens = None,
    do_sample: DoSample = None,
    lane: Lane = None,
    repeats: Repeats = None,
    launches: Launches = None,
    concurrency: Concurrency = None,
    sets: Sets = None,
    results: Results = Path("results"),
    force: Annotated[bool, typer.Option("--force", help="Do not refuse a model that does not fit.")] = False,
) -> None:
    """Show the matrix, the first prompt, the effective settings, every warning and whether the models fit into memory,
    without loading weights."""
    from harness.errors import DocumentError, HarnessError
    from harness.runner.order import unbatchable

    sampling = sampling_assignments(
        top_k=top_k,
        top_p=top_p,
        temperature=temperature,
        repetition_penalty=repetition_penalty,
        max_length=max_length,
        max_new_tokens=max_new_tokens,
        do_sample=do_sample,
    )
    levels = None if concurrency is None else f"[{concurrency}]"
    listed = None if variants is None else f"[{variants}]"
    assignments = [
        *sampling,
        *assignments_of(sets, lane=lane, repeats=repeats, launches=launches, concurrency=levels, variants=listed),
    ]
    planned = plan_of(config, model, prompts, assignments)
    typer.echo(_matrix(planned))
    mistakes: list[Mistake] = []
    for spec in planned.models:
        try:
            seen = _preview(planned, spec)
        except HarnessError as error:
            mistakes += error.mistakes
            continue
        typer.echo(_model(spec, seen))
        if spec.python is not None:
            typer.echo(f"  note: looked at with the libraries of {sys.executable}; its workers run in {spec.python}")
        together = max(planned.config.concurrency)
        if together > 1 and seen.why_not_together is not None:
            if planned.config.on_unbatchable == "error":
                mistakes.append(unbatchable(spec, together, seen.why_not_together))
            else:
                typer.echo(f"  note: played one conversation at a time: {seen.why_not_together}")
        mistakes += _fit(planned, spec, force=force)
    typer.echo(f"\nfree disk under {results}: {_free_gib(results):.1f} GiB")
    if mistakes:
        raise DocumentError(mistakes)


def _preview(planned: Plan, spec: ModelSpec) -> Preview:
    from harness.backends.open import preview
    from harness.records import Message

    conversation = planned.conversations[0]
    return preview(
        spec,
        samplings={sampling.name: sampling.parameters for sampling in planned.samplings},
        length=planned.config.length,
        messages=(*conversation.opening(), Message("user", conversation.turns[0].user)),
        persona=conversation.persona,
        chat_format=planned.config.chat_format,
        template_now=planned.config.template_now,
    )


def _fit(planned: Plan, spec: ModelSpec, *, force: bool) -> list[Mistake]:
    """Show where the model fits; what is wrong where it fits nowhere, unless that is to be tried all the same."""
    from harness.backends.open import inspect
    from harness.errors import Mistake
    from harness.report.inspection import fit_line, size

    limits = [sampling.parameters.get("max_new_tokens") for sampling in planned.samplings]
    seen = inspect(
        spec,
        conversations=planned.conversations,
        new_tokens=max((limit for limit in limits if isinstance(limit, int)), default=DEFAULT_MAX_NEW_TOKENS),
        concurrency=max(planned.config.concurrency),
        chat_format=planned.config.chat_format,
        template_now=planned.config.template_now,
        places=None,
    )
    if seen is None:
        return []
    for fit in seen.fits:
        typer.echo(f"  fit (estimated): {fit_line(fit)}")
    if force or any(fit.answer != "does not fit" for fit in seen.fits):
        return []
    most = max(seen.fits, key=lambda fit: fit.usable_bytes)
    fact = f"does not fit: it needs {size(most.needed_bytes)}, and {most.device} has {size(most.usable_bytes)}"
    remedy = "choose a smaller dtype, quantization, context or concurrency, or --force"
    return [Mistake(f"{spec.label}", fact, remedy)]


def _matrix(planned: Plan) -> str:
    config = planned.config
    levels = ", ".join(map(str, config.concurrency))
    rows = [
        ("models", ", ".join(str(spec.label) for spec in planned.models)),
        ("samplings", ", ".join(sampling.name for sampling in planned.samplings)),
        ("conversations", _conversations(planned)),
        ("repeats × launches", f"{planned.repeats} × {planned.launches}"),
        *([("concurrency", levels)] if levels != "1" else []),
        ("cells, turns", f"{planned.n_cells} cells, {planned.n_turns} turns"),
        ("history, length", f"{config.history}, {config.length}"),
    ]
    return "\n".join(f"{name:<20}{value}" for name, value in rows)


def _conversations(planned: Plan) -> str:
    shown = [f"{one.id} ({len(planned.turns_of(one))} turns)" for one in planned.conversations[:_SHOWN]]
    rest = len(planned.conversations) - len(shown)
    return ", ".join([*shown, *([f"and {rest} more"] if rest else [])])


def _model(spec: ModelSpec, seen: Preview) -> str:
    prompt = "?" if seen.prompt_tokens is None else seen.prompt_tokens
    lines = [
        f"\n{spec.label}  ({spec.model})",
        f"  first prompt: {prompt} tokens; context: {seen.context_tokens or 'unknown'}",
        *(f"  │ {line}" for line in seen.prompt.splitlines()),
        *(f"  note: {notice}" for notice in seen.notices),
    ]
    for name, settings in seen.effective.items():
        values = ", ".join(f"{key}={value}" for key, value in sorted(settings.values.items()))
        lines.append(f"  {name}: {values}")
        lines += [f"    warning: {warning}" for warning in settings.warnings]
    return "\n".join(lines)


def _free_gib(results: Path) -> float:
    existing = next(path for path in (results.absolute(), *results.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free / 2**30
