"""Public scripts become prompts files: every format, nothing dropped silently, and what is written can be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.conversations.importing.convert import Imported, convert
from harness.conversations.load import load_conversations
from harness.conversations.script import Conversation, Rubric
from harness.errors import DocumentError, UsageError
from tests.questions import CATEGORIES, question_file

Import = Callable[..., tuple[Imported, tuple[Conversation, ...]]]


@pytest.fixture
def imported(tmp_path: Path) -> Import:
    """Import a text as the file of that name; returns what was told and what a run would play."""

    def do(text: str | list[Any], name="given.jsonl", output="out.yaml", **options: Any):
        if not isinstance(text, str):
            text = "".join(json.dumps(record) + "\n" for record in text)
        (tmp_path / name).write_text(text, encoding="utf-8")
        told = convert(tmp_path / name, tmp_path / output, **{"force": True, **options})
        return told, load_conversations([tmp_path / output])

    return do


def findings(told: Imported) -> dict[str, tuple[str, int, list[int]]]:
    return {each.what: (each.became, each.times, each.lines) for each in told.ledger.findings}


def users(*texts: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text} for text in texts]


def talk(*messages: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text} for role, text in messages]}


OUT = "the conversation is left out"


# --- formats ---------------------------------------------------------------------------------------------------------


def test_mt_bench_questions_become_conversations_of_two_turns(imported):
    told, conversations = imported(question_file())

    assert (told.format, told.conversations, told.turns, findings(told)) == ("mt-bench", 80, 160, {})
    assert [each.id for each in conversations] == [f"mt-bench-{number}" for number in range(81, 161)]
    assert [each.tags for each in conversations] == [(category,) for category in CATEGORIES for _ in range(10)]
    first, second = conversations[30].turns
    assert first.user == json.loads(question_file().splitlines()[30])["turns"][0]
    assert first.assistant == "30 is\n\n2 * (10x+4) = 20x"
    assert second.assistant is None  # an empty reference is none


def test_questions_of_one_turn_and_more_references_than_turns(imported):
    told, (one,) = imported([{"question_id": 1, "turns": ["Hello"], "reference": ["a", "b"], "model": "x"}])

    assert [turn.assistant for turn in one.turns] == [None]
    assert list(findings(told)) == ["a reference that is no list with a text for each turn"]
    assert told.ledger.unread == ["model"]


def test_sharegpt_replies_become_gold_and_a_beginning_without_a_question_is_told(imported):
    told, (one,) = imported([
        {"id": "identity_0", "conversations": [
            {"from": "gpt", "value": "…as I said."}, {"from": "human", "value": "Who are you?"},
            {"from": "gpt", "value": "I am."}, {"from": "human", "value": "Bye"},
        ]},
    ])  # fmt: skip

    assert one.id == "identity_0"
    assert [(turn.user, turn.assistant) for turn in one.turns] == [("Who are you?", "I am."), ("Bye", None)]
    assert findings(told) == {
        "an assistant message before the first turn": ("the message is left out", 1, [1]),
    }


def test_sharegpt_in_pairs_with_a_system_text(imported):
    _, (one,) = imported([
        {"conversation_id": 7, "system": "Be brief.", "conversation": [{"human": "Hello", "assistant": "Hi!"}]},
    ])  # fmt: skip

    assert (one.id, one.system, one.turns[0].assistant) == ("sharegpt-7", "Be brief.", "Hi!")


@pytest.mark.parametrize("key", ["messages", "conversation", "prompt"])
def test_messages_of_openai_lmsys_and_wildchat(imported, key):
    spoken = talk(("system", "Be terse."), ("user", "Capital?"), ("assistant", "Paris."), ("user", "People?"))
    told, (one,) = imported([{key: spoken["messages"], "conversation_id": "ab", "language": "English"}])

    assert (told.format, one.id, one.system, one.tags) == ("openai", "ab", "Be terse.", ("English",))
    assert [(turn.user, turn.assistant) for turn in one.turns] == [("Capital?", "Paris."), ("People?", None)]


def test_user_messages_in_a_row_are_turns_and_parts_of_text_are_text(imported):
    parts = [{"type": "text", "text": "One"}, {"type": "input_text", "text": "two"}]
    _, (one,) = imported([{"messages": [{"role": "user", "content": parts}, *users("Three")]}])

    assert [turn.user for turn in one.turns] == ["One\ntwo", "Three"]


def test_bare_lists_of_messages_one_per_line_or_alone(imported):
    lines, two = imported([users("a"), users("b", "c")])
    alone, (one,) = imported(json.dumps(users("a", "b"), indent=1), "alone.json")

    assert (lines.format, [len(each.turns) for each in two]) == ("openai", [1, 2])
    assert (alone.format, [turn.user for turn in one.turns]) == ("openai", ["a", "b"])


def test_mt_bench_101_and_multi_challenge(imported):
    _, (dialogue,) = imported([{"task": "GR", "id": 1, "history": [{"user": "Who?", "bot": "A."}, {"user": "And?"}]}])
    told, (challenge,) = imported([
        {"QUESTION_ID": "67x", "AXIS": "INFERENCE_MEMORY", "CONVERSATION": users("Q"), "TARGET_QUESTION": "Is it?",
         "PASS_CRITERIA": "YES"},
    ])  # fmt: skip

    assert (dialogue.id, dialogue.tags, dialogue.turns[0].assistant) == ("mt-bench-101-1", ("GR",), "A.")
    assert (challenge.id, challenge.tags) == ("67x", ("INFERENCE_MEMORY",))
    assert challenge.turns[-1].rubric == Rubric("Is it? The reply passes if the answer is YES.", "pass")
    assert findings(told) == {}


def test_the_target_of_a_sample_is_a_check_only_when_asked_for(imported):
    sample = {"id": "h", "input": users("Hi", "Name?"), "target": "Sarah", "metadata": {"axis": "memory"}}
    untold, (plain,) = imported([sample])
    _, (checked,) = imported([sample], target="contains")
    _, (_, several) = imported([sample, {"input": "Which?", "target": ["one", "1"]}], target="contains")

    assert [turn.expect for turn in plain.turns] == [(), ()]
    assert [each.what for each in untold.ledger.findings] == ["target"]
    assert plain.tags == ("memory",)
    assert [check.name for check in checked.turns[-1].expect] == ["contains: Sarah (ignore_case)"]
    assert [check.name for check in several.turns[0].expect] == ["contains_any: one | 1 (ignore_case)"]


def test_samples_come_as_csv_too_and_with_their_lines(imported):
    text = 'id,input,target,choices\na,"Two\nlines?",x,\nb,Which?,y,"[1, 2]"\n'
    told, (one,) = imported(text, "samples.csv")

    assert (told.format, one.turns[0].user) == ("inspect", "Two\nlines?")
    assert findings(told)["a sample with choices"] == (OUT, 1, [4])


def test_promptfoo_tests_that_share_an_id_are_one_conversation(imported):
    text = """\
