"""The two buttons that take a result away. A file is made when it is asked for, of what is set at that moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr

from dermadeit.inference.predictor import Predictor
from dermadeit.views.page.events import PAGE_EVENT, Updates
from dermadeit.views.page.failures import presentable
from dermadeit.views.page.html import NO_READING, failure_html, status_html
from dermadeit.views.page.scripts import SAVE_FILE
from dermadeit.views.page.uploads import store_json
from dermadeit.views.single.decision_controls import DecisionControls
from dermadeit.views.single.exports import export, file_stem, report, store_report
from dermadeit.views.single.heatmap import HeatmapPanel, as_share
from dermadeit.views.single.reading import Reading
from dermadeit.views.single.turn import Visit


class Downloads:
    """Layout and events of report and JSON.

    Args:
        predictors: Task key to predictor, for every task.
        controls: Of the decision, which the files say too.
        heatmap: What is shown goes into the report.
    """

    def __init__(
        self, predictors: Mapping[str, Predictor], controls: DecisionControls, heatmap: HeatmapPanel
    ) -> None:
        self._predictors = predictors
        self._controls = controls
        self._heatmap = heatmap

    def render(self) -> None:
        """Adds the buttons to the Blocks that is being built."""
        gr.HTML('<h2 class="dd-small">Download</h2>')
        with gr.Row(elem_classes="dd-controls"):
            self._report = gr.Button("Report (HTML)", interactive=False, elem_id="download-report")
            self._json = gr.Button("Result (JSON)", interactive=False, elem_id="download")
        self._file = gr.DownloadButton(visible="hidden", elem_id="file")

    @property
    def outputs(self) -> list[Any]:
        """The components that `enabled` updates."""
        return [self._report, self._json]

    def enabled(self, is_there: bool) -> Updates:
        """Lets the buttons be pressed once a reading is there."""
        return {button: gr.update(interactive=is_there) for button in self.outputs}

    def connect(self, visit: gr.State, task: gr.Radio, status: gr.HTML) -> None:
        """Adds the events."""
        self._status = status
        heatmap = self._heatmap
        inputs = [
            visit, task, heatmap.chosen_class, heatmap.method, heatmap.opacity, *self._controls.inputs,
        ]  # fmt: skip
        for button, make in ((self._report, self._make_report), (self._json, self._make_json)):
            button.click(
                make,
                inputs,
                [self._file, status],
                show_progress="minimal",
                show_progress_on=button,
                **PAGE_EVENT,
            ).then(None, [self._file], None, js=SAVE_FILE, **PAGE_EVENT)

    def _make_json(self, visit: Visit, task_key: str, *rest: Any) -> Updates:
        _, _, _, *controls = rest

        def make(reading: Reading) -> str:
            choice = self._controls.choice(*controls)
            return store_json(
                f"{file_stem(reading)}.json", export(reading, self._predictors, task_key, choice)
            )

        return self._made(visit.reading, make)

    def _make_report(self, visit: Visit, task_key: str, *rest: Any) -> Updates:
        chosen, method, opacity, *controls = rest

        def make(reading: Reading) -> str:
            shown_task, _, class_key = (chosen or "").partition("/")
            shown = self._heatmap.known_method(method), class_key
            is_drawn = shown_task == task_key and shown in reading.maps.get(task_key, {})
            html = report(
                reading,
                self._predictors,
                task_key,
                self._controls.choice(*controls),
                shown if is_drawn else None,
                as_share(opacity),
            )
            return store_report(reading, html)

        return self._made(visit.reading, make)

    def _made(self, reading: Reading | None, make: Callable[[Reading], str]) -> Updates:
        if reading is None:
            return {self._file: None, self._status: status_html(NO_READING)}
        try:
            return {self._file: make(reading)}
        except Exception as error:
            return {self._file: None, self._status: failure_html(presentable(error))}
