"""The answers of one model on labelled images as arrays, read from files without the weights, and measured."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from dermadeit.data.tabular import Table, read_table_file
from dermadeit.errors import ErrorCode, ResultFileError
from dermadeit.evaluation.plain_tables import (
    NO_LESION_GROUPS,
    KnownImages,
    complete_table,
    know_no_images,
)
from dermadeit.metrics.classification import (
    INTERVAL_METHOD,
    classification_metrics,
    percentile_intervals,
    resampled_figures,
)
from dermadeit.metrics.shares import needs_wilson, wilson_interval
from dermadeit.tasks import TASKS, Task, get_task
from dermadeit.trust.stability import Stability

SMALLEST_SLICE = 20
"""Images that a slice needs before its figures are shown."""

FEW_LESIONS = 30
"""Below so many lesions the intervals get a warning: a bootstrap of few clusters is too sure (Cameron, Gelbach and
Miller 2008)."""

_GATED_COLUMNS = {"verdict", "abstain_codes", "conformal_set"}
_VIEW_COLUMNS = {"flips", "spread"}
_VERDICTS = ("answer", "abstain")
_TRUTHS = {"true": True, "false": False, "": False}
_SUM_TOLERANCE = 1e-3
_SMALLEST_PROBABILITY = 1e-12
_LONGEST_COUNT = 6
_SHOWN = 3
_ANSWER = "answer_"


@dataclass(frozen=True)
class ServedFlags:
    """What one answer was served with.

    Attributes:
        calibrated: Whether its probabilities are calibrated.
        verdict: Whether it was given or withheld, as `records.Prediction.verdict`; None where that is unknown.
        abstain_codes: Why it was withheld.
        warning_codes: Why it is less reliable, though given; None where that is unknown.
        conformal_set: Keys of the classes that can't be ruled out; None where that is unknown.
        stability: How far the views agree; None where that is unknown.
        ood_score: How strange the image is to the model; None where that is unknown.
    """

    calibrated: bool = False
    verdict: str | None = None
    abstain_codes: tuple[str, ...] = ()
    warning_codes: tuple[str, ...] | None = None
    conformal_set: tuple[str, ...] | None = None
    stability: Stability | None = None
    ood_score: float | None = None


@dataclass(frozen=True, eq=False)
class PredictionSet:
    """The answers of one model on N labelled images.

    Attributes:
        task: What was asked.
        model: Name of the model.
        views: Dihedral views whose logits were averaged.
        image_ids: N identifiers, each once.
        labels: int [N], true class indices.
        logits: float [N, K], or [N, L] where `network` has L classes.
        probabilities: float [N, K], rows summing to 1: what was served, so not always the softmax of the logits.
        lesion_groups: N names; images that share one show the same lesion.
        sources: N names of collections, empty where unknown.
        splits: N names of splits, empty where unknown.
        served: What the N answers were served with, if they were read from a table; else empty.
        diagnoses: N diagnoses, each empty where it is unknown, if they were read from a table; else empty.
        weights_sha256: Hex digest of the weights that the table names for all of them, or an empty string.
        has_lesion_groups: Whether it is known which images show the same lesion.
        notes: What had to be assumed or left out where a table did not say all, as sentences.
        network: Class keys of the logits; empty where they are the task's.
        decided: int [N], indices of the classes that were answered; None where they are the most probable ones.
        other_answers: Key of each other task that the network answers to N class keys, as far as it is known.
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
    served: tuple[ServedFlags, ...] = ()
    diagnoses: tuple[str, ...] = ()
    weights_sha256: str = ""
    has_lesion_groups: bool = True
    notes: tuple[str, ...] = ()
    network: tuple[str, ...] = ()
    decided: np.ndarray | None = None
    other_answers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of_records(
        cls, task: Task, model: str, views: int, images: Sequence[Any], records: Sequence[Any]
    ) -> PredictionSet:
        """The answers of a predictor on labelled images.

        Args:
            task: What was asked.
            model: Name of the model.
            views: Dihedral views whose logits were averaged.
            images: N `ManifestRow` or `LabelledPrediction`, which say the truth.
            records: Their N `Prediction`.
        """
        shape = (len(records), len(task.classes))
        network = tuple(records[0].logits) if records else task.classes
        probabilities = np.array([list(record.probabilities.values()) for record in records]).reshape(shape)
        return cls(
            task,
            model,
            views,
            image_ids=tuple(image.image_id for image in images),
            labels=np.array([task.index_of(image.label) for image in images], dtype=int),
            logits=np.array([list(record.logits.values()) for record in records]).reshape(
                len(records), len(network)
            ),
            probabilities=probabilities,
            lesion_groups=tuple(image.lesion_group for image in images),
            sources=tuple(image.source for image in images),
            splits=tuple(image.split for image in images),
            network=() if network == task.classes else network,
            decided=_decided(probabilities, [task.index_of(record.label) for record in records]),
        )

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def answers(self) -> np.ndarray:
        """Int [N], the indices of the classes that were answered: the most probable ones, unless `decided`."""
        return self.probabilities.argmax(axis=1) if self.decided is None else self.decided

    @property
    def hits(self) -> np.ndarray:
        """Bool [N], whether the class that was answered is the true one."""
        return self.answers == self.labels

    @property
    def target_scores(self) -> np.ndarray:
        """Float [N], the probability of the class that must not be missed, `Task.target`."""
        return self.probabilities[:, self.task.index_of(self.task.target)]

    def take(self, indices: Sequence[int] | np.ndarray) -> PredictionSet:
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
            served=tuple(self.served[index] for index in indices) if self.served else (),
            diagnoses=tuple(self.diagnoses[index] for index in indices) if self.diagnoses else (),
            weights_sha256=self.weights_sha256,
            has_lesion_groups=self.has_lesion_groups,
            notes=self.notes,
            network=self.network,
            decided=None if self.decided is None else self.decided[rows],
            other_answers={
                key: tuple(answers[index] for index in indices) for key, answers in self.other_answers.items()
            },
            **picked,
        )

    def read_as(self, task: Task) -> PredictionSet | None:
        """The answers of the same network for another task; None where these classes can't form it.

        Images that lie outside the task are left out. What is known for the first task alone (conformal sets, how
        far the views agree) is not known for the other.

        Args:
            task: The other task.
        """
        groups = task.group(self.task.classes)
        if groups is None:
            return None
        labels = groups.regroup(self.labels)
        inside = np.flatnonzero(labels >= 0)
        part = self.take(inside)
        probabilities = groups.read(part.probabilities)
        named = part.other_answers.get(task.key)
        return replace(
            part,
            task=task,
            labels=labels[inside],
            probabilities=probabilities,
            served=tuple(replace(flags, conformal_set=None, stability=None) for flags in part.served),
            network=part.network or self.task.classes,
            decided=_decided(probabilities, [task.index_of(key) for key in named]) if named else None,
            other_answers={},
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

    @property
    def resampled(self) -> Mapping[str, np.ndarray]:
        """Each figure on every resample of the lesions, as `metrics.resampled_figures` gives them."""
        return self._resampled

    @cached_property
    def _resampled(self) -> dict[str, np.ndarray]:
        predictions = self.predictions
        return resampled_figures(
            predictions.labels,
            predictions.probabilities,
            predictions.lesion_groups,
            predictions.task.classes,
            answers=predictions.decided,
            target=predictions.task.target,
        )

    def to_dict(self) -> dict[str, Any]:
        """The figures with an entry `intervals`, JSON-ready; without images there are no intervals."""
        if not len(self.predictions):
            return dict(self.figures)
        lesions = len(set(self.predictions.lesion_groups))
        warnings = [] if self.predictions.has_lesion_groups else [NO_LESION_GROUPS]
        if lesions < FEW_LESIONS:
            warnings.append(
                f"There are only {lesions} lesions. Intervals of so few are rough, and often too narrow."
            )
        return {
            **self.figures,
            "intervals": {
                "method": INTERVAL_METHOD,
                **({"warning": " ".join(warnings)} if warnings else {}),
                "lesions": lesions,
                **self._intervals(lesions),
            },
        }

    def _intervals(self, lesions: int) -> dict[str, list[float]]:
        """Those of the resamples; of the accuracy Wilson's near 0 and 1, where resamples hardly differ."""
        # Where all resamples are the same, as at an AUROC of 1, they say nothing of new lesions.
        intervals = {
            name: bounds
            for name, bounds in percentile_intervals(self.resampled).items()
            if bounds[0] < bounds[1]
        }
        if needs_wilson(self.figures["accuracy"], lesions):
            intervals["accuracy"] = wilson_interval(self.figures["accuracy"], lesions)
        return intervals


def read_served_flags(task: Task, views: int, table: Table, path: Path) -> tuple[ServedFlags, ...]:
    """Reads the columns that `evaluate.write_evaluations` adds; those that are missing are taken for unknown.

    Args:
        task: What was asked.
        views: Dihedral views whose logits were averaged.
        table: Rows of one model.
        path: Where they come from, for the messages.

    Raises:
        ResultFileError: A cell holds nothing that can be meant; the message names the line.
    """
    columns = set(table.columns)
    served = []
    for row, line in zip(table.rows, table.line_numbers, strict=True):
        try:
            calibrated = _TRUTHS[row.get("calibrated", "").strip().lower()]
            # In these columns an uncalibrated answer has no decision but the lack of one.
            gated = _gated(task, row) if calibrated and columns >= _GATED_COLUMNS else {}
            agreement = _stability(row, views) if columns >= _VIEW_COLUMNS else None
            strangeness = _number(row.get("ood_score", ""))
        except (KeyError, ValueError):
            raise ResultFileError(
                f"Line {line} of “{path.name}” has an unknown value in one of the columns calibrated, "
                f"verdict, "
                "conformal_set, ood_score, flips and spread. Write the table again, or leave these columns out.",
                code=ErrorCode.UNKNOWN_VALUE,
            ) from None
        served.append(ServedFlags(calibrated, **gated, stability=agreement, ood_score=strangeness))
    return tuple(served)


def measure(predictions: PredictionSet) -> Measurement:
    """The figures of one model on one set of images."""
    return Measurement(
        predictions,
        classification_metrics(
            predictions.labels,
            predictions.probabilities,
            predictions.task.classes,
            predictions.decided,
            predictions.task.target,
        ),
    )


def measure_sources(predictions: PredictionSet) -> dict[str, dict[str, Any]]:
    """Figures with intervals for each source.

    Sources differ in resolution and case mix, so a figure over all of them can hide a shortcut.
    """
    return {source: measure(part).to_dict() for source, part in predictions.by_source().items()}


def read_predictions(
    path: Path, task: Task | None = None, *, model: str = "", known: KnownImages = know_no_images
) -> tuple[PredictionSet, ...]:
    """Reads a table of predictions, one set for each task, model and number of views in it.

    Args:
        path: `predictions.csv` as `evaluate` writes it, or any table with `image_id` and `p_<class>` or
            `logit_<class>` for every class of a task; `plain_tables.complete_table` says what is assumed for the
            rest. Columns that say what the answers were served with are read: `calibrated`, `verdict` with
            `abstain_codes` and `conformal_set`, `flips` with `spread`, and `ood_score`; `source`, `split`,
            `diagnosis` and `weights_sha256` too. Others are ignored.
        task: The task that is asked for, where the table leaves that open.
        model: What to call a model that has no name in the table; else as the file is called.
        known: What is known of images that the table does not label.

    Raises:
        ResultFileError: The table can't be read or contradicts itself; the message names the line.
        TaskError: An unknown task.
    """
    completed = complete_table(read_table_file(path), path, task, model=model or path.stem, known=known)
    table = completed.table
    parts: dict[tuple[str, str, int], list[int]] = defaultdict(list)
    for index, (row, line) in enumerate(zip(table.rows, table.line_numbers, strict=True)):
        parts[row["task"], row["model"], _views(row["views"], line, path)].append(index)
    return tuple(
        replace(
            _prediction_set(
                completed.task or get_task(key),
                name,
                views,
                replace(
                    table,
                    rows=tuple(table.rows[index] for index in indices),
                    line_numbers=tuple(table.line_numbers[index] for index in indices),
                ),
                path,
            ),
            has_lesion_groups=completed.has_lesion_groups,
            notes=completed.notes,
        )
        for (key, name, views), indices in parts.items()
    )


def select_task(sets: Iterable[PredictionSet], task: Task) -> tuple[PredictionSet, ...]:
    """The predictions for one task; of a model that has none, those of another task that can be read as it."""
    sets = tuple(sets)
    own = [part for part in sets if part.task.key == task.key]
    named = {part.model for part in own}
    others = (part.read_as(task) for part in sets if part.model not in named)
    return (*own, *(part for part in others if part is not None and len(part)))


def select_most_views(sets: Iterable[PredictionSet]) -> tuple[PredictionSet, ...]:
    """Of each model the set with the most views, in the order in which the models come first."""
    best: dict[str, PredictionSet] = {}
    for predictions in sets:
        known = best.get(predictions.model)
        if known is None or predictions.views > known.views:
            best[predictions.model] = predictions
    return tuple(best.values())


def keep_shared_images(sets: Sequence[PredictionSet]) -> tuple[PredictionSet, ...]:
    """Several models on the images that all of them have read, in the order of the first.

    Args:
        sets: One or more, of one task.

    Raises:
        ResultFileError: They have no image in common, or disagree about the truth of one.
    """
    shared = set.intersection(*(set(predictions.image_ids) for predictions in sets))
    if not shared:
        raise ResultFileError(
            "The models have no image in common. Evaluate all of them on the same images.",
            code=ErrorCode.PREDICTIONS_DIFFER,
        )
    order = [image_id for image_id in sets[0].image_ids if image_id in shared]
    first, *others = (_ordered(predictions, order) for predictions in sets)
    for other in others:
        check_same_truth(first, other)
    return first, *others


def check_same_truth(first: PredictionSet, second: PredictionSet) -> None:
    """Raises `ResultFileError` where two models were given other labels or lesions for the same images.

    Args:
        first: One model.
        second: Another, with the same images in the same order.
    """
    for name in ("labels", "lesion_groups"):
        differ = np.asarray(getattr(first, name)) != np.asarray(getattr(second, name))
        if differ.any():
            differing = [first.image_ids[index] for index in np.flatnonzero(differ)]
            raise ResultFileError(
                f"{first.model} and {second.model} can't be compared: for {len(differing)} images, such as "
                f"{', '.join(differing[:_SHOWN])}, they disagree about the {name.replace('_', ' ')}. Evaluate "
                "both on the same table.",
                code=ErrorCode.PREDICTIONS_DIFFER,
            )


def finite_numbers(table: Table, columns: Sequence[str], path: Path) -> np.ndarray:
    """Cells as float [rows, columns]; raises `ResultFileError` for one that is missing or no finite number."""
    _require(table.columns, columns, path)
    numbers = np.empty((len(table.rows), len(columns)))
    for index, row in enumerate(table.rows):
        try:
            numbers[index] = [float(row[column]) for column in columns]
        except ValueError:
            numbers[index] = np.nan
        if not np.isfinite(numbers[index]).all():
            raise ResultFileError(
                f"Line {table.line_numbers[index]} of “{path.name}” has no usable number in one of the "
                f"columns "
                f"{', '.join(columns)}. Write the table again.",
                code=ErrorCode.NOT_A_NUMBER,
            )
    return numbers


def _gated(task: Task, row: Mapping[str, str]) -> dict[str, Any]:
    verdict, kept = row["verdict"].strip(), tuple(row["conformal_set"].split())
    if verdict not in _VERDICTS or not set(kept) <= set(task.classes):
        raise ValueError(verdict)
    # Tables of version 0.1 have no warnings.
    warnings = tuple(row["warning_codes"].split()) if "warning_codes" in row else None
    codes = tuple(row["abstain_codes"].split())
    return {"verdict": verdict, "abstain_codes": codes, "warning_codes": warnings, "conformal_set": kept}


def _stability(row: Mapping[str, str], views: int) -> Stability | None:
    spread = _number(row["spread"])
    if spread is None:
        return None
    flips = int(row["flips"])
    if not (0 <= spread <= 1 and 0 <= flips <= views and views):
        raise ValueError(flips)
    return Stability(1 - flips / views, spread, flips)


def _number(text: str) -> float | None:
    if not text.strip():
        return None
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _views(text: str, line: int, path: Path) -> int:
    if not text.strip().isdecimal() or len(text) > _LONGEST_COUNT:
        raise ResultFileError(
            f"“{text[:20]}” in line {line} of “{path.name}” is not a number of views.",
            code=ErrorCode.NOT_A_NUMBER,
        )
    return int(text)


def _prediction_set(task: Task, model: str, views: int, table: Table, path: Path) -> PredictionSet:
    image_ids = tuple(row["image_id"] for row in table.rows)
    [(most_frequent, count)] = Counter(image_ids).most_common(1)
    if count > 1:
        raise ResultFileError(
            f"“{path.name}” has {count} rows for the image “{most_frequent}” by {model} with {views} views. Keep "
            "one.",
            code=ErrorCode.DUPLICATE_IMAGE,
        )
    network = _network(task, table)
    if network:
        logits = finite_numbers(table, [f"logit_{key}" for key in network], path)
        probabilities = _probabilities(task, network, logits, table, path)
    else:
        probabilities = _probabilities(task, (), None, table, path)
        logits = np.log(np.maximum(probabilities, _SMALLEST_PROBABILITY))
    served = read_served_flags(task, views, table, path)
    return PredictionSet(
        task,
        model,
        views,
        image_ids=image_ids,
        labels=np.array([task.index_of(row["label_true"]) for row in table.rows], dtype=int),
        logits=logits,
        probabilities=probabilities,
        lesion_groups=tuple(row.get("lesion_group") or row["image_id"] for row in table.rows),
        sources=tuple(row.get("source", "") for row in table.rows),
        splits=tuple(row.get("split", "") for row in table.rows),
        served=served,
        diagnoses=tuple(row.get("diagnosis", "").strip() for row in table.rows),
        weights_sha256=_only_digest(table),
        network=() if network == task.classes else network,
        decided=_read_answers(task, probabilities, served, table),
        other_answers={
            other.key: tuple(row[f"{_ANSWER}{other.key}"] for row in table.rows)
            for other in TASKS.values()
            if f"{_ANSWER}{other.key}" in table.columns
            and {row[f"{_ANSWER}{other.key}"] for row in table.rows} <= set(other.classes)
        },
    )


def _network(task: Task, table: Table) -> tuple[str, ...]:
    """The classes that a table has logits of: those of a network that answers the task, or its own; else none."""
    # Models of other classes in the same table leave their columns empty here.
    found = tuple(
        name.removeprefix("logit_")
        for name in table.columns
        if name.startswith("logit_") and any(row[name].strip() for row in table.rows)
    )
    if set(found) != set(task.classes) and task.group(found) is not None:
        return found
    return task.classes if {f"logit_{key}" for key in task.classes} <= set(table.columns) else ()


def _read_answers(
    task: Task, probabilities: np.ndarray, served: Sequence[ServedFlags], table: Table
) -> np.ndarray | None:
    """What a calibrated network has answered, where that is not always the most probable class."""
    named = [row.get("label_predicted", "") for row in table.rows]
    if not all(flags.calibrated for flags in served) or not set(named) <= set(task.classes):
        return None
    return _decided(probabilities, [task.index_of(key) for key in named])


def _decided(probabilities: np.ndarray, answers: Sequence[int]) -> np.ndarray | None:
    decided = np.array(answers, dtype=int)
    return None if (decided == probabilities.argmax(axis=1)).all() else decided


def _only_digest(table: Table) -> str:
    """The digest of the weights that every row names, or an empty string where they differ or name none."""
    digests = {row.get("weights_sha256", "").strip().lower() for row in table.rows}
    return digests.pop() if len(digests) == 1 else ""


def _probabilities(
    task: Task, network: tuple[str, ...], logits: np.ndarray | None, table: Table, path: Path
) -> np.ndarray:
    """Float [N, K]; the softmax of the network's logits where the table has no probabilities."""
    columns = [f"p_{key}" for key in task.classes]
    if logits is not None and not set(columns) <= set(table.columns):
        groups = task.group(network)
        assert groups is not None, "the network can answer the task"
        return groups.read(softmax(logits, axis=1))
    found = finite_numbers(table, columns, path)
    wrong = ((found < 0) | (found > 1)).any(axis=1) | (np.abs(found.sum(axis=1) - 1) > _SUM_TOLERANCE)
    if wrong.any():
        raise ResultFileError(
            f"In line {table.line_numbers[int(wrong.argmax())]} of “{path.name}” the columns {', '.join(columns)} "
            "don't add up to 1, or one is below 0 or above 1. Write shares of 1, not percent.",
            code=ErrorCode.NOT_A_PROBABILITY,
        )
    return found


def _ordered(predictions: PredictionSet, image_ids: Sequence[str]) -> PredictionSet:
    position = {image_id: index for index, image_id in enumerate(predictions.image_ids)}
    return predictions.take([position[image_id] for image_id in image_ids])


def _require(columns: Sequence[str], wanted: Sequence[str], path: Path) -> None:
    missing = [column for column in wanted if column not in columns]
    if missing:
        raise ResultFileError(
            f"“{path.name}” has no column {', '.join(missing)}. Give the predictions.csv that “evaluate” wrote.",
            code=ErrorCode.MISSING_COLUMN,
        )
