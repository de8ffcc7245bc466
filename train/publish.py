"""Publish the final trainings of the programme: calibrate what ships, and open the test split once for each model.

    python -m train.publish --runs runs --data data --not-skin FOLDER

For every model of the stage `final` that is done, and once all choices are made: copies a network of all eight
diagnoses to assets/checkpoints/<model>, fits what belongs to it on the calibration split (class weights, and the
prediction sets of rare classes, on the validation split too), reads the test split with eight views and with one
for all tasks together, files the predictions in assets/benchmark, and the figures of ours for the model card in
assets/evidence. A network of fewer classes is measured and filed, and does not ship. With
--image-level-data it files both arms of the leakage test too. What has been published is not read again.
`make benchmark-table` and `python -m dermadeit model-card` then write the documents.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from dermadeit.data.manifest import Manifest, check_leaks, leaking_lesions, read_source
from dermadeit.errors import ConfigurationError
from dermadeit.evaluation.calibrate import fit_trust, read_cases
from dermadeit.evaluation.evaluate import evaluate_tasks, write_evaluations
from dermadeit.evaluation.slices import describe_images, write_attributes
from dermadeit.files import read_json
from dermadeit.inference.predictor import DEFAULT_VIEWS, Predictor
from dermadeit.models.checkpoints import (
    CHECKPOINT_ROOT,
    CONFIG_FILE,
    TRAINING_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    load_checkpoint,
)
from dermadeit.models.specs import OURS
from dermadeit.publishing.benchmark import BENCHMARK_ROOT, METRICS_FILE, SplitBy, add_predictions
from dermadeit.publishing.model_card import EVIDENCE_ROOT
from dermadeit.tasks import DIAGNOSIS, TASKS, Task
from dermadeit.trust.files import remove_trust, write_trust
from train.command_line import explaining_mistakes
from train.distill import DONE_FILE
from train.loaders import find_manifest

logger = logging.getLogger("train.publish")

STAGE = "final"
NOT_SHIPPED = ("original",)
"""Trainings that are measured for comparison only; their model has the name of another one."""

LEAKAGE_TEST_ARMS: Mapping[SplitBy, Path] = {
    "lesion": Path("three-way") / "no-teacher-seed0",
    "image": Path("leakage-test") / "image-level-split",
}
"""What the data were split by, to the training of a task; both have the same recipe."""

ONE_VIEW = "one_view"
LAST_FILE = "failures.csv"
"""What an evaluation writes last."""

_FILES = (CONFIG_FILE, WEIGHTS_FILE, TRAINING_FILE)


def publish(name: str, task: Task, source: Path, runs: Path, not_skin: Path | None) -> None:
    """Publishes one model.

    Args:
        name: Its name in the programme.
        task: What it was trained for.
        source: The table of all splits.
        runs: The programme's output folder.
        not_skin: Photos of anything but skin, from which the gates learn what to withhold; None without.

    Raises:
        DermaDeiTError: The checkpoint or the images can't be used.
    """
    folder = runs / task.key / STAGE / name
    measured = runs / task.key / "test" / name
    trained = load_checkpoint(folder)
    is_ours = name == OURS and task is DIAGNOSIS
    if _measured_weights(measured) != trained.weights_sha256:
        if task is DIAGNOSIS and name not in NOT_SHIPPED:
            folder = _ship(name, folder, source, not_skin)
        # The model card has the figures of ours for every task. Of the others only what they answered is filed.
        readings = trained.tasks if is_ours else (task,)
        tests = [read_source(source, reading).select("test") for reading in readings]
        _measure(load_checkpoint(folder), tests, measured, with_slices=is_ours)
    # Filing again changes nothing, so an interruption between the two is made good.
    add_predictions([measured, measured / ONE_VIEW], BENCHMARK_ROOT, name=name)
    if is_ours:
        for reading in trained.tasks:
            (EVIDENCE_ROOT / reading.key).mkdir(parents=True, exist_ok=True)
            shutil.copy(
                _place(measured, reading, task) / METRICS_FILE, EVIDENCE_ROOT / reading.key / METRICS_FILE
            )
    logger.info("%s, %s: published", task.key, name)


def publish_leakage_test(manifests: Mapping[SplitBy, Manifest], runs: Path) -> None:
    """Files both arms of the leakage test of one task, each on the test images of its own split.

    Args:
        manifests: All splits of the task, split by lesion and by image.
        runs: The programme's output folder.

    Raises:
        ConfigurationError: The second manifest does not leak.
        DermaDeiTError: A checkpoint or the images can't be used.
    """
    task = manifests["lesion"].task
    if not leaking_lesions(manifests["image"]):
        raise ConfigurationError(
            "The data of --image-level-data are not split by image: no lesion lies in two splits. Make them with "
            "python -m train.prepare_isic2019 --image-level-split."
        )
    for split_by, training in LEAKAGE_TEST_ARMS.items():
        measured = runs / task.key / "test" / f"leakage-test-{split_by}"
        checkpoint = load_checkpoint(runs / task.key / training, task.key)
        if _measured_weights(measured) != checkpoint.weights_sha256:
            _measure(checkpoint, [manifests[split_by].select("test")], measured)
        add_predictions([measured, measured / ONE_VIEW], BENCHMARK_ROOT, split_by=split_by)
    logger.info("%s, leakage test: published", task.key)


def _check_arms(task: Task, runs: Path) -> None:
    for training in LEAKAGE_TEST_ARMS.values():
        folder = runs / task.key / training
        if not (folder / DONE_FILE).is_file():
            raise ConfigurationError(
                f"“{folder}” holds no training that is done. Run python -m train.programme --stage three-way "
                "--stage leakage-test first."
            )


def _measured_weights(measured: Path) -> str | None:
    """Hash of the weights that the test split has been read with; None where it has not, or not to the end."""
    if not (measured / LAST_FILE).is_file():
        return None
    [figures] = read_json(measured / METRICS_FILE).values()
    return figures["weights_sha256"]


def _ship(name: str, trained: Path, source: Path, not_skin: Path | None) -> Path:
    """Copies a checkpoint to where it ships, and fits what belongs to it; returns that folder."""
    folder = CHECKPOINT_ROOT / name
    folder.mkdir(parents=True, exist_ok=True)
    remove_trust(folder)
    for file in _FILES:
        shutil.copy(trained / file, folder / file)
    predictor = Predictor(load_checkpoint(folder, calibrated=False))
    manifest = read_source(source, predictor.checkpoint.network)
    trust = fit_trust(
        manifest.select("calibration"),
        read_cases(source, manifest.task) if name == OURS else None,
        predictor,
        validation=manifest.select("validation"),
        not_skin=not_skin,
    )
    write_trust(folder, trust)
    return folder


def _measure(
    checkpoint: Checkpoint, tests: Sequence[Manifest], folder: Path, *, with_slices: bool = False
) -> None:
    """Reads the test split with one view and with all.

    Args:
        checkpoint: The network.
        tests: The test images of each task that is measured, that of the network first.
        folder: Where its results are written, and those of the other tasks below it.
        with_slices: Whether to measure subgroups too.
    """
    predictor, task = Predictor(checkpoint), tests[0].task
    write_evaluations(evaluate_tasks(tests[:1], predictor, views=1), folder / ONE_VIEW)
    attributes = None
    if with_slices:
        attributes = describe_images(tests[0].rows)
        write_attributes(folder / "attributes.csv", attributes)
    found = evaluate_tasks(tests, predictor, DEFAULT_VIEWS, attributes=attributes)
    # The network's own comes last: it says that all were measured.
    for test, evaluation in reversed(list(zip(tests, found, strict=True))):
        write_evaluations([evaluation], _place(folder, test.task, task))


def _place(measured: Path, reading: Task, network: Task) -> Path:
    """Where the results of a task lie among those of a network."""
    return measured if reading is network else measured / reading.key


@explaining_mistakes
def main(arguments: list[str] | None = None) -> int:
    """Publishes what is done; returns 0, or 2 for a mistake that the message explains."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    parser = argparse.ArgumentParser(description="Publish the final trainings of the programme.")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the programme's output folder")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("DERMADEIT_DATA", "data")))
    parser.add_argument("--not-skin", type=Path, help="folder of photos of anything but skin")
    parser.add_argument(
        "--image-level-data", type=Path, help="data folder with a split by image, for the leakage test"
    )
    parser.add_argument("--task", choices=tuple(TASKS), help="only this task")
    parser.add_argument("--model", action="append", default=[], help="only this model; may be repeated")
    options = parser.parse_args(arguments)
    source = find_manifest(options.data)
    tasks = [TASKS[options.task]] if options.task else list(TASKS.values())
    by_image = find_manifest(options.image_level_data) if options.image_level_data else None
    if by_image:
        for task in tasks:
            _check_arms(task, options.runs)
    published = []
    for task in tasks:
        done = (options.runs / task.key / STAGE).glob(f"*/{DONE_FILE.as_posix()}")
        names = sorted(marker.relative_to(options.runs / task.key / STAGE).parts[0] for marker in done)
        chosen = [name for name in names if not options.model or name in options.model]
        if not chosen and not by_image:
            continue
        manifest = read_source(source, task)
        check_leaks(manifest)
        for name in chosen:
            publish(name, task, source, options.runs, options.not_skin)
        published += chosen
        if by_image:
            publish_leakage_test({"lesion": manifest, "image": read_source(by_image, task)}, options.runs)
            published.append("leakage test")
    if not published:
        raise ConfigurationError(
            f"“{options.runs}” holds no final training that is done. Run python -m train.programme first."
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
