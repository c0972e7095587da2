"""The example turn of docs/metrics.md is worked out as the definitions say; docs/mistakes.md names tests that exist."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from functools import cache

import pytest

from harness.metrics import METRICS, itl_s
from harness.records import Stamps
from tests.builders import MS, turn
from tests.test_reference_docs import METRICS_PAGE, ROOT, named, rows

N, CHUNK = 64, 4
IDS_MS = [200 + 10 * index for index in range(N)]
CALL_MS, ENGINE_RETURNED_MS, READY_MS = 3 + 7, IDS_MS[-1], 840
"""Milliseconds since the start of the turn: `generate` is called, it returns, the text is ready."""

TURN = replace(
    turn(prompt_tokens=512, cached_tokens=0, ids=N),
    stamps=Stamps(3 * MS, CALL_MS * MS, ENGINE_RETURNED_MS * MS, READY_MS * MS, tuple(ms * MS for ms in IDS_MS)),
)


def ours(name: str) -> float:
    value = METRICS[name].formula(TURN)
    assert value is not None
    return value


def mean_gap_ms(arrivals_ms: list[int]) -> float:
    return (arrivals_ms[-1] - arrivals_ms[0]) / (len(arrivals_ms) - 1)


TTFT_MS, LAST_MS = IDS_MS[0], IDS_MS[-1]
CALCULATED = {
    ("TTFT", "here: `ttft_s`"): f"{1000 * ours('ttft_s'):.1f} ms",
    ("TTFT", "GuideLLM"): f"{TTFT_MS:.1f} ms",
    ("TTFT", "transformers benchmark_v2"): f"{TTFT_MS - CALL_MS:.1f} ms",
    ("TPOT", "here: `tpot_s`"): f"{1000 * ours('tpot_s'):.2f} ms",
    ("TPOT", "vLLM `bench serve`, MLPerf LoadGen"): f"{(LAST_MS - TTFT_MS) / (N - 1):.2f} ms",
    ("TPOT", "GuideLLM"): f"{LAST_MS / N:.2f} ms",
    ("ITL", "here: `itl_s`"): f"{1000 * sum(itl_s(TURN) or []) / (N - 1):.2f} ms",
    ("ITL", "AIPerf"): f"{(LAST_MS - TTFT_MS) / (N - 1):.2f} ms",
    ("ITL", "vLLM `bench serve`"): f"{mean_gap_ms(IDS_MS[CHUNK - 1 :: CHUNK]):.2f} ms",
    ("ITL", "transformers benchmark_v2"): f"{mean_gap_ms([*IDS_MS, ENGINE_RETURNED_MS]):.2f} ms",
    ("ITL", "llmperf"): f"{(TTFT_MS + LAST_MS - TTFT_MS) / N:.2f} ms",
    ("output tokens/s", "here: `output_tokens_per_s`"): f"{ours('output_tokens_per_s'):.1f}",
    ("output tokens/s", "gpt-fast"): f"{1000 * N / (ENGINE_RETURNED_MS - CALL_MS):.1f}",
    ("output tokens/s", "vLLM `bench serve`"): f"{1000 * N / LAST_MS:.1f}",
    ("decode tokens/s", "here: `decode_tokens_per_s`"): f"{ours('decode_tokens_per_s'):.1f}",
    ("decode tokens/s", "AIPerf, per user"): f"{1000 * (N - 1) / (LAST_MS - TTFT_MS):.1f}",
    ("decode tokens/s", "the inverse of GuideLLM's TPOT"): f"{1000 * N / LAST_MS:.1f}",
    ("end to end", "here: `e2e_s`"): f"{1000 * ours('e2e_s'):.1f} ms",
    ("end to end", "vLLM `bench serve`, AIPerf"): f"{LAST_MS:.1f} ms",
    ("end to end", "transformers benchmark_v2"): f"{ENGINE_RETURNED_MS - CALL_MS:.1f} ms",
    ("prefill tokens/s", "here: `prefill_tokens_per_s`"): f"{ours('prefill_tokens_per_s'):.0f}",
    ("prefill tokens/s", "prompt tokens / TTFT, as one would from a server's numbers"): f"{1000 * 512 / TTFT_MS:.0f}",
}
"""By (word, whose): what the definition in the page gives for the page's turn."""

