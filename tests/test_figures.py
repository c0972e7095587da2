"""Figures: names that are checked before anything is measured, and numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.analysis.figures import Gap, Sample, estimate, gap, profile, sample, shared, value
from harness.analysis.frames import load
from harness.analysis.sides import Side
from harness.analysis.summary import by_setting
from harness.config.figures import Figure, parse_figure, parse_limit, parse_objective
from tests import builders
from tests.builders import cell, checks, failed, turn


def side(tmp_path, records, **plan):
    run = load(builders.store(tmp_path, records, builders.plan(**plan)))
    return Side(run, sampling="greedy")


def number(text, *sides):
    figure = parse_figure(text)
    return value(figure, sample(figure, sides))


# ---- names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "unit", "direction"),
    [
        ("e2e_s.p95", "s", "lower"),
        ("decode_tokens_per_s.p50", "tokens/s", "higher"),
        ("completion_tokens.mean", "tokens", "neither"),
        ("check_pass_rate", "ratio", "higher"),
        ("truncation_rate", "ratio", "lower"),
    ],
)
def test_a_figure_knows_its_unit_and_which_way_is_better(text, unit, direction):
    figure = parse_figure(text)
    assert (figure.name, figure.unit, figure.direction) == (text, unit, direction)


def test_bytes_alone_are_their_maximum():
    assert parse_figure("peak_memory_bytes") == Figure("peak_memory_bytes", "max")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("e2s_s.p95", "there is no figure e2s_s – did you mean e2e_s?"),
        ("check_pas_rate", "there is no figure check_pas_rate – did you mean check_pass_rate?"),
        ("e2e_s", "e2e_s says no statistic – write one of e2e_s.mean, e2e_s.p50"),
        ("e2e_s.p96", "e2e_s has no statistic p96 – write one of"),
        ("check_pass_rate.p95", "check_pass_rate is a rate, which has no p95 – write check_pass_rate"),
    ],
)
def test_an_unknown_figure_is_told_with_what_to_write(text, wrong):
    with pytest.raises(ValueError, match="^" + wrong.replace("?", "\\?").replace(".", "\\.")):
        parse_figure(text)


def test_the_wrong_way_to_be_better_is_refused():
    assert parse_objective("completion_tokens.mean", "higher").better == "higher"
    with pytest.raises(ValueError, match="is the better the lower it is – minimize it"):
        parse_objective("e2e_s.p50", "higher")


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("e2e_s.p95 < 2 s", 2),
        ("e2e_s.p95 <= 250ms", 0.25),
        ("ttft_s.p50 < 0.5", 0.5),
        ("peak_memory_bytes < 16 GiB", 16 * 2**30),
        ("host_rss_bytes.max < 16 GB", 16 * 10**9),
        ("truncation_rate < 1 %", 0.01),
        ("check_pass_rate >= 0.9", 0.9),
        ("decode_tokens_per_s.p50 > 30 tok/s", 30),
        ("energy_j.mean < 2 kJ", 2000),
        ("completion_tokens.max < 1e3", 1000),
    ],
)
def test_a_limit_is_read_in_any_unit_of_its_quantity(text, bound):
    limit = parse_limit(text)
    assert limit.bound == pytest.approx(bound)
    assert limit.keeps(bound * 0.5) is (limit.better == "lower")
    assert limit.keeps(limit.bound) is ("=" in text)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("e2e_s.p95 < 2 GiB", "e2e_s.p95 has no unit GiB – write s, ms"),
        ("e2e_s.p95 2 s", "is no limit"),
        ("e2e_s.p95 < soon", "is no limit"),
        ("e2e_s.p95 < 1.2.3 s", "1.2.3 is no number"),
        ("e2e_s.p95 < -2 s", "-2 is no value that e2e_s.p95 can have"),
        ("truncation_rate < 1", "truncation_rate is a share of 1 – write 1 %"),
        ("truncation_rate < 200 %", "truncation_rate is never more than 100 %"),
        ("check_pass_rate < 90 %", "the better the higher it is – write > to limit it"),
        ("peak_memory_bytes > 1 GiB", "the better the lower it is – write < to limit it"),
    ],
)
def test_a_limit_that_cannot_be_meant_is_refused(text, wrong):
    with pytest.raises(ValueError, match=wrong):
        parse_limit(text)


# ---- numbers ---------------------------------------------------------------------------------------------


def test_figures_of_a_handful_of_turns_by_hand(tmp_path):
    of = cell()
    records = [
        turn(of, 0, ttft_ms=10, ids=4, checks=checks(True, True), finish_reason="eos"),
        turn(of, 1, ttft_ms=20, ids=8, checks=checks(True, False), finish_reason="max_new_tokens"),
        turn(of, 2, ttft_ms=60, ids=6, checks=checks(False, False), finish_reason="eos"),
    ]
    given = side(tmp_path, records, conversations={"physics": 3}, checks=[2, 2, 2])

    assert number("ttft_s.mean", given) == pytest.approx(0.03)
    assert number("ttft_s.p50", given) == pytest.approx(0.02)
    assert number("ttft_s.min", given) == pytest.approx(0.01)
    assert number("ttft_s.max", given) == pytest.approx(0.06)
    assert number("completion_tokens.mean", given) == 6
    assert number("host_rss_bytes", given) == 3 * 2**30
    assert number("check_pass_rate", given) == pytest.approx(3 / 6)
    assert number("truncation_rate", given) == pytest.approx(1 / 3)
    assert number("failure_rate", given) == 0
    assert number("peak_memory_bytes", given) is None  # a CPU has none


def test_failed_turns_fail_their_checks_and_have_no_times(tmp_path):
    of = cell()
    records = [turn(of, 0, checks=checks(True)), failed(of, 1)]
    given = side(tmp_path, records, conversations={"physics": 3})

    assert number("check_pass_rate", given) == pytest.approx(1 / 3)  # one was never reached
    assert number("failure_rate", given) == pytest.approx(2 / 3)
    assert number("ttft_s.mean", given) == pytest.approx(0.01)


def test_a_p95_of_too_few_turns_is_nothing_and_never_another_percentile(tmp_path):
    def records(n):
        return [turn(cell(), index, ttft_ms=index + 1) for index in range(n)]

    few = side(tmp_path / "a", records(59), conversations={"physics": 59})
    enough = side(tmp_path / "b", records(60), conversations={"physics": 60})

    assert number("ttft_s.p95", few) is None
    assert number("ttft_s.p95", enough) == pytest.approx(0.001 * (1 + 59 * 0.95))
    assert number("ttft_s.p99", enough) is None


def test_a_p50_over_launches_is_that_of_the_reports(tmp_path):
    of = builders.plan(conversations={"physics": 2}, launches=2)
    records = builders.every_turn(of, lambda at, index: turn(at, index, ttft_ms=10 if at.launch else 40))
    given = Side(load(builders.store(tmp_path, records, of)))

    assert number("ttft_s.p50", given) == pytest.approx(0.02)  # √(10 · 40) ms


def test_a_p50_is_of_the_turns_that_every_launch_has_as_in_the_reports(tmp_path):
    """The second launch fails the slow turn: its median is of light turns, and so has to be the first one's."""
    of = builders.plan(conversations={"light": 1, "heavy": 1}, launches=2)

    def record(at, index):
        heavy = at.conversation_id == "heavy"
        return failed(at, index) if heavy and at.launch else turn(at, index, ttft_ms=90 if heavy else 10)

    run = load(builders.store(tmp_path, builders.every_turn(of, record), of))

    assert number("ttft_s.p50", Side(run)) == pytest.approx(0.01)
    assert number("ttft_s.p50", Side(run)) == pytest.approx(by_setting(run).iloc[0].ttft_s_p50)


