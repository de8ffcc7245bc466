"""How common a class is where an answer is used: probabilities and thresholds moved there by Bayes' rule.

Calibrated probabilities hold where the classes are as common as among the calibration images. Elsewhere the odds
of each class change by the ratio of its new share to its old one (Saerens, Latinne and Decaestecker 2002),
provided that lesions of one class look alike in both places. Only the share of one class, the target, is asked
for: the other classes keep their proportions.
"""

from __future__ import annotations

import numpy as np

from dermadeit.errors import ConfigurationError

_TINY = np.finfo(float).tiny


def check_prevalence(prevalence: float) -> None:
    """Raises `ConfigurationError` unless this is a share, 0 to 1."""
    if not 0 <= prevalence <= 1:
        raise ConfigurationError(f"The prevalence {prevalence} is not a share. Give a number from 0 to 1.")


def reweigh(probabilities: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Probabilities after the share of each class has changed by a factor.

    Args:
        probabilities: float [..., N], summing to 1.
        factors: float [N], new share of each class divided by its old one; one of them above 0.

    Returns:
        float [..., N], summing to 1.
    """
    # A class of probability 0 takes everything where all others become impossible.
    weighted = np.maximum(probabilities, _TINY) * factors
    return weighted / weighted.sum(axis=-1, keepdims=True)


def move_share(share: float, before: float, after: float) -> float:
    """The probability of a class, or a threshold on it, after its prevalence has changed.

    Args:
        share: 0 to 1.
        before: Prevalence that it holds at, 0 to 1. At 0 and 1 nothing but 0 and 1 is known of it.
        after: The new prevalence, 0 to 1.

    Returns:
        0 to 1; the order of two shares never changes.
    """
    if before == after or share in (0, 1):
        return share
    positive, negative = share * after * (1 - before), (1 - share) * before * (1 - after)
    return positive / (positive + negative) if positive + negative else share
