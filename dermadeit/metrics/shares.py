"""What operating points, conformal sets and abstentions give on labelled images, with intervals.

Most figures are shares, so that a resample of lesions is one product with the images' weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import norm

from dermadeit.metrics.classification import (
    CONFIDENCE,
    RESAMPLES,
    classification_metrics,
    lesion_weights,
    percentile_intervals,
    resampled_figures,
)
from dermadeit.metrics.weighted import debiased_calibration_error

COVERAGES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
"""Shares of the images at which the selective risk is reported."""

FEW = 5
"""Lesions with or without what is counted below which a share gets Wilson's interval: resamples of so few, or of
none, hardly differ from each other."""

CALIBRATION_FIGURES = ("ece", "brier", "nll", "calibration_slope")
"""Which of `metrics.FIGURES` say how far probabilities can be taken at their word."""


class Shares:
    """Shares of images, to be resampled by lesion together.

    Args:
        groups: N lesion names; images of one lesion are drawn together.
    """

    def __init__(self, groups: Sequence[str]) -> None:
        self._groups = np.asarray(groups)
        self._counted: dict[tuple[str, ...], tuple[np.ndarray, np.ndarray]] = {}

    def add(self, *path: str, having: np.ndarray, among: np.ndarray) -> None:
        """Registers a share.

        Args:
            path: Keys that lead to it in the result.
            having: float or bool [N], what is counted.
            among: float or bool [N], weight of each image in the share; what has none counts nowhere.
        """
        among = np.asarray(among, dtype=float)
        self._counted[path] = (np.asarray(having, dtype=float) * among, among)

    def measure(self, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Any]:
        """Nested by path: `value` (None where nothing counts), `n` images and `interval` (95 %, or None)."""
        counted = list(self._counted.values())
        having, among = (np.stack(part, axis=1) for part in zip(*counted, strict=True))
        blocks = [
            _divide(weights @ having, weights @ among)
            for weights in lesion_weights(self._groups, resamples, seed)
        ]
        paths = {"/".join(path): path for path in self._counted}
        intervals = percentile_intervals(dict(zip(paths, np.concatenate(blocks).T, strict=True)))
        totals = among.sum(axis=0)
        nested: dict[str, Any] = {}
        for index, (name, (*parents, last)) in enumerate(paths.items()):
            level = nested
            for parent in parents:
                level = level.setdefault(parent, {})
            if not totals[index]:
                level[last] = {"value": None, "n": 0, "interval": None}
                continue
            value, inside = float(having[:, index].sum() / totals[index]), among[:, index] > 0
            lesions = len(set(self._groups[inside].tolist()))
            bounds = intervals.get(name)
            if _is_extreme(having[inside, index] / among[inside, index], value, lesions):
                bounds = wilson_interval(value, lesions)
            level[last] = {"value": value, "n": int(inside.sum()), "interval": bounds}
        return nested


def wilson_interval(share: float, lesions: int) -> list[float]:
    """Wilson's 95 % interval of a share (1927), which is right at 0 and 1 too, where a bootstrap has none.

    Args:
        share: 0 to 1.
        lesions: How many it is a share of, at least 1. Photos of one lesion are taken for one: the interval is
            rather too wide than too narrow.

    Returns:
        [lower, upper], 0 to 1.
    """
    spread = norm.ppf((1 + CONFIDENCE) / 2) ** 2 / lesions
    middle = (share + spread / 2) / (1 + spread)
    half = np.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    # At the ends, rounding must not leave out the share itself.
    return [float(middle - half) if share > 0 else 0.0, float(middle + half) if share < 1 else 1.0]


def needs_wilson(share: float, lesions: int) -> bool:
    """Whether a share of images lies at or near 0 or 1: it rests on fewer than `FEW` lesions on one side."""
    return min(share, 1 - share) * lesions < FEW


def _is_extreme(values: np.ndarray, share: float, lesions: int) -> bool:
    """Whether the mean of values is a share that needs Wilson's interval, or of values that are all 0 or all 1."""
    if np.isin(values, (0, 1)).all():
        return needs_wilson(share, lesions)
    return bool(values.min() >= 0 and values.max() <= 1 and share in (0, 1))


