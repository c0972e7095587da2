"""The rules of a gate: what a line means, and what is wrong with one that means nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from harness.config.load import load_config, parse_config
from harness.config.plan import plan
from harness.config.rules import Margin, parse_rule
from harness.errors import DocumentError

CONFIG = """\
models: [builtin:pico, builtin:nano]
sampling: {do_sample: false, max_new_tokens: 8}
conversations: [prompts/physics-professor.yaml]
gate:
"""


def test_a_metric_alone_is_its_paired_effect() -> None:
    rule = parse_rule("ttft_s", "+8%")

    assert (rule.kind, rule.subject, rule.statistic, rule.per, rule.where) == (
        "speed",
        "ttft_s",
        None,
        ("setting",),
        (),
    )
    assert rule.margin == Margin(0.08, relative=True)
    assert rule.text == "ttft_s: +8%"


def test_memory_alone_is_its_maximum() -> None:
    rule = parse_rule("peak_memory_bytes", "+256MiB")

    assert (rule.kind, rule.name) == ("memory", "peak_memory_bytes.max")
    assert rule.margin == Margin(256 * 2**20, relative=False)


@pytest.mark.parametrize(
    ("subject", "bound", "amount", "relative"),
    [
        ("ttft_s.p50", "+20ms", 0.02, False),
        ("ttft_s.p50", "+ 1.5 s", 1.5, False),
        ("decode_tokens_per_s", "-5%", 0.05, True),
        ("decode_tokens_per_s", "-3tok/s", 3, False),
        ("energy_j", "+500mJ", 0.5, False),
        ("kv_cache_bytes", "+2 GB", 2e9, False),
        ("kv_cache_bytes", "+0B", 0, False),
        ("host_rss_bytes.p50", "+.5%", 0.005, True),
    ],
)
def test_a_margin_is_a_share_or_an_amount_in_any_unit(subject: str, bound: str, amount: float, relative: bool) -> None:
    margin = parse_rule(subject, bound).margin

    assert margin is not None
    assert margin.amount == pytest.approx(amount)
    assert margin.relative == relative


def test_auto_is_no_margin_of_ones_own() -> None:
    assert parse_rule("tpot_s per conversation", "auto").margin is None


@pytest.mark.parametrize(
    ("per", "means"),
    [
        ("", ("setting",)),
        (" per setting", ("setting",)),
        (" per model", ("model",)),
        (" per turn", ("setting", "turn")),
        (" per turn and conversation", ("setting", "conversation", "turn")),
        (" per turn and model", ("model", "turn")),
    ],
)
def test_cells_may_be_smaller_or_larger_than_a_setting(per: str, means: tuple[str, ...]) -> None:
    assert parse_rule(f"tpot_s{per}", "auto").per == means


def test_conditions_choose_where_a_rule_holds() -> None:
    rule = parse_rule("e2e_s.p50 per turn where model=nano,  conversation=physics professor, turn=2", "+1%")

    assert rule.per == ("setting", "turn")
    assert rule.where == (("model", "nano"), ("conversation", "physics professor"), ("turn", "2"))


@pytest.mark.parametrize(
    ("subject", "bound", "told"),
    [
        ("ttft_s", "-8%", "ttft_s is the better the lower it is, so -8% is no worsening – write +8%"),
        ("decode_tokens_per_s", "+5%", "is the better the higher it is, so +5% is no worsening – write -5%"),
        ("tttft_s", "+8%", "there is no metric tttft_s – did you mean ttft_s?"),
        ("check", "exact", "there is no metric check – did you mean checks?"),
        ("ttft_s.p49", "+8%", "ttft_s has no statistic p49 – write one of ttft_s.mean, ttft_s.p50"),
        ("ttft_s", "8%", "8% says no direction – write +8%"),
        ("ttft_s", "+8", "+8 has no unit – write +8%, or a number of s"),
        ("ttft_s", 8, "should be how much worse is too much, not 8 – write +5%, or auto"),
        ("ttft_s", "+8MiB", "ttft_s has no unit MiB – write s, ms"),
        ("ttft_s", "+0%", "no margin at all is what auto is for"),
        ("decode_tokens_per_s", "-100%", "decode_tokens_per_s cannot fall by 100 %"),
        ("ttft_s per turm", "+8%", "there are no cells per turm – did you mean turn?"),
        ("ttft_s per model and setting", "+8%", "per model and setting says one thing twice"),
        ("ttft_s where modl=a", "+8%", "there is no modl to choose by – did you mean model?"),
        ("ttft_s where model", "+8%", "'model' is no condition – write model=nano"),
        ("ttft_s where turn=two", "+8%", "turn is a number, not 'two'"),
        ("ttft_s where model=a, model=b", "+8%", "model can only be one thing"),
        ("check_pass_rate", "-2%", "check_pass_rate is a rate, which no rule is about – write checks: exact"),
        ("checks", "same", "should be exact, not 'same' – write checks: exact"),
        ("checks per turn", "exact", "checks has one verdict per setting"),
        ("text", True, "should be divergence, not true"),
        ("failures", False, "should be how many turns may fail, not false – write failures: 0"),
        ("failures", "-1", "should be how many turns may fail"),
        ("ttft_s, tpot_s", "+8%", "is no rule – write one such as"),
    ],
)
def test_what_means_nothing_is_refused_with_what_to_write(subject: str, bound: Any, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        parse_rule(subject, bound)


def mistakes(tmp_path: Path, gate: str) -> list[str]:
    file = tmp_path / "night.yaml"
    file.write_text(CONFIG + gate, encoding="utf-8")
    with pytest.raises(DocumentError) as error:
        load_config(file)
    return [str(mistake).removeprefix(str(tmp_path) + "/") for mistake in error.value.mistakes]


def test_every_mistake_is_told_with_its_place(tmp_path: Path) -> None:
    told = mistakes(tmp_path, "  rules:\n    ttft_s: -8%\n    tpots_s: +1%\n  anchr: pico\n")

    assert told == [
        "night.yaml:6:5: gate.rules.ttft_s: ttft_s is the better the lower it is, so -8% is no worsening – write +8%",
        "night.yaml:7:5: gate.rules.tpots_s: there is no metric tpots_s – did you mean tpot_s?",
        "night.yaml:8:3: gate.anchr: unknown key – did you mean anchor?",
    ]


def test_names_that_the_run_does_not_have_are_mistakes(tmp_path: Path) -> None:
    told = mistakes(tmp_path, "  rules:\n    ttft_s where model=nana: +8%\n    e2e_s.p95: +8%\n  anchor: pica\n")

    assert told == [
        "night.yaml:6:5: gate.rules.ttft_s where model=nana: there is no model nana – did you mean nano?",
        "night.yaml:7:5: gate.rules.e2e_s.p95: e2e_s.p95 takes 60 turns of a launch, and there are 2 – more repeats or "
        "conversations, or e2e_s.p50",
        "night.yaml:8:3: gate.anchor: there is no model pica – did you mean pico?",
    ]


def test_checks_that_mean_nothing_are_not_to_be_compared(tmp_path: Path) -> None:
    (told,) = mistakes(tmp_path, "  rules: {checks: exact}\nlength: fixed\n")

    assert "gate.rules.checks: replies are forced to a length" in told


def test_one_rule_is_not_written_twice(tmp_path: Path) -> None:
    (told,) = mistakes(tmp_path, "  rules: {e2e_s: +1%, e2e_s per setting: +2%}\n")

    assert "e2e_s per setting and e2e_s are one rule" in told or "e2e_s and e2e_s per setting are one rule" in told


def test_rules_do_not_change_what_is_run() -> None:
    values: dict[str, Any] = {"models": ["builtin:pico"], "conversations": ["prompts/physics-professor.yaml"]}
    gated = {**values, "gate": {"rules": {"ttft_s": "+8%"}}}

    assert plan(parse_config(gated)).config_hash == plan(parse_config(values)).config_hash
    assert parse_config(gated).model_dump(mode="json")["gate"]["rules"] == {"ttft_s": "+8%"}
