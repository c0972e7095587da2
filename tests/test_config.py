"""Run configs: loading, overrides, lanes, globs, filters – and every mistake at once, where it stands."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.config.files import find_files
from harness.config.load import load_config, parse_config
from harness.config.plan import plan
from harness.config.schema import RunConfig
from harness.errors import DocumentError

ROOT = Path(__file__).parent.parent
TALK = """\
conversations:
  - id: {name}
    tags: [{tags}]
    turns:
      - {{user: Hello., assistant: Hello!}}
      - {{user: Goodbye.{gold}}}
"""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty directory with two prompts files, and a config folder that is not it."""
    (tmp_path / "prompts").mkdir()
    (tmp_path / "configs").mkdir()
    for name, tags, gold in [("first", "short, a", ""), ("second", "long, a", ", assistant: Bye!")]:
        (tmp_path / f"prompts/{name}.yaml").write_text(TALK.format(name=name, tags=tags, gold=gold))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def small(**more):
    return {"models": ["builtin:pico"], "conversations": ["prompts/*.yaml"], **more}


def complaints(values, overrides=()):
    with pytest.raises(DocumentError) as caught:
        parse_config(values, "here", overrides)
    return [str(mistake) for mistake in caught.value.mistakes]


def test_the_message_about_a_config_with_many_mistakes(home):
    Path("configs/a.yaml").write_text("""\
models:
  - builtin:pico
  - {model: builtin:nano, dtyp: float32}
sampling:
  do_sample: yes
  tok_k: 10
  top_p: [0.9, 1.5]
conversations: [prompts/frist.yaml]
histroy: scripted
length: fixed
launches: 0
""")
    with pytest.raises(DocumentError) as caught:
        load_config("configs/a.yaml", ["repeats=many"])
    assert str(caught.value) == (
        "--set repeats=many: should be a whole number, not 'many'\n"
        "configs/a.yaml:3:27: models.1.dtyp: unknown key – did you mean dtype?\n"
        "configs/a.yaml:5:3: sampling.do_sample: should be true or false, not 'yes'\n"
        "configs/a.yaml:6:3: sampling.tok_k: unknown key – did you mean top_k?\n"
        "configs/a.yaml:7:16: sampling.top_p.1: should be at most 1, not 1.5\n"
        "configs/a.yaml:8:17: conversations.0: no file matches prompts/frist.yaml – did you mean prompts/first.yaml?\n"
        "configs/a.yaml:9:1: histroy: unknown key – did you mean history?\n"
        "configs/a.yaml:11:1: launches: should be greater than or equal to 1, not 0"
    )


def test_a_config_that_is_right_but_for_its_prompts_names_the_prompts_file(home):
    Path("prompts/bad.yaml").write_text("conversations: [{id: x, turns: [{user: a, expct: []}]}]\n")
    assert complaints(small()) == [
        "prompts/bad.yaml:1:43: conversations.0.turns.0.expct: unknown key – did you mean expect?"
    ]


def test_short_forms_mean_their_long_forms():
    config = parse_config(small())
    assert config.models[0].model == "builtin:pico"
    assert config.conversations.files == ["prompts/first.yaml", "prompts/second.yaml"]
    assert config.source == "config"
    assert config.given["conversations"] == ["prompts/*.yaml"]


def test_a_python_caller_may_pass_paths_and_tuples():
    config = parse_config({"models": ("builtin:pico",), "conversations": (Path("prompts/first.yaml"),)})
    assert config.conversations.files == ["prompts/first.yaml"]


def test_globs_are_looked_for_here_and_then_beside_the_config(home, monkeypatch):
    Path("configs/a.yaml").write_text("models: [x]\nconversations: [../prompts/first.yaml, other/*.yaml]\n")
    Path("configs/other").mkdir()
    Path("configs/other/third.yaml").write_text(TALK.format(name="third", tags="", gold=""))
    config = load_config("configs/a.yaml")
    assert config.conversations.files == ["configs/../prompts/first.yaml", "configs/other/third.yaml"]
    monkeypatch.chdir(home / "configs")
    assert load_config("a.yaml").conversations.files == ["../prompts/first.yaml", "other/third.yaml"]


