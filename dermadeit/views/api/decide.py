"""The documented API of decisions, `/decide`, for programs: arithmetic on an answer that they have already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeGuard

import gradio as gr
import numpy as np

from dermadeit.about import APP
from dermadeit.errors import ConfigurationError
from dermadeit.inference.decision import OWN_THRESHOLD, DecisionSettings
from dermadeit.inference.predictor import Predictor
from dermadeit.inference.records import ABSTAIN, ANSWER, Prediction
from dermadeit.inference.zoo import tasks_of
from dermadeit.tasks import get_task
from dermadeit.trust.calibration import DEFAULT_OPERATING_POINT, Calibration, check_operating_point
from dermadeit.trust.files import CALIBRATE_COMMAND
from dermadeit.trust.gating import WARNINGS
from dermadeit.views.api.docstrings import documented
from dermadeit.views.page.failures import refuse_failures
from dermadeit.views.page.gradio_patches import JsonInput
from dermadeit.views.single.exports import export_answer

_NO_RECORD = (
    "There is nothing to decide. Give the record of /predict for this task as it came, or, with two classes, "
    "the probability of the target class from 0 to 1."
)
_REPORTED = (
    "task", "model", "weights_sha256", "title", "caveat", "class_names", "verdict", "withheld_note",
    "warning_codes", "label", "probabilities", "calibrated", "prevalence", "views", "conformal_set", "cautions",
    "decision", "disclaimer",
)  # fmt: skip
"""What is reported of a decision, of all that an exported reading holds."""

_RECORD_SCHEMA = {
    "anyOf": [{"type": "object"}, {"type": "array", "items": {"type": "object"}}, {"type": "number"}]
}

_ROUNDING = 1e-3
"""How far probabilities that were rounded on their way may be from summing to 1."""


def add_decide_endpoint(predictors: Mapping[str, Predictor]) -> None:
    """Adds the endpoint to the Blocks that is being built."""
    tasks = tasks_of(predictors)

    @documented
    def decide(
        record: Any,
        task: str,
        operating_point: str | None = None,
        threshold: float | None = None,
        prevalence: float | None = None,
    ) -> dict[str, Any]:
        """Decides on an answer at a threshold, and says how far that can be relied on. No photo is read again.

        Research and teaching demo, not a medical device.

        Args:
            record: What `/predict` gave for this task, or for another one that the same network answers; or the
                probability of `others` alone, 0 to 1, for the task `binary`, at the prevalence of the calibration
                images.
            task: `diagnosis` (all eight), `malignancy`, `binary` (nevus or others) or `multiclass` (given that it
                is malignant: mel, bcc or scc), as far as the network knows their classes. Or `own`, the only task
                of an app that serves classes of your own.
            operating_point: Where to decide: `sensitivity_95`, `specificity_95` or `balanced`; none for
                `balanced`.
            threshold: Your own in place of an operating point: the probability of the target class (such as
                `others` or `mel`) from which on it is answered, 0 to 1, at the prevalence.
            prevalence: Share of lesions of the target class where the answer is used, 0 to 1; none for that of
                the record, which is that of the calibration images unless it says another. `probabilities`,
                `threshold` and predictive values are moved to it.

        Returns:
            In `decision` the class that is decided for, the `threshold` and the `target` class that it is about,
            `sensitivity` and `specificity` on the calibration images, and both predictive values at the
            `prevalence`: each from `low` to `high`, which are equal where it is known, with its 95 % `interval`
            and the number of `images` where it was measured. Beside it `conformal_set`, the classes that can't be
            ruled out, `cautions`, and `verdict` of the record: at `abstain` the answer must not be shown.
            `weights_sha256` is of the weights whose thresholds these are; whether the record is of them is not
            checked.
        """
        with refuse_failures():
            predictor = predictors[get_task(str(task), tasks).key]
            settings = check_settings(operating_point, threshold, prevalence)
            answer = read_answer(record, predictor)
            if settings.prevalence is None:
                settings = replace(settings, prevalence=_given_prevalence(_as_asked(record, answer.task)))
            exported = export_answer(answer, predictor, settings)
            is_read = isinstance(record, Mapping | list)
            return {
                "app": APP,
                **{key: exported[key] for key in _REPORTED},
                # Whether a bare number would have been withheld is not known.
                "verdict": exported["verdict"] if is_read else None,
            }

    with gr.Column(visible=False):
        record = JsonInput(_RECORD_SCHEMA, label="Record or probability")
        task = gr.Textbox(next(iter(tasks)), label="Task")
        operating_point = gr.Textbox(None, label="Operating point")
        threshold = gr.Number(None, label="Threshold")
        prevalence = gr.Number(None, label="Prevalence")
        decision = gr.JSON(label="Decision")
        gr.Button().click(
            decide,
            [record, task, operating_point, threshold, prevalence],
            [decision],
            api_name="decide",
            preprocess=False,
            # It must not wait behind anybody's photo.
            concurrency_limit=None,
        )


def check_settings(
    operating_point: Any, threshold: Any, prevalence: Any, override: Any = False
) -> DecisionSettings:
    """What a program has set for the decision. Everything is untrusted; None stands for what was left out.

    Args:
        operating_point: One of `calibration.OPERATING_POINTS`.
        threshold: One of its own in its place, 0 to 1.
        prevalence: Share of lesions of the target class, 0 to 1.
        override: Whether answers that are withheld are shown all the same.

    Raises:
        ConfigurationError: Something is out of its range, or both operating point and threshold are given.
    """
    own, prevalence = share(threshold, "threshold"), share(prevalence, "prevalence")
    if own is not None:
        if operating_point:
            raise ConfigurationError("Give an operating point or a threshold of your own, not both.")
        return DecisionSettings(OWN_THRESHOLD, own, prevalence, override is True)
    check_operating_point(operating_point or DEFAULT_OPERATING_POINT)
    return DecisionSettings(
        operating_point or DEFAULT_OPERATING_POINT, prevalence=prevalence, override=override is True
    )


def calibration_of(predictor: Predictor) -> Calibration:
    """What decisions rest on.

    Raises:
        ConfigurationError: The checkpoint was not calibrated.
    """
    if predictor.checkpoint.calibration is None:
        raise ConfigurationError(
            f"The checkpoint “{predictor.checkpoint.folder.name}” is not calibrated, so no decision is "
            f"possible. Run “{CALIBRATE_COMMAND}” for it."
        )
    return predictor.checkpoint.calibration


def read_answer(given: Any, predictor: Predictor) -> Prediction:
    """The answer that a program wants decided, at the prevalence of the calibration images: as much as it takes.

    Args:
        given: A record of `/predict`, alone or in its list; or, with two classes, the probability of the target.
            Everything in it is untrusted.
        predictor: Whose answer it is.

    Raises:
        ConfigurationError: It is something else, of another task or model, or not calibrated.
    """
    calibration = calibration_of(predictor)
    given = _as_asked(given, predictor.checkpoint.task.key)
    prevalence = _given_prevalence(given)
    if isinstance(given, Mapping):
        _check_origin(given, predictor)
        probabilities, views, verdict = given.get("probabilities"), given.get("views"), given.get("verdict")
        warning_codes = _known_warnings(given.get("warning_codes"))
    else:
        warning_codes = None
        probabilities = _from_target(given, calibration)
        views, verdict = max(calibration.by_views), ANSWER
    if (
        not _are_probabilities(probabilities, calibration.classes)
        or type(views) is not int
        or views not in calibration.by_views
        or verdict not in (ANSWER, ABSTAIN)
    ):
        raise ConfigurationError(_NO_RECORD)
    stored = calibration.prevalence
    values = np.array([float(probabilities[key]) for key in calibration.classes])
    if prevalence is not None:
        values = calibration.probabilities_at(values, prevalence, stored)
    by_class = dict(zip(calibration.classes, values.tolist(), strict=True))
    return Prediction(
        file="",
        sha256="",
        task=calibration.task,
        model=predictor.checkpoint.model,
        label=max(by_class, key=by_class.__getitem__),
        probabilities=by_class,
        logits={},
        views=views,
        ledger=(),
        warnings=(),
        calibrated=True,
        verdict=verdict,
        warning_codes=warning_codes,
        conformal_set=calibration.conformal_set(list(by_class.values()), views),
        prevalence=stored,
    )


def _given_prevalence(given: Any) -> float | None:
    """The prevalence that a record's probabilities are for; None for that of the calibration images.

    Raises:
        ConfigurationError: It is none that they could be for.
    """
    prevalence = given.get("prevalence") if isinstance(given, Mapping) else None
    if prevalence is not None and not (_is_share(prevalence) and 0 < prevalence < 1):
        raise ConfigurationError(
            "The prevalence of the record must be a number above 0 and below 1, or be left out."
        )
    return prevalence


def _as_asked(given: Any, task: str) -> Any:
    """A record, out of its list, with its reading of a task in the place of what was asked where it has one."""
    record = given[0] if isinstance(given, list) and len(given) == 1 else given
    if not isinstance(record, Mapping) or record.get("task") == task:
        return record
    readings = record.get("readings")
    reading = readings.get(task) if isinstance(readings, Mapping) else None
    if not isinstance(reading, Mapping):
        return record
    return {**record, "task": task, **{key: reading.get(key) for key in ("probabilities", "prevalence")}}


def _known_warnings(codes: Any) -> tuple[str, ...] | None:
    """The codes among them that mean something; None where there is no list of them."""
    if not isinstance(codes, list):
        return None
    return tuple(code for code in codes if isinstance(code, str) and code in WARNINGS)


def _check_origin(record: Mapping[str, Any], predictor: Predictor) -> None:
    if record.get("status") == "failed":
        raise ConfigurationError(
            "The record is of a photo that was not read. Its “error” gives the reason. Read the photo again."
        )
    for key, own in (("task", predictor.checkpoint.task.key), ("model", predictor.checkpoint.model)):
        if record.get(key) != own:
            raise ConfigurationError(
                f"The record is not of the {key} “{own}”, whose thresholds these are. Give one that /predict gave "
                "for this task."
            )
    if record.get("calibrated") is not True:
        raise ConfigurationError(
            "The scores of the record are not calibrated, so no decision is possible. Read the photo again "
            "with a calibrated checkpoint."
        )


def _from_target(probability: Any, calibration: Calibration) -> dict[str, float] | None:
    """Probabilities of both classes from that of the target; None for what is no share, or three classes."""
    if not _is_share(probability) or len(calibration.classes) != 2:
        return None
    return {key: probability if key == calibration.target else 1 - probability for key in calibration.classes}


def _are_probabilities(given: Any, classes: tuple[str, ...]) -> TypeGuard[Mapping[str, float]]:
    return (
        isinstance(given, Mapping)
        and set(given) == set(classes)
        and all(map(_is_share, given.values()))
        and abs(sum(given.values()) - 1) <= _ROUNDING
    )


def share(raw: Any, name: str) -> float | None:
    """A share that a program has given, or None; raises `ConfigurationError`, with its name, for anything else."""
    if raw is None:
        return None
    if not _is_share(raw):
        raise ConfigurationError(f"The {name} must be a number from 0 to 1, such as 0.3 for 30 %.")
    return float(raw)


def _is_share(raw: Any) -> bool:
    return isinstance(raw, int | float) and not isinstance(raw, bool) and 0 <= raw <= 1
