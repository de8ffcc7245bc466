"""Whether a photo is good enough to be read: sharpness, exposure, uniformity, size.

Everything is measured after squashing to 80 × 80 pixels, about the least that is accepted: a photo of 84 pixels
and one of 12 megapixels are then held to the same detail, and sensor noise averages out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image

from dermadeit.errors import ConfigurationError
from dermadeit.imaging.decode import LesionImage

WORKING_SIDE = 80

PROBLEMS: Mapping[str, str] = MappingProxyType(
    {
        "too_dark": "Most of the photo is black. Take it again with more light, closer to the lesion.",
        "overexposed": "Large parts of the photo are overexposed. Take it again with less light or without flash.",
        "uniform": "The photo has almost no contrast. Check that the lesion is in the picture.",
        "blurred": "The photo is blurred. Take it again with the lesion in focus and the camera held still.",
    }
)
"""Code of each problem to its sentence: what is wrong, and the remedy."""

# Samples a side of a working pixel that are averaged; more would cost a large photo 30 ms and change nothing.
_SAMPLES_A_SIDE = 8
_REC_601 = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_BLACK_BELOW = 16
_WHITE_FROM = 250

# Curated collections hold hardly any bad exposure, so that their extremes are still good photos: a threshold is
# never stricter than these. None is needed for blur, of which they hold enough.
_STRICTEST_BLACK_SHARE = 0.6
_STRICTEST_OVEREXPOSED_SHARE = 0.25
_STRICTEST_CONTRAST = 16.0


DOUBTS: Mapping[str, str] = MappingProxyType(
    {
        "too_dark": "Large parts of the photo are black.",
        "overexposed": "Large parts of the photo are overexposed.",
        "uniform": "The photo has little contrast.",
        "blurred": "The photo is slightly blurred.",
    }
)
"""Code of each problem to its sentence where it is only moderate."""


@dataclass(frozen=True)
class QualityThresholds:
    """What a photo's measures must not fall below, or exceed.

    The defaults are about what `fit_quality_thresholds` gives for 1,611 images of ISIC 2019 at 0.75 %.

    Attributes:
        least_sharpness: Of `QualityReport.measures["sharpness"]`.
        least_contrast: Of `contrast`.
        most_black_share: Of `black_share`.
        most_overexposed_share: Of `overexposed_share`.
    """

    least_sharpness: float = 9.75
    least_contrast: float = _STRICTEST_CONTRAST
    most_black_share: float = 0.66
    most_overexposed_share: float = _STRICTEST_OVEREXPOSED_SHARE

    def find_problems(self, measures: Mapping[str, float]) -> tuple[str, ...]:
        """The codes of `PROBLEMS` that a photo with these measures has."""
        found = []
        if measures["black_share"] > self.most_black_share:
            found.append("too_dark")
        if measures["overexposed_share"] > self.most_overexposed_share:
            found.append("overexposed")
        # Where there is nothing to see there is nothing sharp either, so one reason is enough.
        if not found and measures["contrast"] < self.least_contrast:
            found.append("uniform")
        if not found and measures["sharpness"] < self.least_sharpness:
            found.append("blurred")
        return tuple(found)

    def looser(self, other: QualityThresholds) -> QualityThresholds:
        """Thresholds that find a problem only where these and the others do."""
        return QualityThresholds(
            min(self.least_sharpness, other.least_sharpness),
            min(self.least_contrast, other.least_contrast),
            max(self.most_black_share, other.most_black_share),
            max(self.most_overexposed_share, other.most_overexposed_share),
        )

    def to_dict(self) -> dict[str, float]:
        """The thresholds as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> QualityThresholds:
        """What `to_dict` gave; raises `TypeError` or `ValueError` for anything else."""
        return cls(**{name: float(value) for name, value in values.items()})


UNREADABLE = QualityThresholds(
    least_sharpness=6.5, least_contrast=10.0, most_black_share=0.8, most_overexposed_share=0.6
)
"""Where a photo can't be read: beyond all of 3,222 calibration and validation photos of ISIC 2019. A photo blurred
by a Gaussian of 3 % of its short side has a sharpness of about 5."""


