"""Images to predictions: decoding, batching, views, and the lock around one model on one device."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, replace
from itertools import islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from scipy.special import softmax

from dermadeit.data.patient import Patient
from dermadeit.errors import ConfigurationError, ImageError
from dermadeit.imaging.decode import READING_SIDE, LesionImage, decode_image, sanitise_name
from dermadeit.imaging.preprocessing import DIHEDRAL_VIEWS
from dermadeit.imaging.quality import QualityReport, QualityThresholds, assess_quality
from dermadeit.imaging.skin_tone import skin_angle
from dermadeit.inference.decision import decide_at_point
from dermadeit.inference.passes import PassQueue
from dermadeit.inference.records import (
    ABSTAIN,
    ANSWER,
    ContextReading,
    ItemFailure,
    Prediction,
    TaskReading,
)
from dermadeit.models.checkpoints import CHECKPOINT_ROOT, Checkpoint, find_checkpoint, load_checkpoint
from dermadeit.models.hub import names_a_checkpoint
from dermadeit.models.runtimes.choice import ChosenRuntime
from dermadeit.models.runtimes.runtime import ViewOutputs
from dermadeit.tasks import Task
from dermadeit.trust.calibration import (
    DEFAULT_OPERATING_POINT,
    Calibration,
    check_operating_point,
    fitted_for_views,
)
from dermadeit.trust.files import CALIBRATE_COMMAND, Trust
from dermadeit.trust.gating import gate
from dermadeit.trust.neighbours import (
    VOTERS,
    Neighbour,
    count_votes,
    describe_disagreement,
    describe_vote,
    disagrees,
)
from dermadeit.trust.patient_context import NOT_FITTED, has_age
from dermadeit.trust.stability import stability

if TYPE_CHECKING:
    import torch

DEFAULT_VIEWS = DIHEDRAL_VIEWS
"""Test-time augmentation views that an answer averages, unless asked otherwise."""

BATCH_IMAGES = 16

_DECODING_THREADS = 2

NOT_FINITE = "The model gave no usable numbers for this image. Check the checkpoint, then report this."
"""The message for an image for which a model gives NaN or infinity."""

NOT_CALIBRATED = (
    "These scores are not calibrated: a score of 90 % does not mean that 90 % of such answers are right. "
    "No answer is withheld."
)

TRAINING_IMAGE = "This photo was used for training ({image_id}). The answer is no evidence for new lesions."


@dataclass(frozen=True, eq=False)
class _Prepared:
    """What a batch needs of an image; the full photos of a batch would take gigabytes."""

    pixels: np.ndarray
    name: str
    sha256: str
    ledger: tuple[str, ...]
    warnings: tuple[str, ...]
    measures: Future[_Measures] | None


@dataclass(frozen=True)
class _Measures:
    """What the gates ask of the photo itself."""

    quality: QualityReport
    skin_angle: float | None


@dataclass(frozen=True)
class _Neighbours:
    """Training lesions that are like a photo, the nearest first, and the training photo that it is a copy of."""

    voters: tuple[Neighbour, ...]
    copy: Neighbour | None


@dataclass(frozen=True)
class _Request:
    """What is to be answered of every image."""

    views: int
    operating_point: str
    neighbours: int


@dataclass(frozen=True)
class Frame:
    """One picture of a DICOM file that holds several.

    Attributes:
        file: Path of the file.
        number: Which picture, from 1 on.
    """

    file: str | os.PathLike
    number: int


Source = str | os.PathLike | bytes | Image.Image | LesionImage | Frame


class Predictor:
    """Reads lesion images with one checkpoint. Safe to share between threads.

    Attributes:
        checkpoint: The model, what belongs to it, and the task that is asked.
        device: Where it runs.
        lock: Held during every pass through the model; hold it to run the model yourself.
        runtime: What runs it.

    Args:
        checkpoint: The model.
        device: Where to run.
        runtime: One of `RUNTIMES`: `torch` is the reference, `auto` the fastest that is here.
    """

    def __init__(
        self, checkpoint: Checkpoint, device: str | torch.device = "cpu", runtime: str = "torch"
    ) -> None:
        self.checkpoint = checkpoint
        self.device = device
        self.lock = threading.Lock()
        self.runtime = ChosenRuntime(checkpoint, device, runtime)
        self._passes = PassQueue(self.runtime, self.lock)

    def for_task(self, key: str) -> Predictor:
        """The same network in the same memory, asked another task.

        Raises:
            CheckpointError: Its classes can't form this task.
        """
        other = copy(self)
        other.checkpoint = self.checkpoint.for_task(key)
        return other

    def warm_up(self) -> None:
        """Builds the network and runs it once, so that the first photo need not wait for it."""
        side = self.checkpoint.preprocessing.size
        self._passes.submit([np.zeros((3, side, side), dtype=np.uint8)], 1)

    def predict(
        self,
        sources: Iterable[Source],
        views: int = DEFAULT_VIEWS,
        *,
        operating_point: str | None = None,
        neighbours: int = 0,
        patients: Patient | Iterable[Patient | None] | None = None,
    ) -> list[Prediction | ItemFailure]:
        """Reads images.

        Args:
            sources: Paths, encoded bytes, PIL images, decoded images, or frames of DICOM files.
            views: Dihedral views whose logits are averaged, 1 to 8.
            operating_point: One of `calibration.OPERATING_POINTS`, the balanced one by default.
            neighbours: How many similar training lesions to name.
            patients: Age and sex of the one patient whom all photos show, or of each photo's patient. The record
                then has the answer with them too, where the model was fitted so and the age is known.

        Returns:
            One record for each source, in order. An image that can't be read is an `ItemFailure` and does not
            stop the others.

        Raises:
            ConfigurationError: `views` is out of range, or the checkpoint was not calibrated and can't give an
                operating point or neighbours.
        """
        return list(
            self.predict_iter(
                sources, views, operating_point=operating_point, neighbours=neighbours, patients=patients
            )
        )

    def predict_iter(
        self,
        sources: Iterable[Source],
        views: int = DEFAULT_VIEWS,
        *,
        operating_point: str | None = None,
        neighbours: int = 0,
        patients: Patient | Iterable[Patient | None] | None = None,
    ) -> Iterator[Prediction | ItemFailure]:
        """Like `predict`, but yields each record as soon as its batch is done and holds two batches in memory."""
        request = self._check_request(views, operating_point, neighbours)
        for [record] in self._predict_in_batches(_paired(sources, patients), request, [self]):
            yield record

    def predict_tasks(
        self,
        sources: Iterable[Source],
        views: int = DEFAULT_VIEWS,
        *,
        operating_point: str | None = None,
        neighbours: int = 0,
        patients: Patient | Iterable[Patient | None] | None = None,
    ) -> Iterator[dict[str, Prediction | ItemFailure]]:
        """Reads images for every task that the network answers, in one pass through it.

        Args:
            sources: As for `predict`, and so are the others.
            views: Dihedral views whose logits are averaged, 1 to 8.
            operating_point: One of `calibration.OPERATING_POINTS`, the balanced one by default.
            neighbours: How many similar training lesions to name.
            patients: Age and sex of one patient or of each photo's.

        Yields:
            For each source, in order, the key of each task to the record that `predict` gives when it is asked.

        Raises:
            ConfigurationError: As `predict`.
        """
        request = self._check_request(views, operating_point, neighbours)
        asked = [self.for_task(task.key) for task in self.checkpoint.tasks]
        for records in self._predict_in_batches(_paired(sources, patients), request, asked):
            yield {record.task: record for record in records}

    def outputs(self, images: Sequence[LesionImage], views: int = DEFAULT_VIEWS) -> list[ViewOutputs]:
        """What the model itself says of decoded images, before anything is made of it.

        Args:
            images: They go through the model as one batch.
            views: Dihedral views, 1 to 8.

        Raises:
            ConfigurationError: `views` is out of range.
        """
        check_views(views)
        return self._passes.submit([self._squash(image) for image in images], views)

    def shallow_embeddings(self, images: Sequence[LesionImage]) -> np.ndarray:
        """What the first layers see of decoded images, float32 [N, C], as `ViewOutputs.shallow_embedding`.

        Args:
            images: One or more; they go through the first layers as one batch, unturned.
        """
        # Only fitting asks for them, and only PyTorch can stop a pass half-way.
        import torch

        from dermadeit.models.classifier import shallow_embeddings

        batch = torch.stack([self.checkpoint.preprocessing(image.pixels) for image in images])
        with self.lock, torch.inference_mode():
            classifier = self.checkpoint.classifier.to(self.device)
            found = shallow_embeddings(classifier, batch.to(self.device))
        return found.float().cpu().numpy()

    def _check_request(self, views: int, operating_point: str | None, neighbours: int) -> _Request:
        check_views(views)
        if operating_point is not None:
            check_operating_point(operating_point)
        trust = self.checkpoint.trust
        if self.checkpoint.calibration is None and (operating_point or neighbours):
            raise ConfigurationError(
                f"The checkpoint “{self.checkpoint.folder.name}” was not calibrated, so that it has no operating "
                f"points and no similar cases. Run “{CALIBRATE_COMMAND}” for it, or leave these options out."
            )
        if trust is not None and neighbours and trust.neighbours is None:
            raise ConfigurationError(
                f"The checkpoint “{self.checkpoint.folder.name}” has no index of similar cases. Run "
                f"“{CALIBRATE_COMMAND}” for it, or ask for no neighbours."
            )
        return _Request(views, operating_point or DEFAULT_OPERATING_POINT, neighbours)

    def _squash(self, image: LesionImage) -> np.ndarray:
        """The photo as a pass takes it: uint8 [3, S, S]."""
        return self.checkpoint.preprocessing.squash(image.pixels)

    def _predict_in_batches(
        self,
        sources: Iterable[tuple[Source, Patient | None]],
        request: _Request,
        asked: Sequence[Predictor],
    ) -> Iterator[list[Prediction | ItemFailure]]:
        """The record of each source for each of these, which are this network asked one task each."""
        for prepared in self._prepare_ahead(sources):
            pixels = [item.pixels for item, _ in prepared if isinstance(item, _Prepared)]
            outputs = iter(self._passes.submit(pixels, request.views))
            for item, patient in prepared:
                if isinstance(item, _Prepared):
                    yield self._records(item, next(outputs), request, patient, asked)
                else:
                    yield [replace(item, task=one.checkpoint.task.key) for one in asked]

    def _prepare_ahead(
        self, sources: Iterable[tuple[Source, Patient | None]]
    ) -> Iterator[list[tuple[_Prepared | ItemFailure, Patient | None]]]:
        """The images in batches; while one goes through the network, threads decode the next.

        A photo alone is measured meanwhile; those of a batch as they are decoded, so that they need not be kept.
        """
        remaining = iter(sources)
        batch = list(islice(remaining, BATCH_IMAGES))
        pool = ThreadPoolExecutor(_DECODING_THREADS, "decode")
        try:
            if len(batch) == 1:
                [(source, patient)] = batch
                yield [(self._prepare(source, pool), patient)]
                return
            coming = [(pool.submit(self._prepare, source), patient) for source, patient in batch]
            while coming:
                ready, batch = coming, islice(remaining, BATCH_IMAGES)
                coming = [(pool.submit(self._prepare, source), patient) for source, patient in batch]
                yield [(item.result(), patient) for item, patient in ready]
        finally:
            pool.shutdown(cancel_futures=True)

    def _prepare(self, source: Source, beside: Executor | None = None) -> _Prepared | ItemFailure:
        """What is needed of an image. Its measures are not waited for where somebody takes them beside."""
        source, frame = (source.file, source.number) if isinstance(source, Frame) else (source, 1)
        try:
            image = (
                source
                if isinstance(source, LesionImage)
                else decode_image(source, frame=frame, enough_side=READING_SIDE)
            )
            trust, measures = self.checkpoint.trust, None
            if trust is not None and beside is not None:
                measures = beside.submit(_measure, image, trust.gates.quality)
            elif trust is not None:
                measures = Future()
                measures.set_result(_measure(image, trust.gates.quality))
            return _Prepared(
                self._squash(image),
                image.name,
                image.sha256,
                image.ledger,
                image.warnings,
                measures,
            )
        except ImageError as error:
            name = os.fsdecode(source) if isinstance(source, str | os.PathLike) else None
            return self._failure(sanitise_name(name), error.sha256, error.code, error.user_message)

    def _records(
        self,
        image: _Prepared,
        outputs: ViewOutputs,
        request: _Request,
        patient: Patient | None,
        asked: Sequence[Predictor],
    ) -> list[Prediction | ItemFailure]:
        if not np.isfinite(outputs.logits).all():
            return [one._failure(image.name, image.sha256, "non_finite_output", NOT_FINITE) for one in asked]
        # Gates and similar cases belong to the network: they are looked up once for all tasks.
        trust = self.checkpoint.trust
        gates = _apply_gates(trust, image, outputs) if trust is not None else {}
        found = _find_neighbours(trust, outputs, request.neighbours) if trust and request.neighbours else None
        return [one._record(image, outputs, request, patient, gates, found) for one in asked]

    def _record(
        self,
        image: _Prepared,
        outputs: ViewOutputs,
        request: _Request,
        patient: Patient | None,
        gates: Mapping[str, Any],
        found: _Neighbours | None,
    ) -> Prediction:
        checkpoint = self.checkpoint
        trust, calibration = _fitted_for(checkpoint, request.views)
        logits = outputs.logits.mean(axis=0)
        record = Prediction(
            file=image.name,
            sha256=image.sha256,
            task=checkpoint.task.key,
            model=checkpoint.model,
            logits=dict(zip(checkpoint.network.classes, logits.tolist(), strict=True)),
            views=request.views,
            runtime=self.runtime.name,
            ledger=image.ledger,
            warnings=image.warnings if trust is not None else (*image.warnings, NOT_CALIBRATED),
            **answer_logits(checkpoint, logits, request.views, request.operating_point, patient),
        )
        if trust is not None:
            record = replace(record, **gates)
        record = replace(record, **_by_view(checkpoint, calibration, outputs.logits, record))
        return record if found is None else self._add_neighbours(record, found, request.neighbours)

    def _add_neighbours(self, record: Prediction, found: _Neighbours, count: int) -> Prediction:
        task, voters = self.checkpoint.task, found.voters
        votes = count_votes(voters, task)
        notes = (
            found.copy and TRAINING_IMAGE.format(image_id=found.copy.image_id),
            describe_disagreement(voters, record.label, task),
        )
        return replace(
            record,
            neighbours=voters[:count],
            voters=voters,
            neighbour_votes=votes,
            neighbour_vote=describe_vote(votes, record.label, task),
            neighbour_disagreement=disagrees(voters, record.label, task),
            warnings=(*record.warnings, *filter(None, notes)),
        )

    def _failure(self, file: str, sha256: str | None, code: str, message: str) -> ItemFailure:
        return ItemFailure(
            file, sha256, self.checkpoint.task.key, self.checkpoint.model, code=code, message=message
        )


def _measure(image: LesionImage, limits: QualityThresholds) -> _Measures:
    return _Measures(assess_quality(image, limits), skin_angle(image.pixels))


def _paired(
    sources: Iterable[Source], patients: Patient | Iterable[Patient | None] | None
) -> Iterable[tuple[Source, Patient | None]]:
    if patients is None or isinstance(patients, Patient):
        return zip(sources, repeat(patients), strict=False)
    return zip(sources, patients, strict=True)


def answer_logits(
    checkpoint: Checkpoint,
    logits: np.ndarray,
    views: int,
    operating_point: str,
    patient: Patient | None = None,
) -> dict[str, Any]:
    """What a checkpoint makes of logits: its readings, and that of the task that is asked.

    Args:
        checkpoint: The network, asked a task.
        logits: float [N], of the network's classes.
        views: How many views of a photo were averaged.
        operating_point: One of `calibration.OPERATING_POINTS`.
        patient: Age and sex; None where neither is known.

    Returns:
        The fields of a `Prediction` that rest on its probabilities, by their names.
    """
    trust, calibration = _fitted_for(checkpoint, views)
    shares = (
        softmax(logits.astype(float))
        if calibration is None
        else calibration.class_probabilities(logits, views)
    )
    readings = _read_all(checkpoint, trust and trust.calibrations, shares, views, operating_point)
    asked = readings[checkpoint.task.key]
    return {
        "label": asked.label,
        "probabilities": asked.probabilities,
        "calibrated": trust is not None,
        "operating_point": asked.operating_point,
        "conformal_set": asked.conformal_set,
        "prevalence": asked.prevalence,
        "class_probabilities": dict(zip(checkpoint.network.classes, shares.tolist(), strict=True)),
        "readings": readings,
        "patient_context": patient
        and _answer_with(patient, checkpoint, trust, shares, views, operating_point),
    }


def add_patient(checkpoint: Checkpoint, record: Prediction, patient: Patient | None) -> Prediction:
    """The record with the answer for a patient in place of any other, without another pass through the network.

    Args:
        checkpoint: The network that gave the record, asked the same task.
        record: As `Predictor.predict` gives it.
        patient: Age and sex; None for the answer of the photo alone.
    """
    trust, _ = _fitted_for(checkpoint, record.views)
    point = record.operating_point.name if record.operating_point else DEFAULT_OPERATING_POINT
    shares = np.array(list(record.class_probabilities.values()))
    context = patient and _answer_with(patient, checkpoint, trust, shares, record.views, point)
    return replace(record, patient_context=context)


def _answer_with(
    patient: Patient,
    checkpoint: Checkpoint,
    trust: Trust | None,
    class_probabilities: np.ndarray,
    views: int,
    operating_point: str,
) -> ContextReading:
    """The answer with age and sex, from the probabilities of the photo alone, float64 [N]."""
    context, task = trust and trust.patient_context, checkpoint.task.key
    if context is None:
        return ContextReading(patient, NOT_FITTED, task)
    note = context.note(patient)
    if not has_age(patient):
        return ContextReading(patient, note, task)
    [fused] = context.fusion(class_probabilities[None], [patient])
    return ContextReading(
        patient,
        note,
        task,
        dict(zip(checkpoint.network.classes, fused.tolist(), strict=True)),
        _read_all(checkpoint, context.calibrations, fused, views, operating_point),
    )


def _read_all(
    checkpoint: Checkpoint,
    calibrations: Mapping[str, Calibration] | None,
    class_probabilities: np.ndarray,
    views: int,
    operating_point: str,
) -> dict[str, TaskReading]:
    """The reading of each task from the probabilities of the network's classes, float64 [N]."""
    return {
        task.key: _read(
            task,
            None if calibrations is None else calibrations[task.key],
            checkpoint.network,
            class_probabilities,
            views,
            operating_point,
        )
        for task in checkpoint.tasks
        if calibrations is None or task.key in calibrations
    }


