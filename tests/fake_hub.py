"""A Hub on loopback: real HTTP, the few routes that huggingface_hub and transformers ask for, and bad days on demand.

    /api/models?search=…                        the list of models, in pages that a Link header joins
    /api/models/NAME[/revision/REV]             what a model is: its commit, its files, its card
    /api/models/NAME/tree/COMMIT?recursive=…    its files with their sizes, of large ones the SHA-256
    /NAME/resolve/REV/FILE                      HEAD: commit, ETag, size; GET: the file. Large files are redirected
    /cdn/SHA256                                 … here, on another host, where no token may arrive; Range is obeyed

`huggingface_hub` takes a file for large where the listing says `lfs`; here these are the weights.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

LARGE = (".safetensors", ".bin")
MANY = 1000
"""Models on a page of the list, unless `page_size` says otherwise."""


@dataclass
class Model:
    """A repository: its commits, oldest first, each a folder's files by name."""

    commits: dict[str, dict[str, bytes]]
    gated: bool = False
    private: bool = False
    info: dict[str, Any] = field(default_factory=dict)
    """What the API says besides: tags, downloads, cardData, safetensors …"""

    @property
    def head(self) -> str:
        return list(self.commits)[-1]

    def commit_of(self, revision: str) -> str | None:
        if revision == "main":
            return self.head
        return revision if revision in self.commits else None


@dataclass(frozen=True)
class Asked:
    """One request, as it arrived."""

    method: str
    path: str
    range: str | None
    authorized: bool
    host: str


