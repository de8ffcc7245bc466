"""The documented API of single photos, `/predict` and `/explain`, for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from dermadeit.about import DISCLAIMER
from dermadeit.data.patient import read_patient
from dermadeit.errors import ConfigurationError
from dermadeit.imaging.decode import LesionImage, sanitise_name
from dermadeit.inference.faithfulness import check_saliency
from dermadeit.inference.predictor import Predictor
from dermadeit.inference.prevalence import move_prediction
from dermadeit.inference.records import ANSWER, FailedRecord, ItemFailure, Prediction, PredictionRecord
from dermadeit.inference.saliency import DEFAULT_OPACITY, SALIENCY_METHODS, default_method
from dermadeit.inference.zoo import tasks_of
from dermadeit.tasks import get_task
from dermadeit.views.api.decide import share
from dermadeit.views.api.docstrings import documented
from dermadeit.views.page.events import MODEL_EVENT
from dermadeit.views.page.failures import presentable, refuse_failures
from dermadeit.views.page.gradio_patches import PhotoInput
from dermadeit.views.page.html import saliency_verdict
from dermadeit.views.page.uploads import open_photo, store_png
from dermadeit.views.single.reading import predict_one

MOST_NEIGHBOURS = 50


def add_photo_endpoints(predictors: Mapping[str, Predictor]) -> None:
    """Adds `/predict` and `/explain` to the Blocks that is being built."""
    tasks = tasks_of(predictors)

    @documented
    def predict(
        image: Any,
        task: str,
        operating_point: str | None = None,
        neighbours: int = 0,
        age: float | None = None,
        sex: str | None = None,
        prevalence: float | None = None,
    ) -> list[PredictionRecord | FailedRecord]:
        """Reads one photo of a skin lesion. Research and teaching demo, not a medical device.

        Args:
            image: The image file. Over MCP: `data:image/jpeg;base64,…`; a web address is refused.
            task: `diagnosis` (all eight), `malignancy`, `binary` (nevus or others) or `multiclass` (given that it
                is malignant: mel, bcc or scc), as far as the network knows their classes. Or `own`, the only task
                of an app that serves classes of your own.
            operating_point: Where `operating_point` of the record decides: `sensitivity_95`, `specificity_95` or
                `balanced`; none for `balanced`. Only a calibrated checkpoint has them.
            neighbours: How many similar training lesions to name, 0 to 50. Only a calibrated checkpoint has them.
            age: Age of the patient in years, for a second answer with it (`patient_context`); none to leave it
                out. A checkpoint that was not fitted with age and sex says so there.
            sex: Sex of the patient, `female` or `male`; none for unknown. It counts only with an age.
            prevalence: Share of lesions of the target class where the answer is used, 0 to 1: probabilities and
                thresholds are moved to it. None for that of the calibration images. Only a calibrated checkpoint
                has them.

        Returns:
            A list with one record: status `ok` with verdict (`answer`, or `abstain` with reasons), label and
            probabilities (`calibrated` or not), or status `failed` with an error code and message.
        """
        try:
            predictor, count = predictors[get_task(str(task), tasks).key], _count(neighbours)
            patient = read_patient(age, sex)
            with open_photo(image) as photo:
                records = predictor.predict(
                    [photo],
                    operating_point=operating_point or None,
                    neighbours=count,
                    patients=patient,
                )
            return [_at(record, predictor, share(prevalence, "prevalence")).to_dict() for record in records]
        except Exception as error:
            return [make_failed_record(error, image, task, next(iter(predictors.values())).checkpoint.model)]

    @documented
    def explain(
        image: Any, task: str, class_key: str | None = None, method: str | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Draws the heatmap of one photo over it, and checks whether the answer rests on what it marks.

        Research and teaching demo, not a medical device.

        Args:
            image: The image file. Over MCP: `data:image/jpeg;base64,…`; a web address is refused.
            task: As for `/predict`.
            class_key: A class of the task; none or an empty text for the predicted class.
            method: `grad-sam`, the default of transformers; `grad-cam`, that of convolutional networks; or
                `attention-rollout`, which is the same for every class.

        Returns:
            A PNG file of the photo's size, grey where the check fails; and the check: class and method, whether
            the map is `faithful`, the `statement` that says so in words, the figures behind it, and `verdict` and
            `abstain_reasons` of the answer as `/predict` gives it: `abstain` where it is to be withheld; and its
            `warning_codes`.
        """
        with refuse_failures():
            predictor = predictors[get_task(str(task), tasks).key]
            method = method or default_method(predictor)
            if method not in tuple(SALIENCY_METHODS):
                raise ConfigurationError(
                    f"There is no method “{method}”. Choose one of {', '.join(SALIENCY_METHODS)}."
                )
            with open_photo(image, whole=True) as photo:
                drawn = SALIENCY_METHODS[method](predictor, photo, class_key or None)
                check = check_saliency(predictor, photo, drawn)
                verdict, reasons, warning_codes = _verdict(predictor, photo)
            picture = drawn.overlay(photo, DEFAULT_OPACITY)
            tested = {
                "class_key": drawn.class_key,
                "method": drawn.method,
                "verdict": verdict,
                "abstain_reasons": reasons,
                "warning_codes": warning_codes,
                **asdict(check),
                "statement": saliency_verdict(check),
                "disclaimer": DISCLAIMER,
            }
            return store_png(picture if check.faithful else _grey(picture)), tested

    with gr.Column(visible=False):
        image = PhotoInput(type="filepath", label="Image")
        task = gr.Textbox(next(iter(tasks)), label="Task")
        operating_point = gr.Textbox(None, label="Operating point")
        neighbours = gr.Number(0, precision=0, label="Similar cases")
        age = gr.Number(None, label="Age")
        sex = gr.Textbox(None, label="Sex")
        prevalence = gr.Number(None, label="Prevalence")
        # The empty text makes it optional: Gradio asks callers for everything that has no value.
        class_key = gr.Textbox("", label="Class")
        method = gr.Textbox("", label="Method")
        records = gr.JSON(label="Records")
        overlay = gr.Image(type="filepath", format="png", label="Overlay")
        check = gr.JSON(label="Check of the heatmap")
        trigger = gr.Button()
        trigger.click(
            predict,
            [image, task, operating_point, neighbours, age, sex, prevalence],
            [records],
            api_name="predict",
            preprocess=False,
            **MODEL_EVENT,
        )
        trigger.click(
            explain,
            [image, task, class_key, method],
            [overlay, check],
            api_name="explain",
            preprocess=False,
            **MODEL_EVENT,
        )


