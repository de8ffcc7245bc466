"""Two models on the same images: differences with intervals, and tests of whether they are more than chance.

The intervals resample lesions. McNemar's and DeLong's tests are the field's standard and treat every image as
independent of the others, which images of one lesion are not: where they disagree with an interval, believe the
interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from scipy import stats

from dermadeit.errors import ManifestError
from dermadeit.metrics import FIGURES, percentile_intervals
from dermadeit.predictions import Measurement, PredictionSet, check_same_truth, measure
from dermadeit.tasks import target_class

EXACT_BELOW = 25
"""Discordant images below which McNemar's test is exact."""

_SHOWN = 3


class Figures(Protocol):
    """Each of `metrics.FIGURES`, and each on resamples, as a `predictions.Measurement` holds them."""

    @property
    def figures(self) -> Mapping[str, Any]:
        """Figure name to its value, None where it is undefined."""

    @property
    def resampled(self) -> Mapping[str, np.ndarray]:
        """Figure name to float [resamples]."""


@dataclass(frozen=True)
class Difference:
    """One figure of the first model minus that of the second.

    Attributes:
        difference: The difference, None where the figure is undefined for either.
        interval: The middle 95 % of the paired bootstrap, None where too few resamples define it.
    """

    difference: float | None
    interval: tuple[float, float] | None

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of 0."""
        return self.interval is not None and (self.interval[0] > 0 or self.interval[1] < 0)


@dataclass(frozen=True)
class McNemarTest:
    """Do two models err equally often? (McNemar 1947).

    Attributes:
        only_first_right: Images that only the first model reads right.
        only_second_right: Images that only the second model reads right.
        p_value: Two-sided.
        exact: Whether the binomial test was used (under 25 discordant images), else the chi-squared
            approximation with Edwards's (1948) continuity correction.
    """

    only_first_right: int
    only_second_right: int
    p_value: float
    exact: bool


@dataclass(frozen=True)
class DeLongTest:
    """Do two scores rank the same images equally well? (DeLong, DeLong and Clarke-Pearson 1988).

    Attributes:
        area_first: Area of the first score under the ROC curve.
        area_second: That of the second score.
        standard_error: Of the difference.
        p_value: Two-sided, of the difference.
    """

    area_first: float
    area_second: float
    standard_error: float
    p_value: float


@dataclass(frozen=True)
class Comparison:
    """One model against another.

    Attributes:
        first: Name of the first model.
        second: Name of the second model.
        differences: Each of `metrics.FIGURES` to its difference, first minus second.
        mcnemar: Test of the errors.
        delong: Test of the AUROC of the class that `weighted_metrics.target_class` names, against the rest; None
            where there are fewer than two images on either side.
    """

    first: str
    second: str
    differences: Mapping[str, Difference]
    mcnemar: McNemarTest
    delong: DeLongTest | None

    def to_dict(self) -> dict[str, Any]:
        """The comparison as JSON-ready values."""
        return asdict(self)


def compare(first: Measurement, second: Measurement) -> Comparison:
    """Compares two models on the same images.

    Args:
        first: One model.
        second: The other, its images in any order.

    Raises:
        ManifestError: They don't hold the same images with the same labels and lesions.
    """
    second = aligned(first.predictions, second)
    ours, theirs = first.predictions, second.predictions
    target = target_class(ours.task.classes)
    return Comparison(
        ours.model,
        theirs.model,
        paired_differences(first, second),
        mcnemar_test(ours.hits, theirs.hits),
        delong_test(ours.labels == target, ours.target_scores, theirs.target_scores),
    )


def paired_differences(first: Figures, second: Figures) -> dict[str, Difference]:
    """Each of `metrics.FIGURES` to its difference, first minus second.

    Args:
        first: Figures of one model.
        second: Figures of another, on the same images in the same order, resampled alike.
    """
    intervals = percentile_intervals(
        {name: first.resampled[name] - second.resampled[name] for name in FIGURES}
    )
    differences = {}
    for name in FIGURES:
        values = first.figures[name], second.figures[name]
        differences[name] = Difference(
            None if None in values else values[0] - values[1],
            tuple(intervals[name]) if name in intervals else None,
        )
    return differences


def mcnemar_test(first_right: np.ndarray, second_right: np.ndarray) -> McNemarTest:
    """McNemar's test.

    Args:
        first_right: bool [N], whether the first model is right.
        second_right: bool [N], whether the second is, on the same images.
    """
    only_first = int((first_right & ~second_right).sum())
    only_second = int((second_right & ~first_right).sum())
    discordant = only_first + only_second
    exact = discordant < EXACT_BELOW
    if not discordant:
        p_value = 1.0
    elif exact:
        p_value = float(stats.binomtest(only_first, discordant).pvalue)
    else:
        statistic = max(abs(only_first - only_second) - 1, 0) ** 2 / discordant
        p_value = float(stats.chi2.sf(statistic, df=1))
    return McNemarTest(only_first, only_second, p_value, exact)


def delong_test(positive: np.ndarray, first: np.ndarray, second: np.ndarray) -> DeLongTest | None:
    """DeLong's test by midranks, in O(N log N) (Sun and Xu 2014, IEEE Signal Processing Letters 21).

    Args:
        positive: bool [N].
        first: float [N], score of the first model, higher for positives.
        second: float [N], score of the second on the same images.

    Returns:
        None where there are fewer than two positives or two negatives.
    """
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if min(positives, negatives) < 2:
        return None
    placements = [_placements(positive, scores) for scores in (first, second)]
    of_positives, of_negatives = (np.stack(values) for values in zip(*placements, strict=True))
    areas = of_positives.mean(axis=1)
    covariance = np.cov(of_positives) / positives + np.cov(of_negatives) / negatives
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    # Equal rankings have no variance but that of rounding.
    error = math.sqrt(variance) if variance > 1e-15 else 0.0
    difference = float(areas[0] - areas[1])
    if error:
        p_value = float(2 * stats.norm.sf(abs(difference) / error))
    else:
        p_value = 1.0 if math.isclose(difference, 0, abs_tol=1e-12) else 0.0
    return DeLongTest(float(areas[0]), float(areas[1]), error, p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number by Holm's (1979) step-down method, in the order given."""
    ordered = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[ordered] = np.minimum(np.maximum.accumulate(factors * np.asarray(p_values)[ordered]), 1)
    return adjusted.tolist()


