"""Whether an answer may be given at all, and whether it needs a warning: quality of the photo, and what it shows.

An answer is *withheld* only where the photo can't be read (`quality.UNREADABLE`) or shows no skin
(`SkinDetector`). It is *given with a warning* where the photo differs from those of the calibration split
(`OutOfDistribution`), or is less good than nearly all of them. `benchmarks/evidence/gate_curve.py` writes down
what the limits rest on.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from scipy.special import expit

from dermadeit.errors import CheckpointError, ConfigurationError
from dermadeit.imaging.quality import (
    DOUBTS,
    PROBLEMS,
    UNREADABLE,
    QualityReport,
    QualityThresholds,
    fit_quality_thresholds,
)

NEIGHBOURS = 2
"""Which neighbour's distance is the score: the second, so that one odd calibration image admits nothing."""

SHARE_WARNED = 0.02
"""Share of calibration lesions that the photo's distance and its quality give a warning at most, together."""

QUALITY_SHARE_WARNED = 0.005
"""Share of them that may get one for the quality of their photo."""

NOT_SKIN_FROM = 0.9
"""Score of `SkinDetector` from which a photo is taken for one of anything but skin."""

FAR_FACTOR = 3.5
"""Where no photos of anything else were there for the detector: a photo this many times as far from known
lesions as the limit of the warning is taken for one of anything but skin."""

NOT_SKIN = "not_skin"
OUT_OF_DISTRIBUTION = "out_of_distribution"
SHOWS_NO_SKIN = frozenset({NOT_SKIN, OUT_OF_DISTRIBUTION})
"""Reasons to withhold an answer for which similar cases mean nothing; version 0.1 withheld for the second."""

ANSWERED, WARNED, WITHHELD = "answered", "warned", "withheld"
STATE_WORDS: Mapping[str, str] = MappingProxyType(
    {ANSWERED: "answered", WARNED: "answer with a warning", WITHHELD: "answer withheld"}
)
"""What can be said of an answer as a whole, in the words of every page, table, file and endpoint. The style sheets
give `WARNED` and `WITHHELD` a mark each, wherever `data-answer` names them."""

DARKER_SKIN = "darker_skin"
FINE_DETAIL = "fine_detail"

_REASONS: Mapping[str, str] = MappingProxyType(
    {
        **PROBLEMS,
        NOT_SKIN: (
            "The photo does not look like a skin lesion. Check that it shows one lesion, close up and filling "
            "much of the picture."
        ),
    }
)
"""Code of each reason to withhold an answer to its sentence."""

WARNINGS: Mapping[str, str] = MappingProxyType(
    {
        **{code: f"{doubt} The answer is less reliable." for code, doubt in DOUBTS.items()},
        OUT_OF_DISTRIBUTION: (
            "This photo differs from the training photos (camera, hair, skin or framing). The answer is less "
            "reliable."
        ),
        DARKER_SKIN: "Likely reason: the skin is darker than in most training photos.",
        FINE_DETAIL: "Likely reason: much fine detail, such as hair, or a sharper camera.",
    }
)
"""Code of each reason to doubt an answer that is given to its sentence."""

_NAMES = {
    NOT_SKIN: "no skin lesion",
    OUT_OF_DISTRIBUTION: "differs from the training photos",
    DARKER_SKIN: "darker skin",
    FINE_DETAIL: "fine detail",
}
_MAX_REFERENCE_BYTES = 1_000_000
_SHARE_UNUSUAL = 0.01
_PENALTY = 0.01


