"""The controls of the decision: operating point, threshold, prevalence, and whether to override an abstention."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gradio as gr

from dermadeit.inference.decision import (
    OPERATING_POINT_TITLES,
    OWN_THRESHOLD,
    DecisionSettings,
    get_threshold,
)
from dermadeit.inference.records import ABSTAIN
from dermadeit.reporting.names import threshold_rule
from dermadeit.reporting.templates import render
from dermadeit.tasks import Task, get_task
from dermadeit.trust.calibration import DEFAULT_OPERATING_POINT, Calibration
from dermadeit.trust.files import CALIBRATE_COMMAND
from dermadeit.views.page.events import INSTANT_EVENT, Updates
from dermadeit.views.page.html import heading_html
from dermadeit.views.single.reading import Reading


class DecisionControls:
    """Renders the controls, and turns what they hold into a `DecisionSettings`.

    Args:
        tasks: Task key to every task that can be asked.
        calibrations: Task key to what was fitted for its checkpoint; None where nothing was.
    """

    def __init__(self, tasks: Mapping[str, Task], calibrations: Mapping[str, Calibration | None]) -> None:
        self._tasks, self._calibrations = tasks, calibrations

    def render_override(self) -> None:
        """Adds the way out of an abstention, hidden until there is one."""
        self.override = gr.Checkbox(
            False,
            label="Show the answer anyway",
            info="It stays marked as withheld, here and in all downloads.",
            visible=False,
            elem_id="override",
        )

    def render(self) -> None:
        """Adds the rest, as the first task has it."""
        task = next(iter(self._tasks.values()))
        calibration = self._calibrations.get(task.key)
        with gr.Column(visible=calibration is not None, elem_classes="dd-decision") as self._panel:
            gr.HTML(heading_html("Decision", kind="small"))
            self.operating_point = gr.Radio(
                [(title, name) for name, title in OPERATING_POINT_TITLES.items()],
                value=DEFAULT_OPERATING_POINT,
                label="Operating point",
                elem_id="operating-point",
                elem_classes="dd-segments",
            )
            with gr.Row(elem_classes="dd-controls"):
                self.threshold = gr.Slider(
                    0,
                    100,
                    _percent(get_threshold(calibration, DEFAULT_OPERATING_POINT) if calibration else 0.5),
                    step=0.1,
                    label="Threshold (%)",
                    info=_threshold_info(task),
                    elem_id="threshold",
                    min_width=260,
                    buttons=[],
                )
                self.prevalence = gr.Number(
                    _prevalence(calibration),
                    minimum=0,
                    maximum=100,
                    step=0.1,
                    label="Prevalence (%)",
                    info=_prevalence_info(task),
                    elem_id="prevalence",
                    min_width=180,
                )
        missing = render("views/single/not_calibrated.html", command=CALIBRATE_COMMAND)
        self._absence = gr.HTML(missing, visible=calibration is None, elem_id="no-decision")

    def connect(self, task: gr.Radio) -> None:
        """Makes the prevalence box show what is reckoned with, once it is left.

        Args:
            task: The component that holds the chosen task.
        """
        gr.on(
            [self.prevalence.blur, self.prevalence.submit],
            self.settle_prevalence,
            [task, self.prevalence],
            [self.prevalence],
            **INSTANT_EVENT,
        )

    @property
    def inputs(self) -> list[Any]:
        """The components whose raw values `read_settings` takes, in its order."""
        return [self.operating_point, self.threshold, self.prevalence, self.override]

    @property
    def outputs(self) -> list[Any]:
        """The components that `for_task` and `for_reading` update."""
        return [*self.inputs, self._panel, self._absence]

    def read_settings(
        self, operating_point: Any, threshold: Any, prevalence: Any, override: Any
    ) -> DecisionSettings:
        """What the controls hold; whatever a program may have sent instead becomes a default."""
        share = _share(threshold)
        is_known = operating_point in tuple(OPERATING_POINT_TITLES)
        return DecisionSettings(
            operating_point if is_known else DEFAULT_OPERATING_POINT,
            0.5 if share is None else share,
            _share(prevalence),
            override is True,
        )

    def settle_prevalence(self, task_key: str, raw: Any) -> Any:
        """An update of the prevalence box: within 0 to 100, and the default where it was emptied."""
        share = _share(raw)
        shown = _prevalence(self._calibrations.get(task_key)) if share is None else share * 100
        return gr.skip() if share is not None and 0 <= raw <= 100 else shown

    def for_task(self, task_key: str, settings: DecisionSettings) -> Updates:
        """The controls as a task has them, after another task had them."""
        task, calibration = get_task(task_key, self._tasks), self._calibrations.get(task_key)
        settings = settings.for_other_task()
        return {
            self._panel: gr.update(visible=calibration is not None),
            self._absence: gr.update(visible=calibration is None),
            self.operating_point: settings.operating_point,
            self.threshold: gr.update(
                value=_percent(get_threshold(calibration, settings.operating_point) if calibration else 0.5),
                info=_threshold_info(task),
            ),
            self.prevalence: gr.update(value=_prevalence(calibration), info=_prevalence_info(task)),
        }

    def at_point(self, task_key: str, settings: DecisionSettings) -> Updates:
        """Moves the slider to a named operating point, which lies elsewhere at another prevalence."""
        calibration = self._calibrations.get(task_key)
        if calibration is None or settings.operating_point == OWN_THRESHOLD:
            return {}
        threshold = get_threshold(calibration, settings.operating_point, settings.prevalence)
        return {self.threshold: _percent(threshold)}

    def for_reading(self, reading: Reading | None, task_key: str) -> Updates:
        """Offers to override where a shown answer is withheld."""
        withheld = reading is not None and any(
            reading.predictions[key].verdict == ABSTAIN for key in reading.tasks_shown(task_key)
        )
        return {self.override: gr.update(visible=withheld)}

    def reset(self) -> Updates:
        """Takes an earlier override back: it was for one photo."""
        return {self.override: gr.update(value=False, visible=False)}


def _share(raw: Any) -> float | None:
    """Percent as a share of 1, within 0 to 1; None for what is no number."""
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not math.isfinite(raw):
        return None
    return min(max(raw / 100, 0.0), 1.0)


def _percent(share: float) -> float:
    return round(share * 100, 1)


def _prevalence(calibration: Calibration | None) -> float:
    return 50.0 if calibration is None else _percent(calibration.prevalence)


def _threshold_info(task: Task) -> str:
    return threshold_rule(task, task.target)


def _prevalence_info(task: Task) -> str:
    _, plural = task.nouns[task.target]
    return (
        f"Share of the lesions that are {plural}, where you use the answer. It changes the probabilities too."
    )