prompts: ["Answer {{ tone }}: {{question}}"]
providers: [openai:gpt-5-mini]
defaultTest: {vars: {tone: briefly}, assert: [{type: not-contains, value: sorry}]}
tests:
  - vars: {question: Who founded it?}
    metadata: {conversationId: c1, category: facts}
    assert:
      - {type: icontains, value: zuckerberg}
      - {type: latency, threshold: 3000}
  - {vars: {question: Alone}, description: another}
  - vars: {question: Where?, tone: at length}
    metadata: {conversationId: c1}
    assert: [{type: word-count, value: {min: 2, max: 9}}, {type: llm-rubric, value: good}]
"""
    told, (together, alone) = imported(text, "promptfooconfig.yaml")

    assert (together.id, together.tags, alone.id) == ("c1", ("facts",), "another")
    assert [turn.user for turn in together.turns] == ["Answer briefly: Who founded it?", "Answer at length: Where?"]
    assert [[check.name for check in turn.expect] for turn in together.turns] == [
        ["not_contains: sorry", "contains: zuckerberg (ignore_case)"],
        ["not_contains: sorry", "min_words: 2", "max_words: 9"],
    ]
    assert findings(told) == {
        "an assertion 'latency'": ("the check is left out", 1, [5]),
        "an assertion 'llm-rubric'": ("the check is left out", 1, [11]),
    }


@pytest.mark.parametrize(
    ("assertion", "names"),
    [
        ({"type": "contains", "value": 4}, ["contains: 4"]),
        ({"type": "contains-any", "value": "a, b"}, ["contains_any: a | b"]),
        ({"type": "icontains-all", "value": ["a", "b"]}, ["contains_all: a | b (ignore_case)"]),
        ({"type": "not-icontains-any", "value": ["a"]}, ["not_contains: a (ignore_case)"]),
        ({"type": "equals", "value": "{{ q }}!"}, ["equals: Say it!"]),
        ({"type": "starts-with", "value": "Yes"}, ["starts_with: Yes"]),
        ({"type": "regex", "value": r"\d+"}, [r"regex: \d+"]),
        ({"type": "is-json"}, ["json: true"]),
        ({"type": "word-count", "value": 3}, ["min_words: 3", "max_words: 3"]),
        ({"type": "not-contains-all", "value": ["a"]}, []),
        ({"type": "regex", "value": "("}, []),
        ({"type": "contains", "value": "file://x.txt"}, []),
        ({"type": "contains", "value": "{{ other }}"}, []),
        ({"type": "equals", "value": {"a": 1}}, []),
        ({"type": "contains", "value": "a", "weight": 0}, []),
        ({"type": "word-count", "value": "many"}, []),
        ({"no": "type"}, []),
    ],
)
def test_an_assertion_becomes_a_check_where_it_means_the_same_and_is_told_otherwise(imported, assertion, names):
    told, (one,) = imported([{"vars": {"q": "Say it"}, "assert": [assertion]}])

    assert [check.name for check in one.turns[0].expect] == names
    assert bool(told.ledger.findings) == (not names)


def test_promptfoo_rows_and_prompts_with_roles(imported):
    rows = "question,__expected1,__expected2,__metadata:conversationId\nA?,icontains: a,not-regex: b,c1\nB?,yes,,c1\n"
    told, (one,) = imported(rows, "tests.csv")
    prompt = json.dumps([{"role": "system", "content": "Be {{a}}."}, {"role": "user", "content": "{{b}}"}])
    _, (other,) = imported(json.dumps({"prompts": [prompt], "tests": [{"vars": {"a": "kind", "b": "Hi"}}]}), "c.json")

    assert [[check.name for check in turn.expect] for turn in one.turns] == [
        ["contains: a (ignore_case)"], ["equals: yes"],
    ]  # fmt: skip
    assert list(findings(told)) == ["an assertion 'not-regex'"]
    assert (other.system, other.turns[0].user) == ("Be kind.", "Hi")


def test_a_prompt_with_history_makes_one_conversation_of_all_tests(imported):
    text = """\
