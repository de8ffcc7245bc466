"""Arrays of labels and probabilities to the figures that are reported, and to their intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from dermadeit.metrics.weighted import WeightedMetrics

CONFIDENCE = 0.95
RESAMPLES = 2000

FIGURES = (
    "accuracy",
    "precision_macro",
    "recall_macro",
    "f1_macro",
    "cohen_kappa",
    "balanced_accuracy",
    "roc_auc",
    "average_precision",
    "sensitivity_at_95_specificity",
    "specificity_at_95_sensitivity",
    "brier",
    "nll",
    "ece",
    "calibration_slope",
)
"""Every figure that is one number, in the order of `metrics.json`."""

HEADLINE_FIGURES: Mapping[str, str] = MappingProxyType(
    {
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced accuracy",
        "f1_macro": "macro F1",
        "cohen_kappa": "Cohen's κ",
        "roc_auc": "AUROC",
    }
)
"""The figures that are shown where there is no room for all, and their names for people."""

FIGURE_NAMES: Mapping[str, str] = MappingProxyType(
    {
        **HEADLINE_FIGURES,
        "precision_macro": "macro precision",
        "recall_macro": "macro recall",
        "average_precision": "AUPRC",
        "sensitivity_at_95_specificity": "sensitivity at 95\u00a0% specificity",
        "specificity_at_95_sensitivity": "specificity at 95\u00a0% sensitivity",
        "brier": "Brier score (lower is better)",
        "nll": "negative log-likelihood (lower is better)",
        "ece": "calibration error, plain (lower is better)",
        "ece_debiased": "calibration error, debiased (lower is better)",
        "calibration_slope": "calibration slope (1 is best)",
    }
)
"""Each of `FIGURES` for people, and what `shares.calibration_figures` adds to them."""

TARGET_FIGURE_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "sensitivity": "sensitivity",
        "specificity": "specificity",
        "ppv": "positive predictive value",
        "npv": "negative predictive value",
    }
)
"""The figures of a decision about one class, and their names for people."""

INTERVAL_METHOD = f"95 %, percentile bootstrap of lesions, {RESAMPLES} resamples"
SEEDED_INTERVAL_METHOD = f"95 %, percentile bootstrap of lesions and seeds, {RESAMPLES} resamples"

_BLOCK = 100
_LEAST_DEFINED = 0.95


def classification_metrics(
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    answers: np.ndarray | None = None,
    target: str = "",
) -> dict[str, Any]:
    """The figures of one model on one set of images: those of `WeightedMetrics` where each image counts once.

    - Precision, recall and F1 are macro averages over the classes that are true or predicted somewhere; a class
      that is never predicted counts as precision 0. Balanced accuracy is the mean recall of the true classes,
      so the two recalls differ only where a class without images is predicted.
    - AUROC and average precision (AUPRC as a sum of steps, not trapezoids) are those of `target` with two
      classes, else the macro average of one class against the rest (Hand and Till's alternative is one
      against one).
    - The operating points are about one class, `target`, against the rest.
    - Brier score, negative log-likelihood, expected calibration error and calibration slope are defined in
      `weighted`.

    Args:
        labels: int [N], true class indices.
        probabilities: float [N, K], rows summing to 1.
        classes: The K class keys, in order.
        answers: int [N], the classes that were answered; None for the most probable ones. Only what counts right
            and wrong answers depends on them.
        target: Key of the class that must not be missed; else as `tasks.target_class` finds it.

    Returns:
        JSON-ready: `n`, each of `FIGURES` (None where it is undefined on these images), and `confusion_matrix`
        (`classes`, and `counts` with a row for each true class).
    """
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    probabilities = np.asarray(probabilities, dtype=float)
    np.add.at(counts, (labels, probabilities.argmax(axis=1) if answers is None else answers), 1)
    figures = dict.fromkeys(FIGURES, np.nan)
    if len(labels):
        once = WeightedMetrics(labels, probabilities, classes, answers, target)(np.ones((1, len(labels))))
        figures = {name: float(once[name][0]) for name in FIGURES}
    return {
        "n": len(labels),
        **{name: None if np.isnan(value) else value for name, value in figures.items()},
        "confusion_matrix": {"classes": list(classes), "counts": counts.tolist()},
    }


def resampled_figures(
    labels: np.ndarray,
    probabilities: np.ndarray,
    groups: Sequence[str],
    classes: Sequence[str],
    *,
    answers: np.ndarray | None = None,
    target: str = "",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Every figure on resamples of lesions, not images (cluster bootstrap, Field and Welsh 2007).

    Two models on the same images in the same order, with the same groups and seed, are resampled alike, so the
    differences of their figures are a paired bootstrap.

    Args:
        labels: int [N], N at least 1.
        probabilities: float [N, K], rows summing to 1.
        groups: N lesion names; images of one lesion are drawn together.
        classes: The K class keys, in order.
        answers: int [N], the classes that were answered; None for the most probable ones.
        target: As of `classification_metrics`.
        resamples: How many times the lesions are drawn.
        seed: Decides the draws.

    Returns:
        Each of `FIGURES` to float [resamples], NaN where a resample leaves it undefined.
    """
    weighted = WeightedMetrics(labels, probabilities, classes, answers, target)
    blocks = [weighted(weights) for weights in lesion_weights(groups, resamples, seed)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in FIGURES}


def percentile_intervals(resampled: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """Figure name to [lower, upper], the middle 95 % of its resamples.

    A figure that more than one in twenty resamples leave undefined gets none: the others are not a fair sample.
    """
    tail = (1 - CONFIDENCE) / 2
    return {
        name: [float(bound) for bound in np.nanquantile(values, [tail, 1 - tail])]
        for name, values in resampled.items()
        if np.isfinite(values).mean() >= _LEAST_DEFINED
    }


def mean_over_seeds(by_seed: np.ndarray) -> np.ndarray:
    """A figure's mean over trainings that differ by their seed, on resamples of the lesions and of the seeds.

    Two recipes with the same seeds on the same resamples are resampled alike, so the differences of their figures
    are a paired bootstrap. The mean of n seeds drawn from n varies by (n - 1) / n of what a mean of n new ones
    would, so it is stretched; that n seeds may be unlike all others can't be made good.

    Args:
        by_seed: float [n, R], the figure with each seed on each resample of the lesions.

    Returns:
        float [R]; plain means over the seeds where there is one.
    """
    n, resamples = by_seed.shape
    drawn = np.random.default_rng(0).integers(0, n, (n, resamples))
    mean, of_drawn = by_seed.mean(axis=0), np.take_along_axis(by_seed, drawn, axis=0).mean(axis=0)
    return mean + (of_drawn - mean) * np.sqrt(n / max(n - 1, 1))


def lesion_weights(groups: Sequence[str] | np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each image is drawn: float [R, N], a hundred resamples at a time to stay out of main memory."""
    names, lesion_of_image = np.unique(np.asarray(groups), return_inverse=True)
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, _BLOCK):
        rows = min(_BLOCK, resamples - start)
        drawn = rng.integers(len(names), size=(rows, len(names)))
        cells = drawn + len(names) * np.arange(rows)[:, None]
        times = np.bincount(cells.ravel(), minlength=rows * len(names)).reshape(rows, len(names))
        yield times[:, lesion_of_image].astype(float)
