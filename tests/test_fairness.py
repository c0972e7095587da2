"""What differs between two sides besides the thing compared, and what that does to the numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.analysis.compare import compare
from harness.analysis.fairness import ON_PURPOSE, Difference, fairness, what
from harness.analysis.frames import Run
from harness.analysis.pairing import work
from harness.analysis.sides import Pair, Side, across, within
from harness.records import Cell, TurnRecord
from tests.builders import launch, manifest, plan
from tests.sides_and_runs import SCRIPT, stored, timed

ENVIRONMENT = manifest(plan())["environment"]
LIBRARIES = ENVIRONMENT["libraries"]
GPU = {"name": "NVIDIA A", "memory_bytes": 1}


def ledger(ours: Run, theirs: Run) -> list[Difference]:
    ((pair,), _) = across(ours, theirs)
    return list(fairness(pair, work(pair)))


def told(found: list[Difference]) -> list[tuple[str, str | None, str | None]]:
    return [(each.field, each.speed, each.behaviour) for each in found]


def run(path: Path, name: str, facts: dict[str, Any] | None = None, **values: Any) -> Run:
    """A run of pico; `facts` of its launch, `environment`, or values of launch or plan."""
    environment = {**ENVIRONMENT, **values.pop("environment", {})}
    of_launch = {key: values.pop(key) for key in ("threads", "cpu_affinity", "effective") if key in values}
    model = values.get("models", ("pico",))[0]
    entry = launch(model, 0, facts={"dtype": "float32", "devices": ["cpu"], **(facts or {})}, **of_launch)
    return stored(path, run_id=name, manifest={"environment": environment, "launches": [entry]}, **values)


def test_equal_runs_differ_in_nothing(tmp_path: Path) -> None:
    assert ledger(run(tmp_path, "old"), run(tmp_path, "new")) == []


@pytest.mark.parametrize(
    ("changed", "field", "speed", "behaviour"),
    [
        ({"environment": {"gpus": [GPU]}}, "GPU", "blocker", "suspect"),
        ({"environment": {"cpu": "Another"}}, "CPU", "blocker", "suspect"),
        ({"environment": {"gpu_driver": "595.1"}}, "GPU driver", "suspect", "suspect"),
        ({"environment": {"host": "elsewhere"}}, "host", "suspect", None),
        ({"environment": {"python": "3.13.1"}}, "Python", "suspect", None),
        ({"environment": {"libraries": {**LIBRARIES, "torch": "2.12.0"}}}, "torch", "suspect", "suspect"),
        ({"environment": {"variables": {"OMP_NUM_THREADS": "1"}}}, "environment variables", "suspect", None),
        ({"facts": {"dtype": "bfloat16"}}, "dtype", "blocker", "blocker"),
        ({"facts": {"attention": "sdpa"}}, "attention", "suspect", "suspect"),
        ({"facts": {"quantization": "gptq"}}, "quantization", "blocker", "blocker"),
        ({"facts": {"commit": "abc"}}, "model commit", "blocker", "blocker"),
        ({"facts": {"template_hash": "abc"}}, "template hash", "blocker", "blocker"),
        ({"facts": {"devices": ["cuda:0 (A)"]}}, "devices", "blocker", "suspect"),
        ({"threads": 2}, "threads", "suspect", None),
        ({"cpu_affinity": [0]}, "cpu_affinity", "suspect", None),
        ({"effective": {"greedy": {"values": {"do_sample": False, "repetition_penalty": 1.1}, "warnings": []}}},
         "repetition_penalty", "blocker", "blocker"),
        ({"samplings": {"greedy": {"do_sample": False, "top_k": 3}}}, "top_k", "blocker", "blocker"),
        ({"history": "scripted"}, "history", "blocker", "blocker"),
        ({"length": "fixed"}, "length", "blocker", "blocker"),
        ({"timeout": 30.0}, "timeout", "suspect", "suspect"),
        ({"seed": 1}, "seed", None, "suspect"),
        ({"warmup": 3}, "warmup", "suspect", None),
        ({"sample_devices_s": 1.0}, "sample_devices_s", "suspect", None),
        ({"conversations": {**SCRIPT, "more": 1}}, "conversations played", "suspect", "suspect"),
    ],
)  # fmt: skip
def test_what_differs_is_named_and_weighed(
    tmp_path: Path, changed: dict[str, Any], field: str, speed: str | None, behaviour: str | None
) -> None:
    assert told(ledger(run(tmp_path, "old"), run(tmp_path, "new", **changed))) == [(field, speed, behaviour)]


def test_values_of_both_sides_are_told(tmp_path: Path) -> None:
    ours, theirs = run(tmp_path, "old"), run(tmp_path, "new", facts={"dtype": "bfloat16"})

    assert ledger(ours, theirs) == [Difference("dtype", "float32", "bfloat16", "blocker", "blocker", ON_PURPOSE)]


def test_a_run_that_was_gone_on_with_elsewhere_says_both_places(tmp_path: Path) -> None:
    entry = {"at": "2026-01-02T04:04:05+00:00", "environment": {**ENVIRONMENT, "host": "elsewhere"}}
    ours, theirs = stored(tmp_path, run_id="old"), stored(tmp_path, run_id="new", manifest={"resumed": [entry]})

    assert ledger(ours, theirs) == [Difference("host", "testbench", "testbench or elsewhere", "suspect", None)]


def test_on_an_accelerator_the_processor_is_a_suspect_only(tmp_path: Path) -> None:
    on_gpu = {"devices": ["cuda:0 (A)"]}
    found = ledger(run(tmp_path, "old", on_gpu), run(tmp_path, "new", on_gpu, environment={"cpu": "Another"}))

    assert told(found) == [("CPU", "suspect", "suspect")]


@pytest.mark.parametrize(("field", "around"), [("engine", {"engine": "decode"}), ("kv_cache", {"kv_cache": "fresh"})])
def test_how_turns_were_played_counts(tmp_path: Path, field: str, around: dict[str, str]) -> None:
    ours = stored(tmp_path, run_id="old")
    theirs = stored(tmp_path, lambda cell, index: timed(cell, index, around=around), run_id="new")

    assert [each.field for each in ledger(ours, theirs)] == [field]


def prompts(path: Path, name: str, first_differs: bool, **values: Any) -> Run:
    def make(cell: Cell, index: int) -> TurnRecord:
        own = name == "new" and (index > 0 or first_differs)
        return timed(cell, index, prompt_hash=f"{name if own else ''}{cell.conversation_id}-{index}")

    return stored(path, make, run_id=name, **values)


def test_prompts_that_follow_other_replies_are_not_paired_and_no_blocker(tmp_path: Path) -> None:
    found = ledger(prompts(tmp_path, "old", False), prompts(tmp_path, "new", False))

    assert told(found) == [("prompt ids", "suspect", None)]
    assert found[0].baseline == "in 18 of 24 turns"


def test_a_script_that_became_other_prompts_is_a_blocker(tmp_path: Path) -> None:
    found = ledger(prompts(tmp_path, "old", True), prompts(tmp_path, "new", True))

    assert told(found) == [("prompt ids", "blocker", "blocker")]


def test_a_system_message_that_was_folded_is_told(tmp_path: Path) -> None:
    notice = "the chat template leaves a system message out: the system text is put before the first user message"
    ours = stored(tmp_path, run_id="old")
    theirs = stored(tmp_path, lambda cell, index: timed(cell, index, notices=(notice,)), run_id="new")

    assert told(ledger(ours, theirs)) == [("system message", None, "suspect")]


def test_changed_checks_make_behaviour_incomparable(tmp_path: Path) -> None:
    runs = []
    for name in ("old", "new"):
        talks = plan(conversations=SCRIPT)["conversations"]
        digests = [{**talk, "digest": f"{talk['id']}-{name}" if talk["id"] == "poem" else "same"} for talk in talks]
        runs.append(
            stored(tmp_path, run_id=name, manifest={"plan": {**plan(conversations=SCRIPT), "conversations": digests}})
        )

    found = ledger(*runs)

    assert told(found) == [("conversations", "suspect", "blocker")]
    assert found[0].baseline == "1 of 6: poem"


def models(path: Path, specs: dict[str, dict[str, Any]], facts: dict[str, dict[str, Any]]) -> Run:
    entries = [launch(label, 0, facts={"dtype": "float32", **facts.get(label, {})}) for label in specs]
    of = plan(models=tuple(specs), conversations=SCRIPT)
    of["models"] = [{**spec, **specs[spec["label"]]} for spec in of["models"]]
    return stored(path, models=tuple(specs), manifest={"launches": entries, "plan": of})


def test_a_model_is_compared_with_all_that_comes_with_it(tmp_path: Path) -> None:
    own = {"pico": {"commit": "a", "template_hash": "a", "parameters": 1}, "nano": {"parameters": 2}}
    (pair,) = within(models(tmp_path, {"pico": {}, "nano": {}}, own), "model")

    assert what(pair) == "model"
    assert fairness(pair, work(pair)) == ()


def test_what_the_specs_of_two_models_ask_for_besides_is_a_blocker(tmp_path: Path) -> None:
    run = models(
        tmp_path, {"pico": {"dtype": "float32"}, "nano": {"dtype": "bfloat16"}}, {"nano": {"dtype": "bfloat16"}}
    )
    (pair,) = within(run, "model")

    assert told(list(fairness(pair, work(pair)))) == [("dtype", "blocker", "blocker")]


def test_what_came_of_the_same_spec_is_the_models_own(tmp_path: Path) -> None:
    run = models(tmp_path, {"pico": {"dtype": "auto"}, "nano": {"dtype": "auto"}}, {"nano": {"dtype": "bfloat16"}})
    (pair,) = within(run, "model")

    assert told(list(fairness(pair, work(pair)))) == [("dtype", "suspect", "suspect")]


def test_one_model_under_two_names_is_compared_by_what_its_specs_differ_in(tmp_path: Path) -> None:
    specs = {"half": {"model": "m", "dtype": "bfloat16"}, "full": {"model": "m", "dtype": "float32"}}
    (pair,) = within(models(tmp_path, specs, {"half": {"dtype": "bfloat16"}}), "model")

    assert what(pair) == "dtype"
    assert fairness(pair, work(pair)) == ()


def test_what_came_out_another_way_under_two_names_though_asked_for_alike_counts(tmp_path: Path) -> None:
    ours = {"commit": "a", "template_hash": "a", "quantization": None, "attention": "sdpa"}
    theirs = {"commit": "b", "template_hash": "b", "quantization": "gptq", "attention": "eager", "dtype": "bfloat16"}
    (pair,) = within(models(tmp_path, {"x": {"model": "m"}, "y": {"model": "m"}}, {"x": ours, "y": theirs}), "model")

    assert told(list(fairness(pair, work(pair)))) == [
        ("model commit", "blocker", "blocker"),
        ("template hash", "blocker", "blocker"),
        ("dtype", "blocker", "blocker"),
        ("quantization", "blocker", "blocker"),
        ("attention", "suspect", "suspect"),
    ]


@pytest.mark.parametrize(
    ("asked", "came"),
    [
        ({"revision": "v2"}, {"commit": "b", "template_hash": "b", "context_tokens": 9, "dtype": "float16"}),
        ({"quantization": {"quant_method": "bnb"}}, {"quantization": "bnb", "dtype": "float16", "parameters": 1}),
        ({"dtype": "float16"}, {"dtype": "float16", "attention": "sdpa"}),
        ({"adapter": "lora"}, {"adapter_commit": "b", "parameters": 2}),
        ({"gguf_file": "q4.gguf"}, {"quantization": "gguf", "dtype": "float16", "parameters": 2}),
        ({"tokenizer": "other"}, {"template_hash": "b", "chat_format": "transcript"}),
    ],
)
def test_what_comes_of_what_two_specs_of_a_model_differ_in_is_compared(
    tmp_path: Path, asked: dict[str, Any], came: dict[str, Any]
) -> None:
    run = models(tmp_path, {"x": {"model": "m"}, "y": {"model": "m", **asked}}, {"y": came})
    (pair,) = within(run, "model")

    assert (what(pair), fairness(pair, work(pair))) == (next(iter(asked)), ())


def test_two_specs_of_a_model_excuse_nothing_but_what_comes_of_them(tmp_path: Path) -> None:
    specs = {"half": {"model": "m", "dtype": "bfloat16"}, "full": {"model": "m", "dtype": "float32"}}
    (pair,) = within(models(tmp_path, specs, {"half": {"dtype": "bfloat16", "commit": "other"}}), "model")

    assert told(list(fairness(pair, work(pair)))) == [("model commit", "blocker", "blocker")]


def test_other_vocabularies_are_told(tmp_path: Path) -> None:
    run = models(tmp_path, {"pico": {}, "nano": {}}, {"pico": {"vocabulary": 100}, "nano": {"vocabulary": 200}})
    (pair,) = within(run, "model")

    assert [(each.field, each.baseline) for each in fairness(pair, work(pair))] == [("tokenizer", "100 ids")]


def test_samplings_are_compared_by_their_parameters(tmp_path: Path) -> None:
    run = stored(tmp_path, samplings={"cool": {"temperature": 0.1}, "hot": {"temperature": 2.0}})
    pair = Pair(Side(run, sampling="cool"), Side(run, sampling="hot"))

    assert (what(pair), fairness(pair, work(pair))) == ("sampling", ())


def test_a_blocker_takes_the_answers_and_leaves_the_numbers(tmp_path: Path) -> None:
    found = compare(run(tmp_path, "old"), run(tmp_path, "new", environment={"gpus": [GPU]}))
    speed = found.rows[found.rows["metric"] == "ttft_s"].iloc[0]

    assert (speed["answer"], speed["reason"], speed["effect"]) == ("not comparable", "GPU differs", 1)
    assert set(found.rows[found.rows["estimand"] == "behaviour"]["answer"]) == {"cannot tell"}
    assert len(found.blockers) == 1
    assert len(found.by_turn) == 0
    assert len(compare(run(tmp_path / "b", "old"), run(tmp_path / "b", "new", environment={"gpus": [GPU]}),
                       lane="behaviour").blockers) == 0  # fmt: skip
