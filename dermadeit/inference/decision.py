"""What is decided for a reading at a threshold that the visitor chose, and how far that can be relied on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

from dermadeit.errors import ConfigurationError
from dermadeit.inference.records import Decision, Prediction
from dermadeit.trust.calibration import (
    DEFAULT_OPERATING_POINT,
    OPERATING_POINTS,
    Calibration,
    ViewCalibration,
    operating_point_title,
)

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
            the calibration images.
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
        threshold: Probability of the target from which on it is answered.
        target: Key of the class that the threshold is about.
        decision: Class key that is answered.
        sensitivity: Of the target, on the calibration split.
        specificity: Of the target, on the calibration split.
        prevalence: Share of lesions of the target that the predictive values hold for, 0 to 1.
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
    if not 0 <= prevalence <= 1:
        raise ConfigurationError(f"The prevalence {prevalence} is not a share. Give a number from 0 to 1.")
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
    answer: Prediction, calibration: Calibration | None, settings: DecisionSettings
) -> ThresholdDecision | None:
    """Decides; arithmetic on the stored probabilities alone. None where they are not calibrated.

    Args:
        answer: The reading.
        calibration: That of the checkpoint that gave it.
        settings: What the visitor has set.
    """
    if calibration is None or not answer.calibrated:
        return None
    name, views = settings.operating_point, answer.views
    fitted = calibration.by_views[views]
    prevalence = settings.prevalence
    if prevalence is None:
        prevalence = read_calibration_prevalence(calibration, views)
    if name == OWN_THRESHOLD:
        threshold = settings.threshold
        measured = _shown_alike(fitted, threshold)
    else:
        threshold = calibration.operating_point(name, views).threshold
        measured = name
    if measured is None:
        sensitivity, specificity = bound_figures(fitted, threshold)
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
        calibration.target,
        decide(answer.probabilities, calibration.target, threshold),
        sensitivity,
        specificity,
        prevalence,
        positive,
        negative,
    )


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


def read_calibration_prevalence(calibration: Calibration, views: int | None = None) -> float:
    """Share of the calibration images that are of the target class; a half where the calibration doesn't say.

    Args:
        calibration: It describes the images that it was fitted on.
        views: How many views were averaged; None for the most. It makes no difference to what is known.
    """
    views = max(calibration.by_views) if views is None else views
    target, rest = (
        _reported(calibration, views, DEFAULT_OPERATING_POINT, figure).get("n")
        for figure in ("sensitivity", "specificity")
    )
    return target / (target + rest) if target and rest else 0.5


def get_threshold(calibration: Calibration, name: str) -> float:
    """Threshold of a named operating point, at the most views."""
    return calibration.operating_points[name if name in OPERATING_POINTS else DEFAULT_OPERATING_POINT]


def _shown_alike(fitted: ViewCalibration, threshold: float) -> str | None:
    """The operating point whose threshold reads like the given one, which the controls hold rounded."""
    if threshold in (0, 1):
        return None
    shown = round(threshold * 100, 1)
    alike = (name for name, at in fitted.operating_points.items() if round(at.threshold * 100, 1) == shown)
    return next(alike, None)


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
