"""Sensitivity and specificity at any threshold on the probability of one class, with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dermadeit.metrics.shares import Shares

POINTS = 100
"""Thresholds that a curve is known at. Between two of them it is drawn straight."""

_DIGITS = 5


@dataclass(frozen=True)
class ThresholdCurve:
    """What thresholds gave on the images that it was measured on. All tuples are as long as `thresholds`.

    Attributes:
        thresholds: Probabilities of the target from which on it is answered, rising from 0 to 1.
        sensitivity: Share of the target's images that reach each.
        sensitivity_low: Lower end of its 95 % interval, over lesions.
        sensitivity_high: Upper end.
        specificity: Share of the other images that stay under each.
        specificity_low: Lower end of its 95 % interval.
        specificity_high: Upper end.
        positives: Images of the target.
        negatives: Other images.
    """

    thresholds: tuple[float, ...]
    sensitivity: tuple[float, ...]
    sensitivity_low: tuple[float, ...]
    sensitivity_high: tuple[float, ...]
    specificity: tuple[float, ...]
    specificity_low: tuple[float, ...]
    specificity_high: tuple[float, ...]
    positives: int
    negatives: int

    def read(self, figure: str, threshold: float) -> tuple[float, float, float]:
        """Value, lower and upper end of `sensitivity` or `specificity` at any threshold, 0 to 1."""
        value, low, high = (
            float(np.interp(threshold, self.thresholds, getattr(self, name)))
            for name in (figure, f"{figure}_low", f"{figure}_high")
        )
        return value, low, high

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values that `from_dict` reads."""
        return {name: list(part) if isinstance(part, tuple) else part for name, part in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ThresholdCurve:
        """Reads what `to_dict` gave.

        Raises:
            KeyError, TypeError, ValueError: It is something else.
        """
        names = [name for name in cls.__dataclass_fields__ if name not in ("positives", "negatives")]
        parts = {name: tuple(map(float, values[name])) for name in names}
        columns = np.array(list(parts.values()))
        if columns.ndim != 2 or not np.isfinite(columns).all() or (np.diff(columns[0]) <= 0).any():
            raise ValueError("not a curve over rising thresholds")
        return cls(**parts, positives=int(values["positives"]), negatives=int(values["negatives"]))


def fit_curve(scores: np.ndarray, positive: np.ndarray, groups: Sequence[str]) -> ThresholdCurve:
    """Measures a curve.

    Its thresholds lie halfway between two scores, where sensitivity and specificity change about evenly.

    Args:
        scores: float [N], probability of the target, 0 to 1.
        positive: bool [N], whether the image is of the target; some are and some are not.
        groups: N lesion names.
    """
    distinct = np.unique(scores)
    between = (distinct[:-1] + distinct[1:]) / 2
    wanted = np.linspace(0, 1, POINTS // 2)[1:-1]
    quantiles = np.concatenate([np.quantile(scores[part], wanted) for part in (positive, ~positive)])
    nearest = np.searchsorted(between, quantiles).clip(0, max(len(between) - 1, 0))
    # At 0 the target is always answered, and at 1 never.
    inside = between[nearest] if len(between) else between
    thresholds = np.unique(np.concatenate([[0.0], inside.round(_DIGITS), [1.0]]))
    shares = Shares(groups)
    for index, threshold in enumerate(thresholds):
        reached = (scores >= threshold) & (threshold < 1)
        shares.add(str(index), "sensitivity", having=reached, among=positive)
        shares.add(str(index), "specificity", having=~reached, among=~positive)
    measured = shares.measure()
    columns: dict[str, list[float]] = {}
    for index in range(len(thresholds)):
        for figure, known in measured[str(index)].items():
            low, high = known["interval"] or (known["value"], known["value"])
            for name, value in ((figure, known["value"]), (f"{figure}_low", low), (f"{figure}_high", high)):
                columns.setdefault(name, []).append(round(value, _DIGITS))
    return ThresholdCurve(
        tuple(thresholds.tolist()),
        **{name: tuple(values) for name, values in columns.items()},
        positives=int(positive.sum()),
        negatives=int((~positive).sum()),
    )
