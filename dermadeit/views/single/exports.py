"""The result of one photo for taking away: JSON-ready values, and a document that needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dermadeit.about import APP, DISCLAIMER
from dermadeit.imaging.decode import encode_png
from dermadeit.inference.decision import DecisionSettings
from dermadeit.inference.predictor import Predictor
from dermadeit.inference.prevalence import answer_at, apply_settings
from dermadeit.inference.records import ABSTAIN, Prediction
from dermadeit.inference.saliency import default_method
from dermadeit.reporting.names import METHOD_TITLES
from dermadeit.reporting.photo_report import ReportFigure, single_image_report
from dermadeit.tasks import DIAGNOSES, Task
from dermadeit.trust.neighbours import Neighbour
from dermadeit.views.page.case_pictures import ISIC_ADDRESS, isic_id
from dermadeit.views.page.html import check_finding, check_state
from dermadeit.views.page.uploads import private_folder
from dermadeit.views.single.answer_card import is_hidden, outside_set
from dermadeit.views.single.heatmap import draw_outlined_overlay
from dermadeit.views.single.reading import Reading, view_scores

WITHHELD_NOTE = (
    "This answer is withheld. The label and the probabilities are kept for checks only. Do not show them "
    "as an answer."
)


def export(
    reading: Reading,
    predictors: Mapping[str, Predictor],
    task_key: str,
    settings: DecisionSettings | None = None,
) -> dict[str, Any]:
    """The result as JSON-ready values, with all that is needed to know how it came about.

    Args:
        reading: The photo's reading.
        predictors: Task key to predictor.
        task_key: The chosen task.
        settings: What the visitor has set; None for what holds before anything was touched.

    Returns:
        `disclaimer`, `app`, `image`, `scores` (what the numbers are), `override` (whether answers that are
        withheld were shown all the same) and `readings`, one for each task that is shown. A reading has all
        keys of `Prediction.to_dict`, and `title`, `caveat`, `weights_sha256`, `class_names`, `overridden` (of
        this answer), `withheld_note` (None for an answer that is not withheld), `cautions` (why the answer is
        doubtful, as sentences), `decision` (all of `decision.ThresholdDecision`; None without calibration),
        `view_scores` (the class and its score in each view) and, in each of `neighbours`, `diagnosis_name` and
        `isic_url`.
    """
    settings = settings or DecisionSettings()
    width, height = reading.size
    photo = reading.preview
    return {
        "disclaimer": DISCLAIMER,
        "app": APP,
        "image": {
            "sha256": photo.sha256,
            "format": photo.format,
            "width": width,
            "height": height,
            "model_side": reading.inputs[task_key].width,
            "ledger": list(photo.ledger),
            "warnings": list(photo.warnings),
        },
        "task": task_key,
        "scores": (
            "calibrated probabilities"
            if reading.predictions[task_key].calibrated
            else "softmax of the logits averaged over the views; not calibrated"
        ),
        "override": settings.override,
        "readings": [
            _reading(
                reading, predictors[key], key, settings if key == task_key else settings.for_other_task()
            )
            for key in reading.tasks_shown(task_key)
        ],
    }


def report(
    reading: Reading,
    predictors: Mapping[str, Predictor],
    task_key: str,
    settings: DecisionSettings,
    shown: tuple[str, str] | None,
    opacity: float,
) -> str:
    """The result as one HTML document, with the photo and the heatmaps in it.

    Args:
        reading: The photo's reading.
        predictors: Task key to predictor.
        task_key: The chosen task.
        settings: What the visitor has set.
        shown: Method and class key of the heatmap on the page; None where there is none.
        opacity: Of the heatmap over the photo, 0 to 1.
    """
    figures = [] if shown is None else [_figure(reading, task_key, *shown, opacity)]
    exported = export(reading, predictors, task_key, settings)
    return single_image_report(exported, encode_png(reading.preview.pixels), figures)


def find_untested(
    reading: Reading,
    predictors: Mapping[str, Predictor],
    task_key: str,
    settings: DecisionSettings,
    shown: tuple[str, str] | None = None,
) -> list[tuple[str, str, str]]:
    """Heatmaps that belong into the files and were not drawn and checked yet.

    Args:
        reading: The photo's reading.
        predictors: Task key to predictor.
        task_key: The chosen task.
        settings: What the visitor has set.
        shown: Method and class key of the heatmap on the page; None where there is none.

    Returns:
        Task, class key and method of each: that on the page, and that of every answer that is not withheld.
    """
    answers = [reading.predictions[key] for key in reading.tasks_shown(task_key)]
    default = default_method(*predictors.values())
    heatmaps = [(answer.task, answer.label, default) for answer in answers if not is_hidden(answer, settings)]
    if shown is not None:
        method, class_key = shown
        heatmaps.append((task_key, class_key, method))
    return [
        (key, class_key, method)
        for key, class_key, method in dict.fromkeys(heatmaps)
        if (method, class_key) not in reading.checks.get(key, {})
    ]


def store_report(reading: Reading, html: str) -> str:
    """Writes a report of a reading into the cache, in a folder that nobody can guess; returns its path."""
    path = private_folder() / f"{file_stem(reading)}.html"
    path.write_text(html, encoding="utf-8")
    return str(path)


def file_stem(reading: Reading) -> str:
    """What the files of a reading are called."""
    return f"dermadeit-{reading.preview.sha256[:8]}"


def export_answer(answer: Prediction, predictor: Predictor, settings: DecisionSettings) -> dict[str, Any]:
    """An answer and what is decided for it, as the readings of `export` have it.

    Args:
        answer: It may be withheld.
        predictor: That gave it.
        settings: What was set for its task.
    """
    task, trust = predictor.checkpoint.task, predictor.checkpoint.trust
    answer, decision = apply_settings(answer, task, trust.calibrations if trust else {}, settings)
    return answer.to_dict() | {
        "title": task.title,
        "caveat": task.caveat,
        "class_names": dict(task.display_names),
        "weights_sha256": predictor.checkpoint.weights_sha256,
        "overridden": answer.verdict == ABSTAIN and settings.override,
        "withheld_note": WITHHELD_NOTE if answer.verdict == ABSTAIN else None,
        "cautions": [doubt] if (doubt := outside_set(answer, task, decision)) else [],
        "decision": decision and decision.to_dict(),
    }


def _reading(reading: Reading, predictor: Predictor, key: str, settings: DecisionSettings) -> dict[str, Any]:
    answer, task = reading.predictions[key], reading.tasks[key]
    moved = answer_at(answer, task, {key: predictor.checkpoint.calibration}, settings.prevalence)
    return export_answer(answer, predictor, settings) | {
        "view_scores": asdict(view_scores(moved, task)),
        "neighbours": _cases(answer.neighbours, task),
    }


def _cases(neighbours: Sequence[Neighbour], task: Task) -> list[dict[str, Any]]:
    return [
        asdict(near)
        | {
            "diagnosis_name": case_name(near, task),
            "isic_url": (public := isic_id(near.image_id)) and ISIC_ADDRESS.format(public),
        }
        for near in neighbours
    ]


def case_name(near: Neighbour, task: Task) -> str:
    """The diagnosis of a similar case for people, or its class of one's own."""
    own = task.display_names if not task.class_of_diagnosis else {}
    return own.get(near.diagnosis) or DIAGNOSES.get(near.diagnosis.upper(), near.diagnosis)


def _figure(reading: Reading, task_key: str, method: str, class_key: str, opacity: float) -> ReportFigure:
    name, title = reading.tasks[task_key].display_names[class_key], METHOD_TITLES[method]
    check = reading.checks.get(task_key, {}).get((method, class_key))
    return ReportFigure(
        title=f"{title} for {name}",
        png=encode_png(draw_outlined_overlay(reading, task_key, class_key, method, opacity)),
        alt=f"The photo under its {title} heatmap for the class {name}",
        note=check_finding(check),
        state=check_state(check),
    )
