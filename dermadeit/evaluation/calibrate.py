"""What `calibrate` does: a trained checkpoint and a manifest to everything that is fitted after training."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from dermadeit.about import VERSION
from dermadeit.data.labelling import Reason
from dermadeit.data.manifest import Manifest, ManifestRow, read_source
from dermadeit.data.search import list_folder
from dermadeit.errors import ErrorCode, ImageError, TableError
from dermadeit.evaluation.gate_fitting import FittedGates, fit_gates, look_at, look_at_drawn
from dermadeit.evaluation.patient_context import fit_patient_context
from dermadeit.evaluation.predictions import SMALLEST_SLICE
from dermadeit.imaging.decode import LesionImage, decode_image
from dermadeit.inference.predictor import BATCH_IMAGES, DEFAULT_VIEWS, Predictor, ViewOutputs
from dermadeit.metrics.shares import calibration_figures, conformal_figures, operating_point_figures
from dermadeit.models.checkpoints import Checkpoint
from dermadeit.models.runtimes.choice import wanted_runtime
from dermadeit.tasks import DIAGNOSES, DIAGNOSIS, Task
from dermadeit.trust.calibration import (
    OPERATING_POINTS,
    Calibration,
    check_lesions,
    fit_class_weights,
    fit_view,
)
from dermadeit.trust.files import Trust
from dermadeit.trust.gating import GateVerdict
from dermadeit.trust.neighbours import NeighbourIndex
from dermadeit.trust.patient_context import PatientContext
from dermadeit.trust.scaling import Scaling, cross_fitted, fit_scaling, fit_temperature, fit_vector

logger = logging.getLogger(__name__)

_FITS = {"temperature": fit_temperature, "vector": fit_vector}


@dataclass(frozen=True, eq=False)
class _Seen:
    """What the model made of images that could be read.

    Attributes:
        rows: Their rows of the manifest.
        outputs: What the model gave for each.
    """

    rows: Sequence[ManifestRow]
    outputs: Sequence[ViewOutputs]

    @property
    def groups(self) -> list[str]:
        return [row.lesion_group for row in self.rows]

    def labels(self, network: Task) -> np.ndarray:
        """Int [M], indices of the network's classes."""
        return np.array([network.index_of(row.label) for row in self.rows])

    def logits(self, views: int) -> np.ndarray:
        """float32 [M, N], averaged over the first views."""
        return np.stack([item.logits[:views].mean(axis=0) for item in self.outputs])


def read_cases(
    source: Path, task: Task, images: Path | None = None, *, opened: ExitStack | None = None
) -> Manifest:
    """The training images of a manifest, for similar cases: of every diagnosis where it has diagnoses.

    A lesion that is like many nevi is worth knowing about where the model can't say nevus.

    Args:
        source: The table, folder or ZIP.
        task: Its classes stand in for the diagnoses of a table without.
        images: Folder that the table's files are relative to; None for the folder of the table.
        opened: As `read_source` takes it.

    Raises:
        TableError: The table can't be used, or has no training images.
    """
    try:
        manifest = read_source(source, DIAGNOSIS, images, opened=opened)
        if any(item.code == Reason.AMBIGUOUS_CLASS for item in manifest.exclusions):
            manifest = read_source(source, task, images, opened=opened)
    except TableError:
        manifest = read_source(source, task, images, opened=opened)
    return manifest.select("train")


def fit_trust(
    manifest: Manifest,
    cases: Manifest | None,
    predictor: Predictor,
    *,
    validation: Manifest | None = None,
    not_skin: Path | None = None,
    views: int = DEFAULT_VIEWS,
    progress: Callable[[], Any] = lambda: None,
) -> Trust:
    """Fits everything that a checkpoint gets after its training: one scaling, and what each of its tasks needs.

    Args:
        manifest: The calibration images, of the network's own task (`Checkpoint.network`). Scaling, operating
            points and gates are fitted to them alone.
        cases: The training images to find similar ones among, as `read_cases` gives them; None for no index.
        predictor: The model, asked any of its tasks.
        validation: The validation images, likewise. Class weights are chosen on both, age and sex are fitted on
            both, and a class with too few calibration lesions gets its conformal bound from both. None where there
            are none.
        not_skin: Folder of photos of anything but skin, from which the gates learn what to withhold; None for
            gates that know drawn pictures alone, and find fewer of such photos.
        views: Most dihedral views to calibrate for, 1 to 8; all smaller numbers come with them.
        progress: Called after each image.

    Raises:
        TableError: Too few images could be read.
        ConfigurationError: `views` is out of range, or the gates have too few images.
    """
    checkpoint = predictor.checkpoint
    seen = _look(predictor, manifest.rows, views, progress)
    more = _look(predictor, validation.rows, views, progress) if validation else _Seen((), ())
    both = _Seen((*seen.rows, *more.rows), (*seen.outputs, *more.outputs))
    check_lesions(both.labels(checkpoint.network), both.groups, checkpoint.network.classes)
    labels = seen.labels(checkpoint.network)
    check_lesions(labels, seen.groups, checkpoint.network.classes, least=1)
    scalings = {count: fit_scaling(seen.logits(count), labels, seen.groups) for count in range(1, views + 1)}
    calibrations = {
        task.key: _fit_reading(task, checkpoint, scalings, seen, both) for task in checkpoint.tasks
    }
    context, without_context = _fit_context(checkpoint, calibrations, both)
    fitted, tried = _fit_gates(manifest.rows, predictor, not_skin)
    return Trust(
        calibrations,
        fitted.gates,
        fitted.out_of_distribution,
        cases and _index(predictor, cases, progress),
        fitted.skin,
        {"gates": tried, "without_patient_context": without_context, "dermadeit_version": VERSION},
        context,
    )


