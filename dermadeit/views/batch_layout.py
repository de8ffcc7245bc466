"""The parts of the batch tab, and where they stand."""

from __future__ import annotations

from typing import Any

import gradio as gr

from dermadeit.inference.zoo import ModelZoo
from dermadeit.tasks import BINARY, TASKS
from dermadeit.views import batch_tables, cards
from dermadeit.views.batch_gallery import PICKING
from dermadeit.views.files_panel import add_files_choice, add_views_choice, available_models
from dermadeit.views.page_scripts import ANNOUNCE
from dermadeit.views.uploads import SESSION_SECONDS

_INTRODUCTION = """
<h2>Many photos at once</h2>
<p class="dd-lead">Hand in images, a folder or a ZIP to get a table of predictions. With the true classes, from the
names of folders or a CSV, you also get every figure with its interval, and the images behind each error.</p>"""

_HELP = """
<details class="dd-help">
  <summary>How to hand in the true classes</summary>
  <ul>
    <li>A folder or ZIP that has a folder for each class, such as <code>nevus/</code> and <code>others/</code>, or
    for each ISIC diagnosis, such as <code>MEL/</code> and <code>NV/</code>.</li>
    <li>Or a CSV beside the images, in the folder or in the ZIP. It needs <code>file</code> or
    <code>image_id</code>, and <code>label</code> (a class of the task) or <code>diagnosis</code> (an ISIC 2019
    name). It may have <code>lesion_group</code>, <code>source</code>, <code>sex</code>, <code>age</code> and
    <code>anatomic_site</code>.</li>
    <li>Or a <code>predictions.csv</code> alone, to evaluate answers without images and weights.</li>
    <li>At most 10,000 images are read at once.</li>
  </ul>
</details>"""


class BatchLayout:
    """Makes the components, which the events of `BatchEvaluationTab` then fill.

    Args:
        zoo: Every compared model.
    """

    def __init__(self, zoo: ModelZoo) -> None:
        self._zoo = zoo

    def _render_parts_of_tab(self) -> None:
        self._session = gr.State(None, time_to_live=SESSION_SECONDS)
        gr.HTML(_INTRODUCTION)
        with gr.Row(elem_classes="dd-columns", equal_height=False):
            with gr.Column(scale=5, min_width=300, elem_classes="dd-input"):
                self._render_choices()
            with gr.Column(scale=6, min_width=300, elem_classes="dd-output"):
                self._render_files()
        with gr.Column(visible=False, elem_classes="dd-batch") as self._results:
            self._overview = gr.HTML(elem_id="batch-overview")
            with gr.Column(visible=False, elem_classes="dd-batch") as self._labelled:
                self._render_figures()
                self._render_errors()
                self._render_parts()
            self._render_lists()

    def _render_choices(self) -> None:
        self._task = gr.Radio(
            [(task.title, task.key) for task in TASKS.values()],
            value=BINARY.key,
            label="Task",
            info="The second task only means something for lesions that are malignant.",
            elem_id="batch-task",
        )
        self._models = gr.CheckboxGroup(
            **self._model_choices(BINARY.key), label="Models", elem_id="batch-models"
        )
        self._missing = gr.HTML(self._missing_html(BINARY.key))
        self._views = add_views_choice("batch-views")

    def _render_files(self) -> None:
        self._files = add_files_choice("batch-files", "batch-start", "batch-folder", 190)
        gr.HTML(_HELP)
        with gr.Row(elem_classes="dd-buttons"):
            self._start = gr.Button("Start", variant="primary", elem_id="batch-start")
            self._cancel = gr.Button("Cancel", interactive=False, elem_id="batch-cancel")
        self._status = gr.HTML(
            cards.status_html("Ready."), elem_id="batch-status", min_height=28, js_on_load=ANNOUNCE
        )
        self._progress = gr.HTML(elem_id="batch-progress", min_height=48)

    def _render_figures(self) -> None:
        gr.HTML("<h2>Figures</h2>")
        self._figures = gr.HTML(elem_id="batch-figures")
        self._curves = gr.HTML(elem_id="batch-curves")

    def _render_errors(self) -> None:
        gr.HTML(
            '<h2>Errors</h2><p class="dd-lead">Move the threshold or press a cell of the matrix. The figures and '
            "the images follow.</p>"
        )
        self._model = gr.Radio([], label="Model", visible=False, elem_id="batch-model")
        with gr.Row(elem_classes="dd-columns", equal_height=False):
            with gr.Column(scale=5, min_width=300, elem_classes="dd-input"):
                self._rule = gr.Radio([], label="What is answered", elem_id="batch-rule")
                self._threshold = gr.Slider(
                    0, 1, 0.5, step=0.001, label="Threshold", elem_id="batch-threshold", buttons=[]
                )
                self._matrix = gr.HTML(elem_id="batch-matrix", js_on_load=PICKING)
                self._points = gr.HTML(elem_id="batch-points")
                self._decide = gr.Button("Download these decisions", size="md", elem_id="batch-decisions")
                self._decisions_file = gr.DownloadButton(visible="hidden", elem_id="batch-decisions-file")
            with gr.Column(scale=6, min_width=300, elem_classes="dd-output"):
                self._gallery = gr.HTML(elem_id="batch-gallery", js_on_load=PICKING)

    def _render_parts(self) -> None:
        gr.HTML("<h2>Parts of the images</h2>")
        self._slices = gr.HTML(elem_id="batch-slices")
        gr.HTML("<h2>Doubts and decisions</h2>")
        self._trust = gr.HTML(elem_id="batch-trust")

    def _render_lists(self) -> None:
        gr.HTML("<h2>Predictions</h2>")
        self._table = gr.Dataframe(
            interactive=False,
            show_search="filter",
            max_height=420,
            label="Predictions, one row an image",
            elem_id="batch-table",
            buttons=["fullscreen"],
        )
        gr.HTML("<h2>Failures and files left out</h2>")
        self._failures = gr.HTML(elem_id="batch-failures")
        gr.HTML(
            '<h2>Downloads</h2><p class="dd-lead">Each says which version, weights, task, views and images it is '
            "of. They are deleted ten minutes after the last use of this page.</p>"
        )
        with gr.Row(elem_classes="dd-buttons"):
            self._everything = _download("Everything as ZIP", "batch-zip", variant="primary")
            self._report_file = _download("Report as HTML", "batch-report")
            self._predictions_file = _download("Predictions as CSV", "batch-csv")
            self._metrics_file = _download("Figures as JSON", "batch-json")

    def _of_model(self) -> list[Any]:
        return [
            self._model, self._rule, self._threshold, self._matrix, self._points, self._gallery, self._slices,
            self._trust, self._table,
        ]  # fmt: skip

    def _model_choices(self, task_key: str) -> dict[str, Any]:
        choices = available_models(self._zoo, task_key)
        return {
            "choices": choices,
            "value": [name for _, name in choices[:1]],
        }

    def _missing_html(self, task_key: str) -> str:
        return batch_tables.missing_models_html(self._zoo.entries(task_key))


def _download(title: str, elem_id: str, variant: str = "secondary") -> gr.DownloadButton:
    return gr.DownloadButton(title, interactive=False, variant=variant, elem_id=elem_id, size="md")
