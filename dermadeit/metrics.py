"""Arrays of labels and probabilities to the figures that are reported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn import metrics as sk

CONFIDENCE = 0.95
RESAMPLES = 2000

_BOOTSTRAP_BLOCK = 250


def classification_metrics(
    labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> dict[str, Any]:
    """The figures of one model on one set of images.

    Precision, recall and F1 are macro averages; a class that is never predicted counts as precision 0. AUROC is
    the area for the second class with two classes, else the macro average of one class against the rest (Hand
    and Till's alternative is one against one). A figure that is undefined on these images is None.

    Args:
        labels: int [N], true class indices.
        probabilities: float [N, K], rows summing to 1.
        classes: The K class keys, in order.

    Returns:
        JSON-ready: `n`, `accuracy`, `precision_macro`, `recall_macro`, `f1_macro`, `cohen_kappa`,
        `balanced_accuracy`, `roc_auc`, and `confusion_matrix` (`classes`, and `counts` with a row for each true
        class).
    """
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(counts, (labels, probabilities.argmax(axis=1)), 1)
    figures = {name: float(value[0]) for name, value in _figures_of_counts(counts[None]).items()}
    return {
        "n": len(labels),
        **{name: None if np.isnan(value) else value for name, value in figures.items()},
        "roc_auc": _roc_auc(labels, probabilities),
        "confusion_matrix": {"classes": list(classes), "counts": counts.tolist()},
    }


def bootstrap_intervals(
    labels: np.ndarray,
    probabilities: np.ndarray,
    groups: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, list[float]]:
    """95 % percentile intervals from resampling lesions, not images (cluster bootstrap, Field and Welsh 2007).

    Args:
        labels: int [N].
        probabilities: float [N, K].
        groups: N lesion names; images of one lesion are drawn together.
        resamples: How many times the lesions are drawn.
        seed: Decides the draws.

    Returns:
        Figure name to [lower, upper], for every figure of `classification_metrics` that counts decide.
    """
    num_classes = probabilities.shape[1]
    names, group_of_image = np.unique(np.asarray(groups), return_inverse=True)
    counts_of_group = np.zeros((len(names), num_classes, num_classes))
    np.add.at(counts_of_group, (group_of_image, labels, probabilities.argmax(axis=1)), 1)
    flat = counts_of_group.reshape(len(names), -1)
    rng = np.random.default_rng(seed)
    even = np.full(len(names), 1 / len(names))
    # A few hundred resamples at a time keep the draws of a large test split out of main memory.
    blocks = [
        rng.multinomial(len(names), even, size=min(_BOOTSTRAP_BLOCK, resamples - start)) @ flat
        for start in range(0, resamples, _BOOTSTRAP_BLOCK)
    ]
    figures = _figures_of_counts(np.concatenate(blocks).reshape(-1, num_classes, num_classes))
    tail = (1 - CONFIDENCE) / 2
    return {
        name: [float(bound) for bound in np.nanquantile(values, [tail, 1 - tail])]
        for name, values in figures.items()
        if not np.isnan(values).all()
    }


def _figures_of_counts(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Confusion matrices [R, K, K] (true class first) to figures [R], NaN where undefined."""
    counts = counts.astype(float)
    total = counts.sum(axis=(1, 2))
    hits = np.diagonal(counts, axis1=1, axis2=2)
    true, predicted = counts.sum(axis=2), counts.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        accuracy = hits.sum(axis=1) / total
        # A class that is absent from the data has no recall; one that is never predicted has precision 0.
        recall = np.where(true > 0, hits / true, np.nan)
        present = true + predicted > 0
        precision = np.where(present, hits / np.maximum(predicted, 1), np.nan)
        f1 = np.where(present, 2 * hits / (true + predicted), np.nan)
        chance = (true * predicted).sum(axis=1) / total**2
        kappa = (accuracy - chance) / (1 - chance)
        recall_of_present = _mean_of_defined(recall)
    return {
        "accuracy": accuracy,
        "precision_macro": _mean_of_defined(precision),
        "recall_macro": _mean_of_defined(np.where(present & np.isnan(recall), 0.0, recall)),
        "f1_macro": _mean_of_defined(f1),
        "cohen_kappa": kappa,
        "balanced_accuracy": recall_of_present,
    }


def _mean_of_defined(values: np.ndarray) -> np.ndarray:
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(defined, values, 0).sum(axis=1) / defined.sum(axis=1)


def _roc_auc(labels: np.ndarray, probabilities: np.ndarray) -> float | None:
    if len(np.unique(labels)) < probabilities.shape[1]:
        return None
    if probabilities.shape[1] == 2:
        return float(sk.roc_auc_score(labels, probabilities[:, 1]))
    normalised = probabilities / probabilities.sum(axis=1, keepdims=True)
    return float(sk.roc_auc_score(labels, normalised, multi_class="ovr", average="macro"))