class FakeHub:
    """The models it has, what it does wrong today, and everything it was asked."""

    def __init__(self) -> None:
        self.models: dict[str, Model] = {}
        self.asked: list[Asked] = []
        self.token = "hf_secret_of_the_test"
        self.page_size = MANY
        self.down = False
        self.slow_s = 0.0
        """Seconds before any answer."""
        self.limited = 0
        """How many requests from now on are answered by 429."""
        self.retry_after_s = 0
        self.cut_after: int | None = None
        """After so many bytes of a large file the connection breaks off …"""
        self.cuts = 0
        """… so many times."""
        self.claimed_size: int | None = None
        """What the listing says of the size of large files, where that is not the truth."""
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def publish(self, name: str, folder: Path, **about: Any) -> str:
        """Commit the files of a folder; returns the commit. `about`: gated, private, or what the API says besides."""
        files = {
            str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
        }
        model = self.models.setdefault(name, Model({}))
        digest = hashlib.sha1(name.encode() + str(len(model.commits)).encode())
        for path, data in files.items():
            digest.update(path.encode() + data)
        commit = digest.hexdigest()
        model.commits[commit] = files
        model.gated = bool(about.pop("gated", model.gated))
        model.private = bool(about.pop("private", model.private))
        model.info |= about
        return commit

    def requests(self, words: str) -> list[Asked]:
        return [one for one in self.asked if words in f"{one.method} {one.path}"]


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        """Silent."""

    def _answer(self) -> None:
        hub, authorization = self.hub, self.headers.get("Authorization")
        hub.asked.append(
            Asked(self.command, self.path, self.headers.get("Range"), authorization is not None, self.headers["Host"])
        )
        if hub.slow_s:
            time.sleep(hub.slow_s)
        if hub.down:
            return self._say(503, b"down for maintenance")
        if hub.limited:
            hub.limited -= 1
            return self._say(429, b"too many", {"Retry-After": str(hub.retry_after_s)})
        if authorization is not None and authorization != f"Bearer {hub.token}":
            return self._say(401, b"{}", {"X-Error-Message": "Invalid credentials in Authorization header"})
        url = urlsplit(self.path)
        if url.path == "/api/models":
            return self._list(parse_qs(url.query))
        if found := re.fullmatch(r"/cdn/([0-9a-f]{64})", url.path):
            return self._large(found[1])
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+)(?:/(.*))?)?", url.path)
        resolved = None if found else re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", url.path)
        match = found or resolved
        model = hub.models.get(match[1]) if match else None
        if match is None or model is None or (model.private and authorization is None):
            return self._say(401 if authorization is None else 404, b"{}", {"X-Error-Code": "RepoNotFound"})
        commit = model.commit_of((found[3] if found else match[2]) or "main")
        if commit is None:
            return self._say(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if found is None:
            return self._file(model, commit, match[3], authorized=authorization is not None)
        if found[2] == "tree":
            return self._tree(model.commits[commit], found[4])
        return self._json(about(match[1], model, commit))

    def _tree(self, files: dict[str, bytes], folder: str | None) -> None:
        inside = {path: data for path, data in files.items() if not folder or path.startswith(folder + "/")}
        if not inside:
            return self._say(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        return self._json([self._entry(path, data) for path, data in inside.items()])

    def _entry(self, path: str, data: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
        if path.endswith(LARGE):
            entry["size"] = self.hub.claimed_size or len(data)
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": entry["size"], "pointerSize": 130}
        return entry

    def _file(self, model: Model, commit: str, path: str, *, authorized: bool) -> None:
        known = {"X-Repo-Commit": commit}
        if model.gated and not authorized:
            return self._say(
                401, b"{}", {**known, "X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"}
            )
        data = model.commits[commit].get(path)
        if data is None:
            return self._say(404, b"{}", {**known, "X-Error-Code": "EntryNotFound"})
        if not path.endswith(LARGE):
            return self._say(200, data, {**known, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'})
        digest = hashlib.sha256(data).hexdigest()
        linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(data))}
        return self._say(302, b"", {**known, **linked, "Location": f"http://localhost:{self.hub.port}/cdn/{digest}"})

    def _large(self, digest: str) -> None:
        every = (
            data for model in self.hub.models.values() for files in model.commits.values() for data in files.values()
        )
        data = next(one for one in every if hashlib.sha256(one).hexdigest() == digest)
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(asked[1]) if asked else 0
        headers = {"ETag": f'"{digest}"'}
        if asked:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        rest, hub = data[start:], self.hub
        cut = None
        if hub.cut_after is not None and hub.cuts and self.command == "GET":
            hub.cuts, cut = hub.cuts - 1, hub.cut_after
        return self._say(206 if asked else 200, rest, headers, cut=cut)

    def _list(self, asked: dict[str, list[str]]) -> None:
        start, size = int(asked.get("start", ["0"])[0]), self.hub.page_size
        size = min(size, int(asked.get("limit", [str(size)])[0]))
        words = asked.get("search", [""])[0].lower()
        tags = set(asked.get("filter", []))
        chosen = [
            about(name, model, model.head)
            for name, model in self.hub.models.items()
            if words in name.lower() and tags <= set(model.info.get("tags", [])) and not model.private
        ]
        if "gated" in asked:
            chosen = [one for one in chosen if bool(one["gated"]) == (asked["gated"][0].lower() == "true")]
        if task := asked.get("pipeline_tag"):
            chosen = [one for one in chosen if one.get("pipeline_tag") == task[0]]
        if sizes := asked.get("num_parameters"):
            chosen = [one for one in chosen if _is_within(one.get("safetensors", {}).get("total"), sizes[0])]
        if author := asked.get("author"):
            chosen = [one for one in chosen if one["id"].startswith(f"{author[0]}/")]
        if key := asked.get("sort"):
            chosen.sort(key=lambda one: (key[0] in one, one.get(key[0], 0)), reverse=True)
        headers = {}
        if start + size < len(chosen):
            query = urlencode(
                {**{key: values for key, values in asked.items() if key != "start"}, "start": start + size}, True
            )
            headers["Link"] = f'<{self.hub.url}/api/models?{query}>; rel="next"'
        self._json(chosen[start : start + size], headers)

    def _json(self, value: Any, headers: dict[str, str] | None = None) -> None:
        self._say(200, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _say(self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[:cut])
        if cut is not None and cut < len(body):
            self.close_connection = True  # in the middle of what was promised


def _is_within(total: int | None, sizes: str) -> bool:
    """`min:1B,max:8000M`, which the real one understands with a unit only."""
    limits = dict(part.split(":") for part in sizes.split(","))
    units = {"K": 10**3, "M": 10**6, "B": 10**9}
    least, most = (
        float(text[:-1]) * units[text[-1]] if (text := limits.get(name)) else None for name in ("min", "max")
    )
    return total is not None and (least is None or total >= least) and (most is None or total <= most)


def about(name: str, model: Model, commit: str) -> dict[str, Any]:
    """What the API says of a model."""
    return {
        "id": name,
        "modelId": name,
        "sha": commit,
        "private": model.private,
        "gated": "manual" if model.gated else False,
        "siblings": [{"rfilename": path} for path in model.commits[commit]],
        "tags": [],
        "downloads": 0,
        "likes": 0,
        **model.info,
    }


@contextmanager
def reached(hub: FakeHub, cache: Path) -> Iterator[None]:
    """This process takes the fake Hub for the Hub, with a cache of its own, and does not sleep between tries."""
    from huggingface_hub import constants, file_download
    from huggingface_hub.utils import _http, close_session

    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", hub.url)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no token"))
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        for module in (_http, file_download):
            patch.setattr(module, "time", SimpleNamespace(sleep=lambda _: None))
        patch.delenv("HF_TOKEN", raising=False)
        close_session()
        yield
        close_session()
