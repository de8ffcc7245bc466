"""Optimiser and learning-rate schedule of a training."""

from __future__ import annotations

import math

import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay

from train.configuration import TrainingConfiguration
from train.student import Student


def create_optimizer(student: Student, configuration: TrainingConfiguration) -> torch.optim.Optimizer:
    """AdamW or Adam with layer-wise learning-rate decay (Clark et al. 2020; Bao et al. 2021, 2106.08254)."""
    backbone = student.classifier.backbone
    groups = param_groups_layer_decay(
        backbone,
        weight_decay=configuration.weight_decay,
        no_weight_decay_list=getattr(backbone, "no_weight_decay", set)(),
        layer_decay=configuration.layer_decay_factor,
    )
    # The distillation token is new, unlike the first layer that it is counted to.
    token = getattr(backbone, "dist_token", None)
    if token is not None:
        for group in groups:
            group["params"] = [parameter for parameter in group["params"] if parameter is not token]
        groups.append({"params": [token], "lr_scale": 1.0, "weight_decay": 0.0})
    for group in groups:
        group["lr"] = configuration.learning_rate * group.pop("lr_scale")
    for module in student.training_only:
        groups += [
            group | {"lr": configuration.learning_rate}
            for group in param_groups_weight_decay(module, configuration.weight_decay)
        ]
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[configuration.optimizer]
    return kind(groups, weight_decay=configuration.weight_decay)


def learning_rate_factor(step: int, configuration: TrainingConfiguration, steps_per_epoch: int) -> float:
    """Factor on the peak learning rate at an optimiser step: linear warm-up, then cosine or steps."""
    epoch = step / steps_per_epoch
    if epoch < configuration.warmup_epochs:
        return (step + 1) / (configuration.warmup_epochs * steps_per_epoch + 1)
    if configuration.schedule == "step":
        return configuration.step_factor ** (int(epoch) // configuration.step_epochs)
    span = max(configuration.epochs - configuration.warmup_epochs, 1e-9)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (epoch - configuration.warmup_epochs) / span)))
