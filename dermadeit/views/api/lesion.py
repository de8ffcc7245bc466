"""The documented API of lesions, `/predict_lesion`, for programs: several photos and one answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from dermadeit.data.collection import UploadedFile
from dermadeit.data.patient import Patient, read_patient
from dermadeit.errors import ConfigurationError, ImageError
from dermadeit.imaging.decode import READING_SIDE, decode_image, sanitise_name
from dermadeit.inference.decision import DecisionSettings
from dermadeit.inference.lesion import LesionPrediction, join_photos
from dermadeit.inference.predictor import Predictor
from dermadeit.inference.prevalence import apply_settings_to_lesion, require_calibration
from dermadeit.inference.records import ItemFailure, Prediction
from dermadeit.inference.zoo import tasks_of
from dermadeit.tasks import get_task
from dermadeit.views.api.decide import check_settings
from dermadeit.views.api.docstrings import documented
from dermadeit.views.page.events import MODEL_EVENT
from dermadeit.views.page.failures import refuse_failures
from dermadeit.views.page.gradio_patches import FilesInput
from dermadeit.views.page.uploads import take_uploads_apart

MOST_PHOTOS = 12


def add_lesion_endpoint(predictors: Mapping[str, Predictor]) -> None:
    """Adds `/predict_lesion` to the Blocks that is being built."""
    tasks = tasks_of(predictors)

    @documented
    def predict_lesion(
        images: Any,
        task: str,
        operating_point: str | None = None,
        age: float | None = None,
        sex: str | None = None,
        prevalence: float | None = None,
    ) -> dict[str, Any]:
        """Reads several photos of one skin lesion. Research and teaching demo, not a medical device.

        Args:
            images: 1 to 12 image files.
            task: As for `/predict`.
            operating_point: As for `/predict`.
            age: As for `/predict`.
            sex: As for `/predict`.
            prevalence: As for `/predict`.

        Returns:
            Verdict (`abstain` where no photo has an answer), label, probabilities, `readings` and
            `patient_context` of the lesion, from the mean of the photos' logits; how many `photos_used` there are
            and how many of them agree, the `spread` of the answer's probability over them; and in `photos` the
            record of each, as `/predict` gives it.
        """
        with refuse_failures():
            predictor = predictors[get_task(str(task), tasks).key]
            settings, patient = check_settings(operating_point, None, prevalence), read_patient(age, sex)
            with take_uploads_apart(images) as files:
                if not 0 < len(files) <= MOST_PHOTOS:
                    raise ConfigurationError(
                        f"{len(files)} photos were given. Give 1 to {MOST_PHOTOS} photos of one lesion."
                    )
                # One at a time: full photos of a lesion would take gigabytes.
                photos = [_read(predictor, file, operating_point or None, patient) for file in files]
            lesion = join_photos(predictor, photos, operating_point=settings.operating_point, patient=patient)
            return _at(lesion, predictor, settings).to_dict()

    with gr.Column(visible=False):
        images = FilesInput(file_count="multiple", file_types=["image"], label="Images")
        task = gr.Textbox(next(iter(tasks)), label="Task")
        operating_point = gr.Textbox(None, label="Operating point")
        age = gr.Number(None, label="Age")
        sex = gr.Textbox(None, label="Sex")
        prevalence = gr.Number(None, label="Prevalence")
        record = gr.JSON(label="Record")
        gr.Button().click(
            predict_lesion,
            [images, task, operating_point, age, sex, prevalence],
            [record],
            api_name="predict_lesion",
            preprocess=False,
            **MODEL_EVENT,
        )


def _at(lesion: LesionPrediction, predictor: Predictor, settings: DecisionSettings) -> LesionPrediction:
    """The record of a lesion at a prevalence; without one, at that of the calibration images."""
    if settings.prevalence is None:
        return lesion
    checkpoint = predictor.checkpoint
    require_calibration(checkpoint.calibration, lesion.views)
    calibrations = checkpoint.trust.calibrations if checkpoint.trust else {}
    return apply_settings_to_lesion(lesion, checkpoint.task, calibrations, settings)[0]


def _read(
    predictor: Predictor, file: UploadedFile, operating_point: str | None, patient: Patient | None
) -> Prediction | ItemFailure:
    """The record of one photo; one that can't be read does not stop the others."""
    try:
        photo = decode_image(file.path, name=file.name, enough_side=READING_SIDE)
    except ImageError as error:
        checkpoint = predictor.checkpoint
        return ItemFailure(
            sanitise_name(file.name),
            error.sha256,
            checkpoint.task.key,
            checkpoint.model,
            code=error.code,
            message=error.user_message,
        )
    [record] = predictor.predict([photo], operating_point=operating_point, patients=patient)
    return record
