"""The scores of a run as frames: what its scorers said of each reply, read from scores.jsonl.

    scores(run)    one row per scorer and reply, or pair of replies
    given(run)     the lines behind it; summaries are made of these (`score_summary`, `preferences`)

Of each scorer – and of each judge and voter – only the configuration that was used last counts; of two scores of the
same the later one; and none of a reply whose conversation was played again. scores.jsonl keeps all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from harness.analysis.frames import Run
from harness.analysis.lines import SCHEMA as TURNS_SCHEMA
from harness.analysis.scoring.table import SCORERS
from harness.analysis.selection import Axes
from harness.errors import StoreError
from harness.records import ScorerSetup
from harness.store import SCORES, score_blocks

Rows = npt.NDArray[np.int64]

JUDGED = ("judge_score", "judge_pass", "judge_pair")
"""Scorers whose lines are trials of a judge."""
REPLY = ("model", "sampling", "concurrency", "conversation_id", "turn_index", "launch", "repeat")
"""What names a reply within its run."""
AGAINST = ("run_id", "model", "sampling", "concurrency", "launch", "repeat")
"""What names the reply that another one was held against: the turn is the same."""
COLUMNS = {
    **dict.fromkeys(("run_id", "model", "sampling"), "string"), "concurrency": "Int64", "conversation_id": "string",
    **dict.fromkeys(("turn_index", "launch", "repeat"), "Int64"), "scorer": "string", "by": "string",
    "value": "Float64", "detail": "string", "trials": "Int64", "no_verdict": "Int64", "inconsistent": "Int64",
    **{f"against_{name}": "Int64" if name in ("concurrency", "launch", "repeat") else "string" for name in AGAINST},
}  # fmt: skip

_CELL = TURNS_SCHEMA.field("circumstances").type.field("cell").type
_REPLY = pa.struct([("cell", _CELL), ("turn_index", pa.int64()), ("attempt", pa.int64()), ("run_id", pa.string())])
_SCHEMA = pa.schema(
    [
        ("config_hash", pa.string()),
        ("reply", _REPLY),
        ("value", pa.float64()),
        ("detail", pa.string()),
        ("against", _REPLY),
        ("trial", pa.int64()),
        ("swapped", pa.bool_()),
        ("asked", pa.string()),
    ]
)
_NULLABLE = {pa.int64(): pd.Int64Dtype(), pa.string(): pd.StringDtype()}
_BLOCK = 8 * 2**20
_SETUP = b'\n{"scorer":'
"""How the line of a scorer begins; those of scores begin with config_hash."""


@dataclass(frozen=True, slots=True)
class Given:
    """What scores.jsonl holds of a run's replies as they are now."""

    setups: tuple[ScorerSetup, ...]
    """Every scorer as it was ever used, in the order of the file."""
    lines: pd.DataFrame
    """One row per score that counts: config_hash, scorer, by, row (the reply's place in `Run.turns`), other (that of
    the reply it was held against; -1 where there is none, or it is of another run), value, detail, trial, swapped,
    asked, and the columns of `AGAINST`."""

    @property
    def latest(self) -> tuple[ScorerSetup, ...]:
        """The scorers whose scores count: of each, and of who scored, as it was used last."""
        return tuple({(setup.scorer, setup.by): setup for setup in self.setups}.values())


