"""Logits to calibrated probabilities, and those to decisions and sets of known error rates.

Everything here is fitted on the calibration split alone and belongs to one checkpoint's weights. The split is
used twice, for the scaling and for the thresholds on the scaled probabilities. A scaling has one to a few
parameters, so that what this takes from the guarantees is far below their sampling error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypedDict

import numpy as np

from dermadeit.errors import ConfigurationError, ErrorCode, TableError
from dermadeit.metrics.weighted import figures_of_counts
from dermadeit.tasks import ClassGroups, get_task, target_class
from dermadeit.trust.prevalence import move_share, reweigh
from dermadeit.trust.scaling import Scaling
from dermadeit.trust.threshold_curve import ThresholdCurve, fit_curve

CONFORMAL_COVERAGE = 0.90
"""Share of the lesions of each class whose set is meant to hold their class."""

OPERATING_POINTS = ("sensitivity_95", "specificity_95", "balanced")
DEFAULT_OPERATING_POINT = "balanced"

SMALLEST_CLASS = 10
"""Lesions of each class that a calibration needs; a set of 90 % coverage needs nine to say anything."""

_LEVEL = 0.95
_ROUNDING = 1e-12
_SMALLEST_FACTOR = 1e-200
_LOG_WEIGHTS = np.log(2) * np.arange(-20, 21) / 10
_WEIGHT_ROUNDS = 20
_SMOOTHING = 3

_POINT_TITLES = {
    "sensitivity_95": "95\u00a0% sensitivity",
    "specificity_95": "95\u00a0% specificity",
    "balanced": "balanced",
    "own_threshold": "own threshold",
}


class ScalingValues(TypedDict):
    """The fields of `scaling.Scaling`, a number for each of the network's classes."""

    method: str
    scale: list[float]
    bias: list[float]


class OperatingPointValues(TypedDict):
    """The fields of `OperatingPoint`."""

    threshold: float
    sensitivity: float
    specificity: float


class FittedReading(TypedDict):
    """What was fitted for a task and a number of views.

    Attributes:
        operating_points: Each of `OPERATING_POINTS`.
        least_probabilities: One for each class of the task (see `ViewCalibration`).
        curve: As `threshold_curve.ThresholdCurve.to_dict` gives it; None where it was not measured.
    """

    operating_points: dict[str, OperatingPointValues]
    least_probabilities: list[float]
    curve: dict[str, Any] | None


class ReadingValues(TypedDict):
    """What was fitted for one task that a network answers.

    Attributes:
        classes: Class keys of the task, in its order.
        target: Key of the class that the operating points are about.
        class_weights: One for each class; the class of the greatest product of weight and probability is
            answered. None where that is the most probable class.
        by_views: Number of views, as a string, to what was fitted for it.
        report: Figures that say how well it works, for people: `images`, `lesions` and `views`.
    """

    classes: list[str]
    target: str
    class_weights: list[float] | None
    by_views: dict[str, FittedReading]
    report: dict[str, Any]


