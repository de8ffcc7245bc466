"""A manifest and a predictor to an `Evaluation`, and evaluations to files."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypedDict, cast

import numpy as np
from scipy.special import softmax

from dermadeit.about import DISCLAIMER, VERSION
from dermadeit.data.manifest import Manifest, ManifestRow
from dermadeit.data.patient import Patient, patient_of
from dermadeit.data.tabular import write_csv
from dermadeit.errors import ImageError
from dermadeit.evaluation.patient_context import measure_context, take_with_context
from dermadeit.evaluation.predictions import SMALLEST_SLICE, PredictionSet, measure, measure_sources
from dermadeit.evaluation.slices import SLICED_BY, Attributes, is_known, measure_slices
from dermadeit.files import write_json
from dermadeit.inference.predictor import DEFAULT_VIEWS, Predictor
from dermadeit.inference.records import (
    ABSTAIN,
    ANSWER,
    Evaluation,
    ItemFailure,
    LabelledFailure,
    LabelledPrediction,
    Prediction,
    TaskReading,
)
from dermadeit.metrics.shares import (
    abstention_figures,
    calibration_figures,
    conformal_figures,
    operating_point_figures,
    risk_coverage,
    stability_figures,
)
from dermadeit.tasks import OWN, Task, get_task
from dermadeit.trust.calibration import CONFORMAL_COVERAGE, OPERATING_POINTS, Calibration
from dermadeit.trust.gating import answer_status

SINGLE_CLASS_LEFT = (
    "Only images of one class could be read, of a set with more, so that figures would mean nothing."
)
"""Why a labelled set has no figures."""

_TRUST_FIGURES = (
    "risk_coverage", "stability", "calibration", "operating_points", "conformal", "abstention",
)  # fmt: skip
_ROUNDED = 1e-4
_ORIGIN_COLUMNS = (
    "diagnosis", "sha256", "weights_sha256", "operating_point", "threshold", "decision", "ledger", "warnings",
    "dermadeit_version", "disclaimer",
)  # fmt: skip
_IMAGE_COLUMNS = ("image_id", "file", "task", "model", "views", "label_true", "label_predicted")
_SERVED_COLUMNS = (
    "lesion_group", "source", "split", "calibrated", "answer_status", "verdict", "abstain_codes", "warning_codes",
    "conformal_set", "ood_score", "flips", "spread",
)  # fmt: skip
_FAILURE_COLUMNS = ("image_id", "file", "sha256", "task", "model", "label_true", "code", "message")
_FAILURE_ORIGIN_COLUMNS = ("weights_sha256", "dermadeit_version", "disclaimer")


class ModelMetrics(TypedDict, total=False):
    """What `metrics.json` says of one model. What is not measured is None or absent.

    Beside these fields it has each of `classification.FIGURES` as a number.

    Attributes:
        task: Key of the task.
        target: Key of the class that must not be missed, of classes of the user's own.
        views: Dihedral views whose logits were averaged.
        splits: Names of the splits that the images are of.
        n: How many images were read.
        confusion_matrix: `classes`, and `counts` with a row for each true class.
        intervals: `method`, number of `lesions`, and figure name to [lower, upper].
        sources: Name of a collection to its own figures with intervals.
        lesions: The same figures where the photos of a lesion are answered together, with `n` lesions and
            `several_photos`, how many of them have more than one; None where no lesion has, or none is known.
        patient_context: Figures without and with age and sex, and their paired differences, as
            `patient_context.measure_context` gives them; absent where no answer has them.
        risk_coverage: `aurc`, and `curve` of `coverage` and `risk`, as `shares.risk_coverage` gives them.
        stability: How often turning the photo changes the answer, as `shares.stability_figures` gives it.
        calibration: `scaling`, and calibration figures `before` and `after` it.
        operating_points: `target`, `prevalence`, and name of each point to its `threshold` and figures.
        conformal: `nominal_coverage` and what `shares.conformal_figures` gives.
        abstention: What withholding answers brings, as `shares.abstention_figures` gives it.
        slices: Attribute to its figures by value, as `slices.measure_slices` gives them.
        excluded: Why images were left out to how many.
        failed: How many images could not be read.
        weights_sha256: Hex digest of the model's weights; None where they are not here.
        dermadeit_version: That made the file.
        disclaimer: That this is no medical device.
    """

    task: str
    target: str
    views: int
    splits: list[str]
    n: int
    confusion_matrix: dict[str, Any]
    intervals: dict[str, Any]
    sources: dict[str, dict[str, Any]]
    lesions: dict[str, Any] | None
    patient_context: dict[str, Any]
    risk_coverage: dict[str, Any] | None
    stability: dict[str, Any] | None
    calibration: dict[str, Any] | None
    operating_points: dict[str, Any] | None
    conformal: dict[str, Any] | None
    abstention: dict[str, Any] | None
    slices: dict[str, dict[str, Any]] | None
    excluded: dict[str, int]
    failed: int
    weights_sha256: str | None
    dermadeit_version: str
    disclaimer: str


MetricsFile = dict[str, ModelMetrics]
"""`metrics.json`: name of each model to its figures."""


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
    records = []
    patients = _patients(manifest.rows, predictor)
    for record in predictor.predict_iter(map(_content, manifest.rows), views, patients=patients):
        records.append(record)
        progress()
    return _compare_with_labels(manifest, records, predictor, views, attributes)


def evaluate_tasks(
    manifests: Sequence[Manifest],
    predictor: Predictor,
    views: int = DEFAULT_VIEWS,
    progress: Callable[[], Any] = lambda: None,
    attributes: Attributes | None = None,
) -> list[Evaluation]:
    """As `evaluate`, for several tasks that one network answers, in one pass through it.

    Args:
        manifests: The labelled images of each task. An image has one identifier in all of them.
        predictor: The model, asked any of its tasks.
        views: Dihedral views whose logits are averaged, 1 to 8.
        progress: Called after each image.
        attributes: As for `evaluate`.

    Returns:
        The evaluation of each manifest, in their order.
    """
    rows = {row.image_id: row for manifest in manifests for row in manifest.rows}
    found: dict[str, Mapping[str, Prediction | ItemFailure]] = {}
    patients = _patients(rows.values(), predictor)
    answers = predictor.predict_tasks(map(_content, rows.values()), views, patients=patients)
    for image_id, records in zip(rows, answers, strict=True):
        found[image_id] = records
        progress()
    return [
        _compare_with_labels(
            manifest,
            [found[row.image_id][manifest.task.key] for row in manifest.rows],
            predictor.for_task(manifest.task.key),
            views,
            attributes,
        )
        for manifest in manifests
    ]


def _patients(rows: Iterable[ManifestRow], predictor: Predictor) -> list[Patient | None] | None:
    """Age and sex of each photo's patient, where the network was fitted with them."""
    if predictor.checkpoint.patient_context is None:
        return None
    return [patient_of(row.metadata) for row in rows]


