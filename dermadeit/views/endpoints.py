"""The documented API: `/predict` and `/explain`, for programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from dermadeit.imaging import sanitise_name
from dermadeit.predictor import Predictor
from dermadeit.records import ItemFailure
from dermadeit.saliency import DEFAULT_OPACITY, grad_cam
from dermadeit.tasks import BINARY, get_task
from dermadeit.views.failures import presentable
from dermadeit.views.single_image import MODEL_EVENT
from dermadeit.views.uploads import PhotoInput, opened_photo, store_png


def add_endpoints(predictors: Mapping[str, Predictor]) -> None:
    """Adds the endpoints to the Blocks that is being built."""

    def predict(image: Any, task: str) -> list[dict[str, Any]]:
        """Reads one photo of a skin lesion. Research and teaching demo, not a medical device.

        Args:
            image: The image file.
            task: `binary` (nevus or others) or `multiclass` (given malignancy: mel, bcc or scc).

        Returns:
            A list with one record: status `ok` with verdict (`answer`, or `abstain` with reasons), label and
            probabilities (`calibrated` or not), or status `failed` with an error code and message.
        """
        try:
            get_task(task)
            with opened_photo(image) as photo:
                return [record.to_dict() for record in predictors[task].predict([photo])]
        except Exception as error:
            failure = presentable(error)
            name = sanitise_name(image.get("orig_name")) if isinstance(image, Mapping) else "image"
            model = predictors[BINARY.key].checkpoint.model
            return [
                ItemFailure(
                    name,
                    getattr(error, "sha256", None),
                    str(task),
                    model,
                    code=failure.code,
                    message=failure.message,
                ).to_dict()
            ]

    def explain(image: Any, task: str, class_key: str | None) -> str:
        """Draws the Grad-CAM heatmap of one photo over it, unchecked: it may not be what the answer rests on.

        Args:
            image: The image file.
            task: `binary` or `multiclass`.
            class_key: A class of the task; none for the predicted class.

        Returns:
            A PNG file of the photo's size.
        """
        try:
            get_task(task)
            with opened_photo(image) as photo:
                return store_png(
                    grad_cam(predictors[task], photo, class_key or None).overlay(photo, DEFAULT_OPACITY)
                )
        except Exception as error:
            # The chain would print the traceback of a mere refusal.
            raise gr.Error(presentable(error).message, print_exception=False) from None

    with gr.Column(visible=False):
        image = PhotoInput(type="filepath", label="Image")
        task = gr.Textbox(BINARY.key, label="Task")
        class_key = gr.Textbox(None, label="Class")
        records = gr.JSON(label="Records")
        overlay = gr.Image(type="filepath", format="png", label="Overlay")
        trigger = gr.Button()
        trigger.click(predict, [image, task], [records], api_name="predict", preprocess=False, **MODEL_EVENT)
        trigger.click(
            explain, [image, task, class_key], [overlay], api_name="explain", preprocess=False, **MODEL_EVENT
        )
