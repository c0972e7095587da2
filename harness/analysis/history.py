"""A history of nights as two frames: what each night was, and what it measured.

    history = read_history("results/history")
    history.nights     one row per night
    history.values     one row per night, setting and watched figure

Only the columns that are watched are read, so that a year of nights is read in seconds. Nights of an older format are
read; columns that they lack are absent. A file that cannot be read is named in a note, and the others are read. Nights
of several devices or configs stand beside each other and are never one line: `device` and `config` tell them apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from harness.analysis.arrays import SETTING
from harness.analysis.baselines import device_of, slug
from harness.analysis.columns import COLUMNS
from harness.analysis.nightly_values import ALWAYS, FORCED_COLUMNS, NEEDED, Watched, nightly_values, watched_by
from harness.analysis.nights import NIGHT_FORMAT
from harness.errors import UsageError

VERDICT = "verdict.json"
"""What the gate said of a run, in its directory beside the history."""
PAGES = ("nightly.html", "report.html")
"""The pages of a run, the one that a night is told by first."""
NIGHT_COLUMNS = (
    "night", "run_id", "path", "created_at", "device", "host", "config", "config_hash", "commit", "driver", "python",
    "torch", "transformers", "harness", "turns", "unanswered", "answer", "page",
)  # fmt: skip
_KINDS = {column.name: column.kind for column in COLUMNS}
_BROKEN = (OSError, pa.ArrowException, KeyError, TypeError, ValueError, AttributeError)
"""What reading a file that is no night file, or a damaged one, ends in."""
_SAID_OF = ("night", "figure", "model", "sampling", "concurrency")
_WORSE = ("pass", "not run", "cannot tell", "not comparable", "suspicion", "regression")
"""The gate's answers, the worst last."""
_FUTURE = pd.Timedelta(days=1)


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """Nights, oldest first."""

    nights: pd.DataFrame
    """Columns `NIGHT_COLUMNS`: `night` is its number; `device` is named as in `baselines`;
    `unanswered` counts turns that failed or were never reached; `answer` is the gate's and `page` the path of the
    night's page, absent where there is none."""
    values: pd.DataFrame
    """Columns `nightly_values.VALUE_COLUMNS`."""
    watched: Mapping[tuple[str, str], tuple[Watched, ...]]
    """What is watched of the nights of each (device, config)."""
    notes: tuple[str, ...]
    """What there is to know about the history as such; one sentence each."""


_Said = tuple[tuple[str, Any, Any, Any], str]
"""(figure, model, sampling, concurrency), each of the latter None where all are meant, and what the gate answered."""


@dataclass(frozen=True, slots=True)
class _Night:
    about: dict[str, Any]
    finished_at: pd.Timestamp | None
    watched: tuple[Watched, ...]
    strange: tuple[str, ...]
    """Rules that nobody understands."""
    due: Mapping[tuple[str, int], int]
    """How many checks each turn of the script has."""
    verdicts: Sequence[_Said]
    forced: Sequence[tuple[Any, ...]]
    """What was forced, as in `FORCED_COLUMNS` without the night."""


def read_history(
    folder: str | Path,
    *,
    config: str | None = None,
    device: str | None = None,
    since: str | None = None,
    figures: Sequence[str] = (),
) -> History:
    """The nights of a folder that are of this config, of a device whose name (`baselines.device_of`) holds this text,
    and not older than `since`: a date, or `90d` before the newest of them. `figures` are watched instead of what the
    configs' rules name.

    Raises UsageError where a figure or `since` cannot be meant.
    """
    notes: list[str] = []
    nights = [night for path in sorted(Path(folder).glob("*.parquet")) if (night := _read(path, notes)) is not None]
    nights.sort(key=lambda night: (night.about["created_at"], night.about["run_id"]))
    nights = _once(nights, notes)
    nights = _chosen(nights, config, device, since)
    watched = _watched(nights, figures, notes)
    metrics = dict.fromkeys(each.metric for seen in watched.values() for each in seen if each.metric is not None)
    nights, turns = _with_turns(nights, [*NEEDED, *metrics], notes)
    notes += _clock(nights)
    frame = pd.DataFrame([night.about for night in nights], columns=list(NIGHT_COLUMNS))
    forced = [(night.about["night"], *line) for night in nights for line in night.forced]
    likely = pd.DataFrame(forced, columns=list(FORCED_COLUMNS))
    values = nightly_values(turns, likely, frame, watched, [night.due for night in nights])
    left = turns[turns["state"].isin(["failed", "not_reached"])].groupby("night").size()
    frame["unanswered"] = frame["night"].map(left).fillna(0).astype(int)
    return History(frame, _with_verdicts(values, nights), watched, tuple(notes))


