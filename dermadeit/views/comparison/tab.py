"""The tab that compares models: on one photo, on labelled images, and by the published figures."""

from __future__ import annotations

import gradio as gr

from dermadeit.inference.zoo import ModelZoo
from dermadeit.tasks import BINARY, TASKS, get_task
from dermadeit.views.comparison.images import BatchSection
from dermadeit.views.comparison.photo import PhotoSection
from dermadeit.views.comparison.published import benchmark_html
from dermadeit.views.page.events import PAGE_EVENT


class ModelComparisonTab:
    """Layout and events of the tab.

    Args:
        zoo: Every compared model, those without a checkpoint too.
    """

    def __init__(self, zoo: ModelZoo) -> None:
        self._zoo = zoo

    def render(self) -> None:
        """Adds the tab's content to the Blocks that is being built, within a `gr.Tab`."""
        with gr.Column(elem_classes="dd-comparison"):
            task = gr.Radio(
                [(task.title, task.key) for task in TASKS.values()],
                value=BINARY.key,
                label="Task",
                info="The second task is only for malignant lesions.",
                elem_id="compare-task",
            )
            with gr.Tabs(elem_id="compare-parts", overflow_behavior="wrap"):
                with gr.Tab("One photo", elem_id="compare-part-photo"):
                    PhotoSection(self._zoo, task).render()
                with gr.Tab("Labelled images", elem_id="compare-part-batch"):
                    BatchSection(self._zoo, task).render()
                with gr.Tab("Published figures", elem_id="compare-part-published"):
                    published = gr.HTML(benchmark_html(BINARY), elem_id="compare-published")
        task.input(
            lambda key: benchmark_html(get_task(key)),
            [task],
            [published],
            queue=False,
            trigger_mode="always_last",
            show_progress="hidden",
            **PAGE_EVENT,
        )
