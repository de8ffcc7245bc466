"""A collection read by one or more models, a few images at a time, and what came of it.

Of each image only the answers, a line of attributes and two pictures on disk are kept, never its pixels, so
that a batch of thousands takes no more memory than a few of its images.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from types import MappingProxyType
from uuid import uuid4

import numpy as np

from dermadeit.data.collection import CollectedImage, Collection, check_table_size
from dermadeit.data.labelling import Ledger, LeftOut
from dermadeit.data.patient import patient_of
from dermadeit.errors import ErrorCode, ImageError, ResultFileError, TableError
from dermadeit.evaluation.comparison import ComparedModel, gather_models
from dermadeit.evaluation.evaluate import (
    SINGLE_CLASS_LEFT,
    assemble_in_steps,
    label_prediction,
    single_class_left,
    unmeasured_evaluation,
)
from dermadeit.evaluation.plain_tables import KnownImages, know_no_images
from dermadeit.evaluation.predictions import (
    PredictionSet,
    ServedFlags,
    keep_shared_images,
    read_predictions,
    select_most_views,
    select_task,
)
from dermadeit.evaluation.slices import describe_image
from dermadeit.imaging.decode import LesionImage
from dermadeit.inference.predictor import Predictor, check_views
from dermadeit.inference.records import ANSWER, Evaluation, ItemFailure, LabelledFailure, Prediction
from dermadeit.tasks import Task
from dermadeit.trust.calibration import Calibration, fitted_for_views

THUMBNAIL_SIDE = 128
"""Longest side of the small pictures that are kept, in pixels."""

PICTURE_SIDE = 640
"""Longest side of the large ones."""

_NOT_SHARED = "not every model of the table has read it"

_PASSES = 32
"""Views of images that go through a model before the next look at who else wants something."""

_MOST_IMAGES = 16

_PIXELS = 48_000_000
"""Decoded pixels that are held at once."""


@dataclass(frozen=True)
class Progress:
    """How far a batch has come.

    Attributes:
        done: Images that were read or that could not be.
        total: Images of the collection.
        images_per_second: Since the start; None before the first ones are done.
        seconds_left: At this rate; None where there is no rate yet.
    """

    done: int
    total: int
    images_per_second: float | None
    seconds_left: float | None


@dataclass(frozen=True, eq=False)
class BatchItem:
    """One image that was tried.

    Attributes:
        image: The image as it came; it can't be read again.
        attributes: What it is sliced by; empty without labels.
        thumbnail: A JPEG file of at most `THUMBNAIL_SIDE` pixels; None where there is none.
        records: What each model made of it, in the order of `BatchResult.models`.
        picture: The same of at most `PICTURE_SIDE` pixels.
    """

    image: CollectedImage
    attributes: Mapping[str, str]
    thumbnail: Path | None
    records: tuple[Prediction | ItemFailure, ...]
    picture: Path | None = None


@dataclass(frozen=True, eq=False)
class BatchResult:
    """What was finished of a batch.

    Attributes:
        task: What was asked.
        models: Names of the models.
        views: Model to the dihedral views whose logits were averaged.
        items: The images that were tried, in the order of the collection.
        left_out: What was uploaded and not tried, and why.
        notes: What had to be assumed, as sentences.
        labelled: Whether the true classes are known.
        calibrations: Model to its calibration; None where it has none or its weights are not here.
        weights: Model to the hex digest of its weights; None where they are not here.
        missing: Images that were not tried, because the batch was cancelled.
        ledger: What was taken for what in the table or the folders; None without labels, or of predictions.
        is_shipped: Whether these are the shipped predictions, so that the images are known to be those of ISIC.
    """

    task: Task
    models: tuple[str, ...]
    views: Mapping[str, int]
    items: tuple[BatchItem, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]
    labelled: bool
    calibrations: Mapping[str, Calibration | None]
    weights: Mapping[str, str | None]
    missing: int = 0
    ledger: Ledger | None = None
    is_shipped: bool = False

    @property
    def excluded(self) -> dict[str, int]:
        """Why things were left out, and how many for each reason."""
        reasons = Counter(item.reason for item in self.left_out)
        return dict(reasons + Counter({"cancelled before it was read": self.missing}))

    def read(self, model: str) -> list[tuple[BatchItem, Prediction]]:
        """The images that a model answered, with its answers."""
        place = self.models.index(model)
        found = [(item, item.records[place]) for item in self.items]
        return [(item, record) for item, record in found if isinstance(record, Prediction)]

    def failed(self, model: str) -> list[tuple[BatchItem, ItemFailure]]:
        """The images that a model gave no answer for, and why."""
        place = self.models.index(model)
        found = [(item, item.records[place]) for item in self.items]
        return [(item, record) for item, record in found if isinstance(record, ItemFailure)]

    def prediction_set(self, model: str) -> PredictionSet:
        """A model's answers as arrays; only where the batch is labelled."""
        read = self.read(model)
        return PredictionSet.of_records(
            self.task,
            model,
            self.views[model],
            [item.image for item, _ in read],
            [record for _, record in read],
        )

    def evaluation(self, model: str) -> Evaluation:
        """A model's answers as an evaluation; without labels it holds no figures, only how it came about."""
        [evaluation] = deque(self.evaluation_in_steps(model), maxlen=1)
        return evaluation

    def evaluation_in_steps(self, model: str) -> Iterator[Evaluation]:
        """As `evaluate`, as far as it is measured; `evaluate.assemble_in_steps` says what comes when."""
        predictions = [label_prediction(item.image, record) for item, record in self.read(model)]
        failures = [
            LabelledFailure(item.image.image_id, item.image.file, item.image.label, record)
            for item, record in self.failed(model)
        ]
        answers = (self.task, model, self.views[model], predictions, failures)
        origin = {
            "weights_sha256": self.weights[model],
            "excluded": self.excluded,
            "ledger": self.ledger and self.ledger.to_dict(),
        }
        if not self.labelled:
            yield unmeasured_evaluation(*answers, **origin)
            return
        yield from assemble_in_steps(
            *answers, **origin, calibration=self.calibrations[model], attributes=self._attributes()
        )

    def _attributes(self) -> dict[str, Mapping[str, str]] | None:
        described = {item.image.image_id: item.attributes for item in self.items}
        return described if any(described.values()) else None


