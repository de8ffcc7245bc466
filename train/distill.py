"""Train a lesion classifier: distilled from a teacher, or plain.

    python train/distill.py                             # the best that can be had here; says what it takes
    python train/distill.py --download                  # fetches ISIC 2019 first, where there is no data folder
    python train/distill.py --smoke                     # everything end to end on synthetic lesions
    python train/distill.py --recipe plain --task multiclass
    accelerate launch --num_processes 2 train/distill.py --recipe dermadeit        # on two GPUs

The data folder (`--data`, else DERMADEIT_DATA, else data/) holds manifest.csv and the images that it names. The
output is a checkpoint folder; the same command continues a training that was cut off.
"""

from __future__ import annotations

import dataclasses
import logging
import platform
import sys
import time
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

if not __package__:
    # Started by its path: as with python -m train.distill, packages are looked for in the repository.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import timm
import torch

from dermadeit.about import VERSION
from dermadeit.data.manifest import Manifest
from dermadeit.errors import CheckpointError
from dermadeit.evaluation.evaluate import evaluate, write_evaluations
from dermadeit.files import write_atomically, write_json
from dermadeit.inference.predictor import Predictor
from dermadeit.models.checkpoints import TRAINING_FILE, WEIGHTS_FILE, load_checkpoint, save_checkpoint
from train.command_line import explaining_mistakes, parse_arguments
from train.configuration import TrainingConfiguration
from train.loaders import load_manifest
from train.loop import Training
from train.plan import describe_plan, settle
from train.smoke import run_smoke

logger = logging.getLogger("train.distill")

SELECTION_METRIC = {"binary": "accuracy", "multiclass": "cohen_kappa", "diagnosis": "cohen_kappa"}
"""What decides the best epoch, on the validation split, as in the original work."""

STATE_FILE = "state.pt"
LOGS_FOLDER = "tensorboard"
VALIDATION_FOLDER = "validation"
DONE_FILE = Path(VALIDATION_FOLDER) / "failures.csv"
"""The last file that a training writes."""


# ------------------------------------------------------------------------------------------------ main


