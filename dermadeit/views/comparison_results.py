"""HTML of several models on the same labelled images. Everything from outside is escaped here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from dermadeit.display_names import capitalised
from dermadeit.entrants import Disagreement, Entrant, PairedResult
from dermadeit.metrics import HEADLINE_FIGURES
from dermadeit.tasks import Task
from dermadeit.views.cards import percent
from dermadeit.views.case_pictures import ISIC_ADDRESS, isic_id
from dermadeit.views.tables import (
    difference_cell,
    figure_cell,
    p_value_cell,
    plain_number,
    table_html,
)
from dermadeit.weighted_metrics import target_class

SHOWN_DISAGREEMENTS = 100

EMPTY_RESULTS = """
<div class="dd-check">
  <h2>Figures</h2>
  <p class="dd-empty-title">Nothing compared yet</p>
  <p class="dd-quiet">Take the predictions that ship with the app, or give the predictions.csv files of your own
  evaluations. No weights and no images are needed.</p>
</div>"""


def figures_html(task: Task, entrants: Sequence[Entrant], figures: Mapping[str, Mapping[str, Any]]) -> str:
    """The figures of each model with intervals.

    Args:
        task: What was asked.
        entrants: The models, on the same images.
        figures: Title of a model to its figures, for those that were measured already.
    """
    images = entrants[0].predictions
    rows = [
        [
            escape(entrant.title),
            str(entrant.predictions.views),
            *(figure_cell(figures[entrant.title], name) for name in HEADLINE_FIGURES),
        ]
        for entrant in entrants
        if entrant.title in figures
    ]
    caption = f"{task.title}: {len(images):,} images of {len(set(images.lesion_groups)):,} lesions"
    dropped = ", ".join(
        f"{entrant.dropped:,} of {escape(entrant.title)}" for entrant in entrants if entrant.dropped
    )
    left_out = f" Left out, because not every model has read them: images, {dropped}." if dropped else ""
    return f"""
<div class="dd-check" data-part="figures">
  <h2>Figures</h2>
  {table_html(caption, ["Model", "Views", *_names()], rows)}
  <p class="dd-quiet">In brackets: 95 % intervals from resampled lesions.{left_out}</p>
</div>"""


def differences_html(task: Task, reference: str, results: Sequence[PairedResult]) -> str:
    """One model minus each of the others."""
    if not results:
        return ""
    target = task.display_names[task.classes[target_class(task.classes)]].lower()
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
    header = ["Minus", *_names(), "Right alone", "McNemar p", f"DeLong p, {target} or not"]
    return f"""
<div class="dd-check" data-part="differences">
  <h2>Differences</h2>
  {table_html(f"{reference} minus each other model, on the same images", header, rows)}
  <p class="dd-quiet">Marked only where the 95 % interval of the paired bootstrap excludes 0. Right alone: images
  that only the first and only the second model reads right. p-values are adjusted for
  {_count(len(rows), "comparison")} (Holm). DeLong's test is of the AUROC of {escape(target)} against the rest.
  Both tests take images as independent of each other, which several images of one lesion are not; where they
  disagree with an interval, believe the interval.</p>
</div>"""


def kappas_html(entrants: Sequence[Entrant], found: Mapping[tuple[str, str], float | None]) -> str:
    """How far every two models give the same answers, right or wrong."""
    if not found:
        return ""
    titles = [entrant.title for entrant in entrants]
    rows = [
        [
            escape(row),
            *(plain_number(found[row, column], 2) if (row, column) in found else "" for column in titles[1:]),
        ]
        for row in titles[:-1]
    ]
    return f"""
<div class="dd-check" data-part="kappas">
  <h2>Agreement between models</h2>
  {
        table_html(
            "Cohen's κ between the answers of two models: 1 always the same, 0 as often as chance",
            ["Model", *titles[1:]],
            rows,
        )
    }
</div>"""


def disagreements_html(
    task: Task, entrants: Sequence[Entrant], found: Sequence[Disagreement], *, public: bool
) -> str:
    """The images that models answer differently.

    Args:
        task: What was asked.
        entrants: The models.
        found: Those images, in the order in which to show them.
        public: Whether the images are known to be the ones of ISIC with these identifiers.
    """
    if len(entrants) < 2:
        return ""
    total = len(entrants[0].predictions)
    target = task.display_names[task.classes[target_class(task.classes)]].lower()
    titles = [entrant.title for entrant in entrants]
    rows = [
        [
            _image_cell(image.image_id, public=public),
            escape(task.display_names[image.label]),
            *(_answer_cell(task, image, title) for title in titles),
        ]
        for image in found[:SHOWN_DISAGREEMENTS]
    ]
    said = f"{len(found):,} of {total:,} images ({percent(len(found) / max(total, 1))})"
    shown = f" The first {len(rows)} are shown; the CSV file has all." if len(found) > len(rows) else ""
    order = f"Those come first whose scores of {escape(target)} lie furthest apart.{shown}"
    table = (
        table_html("Images with different answers", ["Image", "Truth", *titles], rows, tall=True)
        if rows
        else ""
    )
    links = (
        " A link leads to the public ISIC Archive, another site: it opens only when you click."
        if public
        else ""
    )
    return f"""
<div class="dd-check" data-part="disagreements">
  <h2>Where they disagree</h2>
  <p>The models differ on {said}.</p>
  <p class="dd-quiet">{order} Each cell: the answer, and the score of {escape(target)}.{links}</p>
  {table}
</div>"""


def plot_html(figure: str, untimed: Sequence[str]) -> str:
    """The plot of accuracy against time.

    Args:
        figure: The plot as an SVG element.
        untimed: Titles of the models that are not in it.
    """
    left_out = (
        f" Not in it, since their weights are not here to be timed: {', '.join(map(escape, untimed))}."
        if untimed
        else ""
    )
    return f"""
<div class="dd-check" data-part="plot">
  <h2>What accuracy costs</h2>
  <div class="dd-plot-place">{figure}</div>
  <p class="dd-quiet">Accuracy of the predictions above, and the time of the network alone for one photo in as many
  views, measured on this machine just now. Whoever else uses it may slow it down.{left_out}</p>
</div>"""


def _image_cell(image_id: str, *, public: bool) -> str:
    found = public and isic_id(image_id)
    if not found:
        return escape(image_id)
    address = ISIC_ADDRESS.format(found)
    return f'<a href="{escape(address)}" target="_blank" rel="noopener noreferrer">{escape(image_id)}</a>'


def _answer_cell(task: Task, image: Disagreement, title: str) -> str:
    answer = image.answers[title]
    right = answer == image.label
    mark = "✓" if right else "✗"
    return (
        f'<span class="{"dd-answer-right" if right else "dd-answer-wrong"}"><span aria-hidden="true">{mark}</span>'
        f'<span class="dd-unseen">{"right" if right else "wrong"}: </span> '
        f"{escape(task.display_names[answer])}</span> "
        f'<span class="dd-interval">{percent(image.scores[title])}</span>'
    )


def _names() -> list[str]:
    return [capitalised(name) for name in HEADLINE_FIGURES.values()]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
