"""Logits to calibrated probabilities, and those to decisions and sets of known error rates.

Everything here is fitted on the calibration split alone and belongs to one checkpoint's weights. The split is
used twice, for the scaling and for the thresholds on the scaled probabilities. A scaling has one to a few
parameters, so that what this takes from the guarantees is far below their sampling error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypedDict

import numpy as np

from dermadeit.errors import ConfigurationError, ErrorCode, TableError
from dermadeit.tasks import target_class
from dermadeit.trust.scaling import Scaling, fit_scaling

CONFORMAL_COVERAGE = 0.90
"""Share of the lesions of each class whose set is meant to hold their class."""

OPERATING_POINTS = ("sensitivity_95", "specificity_95", "balanced")
DEFAULT_OPERATING_POINT = "balanced"

SMALLEST_CLASS = 10
"""Lesions of each class that a calibration needs; a set of 90 % coverage needs nine to say anything."""

_LEVEL = 0.95
_ROUNDING = 1e-12

_POINT_TITLES = {
    "sensitivity_95": "95\u00a0% sensitivity",
    "specificity_95": "95\u00a0% specificity",
    "balanced": "balanced",
    "own_threshold": "own threshold",
}


class CalibrationValues(TypedDict):
    """A calibration as JSON-ready values.

    Attributes:
        task: Key of the task.
        classes: Class keys in the order of the logits.
        target: Key of the class that the operating points are about.
        weights_sha256: Hex digest of the weights that it was fitted for.
        by_views: Number of views, as a string, to what was fitted for it: `scaling` with its `method`, and a
            `scale` and a `bias` for each class; `operating_points`, name to `threshold`, `sensitivity` and
            `specificity`; and `least_probabilities`, one for each class (see `ViewCalibration`).
        gates: As `gating.Gates.to_dict` gives them; None without.
        report: Figures that say how well it works, for people: `images`, `lesions`, `views`, `gates` and
            `dermadeit_version`. It may lack anything.
    """

    task: str
    classes: list[str]
    target: str
    weights_sha256: str
    by_views: dict[str, dict[str, Any]]
    gates: dict[str, Any] | None
    report: dict[str, Any]


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold on the probability of the target class, and what it gave on the images it was chosen on.

    Attributes:
        threshold: The target class is answered from this probability on.
        sensitivity: Share of the target's images that reach it, on the calibration split.
        specificity: Share of the others that don't, on the calibration split.
    """

    threshold: float
    sensitivity: float
    specificity: float


