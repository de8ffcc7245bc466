"""The tab that reads one photo: label first, heatmap after it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import gradio as gr

from dermadeit.predictor import Predictor
from dermadeit.views import cards
from dermadeit.views.answer_card import announcement, is_hidden, result_html
from dermadeit.views.case_pictures import case_folder
from dermadeit.views.decision import OWN_THRESHOLD, Choice
from dermadeit.views.decision_controls import DecisionControls
from dermadeit.views.downloads import Downloads
from dermadeit.views.failures import presentable
from dermadeit.views.heatmap import HeatmapPanel, class_choices
from dermadeit.views.image_check import check_html
from dermadeit.views.page_scripts import ANNOUNCE
from dermadeit.views.photo_panel import PhotoPanel
from dermadeit.views.reading import Reading, complete, read_labels, with_map
from dermadeit.views.similar_cases import cases_html
from dermadeit.views.turn import Turn
from dermadeit.views.uploads import CACHE_SECONDS, opened_photo, store_png

# Events that share a model share one queue: by default the limit would hold for each event by itself.
MODEL_EVENT: Mapping[str, Any] = MappingProxyType({"concurrency_id": "model", "concurrency_limit": 2})
_PAGE_EVENT: Mapping[str, Any] = MappingProxyType({"api_visibility": "private", "preprocess": False})
# Arithmetic on what is there already must not wait behind anybody's photo.
_INSTANT_EVENT: Mapping[str, Any] = MappingProxyType(
    {"queue": False, "trigger_mode": "always_last", "show_progress": "hidden", **_PAGE_EVENT}
)

Updates = dict[Any, Any]


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
        self._reading = gr.State(None, time_to_live=CACHE_SECONDS)
        self._turn = gr.State(None, time_to_live=CACHE_SECONDS)
        with gr.Row(elem_classes="dd-columns", equal_height=False):
            with gr.Column(scale=5, min_width=300, elem_classes="dd-input"):
                self._input.render()
                self._check = gr.HTML(cards.EMPTY_CHECK, elem_id="check", min_height=190)
                self._cases = gr.HTML("", visible=False, elem_id="cases")
            with gr.Column(scale=6, min_width=300, elem_classes="dd-output"):
                self._render_output()
        self._connect()

    def _render_output(self) -> None:
        self._status = gr.HTML(
            cards.status_html("Ready."), elem_id="status", min_height=28, js_on_load=ANNOUNCE
        )
        self._result = gr.HTML(cards.EMPTY_RESULT, elem_id="result", min_height=330)
        self._controls.render_override()
        self._controls.render()
        self._heatmap.render()
        self._downloads.render()

    def _connect(self) -> None:
        heatmap, controls = self._heatmap, self._controls
        shown = [
            self._status, self._result, heatmap.overlay, heatmap.legend, heatmap.chosen_class, self._check,
            self._cases, *self._downloads.outputs,
        ]  # fmt: skip
        viewed = [heatmap.chosen_class, heatmap.method, heatmap.opacity]
        here = [self._turn, self._reading, self._input.task]
        drawn = [self._reading, heatmap.overlay, heatmap.legend, self._status]
        redraw = partial(
            gr.on,
            fn=self._redraw,
            inputs=[self._turn, self._reading, *viewed],
            outputs=drawn,
            trigger_mode="always_last",
            show_progress="hidden",
            **_PAGE_EVENT,
        )
        redraw(heatmap.chosen_class.input)
        redraw(heatmap.opacity.input)
        redraw(heatmap.method.input, **MODEL_EVENT)
        for trigger, decide in (
            (controls.operating_point.input, self._choose_point),
            (controls.threshold.input, self._move_threshold),
            (controls.prevalence.input, self._decide),
        ):
            trigger(
                decide,
                [*here, *controls.inputs],
                [self._status, self._result, controls.operating_point, controls.threshold],
                **_INSTANT_EVENT,
            )
        controls.override.input(
            self._override,
            [*here, *controls.inputs, heatmap.method, heatmap.opacity],
            [self._reading, *shown, controls.override],
            **_INSTANT_EVENT,
        )
        self._input.task.input(
            self._switch_task,
            [*here, self._input.photo, *controls.inputs, heatmap.method, heatmap.opacity],
            # Not the photo: even an empty answer for it makes the browser drop an upload that is on its way.
            [self._reading, *shown, *controls.outputs],
            trigger_mode="always_last",
            show_progress="hidden",
            **_PAGE_EVENT,
        )
        self._downloads.connect(self._reading, self._input.task, self._status)
        # First everything old is taken away, outside the queue; only then is the new photo read.
        sources = [(self._input.photo.input, self._clear, self._read_upload, [self._input.photo])]
        for path, button in self._input.examples:
            example = {"path": str(path)}
            sources.append((button.click, partial(self._clear, example), partial(self._read, example), []))
        for trigger, clear, read, inputs in sources:
            cleared = trigger(
                clear,
                [*inputs, self._turn, self._input.task, *controls.inputs],
                [self._turn, self._reading, *shown, controls.override],
                queue=False,
                trigger_mode="multiple",
                show_progress="hidden",
                **_PAGE_EVENT,
            )
            cleared.then(
                read,
                [*inputs, self._turn, heatmap.method, heatmap.opacity],
                [self._reading, self._input.photo, *shown, controls.override],
                trigger_mode="multiple",
                show_progress="minimal",
                show_progress_on=self._result,
                **_PAGE_EVENT,
                **MODEL_EVENT,
            )

    def _clear(self, payload: Any, previous: Turn | None, task_key: str, *controls: Any) -> Updates:
        if previous is not None:
            previous.is_over = True
        *kept, _ = controls
        return {
            self._turn: Turn(_source_of(payload), task_key, self._controls.choice(*kept, False)),
            self._status: cards.status_html("Reading the photo …"),
            self._result: cards.READING_RESULT,
            **self._without_result(),
        }

    def _read_upload(self, payload: Any, turn: Turn | None, method: Any, opacity: float) -> Iterator[Updates]:
        if payload is None:
            yield self._nothing_read()
            return
        yield from self._read(payload, turn, method, opacity)

    def _read(self, payload: Any, turn: Turn | None, method: Any, opacity: float) -> Iterator[Updates]:
        if turn is None or turn.source != _source_of(payload):
            return
        for updates in self._read_in_steps(payload, turn, self._heatmap.known_method(method), opacity):
            if turn.is_over:
                return
            yield updates

    def _read_in_steps(self, payload: Any, turn: Turn, method: str, opacity: float) -> Iterator[Updates]:
        try:
            with opened_photo(payload) as photo:
                task_key = turn.task_key
                turn.labels = reading = read_labels(self._predictors, photo, task_key)
                yield {
                    self._input.photo: store_png(reading.preview.pixels),
                    **self._told(reading, task_key, turn.choice),
                    **self._controls.for_reading(reading, task_key),
                    self._status: cards.status_html("The label is ready. Drawing the heatmap …"),
                }
                first = self._first_class(reading, task_key, turn.choice)
                if first is not None:
                    reading = with_map(reading, self._predictors, task_key, first, method, checked=False)
                yield self._heatmap.for_class(reading, task_key, first, method, opacity)
                reading = complete(reading, self._predictors, photo, method, self._case_folder)
            yield {
                self._reading: reading,
                **self._shown(reading, turn.task_key, turn.choice, method, opacity),
            }
        except Exception as error:
            yield {self._input.photo: None, **self._failed(error)}

    def _switch_task(
        self, turn: Turn | None, reading: Reading | None, task_key: str, payload: Any, *rest: Any
    ) -> Updates:
        *controls, method, opacity = rest
        try:
            choice = self._controls.choice(*controls)
            updates = {
                **self._controls.for_task(task_key, choice),
                self._heatmap.chosen_class: gr.update(choices=class_choices(task_key), value=None),
            }
            choice = choice.for_other_task()
            if turn is not None:
                turn.task_key, turn.choice = task_key, choice
            if reading is not None:
                method = self._heatmap.known_method(method)
                reading = self._with_first_map(reading, task_key, choice, method)
                updates |= {
                    self._reading: reading,
                    **self._shown(reading, task_key, choice, method, opacity),
                }
            elif turn is not None or payload is None:
                return updates
            else:
                return {
                    **self._nothing_read(),
                    **updates,
                    self._status: cards.status_html(cards.NO_READING),
                }
        except Exception as error:
            updates = self._failed(error)
        return gr.skip() if turn is None or turn.is_over else updates

    def _choose_point(
        self, turn: Turn | None, reading: Reading | None, task_key: str, *controls: Any
    ) -> Updates:
        choice = self._controls.choice(*controls)
        updates = self._decided(turn, reading, task_key, choice)
        return updates | self._controls.at_point(task_key, choice) or gr.skip()

    def _move_threshold(
        self, turn: Turn | None, reading: Reading | None, task_key: str, _: Any, *controls: Any
    ) -> Updates:
        choice = self._controls.choice(OWN_THRESHOLD, *controls)
        return self._decided(turn, reading, task_key, choice) | {
            self._controls.operating_point: OWN_THRESHOLD
        }

    def _decide(self, turn: Turn | None, reading: Reading | None, task_key: str, *controls: Any) -> Updates:
        return self._decided(turn, reading, task_key, self._controls.choice(*controls)) or gr.skip()

    def _decided(self, turn: Turn | None, reading: Reading | None, task_key: str, choice: Choice) -> Updates:
        if turn is None:
            return {self._status: cards.status_html(cards.NO_READING)}
        turn.choice = choice
        reading = reading or turn.labels
        if reading is None or task_key not in reading.predictions or turn.is_over:
            return {}
        try:
            return {
                self._result: result_html(reading, task_key, self._calibrations, choice),
                self._status: self._done(reading, task_key, choice),
            }
        except Exception as error:
            return {self._status: cards.failure_html(presentable(error))}

    def _override(self, turn: Turn | None, reading: Reading | None, task_key: str, *rest: Any) -> Updates:
        *controls, method, opacity = rest
        try:
            choice = self._controls.choice(*controls)
            if turn is None:
                return {self._status: cards.status_html(cards.NO_READING)}
            turn.choice = choice
            if reading is None:
                return self._decided(turn, reading, task_key, choice) or gr.skip()
            method = self._heatmap.known_method(method)
            reading = self._with_first_map(reading, task_key, choice, method)
            updates = {self._reading: reading, **self._shown(reading, task_key, choice, method, opacity)}
        except Exception as error:
            updates = self._failed(error)
        return gr.skip() if turn.is_over else updates

    def _redraw(
        self, turn: Turn | None, reading: Reading | None, value: str | None, method: Any, opacity: float
    ) -> Iterator[Updates]:
        try:
            if turn is None:
                yield {self._status: cards.status_html(cards.NO_READING)}
                return
            if reading is None or value is None:
                yield gr.skip()
                return
            task_key, _, class_key = value.partition("/")
            method = self._heatmap.known_method(method)
            if (method, class_key) not in reading.checks.get(task_key, {}):
                yield {self._status: cards.status_html("Drawing the heatmap and checking it …")}
                reading = with_map(reading, self._predictors, task_key, class_key, method)
            updates = {
                self._reading: reading,
                self._status: self._done(reading, turn.task_key, turn.choice),
                **self._heatmap.for_class(reading, task_key, class_key, method, opacity),
            }
        except Exception as error:
            updates = {
                **self._heatmap.without_figure(), self._status: cards.failure_html(presentable(error))
            }  # fmt: skip
        yield gr.skip() if turn.is_over else updates

    def _with_first_map(self, reading: Reading, task_key: str, choice: Choice, method: str) -> Reading:
        first = self._first_class(reading, task_key, choice)
        return reading if first is None else with_map(reading, self._predictors, task_key, first, method)

    def _first_class(self, reading: Reading, task_key: str, choice: Choice) -> str | None:
        """The class whose heatmap is shown unasked: that of the answer, none where it is withheld."""
        answer = reading.predictions[task_key]
        return None if is_hidden(answer, choice) else answer.label

    def _shown(self, reading: Reading, task_key: str, choice: Choice, method: str, opacity: float) -> Updates:
        first = self._first_class(reading, task_key, choice)
        return {
            **self._told(reading, task_key, choice),
            **self._heatmap.for_class(reading, task_key, first, method, opacity),
            **self._controls.for_reading(reading, task_key),
            self._heatmap.chosen_class: gr.update(
                choices=class_choices(task_key), value=first and f"{task_key}/{first}"
            ),
            **self._downloads.enabled(True),
            self._status: self._done(reading, task_key, choice),
        }

    def _told(self, reading: Reading, task_key: str, choice: Choice) -> Updates:
        cases = cases_html(reading, task_key, choice)
        return {
            self._result: result_html(reading, task_key, self._calibrations, choice),
            self._check: check_html(reading, task_key),
            self._cases: gr.update(value=cases, visible=bool(cases)),
        }

    def _done(self, reading: Reading, task_key: str, choice: Choice) -> str:
        return cards.status_html(f"Done. {announcement(reading, task_key, self._calibrations, choice)}")

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
            self._reading: None,
            self._check: cards.EMPTY_CHECK,
            self._cases: gr.update(value="", visible=False),
            **self._downloads.enabled(False),
            **self._heatmap.without_reading(),
            **self._controls.without_reading(),
        }


def _source_of(payload: Any) -> str | None:
    return payload.get("path") if isinstance(payload, Mapping) else None
