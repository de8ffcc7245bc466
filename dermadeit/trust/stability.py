"""How much an answer depends on the way the camera was turned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax


@dataclass(frozen=True)
class Stability:
    """One image in V dihedral views, a lesion being the same lesion in each.

    Attributes:
        agreeing_share: Share of the views that give the joint answer, 0 to 1.
        spread: Largest minus smallest probability of one class over the views, 0 to 1.
        flips: Views that give another answer.
    """

    agreeing_share: float
    spread: float
    flips: int


def stability(
    view_logits: np.ndarray, answer: int | None = None, class_weights: Sequence[float] = ()
) -> Stability:
    """Compares the views of an image with their joint answer, by the softmax of each view's own logits.

    Args:
        view_logits: float [V, K], V at least 1; the logs of calibrated probabilities serve too. With one view,
            everything agrees.
        answer: Index of the joint answer, whose probability is followed; None for that of the averaged logits.
        class_weights: K weights that decide the answer of a view (`calibration.answers`); empty for equal ones.
    """
    answer = int(answers(view_logits)) if answer is None else answer
    weighted = view_logits + np.log(class_weights) if len(class_weights) else view_logits
    flips = int(flipped(weighted, answer).sum())
    return Stability(1 - flips / len(view_logits), float(spreads(view_logits, answer)), flips)


def answers(view_logits: np.ndarray) -> np.ndarray:
    """Logits of all views, float [..., V, K], to the class indices of their averages, int [...]."""
    return view_logits.mean(axis=-2).argmax(axis=-1)


def flipped(view_logits: np.ndarray, answered: int | np.ndarray | None = None) -> np.ndarray:
    """Which views, bool [..., V], of float [..., V, K] give another answer than all together.

    The mean over images and views is the flip rate.

    Args:
        view_logits: These.
        answered: Index of the joint answer, or int [...] with one for each image; None for that of the averaged
            logits.
    """
    answered = answers(view_logits) if answered is None else answered
    return view_logits.argmax(axis=-1) != np.asarray(answered)[..., None]


def spreads(view_logits: np.ndarray, followed: int | np.ndarray) -> np.ndarray:
    """Largest minus smallest probability of a class over the views.

    Args:
        view_logits: float [..., V, K].
        followed: Index of the class, or int [...] with one for each image.

    Returns:
        float [...], 0 to 1.
    """
    ranges = np.ptp(softmax(view_logits.astype(float), axis=-1), axis=-2)
    indices = np.broadcast_to(followed, ranges.shape[:-1])
    return np.take_along_axis(ranges, indices[..., None], axis=-1)[..., 0]
