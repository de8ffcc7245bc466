"""HTML of the messages, of a heatmap's badge and legend, and of the empty cards."""

from __future__ import annotations

from dermadeit.inference.faithfulness import SaliencyCheck
from dermadeit.inference.records import Prediction
from dermadeit.reporting import names
from dermadeit.reporting.format import percent
from dermadeit.reporting.names import HEATMAP_STATES
from dermadeit.reporting.templates import render
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


def status_html(text: str) -> str:
    """A line that says what the app is doing."""
    return render("views/page/status.html", text=text)


def failure_html(failure: Failure) -> str:
    """A failure as a lasting sentence."""
    return render("views/page/failure.html", failure=failure)


def saliency_verdict(check: SaliencyCheck) -> str:
    """Whether a heatmap is reliable and why, in words."""
    return f"{HEATMAP_STATES[check_state(check)]}. {check_finding(check)}"


def check_state(check: SaliencyCheck | None) -> str:
    """What is known of a heatmap: a key of `names.HEATMAP_STATES`."""
    return "checking" if check is None else "reliable" if check.faithful else "unreliable"


def check_finding(check: SaliencyCheck | None) -> str:
    """What the test of a heatmap does, or what came of it, as a sentence."""
    if check is None:
        return "The test hides the highlighted area and measures how much the score falls."
    if check.removed_share == 0:
        return "It highlights nothing, so there is nothing to test."
    share = percent(max(0.01, check.removed_share), 0)
    if check.faithful:
        return f"Hiding the highlighted {share} lowered the score more than hiding random areas."
    return f"Hiding the highlighted {share} changed the score no more than hiding a random area."


def badge_html(check: SaliencyCheck | None) -> str:
    """The state of a heatmap, in words and with a sign of its own."""
    return render("views/page/heatmap_badge.html", state=check_state(check))


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
    return render(
        "views/page/heatmap_legend.html",
        state=check_state(check),
        finding=check_finding(check),
        method=method,
        class_name=class_name,
        of_class=of_class,
        has_outline=has_outline,
    )


def score_name(answer: Prediction) -> str:
    """What the numbers of an answer may be called."""
    return names.score_name(calibrated=answer.calibrated)
