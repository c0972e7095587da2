"""`harness schema`: the JSON Schemas of the two file formats, for editors."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer


def schema(
    of: Annotated[Literal["configs", "prompts"], typer.Argument(help="Which file format.")] = "configs",
) -> None:
    """Print the JSON Schema of run configs or of scripted conversations."""
    from harness.config.json_schema import config_schema, prompts_schema

    typer.echo(json.dumps(config_schema() if of == "configs" else prompts_schema(), indent=2))
