"""The parts of the comparison on many images, and where they stand."""

from __future__ import annotations

from typing import Any

import gradio as gr

from dermadeit.inference.zoo import ModelZoo
from dermadeit.tasks import BINARY
from dermadeit.views import comparison_results as results
from dermadeit.views.batch_gallery import PICKING
from dermadeit.views.batch_tables import missing_models_html
from dermadeit.views.cards import status_html
from dermadeit.views.comparison_teacher import NEVER_ASKED, TEACHER_TITLE
from dermadeit.views.files_panel import add_files_choice, add_views_choice, available_models
from dermadeit.views.inputs import FilesInput
from dermadeit.views.page_scripts import ANNOUNCE
from dermadeit.views.uploads import SESSION_SECONDS

_ABOUT_IMAGES = """
<h2 class="dd-small">Your own images</h2>
<p class="dd-quiet">With their true classes, as in the batch tab: a folder or a ZIP with a folder for each class,
or images and a CSV.</p>"""

_ABOUT_PREDICTIONS = """
<h2 class="dd-small">Or predictions, without images and weights</h2>
<p class="dd-quiet">A predictions.csv is what the batch tab exports and what “python -m dermadeit evaluate” writes.
Give one for each model, or one that holds several. Models are compared on the images that all of them have
read.</p>"""


class ComparisonLayout:
    """Makes the components, which the events of `BatchSection` then fill.

    Args:
        zoo: Every compared model.
    """

    def __init__(self, zoo: ModelZoo) -> None:
        self._zoo = zoo

    def _render_parts(self) -> None:
        self._run = gr.State(None, time_to_live=SESSION_SECONDS)
        with gr.Row(elem_classes="dd-columns", equal_height=False):
            with gr.Column(scale=5, min_width=300, elem_classes="dd-input"):
                self._render_images()
            with gr.Column(scale=6, min_width=300, elem_classes="dd-output"):
                self._render_predictions()
                self._render_state()
        self._results = gr.HTML(results.EMPTY_RESULTS, elem_id="compare-results", min_height=190)
        self._list = gr.HTML(elem_id="compare-disagreements", js_on_load=PICKING)
        self._failures = gr.HTML(elem_id="compare-failures")

    def _render_images(self) -> None:
        gr.HTML(_ABOUT_IMAGES)
        self._files = add_files_choice("compare-files", "compare-start", "compare-folder", 170)
        self._models = gr.CheckboxGroup(
            **self._model_choices(BINARY.key), label="Models", elem_id="compare-models"
        )
        self._missing = gr.HTML(self._missing_html(BINARY.key))
        self._views = add_views_choice("compare-views")
        self._start = gr.Button("Compare on these images", variant="primary", elem_id="compare-start")

    def _render_predictions(self) -> None:
        gr.HTML(_ABOUT_PREDICTIONS)
        self._shipped = gr.Button(
            "Compare the shipped test predictions", variant="primary", elem_id="compare-shipped"
        )
        self._tables = FilesInput(
            label="Or your own predictions.csv files, all in one go",
            file_count="multiple",
            file_types=[".csv"],
            height=170,
            elem_id="compare-tables",
        )

    def _render_state(self) -> None:
        self._status = gr.HTML(
            status_html("Ready."), elem_id="compare-batch-status", min_height=28, js_on_load=ANNOUNCE
        )
        self._progress = gr.HTML(elem_id="compare-batch-progress", min_height=48)
        with gr.Row(elem_classes="dd-controls"):
            self._stop = gr.Button(
                "Stop", interactive=False, elem_id="compare-batch-stop", size="md", min_width=100
            )
            self._metrics = gr.DownloadButton(
                "Figures (JSON)", interactive=False, elem_id="compare-metrics", size="md", min_width=150
            )
            self._disagreements = gr.DownloadButton(
                "Disagreements (CSV)", interactive=False, elem_id="compare-list", size="md", min_width=170
            )

    def _model_choices(self, task_key: str) -> dict[str, Any]:
        choices = available_models(self._zoo, task_key)
        return {
            "choices": choices,
            "value": [name for _, name in choices],
        }

    def _missing_html(self, task_key: str) -> str:
        teacher = f'<p class="dd-quiet">{TEACHER_TITLE}: {NEVER_ASKED}</p>'
        return missing_models_html(self._zoo.entries(task_key)) + teacher