def test_a_file_named_twice_is_played_once():
    config = parse_config(small(conversations=["prompts/second.yaml", "prompts/*.yaml"]))
    assert config.conversations.files == ["prompts/second.yaml", "prompts/first.yaml"]


def test_a_directory_in_place_of_a_file_is_a_mistake():
    assert complaints(small(conversations=["prompts"])) == [
        "here: conversations.0: prompts is a directory – write prompts/*.yaml"
    ]


@pytest.mark.parametrize(
    ("chosen", "ids"),
    [
        ({}, ["first", "second"]),
        ({"tags": ["long"]}, ["second"]),
        ({"tags": ["a", "long"]}, ["first", "second"]),
        ({"exclude_tags": ["long"]}, ["first"]),
        ({"ids": ["second"]}, ["second"]),
    ],
)
def test_filters_choose_conversations(chosen, ids):
    config = parse_config(small(conversations={"files": ["prompts/*.yaml"], **chosen}))
    assert [conversation.id for conversation in plan(config).conversations] == ids


def test_filters_that_name_nothing_are_mistakes():
    files = ["prompts/*.yaml"]
    assert complaints(small(conversations={"files": files, "tags": ["logn"], "ids": ["third"]})) == [
        "here: conversations.tags.0: no conversation has the tag logn – did you mean long?",
        "here: conversations.ids.0: no conversation has the id third – known: first, second",
    ]
    assert complaints(small(conversations={"files": files, "tags": ["long"], "ids": ["first"]})) == [
        "here: conversations: no conversation is left – widen the filters"
    ]


def test_overrides_are_applied_before_validation():
    config = parse_config(small(), overrides=["models.0.dtype=float32", "sampling.top_k=[1, 10]", "history=fill",
                                              "conversations=[prompts/first.yaml]"])  # fmt: skip
    assert config.models[0].dtype == "float32"
    assert config.sampling == {"top_k": [1, 10]}
    assert config.history == "fill"
    assert config.given["history"] == "fill"


def test_later_overrides_build_on_earlier_ones():
    config = parse_config(
        {"conversations": ["prompts/first.yaml"]}, "here", ["models=[builtin:nano]", "models.0.dtype=float32"]
    )
    assert (config.models[0].model, config.models[0].dtype) == ("builtin:nano", "float32")


def test_a_config_that_does_not_fit_is_still_looked_at_as_a_whole():
    Path("prompts/first.yaml").write_text("conversations: [{id: first, turns: []}]\n")
    assert complaints(small(models=[{}], repeats=0, sampling={"top_k": 1.5}, lane="speed")) == [
        "here: models.0.model: is missing – add it",
        "here: repeats: should be greater than or equal to 1, not 0",
        "here: sampling.top_k: should be a whole number, not 1.5",
        "prompts/first.yaml:1:29: conversations.0.turns: should not be empty",
    ]


def test_a_wrong_override_is_named():
    assert complaints(small(), ["sampling.tok_k=3", "conversations.0=nowhere.yaml"]) == [
        "--set sampling.tok_k=3: unknown key – did you mean top_k?",
        "--set conversations.0=nowhere.yaml: no file matches nowhere.yaml"
        " – paths are relative to the current directory",
    ]


@settings(deadline=None)  # the machine may be busy
@given(st.integers(1, 9), st.integers(0, 2**40), st.sampled_from(["stop", "drop_oldest", "error"]))
def test_overrides_round_trip(repeats, seed, overflow):
    config = parse_config(
        small(conversations=[str(ROOT / "prompts/physics-professor.yaml")]),
        overrides=[f"repeats={repeats}", f"seed={seed}", f"on_overflow={overflow}"],
    )
    assert (config.repeats, config.seed, config.on_overflow) == (repeats, seed, overflow)


def test_the_speed_lane_is_scripted_fixed_and_greedy():
    config = parse_config(small(lane="speed", sampling={"max_new_tokens": 8}))
    assert (config.history, config.length) == ("scripted", "fixed")
    assert config.sampling == {"max_new_tokens": 8, "do_sample": False}


