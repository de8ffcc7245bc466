"""Pixels to tensors, from the preprocessing that belongs to one checkpoint. Training and serving share it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from dermadeit.errors import CheckpointError

if TYPE_CHECKING:
    # It takes a second or more to import, and only needs to be there where tensors are.
    import torch

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
DIHEDRAL_VIEWS = 8

COLOUR_CONSTANCIES = ("none", "shades_of_grey")
"""What may be done about the colour of the light; see `Preprocessing`."""

_MINKOWSKI_NORM = 6
_LARGEST_GAIN = 4.0
"""A channel that is all but black holds noise, which must not be blown up."""

_LARGEST_SIDE = 2048
"""Of an input; no network of `specs` takes as many pixels, and more would fill the memory."""

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Preprocessing:
    """How a checkpoint wants its images.

    Every image is squashed to a square whatever its aspect: nothing is cropped away, and images of different
    sources get the same geometry.

    Attributes:
        size: Side of the square, in pixels.
        mean: Per-channel mean, in 0 to 1.
        std: Per-channel standard deviation, in 0 to 1.
        interpolation: `bilinear` or `bicubic`; always antialiased.
        per_image_zscore: Standardise each image by the mean and deviation of its own values, all channels
            together, in place of `mean` and `std`, as the original DermaDeiT does.
        colour_constancy: One of `COLOUR_CONSTANCIES`, done before that; with `shades_of_grey` a gain on a channel
            changes nothing that the network sees.
    """

    size: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: str = "bicubic"
    per_image_zscore: bool = False
    colour_constancy: str = "none"

    @classmethod
    def from_pretrained_cfg(
        cls, config: Mapping[str, Any], *, per_image_zscore: bool = False, colour_constancy: str = "none"
    ) -> Preprocessing:
        """Reads timm's `pretrained_cfg`, which has no word for what else is given here.

        Raises:
            CheckpointError: It asks for what can't be honoured.
        """
        _, height, width = config["input_size"]
        if height != width or config.get("interpolation") not in _RESAMPLING:
            raise CheckpointError(
                f"The checkpoint asks for {width} × {height} pixels with “{config.get('interpolation')}” "
                f"interpolation; only squares with {' or '.join(_RESAMPLING)} are supported."
            )
        mean, std = tuple(config["mean"]), tuple(config["std"])
        if (
            type(height) is not int
            or not 0 < height <= _LARGEST_SIDE
            or (len(mean), len(std)) != (3, 3)
            or not np.isfinite((*mean, *std)).all()
            or min(std) <= 0
        ):
            raise CheckpointError(
                f"The checkpoint asks for {height!r:.20} pixels a side, the mean {mean!r:.60} and the deviation "
                f"{std!r:.60}; these can't be meant. Copy the checkpoint again."
            )
        if colour_constancy not in COLOUR_CONSTANCIES:
            raise CheckpointError(
                f"The checkpoint asks for the colour constancy “{colour_constancy}”; this version knows "
                f"{' and '.join(COLOUR_CONSTANCIES)}. Use a newer version."
            )
        return cls(
            height,
            mean,
            std,
            config["interpolation"],
            per_image_zscore,
            colour_constancy,
        )

    def squash(self, pixels: np.ndarray) -> np.ndarray:
        """Squashes an image to the square.

        Args:
            pixels: uint8 [H, W, 3], sRGB.

        Returns:
            uint8 [3, size, size].
        """
        image = Image.fromarray(pixels).resize((self.size, self.size), _RESAMPLING[self.interpolation])
        return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))

    def resize(self, pixels: np.ndarray) -> torch.Tensor:
        """As `squash`, as a tensor."""
        import torch

        return torch.from_numpy(self.squash(pixels))

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """Standardises the channels, or each image as a whole where `per_image_zscore` says so.

        Before that, the colour of the light is taken out where `colour_constancy` says so.

        Args:
            pixels: float [..., 3, H, W] in 0 to 1, or uint8 in 0 to 255.

        Returns:
            float32 [..., 3, H, W], about zero mean and unit deviation on natural images.
        """
        import torch

        scaled = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
        if self.colour_constancy == "shades_of_grey":
            scaled = shades_of_grey(scaled)
        if self.per_image_zscore:
            std, mean = torch.std_mean(scaled, dim=(-3, -2, -1), correction=0, keepdim=True)
            # What a grey image of one shade deviates by is rounding: it becomes zero.
            return (scaled - mean) / torch.where(std > 1e-6, std, 1)
        mean = torch.tensor(self.mean, device=pixels.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(3, 1, 1)
        return (scaled - mean).div_(std)

    def standardisation(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What `normalise` does, as a factor and an offset for each channel of each image.

        Args:
            pixels: uint8 [N, 3, H, W].

        Returns:
            Scale and shift, each float32 [N, 3, 1, 1]: `scale` · pixels + `shift` is what `normalise` gives.
        """
        gain = np.ones((len(pixels), 3, 1, 1), dtype=np.float32)
        mean = np.array(self.mean, dtype=np.float32).reshape(1, 3, 1, 1)
        std = np.array(self.std, dtype=np.float32).reshape(1, 3, 1, 1)
        if self.colour_constancy == "shades_of_grey":
            powers = (pixels / np.float32(255)) ** _MINKOWSKI_NORM
            light = powers.mean(axis=(2, 3), keepdims=True) ** (1 / _MINKOWSKI_NORM)
            grey = np.sqrt(np.square(light).mean(axis=1, keepdims=True))
            gain = np.divide(grey, light, out=gain, where=light > 0).clip(max=_LARGEST_GAIN)
        if self.per_image_zscore:
            scaled = pixels / np.float32(255) * gain
            mean = scaled.mean(axis=(1, 2, 3), keepdims=True)
            std = scaled.std(axis=(1, 2, 3), keepdims=True)
            std = np.where(std > 1e-6, std, np.float32(1))
        scale, shift = gain / (255 * std), -mean / std
        return scale.astype(np.float32), np.broadcast_to(shift.astype(np.float32), scale.shape)

    def __call__(self, pixels: np.ndarray) -> torch.Tensor:
        """uint8 [H, W, 3] to the float32 [3, size, size] that the model takes."""
        return self.normalise(self.resize(pixels))


