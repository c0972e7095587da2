"""What was said, measured from the text: each formula against texts judged by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.scoring import form, gold, persona
from harness.analysis.scoring.language import language_of, primary
from harness.analysis.scoring.said import Said, said
from harness.analysis.scoring.table import SCORERS, Found
from harness.conversations.repetition import echo, repetition
from harness.records import CheckResult, ReplyId
from tests.builders import cell, failed, plan, store, turn


def one(reply: str, **values) -> Said:
    told = {
        "user": "What is Newtonian mechanics, and who thought of it first?", "gold": None, "before": (), "earlier": (),
        "checks": (), "language": None, "user_name": "Alice", "persona": False,
    }  # fmt: skip
    return Said(row=0, id=ReplyId(cell(), 0, 0), reply=reply, **{**told, **values})


def value(scorer: str, reply: str, **values) -> float | None:
    found = SCORERS[scorer].look(one(reply, **values))
    assert found is not None
    return found.value


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("  The answer:  Forty-two! ", "the answer forty two"),
        ("3.14", "3.14"),
        ("3,000.5 m.", "3,000.5 m"),
        ("10:30.", "10:30"),
        ("-5", "-5"),
        ("−5", "-5"),  # the sign that typesetters use
        ("well-known", "well known"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("ﬁne", "fine"),  # a ligature
        ("don't", "don t"),
        ("«Oui», dit-il…", "oui dit il"),
        ("", ""),
    ],
)
def test_normalising_leaves_what_matters_for_being_the_same_answer(text, normal):
    assert gold.normalised(text) == normal


@given(st.text())
def test_normalising_twice_changes_nothing_but_for_what_unicode_folds_again(text):
    once = gold.normalised(text)
    assert gold.normalised(gold.normalised(once)) == gold.normalised(once)


def test_a_minus_sign_is_not_punctuation():
    assert value("gold_normalised", "-5", gold="5") == 0
    assert value("gold_normalised", "3.14", gold="314") == 0


def test_exact_is_exact_but_for_white_space_around():
    assert value("gold_exact", " Red.\n", gold="Red.") == 1
    assert value("gold_exact", "red.", gold="Red.") == 0
    assert value("gold_normalised", "red", gold="Red.") == 1


def test_replies_without_a_gold_reply_have_no_similarity_to_it():
    for name in ("gold_exact", "gold_normalised", "gold_chrf"):
        assert SCORERS[name].look(one("Red.")) is None


def test_chrf_is_that_of_sacrebleu_and_says_how_it_computes():
    pytest.importorskip("sacrebleu")
    # By hand, unigrams to bigrams only where texts have two characters: "ab" against "ac" shares one of two unigrams
    # and none of one bigram: precision = recall = (1/2 + 0/1) / 2 = 1/4, so F = 1/4.
    assert value("gold_chrf", "ab", gold="ac") == pytest.approx(0.25, abs=1e-9)
    assert value("gold_chrf", "same", gold="same") == pytest.approx(1)
    assert value("gold_chrf", "", gold="same") == 0
    assert "nc:6|nw:0" in SCORERS["gold_chrf"].config()["signature"]


def test_the_language_is_that_of_the_user_or_of_the_script_where_the_user_says_too_little():
    pytest.importorskip("lingua")
    german = "Schwerkraft zieht Massen zueinander. Darum fällt ein Apfel nach unten."
    english = "Gravity pulls masses towards each other, so an apple falls down to the ground."
    assert value("same_language", english) == 1
    assert value("same_language", german) == 0
    assert value("same_language", german, user="Guten Tag!", language="de-AT") == 1
    assert value("same_language", english, user="Guten Tag!", language="de") == 0
    assert SCORERS["same_language"].look(one(german)).detail == "asked in en, answered in de"


@pytest.mark.parametrize(
    "reply",
    [
        "", "42", "Ja.", "Newton!", "x = 3y + 7", "```\nfor i in range(10): print(i)\n```",
        '{"the_name_of_it": "a long enough text"}',
    ],
)  # fmt: skip
def test_short_replies_are_undecided_rather_than_guessed(reply):
    pytest.importorskip("lingua")
    assert value("same_language", reply) is None


def test_neither_is_one_guessed_where_nothing_says_what_was_asked_in():
    pytest.importorskip("lingua")
    assert value("same_language", "Gravity pulls masses towards each other.", user="Hm?") is None


def test_code_and_addresses_are_no_language():
    pytest.importorskip("lingua")
    prose = "Das ist eine Funktion, die zwei Zahlen addiert und ausgibt."
    code = "```python\ndef add_the_numbers_and_print_the_result(first_number, second_number): return the_sum\n```"
    assert language_of(f"{prose}\n{code}\nhttps://example.org/the/english/words/are/in/here") == "de"
    assert language_of("力は質量に加速度を掛けたものです。") == "ja"  # few signs, but each says much
    assert primary("nn-NO") == primary("no") == "no"


def test_checks_of_form_are_counted_and_not_made_again():
    checks = (("json: true", True), ("contains: motion", False), ("max_words: 80", False), ("one_line: true", True))
    assert form.of_form(checks) == [("json: true", True), ("max_words: 80", False), ("one_line: true", True)]
    found = SCORERS["format_checks"].look(one("x", checks=checks))
    assert found.value == pytest.approx(2 / 3)
    assert found.detail == "max_words: 80"
    assert SCORERS["format_checks"].look(one("x", checks=(("contains: motion", True),))) is None


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("no fence", (0, True)),
        ("```\ncode\n```", (1, True)),
        ("```python\ncode", (1, False)),
        ("~~~\n```\n~~~", (1, True)),  # backticks within tildes are text
        ("````\n```\n````", (1, True)),  # a shorter one closes nothing
        ("````\n```", (1, False)),
        ("```\na\n```\n```\nb", (2, False)),
        ("```\na\n``` python", (1, False)),  # an info string closes nothing
        ("``` `x` ```", (0, True)),  # inline code
        ("   ```\nindented by three\n```", (1, True)),
        ("    ```\nindented by four", (0, True)),
    ],
)
def test_code_fences_are_counted_as_commonmark_has_them(reply, found):
    assert form.fences(reply) == found


def test_replies_without_a_fence_are_not_scored_for_closing_it():
    assert SCORERS["fences_closed"].look(one("plain")) is None
    assert value("fences_closed", "```\nx\n```") == 1
    assert value("fences_closed", "```\nx") == 0


@pytest.mark.parametrize(
    "reply",
    [
        "Motion.\nAlice: And energy?",
        "Alice: What else?",
        "Motion.\n  **Alice:** And energy?",
        "Motion.\nUser: And?",
        "Motion.\n### Human: And?",
        "Motion.\n- User : And?",
    ],
)
def test_a_line_under_the_users_name_is_speaking_for_the_user(reply):
    assert value("speaks_for_user", reply) == 1


@pytest.mark.parametrize(
    "reply",
    [
        "Bob: Motion.",
        "I told Alice: no.",
        "Alice asks: why?",
        "Users: all of you",
        "alice: in lower case is a word",
        "",
    ],
)
def test_other_lines_are_not(reply):
    assert value("speaks_for_user", reply) == 0


def test_names_of_the_script_are_taken_as_they_stand():
    assert persona.speaks_for_user("A.B (c): hi", "A.B (c)") == "A.B (c):"
    assert persona.speaks_for_user("AxB (c): hi", "A.B (c)") is None


@pytest.mark.parametrize(
    "reply",
    [
        "Hi<|im_end|>",
        "<|start_header_id|>user",
        "[INST] more",
        "</s>",
        "<start_of_turn>model",
        "<｜User｜>",
        "### Response: x",
    ],
)
def test_role_markers_of_templates_are_found(reply):
    assert value("role_markers", reply) == 1


@pytest.mark.parametrize("reply", ["a <| b |> c", "if (a<b || c>d)", "<s", "[inst]", "<b>bold</b>", "x |> f"])
def test_what_looks_a_little_like_a_marker_is_none(reply):
    assert value("role_markers", reply) == 0


@pytest.mark.parametrize("reply", ["As an AI language model, I", "I’m an AI.", "Als KI kann ich", "En tant qu’IA, je"])
def test_a_persona_that_says_it_is_a_program_breaks_character(reply):
    assert value("breaks_character", reply, persona=True) == 1
    assert SCORERS["breaks_character"].look(one(reply)) is None


def test_phrases_are_whole_words():
    assert value("breaks_character", "As an aim, motion is fine; has an aisle.", persona=True) == 0


def test_repeating_an_earlier_reply_is_counted_in_runs_of_five_units():
    earlier = ("one two three four five six",)
    assert echo("one two three four five six", earlier) == 1
    assert echo("one two three four, then something else", earlier) == 0  # four in a row are no run
    # zero [one two three four five] nine: five of seven units
    assert echo("zero one two three four five nine", earlier) == pytest.approx(5 / 7)
    assert echo("One TWO three four five", earlier) == 1
    assert echo("", earlier) == 0
    assert echo("one two three four five", ("one two", "three four five")) == 0  # replies are not joined
    assert SCORERS["repeats_itself"].look(one("first reply")) is None


@given(st.text(alphabet="ab \n", max_size=60), st.text(alphabet="ab \n", max_size=60))
def test_echo_is_a_share_and_a_text_echoes_itself_where_it_has_a_run(text, other):
    assert 0 <= echo(text, [other]) <= 1
    assert echo(text, [text]) in (0, 1)
    assert repetition(text) <= max(echo(text, [text]), 0)


def test_scorers_see_what_the_model_had_been_told(tmp_path):
    import harness

    of = plan(conversations={"physics": 2}, history="scripted")
    of["conversations"][0] |= {"persona": {"description": "Bob is a professor.", "user": "Alice", "assistant": "Bob"},
                               "system": "Be brief."}  # fmt: skip
    told = {"around": {"history": "scripted"}}
    records = [turn(gold="G0", reply="R0", user="U0", checks=(CheckResult("max_words: 3", True),), **told),
               turn(index=1, gold="G1", reply="R1", user="U1", **told)]  # fmt: skip
    first, second = said(harness.load(store(tmp_path, records, of)))

    assert [(message.role, message.content) for message in second.before] == [
        ("system", "Bob is a professor.\nBe brief."), ("user", "U0"), ("assistant", "G0"),
    ]  # fmt: skip
    assert (first.gold, second.gold, second.earlier) == ("G0", "G1", ("R0",))
    assert first.checks == (("max_words: 3", True),)
    assert (first.user_name, first.persona) == ("Alice", True)


def test_under_generated_history_only_the_first_turn_is_held_against_gold(tmp_path):
    import harness

    records = [turn(gold="G0", reply="R0"), turn(index=1, gold="G1", reply="R1")]
    first, second = said(harness.load(store(tmp_path, records)))

    assert (first.gold, second.gold) == ("G0", None)
    assert second.before[1].content == "R0"
    assert (first.user_name, first.persona) == ("User", False)  # a run made before who speaks was stored


def test_what_is_forced_or_random_or_failed_is_not_scored(tmp_path):
    import harness

    forced = [turn(around={"length": "fixed"}), turn(index=1, around={"length": "fixed"})]
    assert not list(said(harness.load(store(tmp_path, forced, plan(length="fixed")))))
    assert len(list(said(harness.load(store(tmp_path / "f", [turn(), failed(index=1)]))))) == 1


def test_scorers_without_a_formula_cannot_be_asked():
    assert SCORERS["judge_score"].formula is None
    assert isinstance(SCORERS["role_markers"].look(one("x")), Found)