def name_of_code(code: str) -> str:
    """A code of a reason or a warning in a few words, for tables; an unknown one without its underscores."""
    return _NAMES.get(code, code.replace("_", " "))


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
    def fit(cls, embeddings: np.ndarray) -> OutOfDistribution:
        """Remembers known lesions.

        Args:
            embeddings: float [N, D] of the unturned calibration images.

        Raises:
            ConfigurationError: Fewer images than the score has neighbours.
        """
        return cls(_unit(embeddings)[_kept(embeddings)].astype(np.float16))

    def score(self, embedding: np.ndarray) -> np.ndarray | float:
        """How strange images are.

        Args:
            embedding: float [D] of one image or [N, D] of several.

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


def held_out_scores(embeddings: np.ndarray, lesion_groups: Sequence[str] | np.ndarray) -> np.ndarray:
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


@dataclass(frozen=True, eq=False)
class SkinDetector:
    """Whether a photo shows skin at all: a logistic regression on the shallow embedding.

    Attributes:
        weights: float32 [D], for an embedding of length 1.
        bias: float32 [1].
    """

    weights: np.ndarray
    bias: np.ndarray

    @classmethod
    def fit(cls, skin: np.ndarray, others: np.ndarray) -> SkinDetector:
        """Learns to tell lesions from photos of anything else, both kinds counting the same.

        Args:
            skin: float [N, D], embeddings of lesions.
            others: float [M, D], of anything else.

        Raises:
            ConfigurationError: One of the kinds is missing.
        """
        # Only fitting needs it, and it is slow to import.
        from sklearn.linear_model import LogisticRegression

        if not len(skin) or not len(others):
            raise ConfigurationError("A skin detector needs photos of lesions and photos of anything else.")
        embeddings = np.concatenate([_unit(skin), _unit(others)])
        # Scaled to unit variance for the penalty; folded into the weights afterwards.
        centre, scale = embeddings.mean(axis=0), np.maximum(embeddings.std(axis=0), 1e-6)
        labels = np.repeat((0, 1), (len(skin), len(others)))
        model = LogisticRegression(C=_PENALTY, class_weight="balanced", max_iter=2000)
        model.fit((embeddings - centre) / scale, labels)
        weights = model.coef_[0] / scale
        bias = model.intercept_ - weights @ centre
        return cls(weights.astype(np.float32), bias.astype(np.float32))

    def score(self, embedding: np.ndarray) -> np.ndarray | float:
        """How likely a photo shows no skin, were there as many of either kind.

        Args:
            embedding: float [D] of one image or [N, D] of several.

        Returns:
            A float for one image, else float64 [N], 0 to 1; NaN for an embedding that isn't finite.
        """
        scores = expit((_unit(np.atleast_2d(embedding)) @ self.weights + self.bias).astype(np.float64))
        return float(scores[0]) if np.ndim(embedding) == 1 else scores

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What `from_arrays` takes, to be stored as safetensors."""
        return {"weights": self.weights, "bias": self.bias}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> SkinDetector:
        """Reads what `to_arrays` gave.

        Raises:
            CheckpointError: An array is missing, or isn't one that `to_arrays` gives.
        """
        weights, bias = arrays.get("weights"), arrays.get("bias")
        if weights is None or bias is None or weights.ndim != 1 or bias.shape != (1,):
            raise CheckpointError("The skin detector is damaged. Run `python -m dermadeit calibrate` again.")
        return cls(weights, bias)


