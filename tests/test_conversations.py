"""prompts/*.yaml: what is written is what is played, and what is wrong is said at once across all files."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from harness.conversations.load import load_conversations
from harness.errors import DocumentError
from harness.records import Message, Persona

ROOT = Path(__file__).parent.parent

GOOD = """\
# yaml-language-server: $schema=schema.json
conversations:
  - id: names
    tags: [memory, short]
    language: en
    persona: {description: Bob is a professor., user: Alice, assistant: Bob}
    system: Answer briefly.
    turns:
      - user: Choose a colour.
        assistant: I choose red.
        capture: {colour: 'choose (\\w+)'}
      - user: Tell me about {{ colour }}.
        expect: [{contains: red}, {max_words: 80}]
    expect:
      - one_line: true
"""


def written(tmp_path, *texts):
    files = []
    for index, text in enumerate(texts):
        files.append(tmp_path / f"{index}.yaml")
        files[-1].write_text(text)
    return files


def mistakes(tmp_path, *texts):
    with pytest.raises(DocumentError) as caught:
        load_conversations(written(tmp_path, *texts))
    return [str(mistake).removeprefix(f"{tmp_path}/") for mistake in caught.value.mistakes]


def test_a_file_becomes_conversations(tmp_path):
    (conversation,) = load_conversations(written(tmp_path, GOOD))
    assert conversation.id == "names"
    assert conversation.tags == ("memory", "short")
    assert conversation.language == "en"
    assert conversation.persona == Persona("Bob is a professor.", "Alice", "Bob")
    assert conversation.source == str(tmp_path / "0.yaml")
    assert conversation.opening() == (Message("system", "Bob is a professor.\nAnswer briefly."),)
    first, second = conversation.turns
    assert (first.user, first.assistant, first.capture) == (
        "Choose a colour.", "I choose red.", {"colour": r"choose (\w+)"}
    )  # fmt: skip
    assert [check.name for check in second.expect] == ["contains: red", "max_words: 80"]
    assert [check.name for check in conversation.expect] == ["one_line: true"]
    assert pickle.loads(pickle.dumps(conversation)) == conversation


def test_what_is_said_several_times_is_one_message(tmp_path):
    text = "conversations:\n  - {id: a, turns: [{user: x y, times: 3}, {user: z}]}\n"
    (conversation,) = load_conversations(written(tmp_path, text))
    assert [turn.user for turn in conversation.turns] == ["x y x y x y", "z"]


@pytest.mark.parametrize("times", ["0", "-1", "1.5", "many"])
def test_times_is_a_number_from_one_on(tmp_path, times):
    text = f"conversations:\n  - {{id: a, turns: [{{user: x, times: {times}}}]}}\n"
    assert mistakes(tmp_path, text)[0].startswith("0.yaml:2:31: conversations.0.turns.0.times: should be ")


def test_all_mistakes_of_all_files_are_one_list(tmp_path):
    first = """\
conversations:
  - id: a
    turn: []
    turns:
      - user: ""
        expect:
          - {contian: motion}
          - {regex: '['}
      - user: Tell me about {{ colour }} and {{size}}.
        asistant: Red.
        capture: {size: 'big'}
      - user: "{{ size }}"
        assistant: Small.
        capture: {'a b': '(', size: 'big'}
  - id: b
    turns: []
"""
    second = """\
conversation: []
conversations:
  - id: a
    turns: [{user: Hello.}]
  - turns: [{user: 7}]
