"""The two buttons that take a result away. A file is made when it is asked for, of what is set at that moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gradio as gr

from dermadeit.inference.predictor import Predictor
from dermadeit.views.page.events import MODEL_EVENT, PAGE_EVENT, Updates
from dermadeit.views.page.failures import presentable
from dermadeit.views.page.html import NO_READING, failure_html, status_html
from dermadeit.views.page.scripts import SAVE_FILE
from dermadeit.views.page.uploads import store_json
from dermadeit.views.single.decision_controls import DecisionControls
from dermadeit.views.single.exports import export, file_stem, find_untested, report, store_report
from dermadeit.views.single.heatmap import HeatmapPanel, as_share
from dermadeit.views.single.reading import Reading, add_heatmap, with_patient
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
        with gr.Row(elem_classes="dd-controls dd-download"):
            self._report = gr.Button("Download report (HTML)", interactive=False, elem_id="download-report")
            self._json = gr.Button("Download result (JSON)", interactive=False, elem_id="download")
        self._file = gr.DownloadButton(visible="hidden", elem_id="file")

    @property
    def outputs(self) -> list[Any]:
        """The components that `enabled` updates."""
        return [self._report, self._json]

    def enable(self, is_there: bool) -> Updates:
        """Lets the buttons be pressed once the answer is there."""
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
                **MODEL_EVENT,
            ).then(None, [self._file], None, js=SAVE_FILE, **PAGE_EVENT)

    def _make_json(self, visit: Visit, task_key: str, *rest: Any) -> Iterator[Updates]:
        _, _, _, *controls = rest

        def make(reading: Reading) -> str:
            settings = self._controls.read_settings(*controls)
            return store_json(
                f"{file_stem(reading)}.json", export(reading, self._predictors, task_key, settings)
            )

        # Gradio streams only what a generator function gives.
        yield from self._make_file(visit, task_key, rest, make)

    def _make_report(self, visit: Visit, task_key: str, *rest: Any) -> Iterator[Updates]:
        _, _, opacity, *controls = rest

        def make(reading: Reading) -> str:
            settings, shown = (
                self._controls.read_settings(*controls),
                self._find_shown(reading, task_key, rest),
            )
            html = report(reading, self._predictors, task_key, settings, shown, as_share(opacity))
            return store_report(reading, html)

        # Gradio streams only what a generator function gives.
        yield from self._make_file(visit, task_key, rest, make)

    def _make_file(
        self, visit: Visit, task_key: str, rest: Sequence[Any], make: Callable[[Reading], str]
    ) -> Iterator[Updates]:
        """Makes a file; what it tells of heatmaps that were not checked yet is found out first."""
        _, _, _, *controls = rest
        # Nothing is kept of it: while the photo is being read, only its reading may add to what is known.
        reading = visit.reading
        if reading is None or not reading.has_answers(task_key):
            yield {self._file: None, self._status: status_html(NO_READING)}
            return
        try:
            reading = with_patient(reading, self._predictors, visit.patient)
            settings = self._controls.read_settings(*controls)
            missing = find_untested(
                reading, self._predictors, task_key, settings, self._find_shown(reading, task_key, rest)
            )
            if missing:
                yield {self._status: status_html("Checking the heatmap for the file …")}
            for wanted in missing:
                reading = add_heatmap(reading, self._predictors, *wanted)
            made = {self._file: make(reading)}
            yield {**made, self._status: status_html("The file is ready.")} if missing else made
        except Exception as error:
            yield {self._file: None, self._status: failure_html(presentable(error))}

    def _find_shown(self, reading: Reading, task_key: str, rest: Sequence[Any]) -> tuple[str, str] | None:
        """Method and class of the heatmap that is on the page; None for none."""
        chosen, method, *_ = rest
        shown_task, _, class_key = (chosen or "").partition("/")
        if shown_task != task_key or class_key not in reading.tasks[task_key].classes:
            return None
        return self._heatmap.known_method(method), class_key
