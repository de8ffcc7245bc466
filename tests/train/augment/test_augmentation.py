"""Augmentation: exact dihedral views, what each strength does, and reproducible randomness."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from dermadeit.imaging.preprocessing import apply_dihedral
from train.augment import appearance
from train.augment.appearance import change_colour, change_light, compress, transfer_colour
from train.augment.augmentation import BatchAugmentation
from train.configuration import AugmentationSettings

STRENGTHS = {
    "rotation_degrees": 30.0, "scale": 1.3, "shift": 0.1, "elastic": 0.05, "colour": 0.3, "noise": 0.05,
    "downscale_probability": 1.0, "blur_probability": 1.0, "vignette_probability": 1.0, "hair_probability": 1.0,
    "crop": 0.5, "aspect": 1.4, "white_balance": 0.4, "tone_curve": 1.5, "colour_transfer_probability": 1.0,
    "jpeg_probability": 1.0,
}  # fmt: skip
OFF = {name: 1.0 if name in ("scale", "crop", "aspect", "tone_curve") else 0.0 for name in STRENGTHS}
SMOOTH = {name: value for name, value in STRENGTHS.items() if name != "jpeg_probability"}
"""Without rounding, which makes much of the smallest differences."""
SHARES = sorted(name for name in STRENGTHS if name.endswith("_probability"))
CPU = torch.device("cpu")


def _augment(images: torch.Tensor, views: torch.Tensor, seed: int = 0, **strengths: float) -> torch.Tensor:
    augmentation = BatchAugmentation(AugmentationSettings(**OFF | strengths), images.shape[-1], CPU)
    return augmentation(images, views, torch.Generator().manual_seed(seed))


def _unturned(count: int) -> torch.Tensor:
    return torch.zeros(count, dtype=torch.long)


def _smooth(count: int = 4, size: int = 48) -> torch.Tensor:
    ramp = torch.linspace(0, math.pi, size)
    image = torch.stack([ramp.sin()[:, None] * ramp.cos()[None], ramp.cos()[:, None].expand(-1, size)])
    image = torch.cat([image, image[:1].flip(-1)]) / 2 + 0.5
    return image.expand(count, -1, -1, -1).contiguous()


def _skin(count: int, size: int) -> torch.Tensor:
    return torch.tensor([0.8, 0.6, 0.5]).view(3, 1, 1).expand(count, 3, size, size).contiguous()


def test_with_every_strength_off_each_image_is_exactly_the_view_that_the_teacher_saw() -> None:
    images = torch.rand(9, 3, 33, 33)
    views = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 3])
    augmented = _augment(images, views)
    for image, view, result in zip(images, views.tolist(), augmented, strict=True):
        assert torch.equal(result, apply_dihedral(image, view))


def test_what_a_student_sees_is_an_augmentation_of_the_view_that_the_teacher_saw() -> None:
    images = _smooth(8) + 0.2 * torch.rand(8, 3, 48, 48)
    views = torch.arange(8)
    turned = torch.stack([apply_dihedral(image, view) for view, image in enumerate(images)])
    torch.testing.assert_close(
        _augment(images, views, **SMOOTH), _augment(turned, _unturned(8), **SMOOTH), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("name", sorted(STRENGTHS))
def test_each_strength_changes_images_differently_and_keeps_range_and_input(name: str) -> None:
    images = (_smooth() + torch.rand(4, 3, 48, 48)) / 2 * torch.linspace(0.7, 1, 4).view(4, 1, 1, 1)
    before = images.clone()
    augmented = _augment(images, _unturned(4), **{name: STRENGTHS[name]})
    assert torch.equal(images, before)
    assert augmented.shape == images.shape
    assert augmented.min() >= 0
    assert augmented.max() <= 1 + 1e-6
    assert (augmented - images).abs().mean() > 1e-3
    if name != "downscale_probability":  # One fraction serves the whole batch.
        assert (augmented[1:] - augmented[:-1]).abs().mean() > 1e-3


@pytest.mark.parametrize("name", SHARES)
def test_a_probability_is_the_share_of_images_that_change(name: str) -> None:
    images = torch.rand(64, 3, 32, 32)
    augmented = _augment(images, _unturned(64), **{name: 0.5})
    changed = (augmented != images).flatten(1).any(dim=1).sum()
    assert 20 < changed < 44


@pytest.mark.parametrize("name", ["downscale_probability", "blur_probability"])
def test_blur_takes_sharpness_away_but_not_the_mean(name: str) -> None:
    images = torch.rand(4, 3, 160, 160)
    augmented = _augment(images, _unturned(4), **{name: 1.0})
    assert augmented.diff(dim=-1).abs().mean() < 0.7 * images.diff(dim=-1).abs().mean()
    torch.testing.assert_close(augmented.mean(), images.mean(), atol=5e-3, rtol=0)


def test_noise_is_gaussian_of_at_most_the_given_deviation() -> None:
    images = torch.full((64, 3, 32, 32), 0.5)
    noise = _augment(images, _unturned(64), noise=0.1) - images
    deviations = noise.flatten(1).std(dim=1)
    assert deviations.max() < 0.105
    assert deviations.min() < 0.02
    assert deviations.max() > 0.08
    standard = noise / deviations.view(-1, 1, 1, 1)
    assert standard.mean().abs() < 0.01
    assert (standard.abs() < 1).float().mean() == pytest.approx(0.683, abs=0.01)


def test_a_vignette_darkens_the_corners_and_leaves_the_middle() -> None:
    images = _skin(32, 64)
    augmented = _augment(images, _unturned(32), vignette_probability=1.0)
    torch.testing.assert_close(augmented[..., 24:40, 24:40], images[..., 24:40, 24:40], atol=0.01, rtol=0)
    corners = torch.stack([augmented[..., row, column] for row in (0, -1) for column in (0, -1)])
    assert corners.mean() < 0.6 * images.mean()
    assert corners.min() < 0.1
    assert (augmented <= images + 1e-6).all()


def test_hairs_are_thin_dark_strokes() -> None:
    images = _skin(32, 128)
    change = (images - _augment(images, _unturned(32), hair_probability=1.0)).mean(dim=1)
    assert change.min() > -1e-6
    covered = (change > 0.1).float()
    shares = covered.mean(dim=(1, 2))
    assert shares.min() > 0
    assert shares.max() < 0.3
    assert change.flatten(1).max(dim=1).values.min() > 0.15
    # A stroke is a few pixels wide, so nothing survives where whole blocks of 7 × 7 would have to be covered.
    eroded = -torch.nn.functional.max_pool2d(-covered, 7, stride=1)
    assert eroded.mean() < 0.01 * covered.mean()


def test_hairs_cover_alike_at_every_size() -> None:
    small, large = (
        (_augment(_skin(32, size), _unturned(32), hair_probability=1.0) - _skin(32, size)).mean()
        for size in (64, 224)
    )
    assert float(large) == pytest.approx(float(small), rel=0.1)


def test_colour_follows_brightness_contrast_and_saturation() -> None:
    images = torch.rand(1, 3, 8, 8) * 0.4 + 0.3
    stream = torch.Generator().manual_seed(1)
    brightness, contrast, saturation = (0.9 + 0.2 * torch.rand(1, generator=stream).item() for _ in range(3))
    expected = images * brightness
    expected = expected.mean() + contrast * (expected - expected.mean())
    grey = expected.mean(dim=1, keepdim=True)
    expected = grey + saturation * (expected - grey)
    torch.testing.assert_close(change_colour(images, stream.manual_seed(1), 0.1), expected)


def test_light_is_a_power_of_all_pixels_and_a_factor_of_each_channel() -> None:
    images = torch.rand(1, 3, 8, 8) * 0.5 + 0.1
    stream = torch.Generator().manual_seed(1)
    power = 1.3 ** (2 * torch.rand(1, generator=stream).item() - 1)
    factors = 1.2 ** (2 * torch.rand(3, generator=stream) - 1)
    expected = images**power * factors.view(3, 1, 1)
    torch.testing.assert_close(change_light(images, stream.manual_seed(1), 0.2, 1.3), expected)


def test_colours_move_between_images_and_shapes_stay() -> None:
    pattern = _smooth(1, 32)[:, :1].expand(-1, 3, -1, -1)
    images = torch.cat([0.2 + 0.1 * pattern, 0.6 + 0.3 * pattern])
    images = torch.cat([images] * 8)
    moved = transfer_colour(images, torch.Generator().manual_seed(0))
    means = moved.mean(dim=(-2, -1))
    assert images.mean(dim=(1, 2, 3)).min() - 1e-5 < means.min()
    assert means.max() < images.mean(dim=(1, 2, 3)).max() + 1e-5
    assert (means - images.mean(dim=(-2, -1))).abs().max() > 0.1
    for image, result in zip(images, moved, strict=True):
        assert np.corrcoef(image.flatten(), result.flatten())[0, 1] > 0.999


@pytest.mark.parametrize("quality", [20, 50, 75])
def test_compression_is_that_of_jpeg(quality: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appearance, "JPEG_QUALITIES", (quality, quality))
    coarse = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(coarse).resize((44, 44), Image.Resampling.BICUBIC))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=0)
    expected = np.asarray(Image.open(file)).astype(float)
    images = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
    ours = compress(images, torch.Generator())[0].permute(1, 2, 0).numpy() * 255
    # A decoder works in whole numbers, and fills up the last blocks in its own way.
    change = np.abs(pixels - expected)[:40, :40].mean()
    assert change > 2
    assert np.abs(ours - expected)[:40, :40].mean() < 0.35 * change


def test_crops_show_parts_of_every_size_near_the_middle() -> None:
    size = 65
    middle = torch.zeros(64, 3, size, size)
    middle[..., 24:41, 24:41] = 1
    shares = _augment(middle, _unturned(64), crop=0.4).mean(dim=(1, 2, 3))
    whole = (17 / size) ** 2
    assert shares.min() == pytest.approx(whole, rel=0.15)
    assert shares.max() > 4 * whole


def test_a_stretch_keeps_areas_and_changes_the_ratio_of_the_sides() -> None:
    size = 65
    middle = torch.zeros(64, 3, size, size)
    middle[..., 24:41, 24:41] = 1
    shapes = _augment(middle, _unturned(64), aspect=1.5)[:, 0]
    torch.testing.assert_close(shapes.mean(dim=(1, 2)), middle[:, 0].mean(dim=(1, 2)), atol=5e-3, rtol=0)
    ratios = shapes.amax(dim=1).sum(dim=1) / shapes.amax(dim=2).sum(dim=1)
    assert ratios.max() == pytest.approx(1.5, abs=0.15)
    assert ratios.min() == pytest.approx(1 / 1.5, abs=0.1)


def test_a_seed_decides_everything() -> None:
    images, views = _smooth(), _unturned(4)
    strengths = STRENGTHS | dict.fromkeys(SHARES, 0.5)
    torch.manual_seed(0)
    first = _augment(images, views, **strengths)
    torch.manual_seed(1)
    assert torch.equal(_augment(images, views, **strengths), first)
    assert not torch.equal(_augment(images, views, seed=1, **strengths), first)


@pytest.mark.parametrize("name", ["noise", "hair_probability", "colour", "rotation_degrees"])
def test_switching_an_effect_off_leaves_the_choices_of_the_others(name: str) -> None:
    images, views = _skin(16, 48), _unturned(16)
    others = {"vignette_probability": 0.5, "shift": 0.1}
    darkened = _augment(images, views, **others)[:, 0, 0, 0] < 0.5
    assert 0 < darkened.sum() < 16
    darkened_too = _augment(images, views, **others | {name: 0.01})[:, 0, 0, 0] < 0.5
    assert torch.equal(darkened_too, darkened)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_makes_the_same_images() -> None:
    images, views = _smooth(8), torch.arange(8)
    strengths = SMOOTH | {"noise": 0.0}  # The device draws its own noise.
    device = torch.device("cuda")
    augmentation = BatchAugmentation(AugmentationSettings(**OFF | strengths), 48, device)
    augmented = augmentation(images.to(device), views, torch.Generator().manual_seed(0))
    torch.testing.assert_close(augmented.cpu(), _augment(images, views, **strengths), atol=1e-3, rtol=0)
