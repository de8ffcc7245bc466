"""Pixels to tensors, against timm's own transform and hand-made values."""

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform

from dermadeit.errors import CheckpointError
from dermadeit.preprocessing import DIHEDRAL_VIEWS, Preprocessing, apply_dihedral, dihedral_views


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)


def test_equals_the_transform_that_timm_builds_from_the_same_configuration(photo: np.ndarray) -> None:
    ours = Preprocessing(64)
    theirs = create_transform(
        (3, 64, 64), mean=ours.mean, std=ours.std, interpolation="bicubic", crop_pct=1.0, crop_mode="squash"
    )
    torch.testing.assert_close(ours(photo), theirs(Image.fromarray(photo)))


def test_normalises_bytes_and_floats_alike() -> None:
    preprocessing = Preprocessing(2, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    pixels = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 2).expand(3, 1, 2)
    expected = torch.tensor([-2.0, 2.0]).view(1, 1, 2).expand(3, 1, 2)
    torch.testing.assert_close(preprocessing.normalise(pixels), expected)
    torch.testing.assert_close(preprocessing.normalise(pixels.float() / 255), expected)


def test_the_eight_views_are_all_different_and_keep_every_pixel() -> None:
    image = torch.arange(16.0).view(1, 4, 4)
    views = dihedral_views(image, DIHEDRAL_VIEWS)
    assert torch.equal(views[0], image)
    assert len({tuple(view.flatten().tolist()) for view in views}) == 8
    assert all(torch.equal(view.flatten().sort().values, image.flatten()) for view in views)


def test_view_5_is_mirrored_then_turned_once() -> None:
    image = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert apply_dihedral(image, 4).tolist() == [[2.0, 1.0], [4.0, 3.0]]
    assert apply_dihedral(image, 5).tolist() == [[1.0, 3.0], [2.0, 4.0]]


@pytest.mark.parametrize("change", [{"input_size": [3, 64, 96]}, {"interpolation": "lanczos"}])
def test_refuses_a_configuration_it_would_not_honour(change: dict) -> None:
    config = {"input_size": [3, 64, 64], "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3}
    with pytest.raises(CheckpointError):
        Preprocessing.from_pretrained_cfg(config | change)
