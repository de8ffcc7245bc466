"""Figures by subgroup: what the lesion is, who the patients are, where it sits, and how the photo was taken.

`attributes.csv` holds what the images are sorted by, so that the figures can be made again without the images.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dermadeit.data.manifest import ManifestRow
from dermadeit.data.tabular import write_csv
from dermadeit.errors import ImageError
from dermadeit.evaluation.predictions import SMALLEST_SLICE, PredictionSet, measure
from dermadeit.imaging.decode import decode_image
from dermadeit.imaging.skin_tone import SKIN_TONE_CAVEAT, SKIN_TONES, estimate_skin_tone
from dermadeit.tasks import DIAGNOSES

UNKNOWN = "unknown"

SLICED_BY: Mapping[str, str] = {
    "source": "source",
    "diagnosis": "diagnosis",
    "sex": "sex",
    "age_band": "age",
    "anatomic_site": "anatomic site",
    "skin_tone": "estimated skin tone",
    "short_side": "short side of the image",
}
"""Attributes that images are sorted by, and their names for people."""

_AGE_BANDS = ((30, "under 30"), (45, "30 to 44"), (60, "45 to 59"), (75, "60 to 74"))
_OLDEST_BAND = "75 or more"
_SHORT_SIDES = ((100, "under 100 px"), (150, "100 to 149 px"), (300, "150 to 299 px"))
_LONGEST_SHORT_SIDE = "300 px or more"

_ORDERED_VALUES = {
    "diagnosis": tuple(DIAGNOSES.values()),
    "age_band": (*(name for _, name in _AGE_BANDS), _OLDEST_BAND),
    "skin_tone": SKIN_TONES,
    "short_side": (*(name for _, name in _SHORT_SIDES), _LONGEST_SHORT_SIDE),
}
_OF_SEVERAL_CLASSES = ("precision_macro", "recall_macro", "f1_macro", "cohen_kappa", "balanced_accuracy")
_COLUMNS = ("image_id", *SLICED_BY, "typology_angle")


class Describable(Protocol):
    """An image of which a table says something: a `manifest.ManifestRow` or another record like it."""

    @property
    @abstractmethod
    def source(self) -> str:
        """Name of the collection, or an empty string."""

    @property
    @abstractmethod
    def metadata(self) -> Mapping[str, str]:
        """Those of `manifest.METADATA_COLUMNS` that are filled in."""


Attributes = Mapping[str, Mapping[str, str]]
"""Image id to attribute to value; the attributes are `SLICED_BY`, the values `UNKNOWN` where nothing is known."""


def describe_images(rows: Sequence[ManifestRow]) -> dict[str, dict[str, str]]:
    """Reads images for what they are sorted by.

    Args:
        rows: The images. One that can't be read gets the short side that its row gives, and no skin tone.

    Returns:
        Image id to `SLICED_BY`, and `typology_angle` (degrees to one decimal, or empty).
    """
    described = {}
    for row in rows:
        try:
            pixels = decode_image(row.content()).pixels
        except ImageError:
            pixels = None
        described[row.image_id] = describe_image(row, pixels)
    return described


def describe_image(row: Describable, pixels: np.ndarray | None) -> dict[str, str]:
    """What one image is sorted by.

    Args:
        row: What its table says.
        pixels: uint8 [H, W, 3], or None where it can't be read.

    Returns:
        `SLICED_BY`, and `typology_angle` (degrees to one decimal, or empty).
    """
    short_side, angle, tone = _look_at(row, pixels)
    return {
        "source": row.source or UNKNOWN,
        "diagnosis": diagnosis_name(row.metadata.get("diagnosis", "")) or UNKNOWN,
        "sex": row.metadata.get("sex", UNKNOWN),
        "age_band": _band(_number(row.metadata.get("age")), _AGE_BANDS, _OLDEST_BAND),
        "anatomic_site": row.metadata.get("anatomic_site", UNKNOWN),
        "skin_tone": tone,
        "short_side": _band(short_side, _SHORT_SIDES, _LONGEST_SHORT_SIDE),
        "typology_angle": angle,
    }


def diagnosis_name(diagnosis: str) -> str:
    """A diagnosis for people: an ISIC 2019 name in words, another as it is given."""
    return DIAGNOSES.get(diagnosis.strip().upper(), diagnosis.strip())


def is_known(image_ids: Sequence[str], attributes: Attributes, attribute: str) -> bool:
    """Whether anything is known of an attribute for any of the images."""
    return any(
        attributes.get(image_id, {}).get(attribute, UNKNOWN) not in ("", UNKNOWN) for image_id in image_ids
    )


def slice_indices(image_ids: Sequence[str], attributes: Attributes, attribute: str) -> dict[str, list[int]]:
    """Value of one attribute to the positions of its images; an image without a description is `UNKNOWN`.

    Args:
        image_ids: N identifiers.
        attributes: As `describe_images` gives them.
        attribute: One of `SLICED_BY`.

    Returns:
        The values in their natural order, `UNKNOWN` last; those without images are left out.
    """
    indices_of: dict[str, list[int]] = defaultdict(list)
    for index, image_id in enumerate(image_ids):
        indices_of[attributes.get(image_id, {}).get(attribute, UNKNOWN)].append(index)
    order = _ORDERED_VALUES.get(attribute, ())
    rank = {value: place for place, value in enumerate(order)}
    return {
        value: indices_of[value]
        for value in sorted(indices_of, key=lambda value: (value == UNKNOWN, rank.get(value, 0), value))
    }


def measure_slices(predictions: PredictionSet, attributes: Attributes) -> dict[str, Any]:
    """Figures with intervals for every slice that has enough images.

    Args:
        predictions: The answers.
        attributes: As `describe_images` gives them.

    Returns:
        JSON-ready: each of `SLICED_BY` to `slices` (value to figures with intervals, as `Measurement.to_dict`
        gives them), `too_few` (value to number of images, for those under `SMALLEST_SLICE`), and a `caveat` or
        None. An attribute of which nothing is known has neither slices nor too few.
    """
    measured = {}
    for attribute in SLICED_BY:
        has_values = is_known(predictions.image_ids, attributes, attribute)
        indices_of = slice_indices(predictions.image_ids, attributes, attribute) if has_values else {}
        measured[attribute] = {
            "slices": {
                value: _meant(measure(predictions.take(indices)).to_dict())
                for value, indices in indices_of.items()
                if len(indices) >= SMALLEST_SLICE
            },
            "too_few": {
                value: len(indices) for value, indices in indices_of.items() if len(indices) < SMALLEST_SLICE
            },
            "caveat": SKIN_TONE_CAVEAT if attribute == "skin_tone" else None,
        }
    return measured


def _meant(figures: dict[str, Any]) -> dict[str, Any]:
    """The figures of a part; those that average over classes are None where it has one true class, as a diagnosis.

    There a class without images that is answered now and then would halve them.
    """
    if sum(map(any, figures["confusion_matrix"]["counts"])) > 1:
        return figures
    intervals = {name: kept for name, kept in figures["intervals"].items() if name not in _OF_SEVERAL_CLASSES}
    return {**figures, **dict.fromkeys(_OF_SEVERAL_CLASSES), "intervals": intervals}


def write_attributes(path: Path, attributes: Attributes) -> None:
    """Writes what `describe_images` found, sorted by image id."""
    write_csv(
        path, _COLUMNS, ({"image_id": image_id, **attributes[image_id]} for image_id in sorted(attributes))
    )


def _look_at(row: Describable, pixels: np.ndarray | None) -> tuple[float | None, str, str]:
    """Short side in pixels, typology angle as text, and category of the skin tone."""
    if pixels is None:
        width, height = (_number(row.metadata.get(name)) for name in ("width", "height"))
        return (None if width is None or height is None else min(width, height)), "", UNKNOWN
    estimate = estimate_skin_tone(pixels)
    short_side = min(pixels.shape[:2])
    return (short_side, f"{estimate.angle:.1f}", estimate.category) if estimate else (short_side, "", UNKNOWN)


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _band(value: float | None, bands: Sequence[tuple[float, str]], last: str) -> str:
    """The name of the first band that ends above `value`."""
    # NaN is a number to Python and lies in no band.
    if value is None or value != value:
        return UNKNOWN
    return next((name for end, name in bands if value < end), last)
