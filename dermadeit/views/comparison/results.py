"""Several models on the same images as HTML: figures, differences, agreement, cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dermadeit.evaluation.batch import BatchResult
from dermadeit.evaluation.comparison import ComparedModel, PairedResult
from dermadeit.metrics.classification import HEADLINE_FIGURES
from dermadeit.reporting.figures import ModelPoint, accuracy_latency_figure, inline_svg
from dermadeit.reporting.format import decimal
from dermadeit.reporting.names import interval_warnings
from dermadeit.reporting.templates import render
from dermadeit.tasks import Task
from dermadeit.views.batch.tables import failures_html, overview_html
from dermadeit.views.comparison.published import is_published
from dermadeit.views.comparison.steps import ImagesComparison
from dermadeit.views.comparison.teacher import (
    NEVER_ASKED,
    TEACHER,
    TEACHER_TITLE,
    headline_names,
    teacher_command,
    teacher_row,
)


def results_html(found: ImagesComparison | None, batch: BatchResult | None = None) -> str:
    """All that is known of a comparison but the images that the models answer differently.

    Args:
        found: As far as it has come; None before there is anything to compare.
        batch: The images behind it, where some were uploaded.
    """
    overview = overview_html(batch) if batch else ""
    if found is None:
        return render(
            "views/comparison/results.html",
            overview=overview,
            is_labelled=True,
            notes=(),
            figures="",
            differences="",
            kappas=[],
            plot="",
            is_empty=True,
        )
    figures = _figures_html(found, batch) if found.figures else ""
    is_timed = bool(found.figures) and found.is_finished
    return render(
        "views/comparison/results.html",
        overview=overview,
        is_labelled=found.is_labelled,
        notes=found.notes,
        figures=figures,
        differences=differences_html(found.task, found.reference.title, found.paired),
        titles=[model.title for model in found.compared],
        kappas=_kappas(found),
        plot=inline_svg(accuracy_latency_figure(_points(found))) if is_timed else "",
        untimed=[model.title for model in found.compared if is_timed and model.title not in found.costs],
        is_empty=not (batch or figures or found.agreeing or not found.is_labelled),
    )


def left_out_html(batch: BatchResult) -> str:
    """The images that are not compared, and why; empty where there are none."""
    if not batch.left_out and not any(batch.failed(model) for model in batch.models):
        return ""
    return render("views/comparison/left_out.html", failures=failures_html(batch))


def figures_html(
    task: Task,
    compared: Sequence[ComparedModel],
    figures: Mapping[str, Mapping[str, Any]],
    *,
    with_teacher: bool = False,
    is_shipped: bool = False,
) -> str:
    """The figures of each model with intervals.

    Args:
        task: What was asked.
        compared: The models, on the same images.
        figures: Title of a model to its figures, for those that were measured already.
        with_teacher: Whether the teacher has an empty row, and a note that says why.
        is_shipped: Whether these are the shipped predictions, among which its answers could be.
    """
    images = compared[0].predictions
    return render(
        "views/comparison/figures.html",
        task=task,
        images=len(images),
        lesions=len(set(images.lesion_groups)),
        names=headline_names(),
        shown=tuple(HEADLINE_FIGURES),
        measured=[model for model in compared if model.title in figures],
        figures=figures,
        warnings=interval_warnings(figures.values()),
        dropped=[model for model in compared if model.dropped],
        teacher_row=teacher_row() if with_teacher else [],
        teacher=TEACHER_TITLE,
        never_asked=NEVER_ASKED,
        teacher_command=teacher_command(task) if is_shipped else "",
    )


def differences_html(task: Task, reference: str, results: Sequence[PairedResult]) -> str:
    """One model minus each of the others; empty without others."""
    return render(
        "views/comparison/differences.html",
        reference=reference,
        results=results,
        names=headline_names(),
        shown=tuple(HEADLINE_FIGURES),
        target=task.name_in_text(task.target),
    )


def _figures_html(found: ImagesComparison, batch: BatchResult | None) -> str:
    is_asked = found.is_shipped or batch is not None
    has_teacher = any(model.name == TEACHER for model in found.compared)
    return figures_html(
        found.task,
        found.compared,
        found.figures,
        with_teacher=is_asked and not has_teacher and is_published(found.task),
        is_shipped=found.is_shipped,
    )


def _kappas(found: ImagesComparison) -> list[list[str]]:
    """How far every two models give the same answers, right or wrong: a row for each model but the last."""
    known = found.agreeing
    if not known:
        return []
    titles = [model.title for model in found.compared]
    return [
        [row, *(decimal(known[row, column], 2) if (row, column) in known else "" for column in titles[1:])]
        for row in titles[:-1]
    ]


def _points(found: ImagesComparison) -> list[ModelPoint]:
    points = []
    for model in found.compared:
        if cost := found.costs.get(model.title):
            figures, milliseconds = found.figures[model.title], cost.latency.milliseconds
            interval = figures.get("intervals", {}).get("accuracy")
            points.append(
                ModelPoint(
                    model.title,
                    figures["accuracy"],
                    tuple(interval) if interval else None,
                    milliseconds[model.predictions.views],
                    cost.parameters,
                )
            )
    return points
