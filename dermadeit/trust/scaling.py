"""Logits to probabilities by temperature or vector scaling, fitted for the least log-loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp, softmax

from dermadeit.metrics.weighted import log_losses

_FOLDS = 5


@dataclass(frozen=True)
class Scaling:
    """softmax(scale · logits + bias), the maps of Guo et al. 2017 (1706.04599).

    Attributes:
        method: `temperature` (all scales equal, no bias) or `vector`.
        scale: K factors, above 0 for a temperature (its reciprocal).
        bias: K offsets that sum to 0.
    """

    method: str
    scale: tuple[float, ...]
    bias: tuple[float, ...]

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """Float [..., K] to probabilities, float64 [..., K]."""
        return softmax(np.asarray(logits, dtype=float) * self.scale + np.asarray(self.bias), axis=-1)


Fit = Callable[[np.ndarray, np.ndarray], Scaling]
"""Logits [N, K] and labels [N] to a scaling."""


def fit_scaling(logits: np.ndarray, labels: np.ndarray, groups: Sequence[str]) -> Scaling:
    """A temperature, or vector scaling where that is clearly better on lesions it was not fitted on.

    Clearly means that the log-loss falls by more than one standard error over lesions (Breiman et al. 1984): a
    smaller gain is as likely chance, and vector scaling has more parameters to be wrong with.

    Args:
        logits: float [N, K].
        labels: int [N].
        groups: N lesion names; a lesion is never on both sides of the five-fold cross-validation.
    """
    with_temperature, with_vector = (
        log_losses(labels, cross_fitted(fit, logits, labels, groups)) for fit in (fit_temperature, fit_vector)
    )
    is_better = is_clear_gain(with_temperature - with_vector, groups)
    return (fit_vector if is_better else fit_temperature)(logits, labels)


def is_clear_gain(gains: np.ndarray, groups: Sequence[str]) -> bool:
    """Whether the mean of gains, float [N], is more than one standard error over lesions; of N lesion names."""
    _, lesion_of = np.unique(np.asarray(groups), return_inverse=True)
    standard_error = np.sqrt((np.bincount(lesion_of, gains - gains.mean()) ** 2).sum()) / len(gains)
    return bool(gains.mean() > standard_error)


def cross_fitted(fit: Fit, logits: np.ndarray, labels: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """Probabilities [N, K] of each image by a scaling that was fitted on the other lesions alone.

    Args:
        fit: Logits [M, K] and labels [M] to a `Scaling`.
        logits: float [N, K].
        labels: int [N].
        groups: N lesion names.
    """
    # Only fitting needs it, and it is slow to import.
    from sklearn.model_selection import StratifiedGroupKFold

    probabilities = np.empty(logits.shape)
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0)
    for rest, held_out in folds.split(logits, labels, groups):
        probabilities[held_out] = fit(logits[rest], labels[rest])(logits[held_out])
    return probabilities


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> Scaling:
    """The temperature of least log-loss (Guo et al. 2017), which is convex in its reciprocal.

    Args:
        logits: float [N, K].
        labels: int [N].
    """
    num_classes = logits.shape[1]
    basis = np.vstack([np.ones((num_classes, 1)), np.zeros((num_classes, 1))])
    return Scaling("temperature", *_least_log_loss(logits, labels, basis, np.ones(1)))


def fit_vector(logits: np.ndarray, labels: np.ndarray) -> Scaling:
    """One factor and one offset a class, of least log-loss (Guo et al. 2017, vector scaling); convex.

    Args:
        logits: float [N, K].
        labels: int [N].
    """
    from scipy.linalg import block_diag

    num_classes = logits.shape[1]
    # Equal offsets change nothing: they are taken to sum to 0, which leaves one less to fit.
    offsets = np.eye(num_classes)[:, 1:] - np.eye(num_classes)[:, :1]
    start = np.repeat([1.0, 0.0], [num_classes, num_classes - 1])
    basis = np.asarray(block_diag(np.eye(num_classes), offsets))
    return Scaling("vector", *_least_log_loss(logits, labels, basis, start))


def _least_log_loss(
    logits: np.ndarray, labels: np.ndarray, basis: np.ndarray, start: np.ndarray
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Minimises the mean log-loss of softmax(scale · logits + bias) by L-BFGS with its gradient.

    Args:
        logits: float [N, K].
        labels: int [N].
        basis: float [2K, P], P parameters to scale and bias, one below the other.
        start: float [P].

    Returns:
        Scale and bias, K numbers each.
    """
    # Only fitting needs it, and it is slow to import.
    from scipy.optimize import minimize

    logits = np.asarray(logits, dtype=float)
    truth = np.eye(logits.shape[1])[labels]

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        scale, bias = np.split(basis @ parameters, 2)
        scaled = logits * scale + bias
        rest = (softmax(scaled, axis=1) - truth) / len(labels)
        value = (logsumexp(scaled, axis=1) - (scaled * truth).sum(axis=1)).mean()
        return value, np.concatenate([(rest * logits).sum(axis=0), rest.sum(axis=0)]) @ basis

    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", options={"ftol": 1e-14, "gtol": 1e-9, "maxiter": 1000}
    )
    scale, bias = np.split(basis @ found.x, 2)
    return tuple(scale.tolist()), tuple(bias.tolist())