def _read(path: Path, notes: list[str]) -> _Night | None:
    """What a night file says of its run; None, and a note, where it cannot be read."""
    try:
        raw = pq.read_metadata(path)
        about = {key.decode(): value for key, value in (raw.metadata or {}).items()}
        if "night_format" not in about:
            notes.append(f"{path} is left out: it is not a night file.")
            return None
        if int(about["night_format"]) > NIGHT_FORMAT:
            told = f"night format {int(about['night_format'])}, this version reads {NIGHT_FORMAT} and older"
            notes.append(f"{path} is left out: {told} – use a matching version.")
            return None
        manifest = orjson.loads(about["manifest"])
        answer, verdicts = _verdict(path, manifest, about, notes)
        watched, strange = watched_by(manifest.get("config") or {})
        finished = manifest.get("finished_at")
        return _Night(
            about={**_about(path, manifest, raw.num_rows), "answer": answer},
            finished_at=_utc(finished) if finished else None,
            watched=watched,
            strange=strange,
            due=_checks_due(manifest["plan"]),
            verdicts=verdicts,
            forced=_forced(about),
        )
    except _BROKEN as error:
        notes.append(f"{path} is left out: it cannot be read ({_one_line(error)}) – restore it, or remove it.")
        return None


def _about(path: Path, manifest: Mapping[str, Any], turns: int) -> dict[str, Any]:
    environment = manifest["environment"]
    libraries = environment["libraries"]
    run = path.parent.parent / str(manifest["run_id"])
    return {
        "run_id": str(manifest["run_id"]),
        "path": str(path),
        "created_at": _utc(manifest["created_at"]),
        "device": device_of(environment),
        "host": environment.get("host"),
        "config": config_of(manifest),
        "config_hash": manifest.get("config_hash"),
        "commit": environment.get("git_commit"),
        "driver": environment.get("gpu_driver"),
        "python": environment.get("python"),
        "torch": libraries.get("torch"),
        "transformers": libraries.get("transformers"),
        "harness": manifest.get("harness_version"),
        "turns": turns,
        "page": next((str(run / name) for name in PAGES if (run / name).exists()), None),
    }


def config_of(manifest: Mapping[str, Any]) -> str:
    """The name of the config that a run was made from: that of its file, or its hash where there was none."""
    if manifest.get("config_name"):
        return str(manifest["config_name"])
    files = [word for word in manifest.get("command") or () if str(word).endswith((".yaml", ".yml"))]
    return Path(files[0]).stem if files else str(manifest.get("config_hash") or "unknown")[:6]


def _forced(about: Mapping[str, bytes]) -> list[tuple[Any, ...]]:
    """Every reply that was forced and how likely it was, of those of which that is known."""
    return [
        (
            *(line["cell"][name] for name in SETTING),
            hash((line["cell"]["conversation_id"], line["turn_index"], line["prompt_hash"], tuple(line["ids"]))),
            sum(line["logprobs"]) / len(line["logprobs"]),
        )
        for line in orjson.loads(about.get("forced", b"[]"))
        if line["logprobs"]
    ]


def _utc(time: str) -> pd.Timestamp:
    found = pd.Timestamp(time)
    return found.tz_localize("UTC") if found.tzinfo is None else found.tz_convert("UTC")


def _verdict(
    path: Path, manifest: Mapping[str, Any], about: Mapping[str, bytes], notes: list[str]
) -> tuple[str | None, list[_Said]]:
    """What the gate said of a night, and of each cell: beside the run, or in the night file itself."""
    beside = path.parent.parent / str(manifest["run_id"]) / VERDICT
    try:
        found = orjson.loads(beside.read_bytes() if beside.exists() else about.get("verdict", b"{}"))
        said = [
            (
                (".".join(filter(None, [each["metric"], each.get("statistic")])),
                 each.get("model"), each.get("sampling"), each.get("concurrency")),
                str(each["answer"]),
            )
            for each in found.get("verdicts", ())
        ]  # fmt: skip
        return found.get("answer"), said
    except _BROKEN as error:
        notes.append(f"{beside} cannot be read ({_one_line(error)}): that night stands without its verdict.")
        return None, []


def _once(nights: Sequence[_Night], notes: list[str]) -> list[_Night]:
    """Every run once, however many files tell of it."""
    kept: dict[str, _Night] = {}
    for night in nights:
        first = kept.setdefault(night.about["run_id"], night)
        if first is not night:
            notes.append(f"{night.about['path']} is left out: it is {first.about['path']} once more.")
    return list(kept.values())


def _clock(nights: Sequence[_Night]) -> list[str]:
    """What the clocks of the machines leave in doubt about the order."""
    notes = []
    begun = [night.about["created_at"] for night in nights]
    same = [later.about["run_id"] for earlier, later, at in zip(nights, nights[1:], begun, strict=False)
            if later.about["created_at"] == at]  # fmt: skip
    if same:
        notes.append(f"Begun at the very same time as the night before, and ordered by name: {_some(same)}.")
    back = [
        night.about["run_id"]
        for night in nights
        if night.finished_at is not None and night.finished_at < night.about["created_at"]
    ]
    if back:
        notes.append(f"The clock was set back during {_some(back)}: nights stand where they began, by that clock.")
    ahead = [night.about["run_id"] for night in nights if night.about["created_at"] > pd.Timestamp.now("UTC") + _FUTURE]
    if ahead:
        notes.append(f"Begun in the future, by this machine's clock, so the order may be wrong: {_some(ahead)}.")
    return notes


