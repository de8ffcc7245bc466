"""The published models at one operating point: each answers by class weights that are chosen for the macro F1.

    python -m benchmarks.evidence.operating_point --results docs/results.md

A network that was trained with balanced classes names the rare ones more often than one that was not. Their
accuracy and macro F1 then compare what they were trained for, not what they can tell apart. Here every model of
a task that weighs its classes answers by weights chosen for the macro F1, beside its plain answers.

The weights belong on validation and calibration. But of some models (the original's recipe, the small teacher
and its MLP) only the answers about test images were kept, and no weights of the network, so that this can't be
done for them. So the class weights for a lesion are chosen, for all models alike, on the other four fifths of
the test lesions. That compares the models fairly. It is no figure of a model as it would be served, whose
weights never see test.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from dermadeit.evaluation.comparison import Difference
from dermadeit.evaluation.predictions import PredictionSet
from dermadeit.files import ASSETS, read_json, write_json
from dermadeit.metrics.classification import (
    INTERVAL_METHOD,
    RESAMPLES,
    classification_metrics,
    percentile_intervals,
    resampled_figures,
)
from dermadeit.models.specs import OURS
from dermadeit.publishing.benchmark import BENCHMARK_ROOT, read_shipped_predictions
from dermadeit.publishing.benchmark_table import MODELS_FILE, in_order, published_title
from dermadeit.reporting.markdown import (
    difference_text,
    figure_text,
    markdown_table,
    write_between_marks,
)
from dermadeit.tasks import TASKS, Task
from dermadeit.trust.calibration import answers, fit_class_weights

logger = logging.getLogger("benchmarks.evidence.operating_point")

PARTS = 5
PLACE = "operating-point"
REPORT_FILE = "operating_point.json"

ABOUT = (
    "**At one operating point.** Models that were trained with and without balanced classes name the rare "
    "ones more or less often, which moves accuracy and macro F1. *Weighted* answers are those of class "
    "weights that are chosen for the macro F1, for all models alike on the test lesions of the other four of "
    "five parts: of the original's recipe, the small teacher and its MLP neither weights nor answers about "
    "validation and calibration were kept, so that theirs can't be chosen there. Bold: the interval excludes "
    "0."
)

COLUMNS: Mapping[str, str] = {
    "accuracy": "accuracy",
    "cohen_kappa": "Cohen's κ",
    "f1_macro": "macro F1",
    "balanced_accuracy": "balanced accuracy",
}


def weighted_answers(predictions: PredictionSet) -> np.ndarray:
    """The class of each image by weights that are chosen on other lesions: int [N]."""
    decided = np.empty(len(predictions.labels), dtype=int)
    parts = StratifiedGroupKFold(PARTS, shuffle=True, random_state=0)
    lesions = np.array(predictions.lesion_groups)
    for others, own in parts.split(lesions, predictions.labels, groups=lesions):
        weights = fit_class_weights(predictions.probabilities[others], predictions.labels[others])
        decided[own] = answers(predictions.probabilities[own], weights)
    return decided


def measure(sets: Sequence[PredictionSet], resamples: int = RESAMPLES) -> dict[str, Any]:
    """The figures of each model, plain and weighted, and how far ours is ahead of each other at one point.

    Args:
        sets: Of one task, the same images in the same order.
        resamples: How often lesions are drawn.
    """
    models: dict[str, Any] = {}
    resampled: dict[str, dict[str, np.ndarray]] = {}
    for part in sets:
        models[part.model] = {}
        for name, decided in (("plain", None), ("weighted", weighted_answers(part))):
            arguments = (part.labels, part.probabilities)
            found = classification_metrics(*arguments, part.task.classes, decided)
            draws = resampled_figures(
                *arguments, part.lesion_groups, part.task.classes, answers=decided, resamples=resamples
            )
            resampled[part.model] = draws
            models[part.model][name] = {
                **{figure: found[figure] for figure in COLUMNS},
                "intervals": percentile_intervals({figure: draws[figure] for figure in COLUMNS}),
            }
    for model, entry in models.items():
        if model != OURS and OURS in models:
            draws = {figure: resampled[OURS][figure] - resampled[model][figure] for figure in COLUMNS}
            intervals = percentile_intervals(draws)
            entry["ours_minus_this"] = {
                figure: {
                    "difference": models[OURS]["weighted"][figure] - entry["weighted"][figure],
                    "interval": intervals.get(figure),
                }
                for figure in COLUMNS
            }
    return models


def render(report: Mapping[str, Any], titles: Mapping[str, Any]) -> str:
    """The report of a task as Markdown.

    Args:
        report: The content of its file.
        titles: The content of the benchmark's models.json.
    """
    rows = []
    for model in in_order(report["models"], titles):
        entry = report["models"][model]
        ahead = entry.get("ours_minus_this", {})
        rows += [
            [
                published_title(model, titles),
                "plain",
                *(figure_text(entry["plain"], name) for name in COLUMNS),
            ],
            ["", "weighted", *(figure_text(entry["weighted"], name) for name in COLUMNS)],
        ]
        if ahead:
            cells = [difference_text(Difference(**ahead[name])) for name in COLUMNS]
            rows.append(["", "ours minus this, both weighted", *cells])
    return f"`{report['task']}`:\n\n{markdown_table(['model', 'answers', *COLUMNS.values()], rows)}"


def examine(task: Task, root: Path, resamples: int) -> dict[str, Any]:
    """The content of a task's file."""
    return {
        "task": task.key,
        "split": "test",
        "weights_chosen_on": f"the test lesions of the other {PARTS - 1} of {PARTS} parts, for the macro F1",
        "method": INTERVAL_METHOD.replace(str(RESAMPLES), str(resamples)),
        "models": measure(read_shipped_predictions(task, root=root), resamples),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures every task that weighs its classes, and writes what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--benchmark", type=Path, default=BENCHMARK_ROOT, help="the filed predictions")
    parser.add_argument(
        "--evidence", type=Path, default=ASSETS / "evidence", help="folder of the tasks' result files"
    )
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help="how often lesions are drawn")
    parser.add_argument("--results", type=Path, help="a Markdown file to put the table into")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    titles = read_json(options.benchmark / MODELS_FILE)
    tables = []
    for task in TASKS.values():
        if task.weighs_classes:
            report = examine(task, options.benchmark, options.resamples)
            write_json(options.evidence / task.key / REPORT_FILE, report)
            tables.append(render(report, titles))
            logger.info("%s", tables[-1])
    if options.results:
        write_between_marks(options.results, PLACE, "\n\n".join([ABOUT, *tables]))


if __name__ == "__main__":
    main()
