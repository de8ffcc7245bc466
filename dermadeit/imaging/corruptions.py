"""What can go wrong with a dermoscopy photo, in five severities, to measure what a model makes of it.

After Hendrycks and Dietterich (2019, 1903.12261): brightness, contrast, blur, defocus, JPEG, noise and pixelation
are theirs, with strengths chosen for skin, where theirs at their strongest leave nothing that a dermatologist
would read. Dark corners, hair, rulers and ink are what dermoscopy adds (Winkler et al. 2019 and 2021 show that
ink and scale bars alone mislead classifiers).

All strengths are relative to the short side of the picture, and those of JPEG and noise refer to a picture of 224
pixels, so that a thumbnail and a photo of the same lesion suffer alike.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage, signal

from dermadeit.imaging.colour import linear_to_srgb, srgb_to_linear
from dermadeit.imaging.rendering import draw_hair_curve

SEVERITIES = (1, 2, 3, 4, 5)

_REFERENCE_SIDE = 224
_OVERSAMPLING = 4
"""Edges are drawn so many times larger and shrunk, because Pillow's are not antialiased."""

# From severity 1 to 5.
_EXPOSURE_STOPS = (0.2, 0.4, 0.6, 0.85, 1.15)
_CONTRAST_FACTORS = (0.75, 0.6, 0.47, 0.35, 0.25)
_BLUR_DEVIATIONS = (0.006, 0.010, 0.015, 0.021, 0.028)
_DEFOCUS_RADII = (0.013, 0.020, 0.028, 0.037, 0.047)
_JPEG_QUALITIES = (40, 26, 18, 12, 8)
_NOISE_DEVIATIONS = (0.05, 0.09, 0.14, 0.20, 0.28)
_PIXELS_ACROSS = (56, 44, 34, 26, 20)
_FIELD_RADII = (0.96, 0.88, 0.80, 0.72, 0.64)
_HAIRS = (5, 10, 17, 26, 38)
_RULER_WIDTHS = (0.06, 0.09, 0.12, 0.16, 0.20)
_INK_STROKES = (2, 4, 6, 9, 12)

# Share of red, green and blue light that passes: what lies on skin only darkens it, and paper hides it.
_HAIR_TINT = (0.26, 0.21, 0.19)
_INK_TINT = (0.44, 0.36, 0.82)
_PRINT_TINT = (0.2, 0.2, 0.22)
_PAPER = (236, 233, 224)


def corrupt(pixels: np.ndarray, corruption: str, severity: int, seed: int = 0) -> np.ndarray:
    """Spoils one picture.

    Args:
        pixels: uint8 [H, W, 3], sRGB; not changed.
        corruption: One of `CORRUPTIONS`.
        severity: 1 (a careful reader notices) to 5 (hard to read); 0 changes nothing.
        seed: 0 or more; decides all that is random. With one seed, a higher severity adds to a lower one: the
            same hairs and more of them, the same noise but stronger.

    Returns:
        uint8 [H, W, 3], a new array, the same for the same arguments.

    Raises:
        KeyError: There is no such corruption.
        ValueError: `severity` is not 0 to 5.
    """
    apply = CORRUPTIONS[corruption]
    if severity == 0:
        return pixels.copy()
    if severity not in SEVERITIES:
        raise ValueError(f"a severity is 0 to {SEVERITIES[-1]}, not {severity}")
    # A generator of its own for each corruption: one that draws less must not shift what another draws.
    rng = np.random.default_rng((seed, list(CORRUPTIONS).index(corruption)))
    spoilt = apply(pixels.astype(np.float32), severity - 1, rng)
    return np.clip(np.rint(spoilt), 0, 255).astype(np.uint8)


_Change = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]
"""float32 [H, W, 3] of 0 to 255, index of the severity and generator to float [H, W, 3], not yet clipped."""