def given(run: Run, using: Sequence[ScorerSetup] = ()) -> Given:
    """The scores of a run that count, and those that scorers about to be used gave before, whether they count or not.

    Raises StoreError where scores.jsonl holds something else.
    """
    places = _Places.of(run)
    setups: list[ScorerSetup] = []
    parts = [_laid_out(places, _SCHEMA.empty_table())]
    for block in () if run.kept else score_blocks(run.path, _BLOCK):  # a night keeps no scores
        setups += _setups(run, block)
        parts.append(_laid_out(places, _parsed(run, block)))
    table = pa.concat_tables(parts).unify_dictionaries()
    latest = {(setup.scorer, setup.by): setup for setup in setups}
    named = {setup.config_hash: setup for setup in (*latest.values(), *using)}
    counts = pc.is_in(table["config_hash"], value_set=pa.array(list(named), pa.string()))
    frame = table.filter(counts).to_pandas(types_mapper=_NULLABLE.get)
    same = ["config_hash", "row", "trial", "swapped", *(f"against_{name}" for name in AGAINST)]
    lines = frame.drop_duplicates(same, keep="last", ignore_index=True)
    for name in ("scorer", "by"):
        lines[name] = lines["config_hash"].map({key: getattr(setup, name) for key, setup in named.items()})
    return Given(tuple(setups), lines)


def _setups(run: Run, block: bytes) -> Iterator[ScorerSetup]:
    text = b"\n" + block
    at = text.find(_SETUP)
    while at >= 0:
        end = text.index(b"\n", at + 1)
        try:
            yield ScorerSetup(**orjson.loads(text[at + 1 : end]))
        except (orjson.JSONDecodeError, TypeError) as error:
            raise _unreadable(run, error) from error
        at = text.find(_SETUP, end)


def _parsed(run: Run, block: bytes) -> pa.Table:
    try:
        return pj.read_json(
            pa.BufferReader(block),
            read_options=pj.ReadOptions(block_size=len(block)),
            parse_options=pj.ParseOptions(explicit_schema=_SCHEMA, unexpected_field_behavior="ignore"),
        )
    except pa.ArrowInvalid as error:
        raise _unreadable(run, error) from error


def _unreadable(run: Run, error: Exception) -> StoreError:
    return StoreError(str(run.path / SCORES), f"holds a line that is no score: {error}", "restore it, or delete it")


def _laid_out(places: _Places, table: pa.Table) -> pa.Table:
    """The scores of replies as they are now, each with the place of its reply; names that are the same over and over as
    dictionaries, because there may be millions of lines."""
    table = table.filter(pc.is_valid(table["reply"]))
    reply, against = _flat(table, "reply"), _flat(table, "against")
    row, other = places.rows(reply), places.rows(against)
    of_this_run = against["model"].is_valid().to_numpy() & against["run_id"].is_null().to_numpy()
    now = places.now(row, reply) & (~of_this_run | places.now(other, against))
    names = {"config_hash": table["config_hash"], **{f"against_{name}": against[name] for name in AGAINST}}
    columns = {
        name: values.dictionary_encode() if pa.types.is_string(values.type) else values
        for name, values in names.items()
    }
    plain = {name: table[name] for name in ("value", "detail", "trial", "swapped", "asked")}
    found = {"row": pa.array(row, pa.int32()), "other": pa.array(np.where(of_this_run, other, -1), pa.int32())}
    return pa.table({**columns, **plain, **found}).filter(pa.array(now))


def _flat(table: pa.Table, name: str) -> pa.Table:
    """The fields of a reply's name as columns; a null where there is none."""
    reply = table[name].combine_chunks()
    cell = pc.struct_field(reply, "cell")
    columns = {field.name: pc.struct_field(cell, field.name) for field in _CELL}
    rest = {part: pc.struct_field(reply, part) for part in ("turn_index", "attempt", "run_id")}
    return pa.table({**columns, **rest})


