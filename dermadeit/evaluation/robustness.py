"""What spoilt photos do to a model's answers: every corruption at every severity on the same lesions.

After Hendrycks and Dietterich (2019, 1903.12261), but as plain drops of figures instead of ratios to the errors of
AlexNet, which mean nothing on these tasks. All conditions hold the same images, so differences are paired.

It takes 56 readings an image, 1.4 seconds on one core of a CPU with one view at 224 pixels.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dermadeit.about import DISCLAIMER, VERSION
from dermadeit.data.manifest import Manifest, ManifestRow
from dermadeit.errors import ErrorCode, ImageError, TableError
from dermadeit.evaluation.predictions import Measurement, PredictionSet, measure
from dermadeit.imaging.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from dermadeit.imaging.decode import decode_image
from dermadeit.inference.predictor import Predictor
from dermadeit.inference.records import ABSTAIN, Prediction
from dermadeit.metrics.classification import INTERVAL_METHOD, percentile_intervals
from dermadeit.metrics.shares import Shares

ROBUSTNESS_FILE = "robustness.json"
ROBUSTNESS_FIGURES = ("accuracy", "balanced_accuracy", "roc_auc")

Condition = tuple[str, int]
"""A corruption and its severity."""

_CLEAN: Condition = ("clean", 0)
_CONDITIONS: tuple[Condition, ...] = (
    _CLEAN,
    *((corruption, severity) for corruption in CORRUPTIONS for severity in SEVERITIES),
)


@dataclass(frozen=True)
class SpoiltReadings:
    """One image read as it is and under every corruption.

    Attributes:
        row: The image.
        predictions: One for each condition, `("clean", 0)` first; None where the image, or one of its spoilt
            versions, could not be read.
    """

    row: ManifestRow
    predictions: Mapping[Condition, Prediction] | None


_Readable = tuple[ManifestRow, Mapping[Condition, Prediction]]
"""What `SpoiltReadings` holds of an image that could be read."""


def sample_lesions(manifest: Manifest, images: int | None, seed: int = 0) -> Manifest:
    """Draws whole lesions at random until they have at least so many images.

    Args:
        manifest: What to draw from.
        images: The least number of images; None takes all.
        seed: Decides the draw.

    Returns:
        The images of these lesions, in the order of the manifest.
    """
    if images is None:
        return manifest
    groups = sorted({row.lesion_group for row in manifest.rows})
    count_of = dict.fromkeys(groups, 0)
    for row in manifest.rows:
        count_of[row.lesion_group] += 1
    drawn: set[str] = set()
    taken = 0
    for index in np.random.default_rng(seed).permutation(len(groups)):
        if taken >= images:
            break
        drawn.add(groups[index])
        taken += count_of[groups[index]]
    return replace(manifest, rows=tuple(row for row in manifest.rows if row.lesion_group in drawn))


def read_spoilt(
    rows: Sequence[ManifestRow], predictor: Predictor, *, views: int = 1, seed: int = 0
) -> Iterator[SpoiltReadings]:
    """Reads each image under every condition, as soon as the one before is done.

    Args:
        rows: The images.
        predictor: The model.
        views: Dihedral views whose logits are averaged.
        seed: With the image's id, decides what is random in its corruptions.
    """
    for row in rows:
        try:
            image = decode_image(row.content())
        except ImageError:
            yield SpoiltReadings(row, None)
            continue
        # Of the id, so that an image is spoilt alike whatever others are read with it.
        own_seed = zlib.crc32(row.image_id.encode()) + seed
        spoilt = (
            replace(
                image,
                pixels=corrupt(image.pixels, corruption, severity, own_seed) if severity else image.pixels,
            )
            for corruption, severity in _CONDITIONS
        )
        records = [record for record in predictor.predict(spoilt, views) if isinstance(record, Prediction)]
        readable = len(records) == len(_CONDITIONS)
        yield SpoiltReadings(row, dict(zip(_CONDITIONS, records, strict=True)) if readable else None)


def measure_robustness(
    manifest: Manifest,
    predictor: Predictor,
    *,
    views: int = 1,
    seed: int = 0,
    progress: Callable[[], Any] = lambda: None,
) -> dict[str, Any]:
    """Reads every image of a manifest under every condition and compares the figures with the clean ones.

    Args:
        manifest: The labelled images, of the predictor's task.
        predictor: The model.
        views: Dihedral views whose logits are averaged.
        seed: Decides what is random in the corruptions.
        progress: Called after each image.

    Returns:
        JSON-ready. `clean` and, under `corruptions`, each corruption's `severities` hold `ROBUSTNESS_FIGURES` with
        `intervals`, and as shares of images `flipped` (another label than on the clean image) and `abstained`;
        `drop` is the clean figure minus its mean over the severities, `mean_corruption_drop` the mean of that over
        the corruptions, each with the interval of the paired bootstrap of lesions.

    Raises:
        TableError: No image could be read.
    """
    readings = []
    for reading in read_spoilt(manifest.rows, predictor, views=views, seed=seed):
        readings.append(reading)
        progress()
    readable = [(reading.row, reading.predictions) for reading in readings if reading.predictions is not None]
    if not readable:
        raise TableError(
            "No image could be read. If the files lie elsewhere, name their folder.",
            code=ErrorCode.NOTHING_READ,
        )
    return {
        "task": manifest.task.key,
        "model": predictor.checkpoint.model,
        "weights_sha256": predictor.checkpoint.weights_sha256,
        "splits": sorted({row.split for row, _ in readable} - {""}),
        "views": views,
        "seed": seed,
        "n": len(readable),
        "lesions": len({row.lesion_group for row, _ in readable}),
        "failed": len(readings) - len(readable),
        "interval_method": INTERVAL_METHOD,
        **_compare_conditions(manifest, readable, predictor.checkpoint.model, views),
        "dermadeit_version": VERSION,
        "disclaimer": DISCLAIMER,
    }


def _compare_conditions(
    manifest: Manifest, readings: Sequence[_Readable], model: str, views: int
) -> dict[str, Any]:
    shares = _count_changes(readings)
    rows = [row for row, _ in readings]
    figures: dict[Condition, dict[str, Any]] = {}
    values: dict[Condition, np.ndarray] = {}
    resampled: dict[Condition, np.ndarray] = {}
    for condition in _CONDITIONS:
        records = [predictions[condition] for _, predictions in readings]
        measured = measure(PredictionSet.of_records(manifest.task, model, views, rows, records))
        values[condition], resampled[condition] = _as_arrays(measured)
        intervals = percentile_intervals({name: measured.resampled[name] for name in ROBUSTNESS_FIGURES})
        figures[condition] = {
            **{name: measured.figures[name] for name in ROBUSTNESS_FIGURES},
            **shares[_name(condition)],
            "intervals": intervals,
        }
    drops = {
        corruption: tuple(
            part[_CLEAN] - np.mean([part[corruption, severity] for severity in SEVERITIES], axis=0)
            for part in (values, resampled)
        )
        for corruption in CORRUPTIONS
    }
    means = tuple(np.mean(part, axis=0) for part in zip(*drops.values(), strict=True))
    return {
        "clean": figures[_CLEAN],
        "corruptions": {
            corruption: {
                "severities": {str(severity): figures[corruption, severity] for severity in SEVERITIES},
                "drop": _differences(*drop),
            }
            for corruption, drop in drops.items()
        },
        "mean_corruption_drop": _differences(*means),
    }


def _as_arrays(measured: Measurement) -> tuple[np.ndarray, np.ndarray]:
    """Each of `ROBUSTNESS_FIGURES` on the images, [F], and on the resamples, [F, R]; NaN where undefined."""
    values = [measured.figures[name] for name in ROBUSTNESS_FIGURES]
    return (
        np.array([np.nan if value is None else value for value in values]),
        np.stack([measured.resampled[name] for name in ROBUSTNESS_FIGURES]),
    )


def _differences(values: np.ndarray, resampled: np.ndarray) -> dict[str, Any]:
    """Figure to what `comparison.Difference` holds, from [F] and [F, R]."""
    intervals = percentile_intervals(dict(zip(ROBUSTNESS_FIGURES, resampled, strict=True)))
    return {
        name: {"difference": None if np.isnan(value) else float(value), "interval": intervals.get(name)}
        for name, value in zip(ROBUSTNESS_FIGURES, values, strict=True)
    }


def _count_changes(readings: Sequence[_Readable]) -> dict[str, Any]:
    """Shares of images whose label changed, and of those that got no answer, for each condition."""
    shares = Shares([row.lesion_group for row, _ in readings])
    everyone = np.ones(len(readings))
    for condition in _CONDITIONS:
        records = [predictions[condition] for _, predictions in readings]
        clean = [predictions[_CLEAN] for _, predictions in readings]
        flipped = [spoilt.label != whole.label for spoilt, whole in zip(records, clean, strict=True)]
        abstained = [record.verdict == ABSTAIN for record in records]
        shares.add(_name(condition), "flipped", having=np.array(flipped), among=everyone)
        shares.add(_name(condition), "abstained", having=np.array(abstained), among=everyone)
    return shares.measure()


def _name(condition: Condition) -> str:
    return f"{condition[0]} {condition[1]}"
