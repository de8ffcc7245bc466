"""The published figures of the test split, and those that the original project reported, as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dermadeit.evaluation.comparison import Difference
from dermadeit.files import read_json, read_json_if_there
from dermadeit.inference.side_by_side import ModelReading
from dermadeit.metrics.classification import HEADLINE_FIGURES
from dermadeit.models.specs import OURS
from dermadeit.publishing.benchmark import BENCHMARK_ROOT, ENSEMBLE_CAPTION, ENSEMBLE_TITLE, METRICS_FILE
from dermadeit.publishing.benchmark_table import (
    MODELS_FILE,
    get_figures_of_most_views,
    in_order,
    published_title,
)
from dermadeit.reporting.figures import ModelPoint, accuracy_latency_figure, inline_svg
from dermadeit.reporting.names import capitalised
from dermadeit.reporting.templates import render
from dermadeit.tasks import OWN, Task
from dermadeit.views.comparison.teacher import headline_names

ORIGINAL_FILE = "original_reported.json"
"""Figures of the original project, where they come from, and why they can't be compared."""


def benchmark_html(task: Task) -> str:
    """The published tables of a task, and beside them the original's."""
    path = BENCHMARK_ROOT / task.key / METRICS_FILE
    measured = (
        _measured(task, read_json(path), read_json(BENCHMARK_ROOT / MODELS_FILE)) if path.is_file() else {}
    )
    original = read_json_if_there(BENCHMARK_ROOT / ORIGINAL_FILE)
    # Of a task that the original has not.
    original = original if original.get("tasks", {}).get(task.key) else {}
    return render(
        "views/comparison/published.html",
        task=task,
        is_own=task.key == OWN,
        names=headline_names(),
        shown=tuple(HEADLINE_FIGURES),
        original=original,
        original_names=[capitalised(name) for name in original.get("figures", {}).values()],
        **{"metrics": {}, **measured},
    )


def speed_html(task: Task, readings: Sequence[ModelReading]) -> str:
    """Published accuracy against the time just measured; empty for models of which no figures are published.

    Args:
        task: What was asked.
        readings: Of the models that have read a photo.
    """
    published = read_json_if_there(BENCHMARK_ROOT / task.key / METRICS_FILE).get("models", {})
    points = []
    for reading in readings:
        views = max(reading.latency.milliseconds)
        figures = published.get(reading.prediction.model, {}).get("views", {}).get(str(views))
        if figures:
            interval = figures.get("intervals", {}).get("accuracy")
            points.append(
                ModelPoint(
                    reading.title,
                    figures["accuracy"],
                    tuple(interval) if interval else None,
                    reading.latency.milliseconds[views],
                    reading.parameters,
                )
            )
    if not points:
        return ""
    return render("views/comparison/speed.html", drawing=inline_svg(accuracy_latency_figure(points)))


def _measured(task: Task, metrics: Mapping[str, Any], models: Mapping[str, Any]) -> dict[str, Any]:
    rows = [
        (_title(model, models), views, figures)
        for model in in_order(metrics["models"], models)
        for views, figures in metrics["models"][model]["views"].items()
    ]
    if metrics["ensemble"]:
        rows.append((ENSEMBLE_TITLE, "", metrics["ensemble"]))
    return {
        "metrics": metrics,
        "ensemble_caption": ENSEMBLE_CAPTION,
        "models": rows,
        "not_run": [
            (_title(model, models), entry["command"].format(task=task.key))
            for model, entry in models.items()
            if "command" in entry and model not in metrics["models"]
        ],
        "sources": _by_source(metrics, models),
        "ours": published_title(OURS, models),
        "compared": _compared(metrics["comparisons"], models),
    }


def _by_source(
    metrics: Mapping[str, Any], models: Mapping[str, Any]
) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Source, model and figures."""
    of_model = {
        model: get_figures_of_most_views(metrics["models"][model]).get("sources", {})
        for model in in_order(metrics["models"], models)
    }
    sources = sorted({source for figures in of_model.values() for source in figures})
    return [
        (source, _title(model, models), figures[source])
        for source in sources
        for model, figures in of_model.items()
        if source in figures
    ]


def _compared(
    comparisons: Mapping[str, Any], models: Mapping[str, Any]
) -> list[tuple[str, list[Difference], list[float | None]]]:
    """Model, differences of ours to it, and the p-values of both tests."""
    rows = []
    for model in in_order(comparisons, models):
        found = comparisons[model]
        differences = [Difference(**found["differences"][name]) for name in HEADLINE_FIGURES]
        p_values = [found[test] and found[test]["p_value_holm"] for test in ("mcnemar", "delong")]
        rows.append((_title(model, models), differences, p_values))
    return rows


def _title(model: str, models: Mapping[str, Any]) -> str:
    """The model's name with the note that belongs to it."""
    note = models.get(model, {}).get("note")
    return published_title(model, models) + (f" ({note})" if note else "")
