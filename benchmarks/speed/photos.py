"""Photos to measure with, made of the shipped examples: no others are needed."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from PIL import Image

from dermadeit.publishing.exports import example_photos

USUAL_SIZE = (600, 450)
"""Width and height of most photos of HAM10000."""

LARGE_SIZE = (4000, 3000)
"""12 megapixels, as a telephone takes them."""

_QUALITY = 90
_LEAST_SHARE = 0.6
_NOISE = 6


@cache
def make_photos(count: int) -> tuple[bytes, ...]:
    """Different photos of `USUAL_SIZE` as JPEG files: parts of the examples, some of them mirrored."""
    rng = np.random.default_rng(0)
    examples = [Image.open(path).convert("RGB") for path in example_photos()]
    return tuple(_encode(_take_part(examples[index % len(examples)], rng)) for index in range(count))


@cache
def make_large_photo() -> bytes:
    """One photo of `LARGE_SIZE` as a JPEG file, with noise as of a sensor: without, it would decode too fast."""
    pixels = np.asarray(Image.open(example_photos()[0]).convert("RGB").resize(LARGE_SIZE), dtype=np.int16)
    noise = np.random.default_rng(0).integers(-_NOISE, _NOISE + 1, (750, 1000, 3), dtype=np.int16)
    noisy = (pixels + np.tile(noise, (4, 4, 1))).clip(0, 255).astype(np.uint8)
    return _encode(Image.fromarray(noisy))


def _take_part(photo: Image.Image, rng: np.random.Generator) -> Image.Image:
    share = rng.uniform(_LEAST_SHARE, 1)
    width, height = photo.width * share, photo.height * share
    left, top = rng.uniform(0, photo.width - width), rng.uniform(0, photo.height - height)
    part = photo.resize(USUAL_SIZE, box=(left, top, left + width, top + height))
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else part


def _encode(photo: Image.Image) -> bytes:
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