def _compare_with_labels(
    manifest: Manifest,
    records: Sequence[Prediction | ItemFailure],
    predictor: Predictor,
    views: int,
    attributes: Attributes | None,
) -> Evaluation:
    predictions, failures = [], []
    for row, record in zip(manifest.rows, records, strict=True):
        if isinstance(record, ItemFailure):
            failures.append(LabelledFailure(row.image_id, row.file, row.label, record))
        else:
            predictions.append(label_prediction(row, record))
    ledger = manifest.ledger and manifest.ledger.to_dict()
    if single_class_left([item.label for item in predictions], [row.label for row in manifest.rows]):
        return unmeasured_evaluation(
            manifest.task,
            predictor.checkpoint.model,
            views,
            predictions,
            failures,
            weights_sha256=predictor.checkpoint.weights_sha256,
            excluded=manifest.excluded,
            ledger=ledger,
            not_measured=SINGLE_CLASS_LEFT,
        )
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
        ledger=ledger,
    )


def single_class_left(answered: Sequence[str], known: Sequence[str]) -> bool:
    """Whether images of one class alone were answered, of a set that has others: figures would mean nothing.

    Args:
        answered: Labels of the images that got an answer.
        known: Labels of all images of the set.
    """
    return len(set(answered)) == 1 and len(set(known)) > 1


def _content(row: ManifestRow) -> Any:
    try:
        return row.content()
    except ImageError:
        # What no image starts with: the item fails, and the others don't.
        return b""


