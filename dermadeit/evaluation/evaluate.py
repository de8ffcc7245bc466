"""A manifest and a predictor to an `Evaluation`, and evaluations to files."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from scipy.special import softmax

from dermadeit.about import DISCLAIMER, VERSION
from dermadeit.data.manifest import Manifest
from dermadeit.data.tabular import write_csv
from dermadeit.evaluation.predictions import SMALLEST_SLICE, PredictionSet, measure, measure_sources
from dermadeit.evaluation.slices import SLICED_BY, Attributes, is_known, measure_slices
from dermadeit.files import write_json
from dermadeit.inference.predictor import DEFAULT_VIEWS, Predictor
from dermadeit.inference.records import (
    ABSTAIN,
    Evaluation,
    ItemFailure,
    LabelledFailure,
    LabelledPrediction,
    Prediction,
)
from dermadeit.metrics.shares import (
    abstention_figures,
    calibration_figures,
    conformal_figures,
    operating_point_figures,
    risk_coverage,
    stability_figures,
)
from dermadeit.tasks import TRAINABLE_TASKS, Task, get_task, target_class
from dermadeit.trust.calibration import CONFORMAL_COVERAGE, OPERATING_POINTS, Calibration

_TRUST_FIGURES = (
    "risk_coverage", "stability", "calibration", "operating_points", "conformal", "abstention",
)  # fmt: skip
_ORIGIN_COLUMNS = (
    "diagnosis", "sha256", "weights_sha256", "operating_point", "threshold", "decision", "ledger", "warnings",
    "dermadeit_version", "disclaimer",
)  # fmt: skip
_FAILURE_COLUMNS = ("image_id", "file", "sha256", "task", "model", "label_true", "code", "message")
_FAILURE_ORIGIN_COLUMNS = ("weights_sha256", "dermadeit_version", "disclaimer")


def evaluate(
    manifest: Manifest,
    predictor: Predictor,
    views: int = DEFAULT_VIEWS,
    progress: Callable[[], Any] = lambda: None,
    attributes: Attributes | None = None,
) -> Evaluation:
    """Reads every image of a manifest and compares the answers with its labels.

    Args:
        manifest: The labelled images, of the predictor's task.
        predictor: The model.
        views: Dihedral views whose logits are averaged, 1 to 8.
        progress: Called after each image.
        attributes: What the images are sliced by, as `slices.describe_images` gives it; None for sources only.

    Returns:
        Predictions, failures and figures; an image that can't be read is a failure and counts in no figure.
    """
    predictions, failures = [], []
    records = predictor.predict_iter((row.path for row in manifest.rows), views)
    for row, record in zip(manifest.rows, records, strict=True):
        if isinstance(record, ItemFailure):
            failures.append(LabelledFailure(row.image_id, row.file, row.label, record))
        else:
            predictions.append(beside_truth(row, record))
        progress()
    return assemble_evaluation(
        manifest.task,
        predictor.checkpoint.model,
        views,
        predictions,
        failures,
        calibration=predictor.checkpoint.calibration,
        weights_sha256=predictor.checkpoint.weights_sha256,
        excluded=manifest.excluded,
        attributes=attributes,
    )


def beside_truth(image: Any, record: Prediction) -> LabelledPrediction:
    """An answer with what a `ManifestRow`, or a record like it, says of the image."""
    return LabelledPrediction(
        image.image_id, image.file, image.label, image.lesion_group, image.source, image.split, record,
        image.metadata.get("diagnosis", ""),
    )  # fmt: skip


def assemble_evaluation(
    task: Task,
    model: str,
    views: int,
    predictions: Sequence[LabelledPrediction],
    failures: Sequence[LabelledFailure] = (),
    *,
    calibration: Calibration | None = None,
    weights_sha256: str | None = None,
    excluded: Mapping[str, int] = MappingProxyType({}),
    attributes: Attributes | None = None,
) -> Evaluation:
    """Compares answers that were given already with the truth.

    Args:
        task: What was asked.
        model: Name of the model.
        views: Dihedral views whose logits were averaged.
        predictions: The answers.
        failures: The images that got none.
        calibration: Of the model; None without, or where its weights are not at hand.
        weights_sha256: Hex digest of its weights; None where they are not at hand.
        excluded: Why images were left out, and how many for each reason.
        attributes: What the images are sliced by; None for sources only.
    """
    steps = assemble_in_steps(
        task,
        model,
        views,
        predictions,
        failures,
        calibration=calibration,
        weights_sha256=weights_sha256,
        excluded=excluded,
        attributes=attributes,
    )
    [evaluation] = deque(steps, maxlen=1)
    return evaluation


def assemble_in_steps(
    task: Task,
    model: str,
    views: int,
    predictions: Sequence[LabelledPrediction],
    failures: Sequence[LabelledFailure],
    *,
    calibration: Calibration | None,
    weights_sha256: str | None,
    excluded: Mapping[str, int],
    attributes: Attributes | None,
) -> Iterator[Evaluation]:
    """As `assemble_evaluation`, whose arguments it takes, for who may not want to wait for all of it.

    Yields:
        The evaluation as far as it is measured. The first, with the figures and without their intervals, takes no
        time; then each takes about as long as two thousand resamples of all images. What is not measured yet is
        None, or empty where it is by source; `intervals` are missing. The last is whole.
    """
    measured = PredictionSet.of_records(
        task, model, views, predictions, [item.prediction for item in predictions]
    )
    beginning = {"task": task.key, "views": views, "splits": sorted(filter(None, set(measured.splits)))}
    circumstances = _circumstances(failures, weights_sha256, excluded)
    sources, trust, slices = {}, dict.fromkeys(_TRUST_FIGURES), None
    measurement = measure(measured)
    figures = measurement.figures

    def so_far() -> Evaluation:
        metrics = {**beginning, **figures, "sources": sources, **trust, "slices": slices, **circumstances}
        return Evaluation(task.key, model, tuple(predictions), tuple(failures), metrics)

    yield so_far()
    figures = measurement.to_dict()
    yield so_far()
    sources = measure_sources(measured)
    yield so_far()
    for name, found in _trust_figures(measured, predictions, calibration, attributes):
        trust = trust | {name: found}
        yield so_far()
    if attributes is None:
        return
    for attribute in SLICED_BY:
        only = {
            image_id: {attribute: row[attribute]} for image_id, row in attributes.items() if attribute in row
        }
        slices = {**(slices or {}), attribute: measure_slices(measured, only)[attribute]}
        yield so_far()


def unmeasured_evaluation(
    task: Task,
    model: str,
    views: int,
    predictions: Sequence[LabelledPrediction],
    failures: Sequence[LabelledFailure],
    *,
    weights_sha256: str | None,
    excluded: Mapping[str, int],
) -> Evaluation:
    """Answers without the truth: no figures, only how they came about.

    The arguments are those of `assemble_evaluation`.
    """
    metrics = {
        "task": task.key,
        "views": views,
        "n": len(predictions),
        **_circumstances(failures, weights_sha256, excluded),
    }
    return Evaluation(task.key, model, tuple(predictions), tuple(failures), metrics)


def _circumstances(
    failures: Sequence[LabelledFailure], weights_sha256: str | None, excluded: Mapping[str, int]
) -> dict[str, Any]:
    return {
        "excluded": dict(excluded),
        "failed": len(failures),
        "weights_sha256": weights_sha256,
        "dermadeit_version": VERSION,
        "disclaimer": DISCLAIMER,
    }


def _trust_figures(
    measured: PredictionSet,
    predictions: Sequence[LabelledPrediction],
    calibration: Calibration | None,
    attributes: Attributes | None,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Figures of what a reader is told besides the label, those of `_TRUST_FIGURES` that there are.

    Without calibrated answers there are none of most of them, and without the calibration itself, as of a table
    whose checkpoint is not at hand, none of those that need its thresholds.
    """
    records = [item.prediction for item in predictions]
    if not records:
        return
    groups, probabilities = measured.lesion_groups, measured.probabilities
    yield "risk_coverage", risk_coverage(measured.hits, probabilities.max(axis=1), groups)
    if all(record.stability for record in records):
        flips = np.array([record.stability.flips for record in records])
        spreads = np.array([record.stability.spread for record in records])
        yield "stability", stability_figures(flips, spreads, measured.views, groups)
    if not all(record.calibrated for record in records):
        return
    if calibration is not None:
        yield "calibration", _before_and_after(measured, calibration)
        yield "operating_points", _operating_points(measured, calibration)
    # A table may say that its scores are calibrated and leave out what was decided with them.
    if all(record.conformal_set is not None for record in records):
        yield "conformal", _conformal(measured, records, attributes)
        withheld = np.array([record.verdict == ABSTAIN for record in records])
        warned = None
        if all(record.warning_codes is not None for record in records):
            warned = np.array([bool(record.warning_codes) for record in records])
        yield "abstention", abstention_figures(withheld, measured.hits, groups, warned)


