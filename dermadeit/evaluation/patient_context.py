"""Fits answers with age and sex (`trust.patient_context`) to labelled images, and measures what they bring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dermadeit.data.manifest import ManifestRow
from dermadeit.data.patient import patient_of
from dermadeit.errors import ErrorCode, TableError
from dermadeit.evaluation.comparison import compare, paired_differences
from dermadeit.evaluation.predictions import Measurement, PredictionSet, measure
from dermadeit.inference.records import Prediction
from dermadeit.metrics.classification import INTERVAL_METHOD
from dermadeit.metrics.weighted import log_losses
from dermadeit.tasks import Task
from dermadeit.trust.calibration import SMALLEST_CLASS, Calibration, fit_class_weights, fit_view
from dermadeit.trust.patient_context import PatientContext, cross_fitted, fit_fusion, has_age
from dermadeit.trust.scaling import is_clear_gain

GAINS = ("accuracy", "cohen_kappa", "roc_auc", "nll", "sensitivity_at_95_specificity")
"""Which of `classification.FIGURES` the gain is given in."""


def fit_patient_context(
    network: Task,
    tasks: Sequence[Task],
    calibrations: Mapping[str, Calibration],
    rows: Sequence[ManifestRow],
    logits: Mapping[int, np.ndarray],
) -> PatientContext:
    """Fits what a checkpoint needs for answers with age and sex.

    Decisions, sets and the gain rest on answers that are cross-fitted: each by a regression that was fitted on the
    other lesions alone.

    Args:
        network: The task whose classes are the network's own.
        tasks: What it answers.
        calibrations: Key of each task to what was fitted for the photo alone.
        rows: M labelled images, of lesions that did not train the network.
        logits: Number of views to float [M, N].

    Raises:
        TableError: Too few lesions have an age, or age and sex don't make the answers clearly better.
    """
    everyone = [patient_of(row.metadata) for row in rows]
    known = [index for index, patient in enumerate(everyone) if has_age(patient)]
    rows, patients = [rows[index] for index in known], [everyone[index] for index in known]
    _check_lesions(network, rows)
    labels = np.array([network.index_of(row.label) for row in rows])
    lesions = [row.lesion_group for row in rows]
    calibration = calibrations[network.key]
    photo = {views: calibration.class_probabilities(part[known], views) for views, part in logits.items()}
    fused = cross_fitted(photo, patients, labels, lesions)
    most = max(photo)
    gains = log_losses(labels, photo[most]) - log_losses(labels, fused[most])
    if not is_clear_gain(gains, lesions):
        raise TableError(
            "Age and sex are not used: on lesions that they were not fitted to, they don't make the answers "
            "clearly better.",
            code=ErrorCode.TOO_FEW_LESIONS,
        )
    fusion, penalty = fit_fusion(photo[most], patients, labels, lesions)
    report = {
        "images": len(rows),
        "lesions": len(set(lesions)),
        "without_age": len(everyone) - len(rows),
        "without_sex": sum(patient.sex is None for patient in patients),
        "splits": sorted({row.split for row in rows if row.split}),
        "views": most,
        "penalty": penalty,
        "intervals": INTERVAL_METHOD,
    }
    fitted = {
        task.key: _fit_reading(task, network, calibrations[task.key], rows, photo, fused) for task in tasks
    }
    return PatientContext(fusion, fitted, report)


def take_with_context(
    measured: PredictionSet, records: Sequence[Prediction]
) -> tuple[PredictionSet, PredictionSet] | None:
    """The images that have an answer with age and sex: their answers of the photo alone, and those with both.

    Args:
        measured: The answers of the photos alone.
        records: The same, as they were served.

    Returns:
        None where no image has such an answer.
    """
    asked = [record.patient_context and record.patient_context.asked for record in records]
    known = [index for index, reading in enumerate(asked) if reading is not None]
    if not known:
        return None
    photo, readings = measured.take(known), [reading for reading in asked if reading is not None]
    with_context = replace(
        photo,
        probabilities=np.array([list(reading.probabilities.values()) for reading in readings]),
        decided=np.array([measured.task.index_of(reading.label) for reading in readings]),
    )
    return photo, with_context


def measure_context(photo: PredictionSet, with_context: PredictionSet) -> dict[str, Any]:
    """Figures of answers without and with age and sex, on the same images, and their paired differences.

    Args:
        photo: Answers of the photo alone.
        with_context: Answers with age and sex.

    Returns:
        JSON-ready: `photo` and `with_context` as `Measurement.to_dict` gives them, and `comparison` of the second
        with the first as `comparison.Comparison.to_dict` gives it.
    """
    before, after = measure(photo), measure(with_context)
    return {
        "photo": before.to_dict(),
        "with_context": after.to_dict(),
        "comparison": compare(after, before).to_dict(),
    }


def _check_lesions(network: Task, rows: Sequence[ManifestRow]) -> None:
    if not rows:
        raise TableError(
            "Age and sex are not used: no image has an age. Add the columns age and sex to the table.",
            code=ErrorCode.TOO_FEW_LESIONS,
        )
    for key in network.classes:
        lesions = len({row.lesion_group for row in rows if row.label == key})
        if lesions < SMALLEST_CLASS:
            raise TableError(
                f"Age and sex are not used: {lesions} lesions of the class “{key}” have an age; at least "
                f"{SMALLEST_CLASS} are needed.",
                code=ErrorCode.TOO_FEW_LESIONS,
            )


def _fit_reading(
    task: Task,
    network: Task,
    calibration: Calibration,
    rows: Sequence[ManifestRow],
    photo: Mapping[int, np.ndarray],
    fused: Mapping[int, np.ndarray],
) -> Calibration:
    """Decisions and sets of one task, and in the report what age and sex bring.

    Args:
        task: One that the network answers.
        network: The task whose classes are its own.
        calibration: What was fitted for the photo alone.
        rows: M images.
        photo: Number of views to probabilities of the photo alone, float [M, N].
        fused: The same with age and sex, cross-fitted.
    """
    groups = task.group(network.classes)
    assert groups is not None, "only tasks that the network answers"
    labels = groups.regroup(np.array([network.index_of(row.label) for row in rows]))
    inside = np.flatnonzero(labels >= 0)
    labels, rows = labels[inside], [rows[index] for index in inside.tolist()]
    lesions = np.array([row.lesion_group for row in rows])
    read = {views: groups.read(part[inside]) for views, part in fused.items()}
    most = max(read)
    weights = fit_class_weights(read[most], labels) if task.weighs_classes else ()
    target = task.index_of(task.target)
    fitted = replace(
        calibration,
        by_views={
            views: fit_view(calibration.by_views[views].scaling, part, labels, lesions, target)
            for views, part in read.items()
        },
        class_weights=weights,
    )

    def measured(probabilities: np.ndarray, of: Calibration) -> Measurement:
        return measure(
            PredictionSet(
                task,
                "",
                most,
                image_ids=tuple(row.image_id for row in rows),
                labels=labels,
                logits=np.log(probabilities),
                probabilities=probabilities,
                lesion_groups=tuple(lesions.tolist()),
                sources=("",) * len(rows),
                splits=("",) * len(rows),
                decided=of.answers(probabilities) if of.class_weights else None,
            )
        )

    before = measured(groups.read(photo[most][inside]), calibration)
    report = {
        "images": len(rows),
        "lesions": len(set(lesions.tolist())),
        "gain": _gain(before, measured(read[most], fitted)),
    }
    return replace(fitted, report=report)


def _gain(before: Measurement, after: Measurement) -> dict[str, dict[str, Any]]:
    """Each of `GAINS` to its value `before` and `after`, their `difference` and its `interval`."""
    differences = paired_differences(after, before)
    return {
        name: {
            "before": before.figures[name],
            "after": after.figures[name],
            "difference": differences[name].difference,
            "interval": list(differences[name].interval or ()) or None,
        }
        for name in GAINS
    }
