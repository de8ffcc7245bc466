"""Numbers as people read them: one way to write each, for page, report, Markdown and command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

NOTHING = "–"
"""Stands where a figure is undefined or unknown."""

_SMALLEST_SHOWN = 0.01
"""Below this a number shows three digits: a learning rate would vanish behind three decimals."""


def count(number: int) -> str:
    """A whole number with its thousands apart."""
    return f"{number:,}"


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number and its noun, such as “1 image” or “2,000 images”; the plural takes an s where none is given."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def percent(share: float, decimals: int = 1) -> str:
    """A share of 1, such as “61.2 %”, kept on one line."""
    return f"{100 * share:.{decimals}f}\u00a0%"


def percent_mark(share: float) -> str:
    """A share of 1 on an axis, with no more decimals than it has."""
    return f"{round(100 * share, 6):g}\u00a0%"


def percent_span(low: float, high: float) -> str:
    """Two shares of 1, such as “61.2 to 64.0 %”."""
    return f"{100 * low:.1f} to {percent(high)}"


def points(difference: float) -> str:
    """How far two shares of 1 lie apart, in percentage points."""
    return f"{100 * abs(difference):.1f}\u00a0points"


def decimal(value: float | None, decimals: int = 3) -> str:
    """A number; the sign for none where it is None."""
    return NOTHING if value is None else f"{value:.{decimals}f}"


def signed(value: float | None) -> str:
    """A difference with its sign; the sign for none where it is None."""
    return NOTHING if value is None else f"{value:+.3f}"


def bounds(interval: Sequence[float] | None) -> str:
    """The ends of an interval in brackets; nothing where there is none."""
    return f"[{decimal(interval[0])}, {decimal(interval[1])}]" if interval else ""


def signed_bounds(interval: Sequence[float] | None) -> str:
    """The ends of the interval of a difference in brackets; nothing where there is none."""
    return f"[{signed(interval[0])}, {signed(interval[1])}]" if interval else ""


def figure(value: float | None, interval: Sequence[float] | None = None) -> str:
    """A figure with its interval, such as “0.861 [0.842, 0.879]”."""
    return f"{decimal(value)} {bounds(interval)}".rstrip()


def difference(value: float | None, interval: Sequence[float] | None = None) -> str:
    """A difference with its interval, such as “+0.003 [-0.004, +0.010]”."""
    return f"{signed(value)} {signed_bounds(interval)}".rstrip()


def rounded(value: float) -> str:
    """A number to three significant digits, never with an exponent."""
    return f"{float(f'{value:.3g}'):,.10g}"


def p_value(value: float | None) -> str:
    """A p-value to three decimals."""
    if value is None:
        return NOTHING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def megabytes(size: int) -> str:
    """A number of bytes, such as “11.1 MB”."""
    return f"{size / 1e6:.1f}\u00a0MB"


def millions(number: int) -> str:
    """A large number, such as “5.5 million”."""
    return f"{number / 1e6:.1f}\u00a0million"


def duration(seconds: float) -> str:
    """Seconds as “40 s”, “3 min 20 s” or “2 h 5 min”, rounded so that it does not flicker."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole >= 3600:
        hours, minutes = divmod(round(whole / 60), 60)
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    minutes, rest = divmod(round(whole / 10) * 10, 60)
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def any_value(value: Any) -> str:
    """A value of a result file whose kind is not known."""
    if value is None:
        return NOTHING
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return count(value)
    return decimal(value) if value == 0 or abs(value) >= _SMALLEST_SHOWN else f"{value:.3g}"


def setting(value: Any) -> str:
    """A setting of a training, exact enough to repeat it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else any_value(value) or NOTHING
