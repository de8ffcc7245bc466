"""Tables of figures as HTML. Cells are given as HTML, so whoever fills them escapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from dermadeit.evaluation.comparison import Difference

NOTHING = "–"
"""Stands where a figure is undefined or unknown."""


def table_html(
    caption: str,
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    heads: int = 1,
    titled: bool = True,
) -> str:
    """A table that scrolls sideways by itself where the screen is narrow.

    Args:
        caption: What the table shows, as plain text; read out with it.
        header: Column names, as plain text.
        rows: Cells as HTML, each row as long as the header.
        heads: Leading cells of a row that name it.
        titled: Whether the caption is shown above it.
    """
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "".join(f"<tr>{_row_html(row, heads)}</tr>" for row in rows)
    # What scrolls must be reachable by keyboard, and what can be reached needs a name. The title stands outside,
    # since a caption would be as wide as the table and be cut off with it.
    title = escape(caption)
    shown = f'<p class="dd-caption">{title}</p>' if titled else ""
    return f"""
{shown}
<div class="dd-scroll" role="region" tabindex="0" aria-label="{title}">
  <table class="dd-table"><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table>
</div>"""


def figure_cell(figures: Mapping[str, Any], name: str) -> str:
    """A figure to three decimals with its interval, as `predictions.Measurement.to_dict` gives them."""
    value = figures.get(name)
    if value is None:
        return NOTHING
    return f"{value:.3f}{_interval(figures.get('intervals', {}).get(name), '.3f')}"


def difference_cell(difference: Difference) -> str:
    """A difference with its interval; marked only where that excludes 0."""
    if difference.difference is None:
        return NOTHING
    text = f"{difference.difference:+.3f}{_interval(difference.interval, '+.3f')}"
    return f'<strong class="dd-apart">{text}</strong>' if difference.excludes_zero else text


def p_value_cell(p_value: float | None) -> str:
    """A p-value to three decimals."""
    if p_value is None:
        return NOTHING
    return "&lt;\u00a00.001" if p_value < 0.001 else f"{p_value:.3f}"


def plain_number(value: float | None, decimals: int = 3) -> str:
    """A number, or the sign for none."""
    return NOTHING if value is None else f"{value:.{decimals}f}"


def _interval(bounds: Sequence[float] | None, form: str) -> str:
    if not bounds:
        return ""
    return f' <span class="dd-interval">[{bounds[0]:{form}}, {bounds[1]:{form}}]</span>'


def _row_html(cells: Sequence[str], heads: int) -> str:
    named = "".join(f'<th scope="row">{cell}</th>' for cell in cells[:heads])
    return named + "".join(f"<td>{cell}</td>" for cell in cells[heads:])
