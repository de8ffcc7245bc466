"""The original's pipeline: what its transforms do, and randomness that depends on nothing but the seed."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import NormalizeIntensity
from torch.utils.data import DataLoader, RandomSampler, WeightedRandomSampler

from dermadeit.data.dataset import LesionDataset, collate
from dermadeit.data.manifest import read_source
from dermadeit.imaging.preprocessing import Preprocessing
from dermadeit.tasks import get_task
from train.original import OriginalDataset, SeededDraws, original_transform

SIZE = 64


@pytest.fixture(scope="module")
def dataset(synthetic_data: Path) -> OriginalDataset:
    manifest = read_source(synthetic_data / "manifest.csv", get_task("binary")).select("validation")
    return OriginalDataset(LesionDataset(manifest, Preprocessing(SIZE, per_image_zscore=True)))


def _decode_geometry(image: torch.Tensor) -> tuple[float, bool, float]:
    """Rotation beside quarter turns in rad, whether mirrored, and deviation from that, in pixels.

    Args:
        image: [3, S, S] whose first two channels were the x and y of their own pixels.
    """
    size = image.shape[-1]
    inner = slice(size // 4, -size // 4)  # Where no reflected border shows.
    y, x = np.mgrid[:size, :size][:, inner, inner]
    basis = np.stack([x.ravel(), y.ravel(), np.ones(x.size)], axis=1)
    found = image[:2, inner, inner].reshape(2, -1).numpy().T
    fit, *_ = np.linalg.lstsq(basis, found, rcond=None)
    mirrored = np.linalg.det(fit[:2]) < 0
    angle = np.arctan2(fit[0, 1], fit[0, 0])
    remainder = (angle + np.pi / 4) % (np.pi / 2) - np.pi / 4
    return remainder, mirrored, np.std(basis @ fit - found)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "mean_magnitude"), [("binary", 2), ("multiclass", 2.5)])
def test_transforms_come_as_often_and_as_strong_as_in_the_original(task: str, mean_magnitude: float) -> None:
    size = 112
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    coordinates = torch.stack([x, y, x]).float()
    transform = original_transform(task, size)
    decoded = [_decode_geometry(transform(coordinates, seed)) for seed in range(200)]
    angles, mirrored, displacements = (np.array(values) for values in zip(*decoded, strict=True))
    displaced = displacements > 0.01
    assert displaced.mean() == pytest.approx(0.75, abs=0.08)
    # At half the original's size, so half its displacements: less what is smoothed away in between, more by the
    # ripple of a pixel that MONAI's bicubic interpolation adds to any grid.
    assert 0.6 < displacements[displaced].mean() / (mean_magnitude / 2) < 1.3
    assert np.abs(angles).max() == pytest.approx(0.75, abs=0.06)
    assert (np.abs(angles) > 0.1).mean() == pytest.approx(0.75 * 0.65 / 0.75, abs=0.1)
    assert mirrored.mean() == pytest.approx(0.5, abs=0.1)


def test_pixels_are_standardised_as_monai_does_it() -> None:
    pixels = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    ours = Preprocessing(16, per_image_zscore=True).normalise(pixels)
    theirs = NormalizeIntensity()(pixels.float()).as_tensor()
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_a_sample_is_the_preprocessed_image_transformed(dataset: OriginalDataset) -> None:
    sample = dataset[3, 11]
    assert sample.pixels.dtype == torch.float32
    assert sample.pixels.shape == (3, SIZE, SIZE)
    assert (sample.index, sample.label) == (3, int(dataset.labels[3]))
    preprocessing = dataset.images.preprocessing
    image = preprocessing.normalise(dataset.images[3].pixels)
    assert torch.equal(sample.pixels, original_transform("binary", SIZE)(image, 11))


def test_an_image_is_augmented_anew_with_each_seed_and_alike_with_the_same(dataset: OriginalDataset) -> None:
    first = dataset[0, 1].pixels
    dataset[1, 5]
    assert torch.equal(dataset[0, 1].pixels, first)
    assert not torch.equal(dataset[0, 2].pixels, first)


def _batches(dataset: OriginalDataset, workers: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sampler = SeededDraws(RandomSampler(dataset, generator=generator), generator)
    loader = DataLoader(
        dataset, 4, sampler=sampler, num_workers=workers, collate_fn=collate, generator=generator
    )
    batches = []
    for pixels, _, indices in loader:
        torch.rand((), generator=generator)  # A training draws from the same generator in between.
        batches.append(torch.cat([indices.view(-1, 1), pixels.flatten(1)], dim=1))
    return batches


def test_an_epoch_is_the_same_with_and_without_a_worker_process(dataset: OriginalDataset) -> None:
    alone, helped, other = _batches(dataset, 0), _batches(dataset, 1), _batches(dataset, 0, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(alone, helped, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(alone, other, strict=True))


def test_an_image_drawn_twice_in_an_epoch_gets_two_seeds() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = list(SeededDraws(WeightedRandomSampler([1.0], 8), generator))
    assert [position for position, _ in draws] == [0] * 8
    assert len({seed for _, seed in draws}) == 8
    assert len(SeededDraws(WeightedRandomSampler([1.0], 8), generator)) == 8


def test_a_dataset_without_the_zscore_is_a_programming_mistake(dataset: OriginalDataset) -> None:
    preprocessing = dataclasses.replace(dataset.images.preprocessing, per_image_zscore=False)
    with pytest.raises(AssertionError):
        OriginalDataset(LesionDataset(dataset.manifest, preprocessing))
