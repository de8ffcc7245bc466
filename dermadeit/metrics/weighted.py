"""Every figure of one model for many weightings of the same images at once, which is what a bootstrap needs.

scikit-learn takes one weighting a call: 2,000 resamples of 4,000 images would take minutes. Here the images are
sorted once, and every figure is a plain or a cumulative sum along a matrix of weights, one row a resample.

Shapes: N images, K classes, R weightings, T distinct scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dermadeit.tasks import target_class

ERROR_BINS = 15
"""Bins of the expected calibration error."""

OPERATING_PERCENT = 95
"""Specificity, or sensitivity, that an operating point must reach."""

_DRAWN_LABELS = 200
_NEWTON_STEPS = 15
_NEWTON_TOLERANCE = 1e-5
_SMALLEST_PROBABILITY = np.finfo(float).eps


class WeightedMetrics:
    """The figures of one model on N labelled images, as a function of the images' weights.

    Args:
        labels: int [N], true class indices.
        probabilities: float [N, K], rows summing to 1.
        classes: The K class keys, in order.
        answers: int [N], the classes that were answered; None for the most probable ones.
        target: Key of the class that must not be missed; else as `tasks.target_class` finds it.
    """

    def __init__(
        self,
        labels: np.ndarray,
        probabilities: np.ndarray,
        classes: Sequence[str],
        answers: np.ndarray | None = None,
        target: str = "",
    ) -> None:
        num_classes = len(classes)
        target_index = list(classes).index(target) if target else target_class(classes)
        most_probable = probabilities.argmax(axis=1)
        predicted = most_probable if answers is None else answers
        self._shape = (num_classes, num_classes)
        self._labels = labels
        self._cells = np.eye(num_classes**2)[labels * num_classes + predicted]
        self._losses = np.stack(
            [brier_scores(labels, probabilities), log_losses(labels, probabilities)], axis=1
        )
        # With two classes, the target against the other is the whole story.
        ranked = range(num_classes) if num_classes > 2 else [target_index]
        self._rankings = {index: _Ranking.of(labels == index, probabilities[:, index]) for index in ranked}
        self._target = target_index
        self._confidences = probabilities.max(axis=1)
        self._hits = most_probable == labels
        self._probabilities = probabilities
        self._recalibration = recalibrate(labels, probabilities, np.ones((1, len(labels))))[0]

    def __call__(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Weighted figures.

        Args:
            weights: float [R, N], at least 0. Whole numbers mean that an image was drawn so many times.

        Returns:
            Figure name to float [R], NaN where the figure is undefined: the names and definitions are those of
            `classification.classification_metrics`.
        """
        counts = (weights @ self._cells).reshape(-1, *self._shape)
        losses = weights @ self._losses / weights.sum(axis=1, keepdims=True)
        slopes = recalibrate(self._labels, self._probabilities, weights, self._recalibration)[:, 0]
        return {
            **figures_of_counts(counts),
            **self._figures_of_ranking(weights),
            "brier": losses[:, 0],
            "nll": losses[:, 1],
            "ece": calibration_errors(self._confidences, self._hits, weights),
            "calibration_slope": slopes,
        }

    def _figures_of_ranking(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        areas, precisions = [], []
        for index, ranking in self._rankings.items():
            hits, false_alarms = ranking.curve(weights)
            areas.append(_area_under_roc(hits, false_alarms))
            precisions.append(_average_precision(hits, false_alarms))
            if index == self._target:
                sensitivity, specificity = _operating_points(hits, false_alarms)
        return {
            "roc_auc": np.mean(areas, axis=0),
            "average_precision": np.mean(precisions, axis=0),
            "sensitivity_at_95_specificity": sensitivity,
            "specificity_at_95_sensitivity": specificity,
        }


def brier_scores(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Squared error of each image's probabilities, [N]; halved for two classes, as is usual (Brier 1950)."""
    num_classes = probabilities.shape[1]
    squares = ((probabilities - np.eye(num_classes)[labels]) ** 2).sum(axis=1)
    return squares / 2 if num_classes == 2 else squares


def log_losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Negative log-likelihood of each image's label, [N], in nats."""
    return -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], _SMALLEST_PROBABILITY))