CUT = parse_figure("truncation_rate")


def halves(at, index):
    """Every second turn is cut off, and fails its check."""
    return turn(at, index, finish_reason="max_new_tokens" if index % 2 else "eos", checks=checks(index % 2 == 0))


@pytest.mark.parametrize("quantity", ["truncation_rate", "failure_rate", "repetition", "check_pass_rate"])
def test_repeats_of_a_greedy_turn_are_one_observation(tmp_path, quantity):
    of = builders.plan(conversations={f"talk-{i}": 4 for i in range(6)}, repeats=10)
    run = load(builders.store(tmp_path, builders.every_turn(of, halves), of))

    assert sample(parse_figure(quantity), [Side(run)]).observations == 24


def test_an_interval_is_as_wide_after_ten_greedy_repeats_as_after_one(tmp_path):
    intervals = []
    for repeats in (1, 10):
        of = builders.plan(conversations={f"talk-{i}": 4 for i in range(6)}, repeats=repeats)
        run = load(builders.store(tmp_path / str(repeats), builders.every_turn(of, halves), of))
        found = estimate(CUT, sample(CUT, [Side(run)]))
        intervals.append((found.low, found.high))

    assert intervals[0] == pytest.approx(intervals[1])


def test_launches_repeat_the_draws_and_repeats_do_not(tmp_path):
    of = builders.plan(
        samplings={"warm": {"do_sample": True, "top_k": 5}}, conversations={"talk": 4}, repeats=3, launches=8
    )
    run = load(builders.store(tmp_path, builders.every_turn(of, halves), of))

    assert sample(CUT, [Side(run)]).observations == 12  # 4 turns · 3 repeats, whatever the launches


