"""The tab that reads one photo: label first, heatmap after it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gradio as gr

from dermadeit.predictor import Predictor
from dermadeit.saliency import DEFAULT_OPACITY
from dermadeit.tasks import BINARY, DIAGNOSES, TASKS, get_task
from dermadeit.views import cards
from dermadeit.views.failures import presentable
from dermadeit.views.reading import Reading, complete, export, read_labels, with_map
from dermadeit.views.uploads import (
    CACHE_SECONDS,
    PhotoInput,
    list_examples,
    opened_photo,
    store_json,
    store_png,
)

# Events that share a model share one queue: by default the limit would hold for each event by itself.
MODEL_EVENT: Mapping[str, Any] = MappingProxyType({"concurrency_id": "model", "concurrency_limit": 2})
_PAGE_EVENT: Mapping[str, Any] = MappingProxyType({"api_visibility": "private", "preprocess": False})

_ANNOUNCE = "element.setAttribute('aria-live', 'polite'); element.setAttribute('role', 'status');"

_NO_READING = "There is no photo, or its reading has expired. Choose a photo."
_NO_FIGURE = gr.update(value=None, visible=False)

Updates = dict[Any, Any]


@dataclass
class Turn:
    """The time between two choices of a photo. What is late for its turn must not appear beside the next photo.

    Attributes:
        source: Path of the chosen photo. A reading that had to wait is given the newest turn, not its own, and
            must be able to tell.
        task_key: The task the visitor wants, which may change while the photo is being read.
        is_over: Whether the visitor has chosen another photo since.
    """

    source: str | None
    task_key: str
    is_over: bool = False


class SingleImageTab:
    """Layout and events of the tab. One instance serves every visitor: what belongs to one is in `gr.State`.

    Args:
        predictors: Task key to predictor, for every task.
    """

    def __init__(self, predictors: Mapping[str, Predictor]) -> None:
        self._predictors = predictors

    def render(self) -> None:
        """Adds the tab to the Blocks that is being built."""
        self._reading = gr.State(None, time_to_live=CACHE_SECONDS)
        self._turn = gr.State(None, time_to_live=CACHE_SECONDS)
        with gr.Row(elem_classes="dd-columns", equal_height=False):
            with gr.Column(scale=5, min_width=300, elem_classes="dd-input"):
                self._render_input()
            with gr.Column(scale=6, min_width=300, elem_classes="dd-output"):
                self._render_output()
        self._connect()

    def _render_input(self) -> None:
        self._task = gr.Radio(
            [(task.title, task.key) for task in TASKS.values()],
            value=BINARY.key,
            label="Task",
            info="The second task only means something for a lesion that is malignant.",
            elem_id="task",
        )
        self._photo = PhotoInput(
            type="filepath",
            sources=["upload", "webcam", "clipboard"],
            label="Photo of one lesion, up to 20 MB",
            height=340,
            buttons=[],
            # Gradio gives the button this name; the text that is seen has to be the text that is heard.
            placeholder="Drop an image file here to upload",
            alt_text="The chosen photo",
            elem_id="photo",
        )
        self._examples = list_examples()
        self._example_buttons = []
        if self._examples:
            gr.HTML(
                '<h2 class="dd-small">Examples</h2><p class="dd-quiet">Synthetic, drawn by a program. The models '
                "were trained on real photos, so what they say of a drawing means nothing.</p>"
            )
            with gr.Row(elem_classes="dd-examples"):
                self._example_buttons = [
                    gr.Button(_title(path, number), icon=path, size="sm", min_width=72)
                    for number, path in enumerate(self._examples, start=1)
                ]
        self._check = gr.HTML(cards.EMPTY_CHECK, elem_id="check", min_height=190)

    def _render_output(self) -> None:
        self._status = gr.HTML(
            cards.status_html("Ready."), elem_id="status", min_height=28, js_on_load=_ANNOUNCE
        )
        self._result = gr.HTML(cards.EMPTY_RESULT, elem_id="result", min_height=330)
        gr.HTML('<h2 class="dd-small">Heatmap</h2>')
        with gr.Column(elem_classes="dd-figure"):
            self._overlay = gr.Image(
                label="Grad-CAM",
                interactive=False,
                visible=False,
                height=380,
                buttons=["fullscreen"],
                elem_id="overlay",
            )
        self._legend = gr.HTML(cards.legend_html(None), elem_id="legend", min_height=96)
        with gr.Row(elem_classes="dd-controls"):
            self._class = gr.Radio(
                _class_choices(BINARY.key), label="Heatmap for the class", elem_id="class", min_width=260
            )
            self._opacity = gr.Slider(
                0,
                1,
                DEFAULT_OPACITY,
                step=0.05,
                label="Opacity",
                elem_id="opacity",
                min_width=200,
                buttons=[],
            )
        self._download = gr.DownloadButton(
            "Download the result as JSON", interactive=False, elem_id="download", size="md"
        )

    def _connect(self) -> None:
        shown = [
            self._status, self._result, self._overlay, self._legend, self._class, self._check, self._download,
        ]  # fmt: skip
        redraw = partial(
            gr.on,
            inputs=[self._turn, self._reading, self._class, self._opacity],
            outputs=[self._overlay, self._legend, self._status],
            trigger_mode="always_last",
            show_progress="hidden",
            **_PAGE_EVENT,
        )
        redraw(self._class.input, self._redraw)
        redraw(self._opacity.input, self._redraw)
        self._task.input(
            self._switch_task,
            [self._turn, self._reading, self._photo, self._task, self._opacity],
            # Not the photo: even an empty answer for it makes the browser drop an upload that is on its way.
            [self._reading, *shown],
            trigger_mode="always_last",
            show_progress="hidden",
            **_PAGE_EVENT,
        )
        # First everything old is taken away, outside the queue; only then is the new photo read.
        sources = [(self._photo.input, self._clear, self._read_upload, [self._photo])]
        for button, path in zip(self._example_buttons, self._examples, strict=True):
            example = {"path": str(path)}
            sources.append((button.click, partial(self._clear, example), partial(self._read, example), []))
        for trigger, clear, read, inputs in sources:
            cleared = trigger(
                clear,
                [*inputs, self._turn, self._task],
                [self._turn, self._reading, *shown],
                queue=False,
                trigger_mode="multiple",
                show_progress="hidden",
                **_PAGE_EVENT,
            )
            cleared.then(
                read,
                [*inputs, self._turn, self._opacity],
                [self._reading, self._photo, *shown],
                trigger_mode="multiple",
                show_progress="minimal",
                show_progress_on=self._result,
                **_PAGE_EVENT,
                **MODEL_EVENT,
            )

    def _clear(self, payload: Any, previous: Turn | None, task_key: str) -> Updates:
        if previous is not None:
            previous.is_over = True
        return {
            self._turn: Turn(_source_of(payload), task_key),
            self._status: cards.status_html("Reading the photo …"),
            self._result: cards.READING_RESULT,
            **self._without_result(),
        }

    def _read_upload(self, payload: Any, turn: Turn | None, opacity: float) -> Iterator[Updates]:
        if payload is None:
            yield self._nothing_read()
            return
        yield from self._read(payload, turn, opacity)

    def _read(self, payload: Any, turn: Turn | None, opacity: float) -> Iterator[Updates]:
        if turn is None or turn.source != _source_of(payload):
            return
        for updates in self._read_in_steps(payload, turn, opacity):
            if turn.is_over:
                return
            yield updates

    def _read_in_steps(self, payload: Any, turn: Turn, opacity: float) -> Iterator[Updates]:
        try:
            with opened_photo(payload) as photo:
                task_key = turn.task_key
                reading = read_labels(self._predictors, photo, task_key)
                yield {
                    self._photo: store_png(reading.preview.pixels),
                    self._result: cards.result_html(reading, task_key),
                    self._check: cards.check_html(reading),
                    self._status: cards.status_html("The label is ready. Drawing the heatmap …"),
                }
                reading = with_map(reading, self._predictors, photo, task_key)
                yield self._heatmap(reading, task_key, _label(reading, task_key), opacity)
                reading = complete(reading, self._predictors, photo)
            changed = (
                self._heatmap(reading, task_key, _label(reading, task_key), opacity)
                if turn.task_key == task_key
                else self._shown(reading, turn.task_key, opacity)
            )
            yield {self._reading: reading, **self._finished(reading, turn.task_key), **changed}
        except Exception as error:
            yield {self._photo: None, **self._failed(error)}

    def _switch_task(
        self, turn: Turn | None, reading: Reading | None, payload: Any, task_key: str, opacity: float
    ) -> Updates:
        try:
            if turn is not None:
                turn.task_key = task_key
            choices = gr.update(choices=_class_choices(task_key), value=None)
            if reading is not None:
                updates = {
                    **self._shown(reading, task_key, opacity),
                    **self._finished(reading, task_key),
                }
            elif turn is not None or payload is None:
                return {self._class: choices}
            else:
                return {
                    **self._nothing_read(),
                    self._status: cards.status_html(_NO_READING),
                    self._class: choices,
                }
        except Exception as error:
            updates = self._failed(error)
        return gr.skip() if turn is None or turn.is_over else updates

    def _redraw(
        self, turn: Turn | None, reading: Reading | None, choice: str | None, opacity: float
    ) -> Updates:
        try:
            if turn is None:
                return {self._status: cards.status_html(_NO_READING)}
            if reading is None or choice is None:
                return gr.skip()
            task_key, _, class_key = choice.partition("/")
            updates = self._heatmap(reading, task_key, class_key, opacity)
        except Exception as error:
            updates = {self._overlay: _NO_FIGURE, self._status: cards.failure_html(presentable(error))}
        return gr.skip() if turn is None or turn.is_over else updates

    def _finished(self, reading: Reading, task_key: str) -> Updates:
        name = f"dermadeit-{reading.preview.sha256[:8]}.json"
        return {
            self._class: gr.update(
                choices=_class_choices(task_key), value=f"{task_key}/{_label(reading, task_key)}"
            ),
            self._download: gr.update(
                value=store_json(name, export(reading, self._predictors, task_key)), interactive=True
            ),
            self._status: cards.status_html(f"Done. {cards.announcement(reading, task_key)}"),
        }

    def _shown(self, reading: Reading, task_key: str, opacity: float) -> Updates:
        return {
            self._result: cards.result_html(reading, task_key),
            self._check: cards.check_html(reading),
            **self._heatmap(reading, task_key, _label(reading, task_key), opacity),
        }

    def _heatmap(self, reading: Reading, task_key: str, class_key: str, opacity: float) -> Updates:
        check = reading.checks.get(task_key, {}).get(class_key)
        return {
            self._overlay: _figure(reading, task_key, class_key, opacity),
            self._legend: cards.legend_html(check),
        }

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
            self._overlay: _NO_FIGURE,
            self._legend: cards.legend_html(None),
            self._class: None,
            self._check: cards.EMPTY_CHECK,
            self._download: gr.update(value=None, interactive=False),
        }


def _source_of(payload: Any) -> str | None:
    return payload.get("path") if isinstance(payload, Mapping) else None


def _class_choices(task_key: str) -> list[tuple[str, str]]:
    # The task is part of the value: after a switch, a late choice can't be taken for one of the new task.
    task = get_task(task_key)
    return [(task.display_names[key], f"{task.key}/{key}") for key in task.classes]


def _label(reading: Reading, task_key: str) -> str:
    return reading.predictions[task_key].label


def _figure(reading: Reading, task_key: str, class_key: str, opacity: float) -> Updates:
    task = get_task(task_key)
    task.index_of(class_key)
    name = task.display_names[class_key]
    share = min(max(float(opacity), 0.0), 1.0)
    pixels = reading.maps[task_key][class_key].overlay(reading.preview, share)
    check = reading.checks.get(task_key, {}).get(class_key)
    doubtful = check is not None and not check.faithful
    return gr.update(
        value=store_png(pixels),
        visible=True,
        elem_classes=["dd-doubtful"] if doubtful else [],
        label=f"Grad-CAM for {name}",
        alt_text=f"The photo under its Grad-CAM heatmap for the class {name}, task {task.title}",
    )


def _title(path: Path, number: int) -> str:
    words = path.stem.removeprefix("synthetic_").split("_")
    # Abbreviations of diagnoses stay in capitals.
    spoken = " ".join(
        word.upper() if word.upper() in DIAGNOSES and len(word) == 3 else word for word in words
    )
    return spoken[:1].upper() + spoken[1:] if any(map(str.isalpha, words)) else f"Lesion {number}"