def _fit_context(
    checkpoint: Checkpoint, calibrations: Mapping[str, Calibration], both: _Seen
) -> tuple[PatientContext | None, str | None]:
    """Answers with age and sex, or why there are none, as a sentence."""
    logits = {views: both.logits(views) for views in calibrations[checkpoint.network.key].by_views}
    try:
        context = fit_patient_context(checkpoint.network, checkpoint.tasks, calibrations, both.rows, logits)
    except TableError as error:
        return None, error.user_message
    return context, None


def _fit_reading(
    task: Task, checkpoint: Checkpoint, scalings: Mapping[int, Scaling], seen: _Seen, both: _Seen
) -> Calibration:
    """What belongs to one task.

    Args:
        task: One that the network answers.
        checkpoint: The network.
        scalings: Number of views to the scaling of the logits.
        seen: The calibration images.
        both: The same, and after them the validation images.
    """
    groups = task.group(checkpoint.network.classes)
    assert groups is not None, "only tasks that the network answers"
    labels = groups.regroup(both.labels(checkpoint.network))
    inside = labels >= 0
    labels, lesions = labels[inside], np.array(both.groups)[inside]
    calibrating = (np.arange(len(both.rows)) < len(seen.rows))[inside]
    probabilities = {
        count: groups.read(scaling(both.logits(count)[inside])) for count, scaling in scalings.items()
    }
    most = max(scalings)
    calibration = Calibration(
        task.key,
        task.classes,
        checkpoint.weights_sha256,
        {
            count: fit_view(
                scaling,
                probabilities[count],
                labels,
                lesions,
                task.index_of(task.target),
                calibrating,
                with_curve=count in (1, most),
            )
            for count, scaling in scalings.items()
        },
        target=task.target,
        groups=None if groups.is_identity else groups,
        class_weights=fit_class_weights(probabilities[most], labels) if task.weighs_classes else (),
        class_shares=_class_shares(seen, checkpoint.network),
    )
    report = {
        "images": int(calibrating.sum()),
        "lesions": len(set(lesions[calibrating])),
        "views": {
            str(count): _describe_view(calibration, count, checkpoint.network, seen)
            for count in sorted({1, most})
        },
    }
    return replace(calibration, report=report)


def _class_shares(seen: _Seen, network: Task) -> tuple[float, ...]:
    """Share of each of the network's classes among the images."""
    counts = np.bincount(seen.labels(network), minlength=len(network.classes))
    return tuple((counts / counts.sum()).tolist())


def refit_gates(
    manifest: Manifest,
    predictor: Predictor,
    trust: Trust,
    *,
    not_skin: Path | None = None,
    progress: Callable[[], Any] = lambda: None,
) -> Trust:
    """Fits the gates anew and leaves all else as it is: no probability, decision or similar case changes.

    Args:
        manifest: The calibration images.
        predictor: The model.
        trust: What was fitted for it before.
        not_skin: As in `fit_trust`.
        progress: Called after each calibration image.

    Raises:
        TableError: Too few images could be read.
        ConfigurationError: The gates have too few images.
    """
    fitted, tried = _fit_gates(manifest.rows, predictor, not_skin, progress)
    return replace(
        trust,
        gates=fitted.gates,
        out_of_distribution=fitted.out_of_distribution,
        skin=fitted.skin,
        report={**trust.report, "gates": tried, "dermadeit_version": VERSION},
    )


