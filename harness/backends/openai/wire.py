"""The way to a server: requests out, bytes in, and when they were read.

The clock is read in the socket's own `recv`, before anybody looks at the bytes: what one read brought arrived at one
time, however many events are in it. Connections are kept alive; one that had to be made is timed apart. Nothing is ever
asked twice: a retry inside a measurement is a lie about the server.

This is the only module that knows the key. Whatever a server says passes through `hidden`, so that one that repeats the
key does not get it into a record.
"""

from __future__ import annotations

import ssl
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpcore2
import httpx2
import orjson

from harness.backends.failures import TurnTimedOutError, first_line
from harness.backends.openai.faults import FaultKind, ServerFault
from harness.config.server import Server
from harness.meters.clock import Clock, real_clock

CONNECT_S = 10.0
"""The longest that making a connection may take, and any answer about the server itself."""
_DRAIN_S = 1.0
"""How long the end of an answer that is complete is waited for, so that its connection can be used again."""
_KEPT_S = 300.0
_LONGEST_ERROR = 300
_TOO_LONG = ("context length", "context_length", "context size", "context window", "maximum context", "too many tokens")


@dataclass(frozen=True, slots=True)
class Told:
    """What a server says about itself."""

    status: int
    headers: dict[str, str]
    json: Any
    """None where it is no JSON."""


@dataclass(frozen=True, slots=True)
class Read:
    """What came, and when the read that brought it returned; several may come of one read, and have its number."""

    ns: int
    number: int
    data: bytes


class _Watch(threading.local):
    """What the thread that asks wants to know of its socket."""

    clock: Clock = real_clock
    deadline_s: float | None = None
    """On time.monotonic()."""
    read_ns: int = 0
    reads: int = 0
    connect_ns: int = 0


