"""Checks: each formula against replies judged by hand, and no way for a typo to pass."""

from __future__ import annotations

import pickle
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.conversations import checks, expect
from harness.conversations import repetition as repetitions
from harness.conversations.expect import KINDS, read_checks
from harness.conversations.refusals import refusal_phrase
from harness.conversations.repetition import repetition

REPLY = "Newtonian mechanics describes motion by forces."


def check(item):
    made, problems = read_checks([item], ("expect",))
    assert problems == []
    return made[0]


def passes(item, reply, tokens=None):
    return check(item).judge(reply, tokens).passed


@pytest.mark.parametrize(
    ("item", "good", "bad"),
    [
        ({"contains": "motion"}, REPLY, "Motion"),
        ({"contains": "MOTION", "ignore_case": True}, REPLY, "force"),
        ({"contains": "STRASSE", "ignore_case": True}, "straße", "gasse"),
        ({"contains_any": ["energy", "forces"]}, REPLY, "light"),
        ({"contains_all": ["motion", "forces"]}, REPLY, "motion"),
        ({"not_contains": "energy"}, REPLY, "energy"),
        ({"not_contains": ["energy", "Alice:"]}, REPLY, "Alice: hm"),
        ({"not_contains": "ENERGY", "ignore_case": True}, REPLY, "energy"),
        ({"equals": "42"}, " 42\n", "42."),
        ({"equals": "yes", "ignore_case": True}, "YES", "yes!"),
        ({"starts_with": "Newton"}, "  Newton was", "Isaac Newton"),
        ({"starts_with": "no", "ignore_case": True}, "No, because", "Yes"),
        ({"regex": r"\b42\b"}, "it is 42.", "it is 421"),
        ({"regex": "^newton", "ignore_case": True}, "Newton", "A newton"),
        ({"max_words": 6}, REPLY, REPLY + " Really."),
        ({"min_words": 6}, REPLY, "Motion by forces"),
        ({"one_line": True}, "one\n", "one\ntwo"),
        ({"one_line": True}, "one", ""),
        ({"json": True}, '{"a": [1, 2]}', "Sure! {}"),
        ({"json": True}, '```json\n{"a": 1}\n```', "```json\n{a: 1}\n```"),
        ({"json": True}, "3", '{"a": NaN}'),
        ({"json": {"type": "object", "required": ["a"]}}, '{"a": 1}', '{"b": 1}'),
        ({"refusal": True}, "I’m sorry, but I can't help with that.", REPLY),
        ({"refusal": False}, REPLY, "Dabei kann ich leider ... tut mir leid, aber nein."),
        ({"max_repetition": 0.3}, REPLY, "I like the blue sky. " * 3),
    ],
)
def test_a_check_tells_good_replies_from_bad_ones(item, good, bad):
    assert passes(item, good)
    assert not passes(item, bad)


def test_token_limits_count_generated_tokens_and_fail_where_they_are_not_known():
    assert passes({"max_tokens": 5}, "", 5)
    assert not passes({"max_tokens": 5}, "", 6)
    assert passes({"min_tokens": 5}, "", 5)
    assert not passes({"min_tokens": 5}, "", 4)
    result = check({"max_tokens": 5}).judge("", None)
    assert (result.passed, result.detail) == (False, "the number of tokens is not known")


def test_names_are_readable_stable_and_tell_checks_apart():
    items = [
        {"contains": "motion"},
        {"contains": "motion", "ignore_case": True},
        {"contains_any": ["a", "b"]},
        {"max_words": 80},
        {"one_line": True},
        {"json": True},
        {"json": {"type": "object"}},
        {"max_repetition": 0.3},
        {"refusal": False},
    ]
    assert [check(item).name for item in items] == [
        "contains: motion",
        "contains: motion (ignore_case)",
        "contains_any: a | b",
        "max_words: 80",
        "one_line: true",
        "json: true",
        "json: schema ff419ebb",
        "max_repetition: 0.3",
        "refusal: false",
    ]


def test_details_say_what_was_found():
    assert check({"contains_all": ["motion", "energy"]}).judge(REPLY, None).detail == "'energy' not in the reply"
    assert check({"max_words": 3}).judge(REPLY, None).detail == "6 words"
    assert check({"not_contains": "motion"}).judge(REPLY, None).detail == "found 'motion'"
    assert check({"json": {"properties": {"a": {"type": "string"}}}}).judge('{"a": 1}', None).detail == (
        "$.a: \"1 is not of type 'string'\""
    )


def test_a_runaway_pattern_is_stopped(monkeypatch):
    monkeypatch.setattr(checks, "REGEX_SECONDS", 0.05)
    start = time.monotonic()
    result = check({"regex": "(a|aa)+$"}).judge("a" * 60 + "!", None)
    assert time.monotonic() - start < 2
    assert (result.passed, result.detail) == (False, "the pattern took longer than 0.05 s")