def _some(names: Sequence[str], most: int = 3) -> str:
    """The first of these names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _chosen(nights: list[_Night], config: str | None, device: str | None, since: str | None) -> list[_Night]:
    chosen = [
        night
        for night in nights
        if (config is None or night.about["config"] == config)
        and (device is None or slug(device) in night.about["device"])
    ]
    if since is None or not chosen:
        return chosen
    newest = chosen[-1].about["created_at"]
    try:
        from_ = newest - pd.Timedelta(days=int(since[:-1])) if since[-1:] == "d" else pd.Timestamp(since, tz="UTC")
    except (ValueError, OverflowError):
        raise UsageError("--since", f"{since!r} is no time", "write a date such as 2026-01-31, or 90d") from None
    return [night for night in chosen if night.about["created_at"] >= from_]


def _watched(
    nights: Sequence[_Night], figures: Sequence[str], notes: list[str]
) -> dict[tuple[str, str], tuple[Watched, ...]]:
    """Of each device and config what the rules of its newest night that has any name."""
    asked = tuple(Watched.named(name) for name in dict.fromkeys(figures))
    found: dict[tuple[str, str], tuple[Watched, ...]] = {}
    unknown: dict[tuple[str, ...], str] = {}
    for night in nights:
        line = night.about["device"], night.about["config"]
        if night.strange:
            unknown[night.strange] = night.about["run_id"]
        if asked or night.watched or line not in found:
            found[line] = asked or night.watched or found.get(line, ())
    notes += [f"{run_id} has rules that this version does not know: {', '.join(rules)}."
              for rules, run_id in unknown.items()]  # fmt: skip
    defaults = watched_by(None)[0]
    return {line: watched or defaults for line, watched in found.items()}


def _with_turns(nights: Sequence[_Night], names: Sequence[str], notes: list[str]) -> tuple[list[_Night], pd.DataFrame]:
    """The nights whose turns can be read, numbered, and their turns: `night` and the columns of these names."""
    kept: list[_Night] = []
    tables = []
    for night in nights:
        try:
            tables.append(_columns(Path(night.about["path"]), names, len(kept)))
        except _BROKEN as error:
            remedy = "restore it, or remove it"
            notes.append(f"{night.about['path']} is left out: it cannot be read ({_one_line(error)}) – {remedy}.")
            continue
        night.about["night"] = len(kept)
        kept.append(night)
    if not tables:
        return [], pd.DataFrame(columns=["night", *names])
    return kept, pa.concat_tables(tables).unify_dictionaries().to_pandas()


def _columns(path: Path, names: Iterable[str], night: int) -> pa.Table:
    """Some columns of a night file, text as dictionaries; of `ALWAYS` it has all, of the others NA where it has not.

    Raises KeyError where it lacks one of them.
    """
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        there = file.schema_arrow.names
        lacking = [name for name in ALWAYS if name not in there]
        if lacking:
            raise KeyError(f"no column {', '.join(lacking)}")
        table = file.read(columns=[name for name in names if name in there], use_threads=False)
    columns = {"night": pa.repeat(night, len(table))}
    for name in names:
        text = _KINDS[name] == "text"
        kind = pa.string() if text else pa.int64() if name in ALWAYS else pa.float64()
        values = table[name].cast(kind).combine_chunks() if name in there else pa.nulls(len(table), kind)
        columns[name] = values.dictionary_encode() if text else values
    return pa.table(columns)


def _checks_due(plan: Mapping[str, Any]) -> dict[tuple[str, int], int]:
    """How many checks each turn of the script has."""
    return {
        (talk["id"], turn): checks
        for talk in plan["conversations"]
        for turn, checks in zip(talk["turns"], talk["checks"], strict=True)
    }


def _with_verdicts(values: pd.DataFrame, nights: Sequence[_Night]) -> pd.DataFrame:
    """The values, each with what the gate said of it that night: the worst of what it said of any part of it."""
    said: dict[tuple[Any, ...], list[str]] = {}
    for night in nights:
        for where, answer in night.verdicts:
            said.setdefault((night.about["night"], *where), []).append(answer)
    answers = []
    for night, name, model, sampling, level in zip(*(values[key] for key in _SAID_OF), strict=True):
        wheres = ((model, sampling, level), (model, sampling, None), (model, None, None))
        found = [answer for where in wheres for answer in said.get((night, name, *where), ())]
        answers.append(max(found, key=_WORSE.index, default=None) if set(found) <= set(_WORSE) else None)
    return values.assign(answer=pd.Series(answers, index=values.index, dtype="string"))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
