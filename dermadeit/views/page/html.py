"""HTML of the messages, the legend and the empty cards. Everything from outside is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from dermadeit.evaluation.comparison import Difference
from dermadeit.inference.faithfulness import SaliencyCheck
from dermadeit.inference.records import Prediction
from dermadeit.views.page.failures import Failure

NO_READING = "There is no photo, or its reading has expired. Choose a photo."

EMPTY_RESULT = """
<div class="dd-card dd-empty">
  <h2>Result</h2>
  <p class="dd-empty-title">No photo yet</p>
  <p>Choose a photo or an example. The label appears here first, the heatmap below it a moment later.</p>
</div>"""

READING_RESULT = """
<div class="dd-card dd-empty">
  <h2>Result</h2>
  <p class="dd-empty-title">Reading the photo …</p>
  <p>The result of the previous photo has been cleared.</p>
</div>"""

FAILED_RESULT = """
<div class="dd-card dd-empty">
  <h2>Result</h2>
  <p class="dd-empty-title">No result</p>
  <p>The reason is given above. Any earlier result has been cleared.</p>
</div>"""

EMPTY_CHECK = """
<div class="dd-check">
  <h2>Image check</h2>
  <p class="dd-quiet">Sharpness, exposure, size, fingerprint and what the decoder did to the pixels, once there is
  a photo.</p>
</div>"""

WITHHELD_LEGEND = """
<div class="dd-legend" data-check="withheld">
  <p class="dd-check-verdict">No heatmap, because the answer is withheld. Choose a class to see one all the
  same.</p>
</div>"""


def percent(share: float) -> str:
    """A share of 1 with one decimal, such as “61.2 %”, kept on one line."""
    return f"{share * 100:.1f}\u00a0%"


def status_html(text: str) -> str:
    """A line that says what the app is doing."""
    return f'<p class="dd-status">{escape(text)}</p>'


def failure_html(failure: Failure) -> str:
    """A failure as a lasting sentence."""
    return (
        f'<div class="dd-failure" data-code="{escape(failure.code)}">'
        f"<strong>This did not work.</strong> {escape(failure.message)}</div>"
    )


def notes_html(title: str, notes: Iterable[str], extra_class: str = "") -> str:
    """Sentences that a reader must not miss, under a title; nothing without any."""
    lines = "".join(f"<li>{escape(note)}</li>" for note in notes)
    classes = f"dd-warnings {extra_class}".strip()
    return f'<div class="{classes}"><strong>{escape(title)}</strong><ul>{lines}</ul></div>' if lines else ""


def saliency_verdict(check: SaliencyCheck | None) -> str:
    """Whether a heatmap can be believed, as a sentence."""
    if check is None:
        return "Whether this heatmap can be believed has not been checked yet."
    opening = "Checked" if check.faithful else "Not shown to be right, so it is greyed out"
    than = "filling" if check.faithful else "filling some of"
    return (
        f"{opening}: filling the marked {percent(check.removed_share)} of the photo from its surroundings "
        f"lowers the score {'more' if check.faithful else 'no more'} than {than} {len(check.random_drops)} "
        "areas of the same shape elsewhere."
    )


def legend_html(check: SaliencyCheck | None, *, of_class: bool = True) -> str:
    """What the colours of a heatmap mean, and whether it can be believed.

    Args:
        check: What came of the check; None before it was done.
        of_class: Whether the class has a part in the map, which it has not in attention rollout.
    """
    state = "unchecked" if check is None else "faithful" if check.faithful else "unfaithful"
    same = "" if of_class else " The map is the same for every class; the check is about the chosen one."
    return f"""
<div class="dd-legend" data-check="{state}">
  <p class="dd-scale"><span>low</span><span class="dd-ramp" aria-hidden="true"></span><span>high</span></p>
  <p class="dd-check-verdict">{escape(saliency_verdict(check) + same)}</p>
  <p class="dd-quiet">A heatmap shows where the score comes from, not whether it is right.</p>
</div>"""


def score_name(answer: Prediction) -> str:
    """What the numbers of an answer may be called."""
    return "Probability" if answer.calibrated else "Model score"


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