@pytest.mark.parametrize(
    "sampling",
    [
        {"max_new_tokens": 8, "do_sample": True},
        {"max_new_tokens": 8, "top_k": [1, 2]},
        {"max_new_tokens": 8, "settings": {"a": {"top_k": 1}}},
    ],
)
def test_the_speed_lane_leaves_alone_what_is_the_subject(sampling):
    assert parse_config(small(lane="speed", sampling=sampling)).sampling == sampling


def test_the_behaviour_lane_is_generated_and_natural():
    config = parse_config(small(lane="behaviour", sampling={"top_k": 1}))
    assert (config.history, config.length, config.sampling) == ("generated", "natural", {"top_k": 1})


def test_a_history_or_length_that_contradicts_the_lane_is_a_mistake():
    assert complaints(small(lane="speed", history="fill", length="natural", sampling={"max_new_tokens": 8})) == [
        "here: history: fill contradicts lane: speed, which means history: scripted – leave one of them out",
        "here: length: natural contradicts lane: speed, which means length: fixed – leave one of them out",
    ]
    assert parse_config(small(lane="behaviour", history="generated")).history == "generated"


def test_a_fixed_length_needs_max_new_tokens_in_every_sampling():
    assert complaints(small(length="fixed")) == [
        "here: length: a fixed length needs max_new_tokens – set sampling.max_new_tokens"
    ]
    settings = {"a": {"max_new_tokens": 8}, "b": {"max_length": 8}}
    assert complaints(small(lane="speed", sampling={"settings": settings})) == [
        "here: lane: a fixed length needs max_new_tokens (not said by b) – set sampling.max_new_tokens"
    ]


def test_scripted_history_needs_gold_on_all_turns_but_the_last(home):
    assert parse_config(small(history="scripted"))
    Path("prompts/third.yaml").write_text("conversations: [{id: third, turns: [{user: a}, {user: b}, {user: c}]}]\n")
    assert complaints(small(history="scripted")) == [
        f"prompts/third.yaml: third.turns.{index}: has no assistant line for history: scripted to go on with"
        " – add one, or use history: generated"
        for index in (0, 1)
    ]


def test_fill_needs_something_to_fill():
    assert complaints(small(history="fill")) == [
        "prompts/second.yaml: second: leaves history: fill nothing to generate – drop a gold reply"
    ]


def test_a_union_of_types_makes_one_message():
    assert complaints(small(models=[{"model": "x", "device_map": [1]}])) == [
        "here: models.0.device_map: should be a device, auto, or a mapping of modules to devices, not a list"
    ]
    assert complaints(small(models=[3])) == ["here: models.0: should be the name of a model or a mapping, not 3"]
    assert complaints(small(conversations=3)) == [
        "here: conversations: should be a list of files or a mapping with files, not 3"
    ]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"concurrency": True}, "concurrency: should be a whole number from 1, or a list of them, not true"),
        ({"concurrency": 0}, "concurrency: should be a whole number from 1, or a list of them, not 0"),
        ({"concurrency": []}, "concurrency: should not be empty"),
        ({"concurrency": [1, 0]}, "concurrency.1: should be greater than or equal to 1, not 0"),
        ({"concurrency": [4, 4]}, "concurrency: has a level twice"),
        ({"warmup": True}, "warmup: should be auto, or a whole number from 0, not true"),
        ({"warmup": -1}, "warmup: should be auto, or a whole number from 0"),
        ({"warmup": "often"}, "warmup: should be auto, or a whole number from 0, not 'often'"),
        ({"cpu_affinity": []}, "cpu_affinity: should not be empty"),
        ({"cpu_affinity": [-1]}, "cpu_affinity.0: should be greater than or equal to 0, not -1"),
        ({"threads": 0}, "threads: should be greater than or equal to 1, not 0"),
        ({"sample_devices_s": 0}, "sample_devices_s: should be greater than 0, not 0"),
    ],
)
def test_what_is_wrong_with_how_a_run_is_measured_is_said_of_the_value_that_was_written(value, message):
    assert complaints(small(**value)) == [f"here: {message}"]


def test_one_level_of_concurrency_is_a_list_of_one():
    assert parse_config(small(concurrency=4)).concurrency == [4]


