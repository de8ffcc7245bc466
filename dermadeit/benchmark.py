"""All figures of the published comparison, from the predictions in `assets/benchmark` alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from dermadeit.about import DISCLAIMER, VERSION
from dermadeit.benchmark_files import LEAK_METER, FiledModels, SplitBy, read_benchmark
from dermadeit.comparison import Comparison, compare, holm
from dermadeit.model_specs import OURS
from dermadeit.predictions import Measurement, measure, measure_sources
from dermadeit.tasks import Task

METRICS_FILE = "metrics.json"
ENSEMBLE_TITLE = "The models above together"
ENSEMBLE_CAPTION = (
    "Together the models answer with the mean of their probabilities, a hint at what these images allow."
)

_Measured = Mapping[str, Mapping[int, Measurement]]
"""Model name to number of views to figures."""


def measure_benchmark(root: Path, task: Task) -> dict[str, Any]:
    """Computes the content of a task's `metrics.json`.

    Args:
        root: The benchmark, laid out as `benchmark_files` describes.
        task: The task.

    Returns:
        JSON-ready: how many `images` and `lesions` there are, `models` (name to `views` to figures with
        intervals, those with the most views by source too), `comparisons` (name to ours minus that model;
        `p_value_holm` is adjusted over all of them), `ensemble` (figures of the mean of all models' probabilities,
        a hint at what the data allows; None where there is one model) and `leak_meter` (`lesion` and `image`, each
        like the whole without comparisons, or None where nothing was filed).

    Raises:
        ManifestError: A file is missing or contradicts the others.
    """
    filed = read_benchmark(root / task.key, task)
    measured = _measure(filed)
    return {
        "task": task.key,
        **_describe(filed, measured),
        "comparisons": _compare_all(measured),
        "ensemble": _measure_ensemble(filed) if len(filed.models) > 1 else None,
        "leak_meter": {
            split_by: _describe_folder(root / task.key / LEAK_METER / split_by, task)
            for split_by in get_args(SplitBy)
        },
        "dermadeit_version": VERSION,
        "disclaimer": DISCLAIMER,
    }


def _measure(filed: FiledModels) -> _Measured:
    return {
        model: {views: measure(predictions) for views, predictions in by_views.items()}
        for model, by_views in filed.models.items()
    }


def _measure_ensemble(filed: FiledModels) -> dict[str, Any]:
    members = [by_views[max(by_views)] for by_views in filed.models.values()]
    mean = np.mean([member.probabilities for member in members], axis=0)
    return measure(replace(members[0], probabilities=mean, logits=np.log(mean))).to_dict()


def _describe_folder(folder: Path, task: Task) -> dict[str, Any] | None:
    if not folder.is_dir():
        return None
    filed = read_benchmark(folder, task)
    return _describe(filed, _measure(filed))


def _describe(filed: FiledModels, measured: _Measured) -> dict[str, Any]:
    [anyone, *_] = [predictions for by_views in filed.models.values() for predictions in by_views.values()]
    return {
        "images": len(anyone),
        "lesions": len(set(anyone.lesion_groups)),
        "weights_sha256": dict(filed.weights_sha256),
        "models": {model: {"views": _figures(by_views)} for model, by_views in measured.items()},
    }


def _figures(by_views: Mapping[int, Measurement]) -> dict[str, Any]:
    figures = {str(views): measurement.to_dict() for views, measurement in by_views.items()}
    most = max(by_views)
    figures[str(most)]["sources"] = measure_sources(by_views[most].predictions)
    return figures


def _compare_all(measured: _Measured) -> dict[str, Any]:
    if OURS not in measured:
        return {}
    results = {}
    for model, by_views in measured.items():
        if model != OURS:
            views, comparison = _compare_at_most_views(measured[OURS], by_views)
            results[model] = {"views": views, **comparison.to_dict()}
    for test in ("mcnemar", "delong"):
        outcomes = [result[test] for result in results.values() if result[test] is not None]
        adjusted = holm([outcome["p_value"] for outcome in outcomes])
        for outcome, p_value in zip(outcomes, adjusted, strict=True):
            outcome["p_value_holm"] = p_value
    return results


def _compare_at_most_views(
    ours: Mapping[int, Measurement], theirs: Mapping[int, Measurement]
) -> tuple[list[int], Comparison]:
    """With the most views that both have, else with the most of each; those two numbers, and the comparison."""
    shared = ours.keys() & theirs.keys()
    views = [max(shared or ours), max(shared or theirs)]
    return views, compare(ours[views[0]], theirs[views[1]])
