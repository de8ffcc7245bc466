"""The teacher's own rows of the benchmark: its answers, and those of a small network on its features.

    python -m train.evaluate_teacher --task binary --split test --teacher checkpoint:FOLDER,FOLDER

Writes predictions.csv, for `python -m dermadeit benchmark add`. Networks that were trained in folds answer
together, since none of them has seen the images of another split; the small network of a fold learns from the
lesions that the fold's networks did not see.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from dermadeit.data.manifest import SPLITS, Manifest
from dermadeit.data.tabular import write_csv
from dermadeit.errors import ConfigurationError
from dermadeit.files import require_folder
from dermadeit.imaging.preprocessing import DIHEDRAL_VIEWS
from dermadeit.tasks import TASKS
from train.command_line import explaining_mistakes
from train.configuration import TrainingConfiguration
from train.loaders import load_manifest
from train.teachers.cache import CachedEmbeddings, cached_embeddings, teacher_cache_folder
from train.teachers.networks import Teacher, create_teachers, unseen
from train.teachers.targets import (
    SMALLEST_PROBABILITY,
    class_membership,
    embedding_spaces,
    grouped_probabilities,
)

logger = logging.getLogger("train.evaluate_teacher")

VIEWS = tuple(range(DIHEDRAL_VIEWS))
EPOCHS = 10
WEIGHT_DECAY = 1.0
HIDDEN_UNITS = 256
"""Of the small network, as in the original's comparison with its teacher."""


def evaluate_teacher(configuration: TrainingConfiguration, split: str) -> dict[str, np.ndarray]:
    """Asks a teacher about the images of a split.

    Args:
        configuration: Names task, data, teacher, cache and device.
        split: Which images.

    Returns:
        `teacher` (where its networks are classifiers) and `teacher-mlp`: probabilities of each image in each of
        the eight dihedral views, float [N, 8, K].
    """
    manifest = load_manifest(configuration.data)
    asked, train_split = manifest.select(split), manifest.select("train")
    teachers = create_teachers(configuration.teacher.teacher, configuration.run.resolve_device())
    if not teachers:
        raise ConfigurationError("Name a teacher with --teacher, such as checkpoint:FOLDER.")
    sums: dict[str, np.ndarray] = {}
    spaces = embedding_spaces(teachers)
    for members in spaces:
        answers = [_open(member, asked, configuration) for member in members]
        of_classifiers = [member.classes for member in members if member.classes]
        if len(of_classifiers) == len(members):
            for classes, answer in zip(of_classifiers, answers, strict=True):
                logits = _all_views(answer, "logits")
                membership = class_membership(classes, manifest.task)
                part = grouped_probabilities(logits, membership) / len(members)
                sums["teacher"] = sums.get("teacher", 0) + part
        positions = np.flatnonzero(unseen(members[0], train_split))
        rows = Manifest(manifest.task, tuple(train_split.rows[position] for position in positions), ())
        learnt_from = [_open(member, rows, configuration) for member in members]
        network = _fit_network(rows, learnt_from, configuration.run.seed)
        features = np.concatenate([_all_views(answer, "embeddings") for answer in answers], axis=-1)
        part = network.predict_proba(features.reshape(-1, features.shape[-1]))
        sums["teacher-mlp"] = sums.get("teacher-mlp", 0) + part.reshape(*features.shape[:2], -1)
    return {name: total / len(spaces) for name, total in sums.items()}


def _open(teacher: Teacher, manifest: Manifest, configuration: TrainingConfiguration) -> CachedEmbeddings:
    folder = teacher_cache_folder(configuration.teacher.cache_root, teacher, VIEWS)
    return cached_embeddings(teacher, manifest, VIEWS, folder)


def _all_views(cache: CachedEmbeddings, kind: str) -> np.ndarray:
    """`embeddings` or `logits` of all images in all views, float32 [N, 8, …]."""
    places = np.arange(len(cache))
    return np.stack([getattr(cache, kind)(places, np.full(len(places), view)) for view in VIEWS], axis=1)


def _fit_network(manifest: Manifest, caches: Sequence[CachedEmbeddings], seed: int) -> Pipeline:
    features = np.concatenate([_all_views(cache, "embeddings") for cache in caches], axis=-1)
    labels = np.array([manifest.task.index_of(row.label) for row in manifest.rows])
    network = make_pipeline(
        StandardScaler(),
        MLPClassifier((HIDDEN_UNITS,), alpha=WEIGHT_DECAY, max_iter=EPOCHS, random_state=seed),
    )
    with warnings.catch_warnings():
        # The number of epochs is fixed: stopping early would take a part of the lesions away.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return network.fit(features.reshape(-1, features.shape[-1]), labels.repeat(len(VIEWS)))


def _rows(manifest: Manifest, answers: dict[str, np.ndarray]) -> Iterator[dict[str, object]]:
    classes = manifest.task.classes
    for model, probabilities in answers.items():
        for views in (1, len(VIEWS)):
            # The mean of log-probabilities, as a classifier's views are put together by their mean logits.
            logits = np.log(np.maximum(probabilities[:, :views], SMALLEST_PROBABILITY)).mean(axis=1)
            for row, of_row in zip(manifest.rows, logits.tolist(), strict=True):
                yield {
                    "image_id": row.image_id, "task": manifest.task.key, "model": model, "views": views,
                    "label_true": row.label, "lesion_group": row.lesion_group, "source": row.source,
                    "split": row.split,
                    **{f"logit_{key}": value for key, value in zip(classes, of_row, strict=True)},
                }  # fmt: skip


@explaining_mistakes
def main(arguments: list[str] | None = None) -> int:
    """Evaluates as asked; returns the exit code: 0, or 2 for a mistake that the message explains."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    parser = argparse.ArgumentParser(description="Predictions of a teacher and of a small network on it.")
    parser.add_argument("--teacher", required=True, help="as in train/distill.py")
    parser.add_argument("--task", choices=tuple(TASKS), default="binary")
    parser.add_argument("--data", default="", help="data folder")
    parser.add_argument("--split", choices=SPLITS[1:], default="validation")
    parser.add_argument("--teacher-cache", default="", help="folder of teacher embeddings")
    parser.add_argument("--output", type=Path, default=Path("runs") / "teacher")
    options = parser.parse_args(arguments)
    require_folder(options.output)
    configuration = TrainingConfiguration.create(
        task=options.task, data=options.data, teacher=options.teacher, teacher_cache=options.teacher_cache
    )
    manifest = load_manifest(configuration.data).select(options.split)
    answers = evaluate_teacher(configuration, options.split)
    columns = (
        "image_id", "task", "model", "views", "label_true", "lesion_group", "source", "split",
        *(f"logit_{key}" for key in manifest.task.classes),
    )  # fmt: skip
    write_csv(options.output / "predictions.csv", columns, _rows(manifest, answers))
    logger.info("The predictions are in %s", options.output / "predictions.csv")
    return 0


if __name__ == "__main__":
    sys.exit(main())
