"""results/: the only writer and the only reader of runs.

    results/<run_id>/
      manifest.json     what was asked, on what machine, what each launch loaded; replaced atomically
      turns.jsonl       one line per turn, flushed per turn, synced to disk per conversation: the truth
      samples.jsonl     one line per look of the background sampler, where one was asked for
      scores.jsonl      what was made of the replies afterwards: scorers as they were used, and their scores
      forced.jsonl      how likely given replies were, where such a pass was made
      workers.log       what the worker processes wrote to stderr

A process that is killed can only leave an unfinished last line. It is cut off when the run is opened again, and
counted in the manifest. The conversation is the unit that is redone: turns of an attempt that never came to its end
stay in the file and count nowhere (`settled`).
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import orjson
from filelock import FileLock, Timeout

from harness.errors import StoreError
from harness.forced import ForcedReply
from harness.records import (
    FORMAT,
    READABLE,
    Cell,
    Roofline,
    Sample,
    Score,
    ScorerSetup,
    TurnRecord,
    decode,
    decode_sample,
)

MANIFEST = "manifest.json"
TURNS = "turns.jsonl"
SAMPLES = "samples.jsonl"
SCORES = "scores.jsonl"
FORCED = "forced.jsonl"
WORKERS_LOG = "workers.log"
_LOCK = ".lock"

_ROOM_NEEDED_BYTES = 32 * 1024 * 1024
"""A run does not start on a disk with less: a thousand turns with transcripts and stamps take about 2 MB."""


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run as it lies on the disk."""

    path: Path
    manifest: Mapping[str, Any]
    records: tuple[TurnRecord, ...]

    @property
    def run_id(self) -> str:
        return str(self.manifest["run_id"])