@dataclass(frozen=True, slots=True)
class _Places:
    """Where each planned turn stands in `Run.turns`."""

    axes: Axes
    width: int
    codes: Rows
    order: Rows
    attempt: Rows

    @classmethod
    def of(cls, run: Run) -> _Places:
        axes = Axes.of(run.plan)
        width = int(run.turns["turn_index"].max()) + 1 if len(run.turns) else 1
        columns = pa.Table.from_pandas(run.turns[list(axes.named())], preserve_index=False)
        codes = axes.cells(_typed(columns)) * width + run.turns["turn_index"].to_numpy(dtype=np.int64)
        order = np.argsort(codes, kind="stable")
        return cls(axes, width, codes[order], order, run.turns["attempt"].to_numpy(dtype=np.int64, na_value=-1))

    def rows(self, replies: pa.Table) -> Rows:
        """The row of each reply; -1 for one that the plan does not know."""
        turn = pc.fill_null(replies["turn_index"], -1).to_numpy()
        cells = self.axes.cells(_typed(replies))
        wanted = np.where((cells >= 0) & (turn >= 0) & (turn < self.width), cells * self.width + turn, -1)
        at = np.minimum(np.searchsorted(self.codes, wanted), len(self.codes) - 1)
        found: Rows = np.where((wanted >= 0) & (self.codes[at] == wanted), self.order[at], -1)
        return found

    def now(self, rows: Rows, replies: pa.Table) -> npt.NDArray[np.bool_]:
        """Whether each reply is of the attempt that counts."""
        same: npt.NDArray[np.bool_] = self.attempt[rows] == pc.fill_null(replies["attempt"], -2).to_numpy()
        return (rows >= 0) & same


def _typed(replies: pa.Table) -> pa.Table:
    return replies.select([field.name for field in _CELL]).cast(pa.schema(list(_CELL)))


def scores(run: Run) -> pd.DataFrame:
    """What was made of each reply: the columns of `COLUMNS`, in the order of `Run.turns` within each scorer.

    `value` is the median of the trials of a judge that gave a verdict, `no_verdict` how many gave none, `inconsistent`
    how many preferred another reply when the order was swapped (they count as ties). A pair of replies has one row, the
    columns of `AGAINST` naming the second.
    """
    lines = given(run).lines
    judged = lines["scorer"].isin(JUDGED)
    plain = lines[~judged].assign(trials=1, no_verdict=0, inconsistent=0)
    table = pd.concat([plain, *([settled(lines[judged])] if judged.any() else [])], ignore_index=True)
    table["place"] = pd.Index(list(SCORERS)).get_indexer(pd.Index(table["scorer"].astype("string")))
    table = table.sort_values(["place", "by", "row"], kind="stable", ignore_index=True)
    names = run.turns.loc[table["row"].to_numpy(), list(REPLY)].reset_index(drop=True)
    values = {"run_id": run.run_id, **{name: names[name] for name in REPLY}}
    return pd.DataFrame(
        {
            name: pd.Series(values.get(name, table.get(name)), index=table.index, dtype=dtype)
            for name, dtype in COLUMNS.items()
        }
    )


def settled(lines: pd.DataFrame) -> pd.DataFrame:
    """A judge's trials as one row each reply or pair: both orders of a trial have to agree, then the median counts."""
    pair = ["config_hash", "scorer", "by", "row", "other", *(f"against_{name}" for name in AGAINST)]
    texts = [name for name in pair if isinstance(lines[name].dtype, pd.CategoricalDtype)]
    lines = lines.astype(dict.fromkeys(texts, "string"))
    orders = lines.groupby([*pair, "trial"], dropna=False, sort=False)["value"].agg(["min", "max", "count", "size"])
    agree = orders["min"] == orders["max"]
    complete = (orders["count"] == orders["size"]) & (
        (orders["size"] == 2) | (orders.index.get_level_values("scorer") != "judge_pair")
    )
    trial = pd.DataFrame(
        {
            "value": orders["min"].where(agree, 0.5).where(complete),
            "inconsistent": (complete & ~agree).astype("int64"),
            "no_verdict": (~complete).astype("int64"),
        }
    )
    by_pair = trial.groupby(level=pair, dropna=False, sort=False)
    settled = by_pair.agg(
        value=("value", "median"),
        trials=("value", "size"),
        no_verdict=("no_verdict", "sum"),
        inconsistent=("inconsistent", "sum"),
    )
    said = lines.groupby(pair, dropna=False, sort=False)["detail"].first()
    return settled.assign(detail=said).reset_index()
