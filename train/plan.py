"""What a training is about to do: its open questions settled, and its plan in words."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dermadeit.data.manifest import Manifest
from dermadeit.errors import ConfigurationError, ErrorCode
from dermadeit.models.specs import get_spec
from dermadeit.reporting.format import count, counted, duration, millions
from train.configuration import FILED, TrainingConfiguration
from train.loaders import find_manifest, load_manifest
from train.teachers.file import FILED_PATH, read_teacher_file
from train.teachers.networks import available_teacher
from train.teachers.targets import AugmentedTargets

if TYPE_CHECKING:
    from train.loop import Training

logger = logging.getLogger(__name__)

_WORLD_SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where torchrun and the MPI launchers say how many processes they have started."""


def settle(configuration: TrainingConfiguration, *, download: bool) -> TrainingConfiguration:
    """Finds data and teacher where the configuration leaves them open.

    Args:
        configuration: What was asked for.
        download: Whether to fetch ISIC 2019 where there is no data folder.

    Raises:
        ConfigurationError: There is no data, or no teacher to be had.
    """
    folder = configuration.data.folder
    if download and not (folder / "manifest.csv").is_file():
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigurationError(
                "Fetch the data with one process first: python -m train.prepare_isic2019 --download"
            )
        from train.prepare_isic2019 import prepare_isic2019

        prepare_isic2019(folder, download=True)
    find_manifest(folder)
    if configuration.teacher.teacher != "auto":
        return configuration
    spec = get_spec(configuration.model.model)
    if not spec.distilled:
        logger.info("%s is trained without a teacher.", spec.title)
        return configuration.replace(teacher="none")
    name, reason = _filed_teacher(configuration) or available_teacher(configuration.data.task)
    if name == "none":
        raise ConfigurationError(f"There is no teacher to distil from. {reason}", code=ErrorCode.NO_TEACHER)
    logger.info("Teacher: %s. %s", name, reason)
    return configuration.replace(teacher=name)


def _filed_teacher(configuration: TrainingConfiguration) -> tuple[str, str] | None:
    """The filed answers, and why they are taken; None where there are none of these data."""
    if (
        not FILED_PATH.is_file()
        or configuration.loss.alpha
        or configuration.teacher.teacher_views != "cached"
    ):
        return None
    manifest = load_manifest(configuration.data)
    file = read_teacher_file(FILED, manifest.task.classes)
    if file.missing(manifest.select("train")) or file.outside(manifest):
        return None
    return FILED, "Its answers to these images are filed with the project."


def refuse_lost_processes(environment: Mapping[str, str]) -> None:
    """Raises `ConfigurationError` where several CPU processes were asked for and only this one was started.

    Without MPI, “accelerate launch --cpu --num_processes 2” starts one process, and says nothing.

    Args:
        environment: As the launcher has set it. It names an address for several processes to meet at.
    """
    on_cpu = environment.get("ACCELERATE_USE_CPU", "").lower() == "true"
    if on_cpu and "MASTER_ADDR" in environment and not any(name in environment for name in _WORLD_SIZES):
        raise ConfigurationError(
            "“accelerate launch” starts several processes on a CPU only with MPI; here it has started one. Use: "
            "torchrun --standalone --nproc_per_node 2 train/distill.py --device cpu"
        )


def describe_plan(training: Training, manifest: Manifest, seconds_per_pass: float, memory_bytes: int) -> str:
    """The plan of a training, with the time that a few timed passes let expect.

    Args:
        training: About to start.
        manifest: What it trains on.
        seconds_per_pass: Of forward, backward and augmentation, measured.
        memory_bytes: What the training takes, measured.
    """
    configuration, settings = training.configuration, training.configuration.optimisation
    epochs = settings.epochs - training.epoch
    passes = training.passes_per_epoch * epochs
    parameters = sum(parameter.numel() for parameter in training.student.parameters())
    place = "GPU memory" if training.device.type == "cuda" else "memory"
    rows = {split: training.train_split if split == "train" else manifest.select(split) for split in _SPLITS}
    lines = [
        "Plan",
        *(
            f"  {split}: {counted(len(part.rows), 'image')} of "
            f"{counted(len({row.lesion_group for row in part.rows}), 'lesion')} ("
            + ", ".join(f"{key} {count(images)}" for key, images in part.class_counts.items())
            + ")"
            for split, part in rows.items()
        ),
        f"  teacher: {training.targets.identity if training.targets else 'none'}",
        *(
            [
                f"  teacher's passes: {counted(training.targets.passes, 'pass', 'passes')} an image in every step"
            ]
            if isinstance(training.targets, AugmentedTargets)
            else []
        ),
        f"  student: {get_spec(configuration.model.model).title}, {millions(parameters)} parameters",
        f"  input: {training.preprocessing.size} × {training.preprocessing.size} pixels",
        f"  batch: {settings.batch_size} images in {counted(settings.accumulation, 'pass', 'passes')}",
        f"  on: {counted(training.accelerator.num_processes, 'process', 'processes')}, {training.device}, "
        + training.precision,
        f"  steps: {count(training.steps_per_epoch * epochs)} in {counted(epochs, 'epoch')}",
        f"  {place}: about {memory_bytes / 2**30:.1f} GiB",
        f"  time: about {duration(passes * seconds_per_pass)}, validation not counted",
        f"  output: {configuration.output_folder}",
    ]
    return "\n".join(lines)


_SPLITS = ("train", "validation")
