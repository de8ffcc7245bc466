"""Optimiser and learning-rate schedule of a training."""

from __future__ import annotations

import math

import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay

from train.configuration import OptimisationSettings, TrainingConfiguration
from train.student import Student


def create_optimizer(student: Student, configuration: TrainingConfiguration) -> torch.optim.Optimizer:
    """AdamW with layer-wise learning-rate decay (Clark et al. 2020; Bao et al. 2021, 2106.08254)."""
    settings, backbone = configuration.optimisation, student.classifier.backbone
    groups = param_groups_layer_decay(
        backbone,
        weight_decay=settings.weight_decay,
        no_weight_decay_list=getattr(backbone, "no_weight_decay", set)(),
        layer_decay=configuration.layer_decay,
    )
    # The distillation token is new, unlike the first layer that it is counted to.
    token = getattr(backbone, "dist_token", None)
    if token is not None:
        for group in groups:
            group["params"] = [parameter for parameter in group["params"] if parameter is not token]
        groups.append({"params": [token], "lr_scale": 1.0, "weight_decay": 0.0})
    for group in groups:
        group["lr"] = settings.learning_rate * group.pop("lr_scale")
    for module in student.training_only:
        groups += [
            group | {"lr": settings.learning_rate}
            for group in param_groups_weight_decay(module, settings.weight_decay)
        ]
    return torch.optim.AdamW(groups, weight_decay=settings.weight_decay)


def learning_rate_factor(step: int, settings: OptimisationSettings, steps_per_epoch: int) -> float:
    """Factor on the peak learning rate at an optimiser step: linear warm-up, then cosine or steps."""
    epoch = step / steps_per_epoch
    if epoch < settings.warmup_epochs:
        return (step + 1) / (settings.warmup_epochs * steps_per_epoch + 1)
    if settings.schedule == "step":
        return settings.step_factor ** (int(epoch) // settings.step_epochs)
    span = max(settings.epochs - settings.warmup_epochs, 1e-9)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (epoch - settings.warmup_epochs) / span)))