class CalibrationsValues(TypedDict):
    """All that was fitted for the probabilities of a network, as JSON-ready values.

    Attributes:
        classes: The network's class keys, in the order of the logits.
        class_shares: Share of each of them among the calibration images, which the probabilities hold at; None
            where that is unknown.
        weights_sha256: Hex digest of the weights that it was fitted for.
        scalings: Number of views, as a string, to the one scaling that all readings share.
        readings: Key of each task that was fitted to what belongs to it.
    """

    classes: list[str]
    class_shares: list[float] | None
    weights_sha256: str
    scalings: dict[str, ScalingValues]
    readings: dict[str, ReadingValues]


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
        curve: What any other threshold gives; None in files of version 0.2, and for numbers of views between one
            and the most.
    """

    scaling: Scaling
    operating_points: Mapping[str, OperatingPoint]
    least_probabilities: tuple[float, ...]
    curve: ThresholdCurve | None = None


@dataclass(frozen=True)
class Calibration:
    """What was fitted for one task that a network answers, and belongs to the network's weights.

    Attributes:
        task: Key of the task.
        classes: The K class keys of the task, in its order.
        weights_sha256: Hex digest of the weights that this was fitted for.
        by_views: Number of views to what was fitted for it.
        report: Figures that say how well it works, JSON-ready, for people. It may lack anything.
        target: The class that must not be missed, which the operating points are about; where none is named, as
            `tasks.target_class` finds it.
        groups: How the task is read from the network's N classes; None where they are its own.
        class_weights: K weights; the class of the greatest product of weight and probability is answered. Empty
            where that is the most probable class.
        class_shares: Share of each of the network's N classes among the calibration images: the probabilities hold
            where the classes are as common as that. Empty where it is unknown.
    """

    task: str
    classes: tuple[str, ...]
    weights_sha256: str
    by_views: Mapping[int, ViewCalibration]
    report: Mapping[str, Any] = field(default_factory=dict)
    target: str = ""
    groups: ClassGroups | None = None
    class_weights: tuple[float, ...] = ()
    class_shares: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.target:
            object.__setattr__(self, "target", self.classes[target_class(self.classes)])

    @property
    def network(self) -> tuple[str, ...]:
        """The network's N class keys, in the order of the logits."""
        return self.groups.network if self.groups else self.classes

    @property
    def operating_points(self) -> Mapping[str, float]:
        """Name to threshold on the target's probability, for the most views."""
        return {name: point.threshold for name, point in self._at(None).operating_points.items()}

    @property
    def prevalence(self) -> float:
        """Share of the target among the calibration images of the task; a half where that is unknown."""
        return self.prevalence_after(np.ones(len(self.network)))

    def prevalence_after(self, factors: np.ndarray) -> float:
        """The same after the share of each of the network's N classes has changed by a factor, float [N]."""
        if not self.class_shares:
            return 0.5
        shares = self._members @ (np.array(self.class_shares) * factors)
        return float(shares[self.classes.index(self.target)] / shares.sum())

    def class_factors(self, prevalence: float) -> np.ndarray:
        """How the shares of the network's classes change where the target has another prevalence.

        Within the target's classes, and within the others of the task, they stay in proportion; those of classes
        that the task leaves out stay as they are.

        Args:
            prevalence: Share of the target's lesions among those of the task, 0 to 1.

        Returns:
            float [N], for `prevalence.reweigh`.
        """
        known = self.prevalence
        of_class = np.full(len(self.classes), (1 - prevalence) / (1 - known))
        of_class[self.classes.index(self.target)] = prevalence / known
        members = self._members
        # Where a class becomes impossible, readings on the condition that it is there still have their answer.
        return np.where(members.any(axis=0), np.maximum(of_class, _SMALLEST_FACTOR) @ members, 1.0)

    def probabilities_at(self, probabilities: np.ndarray, before: float, after: float) -> np.ndarray:
        """Probabilities of the task's classes, float [..., K], moved from one prevalence of the target to another.

        Args:
            probabilities: float [..., K], summing to 1.
            before: Prevalence that they hold at, above 0 and below 1.
            after: The new one, 0 to 1.
        """
        if before == after:
            return probabilities
        factors = np.full(len(self.classes), (1 - after) / (1 - before))
        factors[self.classes.index(self.target)] = after / before
        return reweigh(probabilities, factors)

    def weights_at(self, prevalence: float) -> tuple[float, ...]:
        """The class weights that give the same answers where the target has another prevalence, 0 to 1."""
        if not self.class_weights:
            return ()
        known, target = self.prevalence, self.classes.index(self.target)
        moved = np.array(self.class_weights) * (1 - known) / max(1 - prevalence, _ROUNDING)
        moved[target] = self.class_weights[target] * known / max(prevalence, _ROUNDING)
        return tuple(moved.tolist())

    def threshold_at(self, threshold: float, prevalence: float) -> float:
        """A threshold on the target's probability, moved as the probabilities are, so that it decides alike."""
        return move_share(threshold, self.prevalence, prevalence)

    def probabilities(self, logits: np.ndarray, views: int) -> np.ndarray:
        """Calibrated probabilities of the task's classes.

        Args:
            logits: float [..., N], averaged over the views.
            views: How many views were averaged; it must be in `by_views`.

        Returns:
            float64 [..., K], summing to 1.
        """
        return self.read(self._at(views).scaling(logits))

    def read(self, class_probabilities: np.ndarray) -> np.ndarray:
        """Probabilities of the network's classes, float [..., N], as those of the task's, float [..., K]."""
        return self.groups.read(class_probabilities) if self.groups else class_probabilities

    def class_probabilities(self, logits: np.ndarray, views: int) -> np.ndarray:
        """Calibrated probabilities of the network's classes, float64 [..., N]; see `probabilities`."""
        return self._at(views).scaling(logits)

    def answers(self, probabilities: np.ndarray) -> np.ndarray:
        """The classes that are answered, int [...], for calibrated probabilities, float [..., K]."""
        return answers(probabilities, self.class_weights)

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

    @property
    def _members(self) -> np.ndarray:
        """Bool-like float [K, N], which of the network's classes each class of the task sums up."""
        members = np.zeros((len(self.classes), len(self.network)))
        groups = self.groups.members if self.groups else [(index,) for index in range(len(self.classes))]
        for row, group in zip(members, groups, strict=True):
            row[list(group)] = 1
        return members

    def _at(self, views: int | None) -> ViewCalibration:
        return self.by_views[max(self.by_views) if views is None else views]


