"""Names in a terminal's tables are broken between parameters, never within one."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.report.names import add_names, stacked


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("top_k=10,max_length=128", "top_k=10,\nmax_length=128"),
        ("greedy", "greedy"),
        ("sampled,top_k=5", "sampled,\ntop_k=5"),
        ("eos_token_id=[2,3],top_k=5", "eos_token_id=[2,3],\ntop_k=5"),
        ("a,b", "a,b"),
        ("\x1b[2J", "\\x1b[2J"),
    ],
)
def test_every_parameter_of_a_name_has_a_line(name: str, shown: str) -> None:
    assert stacked(name) == shown


def test_in_a_narrow_table_figures_give_way_and_names_stay_whole() -> None:
    names = ["top_k=10,max_length=128", "top_k=50,max_length=48"]
    table = Table(box=None)
    add_names(table, "sampling", names)
    table.add_column("a header of many words")
    table.add_column("and another one of as many words")
    for name in names:
        table.add_row(Text(stacked(name)), "1", "2")
    console = Console(file=StringIO(), width=40)

    console.print(table)

    assert isinstance(console.file, StringIO)
    lines = [line.strip().split(" ")[0] for line in console.file.getvalue().splitlines()]
    assert {"top_k=10,", "max_length=128", "top_k=50,", "max_length=48"} <= set(lines)
