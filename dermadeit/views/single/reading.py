"""One photo read for the page: the answers of the tasks, and the heatmaps that were asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from dermadeit.data.patient import Patient
from dermadeit.errors import ErrorCode, PredictionError
from dermadeit.imaging.decode import LesionImage, shrink
from dermadeit.imaging.quality import QualityReport, QualityThresholds, assess_quality
from dermadeit.inference.faithfulness import SaliencyCheck, check_saliency
from dermadeit.inference.predictor import Predictor, add_patient
from dermadeit.inference.records import ItemFailure, Prediction
from dermadeit.inference.saliency import SALIENCY_METHODS, SaliencyMap, default_method
from dermadeit.inference.zoo import tasks_of
from dermadeit.reporting.names import is_conditional
from dermadeit.tasks import Task, get_task
from dermadeit.trust.neighbours import NEIGHBOURS
from dermadeit.views.page.case_pictures import load_pictures

PREVIEW_SIDE = 800
"""Longest side of the pictures on the page, in pixels; the model sees the full photo."""


@dataclass(frozen=True)
class PhotoCheck:
    """What was measured on the photo for one task, beside the limits of its checkpoint.

    Attributes:
        quality: The measures.
        limits: When a measure becomes a problem; those of the library where nothing was calibrated.
        strangeness: Score of `gating.OutOfDistribution`; None where nothing was calibrated.
        strangest: Score above which a photo is none of a known lesion; None likewise.
    """

    quality: QualityReport
    limits: QualityThresholds
    strangeness: float | None
    strangest: float | None


@dataclass(frozen=True)
class ViewScores:
    """What single views of the photo say of the class of the joint answer.

    Attributes:
        class_key: The class.
        scores: Its probability in each view where `calibrated` says so, else its softmax score.
        agrees: Whether it is the most probable class of each view.
        calibrated: Whether a calibration for one view was at hand.
    """

    class_key: str
    scores: tuple[float, ...]
    agrees: tuple[bool, ...]
    calibrated: bool


Maps = Mapping[tuple[str, str], SaliencyMap]
"""Method and class key to heatmap."""

Checks = Mapping[tuple[str, str], SaliencyCheck]
"""Method and class key to whether that heatmap can be believed."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What the page needs to redraw a result without the upload, small enough to keep for each visitor.

    Attributes:
        preview: The photo, at most `PREVIEW_SIDE` pixels a side.
        size: Width and height of the photo itself, in pixels.
        tasks: Task key to every task that can be asked.
        inputs: Task key to the photo as its model takes it: squashed to a square, 8-bit.
        predictions: Task key to answer.
        photo_checks: Task key to what was measured on the photo.
        maps: Task key to heatmaps.
        checks: Task key to their checks.
        pictures: Image id of similar cases to a small PNG, where there is a folder to take them from.
    """

    preview: LesionImage
    size: tuple[int, int]
    tasks: Mapping[str, Task]
    inputs: Mapping[str, LesionImage] = field(default_factory=dict)
    predictions: Mapping[str, Prediction] = field(default_factory=dict)
    photo_checks: Mapping[str, PhotoCheck] = field(default_factory=dict)
    maps: Mapping[str, Maps] = field(default_factory=dict)
    checks: Mapping[str, Checks] = field(default_factory=dict)
    pictures: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def views(self) -> Mapping[str, ViewScores]:
        """Task key to what the single views say."""
        return {key: view_scores(answer, self.tasks[key]) for key, answer in self.predictions.items()}

    def tasks_shown(self, task_key: str) -> tuple[str, ...]:
        """As the function."""
        return tasks_shown(self.tasks, task_key)

    def has_answers(self, task_key: str) -> bool:
        """Whether all answers are there that are shown for a chosen task."""
        return all(key in self.predictions for key in self.tasks_shown(task_key))


def tasks_shown(tasks: Mapping[str, Task], task_key: str) -> tuple[str, ...]:
    """The tasks whose answers are shown for a chosen one: before a conditional one, one that says its condition.

    That is one with a class of just its diagnoses, such as malignant; else one that leaves nothing out.

    Args:
        tasks: Task key to every task that can be asked.
        task_key: The chosen one.

    Raises:
        TaskError: It is none of these.
    """
    chosen = get_task(task_key, tasks)
    if not is_conditional(chosen):
        return (task_key,)
    whole = [task for task in tasks.values() if not is_conditional(task)]
    condition = sorted(whole, key=lambda task: not _has_class_of(task, chosen.class_of_diagnosis))
    return (*(task.key for task in condition[:1]), task_key)


def _has_class_of(task: Task, diagnoses: Collection[str]) -> bool:
    """Whether a class of the task has just these diagnoses."""
    members = [{name for name, own in task.class_of_diagnosis.items() if own == key} for key in task.classes]
    return set(diagnoses) in members


def predict_one(predictor: Predictor, image: LesionImage) -> Prediction:
    """The answer for one decoded photo, with similar cases where the checkpoint has an index.

    Raises:
        PredictionError: The model gives no usable numbers.
    """
    return _predict_tasks(predictor, image)[predictor.checkpoint.task.key]


def _predict_tasks(predictor: Predictor, image: LesionImage) -> dict[str, Prediction]:
    """The same for every task of the network, from one pass through it."""
    trust = predictor.checkpoint.trust
    has_index = trust is not None and trust.neighbours is not None
    [records] = predictor.predict_tasks([image], neighbours=NEIGHBOURS if has_index else 0)
    answers = {}
    for key, record in records.items():
        if isinstance(record, ItemFailure):
            raise PredictionError(record.message, code=ErrorCode(record.code))
        answers[key] = record
    return answers


def read_labels(predictors: Mapping[str, Predictor], image: LesionImage, task_key: str) -> Reading:
    """The answers that are shown for a task, without heatmaps: as fast as it gets.

    They come with those of all other tasks that the same network answers.
    """
    reading = Reading(shrink(image, PREVIEW_SIDE), image.whole_size, tasks_of(predictors))
    for key in reading.tasks_shown(task_key):
        reading = _add_answers(reading, predictors, image, key)
    return reading


def add_heatmap(
    reading: Reading,
    predictors: Mapping[str, Predictor],
    task_key: str,
    class_key: str,
    method: str | None = None,
    *,
    checked: bool = True,
) -> Reading:
    """Adds a heatmap and its check, unless they are there.

    Args:
        reading: It is not changed.
        predictors: Task key to predictor.
        task_key: A task of the reading.
        class_key: The class to explain.
        method: A key of `SALIENCY_METHODS`; None for the default.
        checked: Whether to check it too, which takes twenty times as long.
    """
    default = default_method(*predictors.values())
    method = method or default
    key, predictor, image = (method, class_key), predictors[task_key], reading.inputs[task_key]
    maps, checks = dict(reading.maps.get(task_key, {})), dict(reading.checks.get(task_key, {}))
    predictions = dict(reading.predictions)
    if key not in maps:
        maps[key] = SALIENCY_METHODS[method](predictor, image, class_key)
    if checked and key not in checks:
        checks[key] = check_saliency(predictor, image, maps[key])
        answer = predictions[task_key]
        if key == (default, answer.label):
            tested = {"method": maps[key].method, "class": class_key, **asdict(checks[key])}
            predictions[task_key] = replace(answer, saliency_check=tested)
    return replace(
        reading,
        predictions=predictions,
        maps={**reading.maps, task_key: maps},
        checks={**reading.checks, task_key: checks},
    )


def with_patient(reading: Reading, predictors: Mapping[str, Predictor], patient: Patient | None) -> Reading:
    """The reading with its answers for a patient too, without another pass through a model.

    Args:
        reading: It is not changed.
        predictors: Task key to predictor.
        patient: Age and sex; None for the answers of the photo alone.
    """
    answers = {
        key: add_patient(predictors[key].checkpoint, answer, patient)
        for key, answer in reading.predictions.items()
    }
    return replace(reading, predictions=answers)


def answer_all_tasks(
    reading: Reading,
    predictors: Mapping[str, Predictor],
    image: LesionImage,
    case_folder: Path | None = None,
) -> Iterator[Reading]:
    """Adds the answers of all tasks and pictures of similar cases, so that nothing needs the photo again.

    Args:
        reading: It is not changed.
        predictors: Task key to predictor, for every task.
        image: The photo.
        case_folder: Where pictures of similar cases may lie.

    Yields:
        The reading after each step: they take a while, and whoever waits for them may have gone.
    """
    for key in predictors:
        if key not in reading.predictions:
            reading = _add_answers(reading, predictors, image, key)
            yield reading
    ids = [near.image_id for answer in reading.predictions.values() for near in answer.neighbours]
    yield replace(reading, pictures=load_pictures(case_folder, ids))


def _add_answers(
    reading: Reading, predictors: Mapping[str, Predictor], image: LesionImage, task_key: str
) -> Reading:
    """Adds the answer for a task, and those for the others that its network answers in the same pass."""
    if task_key in reading.predictions:
        return reading
    checkpoint = predictors[task_key].checkpoint
    answers = {
        key: answer
        for key, answer in _predict_tasks(predictors[task_key], image).items()
        if key in predictors and predictors[key].checkpoint.lazy_classifier is checkpoint.lazy_classifier
    }
    limits = checkpoint.trust.gates.quality if checkpoint.trust else QualityThresholds()
    asked = answers[task_key]
    check = PhotoCheck(
        asked.quality or assess_quality(image, limits),
        limits,
        asked.ood_score,
        checkpoint.trust and checkpoint.trust.gates.ood_threshold,
    )
    # Squashing what is squashed already changes nothing, so this stands in for the photo, to the bit.
    pixels = checkpoint.preprocessing.resize(image.pixels).permute(1, 2, 0).numpy()
    return replace(
        reading,
        inputs={**reading.inputs, **dict.fromkeys(answers, replace(image, pixels=pixels))},
        predictions={**reading.predictions, **answers},
        photo_checks={**reading.photo_checks, **dict.fromkeys(answers, check)},
    )


def view_scores(answer: Prediction, task: Task) -> ViewScores:
    """What the single views of an answer say."""
    index = task.index_of(answer.label)
    return ViewScores(
        answer.label,
        tuple(shares[index] for shares in answer.view_probabilities),
        tuple(shares.index(max(shares)) == index for shares in answer.view_probabilities),
        answer.views_calibrated,
    )
