"""One training on its way: batches, losses, optimiser steps, validation, and a state that resumes exactly."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from timm.utils import ModelEmaV3
from torch.utils.data import DataLoader
from tqdm import tqdm

from dermadeit.data.dataset import PIXEL_CACHE_BYTES, LesionDataset, collate
from dermadeit.data.manifest import Manifest
from dermadeit.errors import ConfigurationError, ErrorCode, TrainingError
from dermadeit.imaging.preprocessing import Preprocessing
from dermadeit.metrics.classification import classification_metrics
from dermadeit.models.classifier import LesionClassifier, create_classifier
from train.augment.augmentation import BatchAugmentation
from train.augment.mixing import draw_mix
from train.configuration import TrainingConfiguration
from train.data.labels import confuse_labels, hide_labels, keep_labelled
from train.data.splitting import leave_out_fold
from train.loaders import create_train_loader
from train.losses import cosine_smooth_l1, focal_loss, mean_over_networks, shift_by_prior, soft_logits_kl
from train.optimization import create_optimizer, learning_rate_factor
from train.original import OriginalDataset, embedding_kl
from train.student import Student, StudentOutput
from train.teachers.targets import AugmentedTargets, TargetBatch, load_targets

logger = logging.getLogger(__name__)

EVALUATION_BATCH = 64
WARM_UP_STEPS = 4

_ACCELERATE_PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
FREE_BETWEEN_RUNS = ("output", "data", "init", "teacher_cache", "workers", "teacher", "precision")
"""Settings that may differ between two runs of one training."""

_PASSES_BETWEEN_LOOKS = 50
"""How often losses are read from the device: each look waits until it has computed all that it was given."""


class Training:
    """One student on its way: everything an epoch changes, and everything it needs.

    Under `accelerate launch` every process holds one; each computes its share of every batch.
    """

    def __init__(self, configuration: TrainingConfiguration, manifest: Manifest) -> None:
        self.configuration = configuration
        self.task = manifest.task
        device = configuration.run.resolve_device()
        self.precision = configuration.run.resolve_precision(device)
        self.accelerator = Accelerator(
            cpu=device.type == "cpu",
            mixed_precision=_ACCELERATE_PRECISION[self.precision],
            # The others wait while one process embeds the images.
            kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=7))],
        )
        self.device = self.accelerator.device
        torch.manual_seed(configuration.run.seed)
        self._create_student(manifest)
        self._create_loaders(manifest)
        self._create_optimizer()
        self.identity = _identify(self, manifest)
        self.epoch = 0
        self.curves: list[dict[str, float]] = []

    # ------------------------------------------------------------------------------- student and teacher

    def _create_student(self, manifest: Manifest) -> None:
        configuration, settings = self.configuration, self.configuration.model
        classifier = create_classifier(
            settings.model,
            len(self.task.classes),
            image_size=settings.image_size or None,
            init=settings.init,
            drop_path_rate=settings.drop_path,
        )
        self.preprocessing = _preprocessing_of(classifier, configuration)
        self.train_split = _learnt_from(manifest.select("train"), configuration)
        with self.accelerator.main_process_first():
            self.targets = load_targets(configuration, self.train_split, self.device, manifest)
        of_teacher = (self.targets.spaces, self.targets.dim, self.targets.num_logits) if self.targets else ()
        self.embedding_dims = self.targets.dims if self.targets else ()
        student = Student(classifier, configuration, *of_teacher)
        if classifier.spec.distilled and student.distillation_head is not classifier.backbone.head_dist:
            # Several processes wait for a gradient of every parameter that may have one.
            classifier.backbone.head_dist.requires_grad_(False)
        if self.device.type == "cpu":
            # Fused attention's backward is 1.7 times slower than the plain one in bf16 on a CPU.
            modules: Iterator[Any] = student.modules()
            for module in modules:
                if hasattr(module, "fused_attn"):
                    module.fused_attn = False
        # The type checker does not know this one of the signatures.
        moved: Any = student.to(self.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.student: Student = moved
        decay = configuration.optimisation.ema_decay
        self.ema = ModelEmaV3(self.student, decay=decay, use_warmup=True, warmup_power=1.0) if decay else None

    # ---------------------------------------------------------------------------------------------- data

    def _create_loaders(self, manifest: Manifest) -> None:
        configuration = self.configuration
        cache_bytes = 0 if configuration.data.workers else PIXEL_CACHE_BYTES
        train_set = LesionDataset(self.train_split, self.preprocessing, cache_bytes)
        if configuration.augmentation.pipeline == "original":
            train_set = OriginalDataset(train_set)
        counts = [float(number) for number in self.train_split.class_counts.values()]
        self.class_counts = torch.tensor(counts, device=self.device)
        if configuration.prior_shift and 0 in counts:
            absent = self.task.classes[counts.index(0)]
            raise ConfigurationError(
                f"No image that is learnt from has the label {absent}, so its frequency can't be made up for. Use "
                "--logit-adjustment 0.",
                code=ErrorCode.MISSING_CLASS,
            )
        self.order = torch.Generator()
        self.chance = torch.Generator()
        self.loader = create_train_loader(
            train_set,
            configuration,
            self.order,
            processes=self.accelerator.num_processes,
            process=self.accelerator.process_index,
        )
        self.views = torch.tensor(configuration.augmentation.views)
        self.augmentation = BatchAugmentation(
            configuration.augmentation, self.preprocessing.size, self.device
        )
        self.validation = self.accelerator.prepare(
            DataLoader(
                LesionDataset(manifest.select("validation"), self.preprocessing, cache_bytes),
                batch_size=EVALUATION_BATCH,
                num_workers=configuration.data.workers,
                collate_fn=collate,
            )
        )

    # ----------------------------------------------------------------------------------------- optimiser

    def _create_optimizer(self) -> None:
        settings = self.configuration.optimisation
        optimizer = create_optimizer(self.student, self.configuration)
        self.model, self.optimizer = self.accelerator.prepare(self.student, optimizer)
        # A last batch that lacks passes is left out, as one that lacks images is.
        self.steps_per_epoch = max(len(self.loader) // settings.accumulation, 1)
        self.passes_per_epoch = min(self.steps_per_epoch * settings.accumulation, len(self.loader))
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            partial(learning_rate_factor, settings=settings, steps_per_epoch=self.steps_per_epoch),
        )

    # -------------------------------------------------------------------------------------------- epoch

    def run_epoch(self) -> dict[str, float]:
        """Trains for one epoch and returns its mean losses, over all processes.

        Raises:
            TrainingError: A loss is not finite.
        """
        settings = self.configuration.optimisation
        self._seed(self.configuration.run.seed * 100_003 + self.epoch)
        self.student.train()
        batches = tqdm(
            islice(self.loader, self.passes_per_epoch),
            total=self.passes_per_epoch,
            desc=f"epoch {self.epoch + 1}/{settings.epochs}",
            unit="batch",
            leave=False,
            # Without a terminal there is no bar.
            disable=None if self.accelerator.is_main_process else True,
        )
        sums: dict[str, float] = {}
        unread: list[tuple[torch.Tensor, dict[str, torch.Tensor]]] = []
        for number, (pixels, labels, indices) in enumerate(batches, start=1):
            last_of_step = number % settings.accumulation == 0 or number == self.passes_per_epoch
            with nullcontext() if last_of_step else self.accelerator.no_sync(self.model):
                losses = self.losses(pixels, labels, indices)
                self.accelerator.backward(losses["loss"] / settings.accumulation)
            if last_of_step:
                self._update()
            unread.append((indices, {name: value.detach() for name, value in losses.items()}))
            if number % _PASSES_BETWEEN_LOOKS == 0 or number == self.passes_per_epoch:
                self._read_losses(unread, sums)
                unread.clear()
                batches.set_postfix(loss=f"{sums['loss'] / number:.3f}", refresh=False)
        means = torch.tensor(list(sums.values()), device=self.device) / self.passes_per_epoch
        reduced: Any = self.accelerator.reduce(means, reduction="mean")
        return dict(zip(sums, reduced.tolist(), strict=True))

    def losses(
        self, pixels: torch.Tensor, labels: torch.Tensor, indices: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The losses of a batch: `loss`, and unweighted its parts `classification_loss`, `embedding_loss` and
        `logit_loss`, as scalars on the device. Images without a label have a classification loss of 0.
        """
        weights, augmentation = self.configuration.loss, self.configuration.augmentation
        views = self.views[torch.randint(len(self.views), (len(labels),), generator=self.chance)]
        if augmentation.pipeline == "original":
            images = pixels.to(self.device)
        else:
            images = self.augmentation(pixels.to(self.device).float().div_(255), views, self.chance)
        target = self._target(images, indices, views)
        mix = draw_mix(augmentation, len(labels), images.shape[-1], self.chance)
        if mix is not None:
            images = mix.to(self.device).images(images)
        if augmentation.pipeline != "original":
            images = self.preprocessing.normalise(images)
        output = self.model(images)
        parts = self._parts(output, labels, target)
        if mix is not None:
            partner = mix.partner
            others = self._parts(output, labels[partner], target and target.of(partner))
            weight = mix.weight.to(self.device)
            parts = {name: weight * parts[name] + (1 - weight) * others[name] for name in parts}
        means = {name: values.mean() for name, values in parts.items()}
        loss = weights.classification_weight * means["classification_loss"]
        if "embedding_loss" in means:
            loss = loss + weights.alpha * means["embedding_loss"]
        if "logit_loss" in means:
            loss = loss + weights.logit_weight * means["logit_loss"]
        return {"loss": loss, **means}

    def _parts(
        self, output: StudentOutput, labels: torch.Tensor, target: TargetBatch | None
    ) -> dict[str, torch.Tensor]:
        """Each loss of each image, [B], if the image were of these labels and targets."""
        settings = self.configuration.loss
        labels = labels.to(self.device)
        known, labels = labels >= 0, labels.clamp_min(0)
        # Label and teacher are compared with the same logits, since both speak of the train split's frequencies.
        logits = shift_by_prior(output.logits, self.class_counts, self.configuration.prior_shift)
        parts = {
            "classification_loss": focal_loss(logits, labels, settings.gamma)
            if settings.classification_loss == "focal"
            else F.cross_entropy(logits, labels, reduction="none", label_smoothing=settings.label_smoothing)
        }
        parts["classification_loss"] = parts["classification_loss"] * known
        if target is None:
            return parts
        if output.projected is not None:
            projected = output.projected[torch.arange(len(labels)), target.spaces]
            loss = (
                partial(embedding_kl, temperature=settings.temperature)
                if settings.embedding_loss == "kl"
                else cosine_smooth_l1
            )
            embeddings = target.embeddings.to(self.device)
            parts["embedding_loss"] = mean_over_networks(loss, projected, embeddings, self.embedding_dims)
        if target.log_probabilities is not None:
            parts["logit_loss"] = soft_logits_kl(
                logits if output.distillation_logits is None else output.distillation_logits,
                target.log_probabilities.to(self.device),
                settings.logit_temperature,
            )
        return parts

    def _target(self, images: torch.Tensor, indices: torch.Tensor, views: torch.Tensor) -> TargetBatch | None:
        """What the teacher says of augmented images, float [B, 3, S, S] from 0 to 1, or of their originals."""
        if self.targets is None:
            return None
        if isinstance(self.targets, AugmentedTargets):
            return self.targets(images, indices)
        consistent = self.configuration.teacher.consistent_views
        return self.targets(indices, views if consistent else torch.zeros_like(views))

    def _read_losses(
        self, unread: Sequence[tuple[torch.Tensor, dict[str, torch.Tensor]]], sums: dict[str, float]
    ) -> None:
        """Adds the losses of passes, each with the positions of its images, to their sums."""
        rows = torch.stack([torch.stack(list(losses.values())) for _, losses in unread]).tolist()
        for (indices, losses), values in zip(unread, rows, strict=True):
            if not all(map(math.isfinite, values)):
                images = ", ".join(self.train_split.rows[index].image_id for index in indices.tolist())
                raise TrainingError(
                    f"The loss of epoch {self.epoch + 1} is not finite, in the batch of the images {images}. "
                    "Lower --learning-rate or use --precision fp32, then run the same command.",
                    code=ErrorCode.NON_FINITE_LOSS,
                )
            for name, value in zip(losses, values, strict=True):
                sums[name] = sums.get(name, 0.0) + value

    def _update(self) -> None:
        if self.configuration.optimisation.clip_norm:
            self.accelerator.clip_grad_norm_(
                self.model.parameters(), self.configuration.optimisation.clip_norm
            )
        self.optimizer.step()
        # fp16 skips a step whose gradients overflow; the schedule goes on all the same.
        self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(self.student, step=self.scheduler.last_epoch)

    def _seed(self, seed: int) -> None:
        # Every epoch starts from its own seed, so one that was cut off runs again exactly alike. All processes
        # deal the same order and differ in everything else.
        own = seed + 7_919 * self.accelerator.process_index
        self.order.manual_seed(seed)
        self.chance.manual_seed(own)
        torch.manual_seed(own)

    # --------------------------------------------------------------------------------------- validation

    @property
    def classifier(self) -> LesionClassifier:
        """The network that is validated and saved: the moving average where there is one."""
        return (self.ema.module if self.ema is not None else self.student).classifier

    @torch.inference_mode()
    def validate(self) -> dict[str, Any]:
        """The figures on the validation split, one view an image."""
        classifier = self.classifier.eval()
        logits, labels = [], []
        for pixels, batch_labels, _ in self.validation:
            images = self.preprocessing.normalise(pixels.to(self.device))
            with self.accelerator.autocast():
                batch_logits = classifier(images).float()
            gathered = self.accelerator.gather_for_metrics((batch_logits, batch_labels.to(self.device)))
            logits.append(gathered[0].cpu())
            labels.append(gathered[1].cpu())
        probabilities = torch.cat(logits).softmax(dim=-1).double().numpy()
        true = torch.cat(labels).numpy()
        return classification_metrics(true, probabilities, self.task.classes, target=self.task.target)

    # -------------------------------------------------------------------------------------------- state

    def state(self) -> dict:
        """Everything that a later epoch depends on."""
        scaler = self.accelerator.scaler
        return {
            "identity": self.identity,
            "epoch": self.epoch,
            "curves": self.curves,
            "student": self.student.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else None,
        }

    def resume(self, path: Path) -> None:
        """Continues from a state; raises `TrainingError` where another training wrote it."""
        # On the CPU: the optimiser moves what belongs on the device, and keeps its step counters here.
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state.get("identity") != self.identity:
            raise TrainingError(
                f"“{path.parent}” holds another training. {_differences(state.get('identity'), self.identity)} "
                "Choose another --output, or delete it.",
                code=ErrorCode.OTHER_TRAINING,
            )
        self.student.load_state_dict(state["student"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.epoch, self.curves = state["epoch"], state["curves"]
        logger.info("Continuing after epoch %d", self.epoch)

    # ------------------------------------------------------------------------------------------ warm-up

    def time_steps(self) -> tuple[float, int]:
        """Times a few passes without learning from them.

        Returns:
            Seconds a pass, decoding and augmentation included, and the memory that training takes in bytes, of the
            process or of its GPU.
        """
        before = {key: value.clone() for key, value in self.student.state_dict().items()}
        self._seed(0)
        self.student.train()
        seconds, started = [], time.perf_counter()
        for pixels, labels, indices in islice(self.loader, WARM_UP_STEPS):
            losses = self.losses(pixels, labels, indices)
            self.accelerator.backward(losses["loss"])
            self._read_losses([(indices, losses)], {})
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
            started = time.perf_counter()
        self.optimizer.zero_grad(set_to_none=True)
        self.student.load_state_dict(before)
        # AdamW keeps two float32 values a parameter from the first step on.
        moments = 8 * sum(parameter.numel() for parameter in self.student.parameters())
        on_gpu = self.device.type == "cuda"
        used = torch.cuda.max_memory_allocated() if on_gpu else psutil.Process().memory_info().rss
        # The first pass also pays for what is set up only once.
        return statistics.median(seconds[1:] or seconds), used + moments


def _learnt_from(manifest: Manifest, configuration: TrainingConfiguration) -> Manifest:
    """The images that a training learns from, with the labels that it is told."""
    data, seed = configuration.data, configuration.run.seed
    if data.label_noise:
        manifest = confuse_labels(manifest, data.label_noise, seed)
    if data.label_share < 1:
        # Before a fold is left out, so that networks of all folds are told the same labels.
        manifest = hide_labels(manifest, data.label_share, seed)
        if configuration.teacher.teacher == "none":
            manifest = keep_labelled(manifest)
    return leave_out_fold(manifest, data.folds, data.held_out_fold)


def _preprocessing_of(classifier: LesionClassifier, configuration: TrainingConfiguration) -> Preprocessing:
    config = classifier.backbone.pretrained_cfg
    return Preprocessing(
        classifier.image_size,
        tuple(config["mean"]),
        tuple(config["std"]),
        config["interpolation"],
        per_image_zscore=configuration.augmentation.pipeline == "original",
        colour_constancy=configuration.model.colour_constancy,
    )


def _identify(training: Training, manifest: Manifest) -> dict[str, str | int | float | bool]:
    """All that must not change between two runs of one training, by what each thing is called."""
    settings = training.configuration.settings
    rows = [(row.image_id, row.label, row.split, row.lesion_group) for row in manifest.rows]
    weights = hashlib.sha256()
    for value in training.student.classifier.state_dict().values():
        weights.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return {
        **{name: value for name, value in settings.items() if name not in FREE_BETWEEN_RUNS},
        "images of the manifest": hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
        "first weights": weights.hexdigest(),
        "teacher": training.targets.identity if training.targets else "none",
        "precision": training.precision,
        "number of processes": training.accelerator.num_processes,
    }


def _differences(before: object, now: Mapping[str, object]) -> str:
    """What differs between an earlier training and this one, as a sentence."""
    if not isinstance(before, dict):
        return "An older version wrote it."
    differing = [name for name in (*now, *before) if before.get(name) != now.get(name)]
    return f"It differs in: {', '.join(_difference(name, before, now) for name in dict.fromkeys(differing))}."


def _difference(name: str, before: Mapping[str, object], now: Mapping[str, object]) -> str:
    # Hashes say nothing to anyone.
    is_hash = name in ("images of the manifest", "first weights")
    return name if is_hash else f"{name} ({before.get(name)} there, {now.get(name)} here)"