def label_prediction(image: Any, record: Prediction) -> LabelledPrediction:
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
    ledger: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Compares answers that were given already with the truth.

    Args:
        task: What was asked.
        model: Name of the model.
        views: Dihedral views whose logits were averaged.
        predictions: The answers.
        failures: The images that got none.
        calibration: Of the model; None without, or where its weights are not here.
        weights_sha256: Hex digest of its weights; None where they are not here.
        excluded: Why images were left out, and how many for each reason.
        attributes: What the images are sliced by; None for sources only.
        ledger: What was taken for what in the table or the folders, as `Ledger.to_dict` gives it.
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
        ledger=ledger,
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
    ledger: Mapping[str, Any] | None = None,
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
    beginning = {**_named_task(task), "views": views, "splits": sorted(filter(None, set(measured.splits)))}
    circumstances = _circumstances(failures, weights_sha256, excluded, ledger)
    sources: dict[str, Any] = {}
    lesions: dict[str, Any] | None = None
    context: dict[str, Any] = {}
    trust: dict[str, Any] = dict.fromkeys(_TRUST_FIGURES)
    slices: dict[str, Any] | None = None
    measurement = measure(measured)
    figures = measurement.figures

    def so_far() -> Evaluation:
        metrics = {
            **beginning,
            **figures,
            "sources": sources,
            "lesions": lesions,
            **context,
            **trust,
            "slices": slices,
            **circumstances,
        }
        return Evaluation(task.key, model, tuple(predictions), tuple(failures), metrics)

    yield so_far()
    figures = measurement.to_dict()
    yield so_far()
    sources = measure_sources(measured)
    yield so_far()
    together = join_lesions(measured, predictions, calibration)
    if together is not None:
        several = sum(count > 1 for count in Counter(measured.lesion_groups).values())
        lesions = {"several_photos": several, **measure(together).to_dict()}
        yield so_far()
    pair = take_with_context(measured, [item.prediction for item in predictions])
    if pair is not None:
        context = {"patient_context": measure_context(*pair)}
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


def join_lesions(
    measured: PredictionSet, predictions: Sequence[LabelledPrediction], calibration: Calibration | None
) -> PredictionSet | None:
    """The answers for whole lesions, each by the mean logit of its photos.

    Args:
        measured: The answers for each photo. Withheld ones don't count, as in `inference.lesion`.
        predictions: The same, as they were served.
        calibration: Of the model; None without, or where its weights are not here.

    Returns:
        One row a lesion, without those whose photos have different labels. None where every lesion has one photo,
        or where the answers are calibrated by what is not here.
    """
    answered = [item.prediction.verdict == ANSWER for item in predictions]
    measured = measured.take(np.flatnonzero(answered))
    names, firsts, lesion = np.unique(
        np.array(measured.lesion_groups), return_index=True, return_inverse=True
    )
    served = any(item.prediction.calibrated for item in predictions)
    if len(names) == len(measured) or (served and not (calibration and _are_of(measured, calibration))):
        return None
    photos = np.bincount(lesion)
    logits = np.stack([np.bincount(lesion, column) / photos for column in measured.logits.T], axis=1)
    agree = np.bincount(lesion, measured.labels != measured.labels[firsts][lesion]) == 0
    if served and calibration is not None:
        probabilities = calibration.probabilities(logits, measured.views)
        decided = calibration.answers(probabilities) if calibration.class_weights else None
    else:
        groups = measured.task.group(measured.network or measured.task.classes)
        assert groups is not None, "the network has answered the task"
        probabilities, decided = groups.read(softmax(logits, axis=1)), None
    lesions = replace(
        measured.take(firsts),
        image_ids=tuple(names.tolist()),
        logits=logits,
        probabilities=probabilities,
        decided=decided,
        served=(),
        other_answers={},
    )
    return lesions.take(np.flatnonzero(agree)) if agree.any() else None


def _are_of(measured: PredictionSet, calibration: Calibration) -> bool:
    """Whether the logits are those that the probabilities were made of; a table may give probabilities alone."""
    if measured.views not in calibration.by_views or measured.logits.shape[1] != len(calibration.network):
        return False
    again = calibration.probabilities(measured.logits, measured.views)
    return np.allclose(again, measured.probabilities, atol=_ROUNDED)


