"""The options that several commands share, and how they become a config."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from harness.config.plan import Plan

ConfigFile = Annotated[Path | None, typer.Argument(metavar="[CONFIG]", help="A run config, configs/*.yaml.")]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model", "-m", help="Hub id, directory, builtin:NAME or shape:NAME; several times for several models."
    ),
]
Prompts = Annotated[
    list[str] | None, typer.Option("--prompts", "-p", help="Conversations: prompts/*.yaml; several times, globs too.")
]
Sets = Annotated[
    list[str] | None, typer.Option("--set", help="Override a key of the config, e.g. models.0.dtype=bfloat16.")
]
Results = Annotated[Path, typer.Option("--results", help="Where runs are kept.")]
TopK = Annotated[str | None, typer.Option("--top-k", help="One value or several: 1,10,50.")]
TopP = Annotated[str | None, typer.Option("--top-p")]
Temperature = Annotated[str | None, typer.Option("--temperature")]
RepetitionPenalty = Annotated[str | None, typer.Option("--repetition-penalty")]
MaxLength = Annotated[str | None, typer.Option("--max-length", help="Prompt and reply together, in tokens.")]
MaxNewTokens = Annotated[str | None, typer.Option("--max-new-tokens", help="The reply alone, in tokens.")]
DoSample = Annotated[
    bool | None, typer.Option("--do-sample/--greedy", help="Sample, or always take the likeliest token.")
]

Lane = Annotated[
    Literal["speed", "behaviour"] | None,
    typer.Option("--lane", help="speed: equal prompts and lengths, greedy. behaviour: the models' own replies."),
]
Repeats = Annotated[int | None, typer.Option("--repeats", help="Play each cell so often.")]
Concurrency = Annotated[
    str | None, typer.Option("--concurrency", help="Conversations replayed at a time, one value or several: 1,4,16.")
]
Launches = Annotated[int | None, typer.Option("--launches", help="Fresh processes per model.")]

Variants = Annotated[
    str | None, typer.Option("--variants", help="Each model several times, the first the baseline: bf16,int8,int4.")
]

DEFAULT_MAX_NEW_TOKENS = 256
"""For one-liners that set no limit; transformers' own default cuts replies at 20 tokens."""

_ONLY_WHEN_SAMPLING = ("top_k", "top_p", "temperature")


def sampling_assignments(**options: str | bool | None) -> list[str]:
    """`top_k="1,10"` as the assignment `sampling.top_k=[1,10]`, for every option that was given."""
    return [f"sampling.{name}={_yaml(value)}" for name, value in options.items() if value is not None]


def assignments_of(sets: Sequence[str] | None, **options: str | int | None) -> list[str]:
    """The options that are keys of a config, then what `--set` says."""
    return [*(f"{key}={value}" for key, value in options.items() if value is not None), *(sets or [])]


def _yaml(value: str | bool) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{value}]" if "," in value else value


def plan_of(
    config: Path | None, models: Sequence[str] | None, prompts: Sequence[str] | None, assignments: Sequence[str]
) -> Plan:
    """The plan that the command line asks for. A config file is the base; without one the options are the config."""
    from harness.config.load import load_config, parse_config
    from harness.config.plan import plan
    from harness.errors import UsageError

    if config is not None:
        instead = {"models": models, "conversations": prompts}
        named = [f"{key}={json.dumps(list(names))}" for key, names in instead.items() if names]
        return plan(load_config(config, [*named, *assignments]))
    if not models or not prompts:
        missing = "no model" if not models else "no conversations"
        raise UsageError("command line", missing, "give a CONFIG file, or --model and --prompts")
    values = {"models": list(models), "conversations": list(prompts), "sampling": one_liner_defaults(assignments)}
    return plan(parse_config(values, source="command line", overrides=assignments))


def one_liner_defaults(assignments: Sequence[str]) -> dict[str, Any]:
    """What a one-liner leaves unsaid, and says so: settings that only matter when sampling turn it on."""
    given = {assignment.partition("=")[0].strip().removeprefix("sampling.") for assignment in assignments}
    defaults: dict[str, Any] = {}
    if "do_sample" not in given and given & set(_ONLY_WHEN_SAMPLING):
        defaults["do_sample"] = True
    if not given & {"max_length", "max_new_tokens"}:
        defaults["max_new_tokens"] = DEFAULT_MAX_NEW_TOKENS
    if defaults:
        said = ", ".join(f"{name}: {json.dumps(value)}" for name, value in defaults.items())
        print(f"not said, so: {said}", file=sys.stderr)  # noqa: T201 – this room prints
    return defaults