def make_failed_record(error: Exception, image: Any, task: Any, model: str) -> FailedRecord:
    """The record of a photo that was not read, as JSON-ready values.

    Args:
        error: Why.
        image: The payload that stood for the photo. Everything in it is untrusted.
        task: What was given as the task, likewise.
        model: Name of the model; empty where it was none in particular.
    """
    failure = presentable(error)
    name = sanitise_name(image.get("orig_name")) if isinstance(image, Mapping) else "image"
    digest = getattr(error, "sha256", None)
    record = ItemFailure(name, digest, str(task), model, code=failure.code, message=failure.message)
    return record.to_dict()


def _at(
    record: Prediction | ItemFailure, predictor: Predictor, prevalence: float | None
) -> Prediction | ItemFailure:
    """A record at a prevalence; None for that of the calibration images."""
    if prevalence is None or isinstance(record, ItemFailure):
        return record
    checkpoint = predictor.checkpoint
    calibrations = checkpoint.trust.calibrations if checkpoint.trust else {}
    return move_prediction(record, checkpoint.task, calibrations, prevalence)


def _verdict(predictor: Predictor, photo: LesionImage) -> tuple[str, list[str], list[str] | None]:
    if predictor.checkpoint.trust is None:
        # Nothing is withheld, so the photo need not be read once more.
        return ANSWER, [], None
    answer = predict_one(predictor, photo)
    warning_codes = None if answer.warning_codes is None else list(answer.warning_codes)
    return answer.verdict, list(answer.abstain_reasons), warning_codes


def _grey(pixels: np.ndarray) -> np.ndarray:
    """The same picture without its colours."""
    return np.asarray(Image.fromarray(pixels).convert("L").convert("RGB"))


def _count(neighbours: Any) -> int:
    if neighbours is None:
        return 0
    if isinstance(neighbours, bool) or neighbours not in range(MOST_NEIGHBOURS + 1):
        raise ConfigurationError(f"Ask for 0 to {MOST_NEIGHBOURS} similar cases.")
    return int(neighbours)