def _look(
    predictor: Predictor, rows: Sequence[ManifestRow], views: int, progress: Callable[[], Any]
) -> _Seen:
    readable: list[ManifestRow] = []
    outputs: list[ViewOutputs] = []
    for start in range(0, len(rows), BATCH_IMAGES):
        batch = rows[start : start + BATCH_IMAGES]
        images = dict(_decoded({row.image_id: row.content for row in batch}))
        readable += [row for row in batch if row.image_id in images]
        outputs += predictor.outputs(list(images.values()), views)
        for _ in batch:
            progress()
    if len(readable) < len(rows):
        logger.warning(
            "%d of %d images could not be read and are left out.", len(rows) - len(readable), len(rows)
        )
    if not readable:
        raise TableError(
            "No image could be read. If the files lie elsewhere, name their folder.",
            code=ErrorCode.NOTHING_READ,
        )
    broken = sum(not np.isfinite(item.logits).all() for item in outputs)
    if broken:
        raise TableError(
            f"The model gives no usable numbers for {broken} images. Check the checkpoint.",
            code=ErrorCode.NON_FINITE_OUTPUT,
        )
    return _Seen(readable, outputs)


def _decoded(contents: Mapping[str, Callable[[], bytes | Path]]) -> Iterator[tuple[str, LesionImage]]:
    for name, content in contents.items():
        try:
            yield name, decode_image(content())
        except ImageError as error:
            logger.warning("An image is left out: %s", error.user_message)


def _index(predictor: Predictor, cases: Manifest, progress: Callable[[], Any]) -> NeighbourIndex:
    # They are many, and the index keeps 8 bits of each number, which the fastest runtime gives too.
    fast = Predictor(predictor.checkpoint, predictor.device, wanted_runtime())
    seen = _look(fast, cases.rows, 1, progress)
    return NeighbourIndex.build(
        np.stack([item.distillation_embedding for item in seen.outputs]),
        [row.image_id for row in seen.rows],
        [row.label.upper() if row.label.upper() in DIAGNOSES else row.label for row in seen.rows],
        seen.groups,
    )


def _describe_view(calibration: Calibration, views: int, network: Task, seen: _Seen) -> dict[str, Any]:
    """Figures on the calibration split itself; those after scaling are of lesions that each fit had not seen."""
    fitted, classes = calibration.by_views[views], calibration.classes
    own, logits = seen.labels(network), seen.logits(views)
    read, labels = (lambda shares: shares), own
    if calibration.groups:
        read, labels = calibration.groups.read, calibration.groups.regroup(own)
    inside = labels >= 0
    labels, rows = labels[inside], [row for row, kept in zip(seen.rows, inside, strict=True) if kept]
    lesions, sources = [row.lesion_group for row in rows], [row.source for row in rows]
    held_out = cross_fitted(_FITS[fitted.scaling.method], logits, own, seen.groups)
    probabilities = calibration.probabilities(logits[inside], views)
    target = classes.index(calibration.target)
    answered = {
        name: probabilities[:, target] >= fitted.operating_points[name].threshold for name in OPERATING_POINTS
    }
    return {
        "scaling": fitted.scaling.method,
        "before": calibration_figures(
            labels, read(softmax(logits.astype(float), axis=1))[inside], lesions, classes
        ),
        "after": calibration_figures(labels, read(held_out)[inside], lesions, classes),
        "operating_points": operating_point_figures(labels == target, answered, lesions),
        "conformal": conformal_figures(
            probabilities >= np.array(fitted.least_probabilities),
            labels,
            lesions,
            classes,
            {"source": sources},
            SMALLEST_SLICE,
        ),
    }


def _fit_gates(
    rows: Sequence[ManifestRow],
    predictor: Predictor,
    not_skin: Path | None,
    progress: Callable[[], Any] = lambda: None,
) -> tuple[FittedGates, dict[str, Any]]:
    """The gates, and how many photos of each kind they withhold or warn of."""
    groups: list[str] = []

    def images() -> Iterator[LesionImage]:
        group_of = {row.image_id: row.lesion_group for row in rows}
        for image_id, image in _decoded({row.image_id: row.content for row in rows}):
            groups.append(group_of[image_id])
            yield image

    lesions = look_at(predictor, images(), progress)
    others = None
    if not_skin is not None:
        contents = {str(path): partial(Path, path) for path in list_folder(not_skin).images}
        others = look_at(predictor, (image for _, image in _decoded(contents)))
    fitted, scores = fit_gates(lesions, groups, look_at_drawn(predictor), others)
    tried = {
        "calibration": _describe_gates(fitted.judge(lesions, scores)),
        "not_skin": others and _describe_gates(fitted.judge(others)),
    }
    return fitted, tried


def _describe_gates(verdicts: Sequence[GateVerdict]) -> dict[str, Any]:
    return {
        "images": len(verdicts),
        "refused": sum(verdict.abstain for verdict in verdicts),
        "codes": dict(Counter(code for verdict in verdicts for code in verdict.codes)),
        "warned": sum(bool(verdict.warning_codes) for verdict in verdicts),
        "warning_codes": dict(Counter(code for verdict in verdicts for code in verdict.warning_codes)),
    }
