"""A small classifier on a teacher's embeddings, cross-fitted so that no image is answered by one that saw it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from dermadeit.data.manifest import Manifest
from train.data.splitting import fold_of

logger = logging.getLogger(__name__)

HEAD_FOLDS = 5
COMPONENTS = 256
INVERSE_REGULARISATION = 0.1


def create_head(num_images: int, dim: int) -> Pipeline:
    """Logistic regression on whitened principal components."""
    components = min(COMPONENTS, dim, num_images - 1)
    return make_pipeline(
        StandardScaler(),
        PCA(components, whiten=True, svd_solver="covariance_eigh"),
        LogisticRegression(C=INVERSE_REGULARISATION, max_iter=1000),
    )


def cross_fitted_log_probabilities(
    embeddings: np.ndarray, manifest: Manifest, positions: Sequence[int]
) -> np.ndarray:
    """Answers for each image from a head that was fitted on the other folds of lesions (stacking, Wolpert 1992).

    Args:
        embeddings: float [N, V, D]; the head is fitted on the first view and answers for all of them.
        manifest: Says labels and lesions.
        positions: int [N], which of the manifest's images they are.

    Returns:
        float32 [N, V, K].
    """
    rows = [manifest.rows[position] for position in positions]
    labels = np.array([manifest.task.index_of(row.label) for row in rows])
    folds = np.array([fold_of(row.lesion_group, HEAD_FOLDS) for row in rows])
    num_images, num_views, dim = embeddings.shape
    answers = np.full((num_images, num_views, len(manifest.task.classes)), -np.inf, np.float32)
    for fold in range(HEAD_FOLDS):
        held_out = folds == fold
        if not held_out.any():
            continue
        fitted_on = ~held_out
        head = create_head(int(fitted_on.sum()), dim)
        head.fit(embeddings[fitted_on, 0], labels[fitted_on])
        flat = embeddings[held_out].reshape(-1, dim)
        log_probabilities = head.predict_log_proba(flat).reshape(-1, num_views, len(head.classes_))
        answers[np.ix_(held_out, np.arange(num_views), head.classes_)] = log_probabilities
    agreement = (answers[:, 0].argmax(axis=1) == labels).mean()
    logger.info("The cross-fitted head on the teacher's embeddings is right for %.1f %%", 100 * agreement)
    # A class that a fold lacked would be impossible for ever.
    return np.maximum(answers, np.log(1e-6), dtype=np.float32)
