"""Pictures as data addresses inside the page: no other address of them exists that could be asked for."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from dermadeit.reporting.document import data_address

_QUALITY = 85
"""Of WebP, as Pillow counts it."""


def jpeg_address(path: Path | None) -> str:
    """The address of a JPEG file; empty where there is none, or it has expired."""
    try:
        data = path.read_bytes() if path else b""
    except FileNotFoundError:
        data = b""
    return data_address(data, "jpeg") if data else ""


def webp_address(pixels: np.ndarray) -> str:
    """The address of pixels, uint8 [H, W, 3], or [H, W, 4] with opacity, of which nothing is stored."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=_QUALITY)
    return data_address(buffer.getvalue(), "webp")
