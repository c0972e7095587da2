"""YAML with positions: whatever is wrong with a file is said in one line each, all at once, in the right place."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from harness.documents import (
    Assignment,
    Problem,
    Shape,
    did_you_mean,
    document_of,
    fit,
    parse_document,
    read_document,
    set_values,
)
from harness.errors import DocumentError, UsageError


class Wheel(Shape):
    size: int = Field(ge=1)
    colour: str = "black"


class Car(Shape):
    name: str
    wheels: list[Wheel] = Field(default_factory=list)
    speeds: dict[str, float] = Field(default_factory=dict)
    electric: bool = False


def complaints(text: str, shape: type[Shape] = Car) -> list[str]:
    document = parse_document(text, "car.yaml")
    return [str(mistake) for mistake in document.mistakes(fit(document.value, shape)[1])]


def refusal(text: str) -> str:
    with pytest.raises(DocumentError) as caught:
        parse_document(text, "car.yaml")
    return str(caught.value)


def test_every_mistake_of_a_file_is_reported_at_once_in_file_order():
    text = """\
wheels:
  - {size: 1, color: red}
  - {size: 0}
  - size: "2"
electric: yes
electric: true
speeds: {walk: fast}
"""
    assert complaints(text) == [
        "car.yaml:1:1: name: is missing – add it",
        "car.yaml:2:15: wheels.0.color: unknown key – did you mean colour?",
        "car.yaml:3:6: wheels.1.size: should be greater than or equal to 1, not 0",
        "car.yaml:4:5: wheels.2.size: should be a whole number, not '2'",
        "car.yaml:5:1: electric: should be true or false, not 'yes'",
        "car.yaml:6:1: electric: duplicate key – also in line 5",
        "car.yaml:7:10: speeds.walk: should be a number, not 'fast'",
    ]


def test_scalars_become_plain_python_values():
    text = """\
a: 'quoted'
b: 1e-3
c: |
  two
  lines
