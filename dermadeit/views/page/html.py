"""HTML of the messages, the legend and the empty cards. Everything from outside is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from dermadeit.evaluation.comparison import Difference
from dermadeit.inference.faithfulness import SaliencyCheck
from dermadeit.inference.records import Prediction
from dermadeit.reporting import names
from dermadeit.reporting.format import NOTHING
from dermadeit.views.page.failures import Failure

NO_READING = "There is no photo, or its result has expired. Choose a photo."

EMPTY_RESULT = """
<div class="dd-card dd-empty">
  <h2>Result</h2>
  <p class="dd-empty-title">No photo yet</p>
  <p>Choose a photo or an example. The answer appears here first. The heatmap follows below it.</p>
</div>"""

READING_RESULT = """
<div class="dd-card dd-empty">
  <h2>Result</h2>
  <p class="dd-empty-title">Reading the photo …</p>
  <p>The result of the previous photo has been removed.</p>
</div>"""

FAILED_RESULT = """
<div class="dd-card dd-empty">
  <h2>Result</h2>
  <p class="dd-empty-title">No result</p>
  <p>The reason is shown above. Any earlier result has been removed.</p>
</div>"""

EMPTY_CHECK = """
<div class="dd-check">
  <h2>Image check</h2>
  <p class="dd-quiet">Choose a photo to see its sharpness, exposure and size, and how it was converted.</p>
</div>"""

NO_LEGEND = """
<div class="dd-legend" data-check="none">
  <p class="dd-quiet">The heatmap shows which areas of the photo the score comes from.</p>
</div>"""

STOPPED_LEGEND = """
<div class="dd-legend" data-check="none">
  <p class="dd-check-verdict">No heatmap: it was stopped before its test. Choose a class to draw one.</p>
</div>"""

WITHHELD_LEGEND = """
<div class="dd-legend" data-check="withheld">
  <p class="dd-check-verdict">No heatmap, because the answer is withheld. Choose a class to see one.</p>
</div>"""


_BADGES = {
    "checking": ("Checking the heatmap", '<path d="M8 4.5V8l2.5 1.5"/>'),
    "reliable": ("Reliable heatmap", '<path d="m4.8 8.3 2.2 2.2 4.2-4.6"/>'),
    "unreliable": ("Unreliable heatmap", '<path d="M8 4.3v4.4M8 11.3v.4"/>'),
}


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


def saliency_verdict(check: SaliencyCheck) -> str:
    """Whether a heatmap is reliable and why, in words."""
    return f"{_BADGES[check_state(check)][0]}. {check_finding(check)}"


def check_state(check: SaliencyCheck | None) -> str:
    """`checking`, `reliable` or `unreliable`: what is known of a heatmap."""
    return "checking" if check is None else "reliable" if check.faithful else "unreliable"


def check_finding(check: SaliencyCheck | None) -> str:
    """What the test of a heatmap does, or what came of it, as a sentence."""
    if check is None:
        return "The test hides the highlighted area and measures how much the score falls."
    if check.removed_share == 0:
        return "It highlights nothing, so there is nothing to test."
    share = f"{max(1, round(check.removed_share * 100))}\u00a0%"
    if check.faithful:
        return f"Hiding the highlighted {share} lowered the score more than hiding random areas."
    return f"Hiding the highlighted {share} changed the score no more than hiding a random area."


def badge_html(check: SaliencyCheck | None) -> str:
    """The state of a heatmap, in words and with a sign of its own."""
    state = check_state(check)
    text, sign = _BADGES[state]
    return (
        f'<span class="dd-badge" data-state="{state}"><svg viewBox="0 0 16 16" aria-hidden="true">{sign}</svg>'
        f"{text}</span>"
    )


def legend_html(
    check: SaliencyCheck | None, method: str, class_name: str, *, of_class: bool, has_outline: bool
) -> str:
    """What the colours and the line of the heatmap that is shown mean, and whether it is reliable.

    Args:
        check: What came of the test; None while it is being done.
        method: Name of the method.
        class_name: Name of the class.
        of_class: Whether the class has a part in the map, which it has not in attention rollout.
        has_outline: Whether an area is outlined, which it is unless the map marks nothing.
    """
    about = f"{method} for {class_name}" if of_class else f"{method}, the same for every class"
    finding = check_finding(check)
    if not of_class:
        finding += f" The test is about {class_name}."
    least, most = (
        ("least important", "most important") if of_class else ("little attention", "much attention")
    )
    outline = (
        '<p class="dd-key"><span class="dd-outline" aria-hidden="true"></span>Outlined: the highlighted area, '
        "which the test hides</p>"
        if has_outline
        else ""
    )
    return f"""
<div class="dd-legend" data-check="{check_state(check)}">
  <p class="dd-legend-title">{escape(about)}</p>
  <p class="dd-scale"><span>{least}</span><span class="dd-ramp" aria-hidden="true"></span><span>{most}</span></p>
  {outline}
  <p class="dd-check-verdict"><strong>{_BADGES[check_state(check)][0]}.</strong> {escape(finding)}</p>
  <p class="dd-quiet">A heatmap shows where the score comes from, not whether it is right.</p>
</div>"""


def score_name(answer: Prediction) -> str:
    """What the numbers of an answer may be called."""
    return names.score_name(calibrated=answer.calibrated)


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


def _interval(bounds: Sequence[float] | None, form: str) -> str:
    if not bounds:
        return ""
    return f' <span class="dd-interval">[{bounds[0]:{form}}, {bounds[1]:{form}}]</span>'


def _row_html(cells: Sequence[str], heads: int) -> str:
    named = "".join(f'<th scope="row">{cell}</th>' for cell in cells[:heads])
    return named + "".join(f"<td>{cell}</td>" for cell in cells[heads:])
