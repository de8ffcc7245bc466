"""Several models side by side: what each says of one photo, how sure it is, why, and how long it takes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from statistics import median
from typing import Any

import numpy as np

from dermadeit.errors import ErrorCode, PredictionError
from dermadeit.imaging.decode import LesionImage
from dermadeit.inference.decision import decide_at_point
from dermadeit.inference.faithfulness import SaliencyCheck, check_saliency
from dermadeit.inference.predictor import DEFAULT_VIEWS, Predictor, check_views
from dermadeit.inference.records import ABSTAIN, Decision, ItemFailure, Prediction
from dermadeit.inference.saliency import SaliencyMap, explain_every_class
from dermadeit.models.specs import MODEL_SPECS
from dermadeit.tasks import Task
from dermadeit.trust.calibration import OPERATING_POINTS

TIMED_PASSES = 5
"""Passes behind a latency, after one that warms up."""

SCALE_NOTE = (
    "Each map has its own scale: 0 is the area with the lowest effect on the score of the class, 1 the "
    "highest. Compare areas within one map, not the colours of two maps."
)
"""What the shared colours of several heatmaps do and don't say."""


@dataclass(frozen=True)
class Latency:
    """How long the network of one model takes, measured on the machine that says so.

    Decoding, resizing, gates and heatmaps are not counted, and whatever else the machine does slows it down.

    Attributes:
        milliseconds: Number of views to the median time of one photo.
        passes: Timed passes behind each median.
        device: Where the model runs.
    """

    milliseconds: Mapping[int, float]
    passes: int
    device: str

    def to_dict(self) -> dict[str, Any]:
        """The measurement as JSON-ready values."""
        return {
            "milliseconds": {str(views): value for views, value in self.milliseconds.items()},
            "timed_passes": self.passes,
            "device": self.device,
            "of": "the network alone, one photo, measured on the machine that answered",
        }


@dataclass(frozen=True, eq=False)
class ModelReading:
    """What one model says of one photo, and what it takes to say it.

    Attributes:
        title: Name of the model shown to people.
        prediction: Its answer at the balanced operating point where it is calibrated.
        decisions: Each of `calibration.OPERATING_POINTS` to what is answered there; empty without calibration.
        maps: Class key to heatmap.
        checks: Class key to whether that heatmap can be believed.
        latency: Measured right after the reading.
        parameters: Number of parameters.
        weights_bytes: Size of the weights file.
        weights_sha256: Hex digest of the weights file.
        model_side: Side of the square that the photo is squashed to, in pixels.
    """

    title: str
    prediction: Prediction
    decisions: Mapping[str, Decision]
    maps: Mapping[str, SaliencyMap]
    checks: Mapping[str, SaliencyCheck]
    latency: Latency
    parameters: int
    weights_bytes: int
    weights_sha256: str
    model_side: int

    def to_dict(self) -> dict[str, Any]:
        """The record of the prediction, and beside it what only a comparison has; JSON-ready."""
        label = self.prediction.label
        tested = {"method": self.maps[label].method, "class": label, **asdict(self.checks[label])}
        return {
            **replace(self.prediction, saliency_check=tested).to_dict(),
            "title": self.title,
            "decisions": {name: asdict(decision) for name, decision in self.decisions.items()},
            "latency": self.latency.to_dict(),
            "parameters": self.parameters,
            "weights_bytes": self.weights_bytes,
            "weights_sha256": self.weights_sha256,
            "model_side": self.model_side,
        }


@dataclass(frozen=True)
class PairAgreement:
    """Two models on one photo.

    Attributes:
        first: Title of one model.
        second: Title of the other.
        same_label: Whether their most probable class is the same.
        difference: Score of the target class by the first minus that by the second, -1 to 1.
        comparable: Whether both scores are calibrated or neither is.
    """

    first: str
    second: str
    same_label: bool
    difference: float
    comparable: bool