d: no
e: 2026-01-01T00:00:00
f: [1, 2.5, true, null, ~]
g: {h: 0x10}
"""
    value = parse_document(text, "x").value
    assert value == {
        "a": "quoted",
        "b": 0.001,
        "c": "two\nlines\n",
        "d": "no",
        "e": "2026-01-01T00:00:00",
        "f": [1, 2.5, True, None, None],
        "g": {"h": 16},
    }
    assert {type(entry) for entry in (value, *value.values(), *value["f"])} <= {
        dict, list, str, int, float, bool, type(None)
    }  # fmt: skip


def test_anchors_and_merges_work_and_own_keys_win():
    value = parse_document("base: &b {x: 1, y: 2}\nc: {<<: *b, y: 3}\n", "x").value
    assert value["c"] == {"x": 1, "y": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "car.yaml:1:1: is empty – see docs/ for the format"),
        ("# only a comment\n", "car.yaml:1:1: is empty – see docs/ for the format"),
        ("- a\n- b\n", "car.yaml:1:1: should be a mapping of keys to values, not a list"),
        ("just text\n", "car.yaml:1:1: should be a mapping of keys to values, not 'just text'"),
        ("a:\n\tb: 1\n", "car.yaml:2:1: a tab cannot indent YAML – use spaces"),
        (
            "a: b: c\n",
            "car.yaml:1:5: not valid YAML: a colon where none can be"
            " – quote text that holds a colon, and check the indentation",
        ),
        (
            "a: 1\n---\nb: 2\n",
            "car.yaml:2:1: a second document begins here – one file holds one document: remove the ---",
        ),
        ("a: \x01\n", "car.yaml:1:4: character U+0001 is not allowed in YAML"),
        ("a: @x\n", "car.yaml:1:4: not valid YAML: found character '@' that cannot start any token – quote the text"),
    ],
)
def test_what_is_not_a_document_is_one_clear_line(text, message):
    assert refusal(text) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: !secret x\n", "car.yaml:1:1: name: the tag !secret means nothing here – leave it out"),
        ("name: &n [*n]\n", "car.yaml:1:7: name.0: an alias that contains itself"),
        ("? [a]\n: 1\n", "car.yaml:1:3: a key that is not text – quote it"),
        ("name: !!int x\n", "car.yaml:1:1: name: 'x' is not !!int"),
    ],
)
def test_yaml_that_means_nothing_here_is_a_mistake(text, message):
    assert message in complaints(text)


def test_a_value_that_could_not_be_read_is_not_also_of_the_wrong_type():
    assert len(complaints("name: !secret x\n")) == 1


def test_unclosed_brackets_are_one_line():
    message = refusal("a: [1, 2\n")
    assert message.startswith("car.yaml:2:1: not valid YAML")
    assert "\n" not in message


def test_files_that_cannot_be_read_are_one_clear_line(tmp_path):
    (tmp_path / "cars.yaml").write_text("a: 1\n")
    for path, fact in [
        (tmp_path / "car.yaml", f"no such file – did you mean {tmp_path / 'cars.yaml'}?"),
        (tmp_path, f"is a directory, not a file – name its files: {tmp_path}/*.yaml"),
    ]:
        with pytest.raises(DocumentError) as caught:
            read_document(path)
        assert str(caught.value) == f"{path}: {fact}"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_one_clear_line(tmp_path):
    path = tmp_path / "car.yaml"
    path.write_text("a: 1\n")
    path.chmod(0)
    with pytest.raises(DocumentError, match="cannot be read: Permission denied"):
        read_document(path)


def test_bytes_that_are_not_utf8_are_placed(tmp_path):
    path = tmp_path / "car.yaml"
    path.write_bytes(b"a: 1\nname: M\xfcller\n")
    with pytest.raises(DocumentError) as caught:
        read_document(path)
    assert str(caught.value) == f"{path}:2:8: byte 0xfc is not UTF-8 – save it as UTF-8"


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    path = tmp_path / "car.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: Tin\n")
    assert read_document(path).value == {"name": "Tin"}


def test_a_document_error_is_a_usage_error_with_its_mistakes():
    with pytest.raises(UsageError) as caught:
        parse_document("", "car.yaml")
    assert caught.value.exit_code == 2
    assert len(caught.value.mistakes) == 1


def test_values_without_a_file_name_their_source_only():
    document = document_of({"name": "Tin", "wheels": ({"size": 0},)}, "command line")
    assert [str(m) for m in document.mistakes(fit(document.value, Car)[1])] == [
        "command line: wheels.0.size: should be greater than or equal to 1, not 0"
    ]


def test_keys_of_a_python_mapping_have_to_be_text_as_in_a_file():
    document = document_of({"name": "Tin", "speeds": {3: 1.0}}, "here")
    assert [str(m) for m in document.mistakes(())] == ["here: speeds.3: a key that is not text"]


def test_a_file_that_is_nested_too_deeply_is_one_clear_line():
    assert refusal("a: " + "[" * 1500 + "]" * 1500) == "car.yaml: is nested too deeply"


def test_set_values_reach_into_lists_and_make_mappings():
    document = document_of({"a": [{"b": 1}, 2]}, "x")
    changed = set_values(document, ["a.0.b=[1, two]", "c.d.e=1e-3", "f=", "a.1=no"])
    assert changed.value == {"a": [{"b": [1, "two"]}, "no"], "c": {"d": {"e": 0.001}}, "f": None}
    assert document.value == {"a": [{"b": 1}, 2]}


def test_a_mistake_in_a_set_value_names_the_assignment():
    document = set_values(parse_document("name: Tin\n", "car.yaml"), ["wheels=[{sise: 1}]", "electric=2"])
    lines = [str(m) for m in document.mistakes(fit(document.value, Car)[1])]
    assert "--set electric=2: should be true or false, not 2" in lines
    assert "--set wheels=[{sise: 1}]: wheels.0.sise: unknown key – did you mean size?" in lines


def test_assignments_that_cannot_be_carried_out_are_reported_together():
    with pytest.raises(DocumentError) as caught:
        set_values(document_of({"a": [1], "b": 2}, "x"), ["a", "a.3=1", "b.c=1", "a=[", "=1", "d={x: 1, x: 2}"])
    assert [str(mistake) for mistake in caught.value.mistakes] == [
        "--set a: is not an assignment – write --set sampling.top_k=20",
        "--set a.3=1: 3 is not one of the indexes 0 … 0",
        "--set b.c=1: there is no c in 2",
        "--set a=[: not valid YAML: expected the node content, but found '<stream end>' (while parsing a flow node)"
        " – check quotes, brackets and indentation",
        "--set =1: is not an assignment – write --set sampling.top_k=20",
        "--set d={x: 1, x: 2}: duplicate key – also in line 1",
    ]


def test_did_you_mean_names_the_nearest_or_a_short_list_or_nothing():
    assert did_you_mean("tok_k", ["top_k", "top_p", "max_length"]) == "did you mean top_k?"
    assert did_you_mean("zzz", ["one", "two"]) == "known: one, two"
    assert did_you_mean("zzz", [str(number) for number in range(50)]) == ""


def test_a_problem_of_a_missing_key_stands_at_its_mapping():
    document = parse_document("wheels:\n  - {size: 1}\n", "car.yaml")
    assert str(document.mistake(Problem(("wheels", 0, "colour"), "is missing"))).startswith("car.yaml:2:5: ")


words = st.text("abcdefghij_", min_size=1, max_size=8).filter(lambda word: word not in ("size", "colour", "y"))


@settings(deadline=None)  # the machine may be busy
@given(st.lists(words, min_size=1, max_size=6, unique=True), st.integers(0, 3), st.integers(0, 3))
def test_every_unknown_key_is_reported_at_its_own_line_and_column(unknown, blank, indent):
    lines = ["name: Tin", *[""] * blank, "wheels:"]
    expected = []
    pad = " " * indent
    for word in unknown:
        lines += [f"{pad}- size: 1", f"{pad}  {word}: 0"]
        expected.append((len(lines), indent + 3, word))
    found = complaints("\n".join(lines) + "\n")
    assert [line.split(": ")[0:2] for line in found] == [
        [f"car.yaml:{line}:{column}", f"wheels.{index}.{word}"] for index, (line, column, word) in enumerate(expected)
    ]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("abc é:#", max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)  # the machine may be busy
@given(st.lists(words, min_size=1, max_size=4), values)
def test_a_set_value_is_found_where_it_was_put(path, value):
    import json

    document = set_values(document_of({}, "x"), [f"{'.'.join(path)}={json.dumps(value)}"])
    found = document.value
    for key in path:
        found = found[key]
    assert found == value


@settings(deadline=None)  # the machine may be busy
@given(st.text(max_size=60))
def test_any_text_is_a_document_or_one_line_per_mistake(text):
    lines = 0
    try:
        parse_document(text, "x")
    except DocumentError as caught:
        lines = len(str(caught).splitlines()) - len(caught.mistakes)
    assert lines == 0


# Pieces of YAML in any order: what no person writes and every parser has to survive.
pieces = st.sampled_from(
    ["a", "b: ", "c: 1", "- ", "? ", ": ", "\n", "  ", "[", "]", "{", "}", ", ", "<<: ", "&x ", "*x", "!!int ",
     "!!bool ", "!!float ", "!!str ", "!!map ", "!!seq ", "!!null ", "!!merge ", "!!binary ", "!!timestamp ", "!!omap ",
     "!own ", "'", '"', '"\\ud800"', '"\\udc00"', "|", ">-", "#", "---", "...", "%YAML 1.1", "%TAG ! x", "0x", "0o8",
     "1:60", "1e999", "9" * 30, ".nan", "~", "=", "@", "`", "\t", "\x00", "\ufeff", "é", "1_0", "2026-01-01", "-"]
)  # fmt: skip


@settings(deadline=None, max_examples=500)
@given(st.lists(pieces, max_size=12).map("".join))
def test_any_pieces_of_yaml_are_a_document_that_utf8_can_hold_or_one_line_per_mistake(text):
    import json

    try:
        document = parse_document(text, "x")
        mistakes = document.mistakes(())
    except DocumentError as caught:
        document, mistakes = None, list(caught.mistakes)
    assert all(len(str(mistake).encode().splitlines()) == 1 for mistake in mistakes)
    if document and not mistakes:
        json.dumps(document.value, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("a: !!bool maybe", "x:1:1: a: 'maybe' is not !!bool"),
        ("a: !!int ''", "x:1:1: a: '' is not !!int"),
        ("a: !!float ''", "x:1:1: a: '' is not !!float"),
        (f"a: {'9' * 5000}", f"x:1:1: a: '{'9' * 56}… is not !!int"),
        ('a: "\\ud800"', "x:1:1: a: holds half of a surrogate pair – write the character itself"),
        ('a: 1\n"b\\udc00": 1', "x:2:1: holds half of a surrogate pair – write the character itself"),
        ("!own b: 1", "x:1:1: the tag !own means nothing here – leave it out"),
        ("!!bool maybe: 1", "x:1:1: 'maybe' is not !!bool"),
        ("a: !!map b", "x:1:1: a: the tag tag:yaml.org,2002:map means nothing here – leave it out"),
        ("a: !!str [b]", "x:1:1: a: the tag tag:yaml.org,2002:str means nothing here – leave it out"),
        ("<<: b", "x:1:1: << merges mappings only"),
        ("a: {<<: [b]}", "x:1:1: a: << merges mappings only"),
    ],
)
def test_values_that_cannot_be_what_they_are_tagged_are_mistakes_with_a_place(text, mistake):
    assert [str(each) for each in parse_document(text, "x").mistakes(())] == [mistake]


def test_a_pair_of_escaped_surrogates_is_the_one_character_json_means_by_it():
    assert parse_document('{"a": "\\ud83d\\ude00"}', "x").value == {"a": "😀"}
    assert document_of({"a": "\ud83d\ude00"}, "x").value == {"a": "😀"}


def test_half_a_surrogate_pair_from_a_program_or_the_command_line_is_a_mistake():
    document = document_of({"a": ["\ud800"], "\ud800": 1}, "here")
    assert [str(mistake) for mistake in document.mistakes(())] == [
        "here: '\\ud800': a key that is not text",
        "here: a.0: holds half of a surrogate pair – write the character itself",
    ]
    with pytest.raises(DocumentError) as caught:
        set_values(document_of({}, "x"), ["a=\udcfc", "\udcfc=1"])
    assert str(caught.value).encode().count(b"holds bytes that are not text") == 2


def test_a_mistake_in_an_option_that_is_short_for_a_set_names_the_option():
    options = [Assignment("wheels=[{sise: 1}]", "--wheels x"), Assignment("electric=2"), Assignment("a=[", "--a [")]
    document = set_values(parse_document("name: Tin\n", "car.yaml"), options[:2])
    lines = [str(mistake) for mistake in document.mistakes(fit(document.value, Car)[1])]
    assert "--wheels x: wheels.0.sise: unknown key – did you mean size?" in lines
    assert "--set electric=2: should be true or false, not 2" in lines
    with pytest.raises(DocumentError, match=r"^--a \[: not valid YAML"):
        set_values(document, options[2:])
