"""A model behind a server: turns, their times to the nanosecond, and everything that can go wrong on the way."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.backends.open import open_backend, preview
from harness.backends.openai.backend import ServerBackend, key_of
from harness.backends.openai.recognise import Recognised
from harness.backends.openai.tokens import Counter
from harness.backends.openai.wire import Wire
from harness.config.load import parse_config
from harness.config.plan import plan
from harness.config.schema import ModelSpec
from harness.config.server import Dialect, server_of
from harness.errors import DocumentError, ModelError, UsageError
from harness.meters.clock import HandCrankedClock
from harness.metrics import METRICS, itl_s
from harness.records import Cell, Circumstances, Memory, Persona, TurnRecord
from harness.runner.run import execute
from harness.studies.replay import run
from tests.asking import QUESTIONS, Asked, ask, converse, dialog
from tests.crowds import request
from tests.stub_server import CLOSE, HEAD, RESET, STALL, WORDS, Stub, chunked, event, plain, stream, usage

MS = 1_000_000
SECRET = "sk-this-is-a-secret"


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def backend_for(stub: Stub, dialect: Dialect = "openai", key: str | None = None, **spec: Any) -> ServerBackend:
    """Of a server that nobody has looked at before."""
    known = ModelSpec(model=stub.name, **spec)
    server = server_of(stub.name)
    assert server is not None
    return ServerBackend(known, server, Wire(server, key), Recognised(dialect))


def opened(stub: Stub, **spec: Any) -> Any:
    return open_backend(ModelSpec(model=stub.name, **spec), chat_format="auto", template_now="2026-01-01T00:00:00")


def asked(script: list[Any], dialect: Dialect = "openai", spec: dict[str, Any] | None = None, **values: Any) -> Asked:
    """One turn at a server that answers so."""
    with Stub(script=script) as stub:
        return ask(backend_for(stub, dialect, **(spec or {})).open_session(), **values)


def record(found: Asked) -> TurnRecord:
    around = Circumstances(Cell("m", "s", "c", 0, 0), "generated", "natural", "server", "reuse")
    told = {name: getattr(found.reply, name) for name in ("failure", "completion_tokens", "visible_ids", "answer_ids")}
    return TurnRecord(around, 0, 1, 0.0, "?", stamps=found.stamps, prompt_tokens=found.reply.prompt_tokens, **told)


GOOD = stream(event("Hello"), event(" there"), event(".", finish="stop", usage=usage(7, 3, 5)))


def test_a_reply_is_what_the_server_streams() -> None:
    reply = asked(GOOD).reply
    assert (reply.text, reply.finish_reason, reply.failure) == ("Hello there.", "eos", None)
    assert (reply.prompt_tokens, reply.completion_tokens, reply.cached_tokens) == (7, 3, 5)
    assert reply.completion_ids == ()
    assert reply.prompt_hash is not None
    assert reply.prompt_hash.startswith("messages:")


def test_cached_tokens_are_none_where_the_server_does_not_tell() -> None:
    assert asked(stream(event("Hi", finish="stop", usage=usage(7, 1)))).reply.cached_tokens is None


def test_a_missing_done_and_a_usage_of_its_own_are_no_mistake() -> None:
    late = stream(
        event("Hi", finish="stop"), b'data: {"choices": [], "usage": {"completion_tokens": 1}}\n\n', done=False
    )
    assert asked(late).reply.completion_tokens == 1


def test_thoughts_the_server_has_parted_are_apart_and_later_text_is_the_answer() -> None:
    reply = one_by_one(event(reasoning_content="Hm"), event("Yes"), event(finish="stop", usage=usage(7, 2))).reply
    assert (reply.text, reply.reasoning, reply.visible_ids, reply.answer_ids) == ("Yes", "Hm", 1, 2)


def test_thoughts_the_server_has_not_parted_are_parted_here() -> None:
    thinks = ("<think>", "Hm", "</think>", "Yes")
    reply = one_by_one(*map(event, thinks), event(finish="stop", usage=usage(7, 4))).reply
    assert (reply.text, reply.reasoning, reply.visible_ids, reply.answer_ids) == ("Yes", "Hm", 2, 4)


def one_by_one(*events: bytes, dialect: Dialect = "openai") -> Asked:
    """One turn at a server that sends an event when the text of the one before has been taken in."""
    seen = threading.Event()

    def heard() -> None:
        assert seen.wait(5)
        seen.clear()

    head, *pieces, end = stream(*events)
    *texts, finish, done = pieces
    with Stub(script=[head, *(step for piece in texts for step in (piece, heard)), finish, done, end]) as stub:
        return ask(Listening(backend_for(stub, dialect).open_session(), seen))  # type: ignore[arg-type]


def test_times_are_those_of_the_reads_to_the_nanosecond() -> None:
    clock, seen = HandCrankedClock(), threading.Event()

    def later(ms: float) -> Callable[[], None]:
        return lambda: clock.advance(round(ms * MS))

    def heard() -> None:
        assert seen.wait(5)
        seen.clear()

    end = chunked(event(finish="stop", usage=usage(7, 3)) + b"data: [DONE]\n\n") + b"0\r\n\r\n"
    script = [
        later(10), HEAD + chunked(event("one")), heard,
        later(2), chunked(event(" two")), heard,
        later(3), chunked(event(" three")), heard,
        later(1), end,
    ]  # fmt: skip
    with Stub(script=script) as stub:
        session = backend_for(stub).open_session()
        found = ask(Listening(session, seen), clock=clock)  # type: ignore[arg-type]
    told = record(found)
    assert found.stamps.ticks == ((10 * MS, 1), (12 * MS, 1), (15 * MS, 1))
    assert (found.stamps.generated_ns, found.stamps.ready_ns) == (16 * MS, 16 * MS)
    assert itl_s(told) == [0.002, 0.003]
    assert METRICS["ttft_s"].formula(told) == 0.010
    assert METRICS["tpot_s"].formula(told) == 0.0025
    assert METRICS["e2e_s"].formula(told) == 0.016


class Listening:
    """A session that says when a piece of text was taken in."""

    def __init__(self, session: Any, seen: threading.Event) -> None:
        self._session, self._seen = session, seen

    def reply(self, asked: Any, on_tokens: Any) -> Any:
        return self._session.reply(asked, lambda ids: self._seen.set())


def test_chunks_that_come_in_one_read_have_one_time() -> None:
    together = [
        HEAD + chunked(event("a")) + chunked(event("b") + event("c")),
        *stream(event(finish="stop", usage=usage(7, 3)))[1:],
    ]
    found = asked(together)
    assert [ids for _, ids in found.stamps.ticks] == [3]
    assert itl_s(record(found)) is None


def test_an_event_cut_anywhere_is_the_same_event() -> None:
    whole = (
        event("Grüße", finish="stop", usage=usage(7, 1))
        .replace(b"\\u00fc", "ü".encode())
        .replace(b"\\u00df", "ß".encode())
    )
    cut = [HEAD, *(chunked(whole[at : at + 1]) for at in range(len(whole))), b"0\r\n\r\n"]
    assert asked(cut).reply.text == "Grüße"


def test_a_chunk_is_not_a_token_and_says_so() -> None:
    found = asked(stream(event("Hello there"), event("."), event(finish="stop", usage=usage(7, 5))))
    assert found.reply.completion_tokens == 5
    assert sum(ids for _, ids in found.stamps.ticks) == 5
    assert itl_s(record(found)) is None
    assert METRICS["tpot_s"].formula(record(found)) is None
    assert any("5 tokens came in 2 chunks" in notice for notice in found.reply.notices)


def test_a_server_that_counts_along_is_believed_chunk_by_chunk() -> None:
    along = (event("Hello", usage=usage(7, 1)), event(" there, you", usage=usage(7, 4)))
    found = one_by_one(*along, event(finish="stop", usage=usage(7, 5)), dialect="vllm")
    assert [ids for _, ids in found.stamps.ticks] == [1, 3, 1]
    assert not any("chunks" in notice for notice in found.reply.notices)


def test_tokens_nobody_counts_are_estimated_with_the_named_tokenizer_and_marked() -> None:
    uncounted = stream(event("A wave is"), event(" a pattern."), event(finish="stop"))
    found = asked(uncounted, spec={"tokenizer": "builtin:pico"}, gold="A wave.")
    counter = Counter(ModelSpec(model="openai:http://h/v1#m", tokenizer="builtin:pico"))
    assert found.reply.completion_tokens == counter.count("A wave is a pattern.") > 5
    assert found.reply.prompt_tokens == counter.count_prompt(dialog(QUESTIONS[0]), {})
    assert found.reply.gold_tokens == counter.count("A wave.")
    assert any("estimated" in notice for notice in found.reply.notices)


@pytest.mark.parametrize(
    ("script", "kind", "phase", "words"),
    [
        ([RESET], "ConnectionLost", "prefill", "broke"),
        ([CLOSE], "ConnectionLost", "prefill", "broke"),
        ([HEAD, chunked(event("Hi")), RESET], "ConnectionLost", "decode", "broke"),
        ([HEAD, chunked(event("Hi")), CLOSE], "ConnectionLost", "decode", "broke"),
        (stream(event("Hi"), done=False), "StreamCut", "decode", "before the reply did"),
        (stream(event("Hi")), "StreamCut", "decode", "before the reply did"),
        (stream(), "StreamCut", "prefill", "before the reply did"),
        (stream(event("Hi"), b'data: {"error": {"message": "no\\nmemory"}}\n\n'), "StreamError", "decode", "no memory"),
        (stream(b'data: {"error": "unes"caped"}\n\n'), "MalformedReply", "prefill", "no JSON"),
        (stream(event("Hi"), b"data: {\n\n"), "MalformedReply", "decode", "no JSON"),
        (stream(event("Hi"), event(finish="content_filter")), "Unfinished", "decode", "content_filter"),
        (stream(event("Hi"), event(finish="stop")), "NoUsage", "decode", "no tokenizer is named"),
        (plain(200, {"choices": []}), "MalformedReply", "prefill", "no stream of events (application/json)"),
        (plain(200, b"<html>", "text/html"), "MalformedReply", "prefill", "no stream of events (text/html)"),
        (plain(400, {"error": {"message": "bad\nfield"}}), "RequestRefused", "prefill", "answers 400: bad field"),
        (plain(422, {"detail": "Unexpected fields"}), "RequestRefused", "prefill", "answers 422: Unexpected fields"),
        (plain(400, {"message": "maximum context length is 8"}), "ContextOverflow", "prefill", "context length is 8"),
        (plain(429, {"error": "slow down"}), "RateLimited", "prefill", "429"),
        (plain(500, b"oops", "text/plain"), "ServerError", "prefill", "answers 500: oops"),
        (plain(503, b""), "ServerError", "prefill", "answers 503: nothing"),
        ([b"SSH-2.0-dropbear\r\n\r\n"], "ConnectionLost", "prefill", "broke"),
    ],
)
def test_what_goes_wrong_is_a_failure_of_one_line(script: list[Any], kind: str, phase: str, words: str) -> None:
    failure = asked(script, timeout_s=20.0).reply.failure
    assert failure is not None
    assert (failure.kind, failure.phase) == (kind, phase)
    assert words in failure.message
    assert "\n" not in failure.message


@pytest.mark.parametrize(("script", "phase"), [([STALL], "prefill"), ([HEAD, chunked(event("Hi")), STALL], "decode")])
def test_a_server_that_stalls_is_a_time_out(script: list[Any], phase: str) -> None:
    reply = asked(script, timeout_s=0.3).reply
    assert reply.failure is not None
    assert reply.text is None
    assert reply.failure.kind == "Timeout"
    assert reply.failure.phase in (phase, "connect")


def test_nobody_there_is_a_failure_of_the_connection() -> None:
    with Stub() as stub:
        backend = backend_for(stub)
    failure = ask(backend.open_session()).reply.failure
    assert failure is not None
    assert (failure.kind, failure.phase) == ("NotConnected", "connect")


def test_nothing_is_asked_twice() -> None:
    with Stub(script=[CLOSE]) as stub:
        ask(backend_for(stub).open_session())
        assert len(stub.bodies) == 1


def test_a_session_answers_after_a_failure() -> None:
    with Stub(script=plain(500, {})) as stub:
        session = backend_for(stub).open_session()
        assert ask(session).reply.failure is not None
        stub.script = GOOD
        assert ask(session).reply.text == "Hello there."


def test_a_connection_is_kept_and_what_making_it_took_is_told_apart() -> None:
    with Stub() as stub:
        talk = converse(backend_for(stub).open_session(), {"max_new_tokens": 3})
        assert stub.connections == 1
    assert [any("making a connection" in notice for notice in one.reply.notices) for one in talk] == [
        True,
        False,
        False,
        False,
    ]


def test_every_request_holds_the_whole_conversation() -> None:
    with Stub() as stub:
        talk = converse(backend_for(stub).open_session(), {"max_new_tokens": 3}, QUESTIONS[:2])
        said = [message["content"] for message in stub.bodies[1]["messages"]]
    assert said == [QUESTIONS[0], talk[0].reply.text, QUESTIONS[1]]


def test_so_many_requests_are_in_flight_as_were_asked_together() -> None:
    crowd = 6
    gate = threading.Barrier(crowd, timeout=20)
    with Stub(before_reply=gate.wait) as stub:  # none is answered before all have come
        backend = backend_for(stub)
        together = [(backend.open_session(), request([f"{at}"], {"max_new_tokens": 3})) for at in range(crowd)]
        replies = backend.reply_many(together)
        assert stub.most_in_flight == crowd
    assert [reply.text for reply in replies] == [" ".join(WORDS[:3])] * crowd
    assert {reply.batch_size for reply in replies} == {crowd}
    for _, one in together:
        stamps = one.stopwatch.stamps()
        assert 0 < stamps.tick_ns[0] <= stamps.generated_ns <= stamps.ready_ns  # type: ignore[operator]


def test_nothing_is_gauged_on_this_machine() -> None:
    with Stub() as stub:
        gauges = backend_for(stub).gauges
    gauges.reset()
    assert gauges.read().memory == Memory()
    assert (gauges.read().devices, gauges.read().host_load) == ((), None)


def test_equal_messages_to_one_model_have_equal_hashes_if_as_many_tokens_were_counted() -> None:
    with Stub() as stub:
        session = backend_for(stub).open_session()
        hashes = [ask(session, text).reply.prompt_hash for text in ("a", "a", "b")]
        stub.script = stream(event("x", finish="stop", usage=usage(10, 1)))
        assert len({*hashes, ask(session, "a").reply.prompt_hash}) == 3
    assert hashes[0] == hashes[1]


# What is found out before anything is measured


def test_a_server_that_keeps_to_everything_is_verified() -> None:
    with Stub() as stub:
        backend = opened(stub, dialect="vllm")
    assert backend.report.facts["verified"] == {
        "greedy": True, "draws": True, "seeds": True, "stops": True, "estimated": False,
    }  # fmt: skip
    assert len(backend.report.notices) == 1


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        ("greedy", "decodes greedily whatever it is asked"),
        ("seeds", "does not keep to seeds"),
        ("stops", "does not end replies at stop strings"),
        ("repeats", "does not repeat itself"),
    ],
)
def test_a_server_that_lies_is_found_out(lie: str, words: str) -> None:
    with Stub(lies=frozenset({lie})) as stub:
        backend = opened(stub, dialect="vllm")
    assert any(words in notice for notice in backend.report.notices)


def test_what_a_server_was_seen_not_to_do_is_refused_before_the_run() -> None:
    with Stub(lies=frozenset({"greedy", "stops"})) as stub:
        backend = opened(stub, dialect="vllm")
    with pytest.raises(UsageError, match="decodes greedily"):
        backend.effective({"do_sample": True}, "natural")
    with pytest.raises(UsageError, match="does not end replies"):
        backend.effective({"stop_strings": "x"}, "natural")
    assert backend.effective({"max_new_tokens": 3}, "natural").values == {"do_sample": False, "max_new_tokens": 3}


def test_draws_are_paired_only_where_seeds_were_seen_to_be_kept() -> None:
    drawn = {"do_sample": True, "max_new_tokens": 3}
    for lies, paired in ((frozenset[str](), True), (frozenset({"seeds"}), False)):
        with Stub(lies=lies) as stub:
            session = opened(stub, dialect="vllm").open_session()
            assert ask(session, sampling=drawn).reply.paired is paired
            assert ask(session).reply.paired


def test_a_run_keeps_so_many_conversations_in_flight(tmp_path: Path) -> None:
    talks = [{"id": name, "turns": [{"user": f"Who is {name}?"}]} for name in ("one", "two")]
    (tmp_path / "two.yaml").write_text(json.dumps({"conversations": talks}))
    with Stub(owner="vllm") as stub:
        config = config_of(stub, sampling={"max_new_tokens": 3}, concurrency=[2])
        path = execute(plan(parse_config({**config, "conversations": [str(tmp_path / "two.yaml")]})), results=tmp_path)
    lines = [json.loads(line) for line in (path / "turns.jsonl").read_text().splitlines()]
    assert [(line["failure"], line["batch_size"], line["cached_tokens"]) for line in lines] == [(None, 2, 4)] * 2


def test_a_server_that_counts_nothing_needs_a_tokenizer() -> None:
    with Stub(lies=frozenset({"usage"})) as stub:
        with pytest.raises(ModelError, match="name one: tokenizer"):
            opened(stub)
        assert opened(stub, tokenizer="builtin:pico").report.facts["verified"]["estimated"] is True


@pytest.mark.parametrize(
    ("stub", "dialect"),
    [
        (Stub(owner="vllm", pages={"/version": {"version": "0.33.0"}}), "vllm"),
        (Stub(owner="sglang"), "sglang"),
        (Stub(owner="llamacpp"), "llamacpp"),
        (Stub(owner="library", pages={"/api/version": {"version": "0.40.12"}}), "ollama"),
        (Stub(pages={"/openapi.json": {"paths": {"/load_model": {}}}}), "transformers"),
        (Stub(pages={"/openapi.json": {"info": {"title": "🦙 llama.cpp Python API"}}}), "llama-cpp-python"),
        (Stub(pages={"/info": {"max_total_tokens": 4096, "version": "3.3"}}), "tgi"),
        (Stub(), "openai"),
    ],
)  # fmt: skip
def test_servers_are_recognised_by_what_they_say_of_themselves(stub: Stub, dialect: str) -> None:
    with stub:
        seen = preview_of(stub, {})
        named = preview_of(stub, {}, dialect="tgi")
    assert any("not recognised" in notice for notice in seen.notices) == (dialect == "openai")
    assert seen.notices[0].split(" makes ")[0] != named.notices[0].split(" makes ")[0] or dialect == "tgi"
    assert seen.prompt_tokens is None
    assert seen.why_not_together is None


def preview_of(stub: Stub, sampling: dict[str, Any], **spec: Any) -> Any:
    return preview(
        ModelSpec(model=stub.name, **spec),
        samplings={"s": sampling},
        length="natural",
        messages=dialog("Hi", system="Be brief."),
        persona=Persona(),
        chat_format="auto",
        template_now="2026-01-01T00:00:00",
    )


def test_before_a_run_it_is_said_in_one_line_what_will_not_do() -> None:
    with Stub() as stub:
        with pytest.raises(UsageError, match=r"sampling\.top_k: cannot be asked of OpenAI's own"):
            preview_of(stub, {"do_sample": True, "top_k": 10})
        stub.model = "other"
        wrong = ModelSpec(model=stub.name.replace("#other", "#othre"))
        with pytest.raises(ModelError, match="has no model othre – did you mean other"):
            open_backend(wrong, chat_format="auto", template_now="2026-01-01T00:00:00")
        with pytest.raises(ModelError, match="chat_format: auto"):
            open_backend(ModelSpec(model=stub.name), chat_format="transcript", template_now="2026-01-01T00:00:00")
        with pytest.raises(ModelError, match="leave template_kwargs out"):
            opened(stub, template_kwargs={"enable_thinking": False})
    with pytest.raises(ModelError, match=r"cannot be reached: .*Connection refused – start the server"):
        opened(stub)


# The key


def test_the_key_comes_from_the_environment_and_goes_where_it_is_meant_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("MY_KEY", "other")
    found = {
        "openai:https://api.example.org/v1#m": SECRET, "openai:http://127.0.0.1:1/v1#m": SECRET,
        "openai:http://localhost:1/v1#m": SECRET, "openai:http://10.0.0.7:1/v1#m": None,
    }  # fmt: skip
    for model, key in found.items():
        server = server_of(model)
        assert server is not None
        assert key_of(ModelSpec(model=model), server) == key
        assert key_of(ModelSpec(model=model, api_key_env="MY_KEY"), server) == "other"
        with pytest.raises(ModelError, match="NONE is not set"):
            key_of(ModelSpec(model=model, api_key_env="NONE"), server)


def test_a_key_that_cannot_be_one_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    server = server_of("openai:http://localhost:1/v1#m")
    assert server is not None
    for wrong in (f"{SECRET}\nx", f"{SECRET} x", f"{SECRET}é"):
        monkeypatch.setenv("OPENAI_API_KEY", wrong)
        with pytest.raises(ModelError, match="OPENAI_API_KEY holds what is no key") as found:
            key_of(ModelSpec(model="openai:http://localhost:1/v1#m"), server)
        assert SECRET not in str(found.value)


def test_a_key_is_sent_and_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    """Not even by a server that repeats it, in a reply and in an error."""
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with Stub() as stub:
        opened(stub)  # a server that is asked for real has given its replies by now
        stub.script = stream(event(f"Your key is {SECRET}"), event(finish="stop", usage=usage(7, 1)))
        reply = ask(backend_for(stub, key=SECRET).open_session()).reply
        assert reply.text == "Your key is ***"
        stub.script = plain(401, {"error": {"message": f"Incorrect API key provided: {SECRET}"}})
        config = parse_config(config_of(stub))
        run(config, results=tmp_path, run_id="x")
        assert all(f"Bearer {SECRET}" in head for head in stub.heads)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"Incorrect API key" in written
    assert SECRET.encode() not in written
    assert SECRET not in "".join(capfd.readouterr())


def config_of(stub: Stub, **more: Any) -> dict[str, Any]:
    prompts = str(Path(__file__).parent.parent / "prompts" / "physics-professor.yaml")
    return {"models": [{"model": stub.name, "label": "served"}], "conversations": [prompts], "warmup": 0, **more}


def test_a_run_goes_on_past_a_turn_that_failed(tmp_path: Path) -> None:
    sampling = {"max_new_tokens": 3}
    with Stub() as stub:
        calls = iter(range(1000))

        def breaks() -> None:
            stub.script = (
                plain(500, {}) if next(calls) == 7 else None
            )  # after five replies that verify, in the second turn

        stub.before_reply = breaks
        path = execute(plan(parse_config(config_of(stub, sampling=sampling, repeats=2))), results=tmp_path)
    lines = [json.loads(line) for line in (path / "turns.jsonl").read_text().splitlines()]
    failed = [line["failure"]["kind"] for line in lines if line["failure"]]
    assert failed == ["ServerError"]
    assert {line["circumstances"]["engine"] for line in lines} == {"server"}
    assert {line["circumstances"]["cell"]["repeat"] for line in lines} == {0, 1}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"model": "openai:http://h:1/v1"}, "which model of the server"),
        ({"model": "openai:ftp://h/v1#m"}, "is no address"),
        ({"model": "openai:http://h:port/v1#m"}, "is no address"),
        ({"model": f"openai:http://me:{SECRET}@h/v1#m"}, "holds credentials"),
        ({"model": f"openai:http://h/v1?key={SECRET}#m"}, "holds credentials"),
        ({"model": "openai:http://h/v1#m", "dtype": "float32"}, "leave dtype out"),
        ({"model": "openai:http://h/v1#m", "kv_cache": "fresh"}, "leave kv_cache out"),
        ({"model": "openai:http://h/v1#m", "engine": "batched"}, "leave engine out"),
        ({"model": "builtin:pico", "engine": "server"}, "leave engine out"),
        ({"model": "builtin:pico", "dialect": "vllm"}, "leave dialect out"),
        ({"model": "openai:http://h/v1#m", "dialect": "vlm"}, "vllm"),
        ({"model": "openai:http://h/v1#m", "api_key_env": "sk-1 2"}, "api_key_env"),
    ],
)
def test_a_spec_that_asks_the_wrong_one_is_refused(spec: dict[str, Any], words: str) -> None:
    with pytest.raises(DocumentError) as found:
        parse_config({"models": [spec], "conversations": ["prompts/physics-professor.yaml"]})
    assert words in str(found.value)
    assert SECRET not in str(found.value)


def test_a_served_model_is_called_by_its_own_name() -> None:
    config = parse_config(
        {"models": ["openai:http://h:1/v1#org/tiny"], "conversations": ["prompts/physics-professor.yaml"]}
    )
    assert plan(config).models[0].label == "tiny"