def _fitted_for(checkpoint: Checkpoint, views: int) -> tuple[Trust | None, Calibration | None]:
    """What was fitted for the task that is asked, with this number of views; neither where nothing was."""
    calibration = fitted_for_views(checkpoint.calibration, views)
    return (checkpoint.trust, calibration) if calibration is not None else (None, None)


def _read(
    task: Task,
    calibration: Calibration | None,
    network: Task,
    class_probabilities: np.ndarray,
    views: int,
    operating_point: str,
) -> TaskReading:
    """The reading of a task from the probabilities of the network's classes, float64 [N]."""
    groups = task.group(network.classes)
    assert groups is not None, "a network is asked only what it can answer"
    probabilities = groups.read(class_probabilities)
    by_class = dict(zip(task.classes, probabilities.tolist(), strict=True))
    if calibration is None:
        return TaskReading(by_class, task.classes[int(probabilities.argmax())])
    return TaskReading(
        by_class,
        task.classes[int(calibration.answers(probabilities))],
        decide_at_point(by_class, calibration, operating_point, views),
        calibration.conformal_set(list(by_class.values()), views),
        calibration.prevalence,
    )


def _by_view(
    checkpoint: Checkpoint, calibration: Calibration | None, view_logits: np.ndarray, record: Prediction
) -> dict[str, Any]:
    """The fields of a `Prediction` that say what its V views, float32 [V, N], would each answer alone."""
    calibration = fitted_for_views(calibration, 1)
    if calibration is None:
        probabilities = checkpoint.groups.read(softmax(view_logits.astype(float), axis=1))
    else:
        probabilities = calibration.probabilities(view_logits, 1)
    answer = list(record.probabilities).index(record.label)
    weights = calibration.class_weights if calibration is not None else ()
    return {
        "view_probabilities": tuple(map(tuple, probabilities.tolist())),
        "views_calibrated": calibration is not None,
        "stability": (
            stability(np.log(probabilities), answer=answer, class_weights=weights)
            if record.views > 1
            else None
        ),
    }


