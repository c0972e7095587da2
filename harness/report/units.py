"""Numbers as people read them. Absent is a dash; nothing here computes anything but units."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable
from typing import Any

import pandas as pd

ABSENT = "–"
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
"""Unicode categories that do not show: controls (escape sequences!), bidirectional overrides, separators of lines."""
_JOINERS = "\u200c\u200d"
"""They do not show either, but shape Persian, Indic scripts and emoji, and hide nothing."""


def number(value: Any) -> str:
    """Three significant digits, no exponent: 0.0123, 1.23, 12.3, 123, 1234."""
    if pd.isna(value):
        return ABSENT
    if value == 0:
        return "0"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{value:.{max(0, digits)}f}"


def ms(seconds: Any) -> str:
    """Seconds as milliseconds."""
    return ABSENT if pd.isna(seconds) else number(1000 * seconds)


def percent(rate: Any) -> str:
    """A rate as whole per cent; what is not quite none or all is never shown as none or all."""
    if pd.isna(rate):
        return ABSENT
    shown = f"{100 * rate:.0f}"
    if rate > 0 and shown == "0":
        return "<1 %"
    if rate < 1 and shown == "100":
        return ">99 %"
    return f"{shown} %"


def share(rate: Any) -> str:
    """A rate as per cent with three digits, for what is small."""
    return ABSENT if pd.isna(rate) else f"{number(100 * rate)} %"


def mib(size: Any) -> str:
    """Bytes as a number of MiB."""
    return ABSENT if pd.isna(size) else number(size / 2**20)


def memory(size: Any) -> str:
    """Bytes as MiB or GiB."""
    if pd.isna(size):
        return ABSENT
    return f"{number(size / 2**30)} GiB" if size >= 2**30 else f"{number(size / 2**20)} MiB"


def count(value: Any) -> str:
    """A whole number, or a median of whole numbers."""
    return ABSENT if pd.isna(value) else f"{float(value):g}"


def interval(low: Any, high: Any, shown: Callable[[Any], str]) -> str:
    """`low–high`, or nothing where there is no interval; `shown` formats each end."""
    return "" if pd.isna(low) or pd.isna(high) else f"{shown(low)}–{shown(high)}"


def percents(low: Any, high: Any) -> str:
    """An interval of rates in whole per cent, rounded outwards, or nothing."""
    return "" if pd.isna(low) or pd.isna(high) else f"{math.floor(100 * low)}–{math.ceil(100 * high)} %"


def printable(text: str) -> str:
    """The text with everything that does not show written out (`\\x1b`), so that no model output can drive a terminal
    or reorder a line. Line ends and tabs stay, as line feeds and tabs."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(
        character
        if character in "\n\t" or unicodedata.category(character) not in _INVISIBLE or character in _JOINERS
        else character.encode("unicode_escape").decode()
        for character in lines
    )