def shades_of_grey(images: torch.Tensor) -> torch.Tensor:
    """Scales the channels of each image as if its light were grey (Finlayson and Trezzi 2004).

    The light is estimated by the Minkowski norm of each channel with p = 6, on the codes of sRGB, as is usual with
    dermoscopy (Barata et al. 2015). The norm over the three channels stays, and with it the exposure.

    Args:
        images: float [..., 3, H, W], 0 to 1.

    Returns:
        The same shape; values may exceed 1.
    """
    import torch

    light = images.pow(_MINKOWSKI_NORM).mean(dim=(-2, -1), keepdim=True).pow(1 / _MINKOWSKI_NORM)
    grey = light.square().mean(dim=-3, keepdim=True).sqrt()
    # A black image has no light to estimate.
    return images * torch.where(light > 0, grey / light, 1).clamp_max(_LARGEST_GAIN)


def apply_dihedral(images: torch.Tensor, view: int) -> torch.Tensor:
    """One of the eight symmetries of the square: `view % 4` quarter turns, mirrored first from 4 on.

    Args:
        images: [..., S, S].
        view: 0 (unchanged) to 7.
    """
    if view >= 4:
        images = images.flip(-1)
    return images.rot90(view % 4, dims=(-2, -1))


def dihedral_views(images: torch.Tensor, count: int) -> torch.Tensor:
    """The first `count` (1 to 8) dihedral views of [..., S, S], stacked in front: [count, ..., S, S]."""
    import torch

    return torch.stack([apply_dihedral(images, view) for view in range(count)])
