"""How a photo of the same lesion may differ: hair, light, dark corners, sharpness, noise and compression.

Each effect takes float32 [B, 3, S, S] in 0 to 1 and a CPU generator that all its random choices come from, and
returns a new tensor like it. Lengths are shares of the side, so a picture looks alike at every size. Nothing
waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from train.configuration import LEAST_BLUR

Effect = Callable[[torch.Tensor, torch.Generator], torch.Tensor]

MOST_HAIRS = 14
JPEG_QUALITIES = (15, 75)


_TO_YCC = torch.tensor(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], dtype=torch.float32
)
"""RGB to luma and two colour differences about zero (JFIF)."""

_JPEG_TABLES = torch.tensor(
    [
        [
            16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
            14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
            18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
            49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
        ],
        [17, 18, 24, 47, *[99] * 4, 18, 21, 26, 66, *[99] * 4, 24, 26, 56, *[99] * 5, 47, 66, *[99] * 38],
    ]
).view(2, 8, 8)[[0, 1, 1]].float()  # fmt: skip
"""Steps of the coefficients of luma and of both colour differences: [3, 8, 8]."""


def apply_to_share(
    effect: Effect, share: float, images: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Applies an effect to each image with probability `share`, overwriting it; 0 leaves all as they are."""
    if share >= 1:
        return effect(images, generator)
    # Chosen on the CPU: a mask on the device would have to come back to be counted.
    chosen = torch.nonzero(torch.rand(len(images), generator=generator) < share).flatten()
    if len(chosen):
        chosen = chosen.to(images.device, non_blocking=True)
        images[chosen] = effect(images[chosen], generator)
    return images


def change_colour(images: torch.Tensor, generator: torch.Generator, strength: float) -> torch.Tensor:
    """Scales brightness, contrast and saturation, each by up to `strength` more or less.

    Contrast is about the image's mean, saturation about each pixel's. All three are linear, so a product with
    one matrix and one sum do it.
    """
    brightness, contrast, saturation = (
        _draw(images, generator, 1 - strength, 1 + strength).squeeze(1) for _ in range(3)
    )
    mean = images.mean(dim=(1, 2, 3)).view(-1, 1, 1)
    identity = torch.eye(3, device=images.device)
    matrix = brightness * contrast * (saturation * identity + (1 - saturation) / 3)
    offset = brightness * (1 - contrast) * mean
    return torch.baddbmm(offset, matrix, images.flatten(2)).view_as(images).clamp_(0, 1)


def change_light(
    images: torch.Tensor, generator: torch.Generator, white_balance: float, tone_curve: float
) -> torch.Tensor:
    """Raises pixels to a power, and multiplies each channel by a factor: the camera's curve, and the light.

    The power is up to `tone_curve` or its inverse, each factor up to 1 + `white_balance` or its inverse.
    """
    power, gain = math.log(tone_curve), math.log1p(white_balance)
    exponent = _draw(images, generator, -power, power).exp()
    factors = _draw(images, generator, -gain, gain, channels=3).exp()
    return images.pow(exponent).mul_(factors).clamp_(0, 1)


