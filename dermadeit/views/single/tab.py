"""The tab that reads one photo: label first, heatmap after it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import gradio as gr

from dermadeit.data.patient import read_patient
from dermadeit.errors import ConfigurationError
from dermadeit.inference.decision import OWN_THRESHOLD, DecisionSettings
from dermadeit.inference.predictor import Predictor
from dermadeit.inference.zoo import tasks_of
from dermadeit.tasks import get_task
from dermadeit.views.page.case_pictures import case_folder
from dermadeit.views.page.events import INSTANT_EVENT, LATEST_EVENT, MODEL_EVENT, PAGE_EVENT, Updates
from dermadeit.views.page.failures import presentable
from dermadeit.views.page.html import NO_READING, failure_html, status_html
from dermadeit.views.page.photo_box import PhotoBox
from dermadeit.views.page.pickers import PhotoPanel
from dermadeit.views.page.scripts import ANNOUNCE
from dermadeit.views.page.theme import RESULT_SCRIPT
from dermadeit.views.page.uploads import CACHE_SECONDS, discard, open_photo, source_of, store_png
from dermadeit.views.single.answer_card import announcement, is_hidden, no_result_html, result_html
from dermadeit.views.single.decision_controls import DecisionControls
from dermadeit.views.single.downloads import Downloads
from dermadeit.views.single.heatmap import HeatmapPanel, class_choices, no_heatmap_html
from dermadeit.views.single.image_check import check_html, no_check_html
from dermadeit.views.single.reading import (
    Reading,
    add_heatmap,
    answer_all_tasks,
    read_labels,
    with_patient,
)
from dermadeit.views.single.similar_cases import cases_html
from dermadeit.views.single.turn import Turn, Visit

_STOPPED = "Stopped. Choose a class to draw its heatmap."


_Source = tuple[Any, Callable[..., Updates], Callable[..., Iterator[Updates]], list[PhotoBox]]
"""Trigger of a new photo, what takes the old result away, what reads the photo, and the inputs of both."""


class SingleImageTab:
    """Layout and events of the tab. One instance serves every visitor: what belongs to one is in `gr.State`.

    Args:
        predictors: Task key to predictor, for every task.
    """

    def __init__(self, predictors: Mapping[str, Predictor]) -> None:
        self._predictors, self._tasks = predictors, tasks_of(predictors)
        self._calibrations = {key: predictor.checkpoint.calibration for key, predictor in predictors.items()}
        self._controls = DecisionControls(self._tasks, self._calibrations)
        self.heatmap = HeatmapPanel(predictors)
        self._input = PhotoPanel(tuple(self._tasks.values()))
        self.downloads = Downloads(predictors, self._controls, self.heatmap)
        self._case_folder = case_folder()
        self._has_context = any(
            predictor.checkpoint.patient_context is not None for predictor in predictors.values()
        )

    def render(self) -> None:
        """Adds the tab to the Blocks that is being built."""
        self.visit = gr.State(Visit(), time_to_live=CACHE_SECONDS)
        with gr.Row(elem_classes="dd-columns", equal_height=False):
            with gr.Column(scale=5, min_width=300, elem_classes="dd-input"):
                self._input.render_photo()
                self.heatmap.render()
                if self._has_context:
                    self._render_patient()
                self._input.render_examples()
            with gr.Column(scale=6, min_width=300, elem_classes="dd-output"):
                self._render_output()
        self._connect()

    def _render_patient(self) -> None:
        with gr.Row(elem_classes="dd-controls"):
            self._age = gr.Textbox(label="Age in years (optional)", max_lines=1, elem_id="age", min_width=150)
            self._sex = gr.Dropdown(
                [("Not given", ""), ("Female", "female"), ("Male", "male")],
                value="",
                label="Sex (optional)",
                elem_id="sex",
                min_width=150,
            )

    def _render_output(self) -> None:
        with gr.Row(elem_classes="dd-status-row"):
            self.status = gr.HTML(status_html("Ready."), elem_id="status", min_height=28, js_on_load=ANNOUNCE)
            self.stop = gr.Button("Stop", interactive=False, elem_id="stop", size="sm", scale=0, min_width=72)
        self._controls.render()
        script = RESULT_SCRIPT.read_text(encoding="utf-8")
        self.result = gr.HTML(no_result_html("empty"), elem_id="result", min_height=330, js_on_load=script)
        self._controls.render_override()
        self.downloads.render()
        self._check = gr.HTML(no_check_html(), elem_id="check")
        self._cases = gr.HTML("", visible=False, elem_id="cases")

    def _connect(self) -> None:
        heatmap, controls = self.heatmap, self._controls
        shown = [
            self.visit, self.status, self.stop, self.result, *heatmap.outputs,
            heatmap.chosen_class, self._check, self._cases, *self.downloads.outputs,
        ]  # fmt: skip
        here = [self.visit, self._input.task]
        drawn = [self.visit, *heatmap.outputs, heatmap.chosen_class, self.status]
        for trigger, decide in (
            (controls.operating_point.input, self.choose_point),
            (controls.threshold.input, self.move_threshold),
            (controls.prevalence.input, self.choose_point),
        ):
            trigger(
                decide,
                [*here, *controls.inputs],
                [self.visit, self.status, self.result, controls.operating_point, controls.threshold],
                **INSTANT_EVENT,
            )
        if self._has_context:
            gr.on(
                [self._age.blur, self._age.submit, self._sex.input],
                self.take_patient,
                [*here, self._age, self._sex, *controls.inputs],
                [self.visit, self.status, self.result],
                **INSTANT_EVENT,
            )
        redraw = partial(
            gr.on,
            fn=self.redraw,
            inputs=[self.visit, heatmap.chosen_class, heatmap.method],
            outputs=drawn,
            **LATEST_EVENT,
        )
        # What takes no pass through a model is shown at once; only then is what is missing drawn, in the queue.
        for shown_at_once in (
            redraw(heatmap.chosen_class.input),
            redraw(heatmap.method.input),
            controls.override.input(
                self.override,
                [*here, *controls.inputs, heatmap.method],
                [*shown, controls.override],
                **INSTANT_EVENT,
            ),
            self._input.task.input(
                self.switch_task,
                [*here, self._input.photo, *controls.inputs, heatmap.method],
                # Not the photo: an answer for it would replace one that was sent meanwhile.
                [*shown, *controls.outputs],
                **INSTANT_EVENT,
            ),
        ):
            shown_at_once.then(
                self.draw_wanted,
                [self.visit],
                drawn,
                **LATEST_EVENT,
                **MODEL_EVENT,
            )
        controls.connect(self._input.task)
        self.stop.click(self.end, [self.visit], [self.stop, self.status], **INSTANT_EVENT)
        self.downloads.connect(self.visit, self._input.task, self.status)
        self._input.photo.clear(
            partial(self.clear, None),
            [*here, *controls.inputs],
            [*shown, controls.override],
            **INSTANT_EVENT,
        )
        # First everything old is taken away, outside the queue; only then is the new photo read.
        sources: list[_Source] = [(self._input.photo.upload, self.clear, self.read, [self._input.photo])]
        for path, button in self._input.examples:
            example = {"path": str(path)}
            sources.append((button.click, partial(self.clear, example), partial(self.read, example), []))
        for trigger, clear, read, inputs in sources:
            cleared = trigger(
                clear,
                [*inputs, *here, *controls.inputs],
                [*shown, controls.override],
                queue=False,
                trigger_mode="multiple",
                show_progress="hidden",
                **PAGE_EVENT,
            )
            cleared.then(
                read,
                [*inputs, self.visit, heatmap.method],
                [*shown, self._input.photo, controls.override],
                trigger_mode="multiple",
                show_progress="minimal",
                show_progress_on=self.result,
                **PAGE_EVENT,
                **MODEL_EVENT,
            )

    def clear(self, payload: Any, visit: Visit, task_key: str, *controls: Any) -> Updates:
        """Takes the result of the last photo away, before the next one is read."""
        if visit.turn is not None:
            visit.turn.job.supersede()
        settings = replace(self._controls.read_settings(*controls), override=False)
        visit.turn = turn = Turn(source_of(payload), task_key, settings, patient=visit.patient)
        if turn.source is None:
            return {self.visit: visit, **self._show_nothing()}
        return {
            self.visit: visit,
            **self._clear_result(),
            self.status: status_html(self._first_status()),
            self.stop: gr.update(interactive=True),
            self.result: no_result_html("reading"),
        }

    def read(self, payload: Any, visit: Visit, method: Any) -> Iterator[Updates]:
        """Reads the photo: the answer first, then its heatmap and the test of it."""
        # A generator that yields nothing empties its outputs, and what it yields last is sent again at its end.
        yield gr.skip()
        turn = visit.turn
        source = source_of(payload)
        if turn is None or source is None or source != turn.source or not turn.job.start():
            discard(payload)
        else:
            turn.method = self.heatmap.known_method(method)
            with closing(self._read_in_steps(payload, turn)) as steps:
                for updates in steps:
                    if turn.job.is_superseded:
                        break
                    yield updates
        yield gr.skip()

    def _read_in_steps(self, payload: Any, turn: Turn) -> Generator[Updates, None, None]:
        try:
            with open_photo(payload) as photo:
                turn.reading = reading = read_labels(self._predictors, photo, turn.task_key)
                shown = {self._input.photo: store_png(reading.preview.pixels)}
                # Another task may have been chosen since.
                yield {**shown, **self._show_answer(turn)} if turn.has_answer else shown
                yield from self._draw_missing(turn)
                rest = answer_all_tasks(turn.require_reading(), self._predictors, photo, self._case_folder)
                yield from _keep_steps(rest, turn)
            yield self._show_answer(turn) if turn.is_due else self._announce(turn)
            yield from self._draw_missing(turn)
            yield self._finish(turn)
        except Exception as error:
            turn.reading, turn.class_key = None, None
            turn.job.finish()
            yield {self._input.photo: None, **self._show_failure(error)}

    def _first_status(self) -> str:
        if all(predictor.runtime.is_ready for predictor in self._predictors.values()):
            return "Reading the photo …"
        return "The model is being loaded. Then the photo is read …"

    def _finish(self, turn: Turn) -> Updates:
        turn.job.finish()
        idle = {self.stop: gr.update(interactive=False)}
        if not turn.is_map_missing:
            return {**idle, self.status: self._progress(turn)}
        # No heatmap without its test: it is drawn when it is asked for.
        turn.class_key = None
        return {
            **idle,
            **self.heatmap.clear_figure(no_heatmap_html("stopped")),
            self.heatmap.chosen_class: None,
            self.status: self._progress(turn, _STOPPED),
        }

    def end(self, visit: Visit) -> Updates:
        """Stops what is being read after the step that it is in."""
        if visit.turn is None or not visit.turn.is_running:
            return gr.skip()
        # The reading itself says when it has stopped: its last step may still be on its way to the page.
        visit.turn.job.stop()
        return {
            self.stop: gr.update(interactive=False),
            self.status: status_html("Stopping after this step …"),
        }

    def switch_task(self, visit: Visit, task_key: str, payload: Any, *rest: Any) -> Updates:
        """Shows the answer of the other task."""
        *controls, method = rest
        turn, settings = visit.turn, self._controls.read_settings(*controls)
        updates = {
            self.visit: visit,
            **self._controls.for_task(task_key, settings),
            self.heatmap.chosen_class: gr.update(
                choices=class_choices(get_task(task_key, self._tasks)), value=None
            ),
        }
        if turn is None:
            # The page may still show what has expired; without a photo on it there is nothing to take away.
            gone = {**self._show_nothing(), self.status: status_html(NO_READING)}
            return updates if payload is None else {**gone, **updates}
        turn.task_key, turn.settings, turn.class_key = task_key, settings.for_other_task(), None
        return updates | self._show_at_once(turn, method)

    def override(self, visit: Visit, task_key: str, *rest: Any) -> Updates:
        """Shows or hides a withheld answer."""
        *controls, method = rest
        settings = self._controls.read_settings(*controls)
        updates = self._decide(visit, task_key, settings)
        return (updates | self._show_at_once(visit.turn, method) if visit.turn else updates) or gr.skip()

    def _show_at_once(self, turn: Turn, method: Any) -> Updates:
        """All that is known, of which only the heatmap may be missing; or that the answer will be shown."""
        if turn.job.is_superseded or turn.reading is None:
            return {}
        try:
            turn.method = self.heatmap.known_method(method)
            if turn.has_answer:
                return self._show_answer(turn)
            turn.is_due = True
            reading = status_html("Reading the photo for the other task …")
            return {**self.downloads.enable(False), **self.heatmap.clear_figure(), self.status: reading}
        except Exception as error:
            return self._show_failure(error)

    def choose_point(self, visit: Visit, task_key: str, *controls: Any) -> Updates:
        """Decides at the operating point or the prevalence that was chosen."""
        settings = self._controls.read_settings(*controls)
        return (
            self._decide(visit, task_key, settings) | self._controls.at_point(task_key, settings) or gr.skip()
        )

    def move_threshold(self, visit: Visit, task_key: str, _: Any, *controls: Any) -> Updates:
        """Decides at the threshold that was moved."""
        settings = self._controls.read_settings(OWN_THRESHOLD, *controls)
        return self._decide(visit, task_key, settings) | {self._controls.operating_point: OWN_THRESHOLD}

    def take_patient(self, visit: Visit, task_key: str, age: Any, sex: Any, *controls: Any) -> Updates:
        """Adds the answer with age and sex as they were entered; what can't be meant takes an earlier one away."""
        failure: Updates = {}
        try:
            patient = read_patient(age, sex)
        except ConfigurationError as error:
            patient, failure = None, {self.status: failure_html(presentable(error))}
        if patient == visit.patient:
            return failure or gr.skip()
        visit.patient = patient
        if visit.turn is None:
            return {self.visit: visit, self.status: status_html("Ready."), **failure}
        visit.turn.patient = patient
        return self._decide(visit, task_key, self._controls.read_settings(*controls)) | failure

    def _decide(self, visit: Visit, task_key: str, settings: DecisionSettings) -> Updates:
        turn = visit.turn
        if turn is None:
            return {self.status: status_html(NO_READING)}
        turn.settings = settings
        updates: Updates = {self.visit: visit}
        if turn.job.is_superseded or task_key != turn.task_key or not turn.has_answer:
            return updates
        try:
            reading = with_patient(turn.require_reading(), self._predictors, turn.patient)
            updates[self.result] = result_html(reading, task_key, self._calibrations, settings)
            updates[self.status] = self._progress(turn)
        except Exception as error:
            updates[self.status] = failure_html(presentable(error))
        return updates

    def redraw(self, visit: Visit, value: str | None, method: Any) -> Updates:
        """Shows the heatmap of another class or method."""
        turn = visit.turn
        if turn is None:
            return {self.status: status_html(NO_READING)}
        task_key, _, class_key = (value or "").partition("/")
        try:
            turn.method = self.heatmap.known_method(method)
            if task_key != turn.task_key or not turn.has_answer:
                return gr.skip()
            get_task(task_key, self._tasks).index_of(class_key)
            turn.class_key = class_key
            return {
                self.visit: visit,
                **self.heatmap.for_class(turn.require_reading(), task_key, class_key, turn.method),
                self.status: self._progress(turn),
            }
        except Exception as error:
            return self._show_missing_map(error)

    def draw_wanted(self, visit: Visit) -> Iterator[Updates]:
        """Draws and tests the heatmap that was chosen, where it is missing."""
        yield gr.skip()
        turn = visit.turn
        # While the photo is being read, its reading draws what is wanted.
        if turn is not None and not turn.is_running and turn.is_map_missing:
            for updates in self._draw(turn):
                yield {self.visit: visit, **updates}
        yield gr.skip()

    def _draw_missing(self, turn: Turn) -> Iterator[Updates]:
        """Draws and checks the heatmap that is to be seen, and any that is chosen in its place meanwhile."""
        while turn.is_map_missing and not turn.job.is_ending:
            yield from self._draw(turn)

    def _draw(self, turn: Turn) -> Iterator[Updates]:
        """Draws the heatmap that is to be seen and then checks it, unless another one is chosen meanwhile."""
        wanted = turn.wanted
        for checked in (False, True):
            if wanted is None or turn.wanted != wanted or turn.job.is_ending:
                return
            try:
                turn.reading = reading = add_heatmap(
                    turn.require_reading(), self._predictors, *wanted, checked=checked
                )
                shown = (
                    self.heatmap.verdict(reading, *wanted)
                    if checked
                    else self.heatmap.for_class(reading, *wanted)
                )
            except Exception as error:
                if turn.wanted == wanted:
                    turn.class_key = None
                    yield self._show_missing_map(error)
                return
            if turn.wanted == wanted and not turn.job.is_superseded:
                yield {**shown, self.status: self._progress(turn)}

    def _show_missing_map(self, error: Exception) -> Updates:
        failure = failure_html(presentable(error))
        return {
            **self.heatmap.clear_figure(failure),
            self.heatmap.chosen_class: None,
            self.status: failure,
        }

    def _show_answer(self, turn: Turn) -> Updates:
        """All that belongs to the answer of the chosen task, with the heatmap that is shown unasked."""
        reading = turn.require_reading()
        answer = reading.predictions[turn.task_key]
        turn.class_key = None if is_hidden(answer, turn.settings) else answer.label
        turn.is_due = False
        return {
            **self._announce(turn),
            **self.heatmap.for_class(reading, turn.task_key, turn.class_key, turn.method),
            self.heatmap.chosen_class: gr.update(
                choices=class_choices(reading.tasks[turn.task_key]),
                value=turn.class_key and f"{turn.task_key}/{turn.class_key}",
            ),
            **self.downloads.enable(True),
            self.stop: gr.update(interactive=turn.is_running and not turn.job.is_ending),
            self.status: self._progress(turn),
        }

    def _announce(self, turn: Turn) -> Updates:
        reading, task_key, settings = turn.require_reading(), turn.task_key, turn.settings
        reading = with_patient(reading, self._predictors, turn.patient)
        cases = cases_html(reading, task_key, settings)
        return {
            self.result: result_html(reading, task_key, self._calibrations, settings),
            self._check: check_html(reading, task_key),
            self._cases: gr.update(value=cases, visible=bool(cases)),
            **self._controls.for_reading(reading, task_key),
        }

    def _progress(self, turn: Turn, done: str = "Done.") -> str:
        """The status line: what is being done, or the result in a sentence."""
        reading = turn.require_reading()
        if turn.is_map_missing:
            is_drawn = (turn.method, turn.class_key) in reading.maps.get(turn.task_key, {})
            doing = "Checking the heatmap …" if is_drawn else "Drawing the heatmap …"
        elif turn.is_running:
            doing = "Reading the photo for the other task …"
        else:
            answer = announcement(reading, turn.task_key, self._calibrations, turn.settings)
            return status_html(f"{done} {answer}")
        return status_html(f"The answer is ready. {doing}")

    def _show_nothing(self) -> Updates:
        return {
            self.status: status_html("Ready."),
            self.result: no_result_html("empty"),
            **self._clear_result(),
        }

    def _show_failure(self, error: Exception) -> Updates:
        return {
            self.status: failure_html(presentable(error)),
            self.result: no_result_html("failed"),
            **self._clear_result(),
        }

    def _clear_result(self) -> Updates:
        return {
            self.stop: gr.update(interactive=False),
            self._check: no_check_html(),
            self._cases: gr.update(value="", visible=False),
            **self.downloads.enable(False),
            **self.heatmap.clear(),
            **self._controls.reset(),
        }


def _keep_steps(readings: Iterator[Reading], turn: Turn) -> Iterator[Updates]:
    """Keeps each step of a reading; a visitor who has gone is noticed between two of them."""
    for turn.reading in readings:
        yield gr.skip()
