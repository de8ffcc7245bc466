"""The heatmap on the photo, the controls for it, and the badge that says whether it is reliable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import gradio as gr
import numpy as np

from dermadeit.imaging.decode import shrink
from dermadeit.inference.faithfulness import draw_outline, outline_removed_area
from dermadeit.inference.predictor import Predictor
from dermadeit.inference.saliency import DEFAULT_OPACITY, SALIENCY_METHODS, WITHOUT_CLASS, default_method
from dermadeit.reporting.names import METHOD_TITLES
from dermadeit.reporting.templates import render
from dermadeit.tasks import Task
from dermadeit.views.page.events import PAGE_EVENT, Updates
from dermadeit.views.page.html import badge_html, legend_html
from dermadeit.views.page.pictures import webp_address
from dermadeit.views.page.scripts import ANNOUNCE
from dermadeit.views.page.theme import HEATMAP_SCRIPT
from dermadeit.views.single.reading import Reading

_MAP_SIDE = 320
"""Longest side of the coloured map, in pixels: it is smooth, and the browser enlarges it."""

_SET_OPACITY = "(share) => document.documentElement.style.setProperty('--dd-heat', share)"


class HeatmapPanel:
    """Layout of the heatmap, and what it shows for a reading.

    Args:
        predictors: Task key to predictor, for every task.
    """

    def __init__(self, predictors: Mapping[str, Predictor]) -> None:
        self._first = next(iter(predictors.values())).checkpoint.task
        # A choice that only works for one of the tasks would have to come and go.
        self._default = default_method(*predictors.values())
        self._has_choice = all(predictor.checkpoint.spec.is_transformer for predictor in predictors.values())

    def render(self) -> None:
        """Adds controls, badge and legend to the Blocks that is being built; the map itself lies on the photo."""
        self.overlay = gr.HTML("", elem_id="overlay", js_on_load=HEATMAP_SCRIPT.read_text(encoding="utf-8"))
        with gr.Column(elem_classes="dd-heatmap"):
            with gr.Row(elem_classes="dd-heatmap-head"):
                self.opacity = gr.Slider(
                    0,
                    1,
                    DEFAULT_OPACITY,
                    step=0.05,
                    label="Heatmap over the photo",
                    elem_id="opacity",
                    min_width=200,
                    buttons=[],
                )
                self.badge = gr.HTML("", elem_id="heatmap-badge", js_on_load=ANNOUNCE)
            with gr.Row(elem_classes="dd-controls"):
                self.chosen_class = gr.Radio(
                    class_choices(self._first), label="Heatmap for the class", elem_id="class", min_width=200
                )
                self.method = gr.Radio(
                    [(title, key) for key, title in METHOD_TITLES.items()],
                    value=self._default,
                    label="Method",
                    visible=self._has_choice,
                    elem_id="method",
                    min_width=200,
                )
            self.legend = gr.HTML(no_heatmap_html("none"), elem_id="legend", min_height=96)
        # The page draws the map over the photo by itself.
        self.opacity.input(None, [self.opacity], None, js=_SET_OPACITY, **PAGE_EVENT)

    @property
    def outputs(self) -> list[Any]:
        """The components that `for_class` updates."""
        return [self.badge, self.overlay, self.legend]

    def known_method(self, raw: Any) -> str:
        """The method that the control holds; the default for anything else."""
        return raw if raw in tuple(SALIENCY_METHODS) and self._has_choice else self._default

    def for_class(self, reading: Reading, task_key: str, class_key: str | None, method: str) -> Updates:
        """The heatmap of one class, as far as the reading has it; none for no class, which is said."""
        if class_key is None:
            return self.clear_figure(no_heatmap_html("withheld"))
        if (method, class_key) not in reading.maps.get(task_key, {}):
            return self.clear_figure()
        return {
            self.overlay: overlay_html(reading, task_key, class_key, method),
            **self.verdict(reading, task_key, class_key, method),
        }

    def verdict(self, reading: Reading, task_key: str, class_key: str, method: str) -> Updates:
        """What is known of a heatmap that is shown: badge and legend."""
        drawn = reading.maps[task_key][method, class_key]
        check = reading.checks.get(task_key, {}).get((method, class_key))
        legend = legend_html(
            check,
            METHOD_TITLES[method],
            reading.tasks[task_key].display_names[class_key],
            of_class=method != WITHOUT_CLASS,
            has_outline=bool(drawn.values.any()),
        )
        return {self.badge: badge_html(check), self.legend: legend}

    def clear_figure(self, legend: str | None = None) -> Updates:
        """Nothing to be seen, and in place of the legend why."""
        return {
            self.badge: "",
            self.overlay: "",
            self.legend: legend or no_heatmap_html("none"),
        }

    def clear(self) -> Updates:
        """Nothing to be seen, and no class chosen."""
        return {**self.clear_figure(), self.chosen_class: None}


def no_heatmap_html(state: Literal["none", "stopped", "withheld"]) -> str:
    """What stands in place of the legend: none was asked for, it was stopped, or the answer is withheld."""
    return render("views/single/no_heatmap.html", state=state)


def class_choices(task: Task) -> list[tuple[str, str]]:
    """Names and values of the classes of a task."""
    # The task is part of the value: after a switch, a late choice can't be taken for one of the new task.
    return [(task.display_names[key], f"{task.key}/{key}") for key in task.classes]


def as_share(raw: Any) -> float:
    """The opacity that the slider holds, within 0 to 1."""
    return min(max(float(raw), 0.0), 1.0)


def overlay_html(reading: Reading, task_key: str, class_key: str, method: str) -> str:
    """A heatmap and the line around the tested area, as two pictures to lie over the photo."""
    drawn, task, preview = reading.maps[task_key][method, class_key], reading.tasks[task_key], reading.preview
    line = draw_outline(drawn, reading.inputs[task_key].width, preview.width, preview.height)
    return render(
        "views/single/overlay.html",
        heat=webp_address(drawn.overlay(shrink(preview, _MAP_SIDE), 1)),
        line=webp_address(line),
        alt=f"{METHOD_TITLES[method]} heatmap for the class {task.display_names[class_key]}, task {task.title}, "
        "over the photo, with the tested area outlined",
    )


def draw_outlined_overlay(
    reading: Reading, task_key: str, class_key: str, method: str, opacity: float
) -> np.ndarray:
    """A heatmap over its photo with the tested area outlined: uint8 [H, W, 3], at most `PREVIEW_SIDE` a side."""
    drawn = reading.maps[task_key][method, class_key]
    pixels = drawn.overlay(reading.preview, as_share(opacity))
    return outline_removed_area(pixels, drawn, reading.inputs[task_key].width)
