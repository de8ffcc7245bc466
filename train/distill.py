"""Train a lesion classifier: distilled from a teacher's embeddings, or plain.

    python train/distill.py --recipe dermadeit --task binary --teacher checkpoint:runs/binary/efficientnetv2-b0
    python train/distill.py --recipe plain --task multiclass

The data folder (`--data`, else DERMADEIT_DATA, else data/) holds manifest.csv and the images that it names. The
output is a checkpoint folder; the same command continues a training that was cut off.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import platform
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import timm
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from dermadeit.about import VERSION
from dermadeit.checkpoints import load_checkpoint, save_checkpoint
from dermadeit.datasets import PIXEL_CACHE_BYTES, LesionDataset, collate
from dermadeit.errors import DermaDeiTError, TrainingError
from dermadeit.evaluation import evaluate
from dermadeit.files import write_atomically, write_json
from dermadeit.manifest import Manifest
from dermadeit.metrics import classification_metrics
from dermadeit.models import LesionClassifier, create_classifier
from dermadeit.predictor import Predictor
from dermadeit.preprocessing import Preprocessing
from dermadeit.tasks import get_task
from train.augmentation import BatchAugmentation
from train.configuration import TrainingConfiguration, parse_configuration
from train.loaders import create_train_loader, load_manifest
from train.losses import embedding_kl, focal_loss
from train.optimization import create_optimizer, learning_rate_factor
from train.student import Student
from train.targets import load_targets

logger = logging.getLogger("train.distill")

SELECTION_METRIC = {"binary": "accuracy", "multiclass": "cohen_kappa"}
"""What decides the best epoch, on the validation split, as in the original work."""

STATE_FILE = "state.pt"
EVALUATION_BATCH = 64


# ------------------------------------------------------------------------------------------------ loop


class Training:
    """One student on its way: everything an epoch changes, and everything it needs."""

    def __init__(self, configuration: TrainingConfiguration, manifest: Manifest) -> None:
        self.configuration = configuration
        self.device = configuration.resolve_device()
        self.precision = configuration.resolve_precision(self.device)
        self.autocast = partial(
            torch.autocast,
            self.device.type,
            torch.float16 if self.precision == "fp16" else torch.bfloat16,
            enabled=self.precision != "fp32",
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        torch.manual_seed(configuration.seed)
        classifier = create_classifier(
            configuration.model_name,
            len(manifest.task.classes),
            image_size=configuration.image_size or None,
            init=configuration.init,
            drop_path_rate=configuration.drop_path,
        )
        self.preprocessing = _preprocessing_of(classifier)
        train_split = manifest.select("train")
        self.targets = load_targets(configuration, train_split, self.device)
        student = Student(classifier, self.targets.dim if self.targets else None)
        self.student = student.to(self.device, memory_format=torch.channels_last)
        if self.device.type == "cpu":
            # Fused attention's backward is 1.7 times slower than the plain one in bf16 on a CPU.
            for module in self.student.modules():
                if hasattr(module, "fused_attn"):
                    module.fused_attn = False
        self.generator = torch.Generator()
        train_set, validation_set = (
            LesionDataset(split, self.preprocessing, 0 if configuration.workers else PIXEL_CACHE_BYTES)
            for split in (train_split, manifest.select("validation"))
        )
        self.loader = create_train_loader(train_set, configuration, self.generator)
        self.validation = DataLoader(
            validation_set,
            batch_size=EVALUATION_BATCH,
            num_workers=configuration.workers,
            collate_fn=collate,
        )
        self.augmentation = BatchAugmentation(configuration, self.preprocessing.size, self.device)
        self.optimizer = create_optimizer(self.student, configuration)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer,
            partial(learning_rate_factor, configuration=configuration, steps_per_epoch=len(self.loader)),
        )
        self.views = torch.tensor(configuration.views)
        self.fingerprint = _fingerprint(self, manifest)
        self.epoch = 0
        self.curves: list[dict[str, float]] = []

    def run_epoch(self) -> dict[str, float]:
        """Trains for one epoch and returns its mean losses."""
        # Every epoch starts from its own seed, so one that was cut off runs again exactly alike.
        seed = self.configuration.seed * 100_003 + self.epoch
        self.generator.manual_seed(seed)
        torch.manual_seed(seed)
        self.student.train()
        sums = dict.fromkeys(("loss", "classification_loss", "distillation_loss"), 0.0)
        batches = tqdm(self.loader, desc=f"epoch {self.epoch + 1}", unit="batch", leave=False, disable=None)
        for pixels, labels, indices in batches:
            losses = self.step(pixels, labels, indices)
            for name, value in losses.items():
                sums[name] += value
        return {name: value / len(self.loader) for name, value in sums.items()}

    def step(self, pixels: torch.Tensor, labels: torch.Tensor, indices: torch.Tensor) -> dict[str, float]:
        """One optimiser step on a batch; returns its losses, unweighted."""
        views = self.views[torch.randint(len(self.views), (len(labels),), generator=self.generator)]
        images = self.augmentation(pixels.to(self.device).float() / 255, views, self.generator)
        with self.autocast():
            logits, projected = self.student(self.preprocessing.normalise(images))
        classification = focal_loss(logits.float(), labels.to(self.device), self.configuration.gamma)
        distillation = torch.zeros((), device=self.device)
        if self.targets is not None:
            target = self.targets(indices, views).to(self.device)
            distillation = embedding_kl(projected.float(), target, self.configuration.temperature)
        loss = classification + self.configuration.alpha * distillation
        if not torch.isfinite(loss):
            ids = [self.loader.dataset.manifest.rows[index].image_id for index in indices[:8]]
            raise TrainingError(
                f"The loss of epoch {self.epoch + 1} is not finite, in the batch of the images "
                f"{', '.join(ids)}… Lower --learning-rate or use --precision fp32, then run the same command.",
                code="non_finite_loss",
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        return {
            "loss": loss.item(),
            "classification_loss": classification.item(),
            "distillation_loss": distillation.item(),
        }

    @torch.inference_mode()
    def validate(self) -> dict:
        """The figures on the validation split, one view an image."""
        self.student.eval()
        logits, labels = [], []
        for pixels, batch_labels, _ in self.validation:
            images = self.preprocessing.normalise(pixels.to(self.device))
            with self.autocast():
                logits.append(self.student.classifier(images).float().cpu())
            labels.append(batch_labels)
        probabilities = torch.cat(logits).softmax(dim=-1).double().numpy()
        task = get_task(self.configuration.task)
        return classification_metrics(torch.cat(labels).numpy(), probabilities, task.classes)

    def state(self) -> dict:
        """Everything that a later epoch depends on."""
        return {
            "fingerprint": self.fingerprint,
            "epoch": self.epoch,
            "curves": self.curves,
            "student": self.student.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def resume(self, path: Path) -> None:
        """Continues from a state; raises `TrainingError` where another training wrote it."""
        # On the CPU: the optimiser moves what belongs on the device, and keeps its step counters here.
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["fingerprint"] != self.fingerprint:
            raise TrainingError(
                f"“{path.parent}” holds a training with other settings, data, teacher or precision. Choose "
                "another --output, or delete it.",
                code="other_training",
            )
        self.student.load_state_dict(state["student"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.curves = state["epoch"], state["curves"]
        logger.info("Continuing after epoch %d", self.epoch)


# ------------------------------------------------------------------------------------------------ main


def main(arguments: list[str] | None = None) -> int:
    """Trains as configured; returns the exit code: 0, or 2 for a mistake that the message explains."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        train(parse_configuration(arguments))
    except DermaDeiTError as error:
        logger.error("%s", error.user_message)
        return 2
    return 0