def unmeasured_evaluation(
    task: Task,
    model: str,
    views: int,
    predictions: Sequence[LabelledPrediction],
    failures: Sequence[LabelledFailure],
    *,
    weights_sha256: str | None,
    excluded: Mapping[str, int],
    ledger: Mapping[str, Any] | None = None,
    not_measured: str = "",
) -> Evaluation:
    """Answers without figures, only how they came about.

    The arguments are those of `assemble_evaluation`; `not_measured` says why there are none, of labelled images.
    """
    metrics = {
        **_named_task(task),
        "views": views,
        "n": len(predictions),
        **({"not_measured": not_measured} if not_measured else {}),
        **_circumstances(failures, weights_sha256, excluded, ledger),
    }
    return Evaluation(task.key, model, tuple(predictions), tuple(failures), metrics)


def _named_task(task: Task) -> dict[str, str]:
    """The task for a result file; classes of the user's own don't say by themselves which must not be missed."""
    return {"task": task.key, **({"target": task.target} if task.key == OWN else {})}


def _circumstances(
    failures: Sequence[LabelledFailure],
    weights_sha256: str | None,
    excluded: Mapping[str, int],
    ledger: Mapping[str, Any] | None,
) -> dict[str, Any]:
    return {
        "ledger": ledger,
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
    """Figures of what is shown besides the label, those of `_TRUST_FIGURES` that there are.

    Without calibrated answers there are none of most of them, and without the calibration itself, as of a table
    whose checkpoint is not here, none of those that need its thresholds.
    """
    records = [item.prediction for item in predictions]
    if not records:
        return
    groups, probabilities = measured.lesion_groups, measured.probabilities
    yield "risk_coverage", risk_coverage(measured.hits, probabilities.max(axis=1), groups)
    stabilities = [record.stability for record in records if record.stability]
    if len(stabilities) == len(records):
        flips = np.array([stability.flips for stability in stabilities])
        spreads = np.array([stability.spread for stability in stabilities])
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
            np.array([[key in (record.conformal_set or ()) for key in classes] for record in records]),
            measured.labels,
            measured.lesion_groups,
            classes,
            _slicings(measured, attributes),
            SMALLEST_SLICE,
        ),
    }


def _before_and_after(measured: PredictionSet, calibration: Calibration) -> dict[str, Any]:
    labels, groups, classes = measured.labels, measured.lesion_groups, calibration.classes
    plain = softmax(measured.logits, axis=1)
    if calibration.groups is not None:
        plain = calibration.groups.read(plain)
    return {
        "scaling": calibration.by_views[measured.views].scaling.method,
        "before": calibration_figures(labels, plain, groups, classes),
        "after": calibration_figures(labels, measured.probabilities, groups, classes),
    }


def _operating_points(measured: PredictionSet, calibration: Calibration) -> dict[str, Any]:
    target = calibration.classes.index(calibration.target)
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


