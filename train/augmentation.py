"""Augmentation of a whole batch on the training device: one sampling grid for all geometry, then colour."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from dermadeit.preprocessing import DIHEDRAL_VIEWS, apply_dihedral
from train.configuration import TrainingConfiguration

ELASTIC_GRID = 5
"""Control points a side of the elastic displacement field (spacing of 56 pixels at 224)."""

SMALLEST_DOWNSCALE = 0.35


class BatchAugmentation:
    """Random flips, rotations, scale, shift, elastic deformation, colour and resolution.

    The eight dihedral views are drawn by the caller, so that a teacher's embedding of the very same view can be
    paired with the image; everything else is drawn here.

    Args:
        configuration: Gives the strengths.
        size: Side of the images in pixels.
        device: Where the images are.
    """

    def __init__(self, configuration: TrainingConfiguration, size: int, device: torch.device) -> None:
        self.configuration = configuration
        self.device = device
        identity = F.affine_grid(torch.eye(2, 3)[None], [1, 1, size, size], align_corners=False)
        coordinates = identity[0].permute(2, 0, 1)
        self._view_grids = torch.stack(
            [apply_dihedral(coordinates, view) for view in range(DIHEDRAL_VIEWS)]
        ).to(device)

    def __call__(self, images: torch.Tensor, views: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Augments a batch.

        Args:
            images: float32 [B, 3, S, S] in 0 to 1.
            views: int64 [B], 0 to 7: which dihedral view each image becomes.
            generator: CPU generator that every random choice comes from.

        Returns:
            float32 [B, 3, S, S] in 0 to 1.
        """
        images = F.grid_sample(
            images, self._grid(views, generator), padding_mode="reflection", align_corners=False
        )
        return self._downscale(self._colour(images, generator), generator)

    def _uniform(self, count: int, limit: float, generator: torch.Generator) -> torch.Tensor:
        return ((torch.rand(count, generator=generator) * 2 - 1) * limit).to(self.device)

    def _grid(self, views: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        settings, count = self.configuration, len(views)
        angle = self._uniform(count, math.radians(settings.rotation_degrees), generator)
        scale = torch.exp(self._uniform(count, math.log(settings.scale), generator))
        shift = torch.stack([self._uniform(count, 2 * settings.shift, generator) for _ in range(2)], dim=1)
        rotation = torch.stack(
            [torch.cos(angle), -torch.sin(angle), torch.sin(angle), torch.cos(angle)], dim=1
        ).view(count, 2, 2)
        grid = self._view_grids[views]
        if settings.elastic:
            noise = torch.randn(count, 2, ELASTIC_GRID, ELASTIC_GRID, generator=generator).to(self.device)
            grid = grid + settings.elastic * F.interpolate(
                noise, size=grid.shape[-2:], mode="bicubic", align_corners=True
            )
        moved = torch.einsum("bij,bjhw->bihw", rotation / scale[:, None, None], grid)
        return (moved + shift[:, :, None, None]).permute(0, 2, 3, 1)

    def _colour(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        strength = self.configuration.colour
        if not strength:
            return images
        brightness, contrast, saturation = (
            (1 + self._uniform(len(images), strength, generator)).view(-1, 1, 1, 1) for _ in range(3)
        )
        images = images * brightness
        images = torch.lerp(images.mean(dim=(1, 2, 3), keepdim=True), images, contrast)
        images = torch.lerp(images.mean(dim=1, keepdim=True), images, saturation)
        return images.clamp(0, 1)

    def _downscale(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        # Sources differ in resolution, so sharpness gives the source away; hide it.
        chosen = torch.rand(len(images), generator=generator) < self.configuration.downscale_probability
        fraction = SMALLEST_DOWNSCALE + (1 - SMALLEST_DOWNSCALE) * torch.rand(1, generator=generator).item()
        if not chosen.any():
            return images
        chosen = chosen.to(self.device)
        size = images.shape[-1]
        small = F.interpolate(
            images[chosen], size=max(1, round(size * fraction)), mode="bilinear", antialias=True
        )
        images[chosen] = F.interpolate(small, size=size, mode="bilinear")
        return images
