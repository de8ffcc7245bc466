"""Train a lesion classifier: distilled from a teacher, or plain.

    python train/distill.py                             # the best that can be had here; says what it takes
    python train/distill.py --download                  # fetches ISIC 2019 first, where there is no data folder
    python train/distill.py --smoke                     # everything end to end on synthetic lesions
    python train/distill.py --recipe plain --task multiclass
    accelerate launch --num_processes 2 train/distill.py --recipe dermadeit        # on two GPUs

The data folder (`--data`, else DERMADEIT_DATA, else data/) holds manifest.csv and the images that it names. The
output is a checkpoint folder; the same command continues a training that was cut off.

What happens in a training is told here and in loop.py: data, student, teacher and optimiser are set up there; here
the epochs are run, and what each of them has brought is kept.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

if not __package__:
    # Started by its path: as with python -m train.distill, packages are looked for in the repository.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import timm
import torch

from dermadeit.about import VERSION
from dermadeit.data.manifest import Manifest
from dermadeit.errors import CheckpointError
from dermadeit.evaluation.evaluate import evaluate, write_evaluations
from dermadeit.files import read_json_if_there, require_folder, write_atomically, write_json
from dermadeit.inference.predictor import Predictor
from dermadeit.models.checkpoints import TRAINING_FILE, WEIGHTS_FILE, load_checkpoint, save_checkpoint
from train.command_line import explaining_mistakes, parse_arguments
from train.configuration import TrainingConfiguration
from train.loaders import load_manifest
from train.loop import Training
from train.plan import describe_plan, refuse_lost_processes, settle
from train.smoke import run_smoke

logger = logging.getLogger("train.distill")

SELECTION_METRIC = {"binary": "accuracy", "multiclass": "cohen_kappa", "diagnosis": "cohen_kappa"}
"""What decides the best epoch with `--keep best`, on the validation split, as in the original work."""

STATE_FILE = "state.pt"
LOGS_FOLDER = "tensorboard"
VALIDATION_FOLDER = "validation"
DONE_FILE = Path(VALIDATION_FOLDER) / "failures.csv"
"""The last file that a training writes."""

_PLACES = ("data", "output", "teacher_cache")


# ------------------------------------------------------------------------------------------------ program


@explaining_mistakes
def main(arguments: list[str] | None = None) -> int:
    """Trains as configured; returns the exit code: 0, or 2 for a mistake that the message explains."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    request = parse_arguments(arguments)
    refuse_lost_processes(os.environ)
    if request.smoke:
        run_smoke(train, request.configuration)
    else:
        # Before anything is fetched.
        require_folder(request.configuration.output_folder)
        train(settle(request.configuration, download=request.download))
    return 0


# ---------------------------------------------------------------------------------------------- training


def train(configuration: TrainingConfiguration) -> Path:
    """Runs a training to its end, from where it was cut off, and returns the checkpoint folder."""
    require_folder(configuration.output_folder)
    manifest = load_manifest(configuration.data)
    training = Training(configuration, manifest)
    output, epochs = configuration.output_folder, configuration.optimisation.epochs
    is_main = training.accelerator.is_main_process
    if (output / STATE_FILE).is_file():
        training.resume(output / STATE_FILE)
    if training.epoch < epochs:
        seconds, memory = training.time_steps()
        if is_main:
            # What an earlier training of this folder left would vouch for this one.
            (output / DONE_FILE).unlink(missing_ok=True)
            logger.info("%s", describe_plan(training, manifest, seconds, memory))
    while training.epoch < epochs:
        started = time.perf_counter()
        losses = training.run_epoch()
        figures = training.validate()
        training.epoch += 1
        training.curves.append(
            {
                "epoch": training.epoch,
                **losses,
                "learning_rate": max(map(float, training.scheduler.get_last_lr())),
                **{name: value for name, value in figures.items() if isinstance(value, float)},
                "seconds": round(time.perf_counter() - started, 1),
            }
        )
        if is_main:
            _keep_epoch(training, manifest)
        training.accelerator.wait_for_everyone()
    if is_main and not (output / DONE_FILE).is_file():
        _validate_checkpoint(training, manifest)
    training.accelerator.wait_for_everyone()
    return output


# ---------------------------------------------------------------------------------- what an epoch brought


