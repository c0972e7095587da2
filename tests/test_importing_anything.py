"""Whatever a file holds: what was said is read back, and odd records are conversations or lines of error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.conversations.importing import records as reading
from harness.conversations.importing.convert import convert
from harness.conversations.importing.detect import FORMATS
from harness.conversations.importing.ledger import Ledger
from harness.conversations.importing.records import records
from harness.conversations.load import load_conversations
from harness.errors import DocumentError, HarnessError

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@pytest.mark.parametrize("ending", ["yaml", "jsonl"])
@given(said=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3), name=TEXTS)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_was_said_is_read_back(tmp_path, ending, said, name):
    spoken = [{"from": role, "value": text} for pair in said for role, text in zip(("human", "gpt"), pair, strict=True)]
    (tmp_path / "given.json").write_text(json.dumps([{"id": name, "conversations": spoken}]))

    convert(tmp_path / "given.json", tmp_path / f"out.{ending}", force=True)
    (one,) = load_conversations([tmp_path / f"out.{ending}"])

    assert [(turn.user, turn.assistant) for turn in one.turns] == said


# --- whatever comes ---------------------------------------------------------------------------------------------------

ODD = st.sampled_from([
    None, True, 0, -1, 2.5, float("nan"), "", " ", "user", "tool", "{{ x }}", "{% if %}", "file://x", "[", "a, b",
    "\ud83d", "\x00", [], {},
    [None], ["a"], [[]], {"role": "user"}, {"type": "text"}, {"x": {"y": 1}}, "not-regex", "is-json",
])  # fmt: skip
ASKED = {"role": "user", "content": "a"}
SOUND: list[dict[str, Any]] = [
    {"question_id": 1, "category": "math", "turns": ["a", "b"], "reference": ["c", ""]},
    {"task": "GR", "id": 1, "history": [{"user": "a", "bot": "b"}]},
    {"QUESTION_ID": "x", "AXIS": "y", "CONVERSATION": [ASKED], "TARGET_QUESTION": "b?", "PASS_CRITERIA": "YES"},
    {"id": "a", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "tools": []},
    {"conversation": [{"human": "a", "assistant": "b"}], "system": "c"},
    {"messages": [ASKED, {"role": "assistant", "content": [{"type": "text", "text": "b"}], "name": "x"}]},
    {"input": [ASKED], "ideal": ["b"], "metadata": {"axis": "c", "tags": ["d"]}, "id": 1, "choices": []},
    {"input": "a", "target": "b", "metadata": {"category": "c"}},
    {"vars": {"q": "a"}, "assert": [{"type": "contains", "value": "b"}, {"type": "word-count", "value": {"min": 1}},
                                     "x"],
     "metadata": {"conversationId": "c"}, "options": {"transform": "x"}, "description": "d", "threshold": 1},
    {"prompts": ["{{ q }} {{ r }}", {"raw": "x"}], "defaultTest": {"vars": {"r": "s"}, "assert": [{"type": "is-json"}]},
     "tests": [{"vars": {"q": "a"}}, {"vars": {"messages": [{"user": "b"}]}}]},
]  # fmt: skip


@st.composite
def nearly_sound(draw: st.DrawFn) -> Any:
    """A record of some format with something odd somewhere in it."""

    def changed(value: Any) -> Any:
        inner = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
        if not inner or draw(st.integers(0, 3)) == 0:
            return draw(ODD)
        place = draw(st.sampled_from(inner))
        return {**value, place: changed(value[place])} if isinstance(value, dict) else [
            *value[:place], changed(value[place]), *value[place + 1 :],
        ]  # fmt: skip

    return changed(draw(st.sampled_from(SOUND)))


@given(found=st.lists(nearly_sound() | st.sampled_from(SOUND), min_size=1, max_size=3), by_name=st.booleans())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_records_are_conversations_or_lines_of_error(tmp_path, found, by_name):
    (tmp_path / "odd.jsonl").write_text("".join(json.dumps(record) + "\n" for record in found))

    for name in FORMATS if by_name else [None]:
        try:
            told = convert(tmp_path / "odd.jsonl", tmp_path / "out.jsonl", name, target="contains", force=True)
        except HarnessError:
            continue
        assert len(load_conversations([tmp_path / "out.jsonl"])) == told.conversations > 0


# --- reading piece by piece ------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(values=st.lists(VALUES, max_size=6), chunk=st.integers(1, 40), indent=st.sampled_from([None, 1]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_array_is_read_element_by_element_whatever_the_window(tmp_path, values, chunk, indent):
    path = tmp_path / "array.json"
    path.write_text(json.dumps([{"-": value} for value in values], indent=indent))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_CHUNK", chunk)
        found = list(records(path, Ledger()))

    assert [record.value["-"] for record in found] == values
    if indent:
        lines = path.read_text().splitlines()
        assert all(lines[record.line - 1].strip().startswith("{") for record in found)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
@pytest.mark.parametrize(
    ("text", "line"),
    [('[{"a": 1},\n{"a": tru}]', 2), ('[{"a": 1}\n{"b": 2}]', 2), ('[\n{"a": "x}]', 2), ('[{"a": 1},\n', 2),
     ('[\n\n{"a" 1}, {"b": 2}, {"c": 3}, {"d": 4}]', 3), ("[" * 100_000, 1), ('[{"a": ' + "9" * 5000 + "}]", 1)],
)  # fmt: skip
def test_a_broken_array_is_told_with_its_line(tmp_path, monkeypatch, text, line, chunk):
    monkeypatch.setattr(reading, "_CHUNK", chunk)
    (tmp_path / "x.json").write_text(text)

    with pytest.raises(DocumentError) as caught:
        list(records(tmp_path / "x.json", Ledger()))

    assert str(caught.value).startswith(f"{tmp_path}/x.json:{line}: ")


def test_a_value_that_never_ends_is_not_read_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_CHUNK", 100)
    monkeypatch.setattr(reading, "_LONGEST", 2000)
    (tmp_path / "x.json").write_text('[{"a": "' + "x" * 100_000)

    with pytest.raises(DocumentError, match="million characters begins here"):
        list(records(tmp_path / "x.json", Ledger()))


def test_bytes_that_are_no_text_are_told(tmp_path):
    (tmp_path / "x.json").write_bytes(b'[{"a": "\xff"}]')

    with pytest.raises(DocumentError, match="byte 0xff is not UTF-8"):
        list(records(tmp_path / "x.json", Ledger()))
