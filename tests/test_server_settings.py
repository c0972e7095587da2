"""What a sampling becomes at each server, and that the page about servers says what the table of them says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from harness.backends.openai.dialects import DIALECTS
from harness.backends.openai.settings import settle
from harness.config.server import Dialect
from harness.errors import UsageError
from harness.records import Length

PAGE = (Path(__file__).parent.parent / "docs" / "servers.md").read_text(encoding="utf-8")
DRAWN = {"do_sample": True, "max_new_tokens": 8}


def fields(dialect: Dialect, sampling: dict[str, Any], length: Length = "natural") -> dict[str, Any]:
    return dict(settle(sampling, length, DIALECTS[dialect], None).fields)


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        ("openai", {"temperature": 0.0, "max_completion_tokens": 8}),
        ("vllm", {"temperature": 0.0, "repetition_penalty": 1.0, "max_tokens": 8}),
        ("sglang", {"temperature": 0.0, "repetition_penalty": 1.0, "max_tokens": 8}),
        ("llamacpp", {"temperature": 0.0, "repeat_penalty": 1.0, "repeat_last_n": -1, "max_tokens": 8}),
        ("llama-cpp-python", {"temperature": 0.0, "repeat_penalty": 1.0, "max_tokens": 8}),
        ("ollama", {"temperature": 0.0, "max_tokens": 8}),
        ("tgi", {"temperature": 0.0, "max_tokens": 8}),
        (
            "transformers",
            {"generation_config": {"do_sample": False, "max_new_tokens": 8, "repetition_penalty": 1.0}},
        ),
    ],
)
def test_greedy_is_asked_for_outright_and_nothing_is_left_to_the_servers_defaults(
    dialect: Dialect, expected: dict[str, Any]
) -> None:
    found = fields(dialect, {"max_new_tokens": 8})
    if "generation_config" in found:
        found["generation_config"] = json.loads(found["generation_config"])
    assert found == expected
    if dialect != "transformers":  # top_k=1 draws nothing
        assert fields(dialect, {**DRAWN, "top_k": 1}) == expected


def test_draws_are_from_what_transformers_would_draw_from() -> None:
    assert fields("vllm", DRAWN) == {
        "temperature": 1.0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0, "top_k": 50, "max_tokens": 8,
    }  # fmt: skip
    assert fields("vllm", {**DRAWN, "top_k": 0})["top_k"] == -1
    assert fields("llamacpp", {**DRAWN, "top_k": 0})["top_k"] == 0
    assert fields("vllm", {**DRAWN, "top_k": 7, "min_p": 0.1, "temperature": 0.5}).items() >= {
        "top_k": 7, "min_p": 0.1, "temperature": 0.5,
    }.items()  # fmt: skip
    config = json.loads(fields("transformers", {**DRAWN, "top_k": 7, "typical_p": 0.9})["generation_config"])
    assert config.items() >= {"do_sample": True, "top_k": 7, "typical_p": 0.9, "top_p": 1.0}.items()


def test_stop_strings_are_sent_as_a_list_and_not_in_the_fixed_lane() -> None:
    assert fields("vllm", {"max_new_tokens": 8, "stop_strings": "x"})["stop"] == ["x"]
    assert fields("vllm", {"max_new_tokens": 8, "stop_strings": ["x", "y"]})["stop"] == ["x", "y"]
    assert "stop" not in fields("vllm", {"max_new_tokens": 8, "stop_strings": "x"}, "fixed")


def test_a_fixed_length_goes_on_past_the_end_of_text_or_is_refused() -> None:
    assert fields("vllm", {"max_new_tokens": 8}, "fixed")["ignore_eos"] is True
    config = json.loads(fields("transformers", {"max_new_tokens": 8}, "fixed")["generation_config"])
    assert config["eos_token_id"] == -1
    for dialect in ("openai", "ollama", "tgi", "llama-cpp-python"):
        with pytest.raises(UsageError, match="length: fixed: cannot be asked of"):
            fields(dialect, {"max_new_tokens": 8}, "fixed")
    with pytest.raises(UsageError, match="needs max_new_tokens"):
        fields("vllm", {}, "fixed")


@pytest.mark.parametrize(
    ("dialect", "sampling", "words"),
    [
        ("openai", {**DRAWN, "top_k": 5}, "has no field for it"),
        ("ollama", {**DRAWN, "top_k": 5}, "passes over it in silence"),
        ("ollama", {**DRAWN, "top_k": 0}, "passes over it in silence"),
        ("tgi", {"repetition_penalty": 1.2}, "passes over it in silence"),
        ("vllm", {"no_repeat_ngram_size": 3}, "has no field for it"),
        ("vllm", {"max_length": 100}, "set max_new_tokens"),
        ("vllm", {"eos_token_id": 3}, "has no field for it"),
        ("vllm", {"tok_k": 3}, "is no generation parameter"),
        ("vllm", {**DRAWN, "temperature": 0.0}, "above 0"),
    ],
)
def test_what_a_server_cannot_be_asked_for_is_refused(dialect: Dialect, sampling: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        fields(dialect, sampling)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_does_nothing_is_never_refused(dialect: Dialect) -> None:
    nothing = {"repetition_penalty": 1.0, "num_beams": 1, "no_repeat_ngram_size": 0, "min_p": None, "max_new_tokens": 8}
    assert fields(dialect, nothing) == fields(dialect, {"max_new_tokens": 8})


def test_what_is_in_effect_is_told_with_what_nobody_asked_for() -> None:
    told = settle({"do_sample": True}, "natural", DIALECTS["vllm"], 4096).effective
    assert told.values == {"do_sample": True, "max_new_tokens": 20, "temperature": 1.0, "top_k": 50}
    assert [warning.split()[0] for warning in told.warnings] == ["max_new_tokens=20,", "top_k=50"]
    blind = settle(DRAWN, "natural", DIALECTS["ollama"], None).effective
    assert any("top_k cannot be told to Ollama" in warning for warning in blind.warnings)
    inert = settle({"temperature": 0.5, "max_new_tokens": 8}, "natural", DIALECTS["vllm"], None).effective
    assert inert.warnings == ("temperature=0.5 has no effect: the reply is greedy",)


def documented() -> list[list[str]]:
    header = "| `dialect` | server | parameters → fields | length: fixed | tokens | passed over in silence | tried |"
    lines = PAGE.split(header + "\n", 1)[1].split("\n\n", 1)[0].splitlines()[1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def in_the_table() -> list[list[str]]:
    rows = []
    for name, spoken in DIALECTS.items():
        sent = {**spoken.fields, "max_new_tokens": spoken.max_new_tokens}
        named = ", ".join(f"`{ours}`" if ours == theirs else f"`{ours}` → `{theirs}`" for ours, theirs in sent.items())
        options = spoken.stream_options or {}
        rows.append([
            f"`{name}`",
            spoken.title,
            f"all, as JSON in `{spoken.container}`" if spoken.container else named,
            "refused" if spoken.fixed is None else f"`{json.dumps(spoken.fixed)[1:-1]}`",
            "with every chunk" if spoken.counts_along else "at the end" if options or spoken.container else "never",
            "; ".join(spoken.ignored) or "–",
            spoken.tested,
        ])  # fmt: skip
    return rows


def test_the_page_has_the_table() -> None:
    assert documented() == in_the_table(), "\n".join("| " + " | ".join(row) + " |" for row in in_the_table())


def test_the_page_names_every_kind_of_failure() -> None:
    from typing import get_args

    from harness.backends.openai.faults import FaultKind

    named = set(re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.MULTILINE))
    assert {*get_args(FaultKind), "Timeout"} <= named