def _keep_epoch(training: Training, manifest: Manifest) -> None:
    """Writes what an epoch has brought: the checkpoint if it is to be kept, curves, and the state."""
    output, curve = training.configuration.output_folder, training.curves[-1]
    logger.info(
        "Epoch %d of %d: loss %.3f, validation NLL %s, AUROC %s, accuracy %s, %.0f s",
        curve["epoch"], training.configuration.optimisation.epochs, curve["loss"],
        *(_shown(curve, name) for name in ("nll", "roc_auc", "accuracy")), curve["seconds"],
    )  # fmt: skip
    # Also before the last epoch, so that a training that is cut off leaves a checkpoint.
    if _kept(training) is curve:
        save_checkpoint(output, training.classifier, manifest.task, training.preprocessing)
    write_json(output / TRAINING_FILE, describe(training, manifest))
    write_atomically(output / STATE_FILE, partial(torch.save, training.state()))
    # Unless this is there, TensorBoard imports TensorFlow where that is installed, which takes seconds.
    sys.modules.setdefault("tensorboard.compat.notf", ModuleType("tensorboard.compat.notf"))
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(output / LOGS_FOLDER, purge_step=curve["epoch"]) as board:
        for name, value in curve.items():
            if name != "epoch":
                board.add_scalar(name, value, curve["epoch"])


def _kept(training: Training) -> dict[str, float]:
    """The epoch whose weights the checkpoint holds."""
    if training.configuration.optimisation.keep == "last":
        return training.curves[-1]
    return max(training.curves, key=lambda curve: curve[_selection_metric(training)])


def _selection_metric(training: Training) -> str:
    return SELECTION_METRIC.get(training.task.key, "cohen_kappa")


def _shown(curve: Mapping[str, float], name: str) -> str:
    # A validation split without a class leaves some undefined.
    return f"{curve[name]:.4f}" if name in curve else "undefined"


# ------------------------------------------------------------------------------------------- at the end


def _validate_checkpoint(training: Training, manifest: Manifest) -> None:
    """Evaluates the checkpoint on the validation split; the float16 copy, since that is what is served."""
    output = training.configuration.output_folder
    predictor = Predictor(load_checkpoint(output, task=training.task.key), training.device)
    evaluation = evaluate(manifest.select("validation"), predictor)
    write_evaluations([evaluation], output / VALIDATION_FOLDER)
    logger.info("The weights are those of epoch %d of %d", _kept(training)["epoch"], training.epoch)
    logger.info("The checkpoint is in %s", output)


# ----------------------------------------------------------------------------------------------- record


def describe(training: Training, manifest: Manifest) -> dict[str, Any]:
    """The content of `training.json`: what was trained, on what, with what, and how it went."""
    configuration = training.configuration
    settings = configuration.settings | {
        # Folders of the machine that trained say nothing to anyone else.
        **{name: Path(configuration.settings[name]).name for name in _PLACES},
        "init": _start_of(configuration.model.init),
        "image_size": training.preprocessing.size,
        "teacher": training.targets.identity if training.targets else "none",
        "layer_decay": configuration.layer_decay,
    }
    defaults = TrainingConfiguration().settings
    return {
        "dermadeit_version": VERSION,
        "configuration": settings,
        "changed_settings": {
            name: {"value": settings[name], "default": defaults[name]}
            for name, value in configuration.settings.items()
            if value != defaults[name] and name not in ("task", "model", *_PLACES)
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
            "device": torch.cuda.get_device_name()
            if training.device.type == "cuda"
            else training.device.type,
            "processes": training.accelerator.num_processes,
            "precision": training.precision,
        },
        "kept_epoch": configuration.optimisation.keep,
        # The last epoch is fixed in advance: then no figure has chosen it.
        **(
            {"selection_metric": _selection_metric(training)}
            if configuration.optimisation.keep == "best"
            else {}
        ),
        "best_epoch": _kept(training)["epoch"],
        "curves": training.curves,
        **({"earlier_stages": earlier} if (earlier := _earlier_stages(configuration.model.init)) else {}),
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


@cache
def _earlier_stages(init: str) -> list[dict[str, Any]]:
    """What the trainings were whose weights this one goes on from, oldest first."""
    path = Path(init)
    record = read_json_if_there(path.parent / TRAINING_FILE) if path.name == WEIGHTS_FILE else {}
    kept = ("configuration", "changed_settings", "environment", "kept_epoch", "best_epoch", "curves")
    stage = {name: record[name] for name in kept if name in record}
    return [*record.get("earlier_stages", []), stage] if stage else []


if __name__ == "__main__":
    sys.exit(main())