def fitted_for_views(calibration: Calibration | None, views: int) -> Calibration | None:
    """The calibration where it was fitted for answers of so many views, else None."""
    return calibration if calibration is not None and views in calibration.by_views else None


def check_operating_point(name: str) -> None:
    """Raises `ConfigurationError` unless there is an operating point of this name."""
    if name not in OPERATING_POINTS:
        raise ConfigurationError(
            f"There is no operating point “{name}”. Choose one of {', '.join(OPERATING_POINTS)}."
        )


def answers(probabilities: np.ndarray, class_weights: Sequence[float] = ()) -> np.ndarray:
    """The classes of the greatest product of weight and probability, the first of equals.

    Args:
        probabilities: float [..., K].
        class_weights: K weights; empty for equal ones.

    Returns:
        int [...].
    """
    weighted = probabilities * np.asarray(class_weights) if len(class_weights) else probabilities
    return weighted.argmax(axis=-1)


def calibrations_to_dict(calibrations: Mapping[str, Calibration]) -> CalibrationsValues:
    """JSON-ready values that `read_calibrations` reads.

    Args:
        calibrations: Key of each task to what was fitted for it, of one network.
    """
    one = next(iter(calibrations.values()))
    scalings = {views: fitted.scaling for views, fitted in one.by_views.items()}
    for other in calibrations.values():
        assert {views: fitted.scaling for views, fitted in other.by_views.items()} == scalings
        assert (other.network, other.weights_sha256) == (one.network, one.weights_sha256)
        assert other.class_shares == one.class_shares
    return {
        "classes": list(one.network),
        "class_shares": list(one.class_shares) or None,
        "weights_sha256": one.weights_sha256,
        "scalings": {
            str(views): {
                "method": scaling.method,
                "scale": list(scaling.scale),
                "bias": list(scaling.bias),
            }
            for views, scaling in scalings.items()
        },
        "readings": {
            key: {
                "classes": list(calibration.classes),
                "target": calibration.target,
                "class_weights": list(calibration.class_weights) or None,
                "by_views": {
                    str(views): {
                        "operating_points": {
                            name: OperatingPointValues(**asdict(point))
                            for name, point in fitted.operating_points.items()
                        },
                        "least_probabilities": list(fitted.least_probabilities),
                        "curve": fitted.curve and fitted.curve.to_dict(),
                    }
                    for views, fitted in calibration.by_views.items()
                },
                "report": dict(calibration.report),
            }
            for key, calibration in calibrations.items()
        },
    }


