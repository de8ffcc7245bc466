"""Making an embedding's dimensions comparable: standardisation, or PCA whitening."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

CONSTANT_DEVIATION = 1e-6
"""A dimension that varies less than this carries nothing, and becomes 0."""


@dataclass(frozen=True)
class Whitening:
    """An affine map of embeddings.

    Attributes:
        mean: float32 [D].
        scale: float32 [D], for a diagonal map, or [D, d].
    """

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def identity(cls, dim: int) -> Whitening:
        """The map that changes nothing."""
        return cls(np.zeros(dim, np.float32), np.ones(dim, np.float32))

    @property
    def dim(self) -> int:
        """Length of what comes out."""
        return self.scale.shape[-1]

    def cut(self, dim: int) -> Whitening:
        """The same map with its first `dim` outputs only."""
        return self if dim == self.dim else Whitening(self.mean, self.scale[:, :dim])

    def __call__(self, embeddings: np.ndarray) -> np.ndarray:
        """Float [N, D] to float32 [N, dim]."""
        centred = embeddings - self.mean
        return centred * self.scale if self.scale.ndim == 1 else centred @ self.scale


def fit_standardisation(chunks: Iterable[np.ndarray]) -> Whitening:
    """Zero mean and unit deviation in each dimension, over all images and views.

    Args:
        chunks: Blocks of embeddings, float [n, V, D].
    """
    scaler = StandardScaler()
    for chunk in chunks:
        scaler.partial_fit(chunk.reshape(-1, chunk.shape[-1]).astype(np.float64))
    deviation = np.sqrt(scaler.var_)
    scale = np.where(deviation > CONSTANT_DEVIATION, 1 / np.maximum(deviation, CONSTANT_DEVIATION), 0)
    return Whitening(scaler.mean_.astype(np.float32), scale.astype(np.float32))


def fit_pca(embeddings: np.ndarray, dimensions: int) -> Whitening:
    """The first principal components, each with zero mean and unit deviation.

    Args:
        embeddings: float [N, D].
        dimensions: Most components to keep.
    """
    pca = PCA(min(dimensions, *embeddings.shape), svd_solver="covariance_eigh")
    pca.fit(embeddings.astype(np.float64))
    deviation = np.sqrt(pca.explained_variance_)
    kept = deviation > CONSTANT_DEVIATION
    scale = (pca.components_[kept] / deviation[kept, None]).T
    return Whitening(pca.mean_.astype(np.float32), np.ascontiguousarray(scale, np.float32))