def _conformal(
    measured: PredictionSet, records: Sequence[Prediction], attributes: Attributes | None
) -> dict[str, Any]:
    classes = measured.task.classes
    return {
        "nominal_coverage": CONFORMAL_COVERAGE,
        **conformal_figures(
            np.array([[key in record.conformal_set for key in classes] for record in records]),
            measured.labels,
            measured.lesion_groups,
            classes,
            _slicings(measured, attributes),
            SMALLEST_SLICE,
        ),
    }


def _before_and_after(measured: PredictionSet, calibration: Calibration) -> dict[str, Any]:
    labels, groups, classes = measured.labels, measured.lesion_groups, calibration.classes
    return {
        "scaling": calibration.by_views[measured.views].scaling.method,
        "before": calibration_figures(labels, softmax(measured.logits, axis=1), groups, classes),
        "after": calibration_figures(labels, measured.probabilities, groups, classes),
    }


def _operating_points(measured: PredictionSet, calibration: Calibration) -> dict[str, Any]:
    target = target_class(calibration.classes)
    thresholds = {
        name: calibration.operating_point(name, measured.views).threshold for name in OPERATING_POINTS
    }
    figures = operating_point_figures(
        measured.labels == target,
        {name: measured.target_scores >= threshold for name, threshold in thresholds.items()},
        measured.lesion_groups,
    )
    return {
        "target": calibration.target,
        "prevalence": float((measured.labels == target).mean()),
        **{name: {"threshold": thresholds[name], **figures[name]} for name in OPERATING_POINTS},
    }


