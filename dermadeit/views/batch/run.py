"""A batch from the uploaded files to its figures, for the page and for the API alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from dermadeit.data.collection import are_prediction_tables, opened_collection
from dermadeit.errors import ConfigurationError, DermaDeiTError, ErrorCode, ResultFileError, UploadError
from dermadeit.evaluation.batch import (
    Batch,
    Progress,
    gather_batch_models,
    join_predictions,
    read_prediction_tables,
)
from dermadeit.evaluation.predictions import PredictionSet
from dermadeit.imaging.decode import sanitise_name
from dermadeit.inference.predictor import check_views
from dermadeit.inference.zoo import ModelZoo
from dermadeit.publishing.benchmark import find_shipped_beside, read_shipped_predictions, read_test_images
from dermadeit.reporting.drawing import model_title
from dermadeit.trust.calibration import Calibration
from dermadeit.views.batch.model_comparison import ModelComparison, compare_in_steps
from dermadeit.views.batch.session import Session
from dermadeit.views.page.uploads import take_uploads

MAX_TABLES = 12

UNFINISHED = (
    "The measurements were cancelled. The figures of all images are complete. Intervals, subgroups, and "
    "figures about uncertainty and thresholds may be missing."
)


@dataclass(frozen=True)
class Order:
    """What is to be done, as it comes from outside.

    Attributes:
        payload: The list of file records. Everything in it is untrusted.
        task: Key of the task.
        models: Names of the models.
        views: Dihedral views whose logits are averaged.
        is_shipped: Whether the shipped predictions of the test images are to be read in place of files.
    """

    payload: Any
    task: Any
    models: Any
    views: Any
    is_shipped: bool = False


def read_batch(zoo: ModelZoo, order: Order, session: Session) -> Iterator[Progress | str]:
    """Reads the images and deletes the uploads; the session then has the result.

    Yields:
        Progress, or a sentence on what is done now.

    Raises:
        DermaDeiTError: The order or the files can't be used.
    """
    task = zoo.task(str(order.task))
    job = session.job
    if order.is_shipped:
        yield "Reading the predictions …"
        shipped = join_predictions(read_shipped_predictions(task), partial(_calibration_of, zoo))
        session.finish_reading(replace(shipped, is_shipped=True))
        return
    with take_uploads(order.payload, job.folder) as files:
        if not files:
            raise UploadError(
                "No file was uploaded. Choose images, a ZIP, or a table of predictions.",
                code=ErrorCode.NO_FILES,
            )
        if are_prediction_tables(files):
            check_number_of_tables(len(files))
            wished = list(map(str, order.models)) if isinstance(order.models, list) else []
            tables = read_prediction_tables(
                [(file.path, sanitise_name(file.name)) for file in files],
                task,
                partial(_calibration_of, zoo),
                known=read_test_images,
                beside=partial(find_shipped_beside, models=wished),
            )
            session.finish_reading(tables)
            return
        views, names = _checked_views(order.views), _checked_models(order.models)
        yield "Loading the models and the files …"
        predictors = {name: zoo.predictor(task.key, name) for name in names}
        with opened_collection(files, task) as collection:
            batch = Batch(collection, predictors, views, job.folder)
            job.on_stop = batch.cancel
            if job.is_ending:
                batch.cancel()
            for progress in batch.run():
                job.keep()
                yield progress
            result, job.on_stop = batch.result(), None
    if not result.items:
        raise UploadError("Cancelled before an image was read.", code=ErrorCode.CANCELLED)
    session.finish_reading(result)


def evaluate_batch(session: Session) -> Iterator[str]:
    """Measures the result of a session model by model; yields a sentence before each, and again while it goes on.

    Where the visitor has had enough, the rest is left out, and the evaluations and the notes of the result say so.
    """
    evaluations, result = [], session.result
    for model in result.models:
        sentence = f"Measuring the figures of {model_title(model)} and their intervals …"
        yield sentence
        for evaluation in result.evaluation_in_steps(model):
            if session.job.is_ending and result.labelled:
                evaluation = replace(evaluation, metrics={**evaluation.metrics, "unfinished": UNFINISHED})
                break
            yield sentence
        evaluations.append(evaluation)
    session.evaluations = tuple(evaluations)
    if session.is_unfinished:
        session.add_note(UNFINISHED)
    elif len(result.models) > 1:
        yield from _compare_models(session)


def check_number_of_tables(count: int) -> None:
    """Refuses more tables of predictions than are read at once, and none.

    Raises:
        UploadError: There are too many, or none.
    """
    if not 0 < count <= MAX_TABLES:
        raise UploadError(
            f"{count} tables were given. Choose one to {MAX_TABLES} predictions.csv in one go.",
            code=ErrorCode.NUMBER_OF_TABLES,
        )


def _compare_models(session: Session) -> Iterator[str]:
    try:
        begun = ModelComparison(session.result.task, gather_batch_models(session.result))
    except ResultFileError as error:
        session.add_note(f"The models are not compared. {error.user_message}")
        return
    for sentence, session.comparison in compare_in_steps(begun):
        if session.job.is_ending:
            return
        if sentence:
            yield sentence


def _calibration_of(zoo: ModelZoo, answers: PredictionSet) -> Calibration | None:
    """The calibration of the weights that a table names by their hash, if they are among the zoo's."""
    if not answers.weights_sha256:
        return None
    available = [entry.name for entry in zoo.entries(answers.task.key) if entry.available]
    # The one of the same name first, so that as a rule no other is loaded.
    for name in sorted(available, key=lambda name: name != answers.model):
        try:
            checkpoint = zoo.predictor(answers.task.key, name).checkpoint
        except DermaDeiTError:
            # A table is evaluated whatever state the weights here are in.
            continue
        if checkpoint.weights_sha256 == answers.weights_sha256:
            return checkpoint.calibration
    return None


def _checked_views(views: Any) -> int:
    try:
        count = int(views)
    except (TypeError, ValueError, OverflowError):
        count = None
    # Gradio's number comes as a float from some clients, and a fraction is no count.
    if count is None or isinstance(views, bool) or (isinstance(views, float) and views != count):
        raise ConfigurationError(f"“{views}” is not a number of views. Choose 1 to 8.")
    check_views(count)
    return count


def _checked_models(models: Any) -> Sequence[str]:
    names = list(dict.fromkeys(map(str, models))) if isinstance(models, list) else []
    if not names:
        raise ConfigurationError("No model was chosen. Choose at least one.", code=ErrorCode.NO_MODEL)
    return names