JUNK = st.sampled_from(
    [None, True, 0, -1, 1.5, float("nan"), 10**30, "", "x", "a" * 300, [], {}, [1], [[1]], [{}], {"a": 1}, {1: 2}]
)
WHOLE = {
    "models": ["a", {"model": "b", "device_map": {"x": 1}, "quantization": {"quant_method": "bnb"}}],
    "sampling": {
        "top_k": [1, 10],
        "eos_token_id": [1, 2],
        "settings": {"greedy": {"do_sample": False}, "hot": {"temperature": [0.5, 1]}},
        "exclude": [{"temperature": 1, "top_k": 10}],
        "include": [{"top_k": 50}],
    },
    "conversations": {"files": [str(ROOT / "prompts/physics-professor.yaml")], "tags": ["short"]},
    "lane": "behaviour",
    "history": "generated",
    "repeats": 2,
    "timeout": 3.0,
}


def paths(value, path=()):
    if path:
        yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield from paths(entry, (*path, key))


def put(value, path, junk):
    """Replace what stands at a path, if an earlier replacement has not taken the path away."""
    key, *rest = path
    if (isinstance(value, dict) and key in value) or (isinstance(value, list) and key in range(len(value))):
        if rest:
            put(value[key], rest, junk)
        else:
            value[key] = junk


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.tuples(st.sampled_from(list(paths(WHOLE))), JUNK), min_size=1, max_size=3))
def test_whatever_stands_in_a_config_it_loads_or_its_mistakes_are_lines(changes):
    values = json.loads(json.dumps(WHOLE))
    for path, junk in changes:
        put(values, path, junk)
    lines = []
    try:
        config = parse_config(values, "here")
    except DocumentError as caught:
        config = None
        lines = str(caught).splitlines()
    assert config is None or plan(config).n_cells
    assert all(line.startswith("here: ") for line in lines)


def test_template_now_is_a_date():
    assert complaints(small(template_now="today")) == [
        "here: template_now: should be a date such as 2026-01-01T00:00:00, not 'today'"
    ]


def test_resolving_a_resolved_config_changes_nothing():
    config = parse_config(small(lane="speed", sampling={"max_new_tokens": 8}))
    again = parse_config(json.loads(config.model_dump_json()))
    assert again.model_dump() == config.model_dump()
    assert plan(again).config_hash == plan(config).config_hash


def test_a_config_travels_with_its_origin():
    config = parse_config(small(), "here")
    copy = pickle.loads(pickle.dumps(config))
    assert (copy, copy.source, copy.given) == (config, "here", config.given)


def test_a_config_can_be_built_without_loading():
    config = RunConfig(models=["builtin:pico"], conversations=["prompts/first.yaml"])
    assert plan(config).n_cells == 1
    with pytest.raises(DocumentError, match=r"config: conversations\.files\.0: no file matches nowhere"):
        plan(RunConfig(models=["builtin:pico"], conversations=["nowhere"]))


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda file: file.stem)
def test_shipped_configs_load(file, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert file.read_text(encoding="utf-8").startswith("# yaml-language-server: $schema=schema.json\n")
    assert plan(load_config(file)).n_turns > 0


def test_the_quickstart_is_two_models_three_settings_three_conversations(monkeypatch):
    monkeypatch.chdir(ROOT)
    made = plan(load_config("configs/quickstart.yaml"))
    assert [spec.label for spec in made.models] == ["pico", "nano"]
    assert [sampling.name for sampling in made.samplings] == ["top_k=1", "top_k=10", "top_k=50"]
    assert len(made.conversations) == 3
    assert made.n_turns < 150


def test_the_tutorials_chatbot_is_one_config(monkeypatch):
    monkeypatch.chdir(ROOT)
    config = load_config("configs/falcon-7b-instruct.yaml")
    (spec,) = config.models
    assert (spec.model, spec.dtype, spec.device_map, spec.kv_cache) == (
        "tiiuae/falcon-7b-instruct", "bfloat16", "auto", "fresh"
    )  # fmt: skip
    assert config.sampling == {"do_sample": True, "top_k": 10, "max_length": 500}
    assert config.chat_format == "transcript"


def test_a_glob_passes_over_the_schema_beside_the_scripts():
    files, problems = find_files([str(ROOT / "prompts" / "*")], None)

    assert problems == []
    assert {Path(file).suffix for file in files} == {".yaml"}
