"""Augmentation of a whole batch on the training device: one sampling grid for all geometry, then appearance."""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F

from dermadeit.imaging.preprocessing import DIHEDRAL_VIEWS, apply_dihedral
from train.augment.appearance import (
    add_noise,
    apply_to_share,
    blur,
    change_colour,
    change_light,
    compress,
    darken_corners,
    downscale,
    draw_hairs,
    transfer_colour,
)
from train.configuration import AugmentationSettings

ELASTIC_GRID = 5
"""Control points a side of the elastic displacement field (spacing of 56 pixels at 224)."""


DRAWN_STREAMS = 7
"""Streams whose seeds are drawn; those of later effects follow from the first, so that what was drawn before they
came is drawn still."""


class BatchAugmentation:
    """Random geometry (rotation, scale, crop, stretch, shift, elastic deformation), then appearance.

    The eight dihedral views are drawn by the caller, so that a teacher's embedding of the very same view can be
    paired with the image: what comes out is the augmentation of that view, or the view itself where every
    strength is 0. Everything else is drawn here. Each effect draws from a stream of its own, so that switching
    one off leaves the others' choices as they were.

    Args:
        settings: Give the strengths.
        size: Side of the images in pixels.
        device: Where the images are.
    """

    def __init__(self, settings: AugmentationSettings, size: int, device: torch.device) -> None:
        self.settings = settings
        self.device = device
        self._coordinates = ((torch.arange(size) + 0.5) * (2 / size) - 1).to(device)
        self._view_matrices = torch.stack([_matrix_of_view(view) for view in range(DIHEDRAL_VIEWS)])
        control = torch.eye(ELASTIC_GRID)[None, None]
        self._control_weights = F.interpolate(
            control, size=(size, ELASTIC_GRID), mode="bicubic", align_corners=True
        )[0, 0].to(device)
        changes_light = settings.white_balance > 0 or settings.tone_curve > 1
        light = partial(change_light, white_balance=settings.white_balance, tone_curve=settings.tone_curve)
        # In the order of their causes: skin, light, instrument, lens, sensor, file. Each with its stream.
        self._effects = (
            (1, settings.hair_probability, draw_hairs),
            (7, settings.colour_transfer_probability, transfer_colour),
            (8, float(changes_light), light),
            (2, float(settings.colour > 0), partial(change_colour, strength=settings.colour)),
            (3, settings.vignette_probability, darken_corners),
            (4, settings.blur_probability, partial(blur, most=settings.blur)),
            (5, settings.downscale_probability, partial(downscale, least=settings.downscale_to)),
            (6, float(settings.noise > 0), partial(add_noise, deviation=settings.noise)),
            (9, settings.jpeg_probability, compress),
        )

    def __call__(self, images: torch.Tensor, views: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Augments a batch.

        Args:
            images: float32 [B, 3, S, S] in 0 to 1; left as they are.
            views: int64 [B] on the CPU, 0 to 7: which dihedral view each image becomes.
            generator: CPU generator that every random choice comes from.

        Returns:
            float32 [B, 3, S, S] in 0 to 1.
        """
        seeds = torch.randint(2**31, (DRAWN_STREAMS,), generator=generator).tolist()
        seeds += [seeds[0] + number for number in range(DRAWN_STREAMS, 1 + len(self._effects))]
        images = self._move(images, views, torch.Generator().manual_seed(seeds[0]))
        for stream, share, effect in self._effects:
            if share:
                images = apply_to_share(effect, share, images, torch.Generator().manual_seed(seeds[stream]))
        return images

    def _move(self, images: torch.Tensor, views: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        settings = self.settings
        if (
            settings.rotation_degrees
            or settings.scale > 1
            or settings.crop < 1
            or settings.aspect > 1
            or settings.shift
            or settings.elastic
        ):
            grid = self._grid(views, generator)
            return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
        # Without resampling, a view keeps every pixel exactly.
        moved = torch.empty_like(images)
        for view in views.unique().tolist():
            chosen = torch.nonzero(views == view).flatten().to(self.device, non_blocking=True)
            moved[chosen] = apply_dihedral(images[chosen], view)
        return moved

    def _grid(self, views: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Where each pixel comes from, x and y in -1 to 1: float32 [B, S, S, 2].

        Displaced, rotated, scaled, stretched and shifted within the view, and the view's matrix last, since the
        grid maps back from the augmented image, over its view, to the original.
        """
        settings, count = self.settings, len(views)

        def draw(limit: float, *shape: int) -> torch.Tensor:
            return (torch.rand(count, *shape, generator=generator) * 2 - 1) * limit

        angle = draw(math.radians(settings.rotation_degrees))
        zoom = torch.exp(draw(math.log(settings.scale)))
        shift = draw(2 * settings.shift, 2, 1)
        displacement = settings.elastic * torch.randn(
            count, 2, ELASTIC_GRID, ELASTIC_GRID, generator=generator
        )
        side = 1 - (1 - settings.crop) * torch.rand(count, generator=generator)
        # Lesions lie near the middle: a crop strays by no more than half of the room that it leaves.
        shift = shift + draw(0.5, 2, 1) * (1 - side).view(-1, 1, 1)
        stretch = torch.exp(draw(math.log(settings.aspect) / 2))
        rotation = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).view(count, 2, 2)
        rotation = torch.stack([stretch, 1 / stretch], dim=1)[..., None] * rotation
        view = self._view_matrices[views]
        matrix = view @ rotation * (side / zoom).view(-1, 1, 1)
        shift, displacement = view @ shift, torch.einsum("bij,bjkl->bikl", matrix, displacement)
        matrix, shift, displacement = (
            values.to(self.device, non_blocking=True) for values in (matrix, shift, displacement)
        )
        # Built as two planes, x and y, which is several times faster than interleaved.
        columns = matrix[..., :1, None] * self._coordinates + shift[..., None]
        grid = columns + matrix[..., 1:, None] * self._coordinates[:, None]
        if settings.elastic:
            grid += self._control_weights @ displacement @ self._control_weights.T
        return grid.permute(0, 2, 3, 1)


def _matrix_of_view(view: int) -> torch.Tensor:
    """What a view does to the coordinates (x, y) of its pixels, [2, 2], read off the corners of a square."""
    side = torch.tensor([-1.0, 1.0])
    corners = apply_dihedral(torch.stack(torch.meshgrid(side, side, indexing="xy")), view)
    return torch.stack([corners[:, 1, 1] - corners[:, 1, 0], corners[:, 1, 1] - corners[:, 0, 1]], dim=1) / 2