def test_a_schema_never_reaches_for_the_network():
    result = check({"json": {"$ref": "https://example.org/schema.json"}}).judge("{}", None)
    assert not result.passed
    assert "https://example.org/schema.json" in result.detail


def test_deeply_nested_json_is_a_failed_check_not_a_crash():
    assert not passes({"json": True}, "[" * 100_000)


def test_checks_travel_to_worker_processes():
    items = [{"contains": "a"}, {"regex": "a"}, {"json": {"type": "object"}}, {"refusal": True}, {"one_line": True}]
    made = read_checks(items, ())[0]
    assert pickle.loads(pickle.dumps(made)) == made


@pytest.mark.parametrize(
    ("item", "path", "message"),
    [
        ({"contain": "x"}, ("contain",), "unknown check – did you mean contains?"),
        ({"contains": "x", "ignorecase": True}, ("ignorecase",), "unknown check – did you mean ignore_case?"),
        ({"contains": 42}, ("contains",), "should be text, not 42 – write it in quotes"),
        ({"contains": ["a"]}, ("contains",), "should be text, not a list"),
        ({"contains": ""}, ("contains",), "should be text, not nothing – every reply would do"),
        ({"contains_any": "a"}, ("contains_any",), "should be a list of texts, not 'a'"),
        ({"contains_any": []}, ("contains_any",), "should be a list of texts, not a list"),
        ({"max_words": "ten"}, ("max_words",), "should be a whole number from 0, not 'ten'"),
        ({"min_tokens": 0}, ("min_tokens",), "should be a whole number from 1, not 0"),
        ({"max_repetition": 1}, ("max_repetition",), "should be a share from 0 to below 1, not 1"),
        ({"refusal": "no"}, ("refusal",), "should be true or false, not 'no'"),
        ({"json": False}, ("json",), "should be true, not false – leave the check out if it is not wanted"),
        (
            {"json": {"type": "objekt"}},
            ("json",),
            "is not a JSON Schema: $.type: 'objekt' is not valid under any of the given schemas",
        ),
        ({"regex": "("}, ("regex",), "is not a regular expression: missing ) at position 1"),
        ({"max_words": 3, "ignore_case": True}, ("ignore_case",), "means nothing to max_words – leave it out"),
        ({"contains": "x", "ignore_case": "yes"}, ("ignore_case",), "should be true or false, not 'yes'"),
        ({"contains": "x", "max_words": 3}, (), "2 checks in one item – write one item per check"),
        ({"ignore_case": True}, (), "0 checks in one item – name a check"),
        ({}, (), "0 checks in one item – name a check"),
        ("one_line", (), "should be a mapping of a check to its value, not 'one_line' – write one_line: true"),
    ],
)
def test_a_check_that_is_not_understood_is_a_mistake_never_a_pass(item, path, message):
    made, problems = read_checks([item], ("expect",))
    assert made == ()
    assert [(p.path, f"{p.fact} – {p.remedy}" if p.remedy else p.fact) for p in problems] == [
        (("expect", 0, *path), message)
    ]


def test_the_same_check_twice_is_a_mistake():
    made, problems = read_checks([{"max_words": 3}, {"max_words": 3}], ())
    assert len(made) == 1
    assert problems[0].fact == "max_words: 3 is in this list twice"


def test_a_json_schema_without_the_package_is_said_when_the_file_is_loaded(monkeypatch):
    monkeypatch.setattr(expect.importlib.util, "find_spec", lambda name: None)
    assert read_checks([{"json": True}], ())[1] == []
    problem = read_checks([{"json": {"type": "object"}}], ())[1][0]
    assert problem.fact == "a JSON Schema needs the package jsonschema"
    assert problem.remedy == "pip install instruct-harness[json-schema]"


def test_every_kind_has_a_schema_that_accepts_what_loading_accepts():
    import jsonschema

    schema = expect.check_schema()
    examples = {
        "contains_any": ["a"], "contains_all": ["a"], "max_repetition": 0.3, "json": True, "one_line": True,
        "refusal": True,
    }  # fmt: skip
    for key in KINDS:
        item = {key: examples.get(key, 3 if key.startswith(("max", "min")) else "a")}
        assert check(item)
        jsonschema.validate(item, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"contain": "a"}, schema)


def test_repetition_of_a_text_worked_by_hand():
    # 6 words said twice: the second six lie in runs that began before, the six of the first do not; and the run that
    # straddles both is new. 12 units, 6 repeated.
    assert repetition("we like the very blue sky we like the very blue sky") == 0.5
    # Period 1: every run but the first is a repeat, so all units but the first are repeated.
    assert repetition("no " * 10) == 0.9
    assert repetition("we like the very blue sky today") == 0.0