def _find_neighbours(trust: Trust, outputs: ViewOutputs, count: int) -> _Neighbours:
    index, embedding = trust.neighbours, outputs.distillation_embedding
    assert index is not None, "_check_request refuses the request"
    # More vote than are shown: a handful decides by chance.
    return _Neighbours(index.query(embedding, max(count, VOTERS)), index.find_copy(embedding))


def _apply_gates(trust: Trust, image: _Prepared, outputs: ViewOutputs) -> dict[str, Any]:
    """The fields of a `Prediction` that say whether its answer is withheld, or given with a warning."""
    embedding = outputs.shallow_embedding
    ood_score = float(trust.out_of_distribution.score(embedding))
    assert image.measures is not None, "a photo is measured for every checkpoint with gates"
    measures = image.measures.result()
    verdict = gate(
        measures.quality,
        ood_score,
        trust.gates,
        not_skin_score=float(trust.skin.score(embedding)) if trust.skin else None,
        skin_angle=measures.skin_angle,
    )
    return {
        "quality": measures.quality,
        "ood_score": ood_score,
        "verdict": ABSTAIN if verdict.abstain else ANSWER,
        "abstain_reasons": verdict.reasons,
        "abstain_codes": verdict.codes,
        "warning_codes": verdict.warning_codes,
        "warnings": (*image.warnings, *verdict.warnings),
    }