@dataclass(frozen=True)
class QualityReport:
    """What was measured on one photo.

    Attributes:
        measures: `sharpness`: 99th percentile of the absolute Laplacian of the luma at the working size, in grey
            levels, 0 and up. `contrast`: 5th to 95th percentile of the luma, 0 to 255. `black_share`: share of
            the working pixels with a luma under 16. `overexposed_share`: share with all channels at 250 or
            more. `short_side`: pixels of the photo itself.
        codes: Codes of the problems, keys of `PROBLEMS`; empty for a good photo.
        problems: The problems as sentences for people, in the same order.
    """

    measures: Mapping[str, float]
    codes: tuple[str, ...]
    problems: tuple[str, ...]


def assess_quality(image: LesionImage, thresholds: QualityThresholds | None = None) -> QualityReport:
    """Measures a photo and says what is wrong with it.

    Sharpness follows the focus measure of Pech-Pacheco et al. (ICPR 2000), the variance of the Laplacian, with a
    high percentile in place of the variance: what counts is whether anything is in focus, not how much texture
    there is. Where 0.75 % of the calibration photos are refused, 85 % of 400 blurred by a Gaussian of 2 % of their
    short side are found, and 99 % at 3 %; on one sample of them the variance found 88 and 98 % where
    the percentile found 91 and 100 %.

    Size is measured but never a problem here: the decoder refuses what is too small and warns of what is small.

    Args:
        image: The decoded photo.
        thresholds: When a measure becomes a problem; None for the defaults.
    """
    measures = _measure(image.pixels) | {"short_side": float(image.short_side)}
    codes = (thresholds or QualityThresholds()).find_problems(measures)
    return QualityReport(measures, codes, tuple(PROBLEMS[code] for code in codes))


def fit_quality_thresholds(reports: Sequence[QualityReport], share_refused: float) -> QualityThresholds:
    """Thresholds that refuse at most a share of real photos.

    Args:
        reports: Of the calibration images; their measures count, their problems don't.
        share_refused: Share of them that may have a problem, 0 or more, less than 1.

    Raises:
        ConfigurationError: No reports, or a share out of range.
    """
    if not reports or not 0 <= share_refused < 1:
        raise ConfigurationError(
            "Quality thresholds need at least one calibration image, and a share to refuse of 0 or more and "
            "less than 1."
        )
    columns = {name: np.sort([report.measures[name] for report in reports]) for name in reports[0].measures}
    # Each exposure threshold gets an eighth of the share, blur the rest: it is what real photos suffer from.
    few = math.floor(len(reports) * share_refused / 8)
    blur = math.floor(len(reports) * share_refused) - 3 * few
    return QualityThresholds(
        least_sharpness=float(columns["sharpness"][blur]),
        least_contrast=min(float(columns["contrast"][few]), _STRICTEST_CONTRAST),
        most_black_share=max(float(columns["black_share"][-1 - few]), _STRICTEST_BLACK_SHARE),
        most_overexposed_share=max(
            float(columns["overexposed_share"][-1 - few]), _STRICTEST_OVEREXPOSED_SHARE
        ),
    )


def _measure(pixels: np.ndarray) -> dict[str, float]:
    height, width = pixels.shape[:2]
    step = max(min(height, width) // (WORKING_SIDE * _SAMPLES_A_SIDE), 1)
    small = Image.fromarray(np.ascontiguousarray(pixels[::step, ::step])).resize(
        (WORKING_SIDE, WORKING_SIDE), Image.Resampling.BILINEAR
    )
    rgb = np.asarray(small)
    red, green, blue = np.moveaxis(rgb, -1, 0)
    luma = rgb @ _REC_601
    low, high = np.quantile(luma, (0.05, 0.95))
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * luma[1:-1, 1:-1]
    return {
        "sharpness": float(np.quantile(np.abs(laplacian), 0.99)),
        "contrast": float(high - low),
        "black_share": float((luma < _BLACK_BELOW).mean()),
        "overexposed_share": float((np.minimum(np.minimum(red, green), blue) >= _WHITE_FROM).mean()),
    }
