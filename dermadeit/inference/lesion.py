"""Several photos of one lesion to one answer: the mean of their logits, and how far they agree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dermadeit.about import DISCLAIMER
from dermadeit.data.patient import Patient
from dermadeit.errors import ConfigurationError
from dermadeit.inference.predictor import DEFAULT_VIEWS, Predictor, Source, answer_logits
from dermadeit.inference.records import (
    ABSTAIN,
    ANSWER,
    ContextReading,
    Decision,
    ItemFailure,
    Prediction,
    TaskReading,
)
from dermadeit.trust.calibration import DEFAULT_OPERATING_POINT


@dataclass(frozen=True)
class LesionPrediction:
    """The reading of one lesion from several photos by one model.

    Attributes:
        task: Key of the task.
        model: Name of the model.
        photos: Each photo's own record, in the order given.
        used: How many of them count: those that could be read and whose answer is not withheld.
        agreeing: How many of these give the joint answer alone.
        spread: Largest minus smallest probability of the joint answer over these, 0 to 1; None where none counts.
        verdict: `records.ANSWER`, or `records.ABSTAIN` where no photo counts.
        label: Key of the class that is answered; None where no photo counts, and so are the next ones.
        probabilities: Class key to probability, of the mean of the photos' logits.
        class_probabilities: The same for the network's own classes.
        readings: Key of each task that the network answers to what it says.
        calibrated: Whether these are calibrated probabilities. They were fitted for single photos; how well they
            hold for the mean of several was not measured.
        views: Number of dihedral views of each photo that were averaged.
        operating_point: The decision at the operating point that was asked for.
        conformal_set: The classes that can't be ruled out.
        patient_context: The answer with age and sex; None where neither was given or no photo counts.
        prevalence: As of a `records.Prediction`.
    """

    task: str
    model: str
    photos: tuple[Prediction | ItemFailure, ...]
    used: int
    agreeing: int
    spread: float | None
    views: int
    verdict: str = ABSTAIN
    label: str | None = None
    probabilities: Mapping[str, float] | None = None
    class_probabilities: Mapping[str, float] | None = None
    readings: Mapping[str, TaskReading] | None = None
    calibrated: bool = False
    operating_point: Decision | None = None
    conformal_set: tuple[str, ...] | None = None
    patient_context: ContextReading | None = None
    prevalence: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-ready values, with each photo's own under `photos`."""
        return {
            "task": self.task,
            "model": self.model,
            "verdict": self.verdict,
            "label": self.label,
            "probabilities": self.probabilities and dict(self.probabilities),
            "class_probabilities": self.class_probabilities and dict(self.class_probabilities),
            "readings": self.readings and {key: reading.to_dict() for key, reading in self.readings.items()},
            "patient_context": self.patient_context and self.patient_context.to_dict(),
            "calibrated": self.calibrated,
            "prevalence": self.prevalence,
            "views": self.views,
            "operating_point": self.operating_point and asdict(self.operating_point),
            "conformal_set": None if self.conformal_set is None else list(self.conformal_set),
            "photos_used": self.used,
            "photos_agreeing": self.agreeing,
            "spread": self.spread,
            "photos": [photo.to_dict() for photo in self.photos],
            "disclaimer": DISCLAIMER,
        }


def predict_lesion(
    predictor: Predictor,
    sources: Iterable[Source],
    views: int = DEFAULT_VIEWS,
    *,
    operating_point: str | None = None,
    patient: Patient | None = None,
) -> LesionPrediction:
    """Reads several photos of one lesion.

    Args:
        predictor: The model.
        sources: The photos, as `Predictor.predict` takes them.
        views: Dihedral views of each photo whose logits are averaged, 1 to 8.
        operating_point: One of `calibration.OPERATING_POINTS`, the balanced one by default.
        patient: Age and sex; None where neither is known.

    Raises:
        ConfigurationError: There are no photos; or as `Predictor.predict` raises it.
    """
    photos = predictor.predict(sources, views, operating_point=operating_point, patients=patient)
    return join_photos(predictor, photos, views, operating_point or DEFAULT_OPERATING_POINT, patient)


def join_photos(
    predictor: Predictor,
    photos: Sequence[Prediction | ItemFailure],
    views: int = DEFAULT_VIEWS,
    operating_point: str = DEFAULT_OPERATING_POINT,
    patient: Patient | None = None,
) -> LesionPrediction:
    """One answer from the records of several photos of one lesion, without another pass through the network.

    Args:
        predictor: The model that gave the records.
        photos: One or more records.
        views: With which the photos were read.
        operating_point: One of `calibration.OPERATING_POINTS`.
        patient: Age and sex; None where neither is known.

    Raises:
        ConfigurationError: There are no photos.
    """
    if not photos:
        raise ConfigurationError("A lesion needs at least one photo.")
    checkpoint = predictor.checkpoint
    used = [photo for photo in photos if isinstance(photo, Prediction) and photo.verdict == ANSWER]
    if not used:
        return LesionPrediction(checkpoint.task.key, checkpoint.model, tuple(photos), 0, 0, None, views)
    logits = np.mean([list(photo.logits.values()) for photo in used], axis=0)
    answer = answer_logits(checkpoint, logits, views, operating_point, patient)
    shares = [photo.probabilities[answer["label"]] for photo in used]
    return LesionPrediction(
        checkpoint.task.key,
        checkpoint.model,
        tuple(photos),
        len(used),
        sum(photo.label == answer["label"] for photo in used),
        max(shares) - min(shares),
        views,
        verdict=ANSWER,
        **answer,
    )
