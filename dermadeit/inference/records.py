"""Frozen results that travel between the layers: what came out for one image, or why nothing did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dermadeit.about import DISCLAIMER
from dermadeit.imaging.quality import QualityReport
from dermadeit.trust.neighbours import Neighbour
from dermadeit.trust.stability import Stability

ANSWER = "answer"
ABSTAIN = "abstain"

_READ_KEYS = (
    "verdict", "abstain", "warning_codes", "label", "probabilities", "calibrated", "logits", "views",
    "operating_point", "conformal_set", "stability", "quality", "ood_score", "neighbours", "neighbour_votes",
    "neighbour_disagreement", "saliency_check",
)  # fmt: skip
"""What only an image that was read has."""


@dataclass(frozen=True)
class Decision:
    """What is answered at an operating point.

    Attributes:
        name: Name of the operating point.
        threshold: Probability of the target class from which on it is answered.
        decision: Class key. It may differ from the most probable class.
    """

    name: str
    threshold: float
    decision: str


@dataclass(frozen=True)
class Prediction:
    """The reading of one image by one model.

    Attributes:
        file: Display name of the image. Never a path that may be opened.
        sha256: Hex digest of the bytes that were decoded.
        task: Key of the task.
        model: Name of the model.
        label: Key of the most probable class.
        probabilities: Class key to probability, 0 to 1, summing to 1, in the task's class order.
        logits: Class key to logit, averaged over the views and not calibrated.
        views: Number of dihedral views that were averaged.
        ledger: What the decoder did to the pixels, in order.
        warnings: What a reader should know about this image or answer, as sentences; those of `warning_codes` are
            among them.
        calibrated: Whether the probabilities are calibrated; else they are the softmax of the logits, and what
            rests on them and on the gates is None.
        verdict: `ANSWER`, or `ABSTAIN` where the answer is to be withheld.
        abstain_reasons: Why it is withheld, as sentences.
        abstain_codes: The same as stable machine-readable names.
        warning_codes: Why an answer that is given is less reliable, as stable machine-readable names; empty for a
            withheld one, None where that is unknown.
        operating_point: The decision at the operating point that was asked for.
        conformal_set: The classes that can't be ruled out at the stated coverage: one, several or none.
        stability: How far the views agree; None with one view.
        quality: What was measured on the photo.
        ood_score: How strange the image is to the model; higher is stranger.
        neighbours: The most similar training lesions, the nearest first; empty when not asked for.
        neighbour_votes: How many of the `neighbours.VOTERS` most similar lesions (of more where more were asked
            for) have each class, as `neighbours.count_votes` gives it; None when not asked for.
        neighbour_disagreement: Whether they speak against the label; None when not asked for.
        view_probabilities: What each view would answer alone: a row for each of the `views`, of a share for each
            class in the task's order, 0 to 1, summing to 1. Empty where only the joint answer is known. Not in
            what `to_dict` gives.
        views_calibrated: Whether these are calibrated; else they are the softmax of each view's logits.
        saliency_check: Method and class of the heatmap, and whether it can be believed: JSON-ready values of
            `faithfulness.SaliencyCheck`; None when not asked for.
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
    calibrated: bool = False
    verdict: str = ANSWER
    abstain_reasons: tuple[str, ...] = ()
    abstain_codes: tuple[str, ...] = ()
    warning_codes: tuple[str, ...] | None = None
    operating_point: Decision | None = None
    conformal_set: tuple[str, ...] | None = None
    stability: Stability | None = None
    quality: QualityReport | None = None
    ood_score: float | None = None
    neighbours: tuple[Neighbour, ...] = ()
    neighbour_votes: Mapping[str, int] | None = None
    neighbour_disagreement: bool | None = None
    view_probabilities: tuple[tuple[float, ...], ...] = ()
    views_calibrated: bool = False
    saliency_check: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-ready values: one line of the CLI's jsonl output."""
        return {
            "file": self.file,
            "sha256": self.sha256,
            "task": self.task,
            "model": self.model,
            "status": "ok",
            "verdict": self.verdict,
            "abstain": (
                {"codes": list(self.abstain_codes), "reasons": list(self.abstain_reasons)}
                if self.verdict == ABSTAIN
                else None
            ),
            "warning_codes": None if self.warning_codes is None else list(self.warning_codes),
            "label": self.label,
            "probabilities": dict(self.probabilities),
            "calibrated": self.calibrated,
            "logits": dict(self.logits),
            "views": self.views,
            "operating_point": self.operating_point and asdict(self.operating_point),
            "conformal_set": None if self.conformal_set is None else list(self.conformal_set),
            "stability": self.stability and asdict(self.stability),
            "quality": self.quality
            and {"measures": dict(self.quality.measures), "problems": list(self.quality.problems)},
            "ood_score": self.ood_score,
            "neighbours": [asdict(neighbour) for neighbour in self.neighbours],
            "neighbour_votes": self.neighbour_votes,
            "neighbour_disagreement": self.neighbour_disagreement,
            "saliency_check": None if self.saliency_check is None else dict(self.saliency_check),
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
            **dict.fromkeys(_READ_KEYS),
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
        diagnosis: As the table or a folder gives it, which is finer than the label; empty where it is unknown.
    """

    image_id: str
    file: str
    label: str
    lesion_group: str
    source: str
    split: str
    prediction: Prediction
    diagnosis: str = ""


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
