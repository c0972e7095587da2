"""Which of several settings are worth considering when more than one thing counts, and which of those stand out.

A row *dominates* another if it is nowhere worse and somewhere better. Rows that nobody dominates are the *front*
(Pareto): whoever chooses another row gives something away for nothing. Which row of the front is the right one is a
matter of what one wants, so three kinds stand out: the best at each single thing, and one that is *balanced*.

The balanced one gives up least where it gives up most. What a row gives up is its distance from the best value of the
front, as a share of the distance between best and worst value there; the greatest of these shares, over everything that
counts, is its drawback, and the smallest drawback wins (Chebyshev's distance from the ideal point; Yu, Management
Science 19, 1973). A row that is the worst of the front at something has a drawback of 1: it is nobody's middle.

All of this goes by the values alone. Rows that chance could have put in another order have to be told from one another
elsewhere.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.config.figures import Better

BALANCED = "balanced"

_Costs = npt.NDArray[np.float64]


def front(values: pd.DataFrame, directions: Mapping[str, Better]) -> pd.Series[bool]:
    """Whether a row is on the front, by its values in the columns of `directions`; the index is that of `values`.

    Equal rows are on it together. A row without one of the values cannot be compared: it is not on the front, and
    dominates nobody; `comparable` tells it from a row that was dominated.
    """
    costs = _costs(values, directions)
    known = ~np.isnan(costs).any(axis=1)
    found = np.zeros(len(costs), dtype=bool)
    kept = np.empty((0, costs.shape[1]))
    # In this order whoever dominates a row comes before it, and if any does, one that is on the front does.
    for row in sorted(np.flatnonzero(known), key=lambda row: tuple(costs[row])):
        better = (kept <= costs[row]).all(axis=1) & (kept < costs[row]).any(axis=1)
        if not better.any():
            found[row] = True
            kept = np.vstack([kept, costs[row]])
    return pd.Series(found, index=values.index, dtype=bool)


def comparable(values: pd.DataFrame, directions: Mapping[str, Better]) -> pd.Series[bool]:
    """Whether a row has all the values it is judged by."""
    return pd.Series(~np.isnan(_costs(values, directions)).any(axis=1), index=values.index)


def recommended(values: pd.DataFrame, directions: Mapping[str, Better]) -> dict[Hashable, tuple[str, ...]]:
    """The rows of the front that stand out, in the order of `values`, and for what: the columns that no other row is
    better in, and `BALANCED`.

    Of rows that are equally good in a column the one with the smaller drawback has it, then the one that comes first.
    Nobody is balanced where everyone is the worst of the front at something.
    """
    chosen = values[front(values, directions)]
    if chosen.empty:
        return {}
    costs = _costs(chosen, directions)
    best, worst = costs.min(axis=0), costs.max(axis=0)
    given_up = (costs - best) / np.where(worst > best, worst - best, 1)
    order = [(share.max(initial=0), share.sum()) for share in given_up]
    reasons: dict[int, list[str]] = {}
    for place, column in enumerate(directions):
        rows = np.flatnonzero(costs[:, place] == best[place]).tolist()
        reasons.setdefault(min(rows, key=lambda row: order[row]), []).append(column)
    middle = min(range(len(chosen)), key=lambda row: order[row])
    if order[middle][0] < 1:
        reasons.setdefault(middle, []).append(BALANCED)
    return {chosen.index[row]: tuple(reasons[row]) for row in sorted(reasons)}


def _costs(values: pd.DataFrame, directions: Mapping[str, Better]) -> _Costs:
    """The values as numbers of which less is better."""
    signs = [1 if better == "lower" else -1 for better in directions.values()]
    costs: _Costs = values[list(directions)].to_numpy(dtype=np.float64, na_value=np.nan) * signs
    return costs
