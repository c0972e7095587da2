"""Brings the files of a model here, at one commit, and says how long that took and how much came.

First the small files (config, tokenizer, template), by which a model is judged; its weights only when it is to be
loaded. What is there is never asked for again, so a run whose commit is known needs no Hub from its second launch on.

Weights come as `<SHA-256>.partial` beside the cache's blobs and become one when they are whole and their hash is right,
so that a download that broke off, or was killed, goes on where it was. Files that come through Xet are left to
huggingface_hub, which is faster at that and begins such a file anew.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

import httpx2
from filelock import FileLock
from huggingface_hub import (
    HfApi,
    HfFileMetadata,
    constants,
    get_cached_repo_tree,
    get_hf_file_metadata,
    hf_hub_url,
    snapshot_download,
)
from huggingface_hub.errors import CachedRepoTreeNotFoundError, HfHubHTTPError
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # exported lazily
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, enable_progress_bars, tqdm

from harness.config.schema import ModelSpec
from harness.errors import ModelError
from harness.hub.cache import cached_commit, folder_of, is_commit, note_commit, root, snapshot_of
from harness.hub.reach import TIMEOUT_S, asked, is_unreachable, reaching
from harness.meters.clock import real_clock

CONFIG = "config.json"
SAFE = ("model.safetensors", "model.safetensors.index.json")
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
"""The files of weights that transformers looks for: one that holds all, or the list of several."""
WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".ot")
_SMALL = (".json", ".jinja", ".txt", ".model", ".tiktoken", ".md")
_TEMPLATES = "additional_chat_templates"
_SHA256_DIGITS = 64


@dataclass(frozen=True, slots=True)
class Held:
    """Files of a model of the Hub that are here."""

    model: str
    commit: str
    folder: Path
    """What from_pretrained takes: the small files are in it, and the weights if they were fetched."""
    download_s: float
    """Asking the Hub included."""
    download_bytes: int
    notices: tuple[str, ...] = ()


def hold(spec: ModelSpec, needs: str = CONFIG) -> Held:
    """The small files of a model on the Hub, at the commit that its revision has now.

    Raises ModelError where it cannot be had, lacks the file that it `needs`, and where code that comes with it may run
    and its revision is no commit.
    """
    started_ns = real_clock()
    with reaching(spec.model, spec.revision):
        commit, notices = _resolve(spec)
        _demand_commit(spec, commit)
        came = _fetch(spec.model, commit, [needs if needs.endswith(_SMALL) else CONFIG])  # lists the files, too
        files = listing(spec.model, commit)
        came += _fetch(spec.model, commit, [path for path in files or {} if _is_small(spec, path)])
    folder = snapshot_of(spec.model, commit)
    if not (folder / needs).is_file() and needs not in (files or {}):
        fact = "has no config.json, so it is no model of transformers" if needs == CONFIG else f"has no {needs}"
        raise ModelError(spec.model, fact, _what_there_is(files))
    return Held(spec.model, commit, folder, (real_clock() - started_ns) / 1e9, came, notices)


def fetch_weights(spec: ModelSpec, held: Held) -> Held:
    """The same with the weights that from_pretrained will want.

    Raises ModelError where they are pickled and the spec does not allow that, where the disk has no room for them, and
    where they do not come.
    """
    started_ns = real_clock()
    files = listing(held.model, held.commit)
    kinds = SAFE if spec.use_safetensors else SAFE + PICKLED
    first = next((name for name in kinds if (held.folder / name).exists() or name in (files or {})), None)
    if first is None:
        if files is None:
            return held  # a cache that others filled, without a listing: from_pretrained will tell
        raise only_pickled(spec) if set(PICKLED) & set(files) else _no_weights(spec, files)
    with reaching(held.model, held.commit):
        came = 0
        wanted = [first]
        if first.endswith(".json"):
            came = _fetch(held.model, held.commit, [first])
            wanted = sorted(set(json.loads((held.folder / first).read_text(encoding="utf-8"))["weight_map"].values()))
    spent_s = held.download_s + (real_clock() - started_ns) / 1e9
    return fetch_large(replace(held, download_s=spent_s, download_bytes=held.download_bytes + came), wanted)


def fetch_large(held: Held, wanted: Sequence[str]) -> Held:
    """The same with these files of weights. Raises ModelError where the disk has no room, or they do not come."""
    started_ns = real_clock()
    missing = [name for name in wanted if not (held.folder / name).exists()]
    if not missing:
        return held
    with reaching(held.model, held.commit):
        _demand_space(held, listing(held.model, held.commit) or {}, missing)
        came = sum(_fetch_large(held, name) for name in missing)
        _fetch(held.model, held.commit, missing, seen=True)  # links them, and gets what Xet is better at
    spent_s = held.download_s + (real_clock() - started_ns) / 1e9
    return replace(held, download_s=spent_s, download_bytes=held.download_bytes + came)


def listing(model: str, commit: str) -> Mapping[str, int] | None:
    """The files of a commit and their sizes in bytes, as they were listed when it was first fetched; None for a commit
    in the cache that was never listed."""
    try:
        tree = get_cached_repo_tree(model, revision=commit)
    except CachedRepoTreeNotFoundError:
        return None
    return {entry.path: entry.size for entry in tree if isinstance(entry, RepoFile)}


@contextmanager
def downloads_shown() -> Iterator[None]:
    """Whatever happens to the Hub's progress bars inside, afterwards they are as before: a long download is seen."""
    shown = not are_progress_bars_disabled()
    yield
    if shown:
        enable_progress_bars()