def prediction_columns(
    classes: Sequence[str],
    network: Sequence[str] | None = None,
    other_tasks: Sequence[str] = (),
    *,
    with_context: bool = False,
    with_origin: bool = False,
) -> tuple[str, ...]:
    """The columns of `predictions.csv`, a row for each image that was read.

    - `image_id`, `file`, `task`, `model`, `views`: the image, and what was asked of which model.
    - `label_true`, `label_predicted`: keys of the true class and of the one that was answered.
    - `p_<class>`, `logit_<class>`: probability (0 to 1) of each class of the task, and logit of each class of the
      network; the logits are not calibrated.
    - `answer_<task>`: of a network of several tasks, what it answered for the others.
    - `context_label`, `context_p_<class>`: the class that is answered with age and sex, and the probabilities of
      the task's classes with them; empty without an age.
    - `lesion_group`, `source`, `split`: as the manifest gives them.
    - `calibrated`: whether the probabilities are, True or False.
    - `answer_status`: whether the answer is withheld or has a warning, and why, as `gating.answer_status` says it.
    - `verdict`, `abstain_codes`, `warning_codes`, `conformal_set`: as in `records.PredictionRecord`; several
      names in one cell are separated by spaces.
    - `ood_score`, `flips`, `spread`: likewise; empty where they were not measured.
    - With origin: `diagnosis` of the manifest; `sha256` of the image and `weights_sha256` of the model; the
      `decision` at the `threshold` of an `operating_point`; `ledger` and `warnings` as sentences;
      `dermadeit_version` and `disclaimer`.

    `write_evaluations` adds `target`, the class that must not be missed, where the classes are the user's own.

    Args:
        classes: Class keys of the task.
        network: Class keys of the logits; None for those of the task.
        other_tasks: Keys of the other tasks that were answered.
        with_context: Whether there are answers with age and sex.
        with_origin: Whether each row says by itself how it came about.
    """
    scores = (
        *(f"p_{key}" for key in classes),
        *(f"logit_{key}" for key in (classes if network is None else network)),
        *(f"answer_{key}" for key in other_tasks),
        *(("context_label", *(f"context_p_{key}" for key in classes)) if with_context else ()),
    )
    return (*_IMAGE_COLUMNS, *scores, *_SERVED_COLUMNS, *(_ORIGIN_COLUMNS if with_origin else ()))


def write_evaluations(evaluations: Sequence[Evaluation], folder: Path, *, with_origin: bool = False) -> None:
    """Writes `metrics.json` (figures under each model's name), `predictions.csv` and `failures.csv`.

    Args:
        evaluations: One or more models on the same images and task.
        folder: Created when missing; files of an earlier run are replaced.
        with_origin: Whether each row says by itself how it came about: diagnosis, hashes, decision, what the
            decoder did to the pixels, version and disclaimer. Without, that is in `metrics.json` alone, but for
            the hashes of the images without an answer.
    """
    classes = _classes_of(evaluations)
    metrics: MetricsFile = {
        evaluation.model: cast(ModelMetrics, dict(evaluation.metrics)) for evaluation in evaluations
    }
    write_json(folder / "metrics.json", metrics)
    answered = [item.prediction for evaluation in evaluations for item in evaluation.predictions]
    columns = prediction_columns(
        classes,
        tuple(dict.fromkeys(key for prediction in answered for key in prediction.logits)) or None,
        tuple(dict.fromkeys(key for prediction in answered for key in _other_readings(prediction))),
        with_context=any(_context_cells(prediction) for prediction in answered),
        with_origin=with_origin,
    )
    if "target" in evaluations[0].metrics:
        columns += ("target",)
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
                **{f"answer_{key}": reading.label for key, reading in _other_readings(prediction).items()},
                **_context_cells(prediction),
                "lesion_group": item.lesion_group,
                "source": item.source,
                "split": item.split,
                "calibrated": prediction.calibrated,
                "answer_status": answer_status(prediction),
                "verdict": prediction.verdict,
                "abstain_codes": " ".join(prediction.abstain_codes),
                "warning_codes": " ".join(prediction.warning_codes or ()),
                "conformal_set": " ".join(prediction.conformal_set or ()),
                "ood_score": prediction.ood_score,
                "flips": prediction.stability and prediction.stability.flips,
                "spread": prediction.stability and prediction.stability.spread,
                **{name: evaluation.metrics[name] for name in ("target",) if name in evaluation.metrics},
                **(_origin(evaluation, item) if with_origin else {}),
            }


def _other_readings(prediction: Prediction) -> dict[str, TaskReading]:
    return {key: reading for key, reading in prediction.readings.items() if key != prediction.task}


def _context_cells(prediction: Prediction) -> dict[str, Any]:
    asked = prediction.patient_context and prediction.patient_context.asked
    if asked is None:
        return {}
    return {
        "context_label": asked.label,
        **{f"context_p_{key}": value for key, value in asked.probabilities.items()},
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


def _classes_of(evaluations: Sequence[Evaluation]) -> tuple[str, ...]:
    if evaluations[0].task != OWN:
        return get_task(evaluations[0].task).classes
    # Classes of one's own are known to the records alone.
    answered = (item for evaluation in evaluations for item in evaluation.predictions)
    first = next(iter(answered), None)
    return tuple(first.prediction.probabilities) if first else ()