def _slicings(measured: PredictionSet, attributes: Attributes | None) -> dict[str, Sequence[str]]:
    if attributes is None:
        return {"source": measured.sources}
    return {
        name: [attributes.get(image_id, {}).get(name, "") for image_id in measured.image_ids]
        for name in SLICED_BY
        if is_known(measured.image_ids, attributes, name)
    }


def write_evaluations(evaluations: Sequence[Evaluation], folder: Path, *, with_origin: bool = False) -> None:
    """Writes `metrics.json` (figures under each model's name), `predictions.csv` and `failures.csv`.

    Args:
        evaluations: One or more models on the same images and task.
        folder: Created when missing; files of an earlier run are replaced.
        with_origin: Whether each row says by itself how it came about: diagnosis, hashes, decision, what the
            decoder did to the pixels, version and disclaimer. Without, that is in `metrics.json` alone, but for
            the hashes of the images without an answer.
    """
    classes = get_task(evaluations[0].task, TRAINABLE_TASKS).classes
    columns = (
        "image_id", "file", "task", "model", "views", "label_true", "label_predicted",
        *(f"p_{key}" for key in classes), *(f"logit_{key}" for key in classes),
        "lesion_group", "source", "split", "calibrated", "verdict", "abstain_codes", "warning_codes",
        "conformal_set", "ood_score", "flips", "spread", *(_ORIGIN_COLUMNS if with_origin else ()),
    )  # fmt: skip
    write_json(
        folder / "metrics.json", {evaluation.model: dict(evaluation.metrics) for evaluation in evaluations}
    )
    write_csv(folder / "predictions.csv", columns, _prediction_rows(evaluations, with_origin))
    columns = (*_FAILURE_COLUMNS, *(_FAILURE_ORIGIN_COLUMNS if with_origin else ()))
    write_csv(folder / "failures.csv", columns, _failure_rows(evaluations, with_origin))


def _prediction_rows(evaluations: Sequence[Evaluation], with_origin: bool) -> Iterator[dict[str, Any]]:
    for evaluation in evaluations:
        for item in evaluation.predictions:
            prediction = item.prediction
            yield {
                "image_id": item.image_id,
                "file": item.file,
                "task": evaluation.task,
                "model": evaluation.model,
                "views": prediction.views,
                "label_true": item.label,
                "label_predicted": prediction.label,
                **{f"p_{key}": value for key, value in prediction.probabilities.items()},
                **{f"logit_{key}": value for key, value in prediction.logits.items()},
                "lesion_group": item.lesion_group,
                "source": item.source,
                "split": item.split,
                "calibrated": prediction.calibrated,
                "verdict": prediction.verdict,
                "abstain_codes": " ".join(prediction.abstain_codes),
                "warning_codes": " ".join(prediction.warning_codes or ()),
                "conformal_set": " ".join(prediction.conformal_set or ()),
                "ood_score": prediction.ood_score,
                "flips": prediction.stability and prediction.stability.flips,
                "spread": prediction.stability and prediction.stability.spread,
                **(_origin(evaluation, item) if with_origin else {}),
            }


def _origin(evaluation: Evaluation, item: LabelledPrediction) -> dict[str, Any]:
    prediction, point = item.prediction, item.prediction.operating_point
    return {
        "diagnosis": item.diagnosis,
        "sha256": prediction.sha256,
        "weights_sha256": evaluation.metrics["weights_sha256"],
        "operating_point": point and point.name,
        "threshold": point and point.threshold,
        "decision": point and point.decision,
        "ledger": " ".join(prediction.ledger),
        "warnings": " ".join(prediction.warnings),
        "dermadeit_version": VERSION,
        "disclaimer": DISCLAIMER,
    }


def _failure_rows(evaluations: Sequence[Evaluation], with_origin: bool) -> Iterator[dict[str, Any]]:
    for evaluation in evaluations:
        for item in evaluation.failures:
            yield {
                "image_id": item.image_id,
                "file": item.file,
                "sha256": item.failure.sha256,
                "task": evaluation.task,
                "model": evaluation.model,
                "label_true": item.label,
                "code": item.failure.code,
                "message": item.failure.message,
                **{
                    name: evaluation.metrics[name]
                    for name in (_FAILURE_ORIGIN_COLUMNS if with_origin else ())
                },
            }
