"""Pixels to tensors, against timm's own transform and hand-made values."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform

from dermadeit.errors import CheckpointError
from dermadeit.imaging.decode import decode_image
from dermadeit.imaging.preprocessing import (
    DIHEDRAL_VIEWS,
    Preprocessing,
    apply_dihedral,
    dihedral_views,
    shades_of_grey,
)
from dermadeit.inference.predictor import Predictor
from dermadeit.models.checkpoints import load_checkpoint, save_checkpoint
from dermadeit.models.classifier import create_classifier
from dermadeit.tasks import get_task


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


def test_a_per_image_zscore_is_over_all_values_of_each_image() -> None:
    preprocessing = Preprocessing(1, per_image_zscore=True)
    # Values 0, 3, 6: mean 3, deviation sqrt(6).
    pixels = torch.tensor([[0, 3, 6], [200, 200, 200]], dtype=torch.uint8).view(2, 3, 1, 1)
    expected = torch.tensor([[-(1.5**0.5), 0.0, 1.5**0.5], [0.0, 0.0, 0.0]]).view(2, 3, 1, 1)
    torch.testing.assert_close(preprocessing.normalise(pixels), expected)
    torch.testing.assert_close(preprocessing.normalise(pixels.float() / 255), expected)
    assert preprocessing.normalise(torch.full((3, 224, 224), 0.6)).abs().max() < 1e-3


def test_shades_of_grey_equals_numbers_worked_out_by_hand() -> None:
    # Channels of one value each: their norms are the values, and those of grey light their root mean square.
    values = torch.tensor([0.8, 0.4, 0.2])
    grey = shades_of_grey(values.view(1, 3, 1, 1).expand(2, 3, 5, 5))
    torch.testing.assert_close(grey, torch.full((2, 3, 5, 5), math.sqrt(0.84 / 3)))
    # In a channel that is half black, the norm is the sixth root of half of the sixth power.
    images = torch.stack([torch.tensor([[0.9, 0.0]]), torch.tensor([[0.9, 0.9]]), torch.tensor([[0.9, 0.9]])])
    light = torch.tensor([0.9 * 0.5 ** (1 / 6), 0.9, 0.9])
    expected = images * (light.square().mean().sqrt() / light).view(3, 1, 1)
    torch.testing.assert_close(shades_of_grey(images), expected)


def test_with_shades_of_grey_the_colour_of_the_light_changes_nothing(photo: np.ndarray) -> None:
    preprocessing = Preprocessing(64, colour_constancy="shades_of_grey")
    pixels = preprocessing.resize(photo).float() / 255
    lit = pixels * torch.tensor([1.0, 0.8, 0.6]).view(3, 1, 1)
    # The exposure alone is left.
    seen, seen_lit = (shades_of_grey(image) for image in (pixels, lit))
    torch.testing.assert_close(seen_lit / seen_lit.mean(), seen / seen.mean())
    assert (Preprocessing(64).normalise(lit) - preprocessing.normalise(lit)).abs().max() > 0.1


def test_shades_of_grey_leave_grey_and_black_alone_and_blow_up_no_noise() -> None:
    grey = torch.rand(1, 8, 8).expand(3, 8, 8)
    torch.testing.assert_close(shades_of_grey(grey), grey)
    assert shades_of_grey(torch.zeros(3, 8, 8)).abs().max() == 0
    blue_lacks = torch.stack([torch.ones(4, 4), torch.ones(4, 4), torch.full((4, 4), 0.001)])
    assert shades_of_grey(blue_lacks)[2].max() < 0.01


def test_a_checkpoint_serves_the_colour_constancy_that_it_was_trained_with(
    tmp_path: Path, lesion_files: list[Path]
) -> None:
    torch.manual_seed(0)
    preprocessing = Preprocessing(64, colour_constancy="shades_of_grey")
    save_checkpoint(tmp_path, create_classifier("deit", 2, image_size=64), get_task("binary"), preprocessing)
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint.preprocessing == preprocessing
    image = decode_image(lesion_files[0])
    lit = dataclasses.replace(
        image, pixels=(image.pixels * np.array([1.0, 0.75, 0.75])).round().astype(np.uint8)
    )
    grey_lit = checkpoint.preprocessing.normalise(checkpoint.preprocessing.resize(lit.pixels))
    with torch.inference_mode():
        expected = checkpoint.classifier(grey_lit[None]).softmax(dim=-1)[0]
    (prediction,) = Predictor(checkpoint, torch.device("cpu")).predict([lit], views=1)
    served = torch.tensor(list(prediction.probabilities.values()))
    torch.testing.assert_close(served, expected, check_dtype=False, atol=1e-5, rtol=0)
    assert timm.create_model(f"local-dir:{tmp_path}", pretrained=True).num_classes == 2


def test_a_colour_constancy_of_a_later_version_is_refused(tmp_path: Path) -> None:
    preprocessing = Preprocessing(64, colour_constancy="shades_of_grey")
    save_checkpoint(tmp_path, create_classifier("deit", 2, image_size=64), get_task("binary"), preprocessing)
    file = tmp_path / "config.json"
    file.write_text(file.read_text().replace("shades_of_grey", "white_patch"))
    with pytest.raises(CheckpointError, match="white_patch"):
        load_checkpoint(tmp_path)


@pytest.fixture
def zscored_checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    classifier = create_classifier("deit", 2, image_size=64)
    preprocessing = Preprocessing(64, interpolation="bilinear", per_image_zscore=True)
    save_checkpoint(tmp_path, classifier, get_task("binary"), preprocessing)
    return tmp_path


def test_a_checkpoint_serves_the_zscore_that_it_was_trained_with(
    zscored_checkpoint: Path, lesion_files: list[Path]
) -> None:
    checkpoint = load_checkpoint(zscored_checkpoint)
    assert checkpoint.preprocessing == Preprocessing(64, interpolation="bilinear", per_image_zscore=True)
    image = decode_image(lesion_files[0])
    resized = checkpoint.preprocessing.resize(image.pixels).double()
    seen = ((resized - resized.mean()) / resized.std(correction=0)).float()
    with torch.inference_mode():
        expected = checkpoint.classifier(seen[None]).softmax(dim=-1)[0]
    (prediction,) = Predictor(checkpoint, torch.device("cpu")).predict([image], views=1)
    served = torch.tensor(list(prediction.probabilities.values()))
    torch.testing.assert_close(served, expected, check_dtype=False, atol=1e-5, rtol=0)


def test_timm_opens_a_checkpoint_with_a_zscore(zscored_checkpoint: Path) -> None:
    assert timm.create_model(f"local-dir:{zscored_checkpoint}", pretrained=True).num_classes == 2


def test_a_checkpoint_that_says_nothing_of_a_zscore_has_none(zscored_checkpoint: Path) -> None:
    file = zscored_checkpoint / "config.json"
    config = json.loads(file.read_text())
    del config["dermadeit"]["per_image_zscore"]
    file.write_text(json.dumps(config))
    loaded = load_checkpoint(zscored_checkpoint).preprocessing
    assert loaded == dataclasses.replace(loaded, per_image_zscore=False)
