"""The skin tone of a photo as an estimate: the individual typology angle of the skin around the lesion.

Individual typology angle (ITA) after Chardon, Cretois and Hourseau (1991), categories after Del Bino and Bernerd
(2013), taken from dermoscopy photos without a colour reference as Kinyanjui et al. (2020) do. Groh et al. (2022)
show how weakly it agrees with what people see: `SKIN_TONE_CAVEAT` belongs beside every figure that uses it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from dermadeit.imaging.colour import srgb_to_linear

SKIN_TONE_CAVEAT = (
    "Estimated from the colour of the skin at the rim of the photo (individual typology angle). Lighting, "
    "white balance, polarisation, tanning, redness and a lesion that fills the field change it. It agrees "
    "only weakly with human raters (Kinyanjui et al. 2020; Groh et al. 2022). It is not a Fitzpatrick type "
    "and does not describe a person."
)

SKIN_TONES = ("very light", "light", "intermediate", "tan", "brown", "dark")
"""Categories from light to dark."""

_LEAST_ANGLES = (55, 41, 28, 10, -30)
"""Each category but the last lies above its angle, in degrees."""

_WORKING_SIDE = 128
_INNER, _OUTER = 0.68, 0.95
"""The ring of skin, in half axes of the ellipse that fills the lit field: no corner lies inside."""

_LIT_SHARE = 0.15
"""Share of its pixels that a row or column of the lit field has brighter than `_DARKEST`."""

_DARKEST = 30
"""Lightness below which a pixel of the ring is taken as frame, hair or ink. The darkest skin is about 30."""

_BRIGHTEST = 250
"""Channel value from which a pixel is taken as reflection or paper."""

_LEAST_SHARE = 0.25
"""Share of the ring that must be left for an estimate."""

_MOST_UNEVEN = 12.0
"""Deviation of the ring's L* from which the lesion is taken to reach into it; that of plain skin is about 5."""

_LEAST_YELLOWNESS = 3.0
"""Mean b* below which the light has a blue or violet cast: skin has about 8 to 25, and the angle of anything else
runs to 90° whatever its lightness."""

# sRGB to CIE XYZ (IEC 61966-2-1), then relative to the white of D65.
_XYZ_OF_RGB = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE = _XYZ_OF_RGB.sum(axis=1)
_DARKEST_LIGHT = _WHITE[1] * ((_DARKEST + 16) / 116) ** 3
"""Luminance (Y) of the lightness `_DARKEST`."""


@dataclass(frozen=True)
class SkinToneEstimate:
    """The estimated skin tone of one photo.

    Attributes:
        angle: Individual typology angle in degrees, higher is lighter.
        category: One of `SKIN_TONES`.
        share: Share of the ring's pixels that it was taken from, 0 to 1.
    """

    angle: float
    category: str
    share: float


def estimate_skin_tone(pixels: np.ndarray) -> SkinToneEstimate | None:
    """Estimates the skin tone from a ring near the border of a photo.

    The ring leaves out the middle, where the lesion is, and the dark frame and corners of a dermatoscope. In it,
    vignette, hair, ink and reflections are dropped, then all that is further than one deviation from the mean
    lightness or yellowness, as Kinyanjui et al. (2020) do.

    Args:
        pixels: uint8 [H, W, 3], sRGB.

    Returns:
        The estimate, or None where too little of the ring is skin, where the lesion seems to reach into it, or
        where the light gives it a colour that no skin has.
    """
    height, width = pixels.shape[:2]
    scale = min(1, _WORKING_SIDE / min(height, width))
    small = Image.fromarray(pixels).resize(
        (round(width * scale), round(height * scale)), Image.Resampling.BOX
    )
    colours = np.asarray(small)
    lit = _light_of_codes()[colours] @ _XYZ_OF_RGB[1] > _DARKEST_LIGHT
    ring = _ring(lit)
    red, green, blue = np.moveaxis(colours, -1, 0)
    is_dull = np.maximum(np.maximum(red, green), blue) < _BRIGHTEST
    skin = srgb_to_lab(colours[ring & lit & is_dull])
    if len(skin) < max(1, _LEAST_SHARE * ring.sum()) or skin[:, 0].std() > _MOST_UNEVEN:
        return None
    typical = skin[_within_one_deviation(skin[:, 0]) & _within_one_deviation(skin[:, 2])]
    lightness, _, yellowness = typical.mean(axis=0).tolist()
    if yellowness < _LEAST_YELLOWNESS:
        return None
    angle = individual_typology_angle(lightness, yellowness)
    return SkinToneEstimate(angle, tone_category(angle), len(typical) / int(ring.sum()))


def skin_angle(pixels: np.ndarray) -> float | None:
    """The angle of `estimate_skin_tone` alone, in degrees; None where there is no estimate."""
    estimate = estimate_skin_tone(pixels)
    return None if estimate is None else estimate.angle


@cache
def _light_of_codes() -> np.ndarray:
    """The light of each 8-bit code of sRGB: float64 [256]."""
    return srgb_to_linear(np.arange(256) / 255)


def srgb_to_lab(pixels: np.ndarray) -> np.ndarray:
    """Converts sRGB to CIELAB under D65, by the formulas of IEC 61966-2-1 and CIE 15.

    Args:
        pixels: uint8 [..., 3].

    Returns:
        float64 [..., 3]: L* of 0 to 100, a* and b*.
    """
    relative = srgb_to_linear(pixels / 255) @ _XYZ_OF_RGB.T / _WHITE
    root = np.where(relative > (6 / 29) ** 3, np.cbrt(relative), relative / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def individual_typology_angle(lightness: float, yellowness: float) -> float:
    """ITA in degrees from L* and a positive b* (Chardon et al. 1991)."""
    return math.degrees(math.atan((lightness - 50) / yellowness))


def tone_category(angle: float) -> str:
    """The category of an ITA (Del Bino and Bernerd 2013): over 55° very light, down to -30° or less, dark."""
    return SKIN_TONES[sum(angle <= least for least in _LEAST_ANGLES)]


def _ring(lit: np.ndarray) -> np.ndarray:
    """Where skin is looked for, bool [H, W], given which pixels are not dark."""
    y = _position_in_field(lit.mean(axis=1))
    x = _position_in_field(lit.mean(axis=0))
    distance = np.hypot(y[:, None], x[None])
    return (distance >= _INNER) & (distance <= _OUTER)


def _position_in_field(lit_shares: np.ndarray) -> np.ndarray:
    """Centres of rows or columns as -1 to 1 across those that are lit."""
    lines = np.flatnonzero(lit_shares >= _LIT_SHARE)
    first, last = (lines[0], lines[-1]) if len(lines) else (0, len(lit_shares) - 1)
    return (np.arange(len(lit_shares)) + 0.5 - first) / (last + 1 - first) * 2 - 1


def _within_one_deviation(values: np.ndarray) -> np.ndarray:
    return np.abs(values - values.mean()) <= values.std() + 1e-9
