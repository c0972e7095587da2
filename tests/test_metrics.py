"""Every formula of the table against numbers worked by hand, and the laws all of them obey."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.metrics import METRICS, PHASES, itl_s
from harness.records import DeviceTurn, Failure, Memory, Roofline, Stamps, TurnRecord
from tests.builders import MS, failed, ticked, turn

WORKED = turn(
    stamps=Stamps(2 * MS, 5 * MS, 48 * MS, 50 * MS, (20 * MS, 26 * MS, 30 * MS, 44 * MS)),
    prompt_tokens=120,
    cached_tokens=90,
    completion_tokens=4,
    completion_ids=(5, 6, 7, 2),
    visible_ids=2,
    answer_ids=3,
    gold="a gold reply of 25 letters"[:25],
    gold_tokens=10,
    memory=Memory(1000, 2000, 3000, 4000),
    kv_cache_bytes=5000,
    devices=(DeviceTurn("cuda:0", energy_mj=1500), DeviceTurn("cuda:1", energy_mj=500)),
)
ROOFLINE = Roofline(
    weight_bytes_per_token=1_000_000,
    kv_bytes_per_token=1_000,
    flops_per_token=2_000,
    attention_flops_per_token_pair=10,
    copy_bytes_per_s=1e9,
    matrix_flops_per_s=1e8,
)
BY_HAND = {
    "ttft_s": 0.020,
    "ttft_visible_s": 0.026,  # the second id
    "ttft_answer_s": 0.030,  # the third
    "template_s": 0.002,
    "tokenize_s": 0.003,
    "prefill_s": 0.015,  # 5 → 20
    "decode_s": 0.028,  # 20 → 48
    "detokenize_s": 0.002,
    "e2e_s": 0.050,
    "tpot_s": 0.008,  # (44 − 20) / 3
    "output_tokens_per_s": 80.0,  # 4 / 0.05
    "decode_tokens_per_s": 125.0,  # 1 / 0.008
    "prefill_tokens_per_s": 2000.0,  # (120 − 90) / 0.015
    "s_per_1k_gold_chars": 3.2,  # 1000 · 0.008 · 10 / 25
    "peak_memory_bytes": 1000,
    "reserved_memory_bytes": 2000,
    "device_used_bytes": 3000,
    "host_rss_bytes": 4000,
    "kv_cache_bytes": 5000,
    "energy_j": 2.0,  # 1.5 + 0.5
    "energy_per_token_j": 0.5,  # 2 / 4
    "bandwidth_utilisation": 0.14025,  # (1 000 000 + (120 + 4/2) · 1000) · 125 / 10⁹
    "prefill_flop_utilisation": 0.0611,  # (30 · 2000 + 30 · (90 + 31/2) · 10) / 0.015 / 10⁸
}


def values(record: TurnRecord) -> dict[str, float | None]:
    return {name: metric.formula(record, ROOFLINE) for name, metric in METRICS.items()}


def test_every_formula_gives_what_was_worked_by_hand() -> None:
    assert values(WORKED) == pytest.approx(BY_HAND, rel=1e-12)


def test_gaps_are_between_consecutive_ids_and_leave_out_the_time_to_the_first() -> None:
    assert itl_s(WORKED) == pytest.approx([0.006, 0.004, 0.014])


def test_ids_that_arrive_in_pairs_have_no_gaps_but_a_time_per_token() -> None:
    pairs = replace(WORKED, stamps=ticked(WORKED.stamps, (20 * MS, 1), (30 * MS, 2), (40 * MS, 2)))

    assert itl_s(pairs) is None
    assert METRICS["tpot_s"].formula(pairs) == pytest.approx(0.005)  # 20 ms over 4 ids after the first


def test_a_first_arrival_of_several_ids_has_no_time_per_token() -> None:
    pair_first = replace(WORKED, stamps=ticked(WORKED.stamps, (20 * MS, 2), (30 * MS, 1)))

    assert METRICS["tpot_s"].formula(pair_first) is None
    assert METRICS["decode_tokens_per_s"].formula(pair_first) is None


def test_text_that_came_with_a_pair_of_ids_was_visible_when_the_pair_arrived() -> None:
    pairs = replace(WORKED, stamps=ticked(WORKED.stamps, (20 * MS, 2), (30 * MS, 2)), visible_ids=3)

    assert METRICS["ttft_visible_s"].formula(pairs) == pytest.approx(0.030)


def test_one_id_has_a_first_token_but_no_time_per_token() -> None:
    one = replace(WORKED, stamps=ticked(WORKED.stamps, (20 * MS, 1)), completion_tokens=1)

    assert METRICS["ttft_s"].formula(one) == pytest.approx(0.020)
    assert METRICS["output_tokens_per_s"].formula(one) == pytest.approx(20)
    for name in ("tpot_s", "decode_tokens_per_s", "s_per_1k_gold_chars"):
        assert METRICS[name].formula(one) is None
    assert itl_s(one) is None


def test_a_reply_without_ids_has_an_end_but_no_first_token() -> None:
    silent = replace(WORKED, stamps=ticked(WORKED.stamps), completion_tokens=0, visible_ids=None, answer_ids=None)

    assert METRICS["e2e_s"].formula(silent) == pytest.approx(0.050)
    for name in ("ttft_s", "ttft_visible_s", "prefill_s", "decode_s", "tpot_s", "output_tokens_per_s"):
        assert METRICS[name].formula(silent) is None


def test_unknown_cache_use_means_unknown_prefill_speed() -> None:
    assert METRICS["prefill_tokens_per_s"].formula(replace(WORKED, cached_tokens=None)) is None


def test_a_conversation_without_gold_has_no_speed_in_characters() -> None:
    assert METRICS["s_per_1k_gold_chars"].formula(replace(WORKED, gold=None)) is None
    assert METRICS["s_per_1k_gold_chars"].formula(replace(WORKED, gold_tokens=None)) is None


def test_a_machine_without_gauges_has_no_memory_figures() -> None:
    blind = values(replace(WORKED, memory=Memory(), devices=()))

    gauged = [name for name in blind if name.endswith(("_bytes", "_j")) and name != "kv_cache_bytes"]
    assert [name for name in gauged if blind[name] is not None] == []


def test_a_device_without_an_energy_counter_leaves_the_energy_unknown() -> None:
    half = replace(WORKED, devices=(DeviceTurn("cuda:0", energy_mj=1500), DeviceTurn("cuda:1")))

    assert METRICS["energy_j"].formula(half) is None
    assert METRICS["energy_per_token_j"].formula(half) is None


def test_no_turn_of_a_batch_is_held_against_the_roofline_by_itself() -> None:
    batch = replace(WORKED, batch_size=4)

    assert METRICS["bandwidth_utilisation"].formula(batch, ROOFLINE) is None
    assert METRICS["prefill_flop_utilisation"].formula(batch, ROOFLINE) is None


def test_without_a_roofline_nothing_is_held_against_it() -> None:
    unmeasured = replace(ROOFLINE, copy_bytes_per_s=None, matrix_flops_per_s=None)

    for roofline in (None, unmeasured):
        assert METRICS["bandwidth_utilisation"].formula(WORKED, roofline) is None
        assert METRICS["prefill_flop_utilisation"].formula(WORKED, roofline) is None


def test_names_carry_their_units() -> None:
    endings = {
        "s": "_s",
        "bytes": "_bytes",
        "tokens/s": "_tokens_per_s",
        "J": "_j",
        "ratio": "_utilisation",
    }

    for metric in METRICS.values():
        assert metric.name.endswith(endings[metric.unit]) or metric.name == "s_per_1k_gold_chars"


ONE, SEVERAL = st.just(1), st.integers(1, 4)


@st.composite
def answered(draw: st.DrawFn, sizes: st.SearchStrategy[int] = ONE) -> TurnRecord:
    """A turn with any stamps in order, up to an hour apart; `sizes` is how many ids arrive at a time."""
    gap = st.integers(0, 3600 * 10**9)
    counts = draw(st.lists(sizes, max_size=20))
    now = templated = draw(gap)
    now = tokenized = now + draw(gap)
    ticks = []
    for count in counts:
        now += draw(gap)
        ticks.append((now, count))
    generated = now + draw(gap)
    ids = sum(counts)
    return turn(
        stamps=ticked(Stamps(templated, tokenized, generated, generated + draw(gap)), *ticks),
        completion_tokens=ids,
        completion_ids=tuple(range(ids)),
        visible_ids=draw(st.none() | st.integers(1, ids)) if ids else None,
        answer_ids=draw(st.none() | st.integers(1, ids)) if ids else None,
    )


@settings(deadline=None)  # the machine may be busy
@given(answered(SEVERAL))
def test_phases_add_up_to_the_whole_to_the_nanosecond(record: TurnRecord) -> None:
    phases = [METRICS[name].formula(record) for name in PHASES]

    if record.stamps.ticks:
        nanoseconds = [round(seconds * 1e9) for seconds in phases if seconds is not None]
        assert len(nanoseconds) == len(PHASES)
        assert sum(nanoseconds) == round((METRICS["e2e_s"].formula(record) or 0) * 1e9)
    else:
        assert phases[2:4] == [None, None]


@settings(deadline=None)  # the machine may be busy
@given(answered())
def test_there_is_one_gap_less_than_ids_and_the_gaps_lead_to_the_last_id(record: TurnRecord) -> None:
    gaps = itl_s(record)
    ticks = record.stamps.ticks

    if len(ticks) < 2:
        assert gaps is None
    else:
        assert gaps is not None
        assert len(gaps) == len(ticks) - 1
        assert (METRICS["ttft_s"].formula(record) or 0) + sum(gaps) == pytest.approx(ticks[-1][0] / 1e9)
        assert METRICS["tpot_s"].formula(record) == pytest.approx(sum(gaps) / len(gaps))


@settings(deadline=None)  # the machine may be busy
@given(answered(SEVERAL))
def test_the_first_token_comes_before_the_end_and_before_visible_text(record: TurnRecord) -> None:
    ttft, visible, e2e = (METRICS[name].formula(record) for name in ("ttft_s", "ttft_visible_s", "e2e_s"))

    assert e2e is not None
    assert ttft is None or ttft <= e2e
    assert visible is None or (ttft is not None and ttft <= visible <= e2e)


@settings(deadline=None)  # the machine may be busy
@given(answered(SEVERAL))
def test_a_number_is_never_negative_and_never_infinite(record: TurnRecord) -> None:
    assert all(value is None or 0 <= value < float("inf") for value in values(record).values())


@settings(deadline=None)  # the machine may be busy
@given(answered(SEVERAL), st.builds(Failure, st.text(), st.text(), st.text()))
def test_a_failed_turn_has_no_numbers_whatever_stamps_it_got_to(record: TurnRecord, failure: Failure) -> None:
    broken = replace(record, failure=failure)

    assert set(values(broken).values()) == {None}
    assert itl_s(broken) is None


def test_a_turn_that_never_answered_has_no_numbers() -> None:
    assert set(values(failed()).values()) == {None}


@settings(deadline=None)  # the machine may be busy
@given(answered(SEVERAL), st.sampled_from(["reply", "user", "prompt_hash"]), st.text())
def test_numbers_do_not_depend_on_what_was_said(record: TurnRecord, field: str, text: str) -> None:
    assert values(replace(record, **{field: text})) == values(record)