def check_views(views: int) -> None:
    """Raises `ConfigurationError` unless `views` is 1 to 8."""
    if not 1 <= views <= DIHEDRAL_VIEWS:
        raise ConfigurationError(f"{views} views were asked for; choose 1 to {DIHEDRAL_VIEWS}.")


def load_predictor(
    task: str | None = None,
    model: str = "dermadeit",
    *,
    root: Path = CHECKPOINT_ROOT,
    device: str | torch.device = "cpu",
    runtime: str = "torch",
) -> Predictor:
    """Loads a checkpoint. Only one on the Hugging Face Hub needs a network, and only to be fetched.

    Args:
        task: `diagnosis`, `binary`, `malignancy` or `multiclass`, as far as the network's classes can form it;
            None for the one that it was trained for. A checkpoint alone may stand here, as `model` names it.
        model: Name of a model that has an embedded checkpoint, the path of a checkpoint folder, or
            `hf-hub:ORG/NAME`.
        root: Folder that holds the checkpoints as `<model>/` or `<task>/<model>/`.
        device: Where to run.
        runtime: One of `RUNTIMES`: `torch` is the reference, `auto` the fastest that is here.

    Raises:
        TaskError: Unknown task.
        ModelError: Unknown model.
        CheckpointError: No checkpoint, or one that can't be used or can't answer the task.
        ConfigurationError: No task is named, and the model has a network for each.
    """
    if task is not None and names_a_checkpoint(task):
        task, model = None, task
    return Predictor(load_checkpoint(find_checkpoint(task, model, root), task=task), device, runtime)
