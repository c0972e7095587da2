"""What comes over the wire: events from bytes however they are cut, chunks from events, ticks from reads and counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.backends.openai.arrivals import Arrival, Placed, place
from harness.backends.openai.chunks import Chunk, Usage, read_chunk
from harness.backends.openai.faults import ServerFault
from harness.backends.openai.sse import Event, EventReader
from harness.backends.thoughts import marks_in, parted


def events(*pieces: bytes) -> list[Event]:
    reader = EventReader()
    return [event for piece in pieces for event in reader.feed(piece)] + reader.close()


TEXT = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12)
DATA = st.lists(TEXT, min_size=1, max_size=3)
ENDS = st.sampled_from(["\n", "\r", "\r\n"])


@given(st.lists(DATA, max_size=5), ENDS, st.booleans(), st.data())
def test_what_is_read_does_not_depend_on_where_the_bytes_were_cut(
    told: list[list[str]], end: str, comments: bool, data: st.DataObject
) -> None:
    comment = f": keep-alive{end}" if comments else ""
    text = "".join(comment + "".join(f"data: {line}{end}" for line in lines) + end for lines in told)
    whole = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    pieces = [whole[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(whole)], strict=True)]

    assert events(*pieces) == events(whole) == [Event("\n".join(lines)) for lines in told]


def test_every_single_byte_may_come_by_itself() -> None:
    whole = "data: Grüße 🙂\r\n\r\n: a comment\r\n\r\nevent: error\r\ndata: x\r\ndata: y\r\n\r\n".encode()

    assert events(*(whole[at : at + 1] for at in range(len(whole)))) == [Event("Grüße 🙂"), Event("x\ny", "error")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data:no space\n\n", [Event("no space")]),
        ("data:  two spaces\n\n", [Event(" two spaces")]),
        ("\ufeffdata: after a mark of order\n\n", [Event("after a mark of order")]),
        ("data: the last empty line is missing\n", [Event("the last empty line is missing")]),
        ("data: so is the line's end", [Event("so is the line's end")]),
        ("id: 7\nretry: 10\n\n", []),
        ("data\n\n", [Event("")]),
        ("data: a\u2028b\x0bc\n\n", [Event("a\u2028b\x0bc")]),
        ("\n\n\n", []),
        ("", []),
    ],
)
def test_the_format_is_kept_to(text: str, expected: list[Event]) -> None:
    assert events(text.encode()) == expected


def test_an_event_is_told_as_soon_as_its_empty_line_has_come() -> None:
    reader = EventReader()

    assert reader.feed(b"data: x\r\n\r") == [Event("x")]
    assert reader.feed(b"\ndata: y\n\n") == [Event("y")]


def test_bytes_that_are_no_utf8_do_not_break_the_stream() -> None:
    assert events(b"data: a\xffb\n\n") == [Event("a\ufffdb")]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("[DONE]", Chunk(done=True)),
        ('{"choices": [{"delta": {"role": "assistant"}}]}', Chunk()),
        ('{"choices": [{"delta": {"content": "Hi"}, "finish_reason": null}]}', Chunk("Hi")),
        ('{"choices": [{"delta": {"reasoning_content": "Hm"}}]}', Chunk(reasoning="Hm")),
        ('{"choices": [{"delta": {"reasoning": "Hm"}}]}', Chunk(reasoning="Hm")),
        ('{"choices": [{"finish_reason": "stop", "stop_reason": "end"}]}', Chunk(finish="stop", stopped_by="end")),
        ('{"choices": [{"delta": {}, "finish_reason": "stop", "matched_stop": 2}]}', Chunk(finish="stop")),
        ('{"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5}}', Chunk(usage=Usage(3, 5))),
        ('{"usage": {"prompt_tokens_details": {"cached_tokens": 2}}}', Chunk(usage=Usage(None, None, 2))),
        ('{"choices": [{"delta": null}], "usage": null}', Chunk()),
    ],
)  # fmt: skip
def test_a_chunk_tells(data: str, expected: Chunk) -> None:
    assert read_chunk(Event(data)) == expected


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (Event('{"error": {"message": "no memory"}}'), "StreamError"),
        (Event('{"error": "no memory"}'), "StreamError"),
        (Event('{"message": "no memory"}', "error"), "StreamError"),
        (Event('{"object": "error", "message": "no memory"}'), "StreamError"),
        (Event('{"choices": [{"delta": {"content": "H'), "MalformedReply"),
        (Event("[1, 2]"), "MalformedReply"),
        (Event('{"choices": [{"delta": {"content": 7}}]}'), "MalformedReply"),
        (Event('{"choices": ["x"]}'), "MalformedReply"),
        (Event('{"choices": [], "usage": {"completion_tokens": -1}}'), "MalformedReply"),
        (Event('{"choices": [], "usage": {"completion_tokens": "5"}}'), "MalformedReply"),
    ],
)
def test_what_is_no_chunk_is_a_fault_of_one_line(event: Event, kind: str) -> None:
    with pytest.raises(ServerFault) as found:
        read_chunk(event)
    assert found.value.kind == kind
    assert "\n" not in str(found.value)


def spread(*chunks: int, counted: tuple[int | None, ...] | None = None) -> list[Arrival]:
    told = counted or (None,) * len(chunks)
    return [
        Arrival(10 * (at + 1), size, "x" * size, counted=n)
        for at, (size, n) in enumerate(zip(chunks, told, strict=True))
    ]


def placed(arrivals: list[Arrival], tokens: int, **said: bool) -> Placed:
    return place(arrivals, tokens, 90, **{"counts_along": False, "end_is_a_token": False, "one_first": False, **said})


def test_as_many_chunks_as_tokens_are_one_token_each() -> None:
    assert placed(spread(1, 1, 1), 3) == Placed((10, 20, 30), (1, 1, 1), True)


def test_chunks_that_one_read_brought_arrived_together() -> None:
    assert placed(spread(1, 2), 3) == Placed((10, 20), (1, 2), True)


def test_an_end_of_text_that_is_counted_arrives_with_the_reason_of_the_end() -> None:
    assert placed(spread(1, 1), 3, end_is_a_token=True) == Placed((10, 20, 90), (1, 1, 1), True)
    assert placed([], 1, end_is_a_token=True) == Placed((90,), (1,), True)


def test_a_server_that_counts_along_says_how_many_tokens_a_chunk_is() -> None:
    along = spread(1, 1, 1, counted=(1, 3, 4))
    assert placed(along, 5, counts_along=True) == Placed((10, 20, 30, 90), (1, 2, 1, 1), True)


def test_counts_that_shrink_are_not_believed() -> None:
    assert placed(spread(1, 1, counted=(2, 1)), 4, counts_along=True) == Placed((10, 20), (3, 1), False)


def test_what_cannot_be_placed_claims_no_time_per_token_unless_the_first_is_known_to_be_one() -> None:
    assert placed(spread(1, 1, 1), 5) == Placed((10, 20, 30), (3, 1, 1), False)
    assert placed(spread(1, 1, 1), 5, one_first=True) == Placed((10, 20, 30), (1, 1, 3), False)


def test_chunks_smaller_than_tokens_tell_of_the_first_only() -> None:
    assert placed(spread(1, 1, 1, 1), 2) == Placed((10,), (2,), False)


@given(
    st.lists(st.integers(0, 3), max_size=6),
    st.integers(0, 20),
    st.booleans(),
    st.booleans(),
    st.lists(st.none() | st.integers(0, 9), min_size=6, max_size=6),
)
def test_every_token_is_placed_once(
    chunks: list[int], tokens: int, end: bool, one_first: bool, counted: list[int | None]
) -> None:
    arrivals = spread(*chunks, counted=tuple(counted[: len(chunks)]))
    found = placed(arrivals, tokens, counts_along=True, end_is_a_token=end, one_first=one_first)

    assert sum(found.ids) == tokens
    assert all(found.ids)
    assert list(found.at) == sorted(found.at)


@pytest.mark.parametrize(
    ("text", "answer", "thoughts"),
    [
        ("No thoughts.", "No thoughts.", ""),
        ("<think>Hm.</think>Yes.", "Yes.", "Hm."),
        ("Hm.</think>Yes.", "Yes.", "Hm."),
        ("<think>Hm", "", "Hm"),
    ],
)
def test_thoughts_are_parted_from_the_answer(text: str, answer: str, thoughts: str) -> None:
    assert parted(text, marks_in(text)) == (answer, thoughts)
