"""Whether an answer may be given at all: is the photo good enough, and does it look like a skin lesion?

An answer is withheld for the photo's quality (`quality`) or because its embedding lies far from those of
real lesions (`OutOfDistribution`). Both are fitted on real calibration lesions alone, without any other picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dermadeit.errors import CheckpointError, ConfigurationError
from dermadeit.imaging.quality import PROBLEMS, QualityReport, QualityThresholds, fit_quality_thresholds

NEIGHBOURS = 2
"""Which neighbour's distance is the score: the second, so that one odd calibration image admits nothing."""

SHARE_REFUSED = 0.02
"""Share of real calibration lesions that the gates refuse at most, together.

Less than the 3 % aimed at: with 3 % here, 3.2 and 5.0 % of the validation lesions of the two tasks were refused.
"""

QUALITY_SHARE_REFUSED = 0.005
"""Share of them that may be refused for the quality of their photo."""

OUT_OF_DISTRIBUTION = "out_of_distribution"
_REASONS = {
    **PROBLEMS,
    OUT_OF_DISTRIBUTION: (
        "The photo does not look like the skin lesions that the model knows. Check that it shows one lesion, "
        "close up and filling much of the picture."
    ),
}
_MAX_REFERENCE_BYTES = 1_000_000


@dataclass(frozen=True, eq=False)
class OutOfDistribution:
    """How far an image lies from known lesions: cosine distance to its second nearest neighbour among them.

    The deep nearest neighbours of Sun et al. (ICML 2022, 2204.06507), best on the embeddings of
    `shallow_features`; `benchmarks/evidence/out_of_distribution.py` compares them with energy, Mahalanobis and ViM
    scores, and with other embeddings. Like all of these it also takes photos of an unfamiliar camera for strange.

    Attributes:
        reference: float16 [M, D], embeddings of calibration lesions, each of length 1.
    """

    reference: np.ndarray

    @classmethod
    def fit(cls, embeddings: np.ndarray, labels: np.ndarray, logits: np.ndarray) -> OutOfDistribution:
        """Remembers known lesions.

        Args:
            embeddings: float [N, D] of the unturned calibration images.
            labels: int [N], true classes. Nearest neighbours don't need them.
            logits: float [N, K]. Nearest neighbours don't need them.

        Raises:
            ConfigurationError: Fewer images than the score has neighbours.
        """
        return cls(_unit(embeddings)[_kept(embeddings)].astype(np.float16))

    def score(self, embedding: np.ndarray, logits: np.ndarray | None = None) -> np.ndarray | float:
        """How strange images are.

        Args:
            embedding: float [D] of one image or [N, D] of several.
            logits: Not needed by nearest neighbours.

        Returns:
            A float for one image, else float64 [N]; 0 (a copy of known lesions) to 2 (opposite of all of them),
            higher for stranger images, NaN for an embedding that isn't finite.
        """
        similarity = _unit(np.atleast_2d(embedding)) @ self.reference.astype(np.float32).T
        distances = _distances(similarity)
        return float(distances[0]) if np.ndim(embedding) == 1 else distances

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What `from_arrays` takes, to be stored as safetensors; under 1 MB."""
        return {"ood_reference": self.reference}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> OutOfDistribution:
        """Reads what `to_arrays` gave; other arrays in the mapping are left alone.

        Raises:
            CheckpointError: The array is missing, or isn't one that `to_arrays` gives.
        """
        reference = arrays.get("ood_reference")
        if reference is None or reference.ndim != 2 or len(reference) < NEIGHBOURS:
            raise CheckpointError(
                "The statistics of known lesions are missing or damaged. Run `python -m dermadeit calibrate` "
                "again."
            )
        return cls(reference)


def held_out_scores(embeddings: np.ndarray, lesion_groups: Sequence[str]) -> np.ndarray:
    """What `OutOfDistribution.score` would give for each calibration image, had its lesion not been seen.

    Args:
        embeddings: float [N, D], as given to `OutOfDistribution.fit`.
        lesion_groups: N names; images of one lesion share one.

    Returns:
        float64 [N], 0 to 2.

    Raises:
        ConfigurationError: Too few lesions to leave one out.
    """
    kept = _kept(embeddings)
    unit = _unit(embeddings)
    groups = np.asarray(lesion_groups)
    similarity = unit @ unit[kept].T
    similarity[groups[:, None] == groups[kept][None]] = -np.inf
    scores = _distances(similarity)
    if not np.isfinite(scores).all():
        raise ConfigurationError(
            "Some calibration images have no other lesions to be compared with. Calibrate on images of at "
            f"least {NEIGHBOURS + 1} lesions."
        )
    return scores


def fit_threshold(scores: np.ndarray, share_refused: float) -> float:
    """The lowest of the scores that at most a share of them exceed.

    Args:
        scores: float [N], N at least 1, of images that should be answered.
        share_refused: 0 or more, less than 1.
    """
    return _threshold(scores, math.floor(len(scores) * share_refused))


@dataclass(frozen=True)
class Gates:
    """When an answer is withheld.

    Attributes:
        quality: When the photo is not good enough.
        ood_threshold: Score of `OutOfDistribution` above which an image is no lesion that the model knows.
    """

    quality: QualityThresholds
    ood_threshold: float

    @classmethod
    def fit(
        cls, reports: Sequence[QualityReport], ood_scores: np.ndarray, share_refused: float = SHARE_REFUSED
    ) -> Gates:
        """Thresholds that together refuse at most a share of real lesions.

        Args:
            reports: Of the calibration images.
            ood_scores: float [N], what `held_out_scores` gives for the same images in the same order.
            share_refused: Share of them that may be refused, 0 or more, less than 1.

        Raises:
            ConfigurationError: No images, or a share out of range.
        """
        quality = fit_quality_thresholds(reports, min(QUALITY_SHARE_REFUSED, share_refused))
        good = np.array([not quality.find_problems(report.measures) for report in reports])
        rest = math.floor(len(good) * share_refused) - int((~good).sum())
        return cls(quality, _threshold(np.asarray(ood_scores)[good], rest))

    def to_dict(self) -> dict[str, Any]:
        """The thresholds as JSON-ready values."""
        return {"quality": self.quality.to_dict(), "ood_threshold": self.ood_threshold}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Gates:
        """What `to_dict` gave; raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        return cls(QualityThresholds.from_dict(values["quality"]), float(values["ood_threshold"]))


