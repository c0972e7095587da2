"""What a model said, where a file format would take it for something else.

Everything in a table may be foreign: replies, error messages, labels. Each format has its own way of reading text as
orders, and so its own way of keeping text text.
"""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

from harness.report.units import printable

_FORMULA = "^[=+\\-@\t\r\n＝＋－＠']"
"""How a cell begins that a spreadsheet computes (OWASP, *CSV Injection*), and the sign that marks one as text."""
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "`": r"\textasciigrave{}", "'": r"\textquotesingle{}", '"': r"\textquotedbl{}", "-": r"-{}",
}  # fmt: skip
"""The special characters, and those that an old font encoding shows as others or joins (`--` is a dash)."""
_SPECIAL = re.compile("[" + re.escape("".join(_LATEX)) + "]")


def no_formula(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """The texts, with an apostrophe before those that a spreadsheet would compute – and before those that begin with
    one, so that taking a leading apostrophe away gives exactly the text back."""
    begins = pc.match_substring_regex(texts, _FORMULA)
    sign = pa.scalar("'", texts.type)
    marked = pc.binary_join_element_wise(sign, texts, pa.scalar("", texts.type))
    return pc.if_else(begins, marked, texts)


def latex(text: str) -> str:
    """The text in a cell of a LaTeX table: one line, in which nothing means anything."""
    line = " ".join(printable(text).split())
    return _SPECIAL.sub(lambda found: _LATEX[found[0]], line)
