"""File what a teacher says about the train split, so that a machine without its networks can distil from it.

    python -m train.file_teacher --teacher checkpoint:NET/fold0,NET/fold1,OTHER/fold0,OTHER/fold1

Takes cross-fitted checkpoints (recipe `ensemble`, every fold of every network). Of each lesion the networks that
did not see it are asked; their log-probabilities are averaged over networks, views and all photos of the lesion.
They are calibrated, and age and sex, which no student is shown, are added, by what is fitted on other lesions. The
answers go to assets/benchmark/teacher, for `--teacher filed`, with what the teacher is and how far it is ahead of
one network on a single photo. What the networks say is cached: the same command goes on where it was cut off.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import log_softmax

from dermadeit.about import VERSION
from dermadeit.data.manifest import Manifest
from dermadeit.data.patient import patient_of
from dermadeit.errors import ConfigurationError, ErrorCode
from dermadeit.files import require_folder, write_json
from dermadeit.imaging.preprocessing import DIHEDRAL_VIEWS
from dermadeit.metrics.classification import (
    classification_metrics,
    percentile_intervals,
    resampled_figures,
)
from dermadeit.tasks import DIAGNOSIS, readable_tasks
from dermadeit.trust import patient_context, scaling
from dermadeit.trust.patient_context import has_age
from train.command_line import explaining_mistakes
from train.configuration import DataSettings, RunSettings, TeacherSettings
from train.loaders import load_manifest
from train.teachers.cache import cached_embeddings, teacher_cache_folder
from train.teachers.file import FILED_PATH, require_advantage, write_log_probabilities
from train.teachers.networks import Teacher, create_teachers, unseen
from train.teachers.targets import SMALLEST_PROBABILITY, embedding_spaces, lesion_means

logger = logging.getLogger("train.file_teacher")

MEASURED = ("accuracy", "nll", "roc_auc")
RESAMPLES = 500
CONTEXT = ("age", "sex")
LEAST_WITH_AGE = 10
"""Images of each class whose age is known, below which no regression on age and sex is fitted."""

METHOD = f"held-out lesions of the train split; 95 %, percentile bootstrap of lesions, {RESAMPLES} resamples"


def ask(teachers: Sequence[Teacher], manifest: Manifest, views: Sequence[int], cache: Path) -> np.ndarray:
    """What each network says of images whose lesion it did not see.

    Args:
        teachers: M networks in F folds each: M × F classifiers of the manifest's classes.
        manifest: N images.
        views: The V views.
        cache: Where what they say is kept.

    Returns:
        Log-probabilities, float32 [M, N, V, K].

    Raises:
        ConfigurationError: They are not cross-fitted classifiers of these classes, or a fold is missing.
    """
    for teacher in teachers:
        if not teacher.folds or teacher.classes != manifest.task.classes:
            raise ConfigurationError(
                f"{teacher.name} is no cross-fitted network of the task “{manifest.task.key}”. Train it with "
                "--recipe ensemble --held-out-fold 0, and so on for every fold.",
                code=ErrorCode.INCOMPLETE_FOLDS,
            )
    groups = embedding_spaces(teachers)
    answers = np.empty(
        (len(groups[0]), len(manifest.rows), len(views), len(manifest.task.classes)), np.float32
    )
    for members in groups:
        positions = np.flatnonzero(unseen(members[0], manifest))
        rows = Manifest(manifest.task, tuple(manifest.rows[position] for position in positions), ())
        for number, member in enumerate(members):
            folder = teacher_cache_folder(cache, member, views)
            said = cached_embeddings(member, rows, views, folder)
            places = np.arange(len(positions))
            for index, view in enumerate(views):
                logits = said.logits(places, np.full(len(places), view))
                assert logits is not None
                answers[number, positions, index] = log_softmax(logits, axis=-1)
    return answers


def calibrate(log_probabilities: np.ndarray, manifest: Manifest) -> np.ndarray:
    """Makes the answers probabilities, for each lesion by what was fitted on the others.

    Args:
        log_probabilities: float [N, K].
        manifest: The N images.

    Returns:
        Log-probabilities, float64 [N, K].
    """
    labels = np.array([manifest.task.index_of(row.label) for row in manifest.rows])
    lesions = [row.lesion_group for row in manifest.rows]
    return _logs(scaling.cross_fitted(scaling.fit_vector, log_probabilities, labels, lesions))


def add_context(log_probabilities: np.ndarray, manifest: Manifest) -> np.ndarray:
    """Adds age and sex, for each lesion by what was fitted on the others.

    Args:
        log_probabilities: float [N, K], calibrated.
        manifest: The N images, with `age` and `sex` where they are known.

    Returns:
        Log-probabilities, float64 [N, K]; those of images without an age as they were.

    Raises:
        ConfigurationError: The age is known of too few images of a class.
    """
    patients = [patient_of(row.metadata) for row in manifest.rows]
    known = [number for number, patient in enumerate(patients) if has_age(patient)]
    labels = np.array([manifest.task.index_of(manifest.rows[number].label) for number in known], dtype=int)
    counts = np.bincount(labels, minlength=len(manifest.task.classes))
    if counts.min() < LEAST_WITH_AGE:
        raise ConfigurationError(
            f"The age is known of {counts.min()} images of the class “{manifest.task.classes[counts.argmin()]}”; "
            f"{LEAST_WITH_AGE} are needed. Add ages, or file the answers of the photos alone with --no-context.",
            code=ErrorCode.TOO_FEW_IMAGES,
        )
    answers = log_probabilities.copy()
    answers[known] = _logs(
        patient_context.cross_fitted(
            {1: np.exp(answers[known])},
            [patients[number] for number in known],
            labels,
            [manifest.rows[number].lesion_group for number in known],
        )[1]
    )
    return answers


def _logs(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probabilities, SMALLEST_PROBABILITY))


def measure(
    teacher: np.ndarray, plain: np.ndarray, manifest: Manifest
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """How good a teacher is, and how far ahead of a plain network, in every reading of the classes.

    Args:
        teacher: Log-probabilities, float [N, K].
        plain: Those of the network that it is compared with.
        manifest: The N images.

    Returns:
        `teacher` and `plain` to reading to figures with intervals; and reading to figure to `difference` and
        `interval`.
    """
    lesions = np.array([row.lesion_group for row in manifest.rows])
    labels = np.array([manifest.task.index_of(row.label) for row in manifest.rows])
    figures: dict[str, dict[str, Any]] = {"teacher": {}, "plain": {}}
    advantage: dict[str, dict[str, Any]] = {}
    for task in readable_tasks(manifest.task):
        key, groups = task.key, task.group(manifest.task.classes)
        assert groups is not None, "it can be read"
        own = groups.regroup(labels)
        inside = own >= 0
        resampled = {}
        for name, answers in (("teacher", teacher), ("plain", plain)):
            probabilities = groups.read(np.exp(answers[inside].astype(np.float64)))
            found = classification_metrics(own[inside], probabilities, task.classes)
            resampled[name] = resampled_figures(
                own[inside], probabilities, lesions[inside].tolist(), task.classes, resamples=RESAMPLES
            )
            figures[name][key] = {
                "n": found["n"],
                **{figure: found[figure] for figure in MEASURED},
                "intervals": percentile_intervals({figure: resampled[name][figure] for figure in MEASURED}),
            }
        intervals = percentile_intervals(
            {figure: resampled["teacher"][figure] - resampled["plain"][figure] for figure in MEASURED}
        )
        advantage[key] = {
            figure: {
                "difference": figures["teacher"][key][figure] - figures["plain"][key][figure],
                "interval": intervals.get(figure),
            }
            for figure in MEASURED
            if figures["teacher"][key][figure] is not None
        }
    return figures, advantage


def write_teacher(
    path: Path, log_probabilities: np.ndarray, manifest: Manifest, description: Mapping[str, Any]
) -> None:
    """Writes the file that `--teacher filed` reads, and its JSON beside it."""
    image_ids = [row.image_id for row in manifest.rows]
    write_log_probabilities(path, image_ids, manifest.task.classes, log_probabilities)
    write_json(path.with_suffix(".json"), description)


@explaining_mistakes
def main(arguments: Sequence[str] | None = None) -> int:
    """Files a teacher; returns the exit code: 0, or 2 for a mistake that the message explains."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    options = _parse(arguments)
    require_folder(options.output.parent)
    manifest = load_manifest(DataSettings(task=DIAGNOSIS.key, data=options.data)).select("train")
    device = RunSettings(device=options.device).resolve_device()
    views, cache = range(options.views), TeacherSettings(teacher_cache=options.teacher_cache).cache_root
    teachers = create_teachers(options.teacher, device)
    answers = ask(teachers, manifest, views, cache)
    plain_teachers = create_teachers(options.plain, device) if options.plain else teachers[:1]
    of_plain = ask(plain_teachers, manifest, views, cache)[0] if options.plain else answers[0]
    lesions = [row.lesion_group for row in manifest.rows]
    filed = calibrate(lesion_means(answers.mean(axis=0), lesions), manifest)
    if options.context:
        filed = add_context(filed, manifest)
    logger.info("Measuring %d images of %d lesions", len(lesions), len(set(lesions)))
    # As a student answers: one network, one photo, the mean of its views.
    figures, advantage = measure(filed, log_softmax(of_plain.mean(axis=1), axis=-1), manifest)
    description = {
        "dermadeit_version": VERSION,
        "images": len(lesions),
        "lesions": len(set(lesions)),
        "classes": manifest.task.classes,
        "networks": [
            {"name": teacher.name, "identity": teacher.identity, "preprocessing": dict(teacher.preprocessing)}
            for teacher in teachers
        ],
        "views": len(views),
        "averaged": "log-probabilities over networks, views, and all photos of a lesion",
        "context": list(CONTEXT) if options.context else [],
        "plain": f"{plain_teachers[0].name.partition('-fold')[0]}, one network on a single photo",
        "method": METHOD,
        "figures": figures,
        "advantage": advantage,
    }
    write_teacher(options.output, filed, manifest, description)
    for key, ahead in advantage.items():
        logger.info(
            "%s: %s", key,
            ", ".join(f"{name} {figures['teacher'][key][name]:.4f} ({difference['difference']:+.4f})"
                      for name, difference in ahead.items()),
        )  # fmt: skip
    require_advantage(description, DIAGNOSIS.key, allow_weak=True)
    logger.info("The teacher's answers are in %s", options.output)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="File what a teacher says about the train split.")
    parser.add_argument(
        "--teacher", required=True, help="checkpoint:FOLDER,FOLDER…, every fold of every network"
    )
    parser.add_argument(
        "--plain", default="", help="the plain network to compare with, all folds; else the teacher's first"
    )
    parser.add_argument("--data", default="", help="data folder")
    parser.add_argument("--views", type=int, choices=range(1, DIHEDRAL_VIEWS + 1), default=DIHEDRAL_VIEWS)
    parser.add_argument(
        "--context", action=argparse.BooleanOptionalAction, default=True, help="add age and sex"
    )
    parser.add_argument("--teacher-cache", default="", help="folder of what the networks say")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    parser.add_argument("--output", type=Path, default=FILED_PATH, help="the .npz to write")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
