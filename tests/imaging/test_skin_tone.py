"""Skin tone from pixels: colour conversion, angle, categories, and where no estimate is given."""

import numpy as np
import pytest

from dermadeit.imaging.corruptions import corrupt
from dermadeit.imaging.skin_tone import (
    SKIN_TONES,
    estimate_skin_tone,
    individual_typology_angle,
    srgb_to_lab,
    tone_category,
)

LIGHT_SKIN, DARK_SKIN, LESION = (236, 200, 176), (104, 70, 54), (60, 30, 20)


def _photo(skin: tuple[int, int, int], height: int = 150, width: int = 200) -> np.ndarray:
    """Plain skin with a round dark lesion in the middle."""
    pixels = np.full((height, width, 3), skin, np.uint8)
    y, x = np.mgrid[:height, :width]
    pixels[np.hypot(y - height / 2, x - width / 2) < 0.25 * height] = LESION
    return pixels


@pytest.mark.parametrize(
    ("colour", "lab"),
    # Published values for sRGB's own white, black and primaries under D65 (Lindbloom).
    [
        ((255, 255, 255), (100.0, 0.0, 0.0)),
        ((0, 0, 0), (0.0, 0.0, 0.0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 255, 0), (87.74, -86.18, 83.18)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((119, 119, 119), (50.03, 0.0, 0.0)),
    ],
)
def test_colours_convert_to_the_published_lab_values(
    colour: tuple[int, int, int], lab: tuple[float, float, float]
) -> None:
    assert srgb_to_lab(np.array(colour, np.uint8)) == pytest.approx(lab, abs=0.02)


@pytest.mark.parametrize(
    ("lightness", "yellowness", "angle", "category"),
    [
        # atan(1) by hand, then angles on either side of each limit.
        (65.0, 15.0, 45.0, "light"),
        (50.0, 15.0, 0.0, "brown"),
        (35.0, 15.0, -45.0, "dark"),
        (50 + 15 * np.sqrt(3), 15.0, 60.0, "very light"),
        (50 + 15 / np.sqrt(3), 15.0, 30.0, "intermediate"),
        (50 + 15 * np.tan(np.radians(20)), 15.0, 20.0, "tan"),
    ],
)
def test_angles_and_categories(lightness: float, yellowness: float, angle: float, category: str) -> None:
    assert individual_typology_angle(lightness, yellowness) == pytest.approx(angle)
    assert tone_category(angle) == category


def test_limits_belong_to_the_darker_category() -> None:
    assert [tone_category(limit) for limit in (55, 41, 28, 10, -30)] == list(SKIN_TONES[1:])
    assert [tone_category(limit + 0.1) for limit in (55, 41, 28, 10, -30)] == list(SKIN_TONES[:-1])


@pytest.mark.parametrize("skin", [LIGHT_SKIN, DARK_SKIN])
def test_the_estimate_is_of_the_skin_and_not_of_the_lesion(skin: tuple[int, int, int]) -> None:
    lightness, _, yellowness = srgb_to_lab(np.array(skin, np.uint8))
    expected = individual_typology_angle(lightness, yellowness)
    estimate = estimate_skin_tone(_photo(skin))
    assert estimate.angle == pytest.approx(expected, abs=0.1)
    assert estimate.category == tone_category(expected)
    assert estimate.share == pytest.approx(1)


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_dark_corners_and_hair_hardly_move_it(severity: int) -> None:
    photo = _photo(LIGHT_SKIN)
    clean = estimate_skin_tone(photo)
    for corruption in ("dark_corner", "hair"):
        spoilt = estimate_skin_tone(corrupt(photo, corruption, severity))
        assert spoilt.angle == pytest.approx(clean.angle, abs=2)


def test_no_estimate_where_there_is_no_skin_to_see() -> None:
    flat = np.ones((120, 160, 1), np.uint8)
    assert estimate_skin_tone(flat * np.array((5, 4, 4), np.uint8)) is None
    assert estimate_skin_tone(flat * np.array((255, 250, 240), np.uint8)) is None
    # Skin under blue light has an angle of 90° whatever its tone.
    assert estimate_skin_tone(flat * np.array((150, 150, 190), np.uint8)) is None
    # A lesion that reaches across half of the rim.
    halves = _photo(LIGHT_SKIN)
    halves[:, :100] = (130, 90, 60)
    assert estimate_skin_tone(halves) is None