def transfer_colour(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Moves mean and deviation of each channel towards those of another image (Reinhard et al. 2001, in RGB).

    So that a source can't be told by its colours: they turn up in photos of all sources.
    """
    deviation, mean = torch.std_mean(images, dim=(-2, -1), correction=0, keepdim=True)
    partner = torch.randperm(len(images), generator=generator).to(images.device, non_blocking=True)
    weight = _draw(images, generator, 0, 1)
    own = deviation.clamp_min(1e-3)
    factor = torch.lerp(own, own[partner], weight) / own
    return ((images - mean) * factor).add_(torch.lerp(mean, mean[partner], weight)).clamp_(0, 1)


def add_noise(images: torch.Tensor, generator: torch.Generator, deviation: float) -> torch.Tensor:
    """Adds Gaussian noise, of each image's own deviation up to `deviation`."""
    own = _draw(images, generator, 0, deviation)
    # As many numbers as pixels are drawn where the pixels are.
    seed = int(torch.randint(2**31, (), generator=generator))
    on_device = torch.Generator(images.device).manual_seed(seed)
    noise = torch.randn(images.shape, generator=on_device, device=images.device)
    return noise.mul_(own).add_(images).clamp_(0, 1)


def blur(images: torch.Tensor, generator: torch.Generator, most: float) -> torch.Tensor:
    """Defocuses by a Gaussian, of a deviation between `LEAST_BLUR` and `most`, shares of the side."""
    return _gaussian(images, _draw(images, generator, LEAST_BLUR, most))


def downscale(images: torch.Tensor, generator: torch.Generator, least: float) -> torch.Tensor:
    """Scales down and up again, to the same fraction in all images, `least` or more.

    Sources differ in resolution, so sharpness gives the source away; this hides it.
    """
    size = images.shape[-1]
    fraction = least + (1 - least) * torch.rand((), generator=generator).item()
    small = F.interpolate(images, size=max(1, round(size * fraction)), mode="bilinear", antialias=True)
    return F.interpolate(small, size=size, mode="bilinear")


def compress(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Rounds the cosine transform of blocks of 8 × 8 pixels, as JPEG does, with a quality drawn for each image.

    By the tables of its standard (ITU-T T.81, annex K), without thinning out the colours.
    """
    size = images.shape[-1]
    spare = -size % 8
    quality = _draw(images, generator, *JPEG_QUALITIES)
    scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50)
    tables = _JPEG_TABLES.to(images.device, non_blocking=True)
    steps = (tables * scale + 0.5).floor_().clamp_min_(1)[:, :, None, None]
    cosine, to_ycc = (
        matrix.to(images.device, non_blocking=True) for matrix in (_cosine_transform(), _TO_YCC)
    )
    padded = F.pad(images, (0, spare, 0, spare), mode="replicate") if spare else images
    # About the middle of the range, which takes 128 from luma and nothing from the colour differences.
    ycc = torch.einsum("ij,bjhw->bihw", to_ycc, padded * 255 - 128)
    blocks = ycc.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8)).transpose(-3, -2)
    rounded = (cosine @ blocks @ cosine.T / steps).round_().mul_(steps)
    planes = (cosine.T @ rounded @ cosine).transpose(-3, -2).flatten(-2).flatten(-3, -2)
    rgb = torch.einsum("ij,bjhw->bihw", torch.linalg.inv(to_ycc), planes[..., :size, :size])
    return rgb.add_(128).div_(255).clamp_(0, 1)


def darken_corners(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Shows the round field of a dermatoscope: dark outside an ellipse, as squashing makes of the circle."""
    size = images.shape[-1]
    coordinates = (torch.arange(size, device=images.device) + 0.5) * (2 / size) - 1
    x, y = coordinates.view(1, 1, 1, -1), coordinates.view(1, 1, -1, 1)
    x, y = (
        (axis - _draw(images, generator, -0.1, 0.1)) * _draw(images, generator, 0.8, 1) for axis in (x, y)
    )
    inside = _draw(images, generator, 0.85, 1.15) - torch.sqrt(x**2 + y**2)
    visible = torch.sigmoid(inside / _draw(images, generator, 0.01, 0.06))
    return torch.lerp(_draw(images, generator, 0, 0.1).expand_as(images), images, visible)


def draw_hairs(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draws up to `MOST_HAIRS` thin arcs, roughly parallel in an image, black to light brown."""
    count, size = len(images), images.shape[-1]
    width = _draw(images, generator, 0.002, 0.005)
    ink = _gaussian(_hair_ink(count, size, generator).to(images.device, non_blocking=True), width)
    # Opaque in the middle where the hair is wider than a pixel, fainter where it is thinner.
    cover = (ink * (math.sqrt(2 * math.pi) * width * size)).clamp_(max=1) * _draw(images, generator, 0.6, 1)
    brown = torch.tensor([0.36, 0.24, 0.17]).view(3, 1, 1).to(images.device, non_blocking=True)
    return torch.lerp(images, brown * _draw(images, generator, 0.1, 1.2), cover)


def _hair_ink(count: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """Arcs drawn one pixel thin: float32 [count, 1, size, size], on each the length of arc that crosses it."""

    def draw(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    angle = draw(0, math.pi, 1, 1) + draw(-0.5, 0.5, MOST_HAIRS, 1)
    length, bend = draw(0.2, 1, MOST_HAIRS, 1), draw(-0.15, 0.15, MOST_HAIRS, 1)
    middle = draw(0, 1, 2, MOST_HAIRS, 1)
    along = torch.linspace(-0.5, 0.5, size)
    across = bend * (1 - 4 * along**2)
    points = middle + length[:, None] * torch.stack(
        [along * angle.cos() - across * angle.sin(), along * angle.sin() + across * angle.cos()], dim=1
    )
    points = points * size - 0.5
    shown = torch.arange(MOST_HAIRS).view(-1, 1) < draw(1, MOST_HAIRS + 1, 1, 1)
    amount = points.diff(dim=-1).norm(dim=1) * shown
    points = points[..., 1:]

    # Each point's ink is shared out between the four pixels around it.
    ink = torch.zeros(count * size * size)
    corner = points.floor()
    first = torch.arange(count).view(-1, 1, 1) * (size * size)
    for right, below in ((0, 0), (1, 0), (0, 1), (1, 1)):
        pixel = corner + torch.tensor([right, below]).view(2, 1, 1)
        share = (1 - (points - pixel).abs()).prod(dim=1)
        column, row = pixel.long().unbind(dim=1)
        within = (pixel >= 0).all(dim=1) & (pixel < size).all(dim=1)
        position = first + row.clamp(0, size - 1) * size + column.clamp(0, size - 1)
        ink.index_add_(0, position.flatten(), (amount * share * within).flatten())
    return ink.view(count, 1, size, size)


def _gaussian(images: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
    """Blurs [B, C, S, S] by Gaussians of [B, 1, 1, 1] shares of the side, with weights that sum to 1 at edges.

    As a product with a matrix on either side, because every image has its own kernel.
    """
    size = images.shape[-1]
    position = torch.arange(size, device=images.device) / size
    distance = (position.view(-1, 1) - position.view(1, -1)) / deviation
    kernel = torch.softmax(-(distance**2) / 2, dim=-1)
    return kernel @ images @ kernel.mT


def _cosine_transform() -> torch.Tensor:
    """The orthonormal matrix of the discrete cosine transform of 8 values, [8, 8]."""
    frequency, position = torch.arange(8.0)[:, None], torch.arange(8.0)
    matrix = torch.cos((2 * position + 1) * frequency * math.pi / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix


def _draw(
    images: torch.Tensor, generator: torch.Generator, low: float, high: float, channels: int = 1
) -> torch.Tensor:
    """Numbers between `low` and `high` for each image: [B, channels, 1, 1], on the images' device."""
    drawn = low + (high - low) * torch.rand(len(images), channels, 1, 1, generator=generator)
    return drawn.to(images.device, non_blocking=True)