def figures_of_counts(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Confusion matrices [R, K, K] (true class first) to figures [R], NaN where undefined."""
    total = counts.sum(axis=(1, 2))
    hits = np.diagonal(counts, axis1=1, axis2=2)
    true, predicted = counts.sum(axis=2), counts.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        accuracy = hits.sum(axis=1) / total
        # A class that is absent from the data has no recall; one that is never predicted has precision 0.
        recall = np.where(true > 0, hits / true, np.nan)
        present = true + predicted > 0
        precision = np.where(predicted > 0, hits / predicted, np.where(present, 0.0, np.nan))
        f1 = np.where(present, 2 * hits / (true + predicted), np.nan)
        chance = (true * predicted).sum(axis=1) / total**2
        kappa = (accuracy - chance) / (1 - chance)
    return {
        "accuracy": accuracy,
        "precision_macro": _mean_of_defined(precision),
        "recall_macro": _mean_of_defined(np.where(present & np.isnan(recall), 0.0, recall)),
        "f1_macro": _mean_of_defined(f1),
        "cohen_kappa": kappa,
        "balanced_accuracy": _mean_of_defined(recall),
    }


def calibration_errors(confidences: np.ndarray, hits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Expected calibration error of the top label over bins of equal mass (Nixon et al. 2019, 1904.01685).

    The upper edge of bin j of 15 is the smallest confidence that at least j/15 of the weight does not exceed.
    Equal confidences share a bin, so a bin may be larger than its share, or empty. Resamples repeat images, which
    raises the error of a well-calibrated model: its bootstrap interval may lie above the estimate.

    Args:
        confidences: float [N], probability of the predicted class.
        hits: bool [N], whether the prediction is right.
        weights: float [R, N].

    Returns:
        float [R], 0 to 1.
    """
    order = np.argsort(confidences, kind="stable")
    ends = _last_of_equals(confidences[order])
    gaps = (hits - confidences)[order]
    drawn = weights[:, order]
    masses = drawn.cumsum(axis=1)[:, ends]
    sums = (drawn * gaps).cumsum(axis=1)[:, ends]
    totals = masses[:, -1:]
    # Multiplied rather than divided, so that whole numbers are compared exactly.
    shares = np.arange(1, ERROR_BINS + 1) * totals
    edges = np.stack(
        [np.searchsorted(mass * ERROR_BINS, share) for mass, share in zip(masses, shares, strict=True)]
    )
    sums_at_edges = np.take_along_axis(sums, edges, axis=1)
    return np.abs(np.diff(sums_at_edges, axis=1, prepend=0)).sum(axis=1) / totals[:, 0]


def debiased_calibration_error(labels: np.ndarray, probabilities: np.ndarray, seed: int = 0) -> float:
    """The calibration error of `calibration_errors` beyond that of a perfectly calibrated model of these images.

    The absolute gaps of finite bins add up to more than 0 for any model. What a perfect one gets is the mean over
    labels that are drawn from the probabilities themselves.

    Args:
        labels: int [N], N at least 1.
        probabilities: float [N, K], rows summing to 1.
        seed: Decides the draws.

    Returns:
        0 to 1.
    """
    confidences, once = probabilities.max(axis=1), np.ones((1, len(labels)))
    measured = calibration_errors(confidences, probabilities.argmax(axis=1) == labels, once)[0]
    rng = np.random.default_rng(seed)
    expected = [
        calibration_errors(confidences, rng.random(len(labels)) < confidences, once)[0]
        for _ in range(_DRAWN_LABELS)
    ]
    return max(float(measured - np.mean(expected)), 0.0)


def reliability_bins(confidences: np.ndarray, hits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The bins that `calibration_errors` averages over, where every image counts once.

    Args:
        confidences: float [N], N at least 1.
        hits: bool [N].

    Returns:
        Mean confidence, share of hits and number of images of each bin that is not empty, from low to high.
    """
    ordered = np.sort(confidences)
    # Of the images in order, the last one of each fifteenth; equal confidences fall on one side of an edge.
    lasts = -(-np.arange(1, ERROR_BINS + 1) * len(ordered) // ERROR_BINS) - 1
    edges = ordered[lasts]
    bins = np.searchsorted(edges, confidences)
    sizes = np.bincount(bins, minlength=ERROR_BINS)
    filled = sizes > 0
    sums = [np.bincount(bins, weights=values, minlength=ERROR_BINS) for values in (confidences, hits)]
    return sums[0][filled] / sizes[filled], sums[1][filled] / sizes[filled], sizes[filled]


def areas_under_roc(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve, float [R], NaN where no positive or no negative has weight.

    Args:
        positive: bool [N].
        scores: float [N], higher for what is rather positive.
        weights: float [R, N], at least 0.
    """
    return _area_under_roc(*_Ranking.of(positive, scores).curve(weights))


def recalibrate(
    labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray, start: np.ndarray | None = None
) -> np.ndarray:
    """Maximum-likelihood logistic recalibration: one slope common to all classes, an intercept for each but one.

    The model is softmax(slope · log p + intercepts), fitted by Newton's method. With two classes its slope is
    Cox's (1958): the coefficient of logit p in a logistic regression of the label. Below 1, the probabilities
    are too extreme.

    Args:
        labels: int [N].
        probabilities: float [N, K], rows summing to 1.
        weights: float [R, N].
        start: float [K], where to begin, best near the solution; None for zeros.

    Returns:
        float [R, K]: the slope, then the intercepts of classes 1 to K-1. NaN where there is no finite solution:
        a class is absent, or the classes can be separated.
    """
    num_classes = probabilities.shape[1]
    evidence = np.log(np.maximum(probabilities, _SMALLEST_PROBABILITY))
    evidence -= evidence[:, :1].copy()
    solutions = np.full((len(weights), num_classes), np.nan)
    masses = weights @ np.eye(num_classes)[labels]
    open_rows = np.flatnonzero((masses > 0).all(axis=1))
    estimates = np.zeros((len(weights), num_classes))
    if start is not None and np.isfinite(start).all():
        estimates += start
    for _ in range(_NEWTON_STEPS):
        if not len(open_rows):
            break
        drawn = weights if len(open_rows) == len(weights) else weights[open_rows]
        steps = _newton_steps(labels, evidence, drawn, masses[open_rows], estimates[open_rows])
        estimates[open_rows] += steps
        settled = np.abs(steps).max(axis=1) < _NEWTON_TOLERANCE
        solutions[open_rows[settled]] = estimates[open_rows[settled]]
        open_rows = open_rows[~settled]
    return solutions


def _newton_steps(
    labels: np.ndarray, evidence: np.ndarray, weights: np.ndarray, masses: np.ndarray, estimates: np.ndarray
) -> np.ndarray:
    """One Newton step, [R, K], from each of the estimates, [R, K] (see `recalibrate`)."""
    num_weightings, num_classes = estimates.shape
    # Class 0 has evidence 0 and intercept 0, so it adds nothing to any sum below.
    columns = [np.ascontiguousarray(evidence[:, index]) for index in range(1, num_classes)]
    scores = [
        estimates[:, :1] * column + estimates[:, index : index + 1]
        for index, column in enumerate(columns, start=1)
    ]
    predicted = _softmax_beside_zero(scores)
    expected = np.zeros_like(predicted[0])
    for share, column in zip(predicted, columns, strict=True):
        expected += share * column
    gradient = np.empty((num_weightings, num_classes))
    curvature = np.zeros((num_weightings, num_classes, num_classes))
    gradient[:, 0] = weights @ evidence[np.arange(len(labels)), labels] - _sum_of_products(weights, expected)
    curvature[:, 0, 0] = -_sum_of_products(weights * expected, expected)
    for row, column in enumerate(columns, start=1):
        mass = weights * predicted[row - 1]
        total = mass.sum(axis=1)
        gradient[:, row] = masses[:, row] - total
        curvature[:, 0, 0] += mass @ column**2
        curvature[:, 0, row] = curvature[:, row, 0] = mass @ column - _sum_of_products(mass, expected)
        curvature[:, row, row] = total
        for other in range(1, row + 1):
            shared = _sum_of_products(mass, predicted[other - 1])
            curvature[:, row, other] -= shared
            if other != row:
                curvature[:, other, row] -= shared
    # Where classes separate, the curvature vanishes. The ridge keeps it invertible and moves no solution.
    ridge = 1e-12 * (1 + weights.sum(axis=1))[:, None, None] * np.eye(num_classes)
    return np.linalg.solve(curvature + ridge, gradient[:, :, None])[:, :, 0]


def _softmax_beside_zero(scores: list[np.ndarray]) -> list[np.ndarray]:
    """Softmax over the given scores, [R, N] each, and a first class whose score is 0 (not returned)."""
    highest = np.maximum(scores[0], 0)
    for score in scores[1:]:
        np.maximum(highest, score, out=highest)
    exponentials = [np.exp(score - highest) for score in scores]
    total = np.exp(-highest) + sum(exponentials)
    return [exponential / total for exponential in exponentials]


@dataclass(frozen=True, eq=False)
class _Ranking:
    """Images by falling score of one class.

    Attributes:
        order: int [N], the images from the highest score to the lowest.
        ends: int [T], position of the last image of each run of equal scores.
        positive: bool [N], in that order.
    """

    order: np.ndarray
    ends: np.ndarray
    positive: np.ndarray

    @classmethod
    def of(cls, positive: np.ndarray, scores: np.ndarray) -> _Ranking:
        order = np.argsort(-scores, kind="stable")
        return cls(order, _last_of_equals(scores[order]), positive[order])

    def curve(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weight of the positives and of the negatives at or above each distinct score, both [R, T]."""
        drawn = weights[:, self.order]
        totals = drawn.cumsum(axis=1)[:, self.ends]
        hits = (drawn * self.positive).cumsum(axis=1)[:, self.ends]
        return hits, totals - hits


def _last_of_equals(ordered: np.ndarray) -> np.ndarray:
    return np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)


def _area_under_roc(hits: np.ndarray, false_alarms: np.ndarray) -> np.ndarray:
    widths = np.diff(false_alarms, axis=1, prepend=0)
    heights = hits - np.diff(hits, axis=1, prepend=0) / 2
    return _ratio(_sum_of_products(widths, heights), hits[:, -1] * false_alarms[:, -1])


def _average_precision(hits: np.ndarray, false_alarms: np.ndarray) -> np.ndarray:
    # Before the first image that was drawn at all there is nothing to be precise about.
    precision = hits / np.maximum(hits + false_alarms, _SMALLEST_PROBABILITY)
    areas = _ratio(_sum_of_products(np.diff(hits, axis=1, prepend=0), precision), hits[:, -1])
    return np.where(false_alarms[:, -1] > 0, areas, np.nan)


def _operating_points(hits: np.ndarray, false_alarms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best sensitivity at 95 % specificity or more, and the best specificity at 95 % sensitivity or more."""
    positives, negatives = hits[:, -1], false_alarms[:, -1]
    few_alarms = 100 * false_alarms <= (100 - OPERATING_PERCENT) * negatives[:, None]
    last = few_alarms.sum(axis=1)
    best_hits = np.where(
        last > 0, np.take_along_axis(hits, np.maximum(last - 1, 0)[:, None], axis=1)[:, 0], 0
    )
    first = (100 * hits < OPERATING_PERCENT * positives[:, None]).sum(axis=1)
    fewest = np.take_along_axis(false_alarms, first[:, None], axis=1)[:, 0]
    sensitivity, specificity = _ratio(best_hits, positives), 1 - _ratio(fewest, negatives)
    defined = (positives > 0) & (negatives > 0)
    return np.where(defined, sensitivity, np.nan), np.where(defined, specificity, np.nan)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(
        numerator, denominator, out=np.full(len(numerator), np.nan), where=denominator > 0, dtype=float
    )


def _sum_of_products(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.einsum("rn,rn->r", first, second)


def _mean_of_defined(values: np.ndarray) -> np.ndarray:
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(defined, values, 0).sum(axis=1) / defined.sum(axis=1)