class RunWriter:
    """The one writer of a run. Holds a lock, so that two processes cannot write to one run."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        self._lock = FileLock(path / _LOCK, timeout=0)
        try:
            self._lock.acquire()
            self._file = (path / TURNS).open("ab", buffering=0)
        except Timeout:
            raise StoreError(str(path), "another process is writing to this run", "wait for it, or stop it") from None
        except OSError as error:
            self._lock.release()
            raise _unwritable(path, error) from error

    def append(self, record: TurnRecord) -> None:
        """Write one line, all or nothing as far as the operating system allows.

        Raises StoreError when the disk is full; what was written before is complete.
        """
        self._guarded(lambda: _append(self._file, orjson.dumps(record) + b"\n"))

    def append_samples(self, samples: Sequence[Sample]) -> None:
        """Write a line for each sample. Raises StoreError when the disk is full."""

        def write() -> None:
            with (self.path / SAMPLES).open("ab") as file:
                file.write(b"".join(orjson.dumps(sample) + b"\n" for sample in samples))

        self._guarded(write)

    def append_forced(self, forced: ForcedReply) -> None:
        """Write one line. Raises StoreError when the disk is full."""

        def write() -> None:
            with (self.path / FORCED).open("ab") as file:
                file.write(orjson.dumps(forced) + b"\n")

        self._guarded(write)

    def sync(self) -> None:
        """Make sure that what was appended survives a power cut."""
        self._guarded(lambda: os.fsync(self._file.fileno()))

    def save_manifest(self) -> None:
        """Replace manifest.json in one step."""
        text = orjson.dumps(self.manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS, default=str)
        self._guarded(lambda: replace_file(self.path / MANIFEST, text + b"\n"))

    def close(self) -> None:
        self._file.close()
        self._lock.release()

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _guarded(self, write: Callable[[], object]) -> None:
        try:
            write()
        except OSError as error:
            raise _unwritable(self.path, error) from error


class ScoreWriter:
    """The one writer of what a run's replies were scored. Holds the run's lock; a torn last line is cut off."""

    def __init__(self, path: Path) -> None:
        self._path = path / SCORES
        self._lock = FileLock(path / _LOCK, timeout=0)
        try:
            self._lock.acquire()
            _cut_torn_tail(self._path)
            self._file = self._path.open("ab", buffering=0)
        except Timeout:
            raise StoreError(str(path), "another process is writing to this run", "wait for it, or stop it") from None
        except OSError as error:
            self._lock.release()
            raise _unwritable(self._path, error, "score a copy in a place that can") from error

    def append(self, lines: Iterable[ScorerSetup | Score]) -> None:
        """Write a line for each. Raises StoreError when the disk is full; what was written before is complete."""
        text = b"".join(orjson.dumps(line, default=str) + b"\n" for line in lines)
        try:
            _append(self._file, text)
        except OSError as error:
            raise _unwritable(self._path, error, "score a copy in a place that can") from error

    def close(self) -> None:
        self._file.close()
        self._lock.release()

    def __enter__(self) -> ScoreWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def create(results: Path, run_id: str, manifest: Mapping[str, Any]) -> RunWriter:
    """Make the directory of a new run with its manifest, before anything expensive happens.

    Raises StoreError if it exists, cannot be written, or the disk is nearly full.
    """
    path = results / run_id
    try:
        path.mkdir(parents=True)
        free = shutil.disk_usage(path).free
    except FileExistsError:
        raise StoreError(str(path), "exists already", "choose another --run-id, or --resume it") from None
    except OSError as error:
        raise _unwritable(path, error) from error
    if free < _ROOM_NEEDED_BYTES:
        path.rmdir()
        raise StoreError(str(results), f"only {free} bytes free on this disk", "free some, or choose another --results")
    writer = RunWriter(path, {"format": FORMAT, "run_id": run_id, **manifest})
    try:
        writer.save_manifest()
    except BaseException:  # nothing of a run exists yet
        writer.close()
        shutil.rmtree(path)
        raise
    return writer


def reopen(path: Path) -> tuple[RunWriter, tuple[TurnRecord, ...]]:
    """Open a run to go on with it: cut a torn last line, and give back what is already there."""
    writer = RunWriter(path, dict(read_manifest(path)))
    try:
        if _cut_torn_tail(path / TURNS):
            writer.manifest["torn_lines"] = int(writer.manifest.get("torn_lines", 0)) + 1
            writer.save_manifest()
        _cut_torn_tail(path / SAMPLES)
        _cut_torn_tail(path / FORCED)
        return writer, _read_turns(path / TURNS)
    except StoreError:
        writer.close()
        raise


def read(path: Path) -> StoredRun:
    """A run, complete or not; a torn last line is left out. Raises StoreError where it is not a run."""
    return StoredRun(path, read_manifest(path), _read_turns(path / TURNS))


def blocks(path: Path, size: int) -> Iterator[bytes]:
    """The lines of turns.jsonl in the format of today, some at a time: `size` bytes and what the line they end
    in has left; a torn last line is left out. Raises StoreError where the file cannot be read."""
    if read_manifest(path)["format"] != FORMAT:
        yield from filter(None, [b"".join(orjson.dumps(record) + b"\n" for record in _read_turns(path / TURNS))])
        return
    yield from _blocks(path / TURNS, size)


def score_blocks(path: Path, size: int) -> Iterator[bytes]:
    """The lines of scores.jsonl as `blocks` has those of turns.jsonl; none where nothing was scored."""
    yield from _blocks(path / SCORES, size)


def _blocks(path: Path, size: int) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while text := file.read(size) + file.readline():
                whole = text if text.endswith(b"\n") else text[: text.rfind(b"\n") + 1]
                if whole:
                    yield whole
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(str(path), f"cannot be read: {error}") from error


def read_samples(path: Path) -> tuple[Sample, ...]:
    """What the background sampler of a run saw, a torn last line left out; nothing where there was no sampler.

    Raises StoreError where the file holds something else.
    """
    file = path / SAMPLES
    lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
    try:
        return tuple(decode_sample(orjson.loads(line)) for line in lines)
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise StoreError(str(file), f"holds a line that is no sample: {error}", "restore it, or delete it") from error


def read_forced(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's forced.jsonl, a torn last line left out; none where there was no such pass.

    Raises StoreError where the file holds something else.
    """
    file = path / FORCED
    try:
        return [orjson.loads(line) for line in b"".join(_blocks(file, 2**20)).splitlines()]
    except orjson.JSONDecodeError as error:
        raise StoreError(str(file), f"holds a line that is not JSON: {error}", "restore it, or delete it") from error


