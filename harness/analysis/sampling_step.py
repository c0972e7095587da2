"""What choosing a token costs beyond taking the most likely one: time per token against greedy.

A sampled turn and the greedy one of the same model, level of concurrency, launch and repeat are set against each other
where they were asked the same prompt, id by id (`prompt_hash`), and only over the steps that both of them made: the
k-th gap of both is a step over a context of the very same length, so that what is left is the choosing – processors,
warpers, the draw. Of a turn with m gaps in common

    sampling_step_s = (Σ first m gaps − Σ greedy's first m gaps) / m        in seconds per token

and of a launch the median over its turns: a step that something else held up is in a few of them. It may come out
below 0, where it is smaller than what turns differ by.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from harness.analysis.arrays import SETTING, Array, View, groups, view
from harness.analysis.frames import Run, once_per_run
from harness.analysis.settings import references

_Whole = npt.NDArray[np.int64]


@once_per_run
def sampling_steps(run: Run) -> Array:
    """`sampling_step_s` of every row of `Run.turns`; NaN where there is nothing to hold it against, and of greedy
    turns themselves."""
    steps: Array = np.full(len(run.turns), np.nan)
    gaps = pa.chunked_array(run.turns["itl_s"].array.__arrow_array__())
    size = np.nan_to_num(pc.list_value_length(gaps).to_numpy().astype(np.float64)).astype(np.int64)
    own, greedy = _paired(run, size)
    if len(own):
        shared = np.minimum(size[own], size[greedy])
        sums = _sums(gaps, np.concatenate([own, greedy]), np.concatenate([shared, shared]))
        steps[own] = (sums[: len(own)] - sums[len(own) :]) / shared
    return steps


def _paired(run: Run, size: _Whole) -> tuple[_Whole, _Whole]:
    """Rows of sampled turns, and of the greedy turn that each is held against."""
    held = references(run)
    timed = {keys: _timed(turns, size) for keys, turns in groups(run.turns, SETTING, view(run))}
    pairs = [np.empty((2, 0), dtype=np.int64)]
    for (model, sampling, concurrency), ours in timed.items():
        name = held.get((model, sampling), sampling)
        if name == sampling:
            continue
        greedy = timed[model, name, concurrency]
        launches, repeats = (int(greedy[axis].max(initial=0)) + 1 for axis in ("launch", "repeat"))
        own = ours.where((ours["launch"] < launches) & (ours["repeat"] < repeats))
        work, its_work = (
            (turns["asked"] * launches + turns["launch"].astype(np.int64)) * repeats + turns["repeat"].astype(np.int64)
            for turns in (own, greedy)
        )
        _, mine, its = np.intersect1d(work, its_work, assume_unique=True, return_indices=True)
        pairs.append(np.stack([own.rows[mine], greedy.rows[its]]))
    rows: _Whole = np.concatenate(pairs, axis=1)
    return rows[0], rows[1]


def _timed(turns: View, size: _Whole) -> View:
    done = turns.done
    return done.where((size[done.rows] > 0) & (done["asked"] >= 0))


def _sums(gaps: pa.ChunkedArray, rows: _Whole, count: _Whole) -> Array:
    """The sum of the first so many gaps of each row; one piece of the column is added up at a time."""
    sums: Array = np.zeros(len(rows))
    begin = 0
    for piece in gaps.chunks:
        here = np.flatnonzero((rows >= begin) & (rows < begin + len(piece)))
        running = np.concatenate([[0.0], np.cumsum(piece.values.to_numpy(zero_copy_only=False))])
        start = piece.offsets.to_numpy()[rows[here] - begin]
        sums[here] = running[start + count[here]] - running[start]
        begin += len(piece)
    return sums
