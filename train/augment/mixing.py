"""Mixup (Zhang et al. 2018, 1710.09412) and CutMix (Yun et al. 2019, 1905.04899) of a batch with itself."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch

from train.configuration import AugmentationSettings


@dataclass(frozen=True)
class Mix:
    """How each image of a batch is mixed with another one.

    A mixed loss is `weight * loss(own) + (1 - weight) * loss(partner's)`, image by image, against labels as
    against what a teacher says: embeddings of two teachers' spaces can't be averaged.

    Attributes:
        partner: int64 [B], the position of the other image in the batch.
        weight: float32 [B], the share of the own image, 0 to 1. In CutMix it is the share of pixels that it
            kept, which is more than what was drawn where the box sticks out of the image.
        box: bool [S, S], where the partner shows in CutMix; None in mixup.
    """

    partner: torch.Tensor
    weight: torch.Tensor
    box: torch.Tensor | None = None

    def to(self, device: torch.device) -> Mix:
        """The same on a device, where the images and values must be as well."""
        moved = {
            field.name: value.to(device, non_blocking=True)
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) is not None
        }
        return Mix(**moved)

    def images(self, images: torch.Tensor) -> torch.Tensor:
        """Mixes [B, C, S, S]."""
        if self.box is None:
            return self.values(images)
        return torch.where(self.box, images[self.partner], images)

    def values(self, values: torch.Tensor) -> torch.Tensor:
        """Mixes float [B, ...], such as one-hot labels, probabilities, logits or embeddings, by `weight`."""
        weight = self.weight.view(-1, *[1] * (values.ndim - 1)).to(values.dtype)
        return torch.lerp(values[self.partner], values, weight)


def draw_mix(settings: AugmentationSettings, count: int, size: int, generator: torch.Generator) -> Mix | None:
    """Draws how to mix a batch, or None to leave it: one weight and one box for the whole batch.

    Args:
        settings: `mixup` and `cutmix` are the parameter of Beta(a, a) that the weight is drawn from; 0
            never chooses that kind, and with both above 0 each is as likely. `mix_probability` is the share of
            batches that are mixed.
        count: Images in the batch.
        size: Side of the images in pixels.
        generator: CPU generator that every random choice comes from.

    Returns:
        The mix, on the CPU.
    """
    kinds = [kind for kind in ("mixup", "cutmix") if getattr(settings, kind)]
    if not kinds or torch.rand((), generator=generator) >= settings.mix_probability:
        return None
    # torch draws beta variates from its global generator only.
    rng = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
    kind = kinds[rng.integers(len(kinds))]
    parameter = getattr(settings, kind)
    weight = float(rng.beta(parameter, parameter))
    partner = torch.randperm(count, generator=generator)
    if kind == "mixup":
        return Mix(partner, torch.full((count,), weight))
    box = _draw_box(size, math.sqrt(1 - weight), rng)
    return Mix(partner, torch.full((count,), 1 - box.float().mean().item()), box)


def _draw_box(size: int, share: float, rng: np.random.Generator) -> torch.Tensor:
    """A square of `share` of the side about a pixel anywhere, cut off where it sticks out: bool [S, S]."""
    side = int(size * share)
    rows, columns = (
        (torch.arange(size) >= start) & (torch.arange(size) < start + side)
        for start in rng.integers(size, size=2) - side // 2
    )
    return rows[:, None] & columns
