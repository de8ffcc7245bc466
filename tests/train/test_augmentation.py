"""Augmentation: exact dihedral views, what each strength does, and reproducible randomness."""

import math

import pytest
import torch

from dermadeit.preprocessing import apply_dihedral
from train.augmentation import BatchAugmentation
from train.configuration import TrainingConfiguration

OFF = {
    "rotation_degrees": 0.0, "scale": 1.0, "shift": 0.0, "elastic": 0.0, "colour": 0.0,
    "downscale_probability": 0.0,
}  # fmt: skip
CPU = torch.device("cpu")


def _augment(images: torch.Tensor, views: torch.Tensor, seed: int = 0, **strengths: float) -> torch.Tensor:
    augmentation = BatchAugmentation(TrainingConfiguration(**OFF | strengths), images.shape[-1], CPU)
    return augmentation(images.clone(), views, torch.Generator().manual_seed(seed))


def _smooth(count: int = 4, size: int = 48) -> torch.Tensor:
    ramp = torch.linspace(0, math.pi, size)
    image = torch.stack([ramp.sin()[:, None] * ramp.cos()[None], ramp.cos()[:, None].expand(-1, size)])
    image = torch.cat([image, image[:1].flip(-1)]) / 2 + 0.5
    return image.expand(count, -1, -1, -1).contiguous()


def test_each_view_is_exactly_the_one_that_the_teacher_saw() -> None:
    images = torch.rand(8, 3, 32, 32)
    augmented = _augment(images, torch.arange(8))
    for view in range(8):
        torch.testing.assert_close(augmented[view], apply_dihedral(images[view], view), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "strength",
    [{"rotation_degrees": 30.0}, {"scale": 1.3}, {"shift": 0.1}, {"elastic": 0.05}, {"colour": 0.3}],
)
def test_each_strength_changes_images_differently_and_keeps_the_range(strength: dict) -> None:
    images = _smooth()
    augmented = _augment(images, torch.zeros(4, dtype=torch.long), **strength)
    assert augmented.shape == images.shape
    assert augmented.min() >= 0
    assert augmented.max() <= 1 + 1e-6
    assert (augmented - images).abs().mean() > 1e-3
    assert (augmented[1:] - augmented[:-1]).abs().mean() > 1e-3


def test_downscaling_takes_sharpness_away_from_the_chosen_share() -> None:
    images = torch.rand(64, 3, 32, 32)
    augmented = _augment(images, torch.zeros(64, dtype=torch.long), downscale_probability=0.5)
    changed = [
        not torch.allclose(after, before, atol=1e-4) for after, before in zip(augmented, images, strict=True)
    ]
    assert 15 < sum(changed) < 50
    blurred = augmented[torch.tensor(changed)]
    assert blurred.std() < images.std() * 0.95


def test_a_seed_decides_everything() -> None:
    images, views = _smooth(), torch.zeros(4, dtype=torch.long)
    strengths = {"rotation_degrees": 30.0, "elastic": 0.05, "colour": 0.3, "downscale_probability": 0.5}
    assert torch.equal(_augment(images, views, **strengths), _augment(images, views, **strengths))
    assert not torch.equal(_augment(images, views, **strengths), _augment(images, views, seed=1, **strengths))