class Batch:
    """One run over a collection.

    Labelled images are read in an order that mixes the classes, so that what is read when it is cancelled is a
    sample of all of them.

    Args:
        collection: The images.
        predictors: Name to model, all of the collection's task.
        views: Dihedral views whose logits are averaged, 1 to 8.
        pictures: Where to keep the pictures; None keeps none.
    """

    def __init__(
        self,
        collection: Collection,
        predictors: Mapping[str, Predictor],
        views: int,
        pictures: Path | None = None,
    ) -> None:
        check_views(views)
        self._collection = collection
        self._order = mixed_order([image.label for image in collection.images])
        self._predictors = predictors
        self._views = views
        self._pictures = pictures
        self._cancelled = threading.Event()
        # In the order of reading.
        self._items: list[BatchItem] = []

    def cancel(self) -> None:
        """Stops after the images that are being read; from another thread."""
        self._cancelled.set()

    def run(self) -> Iterator[Progress]:
        """Reads the images, and yields after every few of them and once before the first."""
        total, start = len(self._collection.images), time.monotonic()
        yield Progress(0, total, None, None)
        for chunk in self._chunks():
            self._items += self._read(chunk)
            done, seconds = len(self._items), time.monotonic() - start
            rate = done / seconds if seconds > 0 else None
            yield Progress(done, total, rate, (total - done) / rate if rate else None)

    def result(self) -> BatchResult:
        """What is finished so far."""
        checkpoints = {name: predictor.checkpoint for name, predictor in self._predictors.items()}
        done = sorted(zip(self._order, self._items, strict=False), key=itemgetter(0))
        is_remainder = single_class_left(
            [item.image.label for item in self._items if _has_answer(item)], self._collection.classes
        )
        notes = (*((SINGLE_CLASS_LEFT,) if is_remainder else ()), *self._collection.notes)
        return BatchResult(
            self._collection.task,
            tuple(self._predictors),
            dict.fromkeys(self._predictors, self._views),
            tuple(item for _, item in done),
            self._collection.left_out,
            notes,
            self._collection.labelled and not is_remainder,
            calibrations={name: checkpoint.calibration for name, checkpoint in checkpoints.items()},
            weights={name: checkpoint.weights_sha256 for name, checkpoint in checkpoints.items()},
            missing=len(self._collection.images) - len(self._items),
            ledger=self._collection.ledger,
        )

    def _chunks(self) -> Iterator[list[tuple[CollectedImage, LesionImage | ImageError]]]:
        """A few decoded images at a time: fewer where they are large or seen often."""
        most = max(1, min(_MOST_IMAGES, _PASSES // self._views))
        chunk, pixels = [], 0
        for index in self._order:
            image = self._collection.images[index]
            if self._cancelled.is_set():
                break
            try:
                decoded = image.decode()
                pixels += decoded.width * decoded.height
            except ImageError as error:
                decoded = error
            chunk.append((image, decoded))
            if len(chunk) >= most or pixels >= _PIXELS:
                yield chunk
                chunk, pixels = [], 0
        if chunk:
            yield chunk

    def _read(self, chunk: Sequence[tuple[CollectedImage, LesionImage | ImageError]]) -> list[BatchItem]:
        photos = [decoded for _, decoded in chunk if isinstance(decoded, LesionImage)]
        patients = [
            patient_of(image.metadata) for image, decoded in chunk if isinstance(decoded, LesionImage)
        ]
        answers = [
            iter(
                predictor.predict(
                    photos, self._views, patients=patients if predictor.checkpoint.patient_context else None
                )
            )
            for predictor in self._predictors.values()
        ]
        items = []
        for image, decoded in chunk:
            if isinstance(decoded, ImageError):
                items.append(BatchItem(_closed(image), {}, None, self._failures(image, decoded)))
                continue
            attributes = describe_image(image, decoded.pixels) if image.label else {}
            records = tuple(_compact(next(records)) for records in answers)
            large, small = self._keep_pictures(decoded)
            items.append(BatchItem(_closed(image), attributes, small, records, large))
        return items

    def _failures(self, image: CollectedImage, error: ImageError) -> tuple[ItemFailure, ...]:
        task, why = self._collection.task.key, {"code": error.code, "message": error.user_message}
        return tuple(ItemFailure(image.file, error.sha256, task, name, **why) for name in self._predictors)

    def _keep_pictures(self, photo: LesionImage) -> tuple[Path | None, Path | None]:
        """The large and the small picture."""
        if self._pictures is None:
            return None, None
        picture, paths = photo.to_pil(), []
        # Each is made of the larger one before it.
        for side in (PICTURE_SIDE, THUMBNAIL_SIDE):
            picture.thumbnail((side, side))
            paths.append(self._pictures / f"{uuid4().hex}.jpg")
            picture.save(paths[-1], "JPEG", quality=85)
        return paths[0], paths[1]


def mixed_order(labels: Sequence[str]) -> list[int]:
    """An order in which every beginning holds all classes, in about the shares that they have altogether.

    Args:
        labels: Class of each image; one class, such as an empty string, keeps the order as it is.

    Returns:
        The indices of the images: one of each class first, then each class evenly spread. Which image of a class
        comes when is drawn by chance, the same each time.
    """
    indices_of: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        indices_of.setdefault(label, []).append(index)
    if len(indices_of) < 2:
        return list(range(len(labels)))
    rng = np.random.default_rng(0)
    placed = [
        (place / len(indices), index)
        for indices in indices_of.values()
        for place, index in enumerate(rng.permutation(indices).tolist())
    ]
    return [index for _, index in sorted(placed)]


def read_uploaded_predictions(
    path: Path, name: str, task: Task | None = None, known: KnownImages = know_no_images
) -> tuple[PredictionSet, ...]:
    """Reads a table of predictions that a visitor gave; as `predictions.read_predictions`.

    Args:
        path: Where it lies, under a name of ours, which tells its owner nothing.
        name: What its owner calls it, for the messages, and for its model where it names none.
        task: The task that is asked for, where the table leaves that open.
        known: What is known of images that the table does not label.

    Raises:
        ResultFileError: It is too large or can't be used.
        TaskError: It names an unknown task.
    """
    check_table_size(path, name)
    try:
        return read_predictions(path, task, model=Path(name).stem or name, known=known)
    except (TableError, ResultFileError) as error:
        raise ResultFileError(error.user_message.replace(path.name, name), code=error.code) from error


def read_prediction_table(
    path: Path,
    task: Task,
    name: str = "",
    calibration_of: Callable[[PredictionSet], Calibration | None] = lambda _: None,
    *,
    known: KnownImages = know_no_images,
    beside: Callable[[Sequence[PredictionSet]], Sequence[PredictionSet]] = lambda _: (),
) -> BatchResult:
    """One table of predictions as the result of a batch, without images; as `read_prediction_tables`.

    Args:
        path: As `predictions.read_predictions` takes it.
        task: Which of its tasks to take.
        name: What to call it; else as it is called on disk.
        calibration_of: As there, like the next two.
        known: Likewise.
        beside: Likewise.
    """
    return read_prediction_tables(
        [(path, name or path.name)], task, calibration_of, known=known, beside=beside
    )


def read_prediction_tables(
    tables: Sequence[tuple[Path, str]],
    task: Task,
    calibration_of: Callable[[PredictionSet], Calibration | None] = lambda _: None,
    *,
    known: KnownImages = know_no_images,
    beside: Callable[[Sequence[PredictionSet]], Sequence[PredictionSet]] = lambda _: (),
) -> BatchResult:
    """Tables of predictions as the result of one batch, without images.

    Args:
        tables: Path, as `predictions.read_predictions` takes it, and name of each. Of a model with several numbers
            of views, the answers of the most views are taken, and of several models the images that all of them
            have read. A model that several tables hold has the name of the table in its own.
        task: Which of their tasks to take.
        calibration_of: Gives the calibration of the weights that answered, if they are here.
        known: What is known of images that a table does not label.
        beside: Gives predictions of other models to stand beside those of the tables.

    Raises:
        ResultFileError: A table is too large or can't be used, none has anything of the task, or the models have
            no image in common or differ in the truth of one.
    """
    read = [(name, read_uploaded_predictions(path, name, task, known)) for path, name in tables]
    of_task = [(name, select_task(every, task)) for name, every in read]
    if not any(sets for _, sets in of_task):
        others = ", ".join(sorted({part.task.key for _, every in read for part in every}))
        raise ResultFileError(
            f"The table has no predictions for the task “{task.key}”, only for {others}. Choose that task.",
            code=ErrorCode.WRONG_TASK,
        )
    times = Counter(model for _, sets in of_task for model in {part.model for part in sets})
    sets = [
        part if times[part.model] == 1 else replace(part, model=f"{part.model}, {number} {Path(name).stem}")
        for number, (name, found) in enumerate(of_task, start=1)
        for part in found
    ]
    return join_predictions([*sets, *beside(sets)], calibration_of)


def join_predictions(
    sets: Sequence[PredictionSet],
    calibration_of: Callable[[PredictionSet], Calibration | None] = lambda _: None,
) -> BatchResult:
    """Predictions of one task as the result of a batch, without images.

    Args:
        sets: Of one or more models, which have different names.
        calibration_of: As `read_prediction_tables` takes it.

    Raises:
        ResultFileError: The models have no image in common or differ in the truth of one.
    """
    notes = list(dict.fromkeys(note for part in sets for note in part.notes))
    best = select_most_views(sets)
    kept = keep_shared_images(best)
    shared = set(kept[0].image_ids)
    seen = dict.fromkeys(image_id for part in best for image_id in part.image_ids)
    left_out = [LeftOut(image_id, _NOT_SHARED) for image_id in seen if image_id not in shared]
    notes += [
        f"Left out: the predictions of {part.model} from fewer views ({part.views})."
        for part in sets
        if part not in best
    ]
    if left_out:
        notes.append(f"Images left out because not every model has read them: {len(left_out):,}.")
    images = [_tabled(kept[0], index) for index in range(len(kept[0]))]
    has_diagnoses = any(image.metadata for image in images)
    attributes = [describe_image(image, None) if has_diagnoses else {} for image in images]
    items = [
        BatchItem(images[index], attributes[index], None, tuple(_record(part, index) for part in kept))
        for index in range(len(images))
    ]
    # A table may claim any number of views.
    calibrations = {part.model: fitted_for_views(calibration_of(part), part.views) for part in kept}
    return BatchResult(
        kept[0].task,
        tuple(calibrations),
        {part.model: part.views for part in kept},
        tuple(items),
        tuple(left_out),
        tuple(notes),
        labelled=True,
        calibrations=calibrations,
        weights={part.model: part.weights_sha256 if calibrations[part.model] else None for part in kept},
    )


def gather_batch_models(result: BatchResult) -> tuple[ComparedModel, ...]:
    """The models of a batch of images or of one table, on the images that all of them have read.

    Raises:
        ResultFileError: No image was read by all of them.
    """
    sets = [_answers_of(result, model) for model in result.models]
    if not set.intersection(*(set(predictions.image_ids) for predictions in sets)):
        failures = [failure.message for model in result.models for _, failure in result.failed(model)]
        raise ResultFileError(
            f"No image was read by every model. {' '.join(failures[:1])}".strip(),
            code=ErrorCode.NO_IMAGES,
        )
    compared = gather_models([("batch", sets)], result.task)
    return tuple(replace(model, labelled=result.labelled) for model in compared)


def _unreadable() -> bytes:
    raise ImageError("The image is no longer here. Upload it again.", code=ErrorCode.UPLOAD_EXPIRED)


def _closed(image: CollectedImage) -> CollectedImage:
    """The image without its way back to the file, which would keep a whole ZIP in memory."""
    return replace(image, read=_unreadable)


def _has_answer(item: BatchItem) -> bool:
    return any(isinstance(record, Prediction) for record in item.records)


def _compact(record: Prediction | ItemFailure) -> Prediction | ItemFailure:
    return replace(record, quality=None) if isinstance(record, Prediction) else record


def _tabled(part: PredictionSet, index: int) -> CollectedImage:
    diagnosis = part.diagnoses[index] if part.diagnoses else ""
    return CollectedImage(
        part.image_ids[index],
        part.image_ids[index],
        part.task.classes[part.labels[index]],
        part.lesion_groups[index],
        part.sources[index],
        part.splits[index],
        MappingProxyType({"diagnosis": diagnosis} if diagnosis else {}),
        _unreadable,
    )


def _record(part: PredictionSet, index: int) -> Prediction:
    classes = part.task.classes
    flags = part.served[index] if part.served else ServedFlags()
    return Prediction(
        file=part.image_ids[index],
        sha256="",
        task=part.task.key,
        model=part.model,
        label=classes[int(part.answers[index])],
        probabilities=dict(zip(classes, part.probabilities[index].tolist(), strict=True)),
        logits=dict(zip(part.network or classes, part.logits[index].tolist(), strict=True)),
        views=part.views,
        ledger=(),
        warnings=(),
        calibrated=flags.calibrated,
        verdict=flags.verdict or ANSWER,
        abstain_codes=flags.abstain_codes,
        warning_codes=flags.warning_codes,
        conformal_set=flags.conformal_set,
        stability=flags.stability,
        ood_score=flags.ood_score,
    )


def _answers_of(result: BatchResult, model: str) -> PredictionSet:
    images = [item.image for item, _ in result.read(model)]
    records = [record for _, record in result.read(model)]
    if not result.labelled:
        # The arrays need a label; `ComparedModel.labelled` says that it means nothing.
        images = [replace(image, label=result.task.classes[0]) for image in images]
    answers = PredictionSet.of_records(result.task, model, result.views[model], images, records)
    served = (
        ServedFlags(record.calibrated, record.verdict, record.abstain_codes, record.warning_codes)
        for record in records
    )
    return replace(answers, served=tuple(served), weights_sha256=result.weights[model] or "")
