"""The part of the comparison that works on many images: photos, tables of predictions, or the shipped ones."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import gradio as gr

from dermadeit.errors import ErrorCode
from dermadeit.evaluation.batch import Progress, gather_batch_models
from dermadeit.evaluation.comparison import ComparedModel
from dermadeit.inference.zoo import ModelZoo
from dermadeit.tasks import Task
from dermadeit.views.batch.gallery import PICKING
from dermadeit.views.batch.run import Order, read_batch
from dermadeit.views.batch.tables import missing_models_html, progress_html
from dermadeit.views.comparison import results
from dermadeit.views.comparison.files import (
    export,
    read_shipped_models,
    read_table_models,
    store_disagreements,
)
from dermadeit.views.comparison.images_run import IMAGES, SHIPPED, TABLES, ImagesRun
from dermadeit.views.comparison.published import is_published
from dermadeit.views.comparison.steps import ImagesComparison, compare_in_steps
from dermadeit.views.comparison.teacher import NEVER_ASKED, TEACHER_TITLE
from dermadeit.views.page.case_pictures import case_folder
from dermadeit.views.page.events import BATCH_EVENT, LATEST_EVENT, PAGE_EVENT, Updates
from dermadeit.views.page.failures import Failure, presentable
from dermadeit.views.page.gradio_patches import FilesInput
from dermadeit.views.page.html import failure_html, heading_html, note_html, status_html
from dermadeit.views.page.pickers import add_files_choice, add_views_choice, available_models
from dermadeit.views.page.scripts import ANNOUNCE
from dermadeit.views.page.theme import VIEWER_SCRIPT
from dermadeit.views.page.uploads import SESSION_SECONDS, store_json

_ABOUT_IMAGES = (
    "With their true classes, as in the batch tab: a folder or a ZIP with a folder for each class, or images "
    "and a table."
)
_ABOUT_PREDICTIONS = (
    "The batch tab and “python -m dermadeit evaluate” write a predictions.csv. Give one for each model, or one "
    "with several models. Models are compared on the images that all of them have read."
)


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
        self._results = gr.HTML(results.results_html(None), elem_id="compare-results", min_height=190)
        self._list = gr.HTML(elem_id="compare-disagreements", js_on_load=PICKING)
        script = VIEWER_SCRIPT.read_text(encoding="utf-8")
        self._viewer = gr.HTML(elem_id="compare-viewer", js_on_load=script)
        self._failures = gr.HTML(elem_id="compare-failures")

    def _render_images(self) -> None:
        gr.HTML(heading_html("Your own images", _ABOUT_IMAGES, "small"))
        self._files = add_files_choice("compare-files", "compare-start", "compare-folder", 170)
        self._models = gr.CheckboxGroup(
            **self._model_choices(self._zoo.tasks[0].key), label="Models", elem_id="compare-models"
        )
        self._missing = gr.HTML(self._missing_html(self._zoo.tasks[0].key))
        self._views = add_views_choice("compare-views", self._zoo.tasks)
        self._start = gr.Button("Compare on these images", variant="primary", elem_id="compare-start")

    def _render_predictions(self) -> None:
        gr.HTML(heading_html("Or predictions, without images and weights", _ABOUT_PREDICTIONS, "small"))
        self._shipped = gr.Button(
            "Compare the shipped test predictions",
            variant="primary",
            visible=any(map(is_published, self._zoo.tasks)),
            elem_id="compare-shipped",
        )
        self._tables = FilesInput(
            label="Or your own predictions.csv files, all at once",
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
        is_asked = is_published(self._zoo.task(task_key))
        teacher = note_html(f"{TEACHER_TITLE}: {NEVER_ASKED}") if is_asked else ""
        return f"{missing_models_html(self._zoo.entries(task_key))}{teacher}"


_EXPIRED = "This comparison has expired. Start it again."
_BUSY = Failure(
    ErrorCode.QUEUE_FULL, "Too many people are waiting. Nothing was compared. Start again in a minute."
)
_CUT_OFF = Failure(ErrorCode.CUT_OFF, "The comparison was interrupted. Start it again.")


class BatchSection(ComparisonLayout):
    """Layout and events of the part. One instance serves every visitor: what belongs to one is in `gr.State`.

    Args:
        zoo: Every compared model.
        task: The radio that chooses the task of the whole tab.
    """

    def __init__(self, zoo: ModelZoo, task: gr.Radio) -> None:
        super().__init__(zoo)
        self._task = task
        self._cases = case_folder()

    def render(self) -> None:
        """Adds the part to the Blocks that is being built."""
        self._render_parts()
        self._connect()

    def _connect(self) -> None:
        shown = [
            self._run, self._status, self._progress, self._results, self._list, self._failures, self._metrics,
            self._disagreements, self._start, self._stop, self._files, self._tables,
        ]  # fmt: skip
        at_once = {"queue": False, "show_progress": "hidden", **PAGE_EVENT}
        for trigger, source, inputs in (
            (self._start.click, IMAGES, [self._files]),
            (self._tables.upload, TABLES, [self._tables]),
            (self._shipped.click, SHIPPED, []),
        ):
            ran = trigger(partial(self._prepare, source), [self._run, *inputs], shown, **at_once).then(
                self._compare,
                [self._task, self._models, self._views, self._run],
                shown,
                # A run that was left may still be at its last step.
                trigger_mode="multiple",
                show_progress="hidden",
                **PAGE_EVENT,
                **BATCH_EVENT,
            )
            ran.failure(self._turn_away, [self._run], shown, **at_once)
        self._stop.click(self._end, [self._run], [self._status, self._start, self._stop], **at_once)
        self._task.input(
            self._switch_task, [self._task, self._run], [*shown, self._models, self._missing], **at_once
        )
        gr.on(
            [self._list.select, self._viewer.select],
            self._turn,
            [self._run],
            [self._run, self._list, self._viewer, self._status],
            **LATEST_EVENT,
        )

    def _prepare(self, source: str, previous: ImagesRun | None, payload: Any = None) -> Updates:
        return {
            **self._leave(previous),
            **self._clear_results(),
            self._run: ImagesRun.begin(source, payload, self._cases),
            self._status: status_html("Waiting for a free place …"),
            self._start: gr.update(interactive=source != IMAGES),
            self._stop: gr.update(interactive=True),
            # What is read is deleted, and a later choice would hand the same files in again.
            self._tables: None,
        }

    def _leave(self, previous: ImagesRun | None) -> Updates:
        """Ends a run whose visitor begins another one; files that it has opened can't be uploaded again."""
        if previous is None or previous.job.is_over:
            return {}
        has_taken_files = previous.is_reading and previous.job.has_begun
        previous.job.supersede()
        return {self._files: None} if has_taken_files else {}

    def _switch_task(self, task_key: str, run: ImagesRun | None) -> Updates:
        return {
            **self._leave(run),
            **self._idle(),
            self._run: None,
            self._status: status_html("Ready."),
            self._models: gr.update(**self._model_choices(task_key)),
            self._missing: self._missing_html(task_key),
        }

    def _end(self, run: ImagesRun | None) -> Updates:
        if run is None or run.job.is_over:
            return gr.skip()
        unfinished = "the current images" if run.is_reading else "the current step"
        run.stop()
        return {
            self._status: status_html(
                "Stopped before the start." if run.job.is_over else f"Finishing {unfinished} …"
            ),
            self._start: gr.update(interactive=run.job.is_over),
            self._stop: gr.update(interactive=False),
        }

    def _turn_away(self, run: ImagesRun | None) -> Updates:
        """What Gradio itself has refused, which its own note, that fades, says too."""
        if run is None or run.job.is_over:
            return gr.skip()
        failure = _CUT_OFF if run.job.has_begun else _BUSY
        return {**self._leave(run), **self._idle(), self._run: None, self._status: failure_html(failure)}

    def _compare(self, task_key: Any, models: Any, views: Any, run: ImagesRun | None) -> Iterator[Updates]:
        # Gradio empties the outputs of what yields nothing, and sends the last of what it yields once more.
        yield gr.skip()
        if run is None or not run.job.start():
            return
        try:
            for updates in self._steps(task_key, models, views, run):
                if run.job.is_superseded:
                    break
                yield updates
        except Exception as error:
            if not run.job.is_superseded:
                yield self._show_failure(error, run)
        finally:
            run.job.finish()
        yield gr.skip()

    def _steps(self, task_key: Any, models: Any, views: Any, run: ImagesRun) -> Iterator[Updates]:
        task = self._zoo.task(str(task_key))
        yield from self._read(Order(run.job.payload, task.key, models, views), run)
        compared = self._gather_models(task, run)
        begun = ImagesComparison(task, compared, is_shipped=run.source == SHIPPED)
        for sentence, found in compare_in_steps(self._zoo, begun):
            run.found = found
            yield {
                # Giving the run again keeps it from expiring.
                self._run: run,
                self._status: status_html(sentence),
                self._results: results.results_html(found, run.batch),
                self._list: run.listed(),
            }
            if run.job.is_ending and not found.is_finished:
                yield self._show_stopped(run)
                return
        # While the files are written, a switch of the task must still end the run.
        finished = self._finish(run, found, sentence)
        run.job.finish()
        yield finished

    def _read(self, order: Order, run: ImagesRun) -> Iterator[Updates]:
        if run.source != IMAGES:
            yield {self._status: status_html("Reading the predictions …")}
            return
        for step in read_batch(self._zoo, order, run.session):
            if isinstance(step, str):
                yield {self._status: status_html(step)}
                continue
            if not step.done:
                yield {self._status: status_html("Reading the images … Stop keeps the finished images.")}
            yield {self._run: run, self._progress: progress_html(step)}
        batch = run.session.result
        done = len(batch.items)
        yield {
            self._files: None,
            self._progress: progress_html(Progress(done, done, None, None)),
            self._failures: results.left_out_html(batch),
            # From here on it ends the comparison.
            self._stop: gr.update(interactive=True),
        }

    def _gather_models(self, task: Task, run: ImagesRun) -> tuple[ComparedModel, ...]:
        if run.source == IMAGES:
            return gather_batch_models(run.session.result)
        if run.source == TABLES:
            return read_table_models(run.job.payload, task)
        return read_shipped_models(task)

    def _finish(self, run: ImagesRun, found: ImagesComparison, summary: str) -> Updates:
        opening = "Stopped early. " if run.batch and run.batch.missing else ""
        ending = " The uploads have been deleted." if run.source != SHIPPED else ""
        figures = store_json("dermadeit-model-comparison.json", export(found, run.batch))
        listed = store_disagreements(found, run.batch)
        return {
            self._run: run,
            self._status: status_html(f"{opening}{summary}{ending}"),
            self._metrics: gr.update(value=figures, interactive=True),
            self._disagreements: gr.update(value=listed, interactive=listed is not None),
            self._start: gr.update(interactive=True),
            self._stop: gr.update(interactive=False),
        }

    def _show_stopped(self, run: ImagesRun) -> Updates:
        return {
            self._run: run,
            self._status: status_html("Stopped. The finished results are shown."),
            self._start: gr.update(interactive=True),
            self._stop: gr.update(interactive=False),
        }

    def _show_failure(self, error: Exception, run: ImagesRun) -> Updates:
        failure = presentable(error)
        was_stopped = failure.code == ErrorCode.CANCELLED
        return {
            **self._idle(),
            **({self._files: None} if run.source == IMAGES else {}),
            self._run: None,
            self._status: status_html(failure.message) if was_stopped else failure_html(failure),
        }

    def _turn(self, run: ImagesRun | None, event: gr.EventData) -> Updates:
        if run is None or run.found is None:
            return {self._status: status_html(_EXPIRED)}
        picked = str((event._data or {}).get("pick"))
        run.turn(picked)
        if large := run.opened(picked):
            return {self._run: run, self._viewer: large}
        return {self._run: run, self._list: run.listed()}

    def _clear_results(self) -> Updates:
        return {
            self._progress: "",
            self._results: results.results_html(None),
            self._list: "",
            self._failures: "",
            **dict.fromkeys((self._metrics, self._disagreements), gr.update(value=None, interactive=False)),
        }

    def _idle(self) -> Updates:
        return {
            **self._clear_results(),
            self._start: gr.update(interactive=True),
            self._stop: gr.update(interactive=False),
            self._tables: None,
        }
