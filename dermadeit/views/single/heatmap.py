"""The heatmap on the page, the controls for it, and the statement of whether it can be believed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from dermadeit.inference.predictor import Predictor
from dermadeit.inference.saliency import DEFAULT_METHOD, DEFAULT_OPACITY, SALIENCY_METHODS
from dermadeit.tasks import BINARY, get_task
from dermadeit.views.page.events import Updates
from dermadeit.views.page.html import WITHHELD_LEGEND, legend_html
from dermadeit.views.page.uploads import store_png
from dermadeit.views.single.reading import METHOD_TITLES, Reading

_NO_FIGURE = gr.update(value=None, visible=False)


class HeatmapPanel:
    """Layout of the heatmap, and what it shows for a reading.

    Args:
        predictors: Task key to predictor, for every task.
    """

    def __init__(self, predictors: Mapping[str, Predictor]) -> None:
        # A choice that only works for one of the tasks would have to come and go.
        self._has_rollout = all(
            predictor.checkpoint.classifier.spec.is_transformer for predictor in predictors.values()
        )

    def render(self) -> None:
        """Adds figure, legend and controls to the Blocks that is being built."""
        gr.HTML('<h2 class="dd-small">Heatmap</h2>')
        with gr.Column(elem_classes="dd-figure"):
            self.overlay = gr.Image(
                label=METHOD_TITLES[DEFAULT_METHOD],
                interactive=False,
                visible=False,
                height=380,
                buttons=["fullscreen"],
                elem_id="overlay",
            )
        self.legend = gr.HTML(legend_html(None), elem_id="legend", min_height=96)
        with gr.Row(elem_classes="dd-controls"):
            self.chosen_class = gr.Radio(
                class_choices(BINARY.key), label="Heatmap for the class", elem_id="class", min_width=260
            )
            self.method = gr.Radio(
                [(title, key) for key, title in METHOD_TITLES.items()],
                value=DEFAULT_METHOD,
                label="Method",
                visible=self._has_rollout,
                elem_id="method",
                min_width=260,
            )
            self.opacity = gr.Slider(
                0,
                1,
                DEFAULT_OPACITY,
                step=0.05,
                label="Opacity",
                info="Method and opacity stay for the next photo.",
                elem_id="opacity",
                min_width=200,
                buttons=[],
            )

    def known_method(self, raw: Any) -> str:
        """The method that the control holds; the default for anything else."""
        return raw if raw in tuple(SALIENCY_METHODS) and self._has_rollout else DEFAULT_METHOD

    def for_class(
        self, reading: Reading, task_key: str, class_key: str | None, method: str, opacity: float
    ) -> Updates:
        """The heatmap of one class, as far as the reading has it; none for no class, which is said."""
        if class_key is None:
            return {self.overlay: _NO_FIGURE, self.legend: WITHHELD_LEGEND}
        if (method, class_key) not in reading.maps.get(task_key, {}):
            return self.without_figure()
        check = reading.checks.get(task_key, {}).get((method, class_key))
        return {
            self.overlay: _figure(reading, task_key, class_key, method, opacity),
            self.legend: legend_html(check, of_class=method == DEFAULT_METHOD),
        }

    def without_figure(self) -> Updates:
        """Nothing to be seen."""
        return {self.overlay: _NO_FIGURE, self.legend: legend_html(None)}

    def without_reading(self) -> Updates:
        """Nothing to be seen, and no class chosen."""
        return {**self.without_figure(), self.chosen_class: None}


def class_choices(task_key: str) -> list[tuple[str, str]]:
    """Names and values of the classes of a task."""
    # The task is part of the value: after a switch, a late choice can't be taken for one of the new task.
    task = get_task(task_key)
    return [(task.display_names[key], f"{task.key}/{key}") for key in task.classes]


def as_share(raw: Any) -> float:
    """The opacity that the slider holds, within 0 to 1."""
    return min(max(float(raw), 0.0), 1.0)


def _figure(reading: Reading, task_key: str, class_key: str, method: str, opacity: float) -> Updates:
    task = get_task(task_key)
    task.index_of(class_key)
    name, title = task.display_names[class_key], METHOD_TITLES[method]
    pixels = reading.maps[task_key][method, class_key].overlay(reading.preview, as_share(opacity))
    check = reading.checks.get(task_key, {}).get((method, class_key))
    # One that was not checked yet is not to be believed either.
    doubtful = check is None or not check.faithful
    return gr.update(
        value=store_png(pixels),
        visible=True,
        elem_classes=["dd-doubtful"] if doubtful else [],
        label=f"{title} for {name}",
        alt_text=f"The photo under its {title} heatmap for the class {name}, task {task.title}",
    )