@dataclass(frozen=True)
class Agreement:
    """How far several models say the same of one photo.

    Attributes:
        task: What was asked.
        votes: Class key to the titles of the models that answer it, the most votes first.
        withheld: Titles of the models whose answer is withheld: it neither votes nor is compared, which would give
            it away.
        pairs: Every two models that answer.
    """

    task: Task
    votes: Mapping[str, tuple[str, ...]]
    withheld: tuple[str, ...]
    pairs: tuple[PairAgreement, ...]

    @property
    def widest(self) -> PairAgreement | None:
        """The two models whose scores of the target class lie furthest apart; None with fewer than two."""
        return max(self.pairs, key=lambda pair: abs(pair.difference), default=None)

    @property
    def sentence(self) -> str:
        """Which models give which answer, such as “3 of 4 models: nevus; MobileNetV2: not a nevus.”."""
        total = sum(map(len, self.votes.values()))
        if not total:
            return "All answers are withheld." if self.withheld else "No model has read this photo."
        names = {key: self.task.name_in_text(key) for key in self.votes}
        (first, voters), *others = self.votes.items()
        if total == 1:
            text = f"{voters[0]}: {names[first]}"
        elif not others:
            text = f"{'Both' if total == 2 else f'All {total}'} models: {names[first]}"
        else:
            parts = [f"{len(voters)} of {total} models: {names[first]}"]
            parts += [f"{_listed(titles)}: {names[key]}" for key, titles in others]
            text = "; ".join(parts)
        return f"{text}."

    @property
    def withheld_sentence(self) -> str:
        """Whose answer is withheld, or an empty string."""
        if not self.withheld:
            return ""
        noun = "Answer" if len(self.withheld) == 1 else "Answers"
        return f"{noun} withheld and not counted: {_listed(self.withheld)}."


def measure_latency(
    predictor: Predictor,
    views: Sequence[int] = (1, DEFAULT_VIEWS),
    *,
    passes: int = TIMED_PASSES,
    clock: Callable[[], float] = time.perf_counter,
) -> Latency:
    """Times the network of a model, here and now, on noise of its input's size.

    The model's lock is taken for each pass and waiting for it is not counted, so others wait no longer than for
    one photo.

    Args:
        predictor: The model.
        views: Numbers of views to time, each 1 to 8.
        passes: How often to time each.
        clock: Gives seconds.

    Raises:
        ConfigurationError: A number of views is out of range.
    """
    for count in views:
        check_views(count)
    side = predictor.checkpoint.preprocessing.size
    noise = np.random.default_rng(0).integers(256, size=(1, 3, side, side), dtype=np.uint8)
    _timed_pass(predictor, noise, 1, clock)
    milliseconds = {
        count: median(_timed_pass(predictor, noise, count, clock) for _ in range(passes)) * 1000
        for count in views
    }
    return Latency(milliseconds, passes, str(predictor.device))


def read_with(predictor: Predictor, image: LesionImage) -> ModelReading:
    """Everything that a comparison shows of one model and one photo.

    Raises:
        PredictionError: The model gives no usable numbers for this image.
    """
    checkpoint = predictor.checkpoint
    [record] = predictor.predict([image])
    if isinstance(record, ItemFailure):
        raise PredictionError(record.message, code=ErrorCode(record.code))
    maps = explain_every_class(predictor, image)
    return ModelReading(
        MODEL_SPECS[checkpoint.model].title,
        record,
        _decisions(predictor, record),
        maps,
        {key: check_saliency(predictor, image, found) for key, found in maps.items()},
        measure_latency(predictor),
        checkpoint.parameters,
        checkpoint.weights_bytes,
        checkpoint.weights_sha256,
        checkpoint.preprocessing.size,
    )


def agreement(task: Task, readings: Sequence[ModelReading]) -> Agreement:
    """How far the readings of one photo agree."""
    target = task.target
    voters: dict[str, list[str]] = defaultdict(list)
    given = [reading for reading in readings if reading.prediction.verdict != ABSTAIN]
    for reading in given:
        voters[reading.prediction.label].append(reading.title)
    most_first = sorted(voters, key=lambda key: (-len(voters[key]), task.index_of(key)))
    return Agreement(
        task,
        {key: tuple(voters[key]) for key in most_first},
        tuple(reading.title for reading in readings if reading.prediction.verdict == ABSTAIN),
        tuple(_pair(first, second, target) for first, second in combinations(given, 2)),
    )


def _timed_pass(predictor: Predictor, image: np.ndarray, views: int, clock: Callable[[], float]) -> float:
    """Seconds that one photo takes, uint8 [1, 3, S, S], as the predictor does it."""
    with predictor.lock:
        begun = clock()
        predictor.runtime.run(image, [views])
        return clock() - begun


def _decisions(predictor: Predictor, record: Prediction) -> dict[str, Decision]:
    calibration = predictor.checkpoint.calibration
    if calibration is None or not record.calibrated:
        return {}
    return {
        name: decide_at_point(record.probabilities, calibration, name, record.views)
        for name in OPERATING_POINTS
    }


def _pair(first: ModelReading, second: ModelReading, target: str) -> PairAgreement:
    ours, theirs = first.prediction, second.prediction
    return PairAgreement(
        first.title,
        second.title,
        ours.label == theirs.label,
        ours.probabilities[target] - theirs.probabilities[target],
        ours.calibrated == theirs.calibrated,
    )


def _listed(titles: Sequence[str]) -> str:
    *first, last = titles
    return f"{', '.join(first)} and {last}" if first else last
