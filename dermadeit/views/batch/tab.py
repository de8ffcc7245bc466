"""The tab that reads many photos: predictions without labels, a full evaluation with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from functools import partial
from types import MappingProxyType
from typing import Any, Literal

import gradio as gr

from dermadeit.errors import ErrorCode
from dermadeit.evaluation.batch import Progress
from dermadeit.inference.decision import OWN_THRESHOLD
from dermadeit.inference.zoo import ModelZoo
from dermadeit.publishing.benchmark import is_published
from dermadeit.reporting.names import is_conditional
from dermadeit.reporting.templates import render
from dermadeit.tasks import Task
from dermadeit.views.batch import tables as batch_tables
from dermadeit.views.batch.exports import (
    BatchFiles,
    DrawnFigure,
    draw_curves,
    draw_matrices,
    write_decisions,
    write_files,
)
from dermadeit.views.batch.gallery import PICKING
from dermadeit.views.batch.model_comparison import differences_html
from dermadeit.views.batch.run import Order, evaluate_batch, read_batch
from dermadeit.views.batch.session import LIKELIEST, Session
from dermadeit.views.page.case_pictures import case_folder
from dermadeit.views.page.events import BATCH_EVENT, LATEST_EVENT, PAGE_EVENT, Updates
from dermadeit.views.page.examples import SAMPLE_SET, pack_sample_set, sample_set_html
from dermadeit.views.page.failures import Failure, presentable
from dermadeit.views.page.html import contents_html, failure_html, heading_html, note_html, status_html
from dermadeit.views.page.job import FilesJob
from dermadeit.views.page.pickers import (
    add_files_choice,
    add_task_choice,
    add_views_choice,
    available_models,
    have_diagnoses,
)
from dermadeit.views.page.scripts import ANNOUNCE, SAVE_FILE
from dermadeit.views.page.theme import VIEWER_SCRIPT
from dermadeit.views.page.uploads import SESSION_SECONDS, private_folder

_ABOUT_IMAGES = (
    "Move the threshold, or click a cell of the matrix: figures and images follow. A picture opens large."
)
_ABOUT_DOWNLOADS = (
    "Each file names the version, weights, task, views and images. The files are deleted ten minutes after the "
    "last use of this page."
)
_ABOUT_SHIPPED = (
    "All models of this app on the test images, all classes, from their stored predictions. No photo is read."
)


class BatchLayout:
    """Makes the components, which the events of `BatchEvaluationTab` then fill.

    Args:
        zoo: Every compared model.
    """

    def __init__(self, zoo: ModelZoo) -> None:
        self._zoo = zoo
        self._cases = case_folder()

    def _render_parts_of_tab(self) -> None:
        self._session = gr.State(None, time_to_live=SESSION_SECONDS)
        gr.HTML(render("views/batch/introduction.html"))
        with gr.Row(elem_classes="dd-columns", equal_height=False):
            with gr.Column(scale=5, min_width=300, elem_classes="dd-input"):
                self._render_choices()
            with gr.Column(scale=6, min_width=300, elem_classes="dd-output"):
                self._render_files()
        with gr.Column(visible=False, elem_classes="dd-batch") as self._results:
            self._strip = gr.HTML(elem_id="batch-strip")
            self._overview = gr.HTML(elem_id="batch-overview")
            self._contents = gr.HTML(elem_id="batch-contents")
            self._render_downloads()
            self._render_errors()
            self._compared = gr.HTML(elem_id="batch-compared", js_on_load=PICKING)
            with gr.Column(visible=False, elem_classes="dd-batch") as self._measured:
                self._figures = gr.HTML(elem_id="batch-figures")
                self._curves = gr.HTML(elem_id="batch-curves")
                self._slices = gr.HTML(elem_id="batch-slices", js_on_load=PICKING)
                self._trust = gr.HTML(elem_id="batch-trust")
            self._render_lists()

    def _render_choices(self) -> None:
        first = self._zoo.tasks[0].key
        self._task = add_task_choice(self._zoo.tasks, "batch-task")
        self._models = gr.CheckboxGroup(**self._model_choices(first), label="Models", elem_id="batch-models")
        self._missing = gr.HTML(self._missing_html(first))
        self._views = add_views_choice("batch-views", self._zoo.tasks)

    def _render_files(self) -> None:
        self._files = add_files_choice("batch-files", "batch-start", "batch-folder", 190)
        gr.HTML(_help_html(self._zoo.tasks))
        with gr.Row(elem_classes="dd-buttons"):
            self._start = gr.Button("Start", variant="primary", elem_id="batch-start")
            self._cancel = gr.Button("Cancel", interactive=False, elem_id="batch-cancel")
        with gr.Row(
            elem_classes="dd-buttons", visible=SAMPLE_SET.is_dir() and have_diagnoses(self._zoo.tasks)
        ):
            self._sample = gr.Button(
                "Load the sample set", size="md", scale=0, min_width=200, elem_id="batch-sample"
            )
            gr.HTML(sample_set_html(), elem_classes="dd-sample")
        with gr.Row(elem_classes="dd-buttons", visible=any(map(is_published, self._zoo.tasks))):
            self._shipped = gr.Button(
                "Load the test predictions", size="md", scale=0, min_width=200, elem_id="batch-shipped"
            )
            gr.HTML(note_html(_ABOUT_SHIPPED), elem_classes="dd-sample")
        self._status = gr.HTML(
            status_html("Ready."), elem_id="batch-status", min_height=28, js_on_load=ANNOUNCE
        )
        self._progress = gr.HTML(elem_id="batch-progress", min_height=48)

    def _render_downloads(self) -> None:
        with gr.Row(elem_classes="dd-buttons", elem_id="batch-downloads"):
            self._everything = _download("Download everything (ZIP)", "batch-zip", variant="primary")
            self._report_file = _download("Report (HTML)", "batch-report")
            self._predictions_file = _download("Predictions (CSV)", "batch-csv")
            self._metrics_file = _download("Figures (JSON)", "batch-json")
        gr.HTML(note_html(_ABOUT_DOWNLOADS))

    def _render_errors(self) -> None:
        gr.HTML(heading_html("Matrix and images", _ABOUT_IMAGES), elem_id="batch-images")
        self._model = gr.Radio([], label="Model", visible=False, elem_id="batch-model")
        with gr.Row(elem_classes="dd-columns", equal_height=False):
            with gr.Column(scale=5, min_width=300, elem_classes="dd-input", visible=False) as self._labelled:
                self._rule = gr.Radio([], label="Decision rule", elem_id="batch-rule")
                self._threshold = gr.Slider(
                    0, 1, 0.5, step=0.001, label="Threshold", elem_id="batch-threshold", buttons=[]
                )
                self._matrix = gr.HTML(elem_id="batch-matrix", js_on_load=PICKING)
                self._points = gr.HTML(elem_id="batch-points")
                self._decide = gr.Button("Download these decisions", size="md", elem_id="batch-decisions")
                self._decisions_file = gr.DownloadButton(visible="hidden", elem_id="batch-decisions-file")
            with gr.Column(scale=6, min_width=300, elem_classes="dd-output"):
                self._gallery = gr.HTML(elem_id="batch-gallery", js_on_load=PICKING)
                script = VIEWER_SCRIPT.read_text(encoding="utf-8")
                self._viewer = gr.HTML(elem_id="batch-viewer", js_on_load=script)

    def _render_lists(self) -> None:
        gr.HTML(heading_html("Predictions"), elem_id="batch-predictions")
        self._table = gr.Dataframe(
            interactive=False,
            show_search="filter",
            max_height=420,
            label="Predictions, one row for each image",
            elem_id="batch-table",
            buttons=["fullscreen"],
        )
        self._failures = gr.HTML(elem_id="batch-failures")

    def _of_model(self) -> list[Any]:
        return [
            self._model, self._rule, self._threshold, self._strip, self._matrix, self._points, self._gallery,
            self._viewer, self._slices, self._trust, self._table,
        ]  # fmt: skip

    def _model_choices(self, task_key: str) -> dict[str, Any]:
        choices = available_models(self._zoo, task_key)
        return {
            "choices": choices,
            "value": [name for _, name in choices[:1]],
        }

    def _missing_html(self, task_key: str) -> str:
        return batch_tables.missing_models_html(self._zoo.entries(task_key))


def _help_html(tasks: Sequence[Task]) -> str:
    return render(
        "views/batch/help.html",
        classes=tasks[0].classes[:2],
        have_diagnoses=have_diagnoses(tasks),
        templates=[_template(task) for task in tasks],
    )


def _template(task: Task) -> dict[str, str]:
    """An empty table of predictions, with a row that shows what belongs into it."""
    columns = ["image_id", "label", *(f"p_{key}" for key in task.classes)]
    share = f"{1 / len(task.classes):.4f}"
    row = ["ISIC_0000001", task.classes[0], *[share] * len(task.classes)]
    return {"task": task.key, "title": task.title, "content": ",".join(columns) + "\n" + ",".join(row) + "\n"}


def _download(
    title: str, elem_id: str, variant: Literal["primary", "secondary"] = "secondary"
) -> gr.DownloadButton:
    return gr.DownloadButton(title, interactive=False, variant=variant, elem_id=elem_id, size="md")


_LOOK_EVENT: Mapping[str, Any] = MappingProxyType({**LATEST_EVENT, "concurrency_limit": 4})
_EXPIRED = "This evaluation has expired. Upload the files again."
_BUSY = Failure(
    ErrorCode.QUEUE_FULL,
    "Too many people are waiting. The files were not read, but they are still here. Press Start again in a "
    "minute.",
)
_CUT_OFF = Failure(
    ErrorCode.CUT_OFF, "The evaluation was interrupted. Upload the files again and press Start."
)


class BatchEvaluationTab(BatchLayout):
    """Layout and events of the tab. One instance serves every visitor: what belongs to one is in `gr.State`.

    Args:
        zoo: Every compared model.
    """

    def render(self) -> None:
        """Adds the tab to the Blocks that is being built."""
        self._render_parts_of_tab()
        self._connect()

    def _connect(self) -> None:
        self._task.input(
            self._switch_task,
            [self._task],
            [self._models, self._missing],
            show_progress="hidden",
            queue=False,
            **PAGE_EVENT,
        )
        shown = [
            self._session, self._status, self._progress, self._start, self._sample, self._shipped, self._cancel,
            self._files, self._results, self._labelled, self._measured, self._overview, self._contents,
            self._compared, self._figures, self._curves, self._failures,
            self._everything, self._report_file, self._predictions_file, self._metrics_file, *self._of_model(),
        ]  # fmt: skip
        loaded = self._sample.click(
            self._load_sample_set,
            [self._task],
            [self._files, self._task, self._models, self._missing],
            queue=False,
            show_progress="hidden",
            **PAGE_EVENT,
        )
        for start, is_shipped in (
            (self._start.click, False), (loaded.success, False), (self._shipped.click, True),
        ):  # fmt: skip
            run = start(
                partial(self._prepare, is_shipped),
                [self._files, self._session],
                shown,
                queue=False,
                show_progress="hidden",
                **PAGE_EVENT,
            ).then(
                self._run,
                [self._task, self._models, self._views, self._session],
                shown,
                show_progress="hidden",
                **PAGE_EVENT,
                **BATCH_EVENT,
            )
            run.failure(
                self._turn_away, [self._session], shown, queue=False, show_progress="hidden", **PAGE_EVENT
            )
        self._cancel.click(
            self._stop,
            [self._session],
            [self._status, self._cancel],
            queue=False,
            show_progress="hidden",
            **PAGE_EVENT,
        )
        look = partial(gr.on, outputs=[self._status, *self._of_model()], **_LOOK_EVENT)
        look(self._model.input, self._look_at, [self._session, self._model])
        look(self._rule.input, self._choose_rule, [self._session, self._rule])
        look(self._threshold.input, self._move, [self._session, self._threshold])
        parts = (self._matrix, self._gallery, self._viewer, self._compared, self._slices)
        look([part.select for part in parts], self._pick, [self._session])
        self._decide.click(
            self._make_decisions,
            [self._session],
            [self._decisions_file, self._status],
            show_progress="minimal",
            show_progress_on=self._decide,
            concurrency_limit=4,
            **PAGE_EVENT,
        ).then(None, [self._decisions_file], None, js=SAVE_FILE, **PAGE_EVENT)

    def _switch_task(self, task_key: str) -> Updates:
        return {
            self._models: gr.update(**self._model_choices(task_key)),
            self._missing: self._missing_html(task_key),
        }

    def _load_sample_set(self, task_key: str) -> Updates:
        """Puts the set into the box as if it was uploaded; of a conditional task it holds one class only."""
        switched: Updates = {}
        if is_conditional(self._zoo.task(task_key)):
            whole = next(task.key for task in self._zoo.tasks if not is_conditional(task))
            switched = {self._task: whole, **self._switch_task(whole)}
        return {self._files: [str(pack_sample_set())], **switched}

    def _prepare(self, is_shipped: bool, payload: Any, previous: Session | None) -> Updates:
        if previous is not None:
            previous.job.supersede()
        job = FilesJob.begin(None if is_shipped else payload)
        return {
            self._session: Session(job, is_shipped=is_shipped, cases=self._cases),
            self._status: status_html("Waiting for a free place …"),
            self._progress: "",
            self._start: gr.update(interactive=False),
            self._sample: gr.update(interactive=False),
            self._shipped: gr.update(interactive=False),
            self._cancel: gr.update(interactive=True),
            self._results: gr.update(visible=False),
        }

    def _stop(self, session: Session | None) -> Updates:
        if session is None:
            return {self._status: status_html(_EXPIRED)}
        session.job.stop()
        doing = "Stopping the measurements" if session.is_read else "Finishing the current images"
        return {
            self._status: status_html(f"{doing} …"),
            self._cancel: gr.update(interactive=False),
        }

    def _turn_away(self, session: Session | None) -> Updates:
        """What Gradio itself has refused, which its own note, that fades, says too."""
        has_begun = session is not None and session.job.has_begun
        if session is not None:
            session.job.supersede()
        return {
            self._session: None,
            self._status: failure_html(_CUT_OFF if has_begun else _BUSY),
            self._progress: "",
            **({self._files: None} if has_begun else {}),
            **self._idle(),
        }

    def _run(self, task: Any, models: Any, views: Any, session: Session | None) -> Iterator[Updates]:
        # Gradio empties the outputs of what yields nothing, and sends the last of what it yields once more.
        yield gr.skip()
        if session is None or not session.job.start():
            return
        try:
            for updates in self._steps(
                Order(session.job.payload, task, models, views, session.is_shipped), session
            ):
                if session.job.is_superseded:
                    break
                yield updates
        except Exception as error:
            if session.job.is_superseded:
                yield gr.skip()
                return
            failure = presentable(error)
            was_cancelled = failure.code == ErrorCode.CANCELLED
            yield {
                self._session: None,
                self._status: (status_html(failure.message) if was_cancelled else failure_html(failure)),
                self._progress: "",
                self._files: None,
                **self._idle(),
            }
        finally:
            session.job.finish()
        yield gr.skip()

    def _steps(self, order: Order, session: Session) -> Iterator[Updates]:
        for step in read_batch(self._zoo, order, session):
            if isinstance(step, str):
                yield {self._status: status_html(step)}
                continue
            if not step.done:
                yield {self._status: status_html("Reading the images … Cancel keeps the finished images.")}
            # Giving the session again keeps it from expiring.
            yield {self._session: session, self._progress: batch_tables.progress_html(step)}
        count = len(session.result.items)
        whole = Progress(count, count + session.result.missing, None, None)
        yield {
            self._session: session,
            **({} if session.is_shipped else {self._files: None}),
            self._progress: batch_tables.progress_html(whole),
            # It may have been pressed to end the reading.
            self._cancel: gr.update(interactive=True),
        }
        for sentence in evaluate_batch(session):
            if session.result.labelled and not session.job.is_ending:
                yield {self._status: status_html(f"{sentence} Cancel keeps the finished measurements.")}
        result = session.result
        yield {
            self._status: status_html("Drawing the curves …" if result.labelled else "Making the table …"),
            self._cancel: gr.update(interactive=False),
        }
        figures = draw_curves(result) if result.labelled else []
        yield {
            self._results: gr.update(visible=True),
            self._labelled: gr.update(visible=result.labelled),
            self._measured: gr.update(visible=result.labelled),
            self._overview: batch_tables.overview_html(result),
            self._contents: contents_html(session.parts()),
            self._compared: differences_html(session.comparison),
            self._failures: batch_tables.failures_html(result),
            self._status: status_html("The results are below. Preparing the downloads …"),
            **self._clear_files(),
            **self._show_figures(session, figures),
            **self._show_model(session),
        }
        folder = session.job.folder / "downloads"
        folder.mkdir()
        figures += draw_matrices(result, session.evaluations) if result.labelled else []
        files = write_files(result, session.evaluations, figures, folder, session.comparison)
        ending = "Cancelled. The images that were read are evaluated below." if result.missing else "Done."
        if session.is_unfinished:
            ending = "Cancelled. The finished measurements are below."
        deleted = "" if session.is_shipped else " The uploads have been deleted."
        yield {
            self._session: session,
            self._status: status_html(f"{ending}{deleted}"),
            **self._show_files(files),
            **self._idle(),
        }

    def _choose_rule(self, session: Session | None, rule: str) -> Updates:
        if session is None or not session.is_read:
            return {self._status: status_html(_EXPIRED)}
        session.decide_by(str(rule))
        # One's own threshold begins where the slider stands. Setting it would undo what is typed meanwhile.
        moved = {} if session.rule == OWN_THRESHOLD else self._slider(session)
        return {**self._show_decisions(session), **moved}

    def _move(self, session: Session | None, threshold: float) -> Updates:
        if session is None or not session.is_read:
            return {self._status: status_html(_EXPIRED)}
        session.decide_from(threshold)
        return {**self._show_decisions(session), self._rule: OWN_THRESHOLD}

    def _pick(self, session: Session | None, event: gr.EventData) -> Updates:
        if session is None or not session.is_read:
            return {self._status: status_html(_EXPIRED)}
        session.job.keep()
        picked = str((event._data or {}).get("pick"))
        if large := session.opened(picked):
            return {self._viewer: large}
        session.pick(picked)
        shown = {self._matrix: session.matrix()} if session.result.labelled else {}
        return {**shown, self._gallery: session.gallery()}

    def _make_decisions(self, session: Session | None) -> Updates:
        if session is None or not session.is_read:
            return {self._decisions_file: None, self._status: status_html(_EXPIRED)}
        session.job.keep()
        try:
            # A copy, since the visitor may move the threshold while it is written.
            return {self._decisions_file: str(write_decisions(copy(session), private_folder()))}
        except Exception as error:
            return {self._decisions_file: None, self._status: failure_html(presentable(error))}

    def _look_at(self, session: Session | None, model: str) -> Updates:
        if session is None or not session.is_read:
            return {self._status: status_html(_EXPIRED)}
        session.job.keep()
        session.look_at(str(model))
        return self._show_model(session)

    def _show_figures(self, session: Session, figures: list[DrawnFigure]) -> Updates:
        if not session.result.labelled:
            return {}
        return {
            self._figures: batch_tables.figures_html(session.evaluations),
            self._curves: batch_tables.curves_html(one.figure for one in figures),
        }

    def _show_model(self, session: Session) -> Updates:
        """All that belongs to the model that is looked at."""
        choices = session.model_choices()
        shown = {
            self._model: gr.update(choices=choices, value=session.model, visible=len(choices) > 1),
            self._table: session.table(),
        }
        if not session.result.labelled:
            return {**shown, self._strip: "", self._gallery: session.gallery()}
        session.decide_by(LIKELIEST)
        return {
            **shown,
            self._rule: gr.update(choices=session.rules(), value=LIKELIEST),
            self._slices: batch_tables.slices_html(session.evaluation()),
            self._trust: batch_tables.trust_html(session.evaluation()),
            **self._slider(session),
            **self._show_decisions(session),
        }

    def _slider(self, session: Session) -> Updates:
        score, target = session.score_name.lower(), session.result.task.name_in_text(session.target)
        label = f"Threshold: at or above this {score} the answer is “{target}”"
        return {self._threshold: gr.update(value=round(session.own_threshold, 3), label=label)}

    def _show_decisions(self, session: Session) -> Updates:
        """What moves with the threshold: no drawing and no resampling here."""
        session.job.keep()
        return {
            self._strip: session.strip(),
            self._matrix: session.matrix(),
            self._points: session.point_figures(),
            self._gallery: session.gallery(),
        }

    def _show_files(self, files: BatchFiles) -> Updates:
        offered = {
            self._everything: files.everything,
            self._predictions_file: files.predictions,
            self._metrics_file: files.metrics,
            self._report_file: files.report,
        }
        return {
            button: gr.update(
                value=path and str(path), interactive=path is not None, visible=path is not None
            )
            for button, path in offered.items()
        }

    def _clear_files(self) -> Updates:
        buttons = (self._everything, self._predictions_file, self._metrics_file, self._report_file)
        return {button: gr.update(value=None, interactive=False) for button in buttons}

    def _idle(self) -> Updates:
        return {
            self._start: gr.update(interactive=True),
            self._sample: gr.update(interactive=True),
            self._shipped: gr.update(interactive=True),
            self._cancel: gr.update(interactive=False),
        }
