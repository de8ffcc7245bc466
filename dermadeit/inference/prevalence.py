"""Answers moved to another prevalence by Bayes' rule, without another pass through the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from dermadeit.errors import ConfigurationError
from dermadeit.inference.decision import (
    DecisionSettings,
    ThresholdDecision,
    decide,
    decide_with_settings,
    find_prevalence,
)
from dermadeit.inference.lesion import LesionPrediction
from dermadeit.inference.records import ContextReading, Decision, Prediction, TaskReading
from dermadeit.tasks import Task
from dermadeit.trust.calibration import Calibration, fitted_for_views
from dermadeit.trust.files import CALIBRATE_COMMAND
from dermadeit.trust.neighbours import describe_disagreement, describe_vote, disagrees
from dermadeit.trust.prevalence import check_prevalence, reweigh
from dermadeit.trust.stability import stability


def apply_settings(
    answer: Prediction,
    task: Task,
    calibrations: Mapping[str, Calibration | None],
    settings: DecisionSettings,
) -> tuple[Prediction, ThresholdDecision | None]:
    """The answer at a prevalence, with what is decided for it there as its operating point.

    Args:
        answer: As the predictor gave it.
        task: That it answers.
        calibrations: Task key to what was fitted for the checkpoint.
        settings: What the visitor has set.

    Returns:
        The answer as it is, and None, where it is not calibrated.
    """
    decision = decide_with_settings(answer, calibrations.get(answer.task), settings)
    if decision is None:
        return answer, None
    point = Decision(decision.operating_point, decision.threshold, decision.decision)
    moved = answer_at(answer, task, calibrations, settings.prevalence)
    return replace(moved, operating_point=point), decision


def answer_at(
    answer: Prediction, task: Task, calibrations: Mapping[str, Calibration | None], wanted: float | None
) -> Prediction:
    """As `move_prediction`, at the prevalence that `decision.find_prevalence` finds.

    An answer that is not calibrated stays as it is.
    """
    calibration = calibrations.get(answer.task)
    if calibration is None or not answer.calibrated:
        return answer
    return move_prediction(answer, task, calibrations, find_prevalence(calibration, wanted))


def move_prediction(
    answer: Prediction, task: Task, calibrations: Mapping[str, Calibration | None], prevalence: float
) -> Prediction:
    """The same answer where the task's target is as common as given.

    All readings are sums of the moved probabilities of the network's classes. The decision at an operating point
    stays, as its threshold moves too; so does the prediction set, which does not depend on the prevalence.

    Args:
        answer: As the predictor gave it.
        task: That it answers.
        calibrations: Task key to what was fitted for the checkpoint; readings of other tasks are left out.
        prevalence: Share of lesions of the target among those of the task, 0 to 1.

    Raises:
        ConfigurationError: The answer is not calibrated, or the prevalence is no share.
    """
    known = calibrations.get(answer.task) if answer.calibrated else None
    calibration = require_calibration(known, answer.views)
    check_prevalence(prevalence)
    if prevalence == calibration.prevalence:
        return answer
    fields = _moved(answer.task, answer.label, answer.probabilities, answer, calibrations, prevalence)
    label = fields["label"]
    views = np.array(answer.view_probabilities)
    if len(views) and answer.views_calibrated:
        views = calibration.probabilities_at(views, calibration.prevalence, prevalence)
        fields["view_probabilities"] = tuple(map(tuple, views.tolist()))
    if answer.stability is not None and len(views):
        fields["stability"] = stability(
            np.log(np.maximum(views, np.finfo(float).tiny)),
            answer=calibration.classes.index(label),
            class_weights=calibration.weights_at(prevalence),
        )
    if answer.voters:
        before, after = (describe_disagreement(answer.voters, key, task) for key in (answer.label, label))
        others = tuple(warning for warning in answer.warnings if warning != before)
        fields["warnings"] = (*others, *filter(None, (after,)))
        if answer.neighbour_votes is not None:
            fields["neighbour_vote"] = describe_vote(answer.neighbour_votes, label, task)
        fields["neighbour_disagreement"] = disagrees(answer.voters, label, task)
    return replace(answer, **fields)


def apply_settings_to_lesion(
    lesion: LesionPrediction,
    task: Task,
    calibrations: Mapping[str, Calibration | None],
    settings: DecisionSettings,
) -> tuple[LesionPrediction, ThresholdDecision | None]:
    """As `apply_settings`, of several photos of one lesion: the joint answer and that of each photo."""
    calibration = calibrations.get(lesion.task)
    photos = tuple(
        apply_settings(photo, task, calibrations, settings)[0] if isinstance(photo, Prediction) else photo
        for photo in lesion.photos
    )
    lesion = replace(lesion, photos=photos)
    if calibration is None or not lesion.calibrated or lesion.label is None or lesion.probabilities is None:
        return lesion, None
    decision = decide_with_settings(lesion, calibration, settings)
    assert decision is not None, "the answer is calibrated"
    point = Decision(decision.operating_point, decision.threshold, decision.decision)
    prevalence = find_prevalence(calibration, settings.prevalence)
    if prevalence == calibration.prevalence:
        return replace(lesion, operating_point=point), decision
    fields = _moved(lesion.task, lesion.label, lesion.probabilities, lesion, calibrations, prevalence)
    used = [photo for photo in photos if isinstance(photo, Prediction) and photo.verdict == lesion.verdict]
    shares = [photo.probabilities[fields["label"]] for photo in used]
    fields |= {
        "operating_point": point,
        "agreeing": sum(photo.label == fields["label"] for photo in used),
        "spread": max(shares) - min(shares),
    }
    return replace(lesion, **fields), decision


def require_calibration(calibration: Calibration | None, views: int) -> Calibration:
    """What decisions and prevalence rest on, for a number of views.

    Raises:
        ConfigurationError: There is none.
    """
    fitted = fitted_for_views(calibration, views)
    if fitted is None:
        raise ConfigurationError(
            "The checkpoint is not calibrated for so many views, so no decision at a threshold or prevalence is "
            f"possible. Run “{CALIBRATE_COMMAND}” for it."
        )
    return fitted


def _moved(
    key: str,
    label: str,
    probabilities: Mapping[str, float],
    answer: Prediction | LesionPrediction,
    calibrations: Mapping[str, Calibration | None],
    prevalence: float,
) -> dict[str, Any]:
    """The fields of an answer for a task that rest on its probabilities, by their names."""
    calibration = calibrations[key]
    assert calibration is not None, "what is not calibrated was refused"
    asked = TaskReading(probabilities, label, answer.operating_point, answer.conformal_set)
    readings, classes = answer.readings or {}, answer.class_probabilities or {}
    if not classes:
        values = calibration.probabilities_at(_values(probabilities), calibration.prevalence, prevalence)
        moved = {key: _read(asked, calibration, values, prevalence)}
    else:
        factors = calibration.class_factors(prevalence)
        classes, moved = _reweighed(classes, readings, calibrations, factors)
        # Summed once more, it would be another number in the last digit.
        moved[key] = replace(moved[key], prevalence=prevalence)
    point = moved[key].operating_point
    if answer.operating_point is not None and point is not None:
        # The same threshold decides alike: rounding must not flip it.
        point = replace(point, decision=answer.operating_point.decision)
        moved[key] = replace(moved[key], operating_point=point)
    return {
        "label": moved[key].label,
        "probabilities": moved[key].probabilities,
        "operating_point": moved[key].operating_point,
        "prevalence": prevalence,
        "patient_context": _move_context(answer.patient_context, calibrations, calibration, prevalence),
        **({"class_probabilities": classes, "readings": moved} if classes else {}),
    }


def _move_context(
    context: ContextReading | None,
    calibrations: Mapping[str, Calibration | None],
    calibration: Calibration,
    prevalence: float,
) -> ContextReading | None:
    """The answer with age and sex at the same prevalence; as it is where there is none."""
    if context is None or not context.class_probabilities:
        return context
    factors = calibration.class_factors(prevalence)
    classes, readings = _reweighed(context.class_probabilities, context.readings, calibrations, factors)
    return replace(context, class_probabilities=classes, readings=readings)


def _reweighed(
    class_probabilities: Mapping[str, float],
    readings: Mapping[str, TaskReading],
    calibrations: Mapping[str, Calibration | None],
    factors: np.ndarray,
) -> tuple[dict[str, float], dict[str, TaskReading]]:
    """Probabilities of the network's classes, moved by factors, float [N], and the readings made of them."""
    shares = reweigh(_values(class_probabilities), factors)
    known = {name: calibrations.get(name) for name in readings}
    moved = {
        name: _read(readings[name], fitted, fitted.read(shares), fitted.prevalence_after(factors))
        for name, fitted in known.items()
        if fitted is not None
    }
    return dict(zip(class_probabilities, shares.tolist(), strict=True)), moved


def _read(
    reading: TaskReading, calibration: Calibration, values: np.ndarray, prevalence: float
) -> TaskReading:
    """A reading with the moved probabilities of its classes, float [K], at a prevalence of its own target."""
    by_class = dict(zip(calibration.classes, values.tolist(), strict=True))
    point = reading.operating_point
    if point is not None:
        threshold = calibration.threshold_at(point.threshold, prevalence)
        point = Decision(point.name, threshold, decide(by_class, calibration.target, threshold))
    # Class weights were chosen at the stored prevalence: they go with it, and the answer stays.
    weighs = bool(calibration.class_weights)
    label = reading.label if weighs else calibration.classes[int(values.argmax())]
    return replace(reading, probabilities=by_class, label=label, operating_point=point, prevalence=prevalence)


def _values(by_class: Mapping[str, float]) -> np.ndarray:
    return np.array(list(by_class.values()))
