"""The documented API of the report, `/report`, for programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from dermadeit.data.patient import read_patient
from dermadeit.inference.predictor import Predictor
from dermadeit.inference.saliency import DEFAULT_OPACITY, default_method
from dermadeit.inference.zoo import tasks_of
from dermadeit.tasks import get_task
from dermadeit.views.api.decide import calibration_of, check_settings
from dermadeit.views.api.docstrings import documented
from dermadeit.views.page.events import MODEL_EVENT
from dermadeit.views.page.failures import refuse_failures
from dermadeit.views.page.gradio_patches import PhotoInput
from dermadeit.views.page.uploads import open_photo
from dermadeit.views.single import exports
from dermadeit.views.single.answer_card import is_hidden
from dermadeit.views.single.reading import add_heatmap, read_labels, with_patient


def add_report_endpoint(predictors: Mapping[str, Predictor]) -> None:
    """Adds the endpoint to the Blocks that is being built."""
    tasks = tasks_of(predictors)

    @documented
    def report(
        image: Any,
        task: str,
        operating_point: str | None = None,
        threshold: float | None = None,
        prevalence: float | None = None,
        override: bool = False,
        age: float | None = None,
        sex: str | None = None,
    ) -> tuple[str, dict[str, Any]]:
        """Reads one photo of a skin lesion and gives the report that the page offers, as a file and as JSON.

        Research and teaching demo, not a medical device.

        Args:
            image: The image file. Over MCP: `data:image/jpeg;base64,…`; a web address is refused.
            task: `diagnosis` (all eight), `malignancy`, `binary` (nevus or others) or `multiclass` (given that it
                is malignant: mel, bcc or scc), as far as the network knows their classes. Or `own`, the only task
                of an app that serves classes of your own.
            operating_point: Where to decide: `sensitivity_95`, `specificity_95` or `balanced`; none for
                `balanced`. Only a calibrated checkpoint has them.
            threshold: Your own in place of an operating point: the probability of the target class (`others` or
                `mel`) from which on it is answered, 0 to 1.
            prevalence: Share of lesions of the target class where the answer is used, 0 to 1; none for that of
                the calibration images. Probabilities, threshold and predictive values are moved to it.
            override: Whether to show an answer that is withheld; it stays marked as withheld.
            age: Age of the patient in years, for a second answer with it; none to leave it out.
            sex: Sex of the patient, `female` or `male`; none for unknown. It counts only with an age.

        Returns:
            An HTML file that needs no network and prints on A4, with the photo and, unless the answer is
            withheld, the heatmap of the answer and its check; and the same as JSON: `image`, and in
            `readings` one for each task with all that `/predict` and `/decide` give.
        """
        with refuse_failures():
            key = get_task(str(task), tasks).key
            settings = check_settings(operating_point, threshold, prevalence, override)
            patient = read_patient(age, sex)
            if operating_point or threshold is not None or prevalence is not None:
                calibration_of(predictors[key])
            with open_photo(image) as photo:
                reading = with_patient(read_labels(predictors, photo, key), predictors, patient)
            for wanted in exports.find_untested(reading, predictors, key, settings):
                reading = add_heatmap(reading, predictors, *wanted)
            answer = reading.predictions[key]
            shown = (
                None if is_hidden(answer, settings) else (default_method(*predictors.values()), answer.label)
            )
            html = exports.report(reading, predictors, key, settings, shown, DEFAULT_OPACITY)
            return exports.store_report(reading, html), exports.export(reading, predictors, key, settings)

    with gr.Column(visible=False):
        image = PhotoInput(type="filepath", label="Image")
        task = gr.Textbox(next(iter(tasks)), label="Task")
        operating_point = gr.Textbox(None, label="Operating point")
        threshold = gr.Number(None, label="Threshold")
        prevalence = gr.Number(None, label="Prevalence")
        override = gr.Checkbox(False, label="Show a withheld answer")
        age = gr.Number(None, label="Age")
        sex = gr.Textbox(None, label="Sex")
        file = gr.File(label="Report")
        exported = gr.JSON(label="Result")
        gr.Button().click(
            report,
            [image, task, operating_point, threshold, prevalence, override, age, sex],
            [file, exported],
            api_name="report",
            preprocess=False,
            **MODEL_EVENT,
        )