@pytest.mark.parametrize("text", ["", "word", "a b c d e", "。", "\n"])
def test_short_texts_repeat_nothing(text):
    assert repetition(text) == 0.0


@pytest.mark.parametrize(
    ("language", "sentence"),
    [
        ("en", "The sky is blue because air scatters short blue waves of sunlight more than long red ones. "),
        ("de", "Der Himmel ist blau, weil die Luft blaues Licht stärker streut als rotes. "),
        ("zh", "天空是蓝色的,因为空气散射阳光中的短蓝波多于长红波。"),
        ("ja", "空が青いのは、空気が太陽光の短い青い波を長い赤い波よりも強く散乱させるからです。"),
        ("th", "ท้องฟ้าเป็นสีฟ้าเพราะอากาศกระเจิงแสงสีน้ำเงินมากกว่าสีแดง "),
        ("hi", "आकाश नीला है क्योंकि हवा नीले प्रकाश को लाल से अधिक बिखेरती है। "),
        ("ru", "Небо голубое, потому что воздух сильнее рассеивает короткие синие волны. "),
    ],
)
def test_repetition_is_low_once_and_high_in_a_loop_in_any_language(language, sentence):
    assert repetition(sentence) < 0.1
    assert repetition(sentence * 2) == pytest.approx(0.5, abs=0.05)
    assert repetition(sentence * 10) > 0.85


def test_plain_text_has_the_same_units_the_quick_way():
    plain = [sign for sign in map(chr, range(0x10000)) if repetitions.PLAIN.fullmatch(sign)]
    assert {"a", "ß", "’", "–", "€", "Ω", "ж"} <= set(plain)
    assert not {"\u0301", "字", "²"} & set(plain)
    for sign in plain:
        text = f"a{sign}b {sign}{sign}"
        assert repetitions.PLAIN_UNIT.findall(text) == repetitions._UNIT.findall(text), hex(ord(sign))


@pytest.mark.parametrize("loop", ["ha" * 60, "!" * 40, "the the the the the the the the the the"])
def test_loops_without_sense_are_repetition(loop):
    assert repetition(loop) > 0.8


@settings(deadline=None)  # the machine may be busy
@given(st.text(max_size=200))
def test_repetition_is_a_share_and_grows_when_the_text_is_doubled(text):
    assert 0 <= repetition(text) < 1
    assert repetition(text + "\n" + text) >= repetition(text) / 2


@pytest.mark.parametrize(
    "reply",
    [
        "I'm sorry, but I can't help with that.",
        "As an assistant, I cannot provide this.",
        "Dabei kann ich nicht helfen.",
        "Es ist mir nicht möglich, das zu sagen.",
        "I am a physics tutor, so politics is not my field.",
        "Je ne peux pas vous aider.",
    ],
)
def test_refusals_are_recognised(reply):
    assert refusal_phrase(reply)


@pytest.mark.parametrize(
    "reply", [REPLY, "Die Erde dreht sich.", "x" * 400 + " I cannot help", "The engine cannot run without heat."]
)
def test_answers_are_not_taken_for_refusals(reply):
    assert refusal_phrase(reply) is None


@settings(deadline=None)  # the machine may be busy
@given(st.text(max_size=80), st.sampled_from(sorted(KINDS)))
def test_judging_never_raises(reply, key):
    values = {"json": True, "one_line": True, "refusal": True, "contains_any": ["a"], "contains_all": ["a"]}
    value = values.get(key, 0.5 if key == "max_repetition" else 3 if key[:3] in ("max", "min") else "a")
    result = check({key: value}).judge(reply, None)
    assert result.check.startswith(f"{key}: ")


@pytest.mark.parametrize(
    "reply",
    [
        "Heidi will not come today.",
        "The Taj at Delhi cannot provide shade.",
        "I won't bore you: use kill -9.",
        "I will not hesitate to help.",
    ],
)
def test_phrases_inside_words_and_promises_are_no_refusals(reply):
    assert refusal_phrase(reply) is None


@pytest.mark.parametrize("reply", ["I can not help with that.", "I cannot discuss that.", "I cannot do this."])
def test_refusals_in_other_words_are_refusals(reply):
    assert refusal_phrase(reply)


@pytest.mark.parametrize("reply", ['```json\r\n{"a": 1}\r\n```', '``` json\n{"a": 1}\n```', '```\n{"a": 1}```'])
def test_json_may_stand_in_any_kind_of_fence(reply):
    ((check,), _) = read_checks([{"json": True}], ())

    assert check.judge(reply, None).passed
