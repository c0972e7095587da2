"""Names of models and settings in a terminal's tables: broken between parameters, never within one.

`top_k=1` above `0,max_length=4` above `8` reads as a setting that nobody ran.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from rich.table import Table

from harness.report.units import printable

_WIDEST = 28
"""A name with a longer part than this is folded after all: the figures need room too."""


def stacked(name: str) -> str:
    """A name with every parameter on a line of its own, as far as it is one of parameters."""
    return re.sub(r",(?=[^,=]+=)", ",\n", printable(name))


def add_names(table: Table, header: str, names: Iterable[str]) -> None:
    """A column for names given to `stacked`, as wide as the longest of their lines."""
    longest = max((len(line) for name in names for line in stacked(str(name)).split("\n")), default=0)
    table.add_column(header, overflow="fold", no_wrap=longest <= _WIDEST)
