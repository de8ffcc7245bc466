"""Everything end to end on synthetic lesions: teachers in folds, a student distilled from them, its evaluation."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from dermadeit.data.manifest import read_source
from dermadeit.data.synthetic import write_dataset
from dermadeit.errors import ConfigurationError
from dermadeit.evaluation.evaluate import evaluate, write_evaluations
from dermadeit.inference.predictor import Predictor
from dermadeit.models.checkpoints import load_checkpoint
from dermadeit.tasks import get_task
from train.configuration import CHECKPOINT_PREFIX, TrainingConfiguration

logger = logging.getLogger(__name__)

LESIONS = 96
PICTURE_SIZE = (96, 80)
FOLDS = 2
TEACHER_EPOCHS = 2
STUDENT_EPOCHS = 4


def run_smoke(train: Callable[[TrainingConfiguration], Path], wanted: TrainingConfiguration) -> Path:
    """Trains on a few synthetic lesions from random weights; its figures mean nothing.

    Args:
        train: Runs one training.
        wanted: Task, loss, augmentation and output are taken from it; model, sizes and teacher are not.

    Returns:
        The folder with everything that was written: the output where one is named, else a new temporary one.

    Raises:
        ConfigurationError: There are several processes, or the output holds something or can't be written.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigurationError("The smoke run is for one process. Start it with python.")
    folder = _create_folder(wanted.run.output)
    write_dataset(folder / "data", lesions=LESIONS, seed=wanted.run.seed, size=PICTURE_SIZE)
    small = wanted.replace(
        data=str(folder / "data"),
        init="none",
        image_size=64,
        batch_size=16,
        accumulation=1,
        workers=0,
        teacher_cache=str(folder / "teacher_cache"),
    )
    teachers = [
        train(
            small.replace(
                model="mobilenetv2",
                teacher="none",
                pipeline="batch",
                distil_from="distillation_token",
                epochs=TEACHER_EPOCHS,
                folds=FOLDS,
                held_out_fold=fold,
                output=str(folder / "teacher" / f"fold{fold}"),
            )
        )
        for fold in range(FOLDS)
    ]
    student = train(
        small.replace(
            model="dermadeit",
            teacher=CHECKPOINT_PREFIX + ",".join(map(str, teachers)),
            epochs=STUDENT_EPOCHS,
            output=str(folder / "student"),
        )
    )
    task = get_task(wanted.data.task)
    manifest = read_source(folder / "data" / "manifest.csv", task).select("test")
    evaluation = evaluate(manifest, Predictor(load_checkpoint(student, task.key)))
    write_evaluations([evaluation], folder / "test")
    logger.info(
        "The smoke run works: %d synthetic test images, accuracy %.2f. Everything is in %s",
        len(evaluation.predictions), evaluation.metrics["accuracy"], folder,
    )  # fmt: skip
    return folder


def _create_folder(output: str) -> Path:
    if not output:
        # Not below runs/: nobody should take these networks for teachers.
        return Path(tempfile.mkdtemp(prefix="dermadeit-smoke-"))
    folder = Path(output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_empty = next(folder.iterdir(), None) is None
    except OSError as error:
        raise ConfigurationError(
            f"“{folder}” can't be used as a folder: {error.strerror}. Choose another --output."
        ) from error
    if not is_empty:
        raise ConfigurationError(f"“{folder}” is not empty. Choose a new --output for the smoke run.")
    return folder
