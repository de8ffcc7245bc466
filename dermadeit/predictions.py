"""The answers of one model on labelled images as arrays, read from files without the weights, and measured."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from dermadeit.errors import ManifestError
from dermadeit.metrics import INTERVAL_METHOD, classification_metrics, percentile_intervals, resampled_figures
from dermadeit.tabular import Table, read_csv
from dermadeit.tasks import TRAINABLE_TASKS, Task, get_task

SMALLEST_SLICE = 20
"""Images that a slice needs before its figures are shown."""


@dataclass(frozen=True, eq=False)
class PredictionSet:
    """What one model said of N labelled images.

    Attributes:
        task: What was asked.
        model: Name of the model.
        views: Dihedral views whose logits were averaged.
        image_ids: N identifiers, each once.
        labels: int [N], true class indices.
        logits: float [N, K].
        probabilities: float [N, K], rows summing to 1: what was served, so not always the softmax of the logits.
        lesion_groups: N names; images that share one show the same lesion.
        sources: N names of collections, empty where unknown.
        splits: N names of splits, empty where unknown.
    """

    task: Task
    model: str
    views: int
    image_ids: tuple[str, ...]
    labels: np.ndarray
    logits: np.ndarray
    probabilities: np.ndarray
    lesion_groups: tuple[str, ...]
    sources: tuple[str, ...]
    splits: tuple[str, ...]

    @classmethod
    def of_records(
        cls, task: Task, model: str, views: int, images: Sequence[Any], records: Sequence[Any]
    ) -> PredictionSet:
        """What a predictor said of labelled images.

        Args:
            task: What was asked.
            model: Name of the model.
            views: Dihedral views whose logits were averaged.
            images: N `ManifestRow` or `LabelledPrediction`, which say the truth.
            records: Their N `Prediction`.
        """
        shape = (len(records), len(task.classes))
        return cls(
            task,
            model,
            views,
            image_ids=tuple(image.image_id for image in images),
            labels=np.array([task.index_of(image.label) for image in images], dtype=int),
            logits=np.array([list(record.logits.values()) for record in records]).reshape(shape),
            probabilities=np.array([list(record.probabilities.values()) for record in records]).reshape(
                shape
            ),
            lesion_groups=tuple(image.lesion_group for image in images),
            sources=tuple(image.source for image in images),
            splits=tuple(image.split for image in images),
        )

    def __len__(self) -> int:
        return len(self.image_ids)

    def take(self, indices: Sequence[int]) -> PredictionSet:
        """The images at these positions, in this order."""
        picked = {
            name: tuple(getattr(self, name)[index] for index in indices)
            for name in ("image_ids", "lesion_groups", "sources", "splits")
        }
        rows = np.asarray(indices, dtype=int)
        return PredictionSet(
            self.task,
            self.model,
            self.views,
            labels=self.labels[rows],
            logits=self.logits[rows],
            probabilities=self.probabilities[rows],
            **picked,
        )

    def by_source(self) -> dict[str, PredictionSet]:
        """The images of each named source that has enough of them, by its name, in alphabetical order."""
        indices_of: dict[str, list[int]] = defaultdict(list)
        for index, source in enumerate(self.sources):
            indices_of[source].append(index)
        return {
            source: self.take(indices)
            for source, indices in sorted(indices_of.items())
            if source and len(indices) >= SMALLEST_SLICE
        }


@dataclass(frozen=True, eq=False)
class Measurement:
    """The figures of one model, and what it takes to give them and their differences an interval.

    Attributes:
        predictions: What was measured.
        figures: As `metrics.classification_metrics` gives them.
    """

    predictions: PredictionSet
    figures: Mapping[str, Any]

    @cached_property
    def resampled(self) -> dict[str, np.ndarray]:
        """Each figure on every resample of the lesions, as `metrics.resampled_figures` gives them."""
        predictions = self.predictions
        return resampled_figures(
            predictions.labels, predictions.probabilities, predictions.lesion_groups, predictions.task.classes
        )

    def to_dict(self) -> dict[str, Any]:
        """The figures with an entry `intervals`, JSON-ready; without images there are no intervals."""
        if not len(self.predictions):
            return dict(self.figures)
        return {
            **self.figures,
            "intervals": {
                "method": INTERVAL_METHOD,
                "lesions": len(set(self.predictions.lesion_groups)),
                **percentile_intervals(self.resampled),
            },
        }


def measure(predictions: PredictionSet) -> Measurement:
    """The figures of one model on one set of images."""
    return Measurement(
        predictions,
        classification_metrics(predictions.labels, predictions.probabilities, predictions.task.classes),
    )


def measure_sources(predictions: PredictionSet) -> dict[str, dict[str, Any]]:
    """Figures with intervals for each source.

    Sources differ in resolution and case mix, so a figure over all of them can hide a shortcut.
    """
    return {source: measure(part).to_dict() for source, part in predictions.by_source().items()}


def read_predictions(path: Path) -> tuple[PredictionSet, ...]:
    """Reads `predictions.csv`, one set for each task, model and number of views in it.

    Args:
        path: A table with the columns `image_id`, `task`, `model`, `views`, `label_true` and `logit_<class>` for
            every class; `p_<class>` (else the softmax of the logits), `lesion_group` (else every image is a
            lesion of its own), `source` and `split` where they are known. Others are ignored.

    Raises:
        ManifestError: The table can't be read or contradicts itself; the message names the line.
        TaskError: An unknown task.
    """
    table = read_csv(path)
    _require(table.columns, ("image_id", "task", "model", "views", "label_true"), path)
    if not table.rows:
        raise ManifestError(f"“{path.name}” holds no predictions.", code="empty_table")
    parts: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for index, row in enumerate(table.rows):
        parts[row["task"], row["model"], row["views"]].append(index)
    return tuple(
        _prediction_set(
            get_task(task, TRAINABLE_TASKS),
            model,
            views,
            replace(
                table,
                rows=tuple(table.rows[index] for index in indices),
                line_numbers=tuple(table.line_numbers[index] for index in indices),
            ),
            path,
        )
        for (task, model, views), indices in parts.items()
    )


def finite_numbers(table: Table, columns: Sequence[str], path: Path) -> np.ndarray:
    """Cells as float [rows, columns]; raises `ManifestError` for one that is missing or no finite number."""
    _require(table.columns, columns, path)
    numbers = np.empty((len(table.rows), len(columns)))
    for index, row in enumerate(table.rows):
        try:
            numbers[index] = [float(row[column]) for column in columns]
        except ValueError:
            numbers[index] = np.nan
        if not np.isfinite(numbers[index]).all():
            raise ManifestError(
                f"Line {table.line_numbers[index]} of “{path.name}” holds no usable number in one of the columns "
                f"{', '.join(columns)}. Write the table again.",
                code="not_a_number",
            )
    return numbers


def _prediction_set(task: Task, model: str, views: str, table: Table, path: Path) -> PredictionSet:
    if not views.isdecimal():
        raise ManifestError(
            f"“{views}” in line {table.line_numbers[0]} of “{path.name}” is no number of views.",
            code="not_a_number",
        )
    image_ids = tuple(row["image_id"] for row in table.rows)
    [(most_frequent, count)] = Counter(image_ids).most_common(1)
    if count > 1:
        raise ManifestError(
            f"“{path.name}” has {count} rows for the image “{most_frequent}” by {model} with {views} views. Keep "
            "one.",
            code="duplicate_image",
        )
    logits = finite_numbers(table, [f"logit_{key}" for key in task.classes], path)
    probability_columns = [f"p_{key}" for key in task.classes]
    return PredictionSet(
        task,
        model,
        int(views),
        image_ids=image_ids,
        labels=np.array([task.index_of(row["label_true"]) for row in table.rows], dtype=int),
        logits=logits,
        probabilities=(
            finite_numbers(table, probability_columns, path)
            if set(probability_columns) <= set(table.columns)
            else softmax(logits, axis=1)
        ),
        lesion_groups=tuple(row.get("lesion_group") or row["image_id"] for row in table.rows),
        sources=tuple(row.get("source", "") for row in table.rows),
        splits=tuple(row.get("split", "") for row in table.rows),
    )


def _require(columns: Sequence[str], wanted: Sequence[str], path: Path) -> None:
    missing = [column for column in wanted if column not in columns]
    if missing:
        raise ManifestError(
            f"“{path.name}” has no column {', '.join(missing)}. Give the predictions.csv that “evaluate” wrote.",
            code="missing_column",
        )
