"""What the student's distillation token is pulled towards: the teacher's embedding of the very view it sees."""

from __future__ import annotations

import numpy as np
import torch

from dermadeit.manifest import Manifest
from train.configuration import TrainingConfiguration
from train.teacher_cache import cached_embeddings
from train.teachers import create_teacher

CHUNK_IMAGES = 1024


class TeacherTargets:
    """Teacher embeddings of a manifest, looked up image by image and view by view.

    Attributes:
        teacher: Identity of the teacher.
        dim: Length of a target.
    """

    def __init__(
        self, teacher: str, embeddings: np.ndarray, views: tuple[int, ...], *, standardise: bool
    ) -> None:
        self.teacher = teacher
        self.dim: int = embeddings.shape[-1]
        self._embeddings = embeddings
        self._position = np.full(max(views) + 1, -1)
        self._position[list(views)] = np.arange(len(views))
        self._mean, self._deviation = _moments(embeddings) if standardise else (0.0, 1.0)

    def __call__(self, indices: torch.Tensor, views: torch.Tensor) -> torch.Tensor:
        """Targets of B images.

        Args:
            indices: int64 [B], positions in the manifest.
            views: int64 [B], the dihedral view that each image is shown in.

        Returns:
            float32 [B, dim]; over all images and views each dimension has zero mean and unit deviation if the
            targets are standardised.
        """
        found = self._embeddings[indices.numpy(), self._position[views.numpy()]].astype(np.float32)
        return torch.from_numpy((found - self._mean) / self._deviation)


def load_targets(
    configuration: TrainingConfiguration, manifest: Manifest, device: torch.device
) -> TeacherTargets | None:
    """The targets that a configuration asks for, computed where no cache has them; None without a teacher."""
    teacher = create_teacher(configuration.teacher, device)
    if teacher is None:
        return None
    views = configuration.views
    embeddings = cached_embeddings(teacher, manifest, views, configuration.output_folder / "teacher_cache")
    standardise = configuration.target_normalisation == "standardise"
    return TeacherTargets(teacher.identity, embeddings, views, standardise=standardise)


def _moments(embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each dimension, float32 [D], without holding all of [N, V, D] in memory."""
    count, total, squares = 0, 0.0, 0.0
    for start in range(0, len(embeddings), CHUNK_IMAGES):
        chunk = embeddings[start : start + CHUNK_IMAGES].astype(np.float64).reshape(-1, embeddings.shape[-1])
        count += len(chunk)
        total = total + chunk.sum(axis=0)
        squares = squares + (chunk**2).sum(axis=0)
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    # A dimension that never varies carries nothing.
    return mean.astype(np.float32), np.where(deviation > 1e-6, deviation, np.inf).astype(np.float32)
