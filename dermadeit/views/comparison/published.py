"""HTML of the published figures of the test split, and of those that the original project reported."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from dermadeit.evaluation.comparison import Difference
from dermadeit.files import read_json
from dermadeit.metrics.classification import HEADLINE_FIGURES
from dermadeit.models.specs import OURS
from dermadeit.publishing.benchmark import BENCHMARK_ROOT, ENSEMBLE_CAPTION, ENSEMBLE_TITLE, METRICS_FILE
from dermadeit.publishing.benchmark_table import MODELS_FILE, in_order, published_title, with_most_views
from dermadeit.reporting.format import decimal
from dermadeit.reporting.names import capitalised
from dermadeit.tasks import Task
from dermadeit.views.page.html import difference_cell, figure_cell, p_value_cell, table_html

ORIGINAL_FILE = "original_reported.json"
"""Figures of the original project, where they come from, and why they can't be compared."""

NO_BENCHMARK = (
    '<p class="dd-quiet">There are no figures for this task yet. “make benchmark-table” computes them from '
    "the predictions in assets/benchmark.</p>"
)


def benchmark_html(task: Task, root: Path = BENCHMARK_ROOT) -> str:
    """The published tables of a task, and beside them the original's.

    Args:
        task: The task.
        root: The benchmark, laid out as `benchmark` describes.
    """
    path = root / task.key / METRICS_FILE
    ours = (
        _ours_html(task, read_json(path), read_json(root / MODELS_FILE)) if path.is_file() else NO_BENCHMARK
    )
    return f"""
<div class="dd-check dd-benchmark" data-task="{task.key}">
  <h2>Measured here: {escape(task.title)}</h2>
  {ours}
</div>
{_original_html(task, root / ORIGINAL_FILE)}"""


def _ours_html(task: Task, metrics: Mapping[str, Any], models: Mapping[str, Any]) -> str:
    caption = (
        f"{metrics['images']:,} test images of {metrics['lesions']:,} lesions. No lesion was used in "
        f"training. An answer is the mean over the views in its row. In brackets: 95 % intervals from "
        f"resampled lesions."
    )
    if metrics["ensemble"]:
        caption += f" {ENSEMBLE_CAPTION}"
    parts = [
        f'<p class="dd-quiet">{caption}</p>',
        _models_table(task, metrics, models),
        _sources_table(metrics, models),
    ]
    if metrics["comparisons"]:
        parts.append(_differences_table(metrics, models))
    return "".join(parts)


def _models_table(task: Task, metrics: Mapping[str, Any], models: Mapping[str, Any]) -> str:
    rows = []
    for model in in_order(metrics["models"], models):
        for views, figures in metrics["models"][model]["views"].items():
            rows.append([_title(model, models), views, *_cells(figures)])
    if metrics["ensemble"]:
        rows.append([ENSEMBLE_TITLE, "", *_cells(metrics["ensemble"])])
    not_run = [
        f"{_title(model, models)} (<code>{escape(entry['command'].format(task=task.key))}</code>)"
        for model, entry in models.items()
        if "command" in entry and model not in metrics["models"]
    ]
    note = f'<p class="dd-quiet">Not run yet: {", ".join(not_run)}.</p>' if not_run else ""
    return table_html("All test images", ["Model", "Views", *_names()], rows) + note


def _sources_table(metrics: Mapping[str, Any], models: Mapping[str, Any]) -> str:
    of_model = {
        model: with_most_views(metrics["models"][model]).get("sources", {})
        for model in in_order(metrics["models"], models)
    }
    sources = sorted({source for figures in of_model.values() for source in figures})
    rows = [
        [escape(source), _title(model, models), f"{figures[source]['n']:,}", *_cells(figures[source])]
        for source in sources
        for model, figures in of_model.items()
        if source in figures
    ]
    caption = "By source. The sources differ in sharpness: a gain over all sources alone may be a shortcut"
    return table_html(caption, ["Source", "Model", "Images", *_names()], rows, heads=2)


def _differences_table(metrics: Mapping[str, Any], models: Mapping[str, Any]) -> str:
    comparisons = metrics["comparisons"]
    rows = []
    for model in in_order(comparisons, models):
        found = comparisons[model]
        rows.append(
            [
                _title(model, models),
                *(difference_cell(Difference(**found["differences"][name])) for name in HEADLINE_FIGURES),
                *(
                    p_value_cell(found[test] and found[test]["p_value_holm"])
                    for test in ("mcnemar", "delong")
                ),
            ]
        )
    caption = (
        f"{published_title(OURS, models)} minus each other model, on the same resamples; bold where the "
        f"interval excludes 0. p-values are adjusted for {len(rows)} comparisons (Holm)"
    )
    return table_html(caption, ["Minus", *_names(), "McNemar p", "DeLong p"], rows)


def _original_html(task: Task, path: Path) -> str:
    if not path.is_file():
        return ""
    reported = read_json(path)
    names = reported["figures"]
    rows = [
        [escape(row["model"]), *(decimal(row.get(name), 4) for name in names)]
        for row in reported["tasks"].get(task.key, [])
    ]
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in reported["why_not_comparable"])
    return f"""
<div class="dd-check dd-original">
  <h2>Reported by the original: {escape(task.title)}</h2>
  <p class="dd-quiet">{escape(reported["source"])}. {escape(reported["setting"])}.</p>
  <div class="dd-warnings"><strong>Not comparable with the figures measured here, because</strong>
  <ul>{reasons}</ul></div>
  {table_html("As reported, without intervals", ["Model", *(capitalised(name) for name in names.values())], rows)}
</div>"""


def _title(model: str, models: Mapping[str, Any]) -> str:
    """The model's name as HTML, with the note that belongs to it."""
    note = models.get(model, {}).get("note")
    return escape(published_title(model, models) + (f" ({note})" if note else ""))


def _cells(figures: Mapping[str, Any]) -> list[str]:
    return [figure_cell(figures, name) for name in HEADLINE_FIGURES]


def _names() -> list[str]:
    return [capitalised(name) for name in HEADLINE_FIGURES.values()]