prompts: ["{% for each in _conversation %}{{ each.input }}{% endfor %}{{ question }}"]
tests: [{vars: {question: One?}}, {vars: {question: Two?}}]
"""
    told, (one,) = imported(text, "config.yaml")

    assert [turn.user for turn in one.turns] == ["One?", "Two?"]
    assert list(findings(told)) == ["a prompt: a template that is more than names"]


def test_a_list_of_tests_in_yaml_has_lines(imported):
    told, _ = imported("- vars: {q: A}\n- vars: {q: [a, b]}\n- vars: {q: B, r: C}\n", "tests.yaml")

    assert findings(told) == {
        "a variable with several values": (OUT, 1, [2]),
        "variables, of which none alone is what the user says": (OUT, 1, [3]),
    }


# --- what cannot be said ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "what"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
         "a part of a message that is no text: 'image_url'"),
        (talk(("user", "a"), ("tool", "b")), "a message of the role 'tool'"),
        ({"messages": [*users("a"), {"role": "assistant", "content": None, "tool_calls": [{}]}]}, "a tool call"),
        (talk(("user", "a"), ("system", "b")), "a system message after the first turn"),
        (talk(("user", " "), ("user", "b")), "an empty user message"),
        (talk(("assistant", "b")), "no user message"),
        ({"messages": [{"content": "x"}]}, "a message without a role"),
        ({"messages": "x", "prompt": 3, "other": 1}, None),
        ({"nothing": "x"}, "a record without messages"),
        ({"messages": [{"role": "user", "content": "\ud83d"}]}, "half of a surrogate pair"),
        ("text", "a record that is no conversation"),
    ],
)  # fmt: skip
def test_what_a_script_cannot_say_leaves_the_conversation_out_and_is_told(imported, record, what):
    told, conversations = imported([talk(("user", "fine")), record, record], format="openai")

    if what is None:
        assert len(conversations) == 3
    else:
        assert [turn.user for each in conversations for turn in each.turns] == ["fine"]
        assert findings(told)[what] == (OUT, 2, [2, 3])


def test_what_changes_little_is_told_too(imported):
    told, (one,) = imported([
        {**talk(("system", "a"), ("developer", "b"), ("user", "q"), ("assistant", "c"), ("assistant", ""),
                ("assistant", "d"), ("user", "")), "tools": [{}]},
    ])  # fmt: skip

    assert (one.system, one.turns[0].assistant) == ("a\n\nb", "c\n\nd")
    assert list(findings(told)) == [
        "tools", "several system messages", "an empty user message at the end", "an empty assistant message",
        "several assistant messages in a row",
    ]  # fmt: skip


def test_lines_that_are_not_json_are_told_and_the_others_are_read(imported):
    told, two = imported(f"{json.dumps(users('a'))}\n{{broken\n\n{json.dumps(users('b'))}\n")

    assert len(two) == 2
    assert findings(told) == {"a line that is not JSON": ("the line is left out", 1, [2])}


def test_strict_takes_all_or_nothing(imported, tmp_path):
    with pytest.raises(DocumentError) as caught:
        imported([talk(("user", "fine")), talk(("assistant", "b"))], strict=True)

    assert str(caught.value) == f"{tmp_path}/given.jsonl:2: no user message: {OUT}"
    assert [path.name for path in tmp_path.iterdir()] == ["given.jsonl"]


def test_an_existing_file_is_kept_and_a_failed_import_leaves_nothing(imported, tmp_path):
    (tmp_path / "out.yaml").write_text("mine")

    with pytest.raises(UsageError, match="exists already"):
        imported([talk(("user", "a"))], force=False)
    with pytest.raises(DocumentError, match="no conversation that can be imported"):
        imported([talk(("assistant", "a"))])
    with pytest.raises(UsageError, match="neither YAML nor JSON Lines"):
        imported([talk(("user", "a"))], output="out.txt")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["given.jsonl", "out.yaml"]
    assert (tmp_path / "out.yaml").read_text() == "mine"


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', "[1, 2]", "nonsense"])
def test_a_file_of_no_known_format_is_one_line_of_error(imported, text):
    with pytest.raises(UsageError) as caught:
        imported(text, "x.json")

    assert len(caught.value.mistakes) == 1


# --- ids -------------------------------------------------------------------------------------------------------------


def test_ids_are_unique_and_do_not_depend_on_neighbours(imported):
    a, b = talk(("user", "a")), talk(("user", "b"))
    _, alone = imported([a])
    told, (first, second, again) = imported([b, a, a])

    assert first.id.startswith("openai-")
    assert second.id == alone[0].id
    assert again.id == f"{second.id}-2"
    assert findings(told) == {"an id that occurs again": ("the conversation has a number behind its id", 1, [3])}


def test_a_numbered_id_never_meets_one_that_is_there(imported):
    _, found = imported([{"id": name, **talk(("user", "a"))} for name in ("x", "x-2", "x", "x")])

    assert [each.id for each in found] == ["x", "x-2", "x-3", "x-4"]


# --- texts survive ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["{{ name }} of a template", "a: b # c", "- x\n  y\n\n\nz", "\tx\ny", "x \ny ", "\nx\n", "---\n...", "'\"\\",
     "x" * 300, "word " * 60 + "end", "no", "1e-3", "\u2028x\u0085y", "&a *b !c %d @e `f", "\x00\x1b[31m"],
)  # fmt: skip
@pytest.mark.parametrize("ending", ["yaml", "jsonl"])
def test_texts_that_mean_something_to_a_file_format_are_just_texts(imported, text, ending):
    _, (one,) = imported([talk(("user", text), ("assistant", text))], output=f"out.{ending}")

    assert (one.turns[0].user, one.turns[0].assistant) == (text, text)
