"""The published side of the file formats: JSON Schemas are fresh and agree with loading; the docs name every key."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest

from harness.config.generation import GENERATION_PARAMETERS
from harness.config.json_schema import config_schema, prompts_schema
from harness.config.rules import Gating
from harness.config.schema import ConversationFilter, ModelSpec, RunConfig
from harness.config.tuning import Holdout, Tuning, Validation
from harness.conversations.expect import KINDS
from harness.conversations.load import (
    ConversationShape,
    PersonaShape,
    PromptsShape,
    RubricShape,
    TurnShape,
    load_conversations,
)
from harness.documents import read_document

ROOT = Path(__file__).parent.parent
SCHEMAS = {"configs": config_schema, "prompts": prompts_schema}


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schema_beside_the_shipped_files_is_fresh(name):
    stored = json.loads((ROOT / f"{name}/schema.json").read_text(encoding="utf-8"))
    assert stored == SCHEMAS[name](), f"harness schema {name} > {name}/schema.json"


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_a_json_schema(name):
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name]())


@pytest.mark.parametrize("name", SCHEMAS)
def test_shipped_files_fit_their_schemas(name):
    validator = jsonschema.Draft202012Validator(SCHEMAS[name]())
    for file in (ROOT / name).glob("*.yaml"):
        assert [error.message for error in validator.iter_errors(read_document(file).value)] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("configs", {"models": ["x"], "conversations": ["y"], "sampling": {"tok_k": 1}}),
        ("configs", {"models": ["x"], "conversations": ["y"], "sampling": {"top_k": "ten"}}),
        ("configs", {"models": ["x"], "conversations": ["y"], "sampling": {"num_beams": 4}}),
        ("configs", {"models": [], "conversations": ["y"]}),
        ("prompts", {"conversations": [{"id": "a", "turns": [{"user": "x", "expect": [{"contain": "y"}]}]}]}),
    ],
)
def test_a_schema_underlines_typing_mistakes(name, value):
    assert not jsonschema.Draft202012Validator(SCHEMAS[name]()).is_valid(value)


def test_the_docs_of_run_configs_name_every_key():
    text = (ROOT / "docs/config.md").read_text(encoding="utf-8")
    shapes = (RunConfig, ModelSpec, ConversationFilter, Tuning, Holdout, Validation, Gating)
    keys = {key for shape in shapes for key in shape.model_fields}
    keys |= {"settings", "include", "exclude"}
    keys |= {name for name, parameter in GENERATION_PARAMETERS.items() if parameter.refused}
    assert [key for key in sorted(keys) if f"`{key}`" not in text] == []


def test_the_docs_of_prompts_name_every_key_and_check():
    text = (ROOT / "docs/prompts.md").read_text(encoding="utf-8")
    shapes = (PromptsShape, ConversationShape, PersonaShape, TurnShape, RubricShape)
    keys = {key for shape in shapes for key in shape.model_fields} | set(KINDS) | {"ignore_case"}
    assert [key for key in sorted(keys) if f"`{key}`" not in text] == []


@pytest.mark.parametrize("name", ["config", "prompts", "tuning"])
def test_yaml_in_the_docs_loads(name, tmp_path, monkeypatch):
    from harness.config.load import load_config

    monkeypatch.chdir(ROOT)
    blocks = re.findall(
        r"```yaml\n(# (?:prompts|configs)/.*?)```", (ROOT / f"docs/{name}.md").read_text("utf-8"), re.DOTALL
    )
    assert blocks
    for index, block in enumerate(blocks):
        file = tmp_path / f"{index}.yaml"
        file.write_text(block, encoding="utf-8")
        if block.startswith("# prompts/"):
            assert load_conversations([file])
        else:
            assert load_config(file)
