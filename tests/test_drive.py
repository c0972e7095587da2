"""What a worker plays when, and how: one conversation at a time or several together, gauged, without the collector."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.backends.scripted import Breakdown, Recital, ScriptedBackend
from harness.backends.seam import Reply, Session, TurnRequest
from harness.chat import Dialog, Rules, replay
from harness.conversations.script import Conversation, Turn
from harness.meters.gauges import Gauges, Seen
from harness.records import Cell, DeviceTurn, HostLoad, Memory, TurnRecord
from harness.runner.drive import Told, drive, drive_together
from harness.runner.messages import Play
from harness.runner.order import MOST_PASSES, lanes, warm_up
from tests.builders import cell, circumstances, failed, turn


def talk(name: str = "a", turns: int = 2) -> Conversation:
    return Conversation(name, tuple(Turn(f"{name}{index}?") for index in range(turns)))


def dialog(name: str = "a", turns: int = 2) -> Dialog:
    return replay(talk(name, turns), circumstances(cell(conversation_id=name)), Rules(sampling={"max_new_tokens": 9}))


def recital(**values: Any) -> Recital:
    return Recital(**{"lines": ["one", "two words", "now three words"], **values})


class FakeGauges(Gauges):
    """Notes when it is asked what, and whether the collector was at rest."""

    def __init__(self, notes: list[tuple[str, bool]]) -> None:
        self.notes = notes

    def reset(self) -> None:
        self.notes.append(("reset", gc.isenabled()))

    def read(self) -> Seen:
        self.notes.append(("read", gc.isenabled()))
        return Seen(Memory(1, 2, 3, 4), (DeviceTurn("cuda:0", energy_mj=5),), HostLoad(0.1, 0.2, 0.3))


@dataclass
class Choir(ScriptedBackend):
    """Answers together by reciting one after the other, and notes who was asked together."""

    recital: Recital = field(default_factory=recital)
    steps: list[list[str]] = field(default_factory=list)
    sessions: dict[str, set[int]] = field(default_factory=dict)
    collector: set[bool] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__(self.recital)

    def reply_many(self, asked: Sequence[tuple[Session, TurnRequest]]) -> Sequence[Reply]:
        self.steps.append([request.conversation_id for _, request in asked])
        self.collector.add(gc.isenabled())
        for session, request in asked:
            self.sessions.setdefault(request.conversation_id, set()).add(id(session))
        return [replace(session.reply(request, lambda ids: None), batch_size=len(asked)) for session, request in asked]


def told(news: Sequence[Told], index: int) -> list[TurnRecord | None]:
    return [one.record for one in news if one.index == index]


# --- one conversation ---------------------------------------------------------------------------------------------


def test_a_turn_is_gauged_round_its_answer_while_the_collector_is_at_rest() -> None:
    notes: list[tuple[str, bool]] = []

    def arrive(ids: Sequence[int]) -> None:
        notes.append(("ids", gc.isenabled()))

    turns = drive(dialog(turns=1), ScriptedBackend(recital()).open_session(), FakeGauges(notes), arrive)
    told_while = [gc.isenabled() for _ in turns]

    assert notes == [("reset", False), ("ids", False), ("read", False), ("reset", False)]  # the last finds the end
    assert told_while == [True]
    assert gc.isenabled()


def test_what_was_gauged_is_in_the_record() -> None:
    (record,) = drive(dialog(turns=1), ScriptedBackend(recital()).open_session(), FakeGauges([]))

    assert record.memory == Memory(1, 2, 3, 4)
    assert record.devices == (DeviceTurn("cuda:0", energy_mj=5),)
    assert record.host_load == HostLoad(0.1, 0.2, 0.3)
    assert record.batch_size == 1


def test_garbage_is_collected_between_turns_and_never_in_one() -> None:
    started: list[str] = []
    where = "between"

    class Watching(FakeGauges):
        def read(self) -> Seen:
            nonlocal where
            where = "between"
            return super().read()

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            started.append(where)

    def litter(ids: Sequence[int]) -> None:
        nonlocal where
        where = "in a turn"
        for _ in range(5000):  # enough to set the collector off several times, were it awake
            cycle: list[Any] = []
            cycle.append(cycle)

    gc.callbacks.append(note)
    try:
        list(drive(dialog(turns=3), ScriptedBackend(recital()).open_session(), Watching([]), litter))
    finally:
        gc.callbacks.remove(note)

    assert "in a turn" not in started
    assert started.count("between") >= 3


def test_a_turn_is_not_charged_for_the_garbage_of_the_turn_before() -> None:
    left_behind: list[weakref.ref[Any]] = []
    held_at_reset: list[int] = []

    class Cycle:
        def __init__(self) -> None:
            self.itself = self

    class Watching(FakeGauges):
        def reset(self) -> None:
            held_at_reset.append(sum(reference() is not None for reference in left_behind))

    def leave_a_cycle(ids: Sequence[int]) -> None:
        left_behind.append(weakref.ref(Cycle()))

    list(drive(dialog(turns=3), ScriptedBackend(recital()).open_session(), Watching([]), leave_a_cycle))

    assert len(left_behind) >= 3
    assert held_at_reset == [0] * 4


def test_a_mistake_of_the_program_leaves_the_collector_awake() -> None:
    def stumble(ids: Sequence[int]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(drive(dialog(), ScriptedBackend(recital()).open_session(), Gauges(), stumble))

    assert gc.isenabled()


def test_a_conversation_ends_with_its_first_failure() -> None:
    session = ScriptedBackend(recital(breakdown=Breakdown(turn=1))).open_session()

    records = list(drive(dialog(turns=5), session, Gauges()))

    assert [record.failure is None for record in records] == [True, False]


# --- several conversations ----------------------------------------------------------------------------------------


def test_conversations_are_asked_together_and_one_that_ends_makes_room_for_the_next() -> None:
    choir = Choir()

    news = list(drive_together([dialog("a", 1), dialog("b", 3), dialog("c", 1), dialog("d", 1)], choir, 2))

    assert choir.steps == [["a", "b"], ["b", "c"], ["b", "d"]]
    sizes = [[record.batch_size for record in told(news, index) if record is not None] for index in range(4)]
    assert sizes == [[2], [2, 2, 2], [2], [2]]


def test_the_batch_shrinks_when_no_conversation_is_left_to_begin() -> None:
    choir = Choir()

    news = list(drive_together([dialog("a", 1), dialog("b", 2)], choir, 8))

    assert choir.steps == [["a", "b"], ["b"]]
    assert [record.batch_size for record in told(news, 1) if record is not None] == [2, 1]


def test_every_conversation_has_one_session_of_its_own() -> None:
    choir = Choir()

    list(drive_together([dialog(name, 3) for name in "abcde"], choir, 2))

    assert all(len(of_one) == 1 for of_one in choir.sessions.values())


def test_a_reply_goes_to_whoever_asked_for_it() -> None:
    lines = {name: [f"{name} says {index}" for index in range(3)] for name in "abc"}

    news = list(drive_together([dialog(n, 3) for n in "abc"], Choir(recital(conversations=lines)), 3))

    for index, name in enumerate("abc"):
        records = [record for record in told(news, index) if record is not None]
        assert [(record.user, record.reply) for record in records] == [
            (f"{name}{turn}?", f"{name} says {turn}") for turn in range(3)
        ]


def test_a_failure_ends_its_own_conversation_only() -> None:
    choir = Choir(recital(breakdown=Breakdown(turn=0, conversation="a")))

    news = list(drive_together([dialog("a"), dialog("b"), dialog("c")], choir, 2))

    assert [record.failure is None for record in told(news, 0) if record is not None] == [False]
    assert [len(told(news, index)) for index in range(3)] == [2, 3, 3]
    assert choir.steps[1] == ["b", "c"]


def test_the_collector_is_at_rest_while_several_are_answered() -> None:
    choir = Choir()

    list(drive_together([dialog("a"), dialog("b")], choir, 2))

    assert choir.collector == {False}
    assert gc.isenabled()


def test_no_stopwatch_runs_while_news_is_told() -> None:
    running: set[str] = set()

    def watched(name: str, turns: int) -> Iterator[Any]:
        inner, sent = dialog(name, turns), None
        while True:
            try:
                item = inner.send(sent)  # type: ignore[arg-type]
            except StopIteration:
                return
            asked = isinstance(item, TurnRequest)
            (running.add if asked else running.discard)(name)
            sent = yield item

    for _ in drive_together([watched("a", 1), watched("b", 3), watched("c", 2)], Choir(), 2):  # type: ignore[arg-type]
        assert running == set()


def test_nothing_is_gauged_where_a_step_is_no_single_turns() -> None:
    news = list(drive_together([dialog("a"), dialog("b")], Choir(), 2))

    records = [one.record for one in news if one.record is not None]
    assert {(record.memory, record.devices, record.host_load) for record in records} == {(Memory(), (), None)}


@settings(deadline=None, max_examples=20)  # the machine may be busy, and every step is a collection
@given(st.lists(st.integers(0, 4), max_size=7), st.integers(1, 5))
def test_every_turn_is_told_once_in_order_and_then_the_end(turns: list[int], concurrency: int) -> None:
    choir = Choir()

    news = list(drive_together([dialog(str(index), n) for index, n in enumerate(turns)], choir, concurrency))

    for index, n in enumerate(turns):
        told_of = told(news, index)
        assert [record.turn_index for record in told_of if record is not None] == list(range(n))
        assert told_of[n:] == [None]
    assert all(0 < len(step) <= concurrency for step in choir.steps)
    assert sum(map(len, choir.steps)) == sum(turns)
    # Never a free place while a conversation waits: all but the last steps are full.
    sizes = [len(step) for step in choir.steps]
    assert sizes == sorted(sizes, reverse=True)


def test_replies_do_not_depend_on_how_many_are_asked_together() -> None:
    def said(concurrency: int) -> list[list[str | None]]:
        news = list(drive_together([dialog(name, 3) for name in "abcd"], Choir(), concurrency))
        return [[record and record.reply for record in told(news, index)] for index in range(4)]

    assert said(1) == said(2) == said(4)


# --- what is played when ------------------------------------------------------------------------------------------


def play(of: Cell | None = None, turns: int = 2) -> Play:
    of = of or cell()
    return Play(talk(of.conversation_id, turns), circumstances(of), Rules(sampling={}))


def test_at_a_concurrency_of_one_every_conversation_is_a_lane_of_its_own() -> None:
    plays = [play(cell(conversation_id=name)) for name in "abc"]

    assert list(lanes(plays)) == [[one] for one in plays]


def test_a_lane_holds_neighbours_of_one_sampling_repeat_and_concurrency() -> None:
    def at(name: str, sampling: str, repeat: int, concurrency: int) -> Play:
        return play(Cell("pico", sampling, name, repeat, 0, concurrency))

    plays = [
        at("a", "x", 0, 4), at("b", "x", 0, 4), at("a", "y", 0, 4), at("a", "y", 1, 4), at("b", "y", 1, 4),
        at("a", "y", 1, 2), at("a", "y", 1, 1), at("b", "y", 1, 1), at("c", "x", 0, 4),
    ]  # fmt: skip

    assert [len(lane) for lane in lanes(plays)] == [2, 1, 2, 1, 1, 1, 1]
    assert [one for lane in lanes(plays) for one in lane] == plays


def timed(*seconds: float) -> tuple[list[Sequence[Play]], Any]:
    """What was run, and a `run` whose passes take these times, 0 meaning that nothing was answered."""
    runs: list[Sequence[Play]] = []

    def run(plays: Sequence[Play]) -> list[TurnRecord]:
        ms = seconds[len(runs)] * 1000
        runs.append(plays)
        return [turn(ttft_ms=int(ms) - 2, ids=1) if ms else failed() for _ in plays]

    return runs, run


def test_warm_up_ends_when_two_passes_take_the_same_time() -> None:
    runs, run = timed(9.0, 2.0, 1.0, 1.05)

    warmed = warm_up(play(), None, run)

    assert (warmed.passes, warmed.settled) == (4, True)
    assert len(runs) == 4


@pytest.mark.parametrize("last", [1.2, 0.8])
def test_passes_that_differ_by_a_fifth_do_not_agree_whichever_is_longer(last: float) -> None:
    _, run = timed(1.0, last, last)

    assert warm_up(play(), None, run).passes == 3


def test_a_machine_that_never_settles_is_told_so_after_five_passes() -> None:
    runs, run = timed(1.0, 2.0, 1.0, 2.0, 1.0)

    warmed = warm_up(play(), None, run)

    assert (len(runs), warmed.passes, warmed.settled) == (5, MOST_PASSES, False)


def test_turns_that_cannot_be_answered_are_not_asked_five_times() -> None:
    runs, run = timed(0, 0, 0)

    warmed = warm_up(play(), None, run)

    assert (len(runs), warmed.passes, warmed.settled) == (2, 2, None)


def test_one_pass_that_failed_settles_nothing_but_the_two_after_it_may() -> None:
    runs, run = timed(0, 1.0, 1.0)

    assert warm_up(play(), None, run).settled is True
    assert len(runs) == 3


def test_a_number_of_passes_is_kept_to_and_judges_nothing() -> None:
    runs, run = timed(1.0, 1.0, 1.0)

    warmed = warm_up(play(), 3, run)

    assert (len(runs), warmed.passes, warmed.settled) == (3, 3, None)


def test_every_pass_is_the_very_same_work_at_the_concurrency_that_will_be_measured() -> None:
    runs, run = timed(1.0, 1.0)
    warmed = warm_up(play(Cell("pico", "greedy", "physics", 0, 0, 3)), None, run)

    assert warmed.concurrency == 3
    assert [len(plays) for plays in runs] == [3, 3]
    assert [{one.circumstances.attempt for one in plays} for plays in runs] == [{0}, {1}]
    same = {(id(one.conversation), id(one.rules), one.circumstances.cell) for plays in runs for one in plays}
    assert len(same) == 1
