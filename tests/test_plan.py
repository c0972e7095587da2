"""Plans: cells, their order, labels, digests and the hash that says whether a run can be resumed."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.config.labels import labelled
from harness.config.load import parse_config
from harness.config.plan import conversation_digest, plan, turn_digests
from harness.config.schema import ModelSpec

ROOT = Path(__file__).parent.parent
SHORT = [str(ROOT / "prompts/physics-professor.yaml"), str(ROOT / "prompts/german.yaml")]


def made(**more):
    values = {"models": ["builtin:pico", "builtin:nano"], "conversations": SHORT, **more}
    return plan(parse_config(values))


def test_the_number_of_cells_and_turns_is_the_product():
    it = made(sampling={"top_k": [1, 2, 3]}, repeats=2, launches=2)
    assert it.n_cells == 2 * 3 * 2 * 2 * 2 == len(list(it.cells())) == len(set(it.cells()))
    assert it.n_turns == 2 * 3 * (2 + 5) * 2 * 2


def test_models_take_turns_over_launches():
    it = made(launches=3)
    assert [[spec.label for spec in it.launch_order(launch)] for launch in range(3)] == [
        ["pico", "nano"], ["nano", "pico"], ["pico", "nano"]
    ]  # fmt: skip
    runs = [(cell.launch, cell.model) for cell in it.cells()]
    assert list(dict.fromkeys(runs)) == [
        (0, "pico"), (0, "nano"), (1, "nano"), (1, "pico"), (2, "pico"), (2, "nano")
    ]  # fmt: skip


def test_repeats_follow_each_other_and_every_model_has_the_same_order():
    it = made(sampling={"top_k": [1, 2, 3]}, repeats=3, launches=2)
    order = it.cell_order("pico", 0)
    assert [cell.repeat for cell in order] == [0] * 6 + [1] * 6 + [2] * 6
    assert [(c.sampling, c.conversation_id, c.repeat) for c in order] == [
        (c.sampling, c.conversation_id, c.repeat) for c in it.cell_order("nano", 0)
    ]
    assert order == it.cell_order("pico", 0)


def test_the_order_depends_on_seed_launch_and_repeat():
    def order(seed, launch):
        it = made(sampling={"top_k": [1, 2, 3, 4, 5]}, launches=2, seed=seed)
        return [(cell.sampling, cell.conversation_id) for cell in it.cell_order("pico", launch)]

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(1, 0)
    assert order(0, 0) != order(0, 1)
    # The same on every machine and in every version: a resumed run meets the order it began with.
    assert order(0, 0)[:3] == [
        ("top_k=4", "physics-professor"),
        ("top_k=4", "german-physics"),
        ("top_k=2", "german-physics"),
    ]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))
def test_every_cell_is_played_exactly_once(repeats, launches, seed):
    it = made(sampling={"top_k": [1, 2]}, repeats=repeats, launches=launches, seed=seed)
    cells = list(it.cells())
    assert len(cells) == it.n_cells == len(set(cells))


def test_fill_generates_the_unanswered_turns_only(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("conversations: [{id: a, turns: [{user: x, assistant: y}, {user: x}, {user: x, assistant: y}]}]")
    it = made(conversations=[str(file)], history="fill")
    assert it.turns_of(it.conversations[0]) == (1,)
    assert it.n_turns == 2


def test_things_are_found_by_their_names():
    it = made(sampling={"top_k": [1, 2]})
    assert it.model("nano").model == "builtin:nano"
    assert it.sampling("top_k=2").parameters == {"top_k": 2}
    assert it.conversation("german-physics").language == "de"
    with pytest.raises(KeyError):
        it.model("mega")


def labels(*models):
    found, problems = labelled([ModelSpec.model_validate(model) for model in models])
    return [spec.label for spec in found], [problem.fact for problem in problems]


@pytest.mark.parametrize(
    ("model", "label"),
    [
        ("builtin:pico", "pico"),
        ("tiiuae/falcon-7b-instruct", "falcon-7b-instruct"),
        ("/models/mine/", "mine"),
        ("scripted:tests/data/lines.yaml", "lines"),
        ("gpt2", "gpt2"),
        ({"model": "a/b", "label": "mine"}, "mine"),
    ],
)
def test_the_default_label_is_the_last_part_of_the_name(model, label):
    assert labels(model) == ([label], [])


def test_labels_that_clash_are_told_apart_by_what_differs():
    assert labels("a/x", "b/x", "y") == (["a/x", "b/x", "y"], [])
    assert labels({"model": "a/x", "dtype": "float32"}, {"model": "a/x", "dtype": "bfloat16"}) == (
        ["x dtype=float32", "x dtype=bfloat16"], []
    )  # fmt: skip
    assert labels("a/x", {"model": "a/x", "kv_cache": "fresh"}, "b/x") == (
        ["a/x kv_cache=reuse", "a/x kv_cache=fresh", "b/x"], []
    )  # fmt: skip
    assert labels("a/x", {"model": "a/x", "device_map": {"lm_head": "cpu"}})[0] == [
        "x device_map=auto", 'x device_map={"lm_head":"cpu"}'
    ]  # fmt: skip


def test_models_that_cannot_be_told_apart_are_a_mistake():
    assert labels("a/x", "a/x")[1] == ["x is also what models.0 is called"]
    assert labels({"model": "a", "label": "x"}, {"model": "b", "label": "x"})[1] == [
        "x is also what models.0 is called"
    ]


def test_the_hash_counts_what_is_run_and_not_where_it_lies(tmp_path):
    it = made()
    assert made().config_hash == it.config_hash
    assert len(it.config_hash) == 16
    for more in ({"seed": 1}, {"repeats": 2}, {"sampling": {"top_k": 3}}, {"history": "scripted"}, {"timeout": 1.0}):
        assert made(**more).config_hash != it.config_hash
    copies = []
    for file in SHORT:
        copies.append(str(tmp_path / Path(file).name))
        Path(copies[-1]).write_text(Path(file).read_text(encoding="utf-8"), encoding="utf-8")
    assert made(conversations=copies).config_hash == it.config_hash
    Path(copies[0]).write_text(Path(copies[0]).read_text().replace("max_words: 120", "max_words: 121"))
    assert made(conversations=copies).config_hash != it.config_hash


def test_digests_change_from_the_turn_on_that_was_changed(tmp_path):
    file = tmp_path / "a.yaml"

    def digests(third):
        file.write_text(
            f"conversations: [{{id: a, turns: [{{user: x}}, {{user: y}}, {{user: {third}}}, {{user: z}}]}}]"
        )
        conversation = made(conversations=[str(file)]).conversations[0]
        return conversation_digest(conversation), turn_digests(conversation)

    (whole, turns), (other_whole, other_turns) = digests("c"), digests("d")
    assert whole != other_whole
    assert [one == other for one, other in zip(turns, other_turns, strict=True)] == [True, True, False, False]


def test_the_resolved_plan_is_json_and_leaves_nothing_to_defaults():
    it = made(sampling={"top_k": [1, 2]})
    resolved = json.loads(json.dumps(it.resolved()))
    assert resolved["samplings"] == [
        {"name": "top_k=1", "parameters": {"top_k": 1}},
        {"name": "top_k=2", "parameters": {"top_k": 2}},
    ]
    assert resolved["models"][0]["label"] == "pico"
    assert resolved["conversations"][0]["source"].endswith("prompts/physics-professor.yaml")
    assert (resolved["history"], resolved["n_cells"], resolved["n_turns"]) == ("generated", 8, 28)


def test_a_plan_travels_to_worker_processes():
    it = made()
    copy = pickle.loads(pickle.dumps(it))
    assert copy == it
    assert copy.config_hash == it.config_hash