def _brightness(pixels: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Over- or underexposure in photographic stops, that is by a factor of the light and not of its sRGB code."""
    stops = rng.choice((-1, 1)) * _EXPOSURE_STOPS[level]
    return 255 * linear_to_srgb(srgb_to_linear(pixels / 255) * 2**stops)


def _contrast(pixels: np.ndarray, level: int, _: np.random.Generator) -> np.ndarray:
    mean = pixels.mean(axis=(0, 1))
    return mean + _CONTRAST_FACTORS[level] * (pixels - mean)


def _blur(pixels: np.ndarray, level: int, _: np.random.Generator) -> np.ndarray:
    deviation = _BLUR_DEVIATIONS[level] * min(pixels.shape[:2])
    return ndimage.gaussian_filter(pixels, (deviation, deviation, 0), mode="nearest")


def _defocus(pixels: np.ndarray, level: int, _: np.random.Generator) -> np.ndarray:
    radius = _DEFOCUS_RADII[level] * min(pixels.shape[:2])
    reach = int(np.ceil(radius))
    offsets = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1])
    # The rim is covered in part, else a disk of less than a pixel's radius would change nothing.
    disk = np.clip(radius + 0.5 - offsets, 0, 1)
    padded = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    return signal.fftconvolve(padded, (disk / disk.sum())[..., None], mode="valid", axes=(0, 1))


def _jpeg(pixels: np.ndarray, level: int, _: np.random.Generator) -> np.ndarray:
    """Compression at the reference size, as by a messenger; what it changed is added at the picture's own."""
    size = pixels.shape[1::-1]
    scale = _REFERENCE_SIDE / min(size)
    reference = Image.fromarray(pixels.astype(np.uint8)).resize(
        [round(side * scale) for side in size], Image.Resampling.BICUBIC
    )
    file = io.BytesIO()
    reference.save(file, "JPEG", quality=_JPEG_QUALITIES[level])
    with Image.open(file) as compressed:
        change = np.asarray(compressed, np.float32) - np.asarray(reference, np.float32)
    return pixels + _resize(change, size)


def _noise(pixels: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    size = pixels.shape[1::-1]
    scale = _REFERENCE_SIDE / min(size)
    shape = (round(size[1] * scale), round(size[0] * scale), 3)
    grain = rng.standard_normal(shape, dtype=np.float32)
    return pixels + 255 * _NOISE_DEVIATIONS[level] * _resize(grain, size)


def _pixelate(pixels: np.ndarray, level: int, _: np.random.Generator) -> np.ndarray:
    size = pixels.shape[1::-1]
    scale = _PIXELS_ACROSS[level] / min(size)
    coarse = Image.fromarray(pixels.astype(np.uint8)).resize(
        [round(side * scale) for side in size], Image.Resampling.BOX
    )
    # Blocks that end within a pixel are averaged there: rounding their edges would shift the picture.
    fine = coarse.resize([side * _OVERSAMPLING for side in size], Image.Resampling.NEAREST)
    return np.asarray(fine.resize(size, Image.Resampling.BOX), np.float32)


def _dark_corner(pixels: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """The round field of a dermatoscope, its radius a share of half the diagonal, a little off the centre."""
    height, width = pixels.shape[:2]
    half = np.hypot(height, width) / 2
    row, column = np.array((height, width)) / 2 + rng.uniform(-0.03, 0.03, 2) * half
    y, x = np.ogrid[:height, :width]
    distance = np.hypot(y - row, x - column) / half
    lit = np.clip((_FIELD_RADII[level] - distance) / 0.04 + 0.5, 0, 1)[..., None]
    return pixels * (0.04 + 0.96 * lit * lit * (3 - 2 * lit))


def _hair(pixels: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Curved strokes from edge to edge that share a direction, as hair does."""
    canvas = _Canvas(pixels)
    along = rng.uniform(0, np.pi)
    for _ in range(_HAIRS[level]):
        curve = draw_hair_curve(rng, canvas.size, along, longest=1.2)
        canvas.stroke(curve, rng.uniform(0.005, 0.011) * canvas.short)
    return _absorb(pixels, canvas.cover(), _HAIR_TINT)


def _ruler(pixels: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """A paper scale along one edge; its ticks stand as if the short side were 12 mm."""
    quarter_turns = int(rng.integers(4))
    turned = np.rot90(pixels, quarter_turns)
    paper, ticks = _Canvas(turned), _Canvas(turned)
    width, height = turned.shape[1::-1]
    depth = _RULER_WIDTHS[level] * paper.short
    tilt = rng.uniform(-0.06, 0.06) * width / 2
    shift = rng.uniform(0, 1)
    edge = [(0, height - depth - tilt), (width, height - depth + tilt)]
    paper.polygon([*edge, (width, height), (0, height)])
    millimetre = paper.short / 12
    for tick in range(int(width / millimetre) + 1):
        x = (tick + shift) * millimetre
        y = height - depth - tilt + 2 * tilt * x / width
        length = depth * (0.8 if tick % 5 == 0 else 0.45)
        ticks.stroke([(x, y), (x, y + length)], 0.008 * paper.short)
    covered = turned + paper.cover() * (np.array(_PAPER) - turned)
    return np.rot90(_absorb(covered, ticks.cover(), _PRINT_TINT), -quarter_turns)


def _ink(pixels: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Strokes of a surgical marker around the middle, as before an excision."""
    canvas = _Canvas(pixels)
    middle = canvas.size / 2 + rng.uniform(-0.03, 0.03, 2) * canvas.short
    first = rng.uniform(0, 2 * np.pi)
    for stroke in range(_INK_STROKES[level]):
        # Steps of the golden angle keep any number of strokes apart from each other.
        start = first + stroke * np.pi * (3 - np.sqrt(5)) + rng.normal(0, 0.1)
        directions = start + np.linspace(0, rng.uniform(0.15, 0.4), 12)
        radii = (rng.uniform(0.38, 0.46) + rng.normal(0, 0.002, 12)) * canvas.short
        arc = middle + radii[:, None] * np.stack([np.cos(directions), np.sin(directions)], axis=1)
        canvas.stroke(arc, rng.uniform(0.025, 0.04) * canvas.short)
    return _absorb(pixels, canvas.cover(), _INK_TINT)


CORRUPTIONS: Mapping[str, _Change] = MappingProxyType(
    {
        "brightness": _brightness,
        "contrast": _contrast,
        "blur": _blur,
        "defocus": _defocus,
        "jpeg": _jpeg,
        "noise": _noise,
        "pixelate": _pixelate,
        "dark_corner": _dark_corner,
        "hair": _hair,
        "ruler": _ruler,
        "ink": _ink,
    }
)
"""Name of each corruption to what it does; its place decides what `corrupt` draws, so add at the end."""


class _Canvas:
    """Antialiased strokes on a picture of one size, in its pixel coordinates (x, y)."""

    def __init__(self, pixels: np.ndarray) -> None:
        height, width = pixels.shape[:2]
        self.size = np.array((width, height))
        self.short = min(width, height)
        self._mask = Image.new("L", (width * _OVERSAMPLING, height * _OVERSAMPLING))
        self._draw = ImageDraw.Draw(self._mask)

    def stroke(self, points: np.ndarray | list[tuple[float, float]], thickness: float) -> None:
        """Draws a line through `points`, `thickness` pixels wide."""
        self._draw.line(self._scaled(points), 255, max(1, round(thickness * _OVERSAMPLING)), joint="curve")

    def polygon(self, points: list[tuple[float, float]]) -> None:
        """Fills the polygon with these corners."""
        self._draw.polygon(self._scaled(points), 255)

    def cover(self) -> np.ndarray:
        """How much of each pixel was drawn on, float32 [H, W, 1] of 0 to 1."""
        mask = self._mask.resize(tuple(self.size.tolist()), Image.Resampling.BOX)
        return np.asarray(mask, np.float32)[..., None] / 255

    def _scaled(self, points: np.ndarray | list[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(x * _OVERSAMPLING, y * _OVERSAMPLING) for x, y in points]


def _absorb(pixels: np.ndarray, cover: np.ndarray, tint: tuple[float, float, float]) -> np.ndarray:
    return pixels * (1 - cover * (1 - np.array(tint, np.float32)))


def _resize(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Float [h, w, 3] to float32 [H, W, 3] with antialiasing, for values that no 8-bit image can hold."""
    resize = partial(Image.Image.resize, size=size, resample=Image.Resampling.BILINEAR)
    return np.stack(
        [np.asarray(resize(Image.fromarray(values[..., channel]))) for channel in range(3)], axis=-1
    )
