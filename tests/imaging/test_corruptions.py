"""Corruptions of photos: what they keep, what they change, and that more is worse."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dermadeit.data.synthetic import random_recipe
from dermadeit.imaging.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from dermadeit.imaging.rendering import render_lesion

SIZES = {"thumbnail": (84, 84), "landscape": (200, 150), "portrait": (150, 233)}


@pytest.fixture(scope="module", params=SIZES)
def photo(request: pytest.FixtureRequest) -> np.ndarray:
    """A synthetic lesion without hair or dark corners."""
    recipe = replace(random_recipe(np.random.default_rng(3), "NV"), hairs=0, vignette=0.0)
    return np.asarray(render_lesion(recipe, SIZES[request.param]))


def _psnr(clean: np.ndarray, spoilt: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((clean.astype(float) - spoilt) ** 2))


@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize("seed", [0, 1, 7])
def test_each_severity_is_worse_than_the_one_before(photo: np.ndarray, corruption: str, seed: int) -> None:
    before = photo.copy()
    likeness = [_psnr(photo, corrupt(photo, corruption, severity, seed)) for severity in SEVERITIES]
    assert likeness == sorted(likeness, reverse=True)
    assert len(set(likeness)) == len(SEVERITIES)
    # The strongest is visible, and none replaces the photo with something else.
    assert 5 < likeness[-1] < 40
    assert np.array_equal(photo, before)


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_shape_and_type_are_kept_and_only_the_seed_decides(photo: np.ndarray, corruption: str) -> None:
    spoilt = corrupt(photo, corruption, 3, seed=5)
    assert (spoilt.shape, spoilt.dtype) == (photo.shape, np.uint8)
    assert np.array_equal(spoilt, corrupt(photo, corruption, 3, seed=5))
    whole = corrupt(photo, corruption, 0, seed=5)
    assert np.array_equal(whole, photo)
    assert whole is not photo


@pytest.mark.parametrize("corruption", ["noise", "dark_corner", "hair", "ruler", "ink"])
def test_another_seed_spoils_otherwise(photo: np.ndarray, corruption: str) -> None:
    variants = {corrupt(photo, corruption, 3, seed).tobytes() for seed in range(4)}
    assert len(variants) == 4


def test_exposure_goes_both_ways(photo: np.ndarray) -> None:
    means = [corrupt(photo, "brightness", 5, seed).mean() - photo.mean() for seed in range(12)]
    assert min(means) < -20
    assert max(means) > 20


@pytest.mark.parametrize("corruption", ["blur", "defocus", "jpeg", "noise", "pixelate"])
def test_a_large_and_a_small_photo_suffer_alike(corruption: str) -> None:
    recipe = random_recipe(np.random.default_rng(3), "NV")
    large = render_lesion(recipe, (672, 672))
    likeness = []
    for side in (672, 224):
        photo = np.asarray(large.resize((side, side), Image.Resampling.BOX))
        # Seen at the size that a model sees it at.
        seen = [
            np.asarray(Image.fromarray(pixels).resize((112, 112), Image.Resampling.BOX))
            for pixels in (photo, corrupt(photo, corruption, 4, 0))
        ]
        likeness.append(_psnr(*seen))
    assert likeness[0] == pytest.approx(likeness[1], abs=2)


def test_ink_and_hair_only_darken_and_a_ruler_stays_at_the_edge(photo: np.ndarray) -> None:
    for corruption in ("ink", "hair", "dark_corner"):
        assert (corrupt(photo, corruption, 5, 2) <= photo).all()
    height, width = photo.shape[:2]
    middle = np.s_[height // 3 : -height // 3, width // 3 : -width // 3]
    assert np.array_equal(corrupt(photo, "ruler", 5, 2)[middle], photo[middle])


def test_unknown_corruptions_and_severities_are_refused(photo: np.ndarray) -> None:
    with pytest.raises(KeyError, match="rain"):
        corrupt(photo, "rain", 1)
    with pytest.raises(ValueError, match="0 to 5"):
        corrupt(photo, "blur", 6)