def read_calibrations(values: Mapping[str, Any]) -> dict[str, Calibration]:
    """Reads what `calibrations_to_dict` gave, or the one task of a file of version 0.1.

    Returns:
        Key of each task to what was fitted for it.

    Raises:
        KeyError, TypeError, ValueError: It is something else.
    """
    if "readings" not in values:
        return _read_first_format(values)
    network, shares = tuple(map(str, values["classes"])), values.get("class_shares")
    own = next(
        (reading for reading in values["readings"].values() if reading["classes"] == list(network)), {}
    )
    class_shares = _read_shares(shares, network) if shares else _count_shares(own.get("report", {}), network)
    return {
        key: replace(
            _read_reading(key, reading, network, values["scalings"], str(values["weights_sha256"])),
            class_shares=class_shares,
        )
        for key, reading in values["readings"].items()
    }


def fit_view(
    scaling: Scaling,
    probabilities: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[str] | np.ndarray,
    target: int,
    calibrating: np.ndarray | None = None,
    *,
    with_curve: bool = False,
) -> ViewCalibration:
    """Fits operating points and conformal sets of one task for one number of views.

    Args:
        scaling: Of the network's logits, fitted before.
        probabilities: float [M, K], what it makes of images that lie in the task.
        labels: int [M].
        groups: M lesion names.
        target: Index of the class that the operating points are about.
        calibrating: bool [M], which are calibration images; None for all. The others count for the conformal bound
            of classes with fewer calibration lesions than `SMALLEST_CLASS`, and for nothing else.
        with_curve: Whether to measure what any threshold gives.
    """
    names = np.asarray(groups)
    own = np.ones(len(labels), dtype=bool) if calibrating is None else calibrating
    bounds = fit_conformal(probabilities[own], labels[own], names[own])
    pooled = fit_conformal(probabilities, labels, names)
    lesions = [len(set(names[own & (labels == index)])) for index in range(probabilities.shape[1])]
    return ViewCalibration(
        scaling,
        fit_operating_points(probabilities[own, target], labels[own] == target),
        tuple(
            bound if count >= SMALLEST_CLASS else wider
            for bound, wider, count in zip(bounds, pooled, lesions, strict=True)
        ),
        fit_curve(probabilities[own, target], labels[own] == target, names[own].tolist())
        if with_curve
        else None,
    )


def fit_class_weights(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, ...]:
    """Class weights whose answers (`answers`) have the greatest macro F1, found class by class.

    The F1 of a few hundred images is a rugged function of a weight: it is smoothed over a third of an octave to
    either side, so that the middle of a high plain is chosen and not a lucky peak.

    Args:
        probabilities: float [N, K], calibrated.
        labels: int [N], every class among them.

    Returns:
        K weights above 0, whose product is 1.
    """
    # Only fitting needs it, and it is slow to import.
    from scipy import ndimage

    num_classes = probabilities.shape[1]
    logs = np.zeros(num_classes)
    evidence = np.log(np.maximum(probabilities, np.finfo(float).tiny))
    for _ in range(_WEIGHT_ROUNDS):
        before = logs.copy()
        for index in range(num_classes):
            tried = np.repeat(logs[None], len(_LOG_WEIGHTS), axis=0)
            tried[:, index] = _LOG_WEIGHTS
            decided = (evidence + tried[:, None]).argmax(axis=-1)
            cells = np.arange(len(tried))[:, None] * num_classes**2 + labels * num_classes + decided
            counts = np.bincount(cells.ravel(), minlength=len(tried) * num_classes**2)
            figures = figures_of_counts(counts.reshape(-1, num_classes, num_classes))["f1_macro"]
            smooth = ndimage.gaussian_filter1d(figures, _SMOOTHING, mode="nearest")
            best = np.flatnonzero(smooth >= smooth.max() - _ROUNDING)
            logs[index] = _LOG_WEIGHTS[best[np.abs(_LOG_WEIGHTS[best] - logs[index]).argmin()]]
        logs -= logs.mean()
        if np.allclose(logs, before):
            break
    return tuple(np.exp(logs).tolist())


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
    groups: Sequence[str] | np.ndarray,
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


