"""The original DermaDeiT, the course project of 2024, kept as the arm that ours is measured against.

Its settings are recipes/original.yaml; what only it does stands here: MONAI transforms on the CPU, image by image,
a projector that ends in a ReLU, and the Kullback-Leibler divergence between softmaxed embeddings. Pixels come
through our decoder and resize, because MONAI's own reader gives width before height; everything after them is as
the original has it. Its student distils the last patch (`distil_from: last_patch`), not the distillation token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset, Sampler

from dermadeit.data.dataset import LesionDataset, Sample
from train.losses import soft_logits_kl

ORIGINAL_SIZE = 224
PROJECTOR_EXPANSION = 4

ELASTIC = {"multiclass": (32.0, (1.0, 4.0))}
"""Task to spacing of the control points and range of their displacement's deviation, in pixels at that size."""

ELASTIC_OF_OTHER_TASKS = (56.0, (1.0, 3.0))


class OriginalDataset(Dataset):
    """A training split through the original's transforms, asked for by position and seed.

    The seed alone decides what is random, so neither worker processes nor their number change anything.

    Args:
        images: Decodes, resizes and labels; its preprocessing must be `per_image_zscore`.
    """

    def __init__(self, images: LesionDataset) -> None:
        assert images.preprocessing.per_image_zscore
        self.images = images
        self.manifest = images.manifest
        self.labels = images.labels
        self._transform = original_transform(images.manifest.task.key, images.preprocessing.size)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, draw: tuple[int, int]) -> Sample:
        """Position in the manifest and seed to a sample whose pixels are float32, augmented and normalised."""
        index, seed = draw
        sample = self.images[index]
        pixels = self._transform(self.images.preprocessing.normalise(sample.pixels), seed)
        return Sample(pixels, sample.label, index)


class SeededDraws(Sampler[tuple[int, int]]):
    """Pairs each position that a sampler draws with a seed; an image drawn twice gets two.

    Args:
        sampler: Draws positions.
        generator: Decides the seeds.
    """

    def __init__(self, sampler: Sampler[int], generator: torch.Generator) -> None:
        assert isinstance(sampler, Sized)
        self.sampler = sampler
        self.generator = generator

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        # Drawn at once: the training goes on using the generator between two batches.
        positions = list(self.sampler)
        seeds = torch.randint(2**31, (len(positions),), generator=self.generator).tolist()
        yield from zip(positions, seeds, strict=True)


def original_transform(task: str, size: int) -> Callable[[torch.Tensor, int], torch.Tensor]:
    """Builds the original's random transforms.

    Elastic deformation (probability .75; control points 56 pixels apart, moved by a Gaussian of deviation 1 to
    3, for `multiclass` 32 apart and 1 to 4), quarter turns (.75), a flip of either axis (.5 each), and rotation
    by up to 0.75 rad (.75). The lengths are those at 224 pixels and grow with the size.

    Args:
        task: Key of the task.
        size: Side of the images in pixels.

    Returns:
        A function of a normalised float32 [3, size, size] and a seed, which gives another one.
    """
    # Importing it takes seconds and a gigabyte.
    from monai import transforms

    spacing, magnitude = ELASTIC.get(task, ELASTIC_OF_OTHER_TASKS)
    scale = size / ORIGINAL_SIZE
    pipeline = transforms.Compose(
        [
            transforms.Rand2DElastic(
                round(spacing * scale), (magnitude[0] * scale, magnitude[1] * scale), prob=0.75
            ),
            transforms.RandRotate90(prob=0.75),
            transforms.RandFlip(prob=0.5, spatial_axis=0),
            transforms.RandFlip(prob=0.5, spatial_axis=1),
            transforms.RandAffine(prob=0.75, rotate_range=0.75),
        ]
    )

    def transform(image: torch.Tensor, seed: int) -> torch.Tensor:
        pipeline.set_random_state(seed)
        augmented: Any = pipeline(image)
        return augmented.as_tensor().contiguous()

    return transform


def relu_projector(dim: int, teacher_dim: int) -> nn.Sequential:
    """From the student's embedding to the teacher's; since it ends in a ReLU, nothing below 0 can be reached."""
    hidden = PROJECTOR_EXPANSION * dim
    return nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, teacher_dim), nn.ReLU())


def embedding_kl(projected: torch.Tensor, target: torch.Tensor, temperature: float) -> torch.Tensor:
    """KL(softmax(target / T) || softmax(projected / T)) times T², the distillation loss.

    Distribution matching as in Hinton et al. 2015 (1503.02531), applied to an embedding instead of logits.

    Args:
        projected: The student's projection, float [B, D].
        target: The teacher's embedding, float [B, D].
        temperature: T, above 0.

    Returns:
        float [B].
    """
    return soft_logits_kl(projected, target, temperature)
