"""The matrix: its size is a product, its names are unique, and nothing misspelt gets through."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.config.generation import GENERATION_PARAMETERS, NOT_PARAMETERS, checked, is_axis, refusal
from harness.config.matrix import expand
from harness.documents import described


def samplings(**sampling):
    found, problems = expand(sampling)
    assert problems == []
    return {each.name: dict(each.parameters) for each in found}


def problems(**sampling):
    found = expand(sampling)[1]
    return [".".join(map(str, p.path)) + f": {p.fact}" + (f" – {p.remedy}" if p.remedy else "") for p in found]


def test_no_axis_is_one_sampling_called_default():
    assert samplings(top_k=10, do_sample=True) == {"default": {"top_k": 10, "do_sample": True}}
    assert samplings() == {"default": {}}


def test_a_list_is_an_axis_and_the_last_axis_turns_fastest():
    assert list(samplings(top_k=[1, 10], do_sample=True, max_length=[256, 500])) == [
        "top_k=1,max_length=256",
        "top_k=1,max_length=500",
        "top_k=10,max_length=256",
        "top_k=10,max_length=500",
    ]


def test_names_show_values_as_they_were_written():
    assert list(samplings(temperature=[1, 0.7, 1e-05])) == ["temperature=1", "temperature=0.7", "temperature=1e-05"]
    assert list(samplings(do_sample=[True, False])) == ["do_sample=true", "do_sample=false"]
    assert list(samplings(top_k=[None, 5])) == ["top_k=null", "top_k=5"]


def test_list_valued_parameters_have_lists_of_lists_as_axes():
    assert samplings(eos_token_id=[2, 3]) == {"default": {"eos_token_id": [2, 3]}}
    assert list(samplings(eos_token_id=[[2], [2, 3]])) == ["eos_token_id=[2]", "eos_token_id=[2,3]"]
    assert list(samplings(stop_strings=["a", "b"])) == ["default"]
    assert list(samplings(stop_strings=["a", ["b", "c"]])) == ["stop_strings=a", 'stop_strings=["b","c"]']
    assert list(samplings(bad_words_ids=[[1, 2], [3]])) == ["default"]
    assert list(samplings(bad_words_ids=[[[1, 2]], [[3]]])) == ["bad_words_ids=[[1,2]]", "bad_words_ids=[[3]]"]
    assert list(samplings(suppress_tokens=[])) == ["default"]


def test_settings_are_named_and_stand_over_the_base():
    assert samplings(
        max_new_tokens=64,
        top_k=[5, 10],
        settings={"greedy": {"do_sample": False, "top_k": None}, "sampled": {"do_sample": True}},
    ) == {
        "greedy": {"max_new_tokens": 64, "top_k": None, "do_sample": False},
        "sampled,top_k=5": {"max_new_tokens": 64, "top_k": 5, "do_sample": True},
        "sampled,top_k=10": {"max_new_tokens": 64, "top_k": 10, "do_sample": True},
    }


def test_exclude_leaves_out_what_matches_all_of_it():
    assert list(
        samplings(top_k=[1, 10, 50], temperature=[0.5, 1.0], exclude=[{"top_k": [1, 10], "temperature": 0.5}])
    ) == ["top_k=1,temperature=1", "top_k=10,temperature=1", "top_k=50,temperature=0.5", "top_k=50,temperature=1"]


def test_include_adds_one_sampling_over_the_base():
    assert samplings(top_k=[1, 10], max_new_tokens=8, include=[{"top_k": 100, "temperature": 2}]) == {
        "top_k=1": {"top_k": 1, "max_new_tokens": 8},
        "top_k=10": {"top_k": 10, "max_new_tokens": 8},
        "top_k=100,temperature=2": {"top_k": 100, "max_new_tokens": 8, "temperature": 2.0},
    }


def test_whole_numbers_become_floats_where_transformers_insists_on_one():
    value = samplings(temperature=1)["default"]["temperature"]
    assert (value, type(value)) == (1.0, float)


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"tok_k": 3}, "sampling.tok_k: unknown key – did you mean top_k?"),
        ({"zzz": 3}, "sampling.zzz: unknown key – names are those of transformers.GenerationConfig"),
        ({"top_k": "ten"}, "sampling.top_k: should be a whole number, not 'ten'"),
        ({"top_k": 1.5}, "sampling.top_k: should be a whole number, not 1.5"),
        ({"top_k": True}, "sampling.top_k: should be a whole number, not true"),
        ({"do_sample": "yes"}, "sampling.do_sample: should be true or false, not 'yes'"),
        ({"temperature": 0}, "sampling.temperature: should be more than 0, not 0"),
        ({"temperature": math.nan}, "sampling.temperature: should be finite, not nan"),
        ({"top_p": 1.1}, "sampling.top_p: should be at most 1, not 1.1"),
        ({"max_new_tokens": 0}, "sampling.max_new_tokens: should be at least 1, not 0"),
        ({"top_k": []}, "sampling.top_k: an axis without values – leave it out"),
        ({"top_k": [1, "ten", 1]}, "sampling.top_k.2: 1 is in this axis twice"),
        ({"top_k": [[1, 2]]}, "sampling.top_k.0: should be a whole number, not a list"),
        ({"eos_token_id": "</s>"},
         "sampling.eos_token_id: should be a token id, which is 0 or more, or a list of them, not '</s>'"),
        ({"num_beams": 4},
         "sampling.num_beams: cannot be set here – "
         "a turn has one reply, and its tokens are timed one sequence at a time"),
        ({"use_cache": False},
         "sampling.use_cache: cannot be set here – the cache is chosen with kv_cache: reuse | fresh of a model"),
        ({"seed": 3},
         "sampling.seed: is not a generation parameter – every turn has its own seed, made from the top-level seed"),
        ({"settings": ["greedy"]}, "sampling.settings: should be a mapping of names to parameters, not a list"),
        ({"settings": {"a": {"tok_k": 1}}}, "sampling.settings.a.tok_k: unknown key – did you mean top_k?"),
        ({"settings": {"a": None}},
         "sampling.settings.a: should be a mapping of parameters, not nothing – write {} for the base"),
        ({"settings": {"a": {}, "b": {}}}, "sampling: b and a are the same sampling – leave one out"),
        ({"settings": {"a": {"include": []}}},
         "sampling.settings.a.include: stands in the wrong place – it belongs directly under sampling"),
        ({"top_k": [1, 2], "exclude": [{"top_k": 3}]},
         "sampling.exclude.0: excludes nothing – no sampling has all of these values"),
        ({"top_k": [1, 2], "exclude": [{"top_k": [1, 2]}]}, "sampling.exclude: leaves no sampling"),
        ({"exclude": {"top_k": 3}}, "sampling.exclude: should be a list of mappings, not a mapping"),
        ({"exclude": [{}]}, "sampling.exclude.0: should not be empty"),
        ({"top_k": [1, 2], "include": [{"temperature": 2.0}]},
         "sampling.include.0: does not say top_k – an included sampling has a value for every axis"),
        ({"top_k": [1, 2], "include": [{"top_k": [3, 4]}]},
         "sampling.include.0.top_k: should be one value – an included sampling is one sampling"),
        ({"top_k": [1, 2], "include": [{"top_k": 2}]},
         "sampling: top_k=2 and top_k=2 are the same sampling – leave one out"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_sampling_is_said(sampling, message):
    assert message in problems(**sampling)


def test_all_problems_of_a_sampling_are_reported_at_once():
    assert len(problems(tok_k=1, top_k="ten", seed=3, settings={"a": {"temprature": 1}})) == 4


def test_one_sequence_may_be_asked_for_explicitly():
    assert samplings(num_beams=1, num_return_sequences=1) == {"default": {"num_beams": 1, "num_return_sequences": 1}}


axes = st.dictionaries(
    st.sampled_from(["top_k", "max_length", "no_repeat_ngram_size", "min_new_tokens"]),
    st.lists(st.integers(1, 1000), min_size=1, max_size=4, unique=True),
    max_size=3,
)


@settings(deadline=None)  # the machine may be busy
@given(axes, st.data())
def test_the_size_is_the_product_of_the_axes_less_what_is_excluded(axis_values, data):
    found, wrong = expand(axis_values)
    assert wrong == []
    assert len(found) == math.prod(len(values) for values in axis_values.values())
    assert len({each.name for each in found}) == len(found)
    assert all(each.parameters[name] in values for each in found for name, values in axis_values.items())
    if axis_values and len(found) > 1:
        victim = data.draw(st.sampled_from(found))
        fewer, wrong = expand({**axis_values, "exclude": [dict(victim.parameters)]})
        assert wrong == []
        assert [each.name for each in fewer] == [each.name for each in found if each != victim]


@settings(deadline=None)  # the machine may be busy
@given(st.sampled_from(sorted(GENERATION_PARAMETERS)), st.none() | st.booleans() | st.integers() | st.text(max_size=3))
def test_checking_a_value_never_raises_and_null_is_always_right(name, value):
    fitted, wrong = checked(name, value)
    assert wrong or fitted == value
    assert checked(name, None) == (None, "")
    assert not is_axis(name, value)


# What GenerationConfig keeps for itself; not parameters.
INTERNAL = {"_from_model_config", "transformers_version"}


def test_the_table_is_exactly_transformers_own():
    configuration = pytest.importorskip("transformers.generation.configuration_utils")
    assert set(GENERATION_PARAMETERS) == set(vars(configuration.GenerationConfig())) - INTERNAL


def test_no_refused_parameter_is_without_a_reason_and_no_name_is_in_both_tables():
    assert not set(NOT_PARAMETERS) & set(GENERATION_PARAMETERS)
    assert refusal("top_k", [1]) == ""
    assert all(NOT_PARAMETERS.values())


@pytest.mark.parametrize("stop_strings", ["", ["Alice:", ""]])
def test_an_empty_stop_string_which_would_end_every_reply_is_refused(stop_strings):
    _, problems = expand({"stop_strings": stop_strings})

    assert [problem.fact for problem in problems] == [
        f"should be text or a list of texts, none of them empty, not {described(stop_strings)}"
    ]


@pytest.mark.parametrize(("least", "most"), [("min_new_tokens", "max_new_tokens"), ("min_length", "max_length")])
def test_a_least_length_above_the_greatest_is_a_mistake(least: str, most: str) -> None:
    _, problems = expand({least: 9, most: [8, 10]})

    assert [problem.path for problem in problems] == [("sampling", least)]
    assert f"in {most}=8" in problems[0].fact


@pytest.mark.parametrize("key", ["settings", "exclude", "include"])
def test_a_section_that_is_left_empty_is_a_mistake(key: str) -> None:
    assert [problem.path for problem in expand({key: None})[1]] == [("sampling", key)]


def test_a_negative_token_id_is_a_mistake() -> None:
    assert [problem.path for problem in expand({"eos_token_id": -1})[1]] == [("sampling", "eos_token_id")]


def test_what_is_refused_but_for_one_may_be_left_unset() -> None:
    assert not expand({"num_beams": None})[1]