def train(configuration: TrainingConfiguration) -> Path:
    """Runs a training to its end, from where it was cut off, and returns the checkpoint folder."""
    manifest = load_manifest(configuration)
    output = configuration.output_folder
    for split in ("train", "validation"):
        logger.info("%s: %s", split, manifest.select(split).class_counts)
    training = Training(configuration, manifest)
    metric = SELECTION_METRIC[configuration.task]
    state_file = output / STATE_FILE
    if state_file.is_file():
        training.resume(state_file)
    while training.epoch < configuration.epochs:
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
        logger.info("%s", json.dumps(training.curves[-1]))
        best = max(training.curves, key=lambda curve: curve[metric])
        if best is training.curves[-1]:
            save_checkpoint(output, training.student.classifier, manifest.task, training.preprocessing)
        write_json(output / "training.json", describe(training, manifest, best["epoch"]))
        write_atomically(output / STATE_FILE, partial(torch.save, training.state()))
    # What is served is the float16 copy, so that is what the figures are of.
    predictor = Predictor(load_checkpoint(output, task=configuration.task), training.device)
    measured = evaluate(manifest.select("validation"), predictor, views=1)
    write_json(output / "metrics.json", {"split": "validation", **measured.metrics})
    best = max(training.curves, key=lambda curve: curve[metric])
    logger.info(
        "Best epoch %d of %d: validation %s %.4f", best["epoch"], training.epoch, metric, best[metric]
    )
    logger.info("The checkpoint is in %s", output)
    return output


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
                for name in ("data", "output", "init")
                if (value := getattr(configuration, name))
            },
            "model": configuration.model_name,
            "image_size": training.preprocessing.size,
            "teacher": training.targets.teacher if training.targets else "none",
            "layer_decay": configuration.layer_decay_factor,
        },
        "data": {
            split: {
                "images": len(rows.rows),
                "lesions": len({row.lesion_group for row in rows.rows}),
                **rows.class_counts,
            }
            for split in ("train", "validation")
            for rows in [manifest.select(split)]
        },
        "environment": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "timm": timm.__version__,
            "device": torch.cuda.get_device_name() if training.device.type == "cuda" else "cpu",
            "precision": training.precision,
        },
        "selection_metric": SELECTION_METRIC[configuration.task],
        "best_epoch": best_epoch,
        "curves": training.curves,
    }


def _preprocessing_of(classifier: LesionClassifier) -> Preprocessing:
    config = classifier.backbone.pretrained_cfg
    return Preprocessing(
        classifier.image_size, tuple(config["mean"]), tuple(config["std"]), config["interpolation"]
    )


def _fingerprint(training: Training, manifest: Manifest) -> str:
    """Hash of all that must not change between two runs of one training."""
    settings = dataclasses.asdict(training.configuration)
    for name in ("output", "data", "workers", "teacher", "precision"):
        settings.pop(name)
    rows = [(row.image_id, row.label, row.split) for row in manifest.rows]
    weights = hashlib.sha256()
    for value in training.student.classifier.state_dict().values():
        weights.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    teacher = training.targets and training.targets.teacher
    content = json.dumps([settings, rows, weights.hexdigest(), teacher, training.precision], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
