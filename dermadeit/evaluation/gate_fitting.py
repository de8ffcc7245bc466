"""What the gates see of photos, and how they are fitted to those of real lesions and of anything else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
from PIL import Image

from dermadeit.errors import ConfigurationError
from dermadeit.imaging.corruptions import corrupt
from dermadeit.imaging.decode import LesionImage, decode_image
from dermadeit.imaging.drawn_pictures import draw_pictures
from dermadeit.imaging.quality import QualityReport, assess_quality
from dermadeit.imaging.skin_tone import skin_angle
from dermadeit.inference.predictor import BATCH_IMAGES, Predictor
from dermadeit.trust.gating import Gates, GateVerdict, OutOfDistribution, SkinDetector, gate, held_out_scores

_SMALL_SIDE = 84
_FIELD_SEVERITIES = (3, 4, 5)


@dataclass(frozen=True, eq=False)
class GatePhotos:
    """What the gates see of N photos.

    Attributes:
        embeddings: float32 [N, C], shallow embeddings.
        in_dark_field: float32 [N, C], the same of copies in a round dark field, every second one made small too.
        quality: What was measured on each.
        skin_angles: float [N], individual typology angles in degrees; NaN where they can't be estimated.
    """

    embeddings: np.ndarray
    in_dark_field: np.ndarray
    quality: Sequence[QualityReport]
    skin_angles: np.ndarray

    def __len__(self) -> int:
        return len(self.embeddings)

    def take(self, indices: np.ndarray) -> GatePhotos:
        """Those at these positions, int [M], in this order."""
        return GatePhotos(
            self.embeddings[indices],
            self.in_dark_field[indices] if len(self.in_dark_field) else self.in_dark_field,
            [self.quality[index] for index in indices],
            self.skin_angles[indices],
        )


@dataclass(frozen=True, eq=False)
class FittedGates:
    """The limits, and the scores that they are of.

    Attributes:
        gates: When an answer is withheld, and when it gets a warning.
        out_of_distribution: How far a photo lies from known lesions.
        skin: Whether a photo shows skin at all; None in files of version 0.1.
    """

    gates: Gates
    out_of_distribution: OutOfDistribution
    skin: SkinDetector | None

    def judge(self, photos: GatePhotos, ood_scores: np.ndarray | None = None) -> list[GateVerdict]:
        """The verdicts on photos.

        Args:
            photos: N of them.
            ood_scores: float [N], held-out scores in place of those of `out_of_distribution`.
        """
        scores = self.out_of_distribution.score(photos.embeddings) if ood_scores is None else ood_scores
        no_skin = np.atleast_1d(self.skin.score(photos.embeddings)) if self.skin else [None] * len(photos)
        return [
            gate(report, float(far), self.gates, not_skin_score=other, skin_angle=angle)
            for report, far, other, angle in zip(
                photos.quality, np.atleast_1d(scores), no_skin, photos.skin_angles, strict=True
            )
        ]


def look_at(
    predictor: Predictor,
    images: Iterable[LesionImage],
    progress: Callable[[], Any] = lambda: None,
    *,
    with_copies: bool = True,
) -> GatePhotos:
    """Sends photos through a network, as they are and in a dark field.

    The copies keep the detector from taking a photo for one of no skin because it is small, or because of the
    round dark field of a dermatoscope: both kinds of photos are shown to it with and without.

    Args:
        predictor: The network.
        images: The photos.
        progress: Called after each photo.
        with_copies: Whether to make the copies, which only fitting needs; else there are none.

    Raises:
        ConfigurationError: There are no photos.
    """
    remaining, index = iter(images), 0
    embeddings, in_dark_field, quality, angles = [], [], [], []
    while batch := list(islice(remaining, BATCH_IMAGES)):
        embeddings.append(predictor.shallow_embeddings(batch))
        if with_copies:
            copies = [_in_dark_field(image, index + place) for place, image in enumerate(batch)]
            in_dark_field.append(predictor.shallow_embeddings(copies))
        for image in batch:
            quality.append(assess_quality(image))
            angle = skin_angle(image.pixels)
            angles.append(np.nan if angle is None else angle)
            progress()
        index += len(batch)
    if not embeddings:
        raise ConfigurationError("The gates can't be fitted: no photo could be read. Check the folder.")
    seen = np.concatenate(embeddings)
    copied = np.concatenate(in_dark_field) if in_dark_field else seen[:0]
    return GatePhotos(seen, copied, quality, np.array(angles))


def look_at_drawn(predictor: Predictor, seed: int = 0) -> GatePhotos:
    """The same of pictures that show nothing (`drawn_pictures`)."""
    pictures = (decode_image(picture) for picture in draw_pictures(seed))
    return look_at(predictor, pictures, with_copies=False)


def fit_gates(
    lesions: GatePhotos,
    groups: Sequence[str] | np.ndarray,
    drawn: GatePhotos,
    others: GatePhotos | None = None,
) -> tuple[FittedGates, np.ndarray]:
    """Fits all that the gates need.

    Args:
        lesions: N calibration photos.
        groups: N names; photos of one lesion share one.
        drawn: Pictures that show nothing.
        others: Photos of anything but skin. Without them the detector knows drawn pictures alone, and what lies
            very far from known lesions is withheld too.

    Returns:
        The gates, and float [N], how far each calibration photo lies from other lesions.

    Raises:
        ConfigurationError: Too few lesions.
    """
    scores = held_out_scores(lesions.embeddings, groups)
    gates = Gates.fit(
        lesions.quality,
        scores,
        skin_angles=lesions.skin_angles[np.isfinite(lesions.skin_angles)].tolist(),
        knows_others=others is not None,
    )
    strange = [drawn.embeddings]
    if others is not None:
        strange += [others.embeddings, others.in_dark_field]
    skin = SkinDetector.fit(
        np.concatenate([lesions.embeddings, lesions.in_dark_field]), np.concatenate(strange)
    )
    return FittedGates(gates, OutOfDistribution.fit(lesions.embeddings), skin), scores


def _in_dark_field(image: LesionImage, index: int) -> LesionImage:
    pixels = image.pixels
    if index % 2 == 0:
        size = (_SMALL_SIDE, _SMALL_SIDE)
        pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
    severity = _FIELD_SEVERITIES[index % len(_FIELD_SEVERITIES)]
    return replace(image, pixels=corrupt(pixels, "dark_corner", severity, index))