@dataclass(frozen=True)
class Gates:
    """When an answer is withheld, and when it gets a warning.

    Attributes:
        quality: When a photo is less good than nearly all calibration photos: a warning.
        ood_threshold: Score of `OutOfDistribution` above which a photo differs from them: a warning.
        unreadable: When a photo can't be read: withheld.
        far_threshold: Score of `OutOfDistribution` above which a photo shows no skin: withheld. Infinite where the
            detector has seen photos of anything else.
        least_skin_angle: Angle below which the skin is darker than on nearly all of them: a warning.
        most_sharpness: Sharpness above which a photo has more fine detail than they: a likely reason.
    """

    quality: QualityThresholds
    ood_threshold: float
    unreadable: QualityThresholds = UNREADABLE
    far_threshold: float = math.inf
    least_skin_angle: float = -math.inf
    most_sharpness: float = math.inf

    @classmethod
    def fit(
        cls,
        reports: Sequence[QualityReport],
        ood_scores: np.ndarray,
        *,
        skin_angles: Sequence[float | None] = (),
        knows_others: bool = False,
    ) -> Gates:
        """Limits beyond which at most `SHARE_WARNED` of real lesions get a warning for quality or distance.

        Args:
            reports: Of the calibration images.
            ood_scores: float [N], what `held_out_scores` gives for the same images in the same order.
            skin_angles: Of those of them where it could be estimated; the others are None or left out.
            knows_others: Whether the skin detector has seen photos of anything else.

        Raises:
            ConfigurationError: No images.
        """
        quality = fit_quality_thresholds(reports, QUALITY_SHARE_WARNED)
        good = np.array([not quality.find_problems(report.measures) for report in reports])
        rest = math.floor(len(good) * SHARE_WARNED) - int((~good).sum())
        ood_threshold = _threshold(np.asarray(ood_scores)[good], rest)
        angles = [angle for angle in skin_angles if angle is not None]
        return cls(
            quality,
            ood_threshold,
            quality.looser(UNREADABLE),
            math.inf if knows_others else FAR_FACTOR * ood_threshold,
            float(np.quantile(angles, _SHARE_UNUSUAL)) if angles else -math.inf,
            float(np.quantile([report.measures["sharpness"] for report in reports], 1 - _SHARE_UNUSUAL)),
        )

    def to_dict(self) -> dict[str, Any]:
        """The limits as JSON-ready values; those that nothing reaches are None."""
        return {
            "quality": self.quality.to_dict(),
            "ood_threshold": self.ood_threshold,
            "unreadable": self.unreadable.to_dict(),
            "far_threshold": _finite(self.far_threshold),
            "least_skin_angle": _finite(self.least_skin_angle),
            "most_sharpness": _finite(self.most_sharpness),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Gates:
        """What `to_dict` gave; raises `KeyError`, `TypeError` or `ValueError` for anything else.

        Version 0.1 had `quality` and `ood_threshold` alone.
        """
        quality, ood_threshold = (
            QualityThresholds.from_dict(values["quality"]),
            float(values["ood_threshold"]),
        )
        if "unreadable" not in values:
            return cls(quality, ood_threshold, quality.looser(UNREADABLE), FAR_FACTOR * ood_threshold)
        return cls(
            quality,
            ood_threshold,
            QualityThresholds.from_dict(values["unreadable"]),
            _or_infinite(values["far_threshold"], math.inf),
            _or_infinite(values["least_skin_angle"], -math.inf),
            _or_infinite(values["most_sharpness"], math.inf),
        )


@dataclass(frozen=True)
class GateVerdict:
    """Whether an answer is withheld or given with a warning, and why.

    Attributes:
        abstain: Whether it is withheld.
        codes: Stable names of the reasons to withhold it, keys of `quality.PROBLEMS` or `NOT_SKIN`.
        reasons: The same as sentences for people, in the same order.
        warning_codes: Keys of `WARNINGS`; none for an answer that is withheld.
        warnings: The same as sentences for people, in the same order.
    """

    abstain: bool
    reasons: tuple[str, ...]
    codes: tuple[str, ...]
    warning_codes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Judged(Protocol):
    """What the gates decided on an answer: a prediction, or what a table says of one."""

    @property
    @abstractmethod
    def verdict(self) -> str | None:
        """`records.ANSWER` or `records.ABSTAIN`; None where that is unknown."""

    @property
    @abstractmethod
    def abstain_codes(self) -> tuple[str, ...]:
        """Why it was withheld."""

    @property
    @abstractmethod
    def warning_codes(self) -> tuple[str, ...] | None:
        """Why it is less reliable, though given; None where that is unknown."""


def gate_status(answer: Judged) -> str:
    """Whether an answer is withheld or has a warning, and why, beside the answer itself.

    Returns:
        Such as “answer withheld: blurred” or “answer with a warning: darker skin”; empty for an answer without.
    """
    state = answer_state(answer)
    if state == ANSWERED:
        return ""
    codes = answer.abstain_codes if state == WITHHELD else answer.warning_codes
    return _with_names(STATE_WORDS[state], codes or ())


def answer_status(answer: Judged) -> str:
    """The same in a column of its own, which is never empty: `answer_status` of every table and record."""
    return gate_status(answer) or STATE_WORDS[ANSWERED]


def answer_state(answer: Judged) -> str:
    """A key of `STATE_WORDS`."""
    if answer.verdict == "abstain":
        return WITHHELD
    return WARNED if answer.warning_codes else ANSWERED


def _with_names(word: str, codes: Sequence[str]) -> str:
    names = ", ".join(map(name_of_code, codes))
    return f"{word}: {names}" if names else word


def warning_sentences(codes: Sequence[str] | None) -> list[str]:
    """The sentences of the warnings with these codes; unknown ones are left out."""
    return [WARNINGS[code] for code in codes or () if code in WARNINGS]


def gate(
    quality: QualityReport,
    ood_score: float,
    gates: Gates,
    *,
    not_skin_score: float | None = None,
    skin_angle: float | None = None,
) -> GateVerdict:
    """Decides whether a photo gets an answer, and whether with a warning.

    Args:
        quality: What was measured on the photo; judged by the limits of `gates`.
        ood_score: Score of `OutOfDistribution`; NaN withholds the answer.
        gates: The limits.
        not_skin_score: Score of `SkinDetector`; NaN withholds the answer; None without a detector.
        skin_angle: Individual typology angle of `skin_tone`, in degrees; None where it can't be estimated.
    """
    measures = quality.measures
    codes = gates.unreadable.find_problems(measures)
    # Written so that NaN, which is neither above nor below, counts as no skin.
    is_near = ood_score <= gates.far_threshold
    is_skin = not_skin_score is None or not_skin_score < NOT_SKIN_FROM
    if not (is_near and is_skin):
        codes += (NOT_SKIN,)
    if codes:
        return GateVerdict(True, tuple(_REASONS[code] for code in codes), codes)
    warning_codes = gates.quality.find_problems(measures)
    is_darker = skin_angle is not None and skin_angle < gates.least_skin_angle
    if ood_score > gates.ood_threshold or is_darker:
        warning_codes += (OUT_OF_DISTRIBUTION,)
        warning_codes += (DARKER_SKIN,) if is_darker else ()
        warning_codes += (FINE_DETAIL,) if measures["sharpness"] > gates.most_sharpness else ()
    return GateVerdict(False, (), (), warning_codes, tuple(WARNINGS[code] for code in warning_codes))


def _finite(value: float) -> float | None:
    """None for an infinite limit: JSON has no infinity."""
    return value if math.isfinite(value) else None


def _or_infinite(value: float | None, infinity: float) -> float:
    return infinity if value is None else float(value)


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