def check_lesions(
    labels: np.ndarray, groups: Sequence[str], classes: Sequence[str], least: int = SMALLEST_CLASS
) -> None:
    """Raises `TableError` where a class has too few lesions.

    Args:
        labels: int [N].
        groups: N lesion names.
        classes: The K class keys.
        least: Lesions that each class needs.
    """
    for index, key in enumerate(classes):
        lesions = len(set(np.asarray(groups)[labels == index]))
        if lesions < least:
            raise TableError(
                f"The calibration images have {lesions} lesions of the class “{key}”; at least "
                f"{least} are needed. Give more rows the split “calibration”.",
                code=ErrorCode.TOO_FEW_IMAGES,
            )


def _read_first_format(values: Mapping[str, Any]) -> dict[str, Calibration]:
    key, classes = str(values["task"]), tuple(map(str, values["classes"]))
    scalings = {views: fitted["scaling"] for views, fitted in values["by_views"].items()}
    reading = {**values, "target": values.get("target", ""), "class_weights": None}
    calibration = _read_reading(key, reading, classes, scalings, str(values["weights_sha256"]))
    return {key: replace(calibration, class_shares=_count_shares(values["report"], classes))}


def _read_shares(given: Sequence[Any], network: tuple[str, ...]) -> tuple[float, ...]:
    shares = tuple(map(float, given))
    if len(shares) != len(network) or not min(shares) > 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise ValueError("not one share above 0 a class")
    return shares


def _count_shares(report: Mapping[str, Any], network: tuple[str, ...]) -> tuple[float, ...]:
    """The shares of the network's classes in a file that names none: its figures say how many images each has."""
    for figures in (report.get("views") or {}).values():
        of_class = (figures.get("conformal") or {}).get("classes") or {}
        counts = [(of_class.get(key) or {}).get("coverage", {}).get("n", 0) for key in network]
        if all(counts):
            return tuple(number / sum(counts) for number in counts)
    return ()


def _read_reading(
    key: str,
    values: Mapping[str, Any],
    network: tuple[str, ...],
    scalings: Mapping[str, Any],
    weights_sha256: str,
) -> Calibration:
    classes = tuple(map(str, values["classes"]))
    groups = None
    if classes != network:
        groups = get_task(key).group(network)
        if groups is None or len(groups.members) != len(classes):
            raise ValueError("a task that these classes don't form")
    weights = tuple(map(float, values["class_weights"] or ()))
    if weights and (len(weights) != len(classes) or not np.isfinite(weights).all() or min(weights) <= 0):
        raise ValueError("not one weight above 0 a class")
    return Calibration(
        key,
        classes,
        weights_sha256,
        {
            int(views): _read_view(fitted, scalings[views], len(classes), len(network))
            for views, fitted in values["by_views"].items()
        },
        values["report"],
        str(values["target"]),
        groups,
        weights,
    )


def _read_view(
    values: Mapping[str, Any], scaling: Mapping[str, Any], num_classes: int, num_logits: int
) -> ViewCalibration:
    points, curve = values["operating_points"], values.get("curve")
    fitted = ViewCalibration(
        Scaling(
            str(scaling["method"]), tuple(map(float, scaling["scale"])), tuple(map(float, scaling["bias"]))
        ),
        {
            name: OperatingPoint(**{key: float(value) for key, value in points[name].items()})
            for name in points
        },
        tuple(map(float, values["least_probabilities"])),
        ThresholdCurve.from_dict(curve) if curve else None,
    )
    lengths = (
        (fitted.scaling.scale, num_logits),
        (fitted.scaling.bias, num_logits),
        (fitted.least_probabilities, num_classes),
    )
    if any(len(part) != length or not np.isfinite(part).all() for part, length in lengths):
        raise ValueError("not one finite number a class")
    if set(points) != set(OPERATING_POINTS):
        raise ValueError("not the operating points of this version")
    return fitted
