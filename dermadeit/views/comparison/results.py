"""HTML of several models on the same images: figures, differences, agreement, cost.

Everything from outside is escaped here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from dermadeit.evaluation.batch import BatchResult
from dermadeit.evaluation.comparison import ComparedModel, PairedResult
from dermadeit.metrics.classification import HEADLINE_FIGURES
from dermadeit.reporting.figures import ModelPoint, accuracy_latency_figure, inline_svg
from dermadeit.reporting.format import counted, decimal
from dermadeit.reporting.names import capitalised
from dermadeit.tasks import Task
from dermadeit.views.batch.tables import failures_html, overview_html
from dermadeit.views.comparison.steps import ImagesComparison
from dermadeit.views.comparison.teacher import TEACHER, teacher_note_html, teacher_row
from dermadeit.views.page.html import (
    difference_cell,
    figure_cell,
    notes_html,
    p_value_cell,
    table_html,
)

EMPTY_RESULTS = """
<div class="dd-check">
  <h2>Figures</h2>
  <p class="dd-empty-title">Nothing compared yet</p>
  <p class="dd-quiet">Upload images with their true classes. Or use the predictions that come with the app, or the
  predictions.csv files of your own evaluations. These need no weights and no images.</p>
</div>"""


WITHOUT_TRUTH = (
    "A comparison of figures needs the true classes. Upload the images again with them: a folder or a ZIP "
    "with a folder for each class, or a CSV with the columns file and label."
)


def results_html(found: ImagesComparison, batch: BatchResult | None = None) -> str:
    """All that is known of a comparison but the images that the models answer differently.

    Args:
        found: As far as it has come.
        batch: The images behind it, where some were handed in.
    """
    task, compared = found.task, found.compared
    parts = [f'<div data-part="images">{overview_html(batch)}</div>'] if batch else []
    if not found.is_labelled:
        parts.append(notes_html("No figures", [WITHOUT_TRUTH]))
    if found.figures:
        is_asked = found.is_shipped or batch is not None
        has_teacher = any(model.name == TEACHER for model in compared)
        note = teacher_note_html(task, is_shipped=found.is_shipped) if is_asked and not has_teacher else ""
        parts.append(figures_html(task, compared, found.figures, teacher_note=note))
    parts.append(differences_html(task, found.reference.title, found.paired))
    parts.append(kappas_html(compared, found.agreeing or {}))
    if found.figures and found.is_finished:
        untimed = [model.title for model in compared if model.title not in found.costs]
        parts.append(plot_html(inline_svg(accuracy_latency_figure(_points(found))), untimed))
    return "".join(parts) or EMPTY_RESULTS


def left_out_html(batch: BatchResult) -> str:
    """The images that are not compared, and why; empty where there are none."""
    if not batch.left_out and not any(batch.failed(model) for model in batch.models):
        return ""
    return f"""
<div class="dd-check" data-part="failures">
  <h2>Files that were not read or left out</h2>
  {failures_html(batch)}
</div>"""


def figures_html(
    task: Task,
    compared: Sequence[ComparedModel],
    figures: Mapping[str, Mapping[str, Any]],
    *,
    teacher_note: str = "",
) -> str:
    """The figures of each model with intervals.

    Args:
        task: What was asked.
        compared: The models, on the same images.
        figures: Title of a model to its figures, for those that were measured already.
        teacher_note: HTML that says why the teacher has none; it then has an empty row.
    """
    images = compared[0].predictions
    rows = [
        [
            escape(model.title),
            str(model.predictions.views),
            *(figure_cell(figures[model.title], name) for name in HEADLINE_FIGURES),
        ]
        for model in compared
        if model.title in figures
    ]
    rows += [teacher_row()] if teacher_note else []
    about_teacher = f'<p class="dd-quiet">{teacher_note}</p>' if teacher_note else ""
    caption = f"{task.title}: {len(images):,} images of {len(set(images.lesion_groups)):,} lesions"
    dropped = ", ".join(f"{model.dropped:,} of {escape(model.title)}" for model in compared if model.dropped)
    left_out = f" Left out, because not every model has read them: {dropped}." if dropped else ""
    return f"""
<div class="dd-check" data-part="figures">
  <h2>Figures</h2>
  {table_html(caption, ["Model", "Views", *_names()], rows)}
  <p class="dd-quiet">In brackets: 95 % intervals from resampled lesions.{left_out}</p>
  {about_teacher}
</div>"""


def differences_html(task: Task, reference: str, results: Sequence[PairedResult]) -> str:
    """One model minus each of the others."""
    if not results:
        return ""
    target = task.target_name.lower()
    rows = [
        [
            escape(result.comparison.second),
            *(difference_cell(result.comparison.differences[name]) for name in HEADLINE_FIGURES),
            f"{result.comparison.mcnemar.only_first_right:,} / {result.comparison.mcnemar.only_second_right:,}",
            p_value_cell(result.mcnemar_holm),
            p_value_cell(result.delong_holm),
        ]
        for result in results
    ]
    header = [
        "Minus",
        *_names(),
        "Right: first only / second only",
        "McNemar p",
        f"DeLong p, {target} or not",
    ]
    return f"""
<div class="dd-check" data-part="differences">
  <h2>Differences</h2>
  {table_html(f"{reference} minus each other model, on the same images", header, rows)}
  <p class="dd-quiet">Bold: the 95 % interval of the paired bootstrap excludes 0. p-values are adjusted for
  {counted(len(rows), "comparison")} (Holm). DeLong's test compares the AUROC for the class {escape(target)}. Both
  tests assume independent images. Several images of one lesion are not independent. If a test and an interval
  disagree, use the interval.</p>
</div>"""


def kappas_html(compared: Sequence[ComparedModel], found: Mapping[tuple[str, str], float | None]) -> str:
    """How far every two models give the same answers, right or wrong."""
    if not found:
        return ""
    titles = [model.title for model in compared]
    rows = [
        [
            escape(row),
            *(decimal(found[row, column], 2) if (row, column) in found else "" for column in titles[1:]),
        ]
        for row in titles[:-1]
    ]
    return f"""
<div class="dd-check" data-part="kappas">
  <h2>Agreement between models</h2>
  {
        table_html(
            "Cohen's κ between the answers of two models (1: always the same, 0: as often as by chance)",
            ["Model", *titles[1:]],
            rows,
        )
    }
</div>"""


def plot_html(figure: str, untimed: Sequence[str]) -> str:
    """The plot of accuracy against time.

    Args:
        figure: The plot as an SVG element.
        untimed: Titles of the models that are not in it.
    """
    left_out = (
        f" Not shown, because their weights are not here: {', '.join(map(escape, untimed))}."
        if untimed
        else ""
    )
    return f"""
<div class="dd-check" data-part="plot">
  <h2>Accuracy and time</h2>
  <div class="dd-plot-place">{figure}</div>
  <p class="dd-quiet">Accuracy of the predictions above, and the time of the network for one photo with the same
  number of views. Measured on this machine just now. Other users can slow it down.{left_out}</p>
</div>"""


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


def _names() -> list[str]:
    return [capitalised(name) for name in HEADLINE_FIGURES.values()]