WORKED = rows(METRICS_PAGE, "| word | whose | definition | this turn |")


def test_the_page_works_out_every_definition_and_no_other() -> None:
    assert [(row[0], row[1]) for row in WORKED] == list(CALCULATED)


@pytest.mark.parametrize("row", WORKED, ids=[f"{row[0]}, {row[1]}" for row in WORKED])
def test_what_a_tool_would_print_is_what_its_definition_gives(row: list[str]) -> None:
    assert row[3] == CALCULATED[row[0], row[1]]


@pytest.mark.parametrize(("ids", "per_cent"), [(64, 30), (640, 3)])
def test_how_far_a_time_with_the_first_token_in_it_lies_above_ours(ids: int, per_cent: int) -> None:
    last_ms = 200 + 10 * (ids - 1)

    assert round(100 * (last_ms / ids / 10 - 1)) == per_cent
    assert f"{per_cent} %" in METRICS_PAGE.split("So GuideLLM's TPOT of a 64-token reply")[1].split("\n\n")[0]


@pytest.mark.parametrize(("ids", "per_cent"), [(64, "1.6 %"), (2, "50 %")])
def test_how_far_n_for_n_minus_one_lies_below_ours(ids: int, per_cent: str) -> None:
    assert f"{100 * (1 - (ids - 1) / ids):.2g} %" == per_cent
    assert per_cent in METRICS_PAGE.split("benchmark_v2's ITL is ")[1].split(".\n")[0] + " %"


def test_every_word_is_set_against_two_other_tools() -> None:
    """TTFT, TPOT, ITL and the rest, in the two tables together."""
    elsewhere = rows(METRICS_PAGE, "| word | here | elsewhere |")
    tools = ("vLLM", "GuideLLM", "AIPerf", "SGLang", "benchmark_v2", "optimum-benchmark", "llama-bench", "gpt-fast",
             "llmperf", "inference-benchmarker", "MLPerf")  # fmt: skip
    said: dict[str, str] = {}
    for word, *cells in (*((row[0], row[1]) for row in WORKED), *((row[0], row[2]) for row in elsewhere)):
        said[word] = said.get(word, "") + " ".join(cells)

    for word in ("TTFT", "ITL", "TPOT", "output tokens/s", "end to end", "peak memory", "warm-up", "output tokens"):
        assert sum(tool in said[word] for tool in tools) >= 2, word


def test_it_is_said_of_every_metric_what_it_holds() -> None:
    table = rows(METRICS_PAGE, "| metric | from | to | holds | leaves out | absent where |")

    assert named(table) == set(METRICS)
    assert all(all(cells) for cells in table)


def test_the_page_names_the_version_each_tool_was_read_in() -> None:
    read_in = METRICS_PAGE.split("Read in: ")[1]

    for tool in ("vLLM", "GuideLLM", "AIPerf", "SGLang", "benchmark_v2", "optimum-benchmark", "llama-bench", "gpt-fast",
                 "llmperf", "inference-benchmarker", "LoadGen"):  # fmt: skip
        assert tool in read_in


MISTAKES_PAGE = (ROOT / "docs" / "mistakes.md").read_text(encoding="utf-8")
HEADER = "| mistake | what it does to a number | caught by |"
MISTAKES = [row for part in MISTAKES_PAGE.split(HEADER)[1:] for row in rows(HEADER + part, HEADER)]


def test_every_mistake_of_the_list_has_its_row() -> None:
    listed = MISTAKES_PAGE.split("**The list.**")[1].split("\n\n")[0]
    names = [" ".join(name.split()) for name in listed.split("·")]
    told = [row[0] for row in MISTAKES]

    assert len(set(told)) == len(told)
    assert sorted(name[:1].lower() + name[1:] for name in names) == sorted(told)


@pytest.mark.parametrize("row", MISTAKES, ids=[row[0] for row in MISTAKES])
def test_a_mistake_is_caught_by_tests_that_exist(row: list[str]) -> None:
    named_tests = re.findall(r"`(tests/\w+\.py)::([\w:]+)`", row[2])

    assert row[1]
    assert named_tests
    for file, name in named_tests:
        assert name in names_in(file), f"{file}::{name}"


@cache
def names_in(file: str) -> set[str]:
    """The tests of a file, by the names pytest has for them."""
    found = set()
    for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return found