def _placements(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of the negatives below each positive, and of the positives above each negative; ties count half."""
    ranks = stats.rankdata(scores)
    above, below = scores[positive], scores[~positive]
    return (
        (ranks[positive] - stats.rankdata(above)) / len(below),
        1 - (ranks[~positive] - stats.rankdata(below)) / len(above),
    )


def aligned(first: PredictionSet, second: Measurement) -> Measurement:
    """The second model's measurement with its images in the order of the first.

    Raises:
        ManifestError: They don't hold the same images with the same labels and lesions.
    """
    theirs = second.predictions
    pair = f"{first.model} and {theirs.model}"
    if first.task.key != theirs.task.key:
        raise ManifestError(
            f"{pair} answer different tasks, {first.task.key} and {theirs.task.key}. Compare models of one task.",
            code="predictions_differ",
        )
    unshared = sorted(set(first.image_ids) ^ set(theirs.image_ids))
    if unshared:
        raise ManifestError(
            f"{pair} can't be compared: {_some(unshared)} only one of them has read. Evaluate both on the same "
            "images.",
            code="predictions_differ",
        )
    if first.image_ids != theirs.image_ids:
        position = {image_id: index for index, image_id in enumerate(theirs.image_ids)}
        theirs = theirs.take([position[image_id] for image_id in first.image_ids])
        second = measure(theirs)
    check_same_truth(first, theirs)
    return second


def _some(image_ids: Sequence[str]) -> str:
    return f"{len(image_ids)} images, such as {', '.join(image_ids[:_SHOWN])},"