"""
    assert mistakes(tmp_path, first, second, "conversations:\n  - id: c\n   turns: []\n") == [
        "0.yaml:3:5: conversations.0.turn: unknown key – did you mean turns?",
        "0.yaml:5:9: conversations.0.turns.0.user: is empty – a turn begins with something the user says",
        "0.yaml:7:14: conversations.0.turns.0.expect.0.contian: unknown check – did you mean contains?",
        "0.yaml:8:14: conversations.0.turns.0.expect.1.regex: is not a regular expression: "
        "unterminated character set at position 1",
        "0.yaml:9:9: conversations.0.turns.1.user: {{ colour }} is not captured by an earlier turn"
        " – add capture: {colour: REGEX} to one, or literal: true to this turn",
        "0.yaml:9:9: conversations.0.turns.1.user: {{ size }} is not captured by an earlier turn"
        " – add capture: {size: REGEX} to one, or literal: true to this turn",
        "0.yaml:10:9: conversations.0.turns.1.asistant: unknown key – did you mean assistant?",
        "0.yaml:14:19: conversations.0.turns.2.capture.a b: should be a name of letters, digits and _",
        "0.yaml:14:19: conversations.0.turns.2.capture.a b: is not a regular expression: missing ) at position 1",
        "0.yaml:14:31: conversations.0.turns.2.capture.size: finds nothing in this turn's own gold reply"
        " – under history: scripted that would fail",
        "0.yaml:16:5: conversations.1.turns: should not be empty",
        "1.yaml:1:1: conversation: unknown key – did you mean conversations?",
        f"1.yaml:3:5: conversations.0.id: a is the id of another conversation – see {tmp_path}/0.yaml:2:5",
        "1.yaml:5:5: conversations.1.id: is missing – add it",
        "1.yaml:5:14: conversations.1.turns.0.user: should be text, not 7 – write it in quotes",
        "2.yaml:3:4: not valid YAML: expected <block end>, but found '<block mapping start>'"
        " (while parsing a block collection) – check quotes, brackets and indentation",
    ]


def test_an_id_that_occurs_twice_in_a_file_is_a_mistake(tmp_path):
    text = "conversations:\n  - {id: a, turns: [{user: x}]}\n  - {id: a, turns: [{user: y}]}\n"
    assert mistakes(tmp_path, text) == [
        f"0.yaml:3:6: conversations.1.id: a is the id of another conversation – see {tmp_path}/0.yaml:2:6"
    ]


def test_a_file_that_is_missing_does_not_hide_the_mistakes_of_others(tmp_path):
    (file,) = written(tmp_path, "conversations: []\n")
    with pytest.raises(DocumentError) as caught:
        load_conversations([tmp_path / "9.yaml", file])
    assert len(caught.value.mistakes) == 2


@pytest.mark.parametrize("file", sorted((ROOT / "prompts").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_gold_replies_of_shipped_files_pass_their_own_checks(file):
    for conversation in load_conversations([file]):
        for turn in conversation.turns:
            for check in (*turn.expect, *conversation.expect) if turn.assistant is not None else ():
                result = check.judge(turn.assistant, len(turn.assistant.split()))
                assert result.passed, (conversation.id, turn.user, result)


def test_at_least_eight_files_are_shipped_with_ids_of_their_own():
    files = sorted((ROOT / "prompts").glob("*.yaml"))
    conversations = load_conversations(files)
    assert len(files) >= 8
    for file in files:
        assert file.read_text(encoding="utf-8").startswith("# yaml-language-server: $schema=schema.json\n")
    assert all(conversation.tags and conversation.language for conversation in conversations)


def test_the_tutorial_conversation_is_the_tutorials():
    (conversation,) = load_conversations([ROOT / "prompts/physics-professor.yaml"])
    assert conversation.persona == Persona("Bob is a professor in Physics.", "Alice", "Bob")
    assert [turn.user for turn in conversation.turns] == [
        "What is Newtonian mechanics?",
        "How about Lagrangian mechanics?",
    ]


@pytest.mark.parametrize("name", ["physics-professor", "context-growth", "german"])
def test_conversations_meant_for_speed_have_gold_replies_throughout(name):
    for conversation in load_conversations([ROOT / f"prompts/{name}.yaml"]):
        assert all(turn.assistant for turn in conversation.turns)


def test_the_conversation_about_growing_contexts_has_twenty_turns():
    (conversation,) = load_conversations([ROOT / "prompts/context-growth.yaml"])
    assert len(conversation.turns) == 20


def lines(tmp_path, *texts):
    (tmp_path / "0.jsonl").write_text("".join(text + "\n" for text in texts))
    return [tmp_path / "0.jsonl"]


def test_json_lines_hold_a_conversation_each(tmp_path):
    one = '{"id": "a", "tags": ["x"], "turns": [{"user": "Hi", "expect": [{"max_words": 3}]}]}'
    first, second = load_conversations(lines(tmp_path, one, "", '{"id": "b", "turns": [{"user": "Hi"}]}'))

    assert (first.id, first.tags, first.source) == ("a", ("x",), str(tmp_path / "0.jsonl"))
    assert [check.name for check in first.turns[0].expect] == ["max_words: 3"]
    assert second.id == "b"


def test_json_lines_are_judged_as_yaml_is_and_told_by_line(tmp_path):
    (tmp_path / "b.yaml").write_text("conversations: [{id: a, turns: [{user: x}]}]")
    files = lines(
        tmp_path,
        '{"id": "a", "turns": [{"user": "{{ x }}"}]}',
        '{"id": "b", "turns": [{"user": " ", "expect": [{"contain": "x"}]}], "tag": []}',
        '{"id": "c", "id": "d", "turns": []}',
        '{"id": "b", "turns": [{"user": "x"}]}',
        "[1]",
        '{"id": NaN}',
        '{"id": "\\ud83d", "turns": []}',
    )

    with pytest.raises(DocumentError) as caught:
        load_conversations([*files, tmp_path / "b.yaml"])

    # What exactly is no JSON is in the words of the parser.
    told = [re.sub("not JSON: .* –", "not JSON –", str(mistake)) for mistake in caught.value.mistakes]
    assert [mistake.replace(f"{tmp_path}/", "") for mistake in told] == [
        "0.jsonl:1: turns.0.user: {{ x }} is not captured by an earlier turn"
        " – add capture: {x: REGEX} to one, or literal: true to this turn",
        "0.jsonl:2: tag: unknown key – did you mean tags?",
        "0.jsonl:2: turns.0.user: is empty – a turn begins with something the user says",
        "0.jsonl:2: turns.0.expect.0.contain: unknown check – did you mean contains?",
        "0.jsonl:3: id: duplicate key",
        "0.jsonl:4: id: b is the id of another conversation – see 0.jsonl:2",
        "0.jsonl:5: should be a mapping of keys to values, not a list",
        "0.jsonl:6:8: not JSON – one object per line",
        "0.jsonl:7:9: not JSON – one object per line",
        "b.yaml:1:18: conversations.0.id: a is the id of another conversation – see 0.jsonl:1",
    ]


def test_json_lines_that_are_something_else_end_soon(tmp_path):
    with pytest.raises(DocumentError) as caught:
        load_conversations(lines(tmp_path, *['{"messages": []}'] * 1000))

    assert len(caught.value.mistakes) < 110
    assert str(caught.value.mistakes[-1]) == f"{tmp_path}/0.jsonl: read no further than 100 mistakes"


def test_braces_in_a_literal_text_are_text(tmp_path):
    text = "conversations: [{id: a, turns: [{user: 'Say a', capture: {b: a}}, {user: '{{ c }}', literal: true}]}]"
    (one,) = load_conversations(written(tmp_path, text))

    assert one.turns[1].user == "{{ c }}"
    assert mistakes(tmp_path, text.replace("{{ c }}", "{{ b }}")) == [
        "0.yaml:1:68: conversations.0.turns.1.user: {{ b }} is captured by an earlier turn"
        " – choose another name, or no literal"
    ]