def read_manifest(path: Path) -> Mapping[str, Any]:
    """Raises StoreError where there is no manifest, or one this version cannot read."""
    try:
        manifest = orjson.loads((path / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise StoreError(
            str(path), f"not a run: no {MANIFEST}", "give the directory that `harness run` printed"
        ) from None
    except (OSError, orjson.JSONDecodeError) as error:
        raise StoreError(str(path / MANIFEST), f"cannot be read: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") not in READABLE:
        found = manifest.get("format") if isinstance(manifest, dict) else None
        readable = " and ".join(map(str, READABLE))
        raise StoreError(
            str(path / MANIFEST), f"format {found}, this version reads {readable}", "use a matching version"
        )
    return manifest


def rooflines(manifest: Mapping[str, Any]) -> Mapping[tuple[str, int], Roofline]:
    """The ceilings of each (model label, launch) that has any."""
    return {
        (entry["model"], entry["launch"]): Roofline(**entry["roofline"])
        for entry in manifest["launches"]
        if entry.get("roofline")
    }


def find_run(named: Path, results: Path) -> Path:
    """The directory of a run that was named by its path, or by its name in a results directory."""
    return results / named if not (named / MANIFEST).exists() and (results / named / MANIFEST).exists() else named


def runs(results: Path) -> list[Path]:
    """The runs in a results directory, oldest first by name."""
    return sorted(path.parent for path in results.glob(f"*/{MANIFEST}"))


def settled(
    records: Iterable[TurnRecord], planned: Mapping[str, Sequence[int]], on_overflow: str
) -> dict[Cell, list[TurnRecord]]:
    """The turns that count: for each cell the measured turns of its latest complete attempt, in order.

    `planned` tells which turn indexes each conversation generates. An attempt is complete when its conversation came
    to an end: every planned turn is there, or a turn failed, or `on_overflow: stop` ended it. A cell without a
    complete attempt is not in the result.
    """
    attempts: dict[tuple[Cell, int], list[TurnRecord]] = {}
    for record in records:
        if record.circumstances.phase == "measure":
            attempts.setdefault((record.circumstances.cell, record.circumstances.attempt), []).append(record)
    complete: dict[Cell, list[TurnRecord]] = {}
    for (cell, _), turns in sorted(attempts.items(), key=lambda item: item[0][1]):
        if _came_to_an_end(turns, planned[cell.conversation_id], on_overflow):
            complete[cell] = turns
    return complete


def _came_to_an_end(turns: Sequence[TurnRecord], planned: Sequence[int], on_overflow: str) -> bool:
    last = turns[-1]
    overflowed = on_overflow == "stop" and last.finish_reason in ("max_length", "context")
    return last.failure is not None or overflowed or [turn.turn_index for turn in turns] == list(planned)


def next_attempts(records: Iterable[TurnRecord]) -> dict[Cell, int]:
    """The number of the next attempt at each cell that was tried at all; every other cell's is 0."""
    numbers: dict[Cell, int] = {}
    for record in records:
        circumstances = record.circumstances
        if circumstances.phase == "measure":
            numbers[circumstances.cell] = max(numbers.get(circumstances.cell, 0), circumstances.attempt + 1)
    return numbers


def _read_turns(path: Path) -> tuple[TurnRecord, ...]:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise StoreError(str(path), f"cannot be read: {error}") from error
    lines = text.split(b"\n")[:-1]  # what follows the last newline is a torn line
    return tuple(_decode_line(path, number, line) for number, line in enumerate(lines, start=1))


def _decode_line(path: Path, number: int, line: bytes) -> TurnRecord:
    try:
        return decode(orjson.loads(line))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"{path}:{number}:1", f"not a turn record: {error}", "restore the file from a backup"
        ) from error


def _cut_torn_tail(path: Path) -> bool:
    text = path.read_bytes() if path.exists() else b""
    end = text.rfind(b"\n") + 1
    if end == len(text):
        return False
    with path.open("r+b") as file:
        file.truncate(end)
    return True


def _append(file: FileIO, text: bytes) -> None:
    line, written = memoryview(text), 0
    while written < len(line):  # an unbuffered write may take only a part, on a nearly full disk
        written += file.write(line[written:])


def replace_file(path: Path, text: bytes) -> None:
    """Write a file in one step: it is the old or the new one, whatever happens."""
    beside = path.with_suffix(".tmp")
    with beside.open("wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def _unwritable(path: Path, error: OSError, remedy: str = "choose another --results") -> StoreError:
    if error.errno == errno.ENOSPC:
        again = "the same command again" if path.name == SCORES else f"harness run --resume {path}"
        return StoreError(str(path), "the disk is full", f"free some space, then: {again}")
    return StoreError(str(path), f"cannot be written: {error.strerror or error}", remedy)
