"""Frozen results that travel between the rooms: what came out for one image, or why nothing did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypedDict

from dermadeit.about import DISCLAIMER
from dermadeit.data.patient import Patient
from dermadeit.imaging.quality import QualityReport
from dermadeit.trust.gating import answer_status
from dermadeit.trust.neighbours import Neighbour
from dermadeit.trust.stability import Stability

ANSWER = "answer"
ABSTAIN = "abstain"


class AbstentionRecord(TypedDict):
    """Why an answer is withheld.

    Attributes:
        codes: Stable machine-readable names.
        reasons: The same as sentences.
    """

    codes: list[str]
    reasons: list[str]


class DecisionRecord(TypedDict):
    """The decision at an operating point: the fields of `Decision`."""

    name: str
    threshold: float
    decision: str


class ThresholdRecord(TypedDict):
    """An operating point: its name, and the probability of the target class from which on it is answered."""

    name: str
    threshold: float


class ReadingRecord(TypedDict):
    """What a network says for one of the tasks that it answers.

    Attributes:
        probabilities: Class key to probability, 0 to 1, summing to 1, in the task's class order.
        label: Key of the class that is answered: the most probable one, but where the calibration weighs classes.
        decision: Key of the class that is answered at the operating point; None without calibration.
        operating_point: The one that was asked for; None without calibration.
        conformal_set: Keys of the classes that can't be ruled out; None without calibration.
        prevalence: Share of lesions of the task's target that the probabilities hold at; None without calibration.
    """

    probabilities: dict[str, float]
    label: str
    decision: str | None
    operating_point: ThresholdRecord | None
    conformal_set: list[str] | None
    prevalence: float | None


class StabilityRecord(TypedDict):
    """How far the views agree: the fields of `stability.Stability`."""

    agreeing_share: float
    spread: float
    flips: int


class QualityRecord(TypedDict):
    """What was measured on the photo.

    Attributes:
        measures: As `quality.QualityReport.measures`.
        problems: What is wrong with the photo, as sentences.
    """

    measures: dict[str, float]
    problems: list[str]


class NeighbourRecord(TypedDict):
    """One similar training image: the fields of `neighbours.Neighbour`."""

    image_id: str
    diagnosis: str
    distance: float


class PatientContextRecord(TypedDict):
    """The answer with age and sex, beside that of the photo alone.

    Attributes:
        age: In years, as it was given; None where unknown.
        sex: `female` or `male`; None where unknown.
        note: Why there is no such answer, or what else a reader should know about it, as a sentence; None for
            nothing.
        label: Key of the class that is answered with age and sex; None where there is no such answer, and so are
            the next ones.
        probabilities: Class key to probability, 0 to 1, summing to 1, in the task's class order.
        class_probabilities: The same for the network's own classes, which all readings are sums of.
        readings: Key of each task that the network answers to what it says.
    """

    age: float | None
    sex: str | None
    note: str | None
    label: str | None
    probabilities: dict[str, float] | None
    class_probabilities: dict[str, float] | None
    readings: dict[str, ReadingRecord] | None


class ErrorRecord(TypedDict):
    """Why an image got no reading.

    Attributes:
        code: Stable machine-readable reason, one of `errors.ErrorCode`.
        message: The reason and its remedy, for people.
    """

    code: str
    message: str


class PredictionRecord(TypedDict):
    """An image that was read, as it leaves the library: a line of the CLI's jsonl output, an answer of `/predict`.

    Attributes:
        file: Display name of the image. Never a path that may be opened.
        sha256: Hex digest of the bytes that were decoded.
        task: Key of the task.
        model: Name of the model.
        status: `ok`.
        verdict: `ANSWER`, or `ABSTAIN` where the answer is to be withheld.
        answer_status: The same with the reasons or the warnings in words, as `gating.answer_status` says it.
        abstain: Why it is withheld; None for an answer that is not.
        warning_codes: Why an answer that is given is less reliable; empty for a withheld one, None where unknown.
        label: Key of the class that is answered: the most probable one, but where the calibration weighs classes.
        probabilities: Class key to probability, 0 to 1, summing to 1, in the task's class order.
        class_probabilities: The same for the network's own classes, which all readings are sums of; None where
            only the task's are known.
        readings: Key of each task that the network answers to what it says; None where only this task is known.
        patient_context: The answer with age and sex; None where neither was given.
        calibrated: Whether the probabilities are calibrated; else they are the softmax of the logits.
        prevalence: Share of lesions of the task's target that the probabilities hold at: that of the calibration
            images unless another was asked for; None without calibration.
        logits: Class key of the network to logit, averaged over the views and not calibrated.
        views: Number of dihedral views that were averaged.
        runtime: What ran the network, such as `torch` or `openvino-bf16`; None where that is unknown.
        operating_point: The decision at the operating point that was asked for; None without calibration.
        conformal_set: Keys of the classes that can't be ruled out; None without calibration.
        stability: How far the views agree; None with one view.
        quality: What was measured on the photo; None without calibration.
        ood_score: How strange the image is to the model, higher is stranger; None without calibration.
        neighbours: The most similar training images, the nearest first; empty when not asked for.
        neighbour_votes: Class key to how many of the most similar lesions have it; None when not asked for.
        neighbour_vote: The same as words, such as “14 of the 20 most similar cases are nevi, 6 are not nevi”.
        neighbour_disagreement: Whether they contradict the label; None when not asked for.
        saliency_check: Method, class and result of the heatmap's test; None when not asked for.
        ledger: What the decoder did to the pixels, in order.
        warnings: What a reader should know about this image or answer, as sentences.
        error: None.
        disclaimer: That this is no medical device.
    """

    file: str
    sha256: str
    task: str
    model: str
    status: Literal["ok"]
    verdict: str
    answer_status: str
    abstain: AbstentionRecord | None
    warning_codes: list[str] | None
    label: str
    probabilities: dict[str, float]
    class_probabilities: dict[str, float] | None
    readings: dict[str, ReadingRecord] | None
    patient_context: PatientContextRecord | None
    calibrated: bool
    prevalence: float | None
    logits: dict[str, float]
    views: int
    runtime: str | None
    operating_point: DecisionRecord | None
    conformal_set: list[str] | None
    stability: StabilityRecord | None
    quality: QualityRecord | None
    ood_score: float | None
    neighbours: list[NeighbourRecord]
    neighbour_votes: dict[str, int] | None
    neighbour_vote: str | None
    neighbour_disagreement: bool | None
    saliency_check: dict[str, Any] | None
    ledger: list[str]
    warnings: list[str]
    error: None
    disclaimer: str


class FailedRecord(TypedDict):
    """An image that got no reading: the keys of `PredictionRecord`, None where only a reading says something.

    Attributes:
        file: Display name of the image. Never a path that may be opened.
        sha256: Hex digest of the bytes, or None when they could not be read at all.
        task: Key of the task.
        model: Name of the model.
        status: `failed`.
        ledger: Empty.
        warnings: Empty.
        error: Why.
        disclaimer: That this is no medical device.
    """

    file: str
    sha256: str | None
    task: str
    model: str
    status: Literal["failed"]
    verdict: None
    answer_status: None
    abstain: None
    warning_codes: None
    label: None
    probabilities: None
    class_probabilities: None
    readings: None
    patient_context: None
    calibrated: None
    prevalence: None
    logits: None
    views: None
    runtime: None
    operating_point: None
    conformal_set: None
    stability: None
    quality: None
    ood_score: None
    neighbours: None
    neighbour_votes: None
    neighbour_vote: None
    neighbour_disagreement: None
    saliency_check: None
    ledger: list[str]
    warnings: list[str]
    error: ErrorRecord
    disclaimer: str


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
class TaskReading:
    """What a network says for one of the tasks that it answers.

    Attributes:
        probabilities: Class key to probability, 0 to 1, summing to 1, in the task's class order.
        label: Key of the class that is answered: the most probable one, but where the calibration weighs classes.
        operating_point: The decision at the operating point that was asked for; None without calibration.
        conformal_set: The classes that can't be ruled out at the stated coverage; None without calibration.
        prevalence: Share of lesions of the task's target that the probabilities hold at; None without calibration.
    """

    probabilities: Mapping[str, float]
    label: str
    operating_point: Decision | None = None
    conformal_set: tuple[str, ...] | None = None
    prevalence: float | None = None

    def to_dict(self) -> ReadingRecord:
        """The reading as JSON-ready values."""
        point = self.operating_point
        return {
            "probabilities": dict(self.probabilities),
            "label": self.label,
            "decision": point and point.decision,
            "operating_point": point and {"name": point.name, "threshold": point.threshold},
            "conformal_set": None if self.conformal_set is None else list(self.conformal_set),
            "prevalence": self.prevalence,
        }


@dataclass(frozen=True)
class ContextReading:
    """The answer with age and sex, beside that of the photo alone.

    Attributes:
        patient: Age and sex, as they were given.
        note: Why there is no such answer, or what else a reader should know about it, as a sentence; may be empty.
        task: Key of the task that was asked.
        class_probabilities: Key of each of the network's own classes to its probability, 0 to 1, summing to 1. All
            readings are sums of these. Empty where there is no such answer.
        readings: Key of each task that the network answers to what it says; empty likewise.
    """

    patient: Patient
    note: str
    task: str
    class_probabilities: Mapping[str, float] = field(default_factory=dict)
    readings: Mapping[str, TaskReading] = field(default_factory=dict)

    @property
    def asked(self) -> TaskReading | None:
        """The reading of the task that was asked; None where there is no answer with age and sex."""
        return self.readings.get(self.task)

    def to_dict(self) -> PatientContextRecord:
        """The answer as JSON-ready values."""
        return {
            "age": self.patient.age,
            "sex": self.patient.sex,
            "note": self.note or None,
            "label": self.asked and self.asked.label,
            "probabilities": self.asked and dict(self.asked.probabilities),
            "class_probabilities": dict(self.class_probabilities) or None,
            "readings": {key: reading.to_dict() for key, reading in self.readings.items()} or None,
        }


@dataclass(frozen=True)
class Prediction:
    """The reading of one image by one model.

    Attributes:
        file: Display name of the image. Never a path that may be opened.
        sha256: Hex digest of the bytes that were decoded.
        task: Key of the task.
        model: Name of the model.
        label: Key of the class that is answered: the most probable one, but where the calibration weighs classes.
        probabilities: Class key to probability, 0 to 1, summing to 1, in the task's class order.
        logits: Class key of the network to logit, averaged over the views and not calibrated.
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
        neighbour_vote: The same as words; None when not asked for.
        neighbour_disagreement: Whether they contradict the label; None when not asked for.
        view_probabilities: What each view would answer alone: a row for each of the `views`, of a share for each
            class in the task's order, 0 to 1, summing to 1. Empty where only the joint answer is known. Not in
            what `to_dict` gives.
        views_calibrated: Whether these are calibrated; else they are the softmax of each view's logits.
        saliency_check: Method and class of the heatmap, and whether it can be believed: JSON-ready values of
            `faithfulness.SaliencyCheck`; None when not asked for.
        class_probabilities: Key of each of the network's own classes to its probability, 0 to 1, summing to 1. All
            readings are sums of these. Empty where only the probabilities of the task are known.
        readings: Key of each task that the network answers to what it says, `task` among them; empty likewise.
        patient_context: The answer with age and sex; None where neither was given. All other fields are of the
            photo alone.
        runtime: What ran the network, such as `torch` or `openvino-bf16`; empty where that is unknown.
        prevalence: Share of lesions of the task's target that the probabilities hold at: that of the calibration
            images unless another was asked for; None without calibration.
        voters: The lesions that `neighbour_votes` counts, the nearest first. Not in what `to_dict` gives.
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
    neighbour_vote: str | None = None
    neighbour_disagreement: bool | None = None
    view_probabilities: tuple[tuple[float, ...], ...] = ()
    views_calibrated: bool = False
    saliency_check: Mapping[str, Any] | None = None
    class_probabilities: Mapping[str, float] = field(default_factory=dict)
    readings: Mapping[str, TaskReading] = field(default_factory=dict)
    patient_context: ContextReading | None = None
    runtime: str = ""
    prevalence: float | None = None
    voters: tuple[Neighbour, ...] = ()

    def to_dict(self) -> PredictionRecord:
        """The record as JSON-ready values."""
        return {
            "file": self.file,
            "sha256": self.sha256,
            "task": self.task,
            "model": self.model,
            "status": "ok",
            "verdict": self.verdict,
            "answer_status": answer_status(self),
            "abstain": (
                {"codes": list(self.abstain_codes), "reasons": list(self.abstain_reasons)}
                if self.verdict == ABSTAIN
                else None
            ),
            "warning_codes": None if self.warning_codes is None else list(self.warning_codes),
            "label": self.label,
            "probabilities": dict(self.probabilities),
            "class_probabilities": dict(self.class_probabilities) or None,
            "readings": {key: reading.to_dict() for key, reading in self.readings.items()} or None,
            "patient_context": self.patient_context and self.patient_context.to_dict(),
            "calibrated": self.calibrated,
            "prevalence": self.prevalence,
            "logits": dict(self.logits),
            "views": self.views,
            "runtime": self.runtime or None,
            "operating_point": self.operating_point and DecisionRecord(**asdict(self.operating_point)),
            "conformal_set": None if self.conformal_set is None else list(self.conformal_set),
            "stability": self.stability and StabilityRecord(**asdict(self.stability)),
            "quality": self.quality
            and {"measures": dict(self.quality.measures), "problems": list(self.quality.problems)},
            "ood_score": self.ood_score,
            "neighbours": [NeighbourRecord(**asdict(neighbour)) for neighbour in self.neighbours],
            "neighbour_votes": None if self.neighbour_votes is None else dict(self.neighbour_votes),
            "neighbour_vote": self.neighbour_vote,
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

    def to_dict(self) -> FailedRecord:
        """The record as JSON-ready values, with the same keys as `Prediction.to_dict`."""
        return {
            "file": self.file,
            "sha256": self.sha256,
            "task": self.task,
            "model": self.model,
            "status": "failed",
            "verdict": None,
            "answer_status": None,
            "abstain": None,
            "warning_codes": None,
            "label": None,
            "probabilities": None,
            "class_probabilities": None,
            "readings": None,
            "patient_context": None,
            "calibrated": None,
            "prevalence": None,
            "logits": None,
            "views": None,
            "runtime": None,
            "operating_point": None,
            "conformal_set": None,
            "stability": None,
            "quality": None,
            "ood_score": None,
            "neighbours": None,
            "neighbour_votes": None,
            "neighbour_vote": None,
            "neighbour_disagreement": None,
            "saliency_check": None,
            "ledger": [],
            "warnings": [],
            "error": {"code": self.code, "message": self.message},
            "disclaimer": DISCLAIMER,
        }


@dataclass(frozen=True)
class LabelledPrediction:
    """A prediction and the truth.

    Attributes:
        image_id: Identifier in the manifest.
        file: The image's path as the manifest gives it, for display.
        label: Key of the true class.
        lesion_group: Images that share it show the same lesion.
        source: Name of the collection, or an empty string.
        split: Name of the split, or an empty string.
        prediction: The answer of the model.
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
