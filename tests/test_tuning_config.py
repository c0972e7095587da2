"""The tune section and ranges: what they mean, and every mistake in them where it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.config.load import load_config, parse_config
from harness.config.plan import plan
from harness.config.ranges import Range
from harness.config.study import seed_of, study_of
from harness.errors import DocumentError, UsageError
from harness.studies.replay import resolve

ROOT = Path(__file__).parent.parent
TALK = """\
conversations:
{entries}
"""
ENTRY = """\
  - id: {id}
    tags: [{tag}]
    turns:
      - {{user: Hello., expect: [{{contains: hello}}]}}
      - {{user: Goodbye.}}
"""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    (tmp_path / "prompts").mkdir()
    write(tmp_path / "prompts/ten.yaml", [(f"talk-{i}", "even" if i % 2 == 0 else "odd") for i in range(10)])
    write(tmp_path / "prompts/others.yaml", [("other-1", "x"), ("other-2", "x")])
    (tmp_path / "prompts/gold.yaml").write_text("conversations: [{id: gold, turns: [{user: Hi., assistant: Hi!}]}]\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path, talks):
    path.write_text(TALK.format(entries="".join(ENTRY.format(id=name, tag=tag) for name, tag in talks)))


def values(tune=None, **more):
    return {
        "models": ["builtin:pico"],
        "conversations": ["prompts/ten.yaml"],
        "sampling": {"do_sample": True, "temperature": [0.5, 1], "top_k": [5, 50], "max_new_tokens": 8},
        "tune": {"maximize": "check_pass_rate", **(tune or {})},
        **more,
    }


def study(tune=None, **more):
    return study_of(parse_config(values(tune, **more)))


def complaint(tune=None, **more):
    with pytest.raises(DocumentError) as caught:
        study(tune, **more)
    return [str(mistake) for mistake in caught.value.mistakes]


def test_the_message_about_a_tune_section_with_many_mistakes(home):
    Path("a.yaml").write_text("""\
models: [builtin:pico]
conversations: [prompts/ten.yaml]
sampling: {top_k: [1, 10]}
tune:
  maximise: check_pass_rate
  minimize: [e2e_s.p50, e2e_s]
  subject_to:
    - truncation_rate < 1 %
    - peak_memory_bytes < 16 Gib
  rungs: [1, 0]
  holdout: {share: 30 %, ids: [talk-1]}
""")
    with pytest.raises(DocumentError) as caught:
        load_config("a.yaml")
    assert [str(mistake) for mistake in caught.value.mistakes] == [
        "a.yaml:5:3: tune.maximise: unknown key – did you mean maximize?",
        "a.yaml:6:25: tune.minimize.1: e2e_s says no statistic – write one of e2e_s.mean, e2e_s.p50, e2e_s.p95, "
        "e2e_s.p99, e2e_s.min, e2e_s.max",
        "a.yaml:9:7: tune.subject_to.1: peak_memory_bytes.max has no unit Gib – write B, bytes, kB, MB, GB, TB, KiB, "
        "MiB, GiB, TiB",
        "a.yaml:10:14: tune.rungs.1: should be greater than or equal to 1, not 0",
        "a.yaml:11:3: tune.holdout: should say one of share, tags, ids and files",
    ]


def test_a_figure_that_the_study_cannot_have_is_told_where_it_stands(home):
    Path("a.yaml").write_text("""\
models: [builtin:pico]
conversations: [prompts/ten.yaml]
sampling: {top_k: [1, 10]}
tune:
  minimize: e2e_s.p95
  subject_to:
    - e2e_s.p99 < 2 s