class Wire:
    """The way to one server. Any number of threads may ask at once."""

    def __init__(self, server: Server, key: str | None) -> None:
        self._server = server
        self._key = key
        self._watch = _Watch()
        headers = {"Accept-Encoding": "identity", "User-Agent": "instruct-harness"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        self._client = httpx2.Client(headers=headers, transport=_Transport(self._watch))
        weakref.finalize(self, self._client.close)  # sessions come and go, and nobody says which is the last

    def look(self, path: str, *, at_root: bool = False) -> Told | None:
        """What the server answers to a question about itself; None where it has no answer of any kind. Raises
        ServerFault where there is no server."""
        self._watch.deadline_s = time.monotonic() + CONNECT_S
        url = (self._server.root if at_root else self._server.base) + path
        try:
            answer = self._client.get(url, timeout=CONNECT_S)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise self._not_connected(error) from None
        except (httpx2.HTTPError, TurnTimedOutError):
            return None
        finally:
            self._watch.deadline_s = None
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return Told(answer.status_code, headers, _json(self.hidden(answer.text).encode()))

    @contextmanager
    def ask(self, body: bytes, clock: Clock, timeout_s: float | None) -> Iterator[Answer]:
        """Send a request and give its answer to be read. Raises ServerFault or TurnTimedOutError, here and there."""
        watch = self._watch
        watch.clock, watch.connect_ns = clock, 0
        watch.deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        limit = CONNECT_S if timeout_s is None else min(CONNECT_S, max(timeout_s, 1e-3))
        try:
            with (
                self._explained(),
                self._client.stream(
                    "POST",
                    f"{self._server.base}/chat/completions",
                    content=body,
                    headers={"Content-Type": "application/json", "Accept": "text/event-stream"},
                    timeout=httpx2.Timeout(None, connect=limit),
                ) as response,
            ):
                if response.status_code != 200:
                    response.read()
                    raise self._refused(response)
                answer = Answer(response, watch)
                yield answer
                answer.drain()
        finally:
            watch.clock, watch.deadline_s = real_clock, None

    def hidden(self, text: str) -> str:
        """The text without the key."""
        return text if self._key is None else text.replace(self._key, "***")

    @property
    def connect_s(self) -> float:
        """What making connections took in this thread's last request, and in questions since; 0 where one was there."""
        return self._watch.connect_ns / 1e9

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what httpx2 raises into faults."""
        try:
            yield
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise self._not_connected(error) from None
        except httpx2.TimeoutException:
            raise TurnTimedOutError("the server stayed silent longer than a turn may take") from None
        except httpx2.HTTPError as error:
            raise ServerFault("ConnectionLost", self.hidden(f"the connection broke: {first_line(error)}")) from None

    def _not_connected(self, error: Exception) -> ServerFault:
        return ServerFault("NotConnected", self.hidden(f"{self._server.root} cannot be reached: {first_line(error)}"))

    def _refused(self, response: httpx2.Response) -> ServerFault:
        """The fault that an answer other than 200 is."""
        status = response.status_code
        said = self.hidden(said_in(_json(response.content), response.text))[:_LONGEST_ERROR]
        kind: FaultKind = "ServerError"
        if status == 429:
            kind = "RateLimited"
        elif status < 500:
            too_long = status in (400, 413, 422) and any(words in said.lower() for words in _TOO_LONG)
            kind = "ContextOverflow" if too_long else "RequestRefused"
        return ServerFault(kind, f"the server answers {status}: {said}")


class Answer:
    """An answer that is arriving."""

    def __init__(self, response: httpx2.Response, watch: _Watch) -> None:
        self.content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        self._pieces = response.iter_raw()
        self._watch = watch

    def reads(self) -> Iterator[Read]:
        """What comes, as it comes. Leaving off in the middle is allowed."""
        while (data := next(self._pieces, None)) is not None:
            yield Read(self._watch.read_ns, self._watch.reads, data)

    def drain(self) -> None:
        """Read on to the end of an answer that says nothing more."""
        self._watch.deadline_s = time.monotonic() + _DRAIN_S
        try:
            for _ in self._pieces:
                pass
        except (httpx2.HTTPError, TurnTimedOutError):
            return  # the connection is closed then, and the next request makes another


class _Transport(httpx2.HTTPTransport):
    """httpx2's own, on sockets that are watched: its constructor has no place for them, httpcore2's pool has."""

    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self._pool.close()
        self._pool = httpcore2.ConnectionPool(
            ssl_context=httpx2.create_ssl_context(),
            max_connections=None,
            max_keepalive_connections=None,
            keepalive_expiry=_KEPT_S,
            retries=0,
            network_backend=_Network(watch),
        )


class _Network(httpcore2.NetworkBackend):
    def __init__(self, watch: _Watch) -> None:
        self._watch = watch
        self._plain = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        start_ns = real_clock()
        stream = self._plain.connect_tcp(host, port, timeout, local_address, socket_options)
        self._watch.connect_ns += real_clock() - start_ns
        return _Stream(stream, self._watch)


class _Stream(httpcore2.NetworkStream):
    """A socket whose reads are stamped, and end in time."""

    def __init__(self, plain: httpcore2.NetworkStream, watch: _Watch) -> None:
        self._plain = plain
        self._watch = watch

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        watch = self._watch
        if watch.deadline_s is not None:
            timeout = watch.deadline_s - time.monotonic()
            if timeout <= 0:
                raise TurnTimedOutError("the turn took longer than it may")
        data = self._plain.read(max_bytes, timeout)
        watch.read_ns = watch.clock()
        watch.reads += 1
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._plain.write(buffer, timeout)

    def close(self) -> None:
        self._plain.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        start_ns = real_clock()
        stream = self._plain.start_tls(ssl_context, server_hostname, timeout)
        self._watch.connect_ns += real_clock() - start_ns
        return _Stream(stream, self._watch)

    def get_extra_info(self, info: str) -> Any:
        return self._plain.get_extra_info(info)


def _json(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return None


def said_in(json: Any, text: str) -> str:
    """What an answer that is an error says, in one line."""
    for name in ("error", "message", "detail"):
        if isinstance(json, dict) and name in json:
            json = json[name]
    return " ".join((json if isinstance(json, str) else text).split()) or "nothing"
