"""A server of raw sockets that answers as it is told: in pieces, late, never, wrongly, or by breaking off.

with Stub() as stub:            # a small model that keeps to everything
with Stub(script=[…]) as stub:  # every request for a reply gets these steps
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

WORDS = ["motion", "is", "how", "a", "body", "goes", "from", "here", "to", "there", "and", "back", "again"]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
STALL, RESET, CLOSE = object(), object(), object()
Step = bytes | object | Callable[[], None]
"""Bytes to write as they are, one of the above, or something to be done – in a thread, so that it may wait."""


def event(content: str | None = None, *, finish: str | None = None, usage: Any = None, **delta: Any) -> bytes:
    """One chunk of a reply as an event."""
    text = {} if content is None else {"content": content}
    chunk = {"choices": [{"index": 0, "delta": {**text, **delta}, "finish_reason": finish}]}
    return f"data: {json.dumps(chunk if usage is None else {**chunk, 'usage': usage})}\n\n".encode()


def usage(prompt: int, completion: int, cached: int | None = None) -> dict[str, Any]:
    details = {} if cached is None else {"prompt_tokens_details": {"cached_tokens": cached}}
    return {"prompt_tokens": prompt, "completion_tokens": completion, **details}


def chunked(data: bytes) -> bytes:
    """Data as one piece of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def stream(*events: bytes, done: bool = True) -> list[Step]:
    """A whole answer of these events, one write for each."""
    body = [*events, *([b"data: [DONE]\n\n"] if done else [])]
    return [HEAD, *map(chunked, body), b"0\r\n\r\n"]


def plain(status: int, body: Any, kind: str = "application/json") -> list[Step]:
    """An answer that is no stream."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n\r\n"
    return [head.encode() + data]


@dataclass
class Stub:
    """The server. What it was asked is in `bodies` and `heads`."""

    script: Iterable[Step] | None = None
    owner: str = "stub"
    model: str = "tiny"
    pages: Mapping[str, Any] = field(default_factory=dict)
    """Path → JSON, besides the list of models."""
    lies: frozenset[str] = frozenset()
    """Of: greedy (it never draws), seeds, stops, usage (it counts nothing), repeats (greedy replies differ)."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    connections: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    before_reply: Callable[[], Any] = lambda: None

    def __enter__(self) -> Stub:
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def name(self) -> str:
        """As a config has it."""
        return f"openai:{self.base}#{self.model}"

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        self._loop.run_forever()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        server.close()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.heads.append(head)
                method, path, _ = head.split(" ", 2)
                size = next(
                    (int(one.split(":")[1]) for one in head.splitlines() if one.lower().startswith("content-l")), 0
                )
                body = json.loads(await reader.readexactly(size)) if size else {}
                async for step in self._steps(method, path, body):
                    if not await self._do(step, writer):
                        return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return
        finally:
            writer.close()

    async def _steps(self, method: str, path: str, body: dict[str, Any]) -> AsyncIterator[Step]:
        if method == "GET":
            known = {"/v1/models": {"data": [{"id": self.model, "owned_by": self.owner}]}, **self.pages}
            for step in plain(200, known[path]) if path in known else plain(404, {}):
                yield step
            return
        self.bodies.append(body)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await self._loop.run_in_executor(None, self.before_reply)
        for step in stream(*self._said(body)) if self.script is None else self.script:
            yield step
        self.in_flight -= 1

    async def _do(self, step: Step, writer: asyncio.StreamWriter) -> bool:
        if isinstance(step, bytes):
            writer.write(step)
            await writer.drain()
        elif step is STALL:
            await asyncio.sleep(3600)
        elif step is RESET:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        elif step is CLOSE:
            return False
        else:
            await self._loop.run_in_executor(None, step)  # type: ignore[arg-type]
        return True

    def _said(self, body: dict[str, Any]) -> list[bytes]:
        """What the small model says: its words, from a place that depends on the seed where it draws."""
        drawn = body.get("temperature", 1.0) > 0 and "greedy" not in self.lies
        start = (body.get("seed", 0) if drawn else 0) % len(WORDS)
        if (drawn and "seeds" in self.lies) or (not drawn and "repeats" in self.lies):
            start = len(self.bodies) % len(WORDS)
        words = (WORDS[start:] + WORDS[:start])[: body.get("max_tokens", body.get("max_completion_tokens", 99))]
        finish = "length"
        for stop in [] if "stops" in self.lies else body.get("stop", []):
            if stop in words:
                words, finish = words[: words.index(stop)], "stop"
        prompt = 5 + sum(len(message["content"].split()) for message in body["messages"])
        counts = None if "usage" in self.lies else usage(prompt, len(words), 4)
        return [
            event(role="assistant", content=""),
            *(event(f" {word}" if index else word) for index, word in enumerate(words)),
            event(finish=finish, usage=counts),
        ]
