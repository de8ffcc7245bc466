"""One photo read by several models as HTML: a card for each, and how far they agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from markupsafe import Markup

from dermadeit.imaging.decode import LesionImage
from dermadeit.inference.decision import OPERATING_POINT_TITLES
from dermadeit.inference.faithfulness import outline_removed_area
from dermadeit.inference.records import ABSTAIN
from dermadeit.inference.saliency import DEFAULT_OPACITY
from dermadeit.inference.side_by_side import SCALE_NOTE, Agreement, ModelReading
from dermadeit.inference.zoo import ZooEntry
from dermadeit.models.checkpoints import training_command
from dermadeit.publishing.benchmark import is_published
from dermadeit.reporting.format import counted, decimal, megabytes, millions, percent
from dermadeit.reporting.names import WITHHELD, capitalised, is_conditional
from dermadeit.reporting.templates import render
from dermadeit.tasks import Task
from dermadeit.trust.calibration import OPERATING_POINTS
from dermadeit.trust.gating import STATE_WORDS, answer_state, warning_sentences
from dermadeit.views.comparison.teacher import teacher_card_html
from dermadeit.views.page.failures import Failure
from dermadeit.views.page.html import badge_html, check_finding, check_state, score_name
from dermadeit.views.page.pictures import webp_address

OWN_ANSWER = "answer"
"""Choice of the heatmaps: what each model answers, instead of one class for all."""

POINT_TITLES: Mapping[str, str] = MappingProxyType(
    {key: title for key, title in OPERATING_POINT_TITLES.items() if key in OPERATING_POINTS}
)
"""Each operating point to its name for people. An own threshold would be another one for each model."""


Outcome = ModelReading | Failure
"""What came of one model: its reading, or why it gave none."""


def cards_html(
    entries: Sequence[ZooEntry],
    outcomes: Mapping[str, Outcome],
    task: Task,
    preview: LesionImage | None,
    *,
    shown_class: str,
    point: str,
    running: bool,
) -> str:
    """A card for each model, those without weights and the teacher too.

    Args:
        entries: Every compared model.
        outcomes: Name of a model to what came of it, as far as it was asked.
        task: What was asked.
        preview: The photo in the size in which it is shown; None before there is one.
        shown_class: Class of the heatmaps, or `OWN_ANSWER`.
        point: The operating point whose decision is shown.
        running: Whether models that were not asked yet still will be.
    """
    return render(
        "views/comparison/cards.html",
        cards=[
            _card(entry, outcomes.get(entry.name), task, preview, shown_class, point, running=running)
            for entry in entries
        ],
        teacher=teacher_card_html(task) if is_published(task) else "",
    )


def scale_html() -> str:
    """The one colour bar of all heatmaps, and what it says."""
    return render("views/comparison/scale.html", scale_note=SCALE_NOTE)


def agreement_html(found: Agreement | None, *, only_one: bool = False) -> str:
    """Who says what, and which models agree.

    Args:
        found: What came of the photo so far; None before there is one.
        only_one: Whether no other model could be asked.
    """
    pairs = {(pair.first, pair.second): pair for pair in found.pairs} if found else {}
    return render(
        "views/comparison/agreement.html",
        found=found,
        only_one=only_one,
        titles=list(dict.fromkeys(title for pair in pairs for title in pair)),
        pairs=pairs,
        target=found.task.name_in_text(found.task.target) if found else "",
    )


def _card(
    entry: ZooEntry,
    outcome: Outcome | None,
    task: Task,
    preview: LesionImage | None,
    shown_class: str,
    point: str,
    *,
    running: bool,
) -> dict[str, Any]:
    card: dict[str, Any] = {"name": entry.name, "title": entry.title}
    if isinstance(outcome, ModelReading) and preview is not None:
        return {**card, "state": "read", "reading": _reading(outcome, task, preview, shown_class, point)}
    if isinstance(outcome, Failure):
        return {**card, "state": "failed", "message": outcome.message}
    if not entry.available:
        command = training_command(task.key, entry.name)
        place = f"assets/checkpoints/{entry.name}"
        return {**card, "state": "missing", "command": command, "place": place}
    message = "Waiting …" if running else "No photo yet." if preview is None else "Not run."
    return {**card, "state": "waiting", "message": message}


def _reading(
    reading: ModelReading, task: Task, preview: LesionImage, shown_class: str, point: str
) -> dict[str, Any]:
    """What `reading.html` shows of a model that has read the photo."""
    answer = reading.prediction
    return {
        "answer": answer,
        "withheld": WITHHELD if answer.verdict == ABSTAIN else "",
        "label": task.display_names[answer.label],
        "is_conditional": is_conditional(task),
        "state": answer_state(answer),
        "status": capitalised(STATE_WORDS[answer_state(answer)]),
        "warnings": warning_sentences(answer.warning_codes),
        "score_name": score_name(answer),
        "scores": [
            (task.display_names[key], share, key == answer.label)
            for key, share in answer.probabilities.items()
        ],
        "decision": _decision(reading, task, point),
        "heatmap": _heatmap(reading, task, preview, shown_class),
        "costs": [
            *(
                (f"Time, {counted(views, 'view')}", f"{decimal(value, 1)}\u00a0ms")
                for views, value in reading.latency.milliseconds.items()
            ),
            ("Parameters", millions(reading.parameters)),
            ("File", megabytes(reading.weights_bytes)),
            ("Input", f"{reading.model_side} × {reading.model_side}\u00a0px"),
        ],
    }


def _decision(reading: ModelReading, task: Task, point: str) -> list[tuple[str, str]]:
    """Names and values; empty for a model that is not calibrated."""
    decision = reading.decisions.get(point)
    if decision is None:
        return []
    return [
        (f"Decision, {POINT_TITLES[point].lower()}", task.display_names[decision.decision]),
        (f"Threshold for “{task.name_in_text(task.target)}”", percent(decision.threshold)),
        ("Prevalence, as in the calibration data", percent(reading.prediction.prevalence or 0)),
    ]


def _heatmap(
    reading: ModelReading, task: Task, preview: LesionImage, shown_class: str
) -> dict[str, Any] | None:
    answer = reading.prediction
    if shown_class == OWN_ANSWER and answer.verdict == ABSTAIN:
        # Its class would give away what is withheld.
        return None
    class_key = answer.label if shown_class == OWN_ANSWER else shown_class
    found, check = reading.maps[class_key], reading.checks[class_key]
    name = task.display_names[class_key]
    overlay = found.overlay(preview, DEFAULT_OPACITY)
    return {
        "check": check_state(check),
        "address": webp_address(outline_removed_area(overlay, found, reading.model_side)),
        "alt": f"The photo under the {found.method} heatmap of {reading.title} for the class {name}, outlined",
        "width": preview.width,
        "height": preview.height,
        # It is markup already.
        "badge": Markup(badge_html(check)),  # noqa: S704
        "finding": f"{found.method} for {name}. {check_finding(check)}",
    }