@dataclass(frozen=True)
class ViewCalibration:
    """What was fitted for one number of views.

    Attributes:
        scaling: Logits to probabilities.
        operating_points: Each of `OPERATING_POINTS`.
        least_probabilities: K probabilities; a class is in an image's conformal set from its own on.
    """

    scaling: Scaling
    operating_points: Mapping[str, OperatingPoint]
    least_probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Calibration:
    """What belongs to one checkpoint's weights beside them.

    Attributes:
        task: Key of the task.
        classes: The K class keys, in the order of the logits.
        weights_sha256: Hex digest of the weights that this was fitted for.
        by_views: Number of views to what was fitted for it.
        gates: Thresholds of the gates, JSON-ready as `gating` reads them; None without.
        report: Figures that say how well it works, JSON-ready, for people.
        target: The class that must not be missed, which the operating points are about; where none is named, as
            `tasks.target_class` finds it.
    """

    task: str
    classes: tuple[str, ...]
    weights_sha256: str
    by_views: Mapping[int, ViewCalibration]
    gates: Mapping[str, Any] | None = None
    report: Mapping[str, Any] = field(default_factory=dict)
    target: str = ""

    def __post_init__(self) -> None:
        if not self.target:
            object.__setattr__(self, "target", self.classes[target_class(self.classes)])

    @property
    def operating_points(self) -> Mapping[str, float]:
        """Name to threshold on the target's probability, for the most views."""
        return {name: point.threshold for name, point in self._at(None).operating_points.items()}

    def probabilities(self, logits: np.ndarray, views: int) -> np.ndarray:
        """Calibrated probabilities.

        Args:
            logits: float [..., K], averaged over the views.
            views: How many views were averaged; it must be in `by_views`.

        Returns:
            float64 [..., K], summing to 1.
        """
        return self._at(views).scaling(logits)

    def operating_point(self, name: str, views: int | None = None) -> OperatingPoint:
        """One operating point, for the most views unless another number is given.

        Raises:
            ConfigurationError: There is none of this name.
        """
        check_operating_point(name)
        return self._at(views).operating_points[name]

    def conformal_set(self, probabilities: Sequence[float], views: int | None = None) -> tuple[str, ...]:
        """The classes that can't be ruled out for probabilities [K], by `fit_conformal`: all, some or none.

        An empty set means that the image looks like a typical one of no class.
        """
        least = self._at(views).least_probabilities
        return tuple(
            key
            for key, value, bound in zip(self.classes, probabilities, least, strict=True)
            if value >= bound
        )

    def to_dict(self) -> CalibrationValues:
        """JSON-ready values that `from_dict` reads."""
        return {
            "task": self.task,
            "classes": list(self.classes),
            "target": self.target,
            "weights_sha256": self.weights_sha256,
            "by_views": {str(views): asdict(fitted) for views, fitted in self.by_views.items()},
            "gates": None if self.gates is None else dict(self.gates),
            "report": dict(self.report),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """Reads what `to_dict` gave.

        Raises:
            KeyError, TypeError, ValueError: It is something else.
        """
        classes = tuple(values["classes"])
        return cls(
            task=values["task"],
            classes=classes,
            weights_sha256=values["weights_sha256"],
            by_views={
                int(views): _read_view(fitted, len(classes)) for views, fitted in values["by_views"].items()
            },
            gates=values["gates"],
            report=values["report"],
            # Version 0.1 wrote none.
            target=values.get("target", ""),
        )

    def _at(self, views: int | None) -> ViewCalibration:
        return self.by_views[max(self.by_views) if views is None else views]


def check_operating_point(name: str) -> None:
    """Raises `ConfigurationError` unless there is an operating point of this name."""
    if name not in OPERATING_POINTS:
        raise ConfigurationError(
            f"There is no operating point “{name}”. Choose one of {', '.join(OPERATING_POINTS)}."
        )


def fit_view(
    logits: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[str],
    classes: Sequence[str],
    target: str = "",
) -> ViewCalibration:
    """Fits scaling, operating points and conformal sets for one number of views.

    Args:
        logits: float [N, K], averaged over the views.
        labels: int [N].
        groups: N lesion names.
        classes: The K class keys.
        target: The class that the operating points are about; else as `tasks.target_class` finds it.

    Raises:
        TableError: A class has fewer than `SMALLEST_CLASS` lesions.
    """
    _check_classes(labels, groups, classes)
    scaling = fit_scaling(logits, labels, groups)
    probabilities = scaling(logits)
    index = classes.index(target) if target else target_class(classes)
    return ViewCalibration(
        scaling,
        fit_operating_points(probabilities[:, index], labels == index),
        fit_conformal(probabilities, labels, groups),
    )


def fit_operating_points(scores: np.ndarray, positive: np.ndarray) -> dict[str, OperatingPoint]:
    """Thresholds on one score.

    - `sensitivity_95`: the highest threshold that at least 95 % of the positives reach.
    - `specificity_95`: the lowest one that at least 95 % of the negatives stay under.
    - `balanced`: that of the greatest sum of sensitivity and specificity (Youden 1950), the lower one of equals.

    A threshold lies halfway between two scores, so that rounding on another machine flips no image.

    Args:
        scores: float [N] in 0 to 1.
        positive: bool [N], some true and some false.
    """
    distinct = np.unique(scores)
    thresholds = np.concatenate([[distinct[0]], (distinct[:-1] + distinct[1:]) / 2])
    hits, negatives = np.sort(scores[positive]), np.sort(scores[~positive])
    sensitivity = 1 - np.searchsorted(hits, thresholds) / len(hits)
    specificity = np.searchsorted(negatives, thresholds) / len(negatives)
    sensitive = np.flatnonzero(sensitivity >= _LEVEL - _ROUNDING)[-1]
    specific = np.flatnonzero(specificity >= _LEVEL - _ROUNDING)
    chosen = {
        "sensitivity_95": sensitive,
        # Only where the highest score is shared by many negatives does none reach it.
        "specificity_95": specific[0] if len(specific) else len(thresholds) - 1,
        "balanced": int(np.argmax(sensitivity + specificity)),
    }
    return {
        name: OperatingPoint(float(thresholds[index]), float(sensitivity[index]), float(specificity[index]))
        for name, index in chosen.items()
    }


def fit_conformal(
    probabilities: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[str],
) -> tuple[float, ...]:
    """Least probability of each class at which it joins an image's set: split conformal prediction.

    A class of its own quantile covers its own lesions at the stated rate (Mondrian: Vovk 2012, 1209.2673); the
    score 1 - p of the class itself gives the smallest sets (LABEL: Sadinle, Lei and Wasserman 2019, 1609.00451).

    Images of one lesion are not exchangeable with those of others, so each lesion weighs as one: the quantile
    is that of the lesions, each spread over its images, with one more at infinity (hierarchical conformal
    prediction: Lee, Barber and Willett 2023, 2306.06342). The guarantee is for one image, picked at random, of a
    new lesion. With one image a lesion it is the usual quantile at ⌈(n + 1)(1 - α)⌉ / n.

    Args:
        probabilities: float [N, K].
        labels: int [N].
        groups: N lesion names.

    Returns:
        K probabilities; 0 for a class with too few lesions to rule it out ever.
    """
    least = []
    for index in range(probabilities.shape[1]):
        own = np.flatnonzero(labels == index)
        _, lesion, images = np.unique(np.asarray(groups)[own], return_inverse=True, return_counts=True)
        order = np.argsort(-probabilities[own, index], kind="stable")
        weights = (1 / images[lesion] / (len(images) + 1))[order]
        reached = np.flatnonzero(weights.cumsum() >= CONFORMAL_COVERAGE - _ROUNDING)
        least.append(float(probabilities[own, index][order][reached[0]]) if len(reached) else 0.0)
    return tuple(least)


def operating_point_title(key: str) -> str:
    """The name of an operating point for people."""
    return _POINT_TITLES.get(key, key.replace("_", " "))


def _check_classes(labels: np.ndarray, groups: Sequence[str], classes: Sequence[str]) -> None:
    for index, key in enumerate(classes):
        lesions = len(set(np.asarray(groups)[labels == index]))
        if lesions < SMALLEST_CLASS:
            raise TableError(
                f"The calibration images have {lesions} lesions of the class “{key}”; at least "
                f"{SMALLEST_CLASS} "
                "are needed. Give more rows the split “calibration”.",
                code=ErrorCode.TOO_FEW_IMAGES,
            )


def _read_view(values: Mapping[str, Any], num_classes: int) -> ViewCalibration:
    scaling, points = values["scaling"], values["operating_points"]
    fitted = ViewCalibration(
        Scaling(
            str(scaling["method"]), tuple(map(float, scaling["scale"])), tuple(map(float, scaling["bias"]))
        ),
        {
            name: OperatingPoint(**{key: float(value) for key, value in points[name].items()})
            for name in points
        },
        tuple(map(float, values["least_probabilities"])),
    )
    numbers = (fitted.scaling.scale, fitted.scaling.bias, fitted.least_probabilities)
    if any(len(part) != num_classes or not np.isfinite(part).all() for part in numbers):
        raise ValueError("not one finite number a class")
    if set(points) != set(OPERATING_POINTS):
        raise ValueError("not the operating points of this version")
    return fitted