def calibration_figures(
    labels: np.ndarray, probabilities: np.ndarray, groups: Sequence[str], classes: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """How far probabilities can be taken at their word.

    Args:
        labels: int [N], N at least 1.
        probabilities: float [N, K], rows summing to 1.
        groups: N lesion names.
        classes: The K class keys.

    Returns:
        Each of `CALIBRATION_FIGURES` to `value`, `n` images and `interval` (95 %, or None); and `ece_debiased`, as
        `weighted.debiased_calibration_error` gives it, without an interval.
    """
    values = classification_metrics(labels, probabilities, classes)
    intervals = percentile_intervals(resampled_figures(labels, probabilities, groups, classes))
    debiased = debiased_calibration_error(labels, probabilities)
    return {
        **{
            name: {"value": values[name], "n": len(labels), "interval": intervals.get(name)}
            for name in CALIBRATION_FIGURES
        },
        "ece_debiased": {"value": debiased, "n": len(labels), "interval": None},
    }


def operating_point_figures(
    positive: np.ndarray, answered: Mapping[str, np.ndarray], groups: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Sensitivity, specificity and predictive values of decisions.

    The predictive values are those at the prevalence of these images.

    Args:
        positive: bool [N], whether the image is of the target class.
        answered: Operating point to bool [N], whether the decision is the target class.
        groups: N lesion names.

    Returns:
        Operating point to `sensitivity`, `specificity`, `ppv` and `npv`, each as `Shares.measure` gives it.
    """
    shares = Shares(groups)
    for name, target in answered.items():
        shares.add(name, "sensitivity", having=target, among=positive)
        shares.add(name, "specificity", having=~target, among=~positive)
        shares.add(name, "ppv", having=positive, among=target)
        shares.add(name, "npv", having=~positive, among=~target)
    return shares.measure()


def conformal_figures(
    members: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[str],
    classes: Sequence[str],
    slices: Mapping[str, Sequence[str]],
    smallest_slice: int,
) -> dict[str, Any]:
    """Coverage and size of conformal sets.

    What is promised is coverage of one image, picked at random, of a new lesion: `lesion_coverage`, in which each
    lesion weighs as one. `coverage` counts images, of which a lesion that was photographed often has many.

    Args:
        members: bool [N, K], whether an image's set holds a class.
        labels: int [N].
        groups: N lesion names.
        classes: The K class keys.
        slices: Name of a way to part the images, such as `sources`, to N values; empty values are left out.
        smallest_slice: Images that a part needs to be shown.

    Returns:
        JSON-ready: `classes` (`all`, then each class key) and each of `slices` (value to the same), each with
        `coverage`, `lesion_coverage`, `mean_size`, `empty` and `multiple` as `Shares.measure` gives them.
    """
    shares = Shares(groups)
    _, lesion, photos = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    covered, sizes = members[np.arange(len(labels)), labels], members.sum(axis=1)

    def add(among: np.ndarray, *path: str) -> None:
        shares.add(*path, "coverage", having=covered, among=among)
        shares.add(*path, "lesion_coverage", having=covered, among=among / photos[lesion])
        shares.add(*path, "mean_size", having=sizes, among=among)
        shares.add(*path, "empty", having=sizes == 0, among=among)
        shares.add(*path, "multiple", having=sizes > 1, among=among)

    of_class = {"all": np.ones(len(labels), dtype=bool)} | {
        key: labels == index for index, key in enumerate(classes)
    }
    for key, own in of_class.items():
        add(own, "classes", key)
    for slicing, values in slices.items():
        for value in sorted(set(values) - {""}):
            inside = np.asarray(values) == value
            for key, own in of_class.items():
                if (own & inside).sum() >= smallest_slice:
                    add(own & inside, slicing, value, key)
    return shares.measure()


def abstention_figures(
    abstained: np.ndarray, hits: np.ndarray, groups: Sequence[str], warned: np.ndarray | None = None
) -> dict[str, Any]:
    """Share of images without an answer or with a warning, and accuracy of the answers given and withheld.

    Args:
        abstained: bool [N].
        hits: bool [N], whether the most probable class is the true one.
        groups: N lesion names.
        warned: bool [N], whether the answer is given with a warning; None where that is unknown.

    Returns:
        `abstained`, `accuracy_answered` and `accuracy_withheld`, and where it is known `warned` and
        `accuracy_warned`, each as `Shares.measure` gives it.
    """
    shares = Shares(groups)
    shares.add("abstained", having=abstained, among=np.ones(len(hits)))
    shares.add("accuracy_answered", having=hits, among=~abstained)
    shares.add("accuracy_withheld", having=hits, among=abstained)
    if warned is not None:
        shares.add("warned", having=warned, among=np.ones(len(hits)))
        shares.add("accuracy_warned", having=hits, among=warned)
    return shares.measure()


def stability_figures(
    flips: np.ndarray, spreads: np.ndarray, views: int, groups: Sequence[str]
) -> dict[str, Any]:
    """How much the answers depend on the way the photo is turned.

    Args:
        flips: int [N], views whose answer differs from the joint one.
        spreads: float [N], largest minus smallest probability over the views.
        views: Number of views.
        groups: N lesion names.

    Returns:
        `flip_rate` (share of all views that differ), `images_with_flips` (share of images with any) and
        `mean_spread`, each as `Shares.measure` gives it.
    """
    shares = Shares(groups)
    once = np.ones(len(flips))
    shares.add("flip_rate", having=flips / views, among=once)
    shares.add("images_with_flips", having=flips > 0, among=once)
    shares.add("mean_spread", having=spreads, among=once)
    return shares.measure()


def risk_coverage(
    hits: np.ndarray,
    confidences: np.ndarray,
    groups: Sequence[str],
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """Share of errors among the answers that are kept when the least confident are withheld.

    The area under this curve is the mean of the risks over all coverages (Geifman and El-Yaniv 2017, 1705.08500;
    Geifman, Uziel and El-Yaniv 2019, 1805.08206). Images of equal confidence are kept or withheld together.

    Args:
        hits: bool [N], N at least 1.
        confidences: float [N], higher for answers that are kept longer.
        groups: N lesion names.
        resamples: How many times the lesions are drawn.

    Returns:
        JSON-ready: `aurc` (`value` and `interval`), and `curve`: at each of `COVERAGES`, the least `confidence`
        that is kept, the `coverage` reached with it and the `risk`.
    """
    order = np.argsort(-confidences, kind="stable")
    ranked = confidences[order]
    last_of_equals = np.searchsorted(-ranked, -ranked, side="right") - 1
    wrong = (~hits[order]).astype(float)

    def risks(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights [R, N] in the order of confidence, and the risk when each image is the last one kept."""
        drawn = weights[:, order]
        kept = drawn.cumsum(axis=1)[:, last_of_equals]
        return drawn, _divide((drawn * wrong).cumsum(axis=1)[:, last_of_equals], kept)

    def areas(weights: np.ndarray) -> np.ndarray:
        drawn, risk = risks(weights)
        return np.where(drawn > 0, drawn * risk, 0).sum(axis=1) / drawn.sum(axis=1)

    once = np.ones((1, len(hits)))
    resampled = np.concatenate([areas(weights) for weights in lesion_weights(groups, resamples, 0)])
    risk = risks(once)[1][0]
    ends = [last_of_equals[max(int(np.ceil(share * len(hits))), 1) - 1] for share in COVERAGES]
    return {
        "aurc": {
            "value": float(areas(once)[0]),
            "interval": percentile_intervals({"aurc": resampled}).get("aurc"),
        },
        "curve": [
            {
                "confidence": float(ranked[end]),
                "coverage": float((end + 1) / len(hits)),
                "risk": float(risk[end]),
            }
            for end in ends
        ],
    }


def _divide(having: np.ndarray, among: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(among > 0, having / among, np.nan)