@dataclass(frozen=True)
class GateVerdict:
    """Whether an answer is withheld, and why.

    Attributes:
        abstain: Whether it is.
        codes: Stable names of the reasons, keys of `quality.PROBLEMS` or `OUT_OF_DISTRIBUTION`.
        reasons: The reasons as sentences for people, in the same order.
    """

    abstain: bool
    reasons: tuple[str, ...]
    codes: tuple[str, ...]


def gate(quality: QualityReport, ood_score: float, gates: Gates) -> GateVerdict:
    """Decides whether an image gets an answer.

    Args:
        quality: What was measured on the photo; judged by the thresholds of `gates`.
        ood_score: Score of `OutOfDistribution`; NaN withholds the answer.
        gates: The thresholds.
    """
    codes = gates.quality.find_problems(quality.measures)
    # Written so that NaN, which is neither above nor below, counts as strange.
    if not ood_score <= gates.ood_threshold:
        codes += (OUT_OF_DISTRIBUTION,)
    return GateVerdict(bool(codes), tuple(_REASONS[code] for code in codes), codes)


def _threshold(scores: np.ndarray, exceeding: int) -> float:
    return float(np.sort(scores)[len(scores) - 1 - exceeding])


def _unit(embeddings: np.ndarray) -> np.ndarray:
    wide = np.asarray(embeddings, dtype=np.float32)
    return wide / np.maximum(np.linalg.norm(wide, axis=-1, keepdims=True), 1e-12)


def _kept(embeddings: np.ndarray) -> np.ndarray:
    """Which rows are remembered: all, or evenly spaced ones where all would take too many bytes."""
    count, length = embeddings.shape
    if count < NEIGHBOURS:
        raise ConfigurationError(
            f"Known lesions can't be described by {count} images. Calibrate on at least {NEIGHBOURS}."
        )
    room = _MAX_REFERENCE_BYTES // (np.dtype(np.float16).itemsize * length)
    return np.unique(np.linspace(0, count - 1, min(count, room)).round().astype(int))


def _distances(similarity: np.ndarray) -> np.ndarray:
    """Cosine similarities [N, M] to the distance of the neighbour that counts, float64 [N]."""
    counting = np.partition(similarity, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS]
    return 1 - counting.astype(np.float64)
