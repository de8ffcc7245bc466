"""Frozen results that travel between the layers: what came out for one image, or why nothing did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dermadeit.about import DISCLAIMER


@dataclass(frozen=True)
class Prediction:
    """The reading of one image by one model.

    Attributes:
        file: Display name of the image. Never a path that may be opened.
        sha256: Hex digest of the bytes that were decoded.
        task: Key of the task.
        model: Name of the model.
        label: Key of the most probable class.
        probabilities: Class key to softmax probability, 0 to 1, summing to 1, in the task's class order.
        logits: Class key to logit, averaged over the views.
        views: Number of dihedral views that were averaged.
        ledger: What the decoder did to the pixels, in order.
        warnings: What a reader should know about this image, as sentences.
    """

    file: str
    sha256: str
    task: str
    model: str
    label: str
    probabilities: Mapping[str, float]
    logits: Mapping[str, float]
    views: int
    ledger: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-ready values: one line of the CLI's jsonl output."""
        return {
            "file": self.file,
            "sha256": self.sha256,
            "task": self.task,
            "model": self.model,
            "status": "ok",
            "label": self.label,
            "probabilities": dict(self.probabilities),
            "logits": dict(self.logits),
            "views": self.views,
            "ledger": list(self.ledger),
            "warnings": list(self.warnings),
            "error": None,
            "disclaimer": DISCLAIMER,
        }


@dataclass(frozen=True)
class ItemFailure:
    """One image that got no reading, and why. The others of its batch are not affected.

    Attributes:
        file: Display name of the image. Never a path that may be opened.
        sha256: Hex digest of the bytes, or None when they could not be read at all.
        task: Key of the task.
        model: Name of the model.
        code: Stable machine-readable reason.
        message: The reason and its remedy, for people.
    """

    file: str
    sha256: str | None
    task: str
    model: str
    code: str
    message: str

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-ready values, with the same keys as `Prediction.to_dict`."""
        return {
            "file": self.file,
            "sha256": self.sha256,
            "task": self.task,
            "model": self.model,
            "status": "failed",
            "label": None,
            "probabilities": None,
            "logits": None,
            "views": None,
            "ledger": [],
            "warnings": [],
            "error": {"code": self.code, "message": self.message},
            "disclaimer": DISCLAIMER,
        }


@dataclass(frozen=True)
class LabelledPrediction:
    """A prediction beside the truth.

    Attributes:
        image_id: Identifier in the manifest.
        file: The image's path as the manifest gives it, for display.
        label: Key of the true class.
        lesion_group: Images that share it show the same lesion.
        source: Name of the collection, or an empty string.
        split: Name of the split, or an empty string.
        prediction: What the model said.
    """

    image_id: str
    file: str
    label: str
    lesion_group: str
    source: str
    split: str
    prediction: Prediction


@dataclass(frozen=True)
class LabelledFailure:
    """An image of an evaluation that got no reading.

    Attributes:
        image_id: Identifier in the manifest.
        file: The image's path as the manifest gives it, for display.
        label: Key of the true class.
        failure: Why.
    """

    image_id: str
    file: str
    label: str
    failure: ItemFailure


@dataclass(frozen=True)
class Evaluation:
    """What one model made of a set of labelled images.

    Attributes:
        task: Key of the task.
        model: Name of the model.
        predictions: The images that were read, in the order of the manifest.
        failures: The images that were not.
        metrics: The figures, JSON-ready, as `metrics.json` holds them under the model's name.
    """

    task: str
    model: str
    predictions: tuple[LabelledPrediction, ...]
    failures: tuple[LabelledFailure, ...]
    metrics: Mapping[str, Any]