@explaining_mistakes
def main(arguments: list[str] | None = None) -> int:
    """Trains as configured; returns the exit code: 0, or 2 for a mistake that the message explains."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    request = parse_arguments(arguments)
    if request.smoke:
        run_smoke(train, request.configuration)
    else:
        train(settle(request.configuration, download=request.download))
    return 0


def train(configuration: TrainingConfiguration) -> Path:
    """Runs a training to its end, from where it was cut off, and returns the checkpoint folder."""
    manifest = load_manifest(configuration)
    output = configuration.output_folder
    training = Training(configuration, manifest)
    is_main = training.accelerator.is_main_process
    if (output / STATE_FILE).is_file():
        training.resume(output / STATE_FILE)
    metric = SELECTION_METRIC[configuration.task]
    if not _is_over(training, metric):
        seconds, memory = training.time_steps()
        if is_main:
            # What an earlier training of this folder left would vouch for this one.
            (output / DONE_FILE).unlink(missing_ok=True)
            logger.info("%s", describe_plan(training, manifest, seconds, memory))
    while not _is_over(training, metric):
        started = time.perf_counter()
        losses = training.run_epoch()
        figures = training.validate()
        training.epoch += 1
        training.curves.append(
            {
                "epoch": training.epoch,
                **losses,
                "learning_rate": max(training.scheduler.get_last_lr()),
                **{name: value for name, value in figures.items() if isinstance(value, float)},
                "seconds": round(time.perf_counter() - started, 1),
            }
        )
        if is_main:
            _keep(training, manifest, metric)
        training.accelerator.wait_for_everyone()
    if is_main and not (output / DONE_FILE).is_file():
        _finish(training, manifest, metric)
    training.accelerator.wait_for_everyone()
    return output


def _is_over(training: Training, metric: str) -> bool:
    """Whether all epochs have been run, or validation has not become better for `patience` of them."""
    epochs, patience = training.configuration.epochs, training.configuration.patience
    has_stalled = (
        patience and training.curves and training.epoch - _best(training, metric)["epoch"] >= patience
    )
    return training.epoch >= epochs or bool(has_stalled)


def _best(training: Training, metric: str) -> dict[str, float]:
    return max(training.curves, key=lambda curve: curve[metric])


def _keep(training: Training, manifest: Manifest, metric: str) -> None:
    """Writes what an epoch has brought: the checkpoint if it is the best so far, curves, and the state."""
    output = training.configuration.output_folder
    curve, best = training.curves[-1], _best(training, metric)
    logger.info(
        "Epoch %d of %d: loss %.3f, validation %s %.4f (best %.4f, epoch %d), %.0f s",
        curve["epoch"], training.configuration.epochs, curve["loss"], metric, curve[metric],
        best[metric], best["epoch"], curve["seconds"],
    )  # fmt: skip
    if best is curve:
        save_checkpoint(output, training.classifier, manifest.task, training.preprocessing)
    write_json(output / TRAINING_FILE, describe(training, manifest, best["epoch"]))
    write_atomically(output / STATE_FILE, partial(torch.save, training.state()))
    # It imports TensorFlow where that is installed, which takes seconds.
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(output / LOGS_FOLDER, purge_step=curve["epoch"]) as board:
        for name, value in curve.items():
            if name != "epoch":
                board.add_scalar(name, value, curve["epoch"])


def _finish(training: Training, manifest: Manifest, metric: str) -> None:
    """Evaluates the checkpoint on the validation split; the float16 copy, since that is what is served."""
    output = training.configuration.output_folder
    predictor = Predictor(load_checkpoint(output, task=training.task.key), training.device)
    evaluation = evaluate(manifest.select("validation"), predictor)
    write_evaluations([evaluation], output / VALIDATION_FOLDER)
    best = _best(training, metric)
    logger.info(
        "Best epoch %d of %d: validation %s %.4f", best["epoch"], training.epoch, metric, best[metric]
    )
    logger.info("The checkpoint is in %s", output)


def describe(training: Training, manifest: Manifest, best_epoch: int) -> dict:
    """The content of `training.json`: what was trained, on what, with what, and how it went."""
    configuration = training.configuration
    return {
        "dermadeit_version": VERSION,
        "configuration": {
            **dataclasses.asdict(configuration),
            # Folders of the machine that trained say nothing to anyone else.
            **{
                name: Path(value).name
                for name in ("data", "output", "teacher_cache")
                if (value := getattr(configuration, name))
            },
            "init": _start_of(configuration.init),
            "model": configuration.model_name,
            "image_size": training.preprocessing.size,
            "teacher": training.targets.identity if training.targets else "none",
            "layer_decay": configuration.layer_decay_factor,
        },
        "data": {
            split: {
                "images": len(rows.rows),
                "lesions": len({row.lesion_group for row in rows.rows}),
                **rows.class_counts,
            }
            for split, rows in (
                ("train", training.train_split),
                ("validation", manifest.select("validation")),
            )
        },
        "environment": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "timm": timm.__version__,
            "device": torch.cuda.get_device_name() if training.device.type == "cuda" else "cpu",
            "processes": training.accelerator.num_processes,
            "precision": training.precision,
        },
        "selection_metric": SELECTION_METRIC[configuration.task],
        "best_epoch": best_epoch,
        "curves": training.curves,
    }


@cache
def _start_of(init: str) -> str:
    """What the weights came from. All checkpoints have one file name, so whose it was is told with it."""
    path = Path(init)
    if path.name == WEIGHTS_FILE:
        with suppress(CheckpointError):
            start = load_checkpoint(path.parent, calibrated=False)
            return f"{start.task.key}/{start.model}/{path.name}"
    return path.name


if __name__ == "__main__":
    sys.exit(main())
