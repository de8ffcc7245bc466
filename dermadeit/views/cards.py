"""HTML of the messages, the legend and the empty cards. Everything from outside is escaped here."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from dermadeit.inference.faithfulness import SaliencyCheck
from dermadeit.inference.records import Prediction
from dermadeit.views.failures import Failure

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
