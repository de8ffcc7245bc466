"""HTML of headings and messages, and of a heatmap's badge and legend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from dermadeit.inference.faithfulness import SaliencyCheck
from dermadeit.inference.records import Prediction
from dermadeit.reporting import names
from dermadeit.reporting.format import percent
from dermadeit.reporting.names import HEATMAP_STATES
from dermadeit.reporting.templates import render
from dermadeit.views.page.failures import Failure

NO_READING = "There is no photo, or its result has expired. Choose a photo."


def heading_html(title: str, text: str = "", kind: Literal["", "small", "part"] = "") -> str:
    """The title of a part of a page, and below it what to know of the part.

    Args:
        title: The title.
        text: A sentence or two; empty for none.
        kind: How the title looks: as that of a card, smaller, or as that of a part with cards.
    """
    return render("views/page/heading.html", title=title, text=text, kind=kind)


def contents_html(parts: Mapping[str, str]) -> str:
    """Links to the parts of a long tab.

    Args:
        parts: Id of each part on the page to its name.
    """
    return render("views/page/contents.html", parts=parts)


def note_html(text: str) -> str:
    """A quiet paragraph."""
    return render("views/page/note.html", text=text)


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
