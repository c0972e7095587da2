"""JSON Schemas of the two file formats, for editors: completion, hover texts and red underlines while typing.

They are made from the same tables that loading uses. Loading knows more (patterns, variables, clashes): a file that an
editor accepts can still hold mistakes, never the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.config.generation import GENERATION_PARAMETERS, Kind, Parameter, refusal
from harness.config.schema import RunConfig
from harness.conversations.expect import check_schema
from harness.conversations.load import PromptsShape

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_INTEGER = {"type": "integer"}
_NUMBER = {"type": "number"}
_ID = {"type": "integer", "minimum": 0}
_IDS = {"type": "array", "items": _ID}
_FILLED = {"type": "string", "minLength": 1}
_SHARE: dict[str, Any] = {
    "anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "string", "pattern": "%\\s*$"}]
}
_TYPES: Mapping[Kind, dict[str, Any]] = {
    "int": _INTEGER,
    "float": _NUMBER,
    "bool": {"type": "boolean"},
    "text": {"type": "string"},
    "ids": {"anyOf": [_ID, _IDS]},
    "id_list": _IDS,
    "texts": {"anyOf": [_FILLED, {"type": "array", "items": _FILLED}]},
    "id_lists": {"type": "array", "items": _IDS},
    "pair": {"type": "array", "items": _NUMBER, "minItems": 2, "maxItems": 2},
    "biases": {"type": "array", "items": {"type": "array", "minItems": 2, "maxItems": 2}},
    "mapping": {"type": "object"},
    "early": {"enum": [True, False, "never"]},
}


def config_schema() -> dict[str, Any]:
    """JSON Schema of configs/*.yaml."""
    schema = RunConfig.model_json_schema()
    parts = schema["$defs"]
    properties = schema["properties"]
    properties["models"]["items"] = {"anyOf": [{"type": "string", "minLength": 1}, {"$ref": "#/$defs/ModelSpec"}]}
    files = parts["ConversationFilter"]["properties"]["files"]
    properties["conversations"] = {
        "anyOf": [{**files, "title": "Conversations"}, {"$ref": "#/$defs/ConversationFilter"}],
        "description": properties["conversations"]["description"],
    }
    levels = properties["concurrency"]
    properties["concurrency"] = {
        "anyOf": [levels["items"], {key: levels[key] for key in ("type", "items", "minItems")}],
        "default": 1,
        "description": levels["description"],
    }
    offered = [parameter for parameter in _allowed().values() if not parameter.refused]
    parts.update({_value_name(parameter): _or_axis(_one(parameter)) for parameter in offered})
    parts["Parameters"] = _parameters()
    parts["Sampling"] = _parameters(
        settings={
            "type": "object",
            "description": "Named samplings: parameters over the base",
            "additionalProperties": {"$ref": "#/$defs/Parameters"},
            "minProperties": 1,
        },
        include={
            "type": "array",
            "description": "Samplings to add; each says a value for every axis",
            "items": {"$ref": "#/$defs/Parameters"},
        },
        exclude={
            "type": "array",
            "description": "Combinations to leave out: those that have all of an item's values",
            "items": {"$ref": "#/$defs/Parameters"},
        },
    )
    parts["Range"] = {
        "type": "object",
        "description": "Every value between, for harness tune to choose from",
        "properties": {"low": _NUMBER, "high": _NUMBER, "log": {"type": "boolean"}},
        "required": ["low", "high"],
        "additionalProperties": False,
    }
    for name, value in parts["Sampling"]["properties"].items():
        if name in GENERATION_PARAMETERS and GENERATION_PARAMETERS[name].kind in ("int", "float"):
            parts["Sampling"]["properties"][name] = {"anyOf": [value, {"$ref": "#/$defs/Range"}]}
    properties["sampling"] = {"$ref": "#/$defs/Sampling", "description": properties["sampling"]["description"]}
    _shorten(parts["Tuning"]["properties"], parts["Holdout"]["properties"])
    return {"$schema": _DIALECT, **schema, "title": "Run config of instruct-harness"}


def _shorten(tune: dict[str, Any], holdout: dict[str, Any]) -> None:
    """The short forms of the tune section: one text for a list of one, `5 %` for 0.05, a share for a holdout."""
    for key in ("maximize", "minimize", "subject_to"):
        listed = {"type": "array", "items": _FILLED}
        tune[key] = {"anyOf": [_FILLED, listed], "description": tune[key]["description"]}
    for part, key in ((tune, "margin"), (tune, "keep"), (holdout, "share")):
        part[key] = {**_SHARE, "default": part[key]["default"], "description": part[key]["description"]}
    tune["holdout"] = {
        "anyOf": [*_SHARE["anyOf"], {"$ref": "#/$defs/Holdout"}],
        "description": tune["holdout"]["description"],
    }


def prompts_schema() -> dict[str, Any]:
    """JSON Schema of prompts/*.yaml."""
    schema = PromptsShape.model_json_schema()
    parts = schema["$defs"]
    parts["Check"] = check_schema()
    for shape in ("TurnShape", "ConversationShape"):
        parts[shape]["properties"]["expect"]["items"] = {"$ref": "#/$defs/Check"}
    rubric = {"anyOf": [_FILLED, {"$ref": "#/$defs/RubricShape"}, {"type": "null"}]}
    for holder in (schema, parts["ConversationShape"], parts["TurnShape"]):
        described = holder["properties"]["rubric"]["description"]
        holder["properties"]["rubric"] = {**rubric, "description": described}
    return {"$schema": _DIALECT, **schema, "title": "Scripted conversations of instruct-harness"}


def _parameters(**more: dict[str, Any]) -> dict[str, Any]:
    values = {
        # What is refused but for one harmless value (num_beams: 1) is not offered with any other.
        name: _or_axis({"const": 1}) if parameter.refused else {"$ref": f"#/$defs/{_value_name(parameter)}"}
        for name, parameter in _allowed().items()
    }
    return {"type": "object", "properties": {**values, **more}, "additionalProperties": False}


def _allowed() -> dict[str, Parameter]:
    return {name: parameter for name, parameter in GENERATION_PARAMETERS.items() if not refusal(name, [1])}


def _value_name(parameter: Parameter) -> str:
    bounds = (("from", parameter.least), ("above", parameter.above), ("to", parameter.most))
    return "-".join([parameter.kind, *(f"{word}-{bound:g}" for word, bound in bounds if bound is not None)])


def _one(parameter: Parameter) -> dict[str, Any]:
    bounds = {"minimum": parameter.least, "maximum": parameter.most, "exclusiveMinimum": parameter.above}
    return {**_TYPES[parameter.kind], **{key: bound for key, bound in bounds.items() if bound is not None}}


def _or_axis(one: dict[str, Any]) -> dict[str, Any]:
    """One value, or an axis of them; null leaves the parameter unset."""
    value = {"anyOf": [one, {"type": "null"}]}
    return {"anyOf": [one, {"type": "null"}, {"type": "array", "items": value, "minItems": 1}]}