""")
    with pytest.raises(DocumentError) as caught:
        load_config("a.yaml")
    assert [str(mistake) for mistake in caught.value.mistakes] == [
        "a.yaml:5:3: tune.minimize: e2e_s.p95 takes 60 turns of a setting, and this study plays 42 – more rungs, "
        "launches or conversations, or e2e_s.p50",
        "a.yaml:7:7: tune.subject_to.0: e2e_s.p99 takes 300 turns of a setting, and this study plays 42 – more rungs, "
        "launches or conversations, or e2e_s.p50",
    ]


@pytest.mark.parametrize(
    ("tune", "more", "wrong"),
    [
        ({"maximize": []}, {}, "tune: has no objective: write maximize or minimize"),
        ({"minimize": "check_pass_rate"}, {}, "is the better the higher it is – maximize it"),
        ({"maximize": ["check_pass_rate", "check_pass_rate"]}, {}, "names check_pass_rate twice"),
        ({"margin": "much"}, {}, "tune.margin: should be a share such as 30 % or 0.3, not 'much'"),
        ({"holdout": 2}, {}, "tune.holdout: should be a share such as 30 %"),
        ({"holdout": {"ids": ["talk-99"]}}, {}, "no conversation has the id talk-99 – did you mean talk-9?"),
        ({"holdout": {"tags": ["even", "odd"]}}, {}, "tune.holdout: holds out every conversation"),
        ({"holdout": {"files": ["prompts/nine.yaml"]}}, {}, "no file matches prompts/nine.yaml"),
        ({"holdout": {"files": ["prompts/ten.yaml"]}}, {}, "tune.holdout.files: talk-0 and 9 more: tuned on as well"),
        ({}, {"models": ["builtin:pico", "builtin:nano"]}, "2 models, and a study tunes one"),
        ({}, {"concurrency": [1, 2]}, "several levels, and a study plays at one"),
        ({}, {"sampling": {"max_new_tokens": 8}}, "has one setting only, so there is nothing to choose from"),
        ({}, {"length": "fixed"}, "check_pass_rate means nothing where replies are forced to a length"),
        ({"search": "optuna"}, {"sampling": {"settings": {"a": {}, "b": {"top_k": 1}}}}, "optuna chooses among axes"),
        (
            {"search": "exhaustive"},
            {"sampling": {"top_p": {"low": 0.1, "high": 0.9}}},
            "sampling.top_p: is a range, which cannot be tried in full – use search: optuna",
        ),
    ],
)
def test_what_makes_no_study_is_refused(tune, more, wrong):
    (found,) = complaint(tune, **more)
    assert wrong in found


def test_a_single_conversation_cannot_judge_what_it_chose(home):
    write(home / "prompts/one.yaml", [("only", "x")])
    assert complaint(conversations=["prompts/one.yaml"]) == [
        "config: tune.holdout: one conversation cannot be tuned on and held out – add conversations, or name files of "
        "others"
    ]


def test_what_is_held_out_has_the_replies_that_its_history_needs(home):
    found = complaint({"maximize": [], "minimize": "tpot_s.p50", "holdout": {"files": ["prompts/others.yaml"]}},
                      conversations=["prompts/gold.yaml"], history="scripted")  # fmt: skip
    assert found == [
        f"prompts/others.yaml: other-{i}.turns.0: has no assistant line for history: scripted to go on with – add one, "
        "or use history: generated"
        for i in (1, 2)
    ]


def test_checks_are_needed_where_they_are_counted(home):
    (home / "prompts/bare.yaml").write_text("conversations: [{id: bare, turns: [{user: Hi.}]}]\n")
    (found,) = complaint({"holdout": {"files": ["prompts/bare.yaml"]}})
    assert found == "config: tune.maximize: no conversation held out has a check – write expect: into some"


def test_one_text_may_hold_several_limits():
    limits = study({"subject_to": "truncation_rate < 1 %, e2e_s.p50 < 2 s"}).tune.limits
    assert [limit.text for limit in limits] == ["truncation_rate < 1 %", "e2e_s.p50 < 2 s"]


# ---- the default -----------------------------------------------------------------------------------------


def test_the_default_is_the_models_own_values_of_whatever_is_tuned():
    made = study()
    assert (made.default.name, made.default.parameters) == ("default", {"do_sample": True, "max_new_tokens": 8})
    assert len(made.samplings) == 5
    assert made.samplings[0] == made.default


def test_a_setting_named_default_is_the_default():
    settings = {"tried": {"top_k": [5, 10]}, "default": {"top_k": 50}}
    made = study(sampling={"do_sample": True, "settings": settings})
    assert made.default.parameters == {"do_sample": True, "top_k": 50}
    assert [each.name for each in made.samplings] == ["default", "tried,top_k=5", "tried,top_k=10"]


def test_included_samplings_are_settings_too():
    made = study(sampling={"top_k": 5, "include": [{"top_k": 50}]})
    assert [(each.name, each.parameters) for each in made.samplings] == [
        ("default", {"top_k": 5}),
        ("top_k=50", {"top_k": 50}),
    ]


def test_a_setting_that_sets_nothing_is_the_default():
    made = study(sampling={"settings": {"greedy": {"do_sample": False}, "own": {}}})
    assert [each.name for each in made.samplings] == ["own", "greedy"]


# ---- what is held out ------------------------------------------------------------------------------------


def test_a_share_is_held_out_by_the_seed():
    first, again, other = study(), study(), study({"seed": 1})
    assert len(first.held_out) == 3
    assert {talk.id for talk in first.tuned_on}.isdisjoint(talk.id for talk in first.held_out)
    assert first.held_out == again.held_out != other.held_out


def test_tags_ids_and_files_say_what_is_held_out():
    assert {talk.id for talk in study({"holdout": {"tags": ["odd"]}}).held_out} == {
        f"talk-{i}" for i in (1, 3, 5, 7, 9)
    }
    assert [talk.id for talk in study({"holdout": {"ids": ["talk-4"]}}).held_out] == ["talk-4"]
    files = study({"holdout": {"files": ["prompts/others.yaml"]}})
    assert ([talk.id for talk in files.held_out], len(files.tuned_on)) == (["other-1", "other-2"], 10)
    assert len(study({"holdout": "20 %"}).held_out) == 2


# ---- ranges ----------------------------------------------------------------------------------------------


def test_a_range_is_searched_and_never_run():
    config = parse_config(
        values(sampling={"top_p": {"low": 0.5, "high": 1}, "top_k": {"low": 1, "high": 100, "log": True}})
    )
    made = study_of(config)
    assert made.ranges == {"top_p": Range(0.5, 1.0, False, False), "top_k": Range(1, 100, True, True)}
    assert not made.exhaustive
    assert made.default.parameters == {}
    with pytest.raises(DocumentError, match="top_p: is a range, which only harness tune can choose from"):
        plan(config)


@pytest.mark.parametrize(
    ("top_p", "wrong"),
    [
        ({"low": 0.9, "high": 0.5}, "0.9 to 0.5 is no range – low must be below high"),
        ({"low": 0.9}, "a range needs high"),
        ({"low": 0.1, "high": 1.5}, "sampling.top_p.high: should be at most 1, not 1.5"),
        ({"low": 0, "high": 1, "log": True}, "should be above 0 where log is true"),
        ({"low": 0.1, "high": 1, "step": 0.1}, "sampling.top_p.step: unknown key"),
    ],
)
def test_a_range_that_is_none_is_refused(top_p, wrong):
    assert wrong in complaint(sampling={"top_p": top_p})[0]


def test_a_range_needs_a_tune_section():
    without = {key: value for key, value in values().items() if key != "tune"}
    with pytest.raises(DocumentError, match="is a range, and there is no tune section that would choose from it"):
        parse_config({**without, "sampling": {"top_p": {"low": 0.5, "high": 1}}})
    with pytest.raises(UsageError, match="has no tune section"):
        study_of(parse_config(without))


# ---- the runs of a study ---------------------------------------------------------------------------------


def test_a_run_takes_no_notice_of_the_tune_section():
    config = values()
    without = {key: value for key, value in config.items() if key != "tune"}
    assert resolve(config).config_hash == resolve(without).config_hash


def test_later_rungs_do_not_play_less():
    with pytest.raises(DocumentError, match="rungs: should not become fewer"):
        study({"rungs": [2, 1]})


def test_each_part_of_a_study_is_an_ordinary_run_with_draws_of_its_own():
    made = study({"rungs": [1, 3]})
    plans = [resolve(made.rung(0, made.samplings)), resolve(made.rung(1, made.samplings[:2]))]
    judged = resolve(made.validation(made.samplings[2]))

    assert [each.name for each in plans[0].samplings] == [each.name for each in made.samplings]
    assert plans[0].samplings[1].parameters == made.samplings[1].parameters
    assert [(each.repeats, each.seed) for each in plans] == [(1, seed_of(0, "rung 0")), (3, seed_of(0, "rung 1"))]
    assert {talk.id for talk in plans[0].conversations} == {talk.id for talk in made.tuned_on}
    assert [each.name for each in judged.samplings] == ["default", made.samplings[2].name]
    assert {talk.id for talk in judged.conversations} == {talk.id for talk in made.held_out}
    assert (judged.repeats, judged.launches, judged.seed) == (2, 3, seed_of(0, "validation"))


def test_the_shipped_study_is_the_one_in_the_docs(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    block = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/tuning.md").read_text(encoding="utf-8"), re.DOTALL)[0]
    (tmp_path / "docs.yaml").write_text(block, encoding="utf-8")
    in_docs, shipped = (
        load_config(file).model_dump() for file in (tmp_path / "docs.yaml", "configs/tune-sampling.yaml")
    )
    assert in_docs == shipped


def test_small_grids_are_tried_in_full_and_large_ones_searched():
    axis = [i / 100 for i in range(1, 60)]
    assert study().exhaustive
    assert not study(sampling={"do_sample": True, "temperature": axis}).exhaustive
    assert study({"search": "exhaustive"}, sampling={"do_sample": True, "temperature": axis}).exhaustive
