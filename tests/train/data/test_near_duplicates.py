"""Copies of a photo are found, other photos are not, however alike their frames."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from dermadeit.data.synthetic import SKIN_TONES, random_recipe
from dermadeit.imaging.rendering import render_lesion
from dermadeit.tasks import DIAGNOSES
from train.data.near_duplicates import MAX_HASH_DISTANCE, find_near_duplicates, perceptual_hash


def _lesions(count: int, size: tuple[int, int] = (256, 192)) -> list[Image.Image]:
    kinds = tuple(DIAGNOSES)
    return [
        render_lesion(random_recipe(np.random.default_rng(seed), kinds[seed % len(kinds)]), size)
        for seed in range(count)
    ]


def test_copies_on_dark_skin_are_found_as_well() -> None:
    recipes = [random_recipe(np.random.default_rng(seed), "NV") for seed in range(6)]
    lesions = [
        render_lesion(replace(recipe, skin=SKIN_TONES[-1], colours=((52, 34, 28),)), (256, 192))
        for recipe in recipes
    ]
    copies = [_recompressed(lesion.resize((200, 150))) for lesion in lesions]
    assert _pairs([*lesions, *copies]) == {(index, index + 6) for index in range(6)}


def _pairs(pictures: list[Image.Image]) -> set[tuple[int, int]]:
    pixels = [np.asarray(picture.convert("RGB")) for picture in pictures]
    pairs = find_near_duplicates([perceptual_hash(image) for image in pixels], pixels.__getitem__)
    return {tuple(pair) for pair in pairs.tolist()}


def _recompressed(picture: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=40)
    return Image.open(buffer)


@pytest.mark.parametrize(
    "copy",
    [
        lambda picture: picture.resize((120, 90), Image.Resampling.BICUBIC),
        lambda picture: picture.resize((200, 200), Image.Resampling.LANCZOS),
        _recompressed,
        lambda picture: ImageEnhance.Brightness(picture).enhance(0.9),
    ],
)
def test_copies_are_found_and_nothing_else(copy) -> None:
    lesions = _lesions(12)
    copies = [copy(lesion) for lesion in lesions]
    assert _pairs([*lesions, *copies]) == {(index, index + 12) for index in range(12)}


def test_different_lesions_in_one_round_frame_are_no_copies() -> None:
    y, x = np.mgrid[-1:1:192j, -1:1:256j]
    frame = np.hypot(x - 0.11, y + 0.07)[..., None] < 0.7
    rng = np.random.default_rng(0)
    # Little but skin in the frame: hashes agree, because they only see the frame.
    pictures = [
        Image.fromarray((frame * rng.normal(190, 6, (192, 256, 3))).clip(0, 255).astype(np.uint8))
        for _ in range(8)
    ]
    hashes = [perceptual_hash(np.asarray(picture)) for picture in pictures]
    distances = [(hashes[0] ^ other).bit_count() for other in hashes[1:]]
    assert min(distances) <= MAX_HASH_DISTANCE
    assert _pairs(pictures) == set()


def test_uniform_pictures_do_not_chain() -> None:
    assert _pairs([Image.new("RGB", (100, 100), (shade, shade, shade)) for shade in (90, 91, 200)]) == set()


def test_no_pictures_have_no_copies() -> None:
    assert find_near_duplicates([], [].__getitem__).shape == (0, 2)
