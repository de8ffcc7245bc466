"""The tab that reads one photo: label first, heatmap after it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial
from typing import Any

import gradio as gr

from dermadeit.inference.decision import OWN_THRESHOLD, Choice
from dermadeit.inference.predictor import Predictor
from dermadeit.tasks import get_task
from dermadeit.views.page import html as cards
from dermadeit.views.page.case_pictures import case_folder
from dermadeit.views.page.events import INSTANT_EVENT, LATEST_EVENT, MODEL_EVENT, PAGE_EVENT, Updates
from dermadeit.views.page.failures import presentable
from dermadeit.views.page.pickers import PhotoPanel
from dermadeit.views.page.scripts import ANNOUNCE
from dermadeit.views.page.uploads import CACHE_SECONDS, discard, opened_photo, source_of, store_png
from dermadeit.views.single.answer_card import FOLLOW_LINKS, announcement, is_hidden, result_html
from dermadeit.views.single.decision_controls import DecisionControls
from dermadeit.views.single.downloads import Downloads
from dermadeit.views.single.heatmap import HeatmapPanel, class_choices
from dermadeit.views.single.image_check import check_html
from dermadeit.views.single.reading import Reading, answered, explained, read_labels, with_map
from dermadeit.views.single.similar_cases import cases_html
from dermadeit.views.single.turn import Turn, Visit

_STOPPED = "Stopped. Choose a class to draw another heatmap."


class SingleImageTab:
    """Layout and events of the tab. One instance serves every visitor: what belongs to one is in `gr.State`.

    Args:
        predictors: Task key to predictor, for every task.
    """

    def __init__(self, predictors: Mapping[str, Predictor]) -> None:
        self._predictors = predictors
        self._calibrations = {key: predictor.checkpoint.calibration for key, predictor in predictors.items()}
        self._controls = DecisionControls(self._calibrations)
        self._heatmap = HeatmapPanel(predictors)
        self._input = PhotoPanel()
        self._downloads = Downloads(predictors, self._controls, self._heatmap)
        self._case_folder = case_folder()

    def render(self) -> None:
        """Adds the tab to the Blocks that is being built."""
        self._visit = gr.State(Visit(), time_to_live=CACHE_SECONDS)
        with gr.Row(elem_classes="dd-columns", equal_height=False):
            with gr.Column(scale=5, min_width=300, elem_classes="dd-input"):
                self._input.render()
                self._check = gr.HTML(cards.EMPTY_CHECK, elem_id="check", min_height=190)
                self._cases = gr.HTML("", visible=False, elem_id="cases")
            with gr.Column(scale=6, min_width=300, elem_classes="dd-output"):
                self._render_output()
        self._connect()

    def _render_output(self) -> None:
        with gr.Row(elem_classes="dd-status-row"):
            self._status = gr.HTML(
                cards.status_html("Ready."), elem_id="status", min_height=28, js_on_load=ANNOUNCE
            )
            self._stop = gr.Button(
                "Stop", interactive=False, elem_id="stop", size="sm", scale=0, min_width=72
            )
        self._result = gr.HTML(cards.EMPTY_RESULT, elem_id="result", min_height=330, js_on_load=FOLLOW_LINKS)
        self._controls.render_override()
        self._controls.render()
        self._heatmap.render()
        self._downloads.render()

    def _connect(self) -> None:
        heatmap, controls = self._heatmap, self._controls
        shown = [
            self._visit, self._status, self._stop, self._result, *heatmap.outputs,
            heatmap.chosen_class, self._check, self._cases, *self._downloads.outputs,
        ]  # fmt: skip
        here = [self._visit, self._input.task]
        seen = [heatmap.method, heatmap.opacity]
        drawn = [self._visit, *heatmap.outputs, self._status]
        for trigger, decide in (
            (controls.operating_point.input, self._choose_point),
            (controls.threshold.input, self._move_threshold),
            (controls.prevalence.input, self._decide),
        ):
            trigger(
                decide,
                [*here, *controls.inputs],
                [self._visit, self._status, self._result, controls.operating_point, controls.threshold],
                **INSTANT_EVENT,
            )
        redraw = partial(
            gr.on,
            fn=self._redraw,
            inputs=[self._visit, heatmap.chosen_class, *seen],
            outputs=drawn,
            **LATEST_EVENT,
        )
        redraw(heatmap.opacity.input)
        # What takes no pass through a model is shown at once; only then is what is missing drawn, in the queue.
        for shown_at_once in (
            redraw(heatmap.chosen_class.input),
            redraw(heatmap.method.input),
            controls.override.input(
                self._override, [*here, *controls.inputs, *seen], [*shown, controls.override], **INSTANT_EVENT
            ),
            self._input.task.input(
                self._switch_task,
                [*here, self._input.photo, *controls.inputs, *seen],
                # Not the photo: even an empty answer for it makes the browser drop an upload on its way.
                [*shown, *controls.outputs],
                **INSTANT_EVENT,
            ),
        ):
            shown_at_once.then(
                self._draw_wanted,
                [self._visit, heatmap.opacity],
                drawn,
                **LATEST_EVENT,
                **MODEL_EVENT,
            )
        controls.connect(self._input.task)
        self._stop.click(self._end, [self._visit], [self._stop, self._status], **INSTANT_EVENT)
        self._downloads.connect(self._visit, self._input.task, self._status)
        # The page's input event of a photo that is taken away still carries that photo.
        self._input.photo.clear(
            partial(self._clear, None),
            [*here, *controls.inputs],
            [*shown, controls.override],
            **INSTANT_EVENT,
        )
        # First everything old is taken away, outside the queue; only then is the new photo read.
        sources = [(self._input.photo.upload, self._clear, self._read, [self._input.photo])]
        for path, button in self._input.examples:
            example = {"path": str(path)}
            sources.append((button.click, partial(self._clear, example), partial(self._read, example), []))
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
                [*inputs, self._visit, *seen],
                [*shown, self._input.photo, controls.override],
                trigger_mode="multiple",
                show_progress="minimal",
                show_progress_on=self._result,
                **PAGE_EVENT,
                **MODEL_EVENT,
            )

    def _clear(self, payload: Any, visit: Visit, task_key: str, *controls: Any) -> Updates:
        if visit.turn is not None:
            visit.turn.is_over = True
        *kept, _ = controls
        visit.turn = turn = Turn(source_of(payload), task_key, self._controls.choice(*kept, False))
        if turn.source is None:
            return {self._visit: visit, **self._nothing_read()}
        turn.is_running = True
        return {
            self._visit: visit,
            **self._without_result(),
            self._status: cards.status_html("Reading the photo …"),
            self._stop: gr.update(interactive=True),
            self._result: cards.READING_RESULT,
        }

    def _read(self, payload: Any, visit: Visit, method: Any, opacity: float) -> Iterator[Updates]:
        # A generator that yields nothing empties its outputs, and what it yields last is sent again at its end.
        yield gr.skip()
        turn = visit.turn
        if turn is None or turn.source is None or turn.source != source_of(payload):
            discard(payload)
        else:
            with closing(
                self._read_in_steps(payload, turn, self._heatmap.known_method(method), opacity)
            ) as steps:
                for updates in steps:
                    if turn.is_over:
                        break
                    yield updates
        yield gr.skip()

    def _read_in_steps(self, payload: Any, turn: Turn, method: str, opacity: float) -> Iterator[Updates]:
        try:
            with opened_photo(payload) as photo:
                task_key = turn.task_key
                turn.reading = reading = read_labels(self._predictors, photo, task_key)
                yield {
                    self._input.photo: store_png(reading.preview.pixels),
                    **self._told(reading, task_key, turn.choice),
                    self._status: cards.status_html("The answer is ready. Drawing the heatmap …"),
                }
                first = self._first_class(reading, task_key, turn.choice)
                for checked in (False, True) if first else ():
                    turn.reading = reading = with_map(
                        reading, self._predictors, task_key, first, method, checked=checked
                    )
                    if turn.task_key == task_key:
                        yield self._heatmap.for_class(reading, task_key, first, method, opacity)
                yield from _kept(answered(reading, self._predictors, photo, self._case_folder), turn)
            drawing = cards.status_html("The answer is ready. Drawing the heatmaps of the other classes …")
            yield {**self._told(turn.reading, turn.task_key, turn.choice), self._status: drawing}
            yield from _kept(explained(turn.reading, self._predictors, method), turn, stoppable=True)
            # Meanwhile another task may have been chosen, or the answer overridden.
            if first := self._first_class(turn.reading, turn.task_key, turn.choice):
                turn.reading = with_map(turn.reading, self._predictors, turn.task_key, first, method)
            turn.is_running = False
            yield self._shown(turn, method, opacity, _STOPPED if turn.is_stopping else "Done.")
        except Exception as error:
            turn.reading, turn.is_running = None, False
            yield {self._input.photo: None, **self._failed(error)}

    def _end(self, visit: Visit) -> Updates:
        if visit.turn is None or not visit.turn.is_running:
            return gr.skip()
        # The reading itself says when it has stopped: its last step may still be on its way to the page.
        visit.turn.is_stopping = True
        return {
            self._stop: gr.update(interactive=False),
            self._status: cards.status_html("Stopping after this step …"),
        }

    def _switch_task(self, visit: Visit, task_key: str, payload: Any, *rest: Any) -> Updates:
        *controls, method, opacity = rest
        turn, choice = visit.turn, self._controls.choice(*controls)
        updates = {
            self._visit: visit,
            **self._controls.for_task(task_key, choice),
            self._heatmap.chosen_class: gr.update(choices=class_choices(task_key), value=None),
        }
        if turn is None:
            # The page may still show what has expired; without a photo on it there is nothing to take away.
            gone = {**self._nothing_read(), self._status: cards.status_html(cards.NO_READING)}
            return updates if payload is None else {**gone, **updates}
        turn.task_key, turn.choice = task_key, choice.for_other_task()
        return updates | self._shown_at_once(turn, method, opacity)

    def _override(self, visit: Visit, task_key: str, *rest: Any) -> Updates:
        *controls, method, opacity = rest
        choice = self._controls.choice(*controls)
        updates = self._decided(visit, task_key, choice)
        return (
            updates | self._shown_at_once(visit.turn, method, opacity) if visit.turn else updates
        ) or gr.skip()

    def _shown_at_once(self, turn: Turn, method: Any, opacity: float) -> Updates:
        """All that is known, of which only the heatmap may be missing; nothing while the photo is being read."""
        if turn.is_over or turn.is_running or turn.reading is None:
            return {}
        try:
            return self._shown(turn, self._heatmap.known_method(method), opacity)
        except Exception as error:
            return self._failed(error)

    def _choose_point(self, visit: Visit, task_key: str, *controls: Any) -> Updates:
        choice = self._controls.choice(*controls)
        return self._decided(visit, task_key, choice) | self._controls.at_point(task_key, choice) or gr.skip()

    def _move_threshold(self, visit: Visit, task_key: str, _: Any, *controls: Any) -> Updates:
        choice = self._controls.choice(OWN_THRESHOLD, *controls)
        return self._decided(visit, task_key, choice) | {self._controls.operating_point: OWN_THRESHOLD}

    def _decide(self, visit: Visit, task_key: str, *controls: Any) -> Updates:
        return self._decided(visit, task_key, self._controls.choice(*controls)) or gr.skip()

    def _decided(self, visit: Visit, task_key: str, choice: Choice) -> Updates:
        turn = visit.turn
        if turn is None:
            return {self._status: cards.status_html(cards.NO_READING)}
        turn.choice = choice
        updates: Updates = {self._visit: visit}
        if turn.reading is None or task_key not in turn.reading.predictions or turn.is_over:
            return updates
        try:
            updates[self._result] = result_html(turn.reading, task_key, self._calibrations, choice)
            updates[self._status] = self._done(turn.reading, task_key, choice)
        except Exception as error:
            updates[self._status] = cards.failure_html(presentable(error))
        return updates

    def _redraw(self, visit: Visit, value: str | None, method: Any, opacity: float) -> Updates:
        turn = visit.turn
        if turn is None:
            return {self._status: cards.status_html(cards.NO_READING)}
        task_key, _, class_key = (value or "").partition("/")
        if visit.reading is None or task_key != turn.task_key:
            return gr.skip()
        try:
            get_task(task_key).index_of(class_key)
            turn.wanted = task_key, class_key, self._heatmap.known_method(method)
            return {self._visit: visit, **self._seen(turn, opacity)}
        except Exception as error:
            return self._undrawn(error)

    def _draw_wanted(self, visit: Visit, opacity: float) -> Iterator[Updates]:
        yield gr.skip()
        turn = visit.turn
        if turn is not None and visit.reading is not None and turn.wanted is not None:
            task_key, class_key, method = wanted = turn.wanted
            if (method, class_key) not in visit.reading.checks.get(task_key, {}):
                try:
                    turn.reading = with_map(visit.reading, self._predictors, task_key, class_key, method)
                    updates = {self._visit: visit, **self._seen(turn, opacity)}
                except Exception as error:
                    updates = self._undrawn(error)
                if turn.wanted == wanted and not turn.is_over:
                    yield updates
        yield gr.skip()

    def _seen(self, turn: Turn, opacity: float) -> Updates:
        """The heatmap that is wanted as far as it was drawn, and what is being done about it."""
        task_key, class_key, method = turn.wanted
        is_checked = (method, class_key) in turn.reading.checks.get(task_key, {})
        done = self._done(turn.reading, turn.task_key, turn.choice)
        return {
            **self._heatmap.for_class(turn.reading, task_key, class_key, method, opacity),
            self._status: done if is_checked else cards.status_html("Drawing the heatmap and checking it …"),
        }

    def _undrawn(self, error: Exception) -> Updates:
        return {**self._heatmap.without_figure(), self._status: cards.failure_html(presentable(error))}

    def _first_class(self, reading: Reading, task_key: str, choice: Choice) -> str | None:
        """The class whose heatmap is shown unasked: that of the answer, none where it is withheld."""
        answer = reading.predictions[task_key]
        return None if is_hidden(answer, choice) else answer.label

    def _shown(self, turn: Turn, method: str, opacity: float, opening: str = "Done.") -> Updates:
        reading, task_key, choice = turn.reading, turn.task_key, turn.choice
        first = self._first_class(reading, task_key, choice)
        turn.wanted = None if first is None else (task_key, first, method)
        return {
            **self._told(reading, task_key, choice),
            **self._heatmap.for_class(reading, task_key, first, method, opacity),
            self._heatmap.chosen_class: gr.update(
                choices=class_choices(task_key), value=first and f"{task_key}/{first}"
            ),
            **self._downloads.enabled(True),
            self._stop: gr.update(interactive=False),
            self._status: self._done(reading, task_key, choice, opening),
        }

    def _told(self, reading: Reading, task_key: str, choice: Choice) -> Updates:
        cases = cases_html(reading, task_key, choice)
        return {
            self._result: result_html(reading, task_key, self._calibrations, choice),
            self._check: check_html(reading, task_key),
            self._cases: gr.update(value=cases, visible=bool(cases)),
            **self._controls.for_reading(reading, task_key),
        }

    def _done(self, reading: Reading, task_key: str, choice: Choice, opening: str = "Done.") -> str:
        return cards.status_html(f"{opening} {announcement(reading, task_key, self._calibrations, choice)}")

    def _nothing_read(self) -> Updates:
        return {
            self._status: cards.status_html("Ready."),
            self._result: cards.EMPTY_RESULT,
            **self._without_result(),
        }

    def _failed(self, error: Exception) -> Updates:
        return {
            self._status: cards.failure_html(presentable(error)),
            self._result: cards.FAILED_RESULT,
            **self._without_result(),
        }

    def _without_result(self) -> Updates:
        return {
            self._stop: gr.update(interactive=False),
            self._check: cards.EMPTY_CHECK,
            self._cases: gr.update(value="", visible=False),
            **self._downloads.enabled(False),
            **self._heatmap.without_reading(),
            **self._controls.without_reading(),
        }


def _kept(readings: Iterator[Reading], turn: Turn, *, stoppable: bool = False) -> Iterator[Updates]:
    """Keeps each step of a reading; a visitor who has gone, or stops it, is noticed between two of them."""
    for turn.reading in readings:
        yield gr.skip()
        if stoppable and turn.is_stopping:
            break
