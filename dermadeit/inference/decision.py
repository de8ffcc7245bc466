"""What is decided for a reading at a threshold that the visitor chose, and how far that can be relied on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from dermadeit.inference.records import Decision, Prediction
from dermadeit.trust.calibration import (
    DEFAULT_OPERATING_POINT,
    OPERATING_POINTS,
    Calibration,
    ViewCalibration,
    operating_point_title,
)
from dermadeit.trust.prevalence import check_prevalence, move_share

if TYPE_CHECKING:
    from dermadeit.inference.lesion import LesionPrediction

OWN_THRESHOLD = "own_threshold"
"""Stands for a threshold that is none of `calibration.OPERATING_POINTS`."""

OPERATING_POINT_TITLES: Mapping[str, str] = MappingProxyType(
    {
        name: operating_point_title(name).capitalize()
        for name in ("sensitivity_95", "balanced", "specificity_95", OWN_THRESHOLD)
    }
)


@dataclass(frozen=True)
class DecisionSettings:
    """What a visitor has set for the decision. The defaults are what holds before anything was touched.

    Attributes:
        operating_point: One of `OPERATING_POINT_TITLES`.
        threshold: Probability of the target from which on it is answered, 0 to 1; it counts for
            `OWN_THRESHOLD` only, and for the chosen task only.
        prevalence: Share of lesions of the target class where the answer is used, 0 to 1; None takes that of
            the calibration images. Probabilities, thresholds and predictive values are those at this prevalence.
        override: Whether answers that are withheld are shown all the same.
    """

    operating_point: str = DEFAULT_OPERATING_POINT
    threshold: float = 0.5
    prevalence: float | None = None
    override: bool = False

    def for_other_task(self) -> DecisionSettings:
        """The same for a task that it was not set for: a named operating point means something there too."""
        own = self.operating_point == OWN_THRESHOLD
        name = DEFAULT_OPERATING_POINT if own else self.operating_point
        return replace(self, operating_point=name, prevalence=None)


@dataclass(frozen=True)
class Figure:
    """A share of 1, as far as it is known.

    Attributes:
        low: The least that it can be, 0 to 1.
        high: The most that it can be; equal to `low` where it was measured.
        interval: Its 95 % interval where it was measured and the calibration holds one.
        images: How many images it was measured on; None where that is not known.
    """

    low: float
    high: float
    interval: tuple[float, float] | None = None
    images: int | None = None


@dataclass(frozen=True)
class ThresholdDecision:
    """The decision for one answer at one threshold.

    Attributes:
        operating_point: One of `OPERATING_POINT_TITLES`.
        threshold: Probability of the target, at this prevalence, from which on it is answered.
        target: Key of the class that the threshold is about.
        decision: Class key that is answered.
        sensitivity: Of the target, on the calibration split.
        specificity: Of the target, on the calibration split.
        prevalence: Share of lesions of the target that threshold and predictive values hold at, 0 to 1.
        calibration_prevalence: The same among the calibration images.
        positive_predictive_value: None where the target is never answered.
        negative_predictive_value: None where nothing else is ever answered.
    """

    operating_point: str
    threshold: float
    target: str
    decision: str
    sensitivity: Figure
    specificity: Figure
    prevalence: float
    calibration_prevalence: float
    positive_predictive_value: Figure | None
    negative_predictive_value: Figure | None

    def to_dict(self) -> dict[str, Any]:
        """The decision as JSON-ready values."""
        return asdict(self)


def decide(probabilities: Mapping[str, float], target: str, threshold: float) -> str:
    """The target class where its probability reaches the threshold, else the likeliest of the others.

    Args:
        probabilities: Class key to probability, 0 to 1.
        target: Key of the class that the threshold is about.
        threshold: Probability of the target from which on it is answered, 0 to 1.
    """
    if probabilities[target] >= threshold:
        return target
    return max((key for key in probabilities if key != target), key=probabilities.__getitem__)


def predictive_values(
    sensitivity: float, specificity: float, prevalence: float
) -> tuple[float | None, float | None]:
    """Positive and negative predictive value at a prevalence, by Bayes' rule.

    Args:
        sensitivity: Share of the target's lesions that are answered as such, 0 to 1.
        specificity: Share of the others that are not, 0 to 1.
        prevalence: Share of lesions that are of the target class where the model is used, 0 to 1.

    Returns:
        None in the place of a value that no answer would be counted in.

    Raises:
        ConfigurationError: The prevalence is no share.
    """
    check_prevalence(prevalence)
    hits, misses = sensitivity * prevalence, (1 - sensitivity) * prevalence
    passes, alarms = specificity * (1 - prevalence), (1 - specificity) * (1 - prevalence)
    return (
        hits / (hits + alarms) if hits + alarms else None,
        passes / (passes + misses) if passes + misses else None,
    )


def decide_at_point(
    probabilities: Mapping[str, float], calibration: Calibration, name: str, views: int
) -> Decision:
    """Decides at a named operating point.

    Args:
        probabilities: Class key to calibrated probability.
        calibration: That of the checkpoint that gave them.
        name: One of `calibration.OPERATING_POINTS`.
        views: How many views were averaged.

    Raises:
        ConfigurationError: There is no operating point of this name.
    """
    threshold = calibration.operating_point(name, views).threshold
    return Decision(name, threshold, decide(probabilities, calibration.target, threshold))


def decide_with_settings(
    answer: Prediction | LesionPrediction, calibration: Calibration | None, settings: DecisionSettings
) -> ThresholdDecision | None:
    """Decides; arithmetic on the stored probabilities alone. None where they are not calibrated.

    A named operating point decides the same at every prevalence, since its threshold moves with the probabilities.
    A threshold of one's own stays, and is compared with the probability at the prevalence.

    Args:
        answer: The reading as the predictor gave it, at the prevalence of the calibration images.
        calibration: That of the checkpoint that gave it.
        settings: What the visitor has set.
    """
    probabilities = answer.probabilities
    if calibration is None or not answer.calibrated or probabilities is None:
        return None
    name, views, target = settings.operating_point, answer.views, calibration.target
    fitted = calibration.by_views[views]
    prevalence = find_prevalence(calibration, settings.prevalence)
    if name == OWN_THRESHOLD:
        threshold = settings.threshold
        stored = move_share(threshold, prevalence, calibration.prevalence)
        moved = calibration.probabilities_at(
            np.array([probabilities[key] for key in calibration.classes]),
            calibration.prevalence,
            prevalence,
        )
        decided = decide(dict(zip(calibration.classes, moved.tolist(), strict=True)), target, threshold)
        measured = _shown_alike(calibration, fitted, threshold, prevalence)
    else:
        stored = calibration.operating_point(name, views).threshold
        threshold = calibration.threshold_at(stored, prevalence)
        decided = decide(probabilities, target, stored)
        measured = name
    if measured is None:
        sensitivity, specificity = figures_at(fitted, stored)
    else:
        point = calibration.operating_point(measured, views)
        sensitivity = _measured(calibration, views, measured, "sensitivity", point.sensitivity)
        specificity = _measured(calibration, views, measured, "specificity", point.specificity)
    # Both predictive values rise with sensitivity and with specificity.
    worst = predictive_values(sensitivity.low, specificity.low, prevalence)
    best = predictive_values(sensitivity.high, specificity.high, prevalence)
    positive, negative = (
        None if low is None or high is None else Figure(low, high)
        for low, high in zip(worst, best, strict=True)
    )
    return ThresholdDecision(
        name,
        threshold,
        target,
        decided,
        sensitivity,
        specificity,
        prevalence,
        calibration.prevalence,
        positive,
        negative,
    )


def figures_at(fitted: ViewCalibration, threshold: float) -> tuple[Figure, Figure]:
    """Sensitivity and specificity at any threshold, from the stored curve; bounds where there is none.

    Args:
        fitted: What was fitted for the number of views.
        threshold: Probability of the target at the prevalence of the calibration images, 0 to 1.
    """
    curve = fitted.curve
    if curve is None or threshold in (0, 1):
        return bound_figures(fitted, threshold)
    found = []
    for figure, images in (("sensitivity", curve.positives), ("specificity", curve.negatives)):
        value, low, high = curve.read(figure, threshold)
        found.append(Figure(value, value, (low, high), images))
    return found[0], found[1]


def bound_figures(fitted: ViewCalibration, threshold: float) -> tuple[Figure, Figure]:
    """Between which bounds sensitivity and specificity lie at any threshold.

    The calibration holds both at its operating points only. A higher threshold never finds more of the target,
    and never raises more false alarms, so the nearest points on either side are bounds. At 0 the target is
    always answered, and at 1 never.

    Args:
        fitted: The operating points.
        threshold: Probability of the target, 0 to 1.
    """
    if threshold in (0, 1):
        return Figure(1.0 - threshold, 1.0 - threshold), Figure(float(threshold), float(threshold))
    points = fitted.operating_points.values()
    below = [point for point in points if point.threshold <= threshold]
    above = [point for point in points if point.threshold >= threshold]
    return (
        Figure(
            max((point.sensitivity for point in above), default=0.0),
            min((point.sensitivity for point in below), default=1.0),
        ),
        Figure(
            max((point.specificity for point in below), default=0.0),
            min((point.specificity for point in above), default=1.0),
        ),
    )


def find_prevalence(calibration: Calibration, wanted: float | None) -> float:
    """The prevalence to decide at: that of the calibration images unless another is wanted.

    One that reads like it, as the controls hold it rounded, is it.
    """
    known = calibration.prevalence
    return known if wanted is None or _reads_alike(wanted, known) else wanted


def get_threshold(calibration: Calibration, name: str, prevalence: float | None = None) -> float:
    """Threshold of a named operating point, at the most views and at a prevalence (see `find_prevalence`)."""
    stored = calibration.operating_points[name if name in OPERATING_POINTS else DEFAULT_OPERATING_POINT]
    return calibration.threshold_at(stored, find_prevalence(calibration, prevalence))


def _shown_alike(
    calibration: Calibration, fitted: ViewCalibration, threshold: float, prevalence: float
) -> str | None:
    """The operating point whose threshold reads like the given one, which the controls hold rounded."""
    if threshold in (0, 1):
        return None
    # At a low prevalence several thresholds read alike that are far apart at the stored one.
    stored = move_share(threshold, prevalence, calibration.prevalence)
    alike = (
        name
        for name, at in fitted.operating_points.items()
        if _reads_alike(at.threshold, stored)
        and _reads_alike(calibration.threshold_at(at.threshold, prevalence), threshold)
    )
    return next(alike, None)


def _reads_alike(first: float, second: float) -> bool:
    return round(first * 100, 1) == round(second * 100, 1)


def _measured(calibration: Calibration, views: int, name: str, figure: str, value: float) -> Figure:
    reported = _reported(calibration, views, name, figure)
    interval = reported.get("interval")
    return Figure(value, value, interval and (interval[0], interval[1]), reported.get("n"))


def _reported(calibration: Calibration, views: int, name: str, figure: str) -> Mapping[str, Any]:
    """A figure of the calibration's report, which is made for people and may lack anything."""
    level: Any = calibration.report
    for key in ("views", str(views), "operating_points", name, figure):
        level = level.get(key) if isinstance(level, Mapping) else None
    return level if isinstance(level, Mapping) else {}
