"""Which samplings may be set against each other, which greedy one each is held against, and which are twins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import harness
from harness.analysis.settings import references, twins
from harness.analysis.sweep import Sweep, sweeps
from harness.config.matrix import expand
from tests.builders import launch, manifest, plan, store, turn


def samplings(section: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found, problems = expand(section)
    assert not problems
    return {sampling.name: dict(sampling.parameters) for sampling in found}


def swept(section: dict[str, Any]) -> list[Sweep]:
    return list(sweeps(manifest(plan(samplings=samplings(section)), config={"sampling": section})))


def shown(sweep: Sweep) -> tuple[str, str, dict[str | None, tuple[str, ...]]]:
    return sweep.parameter, sweep.over, {level.value: level.samplings for level in sweep.levels}


def test_one_axis_is_one_sweep_and_no_sampling_is_told_twice() -> None:
    (only,) = swept({"do_sample": True, "top_k": [1, 10, 50]})

    assert shown(only) == ("top_k", "", {"1": ("top_k=1",), "10": ("top_k=10",), "50": ("top_k=50",)})
    assert [level.number for level in only.levels] == [1, 10, 50]


def test_two_axes_are_each_averaged_over_the_other_in_the_same_order() -> None:
    top_k, temperature, each = swept({"do_sample": True, "top_k": [5, 50], "temperature": [0.5, 1.0]})

    assert shown(top_k) == (
        "top_k",
        "temperature=0.5, 1",
        {
            "5": ("top_k=5,temperature=0.5", "top_k=5,temperature=1"),
            "50": ("top_k=50,temperature=0.5", "top_k=50,temperature=1"),
        },
    )
    assert temperature.over == "top_k=5, 50"
    assert [level.value for level in temperature.levels] == ["0.5", "1"]
    assert (each.parameter, len(each.levels)) == ("sampling", 4)


def test_a_greedy_setting_beside_a_grid_takes_no_part_in_its_averages() -> None:
    found = swept({"settings": {"greedy": {"do_sample": False}, "sampled": {"do_sample": True, "top_k": [5, 50]}}})

    assert [shown(sweep)[:2] for sweep in found] == [("top_k", ""), ("sampling", "")]
    assert [level.samplings for level in found[0].levels] == [("sampled,top_k=5",), ("sampled,top_k=50",)]
    assert [level.value for level in found[1].levels] == ["greedy", "sampled,top_k=5", "sampled,top_k=50"]


def test_values_that_do_not_come_with_all_others_are_a_sweep_of_their_own() -> None:
    """top_k=50 is left out at one temperature: nothing may be averaged over both of them there."""
    section = {
        "do_sample": True,
        "top_k": [5, 20, 50],
        "temperature": [0.5, 1.0],
        "exclude": [{"top_k": 50, "temperature": 1.0}],
    }
    found = [shown(sweep) for sweep in swept(section) if sweep.parameter == "top_k"]

    assert [(over, list(levels)) for _, over, levels in found] == [
        ("temperature=0.5", ["5", "20", "50"]),
        ("temperature=1", ["5", "20"]),
    ]


def test_named_settings_are_swept_like_a_parameter() -> None:
    section = {
        "do_sample": True,
        "top_k": [5, 50],
        "settings": {"calm": {"temperature": 0.5, "top_p": 0.8}, "wild": {"temperature": 1.5, "top_p": 0.99}},
    }
    found = {sweep.parameter: shown(sweep) for sweep in swept(section)}

    assert found["top_k"][1] == "temperature=0.5, 1.5; top_p=0.8, 0.99"
    assert found["setting"] == (
        "setting",
        "top_k=5, top_k=50",
        {"calm": ("calm,top_k=5", "calm,top_k=50"), "wild": ("wild,top_k=5", "wild,top_k=50")},
    )
    assert {"temperature", "top_p"}.isdisjoint(found), "they change together: neither can be told apart"


def test_a_value_that_is_not_said_is_absent_and_null_is_a_value() -> None:
    (unsaid,) = swept({"settings": {"plain": {}, "strict": {"repetition_penalty": 1.2}}})
    (null,) = swept({"do_sample": True, "top_p": [None, 0.5]})

    assert [(level.value, level.number) for level in unsaid.levels] == [(None, None), ("1.2", 1.2)]
    assert [(level.value, level.number) for level in null.levels] == [("null", None), ("0.5", 0.5)]


def test_flags_and_lists_are_values_without_a_number() -> None:
    (flags,) = swept({"do_sample": [False, True]})
    (lists,) = swept({"stop_strings": [["a"], ["b", "c"]]})

    assert [(level.value, level.number) for level in flags.levels] == [("false", None), ("true", None)]
    assert [level.value for level in lists.levels] == ['["a"]', '["b", "c"]']


def run_of(path: Path, of: dict[str, dict[str, Any]], effective: dict[str, dict[str, Any]] | None = None) -> Any:
    told = {name: {"values": values, "warnings": []} for name, values in (effective or {}).items()}
    return harness.load(store(path, [turn()], plan(samplings=of), launches=[launch("pico", 0, effective=told)]))


def test_each_sampling_is_held_against_the_greedy_one_that_differs_the_least(tmp_path: Path) -> None:
    warm = {"do_sample": True, "temperature": 0.7}
    of = {
        "one": {**warm, "top_k": 1, "max_new_tokens": 8},
        "short": {"max_new_tokens": 8},
        "long": {"max_new_tokens": 64},
        "a": {**warm, "max_new_tokens": 8},
        "b": {**warm, "max_new_tokens": 64},
        "c": {**warm, "max_new_tokens": 64, "repetition_penalty": 1.1},
    }
    held = {sampling: reference for (_, sampling), reference in references(run_of(tmp_path, of)).items()}

    assert held == {"one": "one", "short": "short", "long": "long", "a": "short", "b": "long", "c": "long"}


def test_what_is_greedy_is_what_really_ran(tmp_path: Path) -> None:
    of: dict[str, dict[str, Any]] = {"plain": {}, "k": {"top_k": 5}}
    run = run_of(tmp_path, of, {"plain": {"do_sample": True}, "k": {"do_sample": False}})

    assert references(run) == {("pico", "k"): "k", ("pico", "plain"): "k"}
    assert references(run_of(tmp_path / "x", {"k": {"do_sample": True, "top_k": 5}})) == {}


def test_samplings_that_came_to_the_same_are_said_to_be_twins(tmp_path: Path) -> None:
    of = {"top_k=5": {"do_sample": False, "top_k": 5}, "top_k=9": {"do_sample": False, "top_k": 9}}
    run = run_of(tmp_path, of, {name: {"do_sample": False} for name in of})

    assert twins(run) == (
        "pico: top_k=5 and top_k=9 ran with the very same settings: what differs between them is chance.",
    )
    assert twins(run_of(tmp_path / "x", of)) == (), "nothing is known of what ran"