def test_a_run_of_another_seed_draws_anew_but_not_where_the_setting_is_greedy(tmp_path):
    def side(name, seed, parameters):
        of = builders.plan(samplings={"s": parameters}, conversations={"talk": 4}, seed=seed)
        return Side(load(builders.store(tmp_path / f"{name}-{seed}", builders.every_turn(of, halves), of)))

    def seen(name, seeds, **parameters):
        return sample(CUT, [side(name, seed, parameters) for seed in seeds]).observations

    assert seen("warm", (1, 2), do_sample=True, top_k=5) == 8
    assert seen("cold", (1, 2), do_sample=False) == 4


def test_two_settings_share_the_turns_that_both_have_answered(tmp_path):
    of = builders.plan(samplings={"a": {"do_sample": False}, "b": {"do_sample": False}}, conversations={"talk": 3})
    times = {"a": [10, 20, 60], "b": [8, 16, None]}

    def record(at, index):
        ms = times[at.sampling][index]
        return failed(at, index) if ms is None else turn(at, index, ttft_ms=ms)

    run = load(builders.store(tmp_path, builders.every_turn(of, record), of))
    figure = parse_figure("ttft_s.mean")
    ours, theirs = shared(*(sample(figure, [Side(run, sampling=name)]) for name in "ab"))

    assert (ours.values * 1000).tolist() == pytest.approx([10, 20])
    assert (theirs.values * 1000).tolist() == pytest.approx([8, 16])


def test_rates_about_replies_are_absent_where_replies_mean_nothing(tmp_path):
    records = [turn(cell(), 0, checks=checks(True), around={"length": "fixed"})]
    given = side(tmp_path, records, conversations={"physics": 1}, length="fixed")

    assert number("check_pass_rate", given) is None
    assert number("truncation_rate", given) is None
    assert number("failure_rate", given) == 0


def test_runs_of_one_setting_are_pooled(tmp_path):
    first = side(tmp_path / "a", [turn(cell(), 0, ttft_ms=10)], conversations={"physics": 1})
    second = side(tmp_path / "b", [turn(cell(), 0, ttft_ms=30)], conversations={"physics": 1})

    found = sample(parse_figure("ttft_s.mean"), [first, second])

    assert value(parse_figure("ttft_s.mean"), found) == pytest.approx(0.02)
    assert found.launch.tolist() == [0, 1]  # launches of different runs are different launches


def plain(values, conversation):
    values = np.array(values, dtype=float)
    each = np.arange(len(values))
    return Sample(values, np.ones_like(values), np.array(conversation), np.zeros_like(each), each, each)


def test_the_jackknife_of_means_is_the_error_of_conversations_means():
    figure = Figure("e2e_s", "mean")
    ours, theirs = plain([2.0, 4.0, 8.0], [0, 1, 2]), plain([1.0, 1.0, 1.0], [0, 1, 2])
    codes = np.arange(3)

    found = gap(profile(figure, ours, codes), profile(figure, theirs, codes))

    # θ = log(14/3); without each: log 6, log 5, log 3; pseudo-values 3θ − 2·log …
    pseudo = [3 * math.log(14 / 3) - 2 * math.log(without) for without in (6, 5, 3)]
    assert found == Gap(pytest.approx(math.log(14 / 3)), pytest.approx(np.std(pseudo, ddof=1) / math.sqrt(3)), 2)


def test_a_rate_that_hardly_any_conversation_differs_in_is_not_known_to_be_equal():
    figure = Figure("check_pass_rate", None)
    codes = np.arange(8)
    same = profile(figure, plain([1.0] * 8, codes), codes)

    found = gap(same, same)

    assert (found.value, found.error, found.changed) == (0, 0, 0)
    assert found.low(0.05) == -math.inf


def test_what_differs_alike_in_every_conversation_is_certain():
    figure = Figure("check_pass_rate", None)
    codes = np.arange(8)

    found = gap(profile(figure, plain([1.0] * 8, codes), codes), profile(figure, plain([0.5] * 8, codes), codes))

    assert found.low(0.001) == pytest.approx(0.5)


def test_a_maximum_has_no_interval_and_a_rate_that_of_the_reports():
    assert estimate(Figure("e2e_s", "max"), plain([1.0, 2.0], [0, 1])).low is None
    rate = estimate(Figure("truncation_rate", None), plain([0.0] * 6, range(6)))
    assert (rate.value, rate.low, rate.basis) == (0, 0, "conversations")
    assert rate.high > 0.4
    times = estimate(Figure("e2e_s", "mean"), plain([1.0, 2.0], [0, 1]))
    assert times.basis == "few conversations"
    assert times.low < 1.5 < times.high