def only_pickled(spec: ModelSpec) -> ModelError:
    """What is wrong with weights that only exist in a form that runs code when it is read."""
    return ModelError(
        spec.model, "has only pickled weights, which can run code", "if you trust them, set use_safetensors: false"
    )


def _resolve(spec: ModelSpec) -> tuple[str, tuple[str, ...]]:
    """The commit of the revision, and what there is to know about how it was found."""
    known = cached_commit(spec.model, spec.revision)
    if is_commit(spec.revision) and known is not None:
        return known, ()
    if constants.HF_HUB_OFFLINE and known is not None:
        return known, ()
    try:
        info = asked(lambda: HfApi().model_info(spec.model, revision=spec.revision, timeout=TIMEOUT_S))
    except Exception as error:
        if known is None or not is_unreachable(error):
            raise
        return known, (f"the Hub could not be asked ({type(error).__name__}): the commit is that of the local cache",)
    assert info.sha is not None, "the API names the commit of every model"
    note_commit(spec.model, spec.revision, info.sha)
    return info.sha, ()


def _demand_commit(spec: ModelSpec, commit: str) -> None:
    """Code that may run is code that somebody could have read: it has a commit, which others cannot move."""
    if spec.trust_remote_code and not is_commit(spec.revision):
        fact = "runs code that comes with it, and its revision is not a commit"
        raise ModelError(spec.model, fact, f"read that code, then set revision: {commit}")


class _Silent(tqdm):
    """The bar of small files, which are here before it could be read."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **{**named, "disable": True})  # type: ignore[no-untyped-call]


def _fetch(model: str, commit: str, names: Sequence[str], *, seen: bool = False) -> int:
    """Have files in the snapshot; returns the bytes that came. What is not in the repository is left out."""
    folder = snapshot_of(model, commit)
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        asked(lambda: snapshot_download(model, revision=commit, allow_patterns=missing,
                                        etag_timeout=TIMEOUT_S, tqdm_class=None if seen else _Silent))  # fmt: skip
    return sum((folder / name).stat().st_size for name in missing if (folder / name).exists())


def _fetch_large(held: Held, name: str) -> int:
    """Bring one file of weights among the blobs; returns the bytes that came, or that Xet is going to bring."""
    url = hf_hub_url(held.model, name, revision=held.commit)
    told = asked(lambda: get_hf_file_metadata(url, timeout=TIMEOUT_S))
    assert told.etag is not None, "every file of a repository has one"
    assert told.size is not None, "and a size"
    blobs = folder_of(held.model) / "blobs"
    blob, partial = blobs / told.etag, blobs / f"{told.etag}.partial"
    if told.xet_file_data is not None and _speaks_xet() and not partial.exists():
        return 0 if blob.exists() else told.size
    blobs.mkdir(parents=True, exist_ok=True)
    with FileLock(blobs / f"{told.etag}.partial.lock"):
        if blob.exists():  # the same file in another commit, or brought by another process
            return 0
        already = partial.stat().st_size if partial.exists() else 0
        _go_on(held, name, told, partial)
        partial.replace(blob)
    return told.size - already


def _speaks_xet() -> bool:
    return not constants.HF_HUB_DISABLE_XET and find_spec("hf_xet") is not None


def _go_on(held: Held, name: str, told: HfFileMetadata, partial: Path) -> None:
    headers = build_hf_headers()
    if httpx2.URL(told.location).netloc != httpx2.URL(constants.ENDPOINT).netloc:
        headers.pop("authorization", None)  # where large files lie, the address itself is the permission
    with partial.open("ab") as out:
        try:
            http_get(told.location, out, resume_size=out.tell(), headers=headers, expected_size=told.size,
                     displayed_filename=name)  # fmt: skip
        except HfHubHTTPError:
            raise
        except (httpx2.TransportError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of the disk
            out.flush()
            fact = f"the download of {name} broke off after {out.tell()} of {told.size} bytes"
            raise ModelError(held.model, fact, "run it again: it goes on from there") from error
    if len(told.etag or "") == _SHA256_DIGITS:
        with partial.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != told.etag:
            partial.unlink()
            raise ModelError(held.model, f"{name} arrived damaged: its hash is not the Hub's", "run it again")


def _demand_space(held: Held, files: Mapping[str, int], missing: Sequence[str]) -> None:
    """Raise ModelError where the disk cannot take what is missing, before an hour of download tells."""
    blobs = folder_of(held.model) / "blobs"
    here = sum(path.stat().st_size for path in blobs.glob("*.partial"))
    needed = max(sum(files.get(name, 0) for name in missing) - here, 0)
    existing = next(path for path in (root(), *root().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        fact = f"its weights take {needed / 2**30:.1f} GiB more, and {root()} has {free / 2**30:.1f} GiB left"
        raise ModelError(held.model, fact, "free some, or set HF_HOME to a larger disk")


def _is_small(spec: ModelSpec, path: str) -> bool:
    """Whether a file is one that configs, tokenizers and templates are read from; code, where it may run."""
    place = PurePosixPath(path)
    if place.suffix == ".py":
        return spec.trust_remote_code
    if place.parent.name == _TEMPLATES:
        return True
    return str(place.parent) == "." and (place.suffix in _SMALL or not place.suffix)


def _no_weights(spec: ModelSpec, files: Mapping[str, int]) -> ModelError:
    return ModelError(spec.model, "has no weights that transformers would load", _what_there_is(files))


def _what_there_is(files: Mapping[str, int] | None) -> str:
    if files is None:
        return ""
    if "adapter_config.json" in files:
        return "it is an adapter: name the model that it adapts"
    held = [path for path in files if path.endswith(WEIGHTS)]
    return f"it has {', '.join(held[:3])}{' …' if len(held) > 3 else ''}" if held else "choose another model"
