"""The tab that compares models: on one photo, and by the published figures."""

from __future__ import annotations

import gradio as gr

from dermadeit.inference.zoo import ModelZoo
from dermadeit.publishing.benchmark import is_published
from dermadeit.views.comparison.photo import PhotoSection
from dermadeit.views.comparison.published import benchmark_html
from dermadeit.views.page.events import PAGE_EVENT
from dermadeit.views.page.html import note_html
from dermadeit.views.page.pickers import add_task_choice

_ALONE = (
    "There are no other models with these classes, so only this one is shown. To compare it with predictions of "
    "another model, upload both predictions.csv in the tab Batch evaluation."
)


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
            tasks = self._zoo.tasks
            task = add_task_choice(tasks, "compare-task")
            if not any(map(is_published, tasks)) and len(self._zoo.entries(tasks[0].key)) == 1:
                gr.HTML(note_html(_ALONE), elem_id="compare-alone")
            with gr.Tabs(elem_id="compare-parts", overflow_behavior="wrap"):
                with gr.Tab("One photo", elem_id="compare-part-photo"):
                    PhotoSection(self._zoo, task).render()
                with gr.Tab("Published figures", elem_id="compare-part-published"):
                    published = gr.HTML(benchmark_html(tasks[0]), elem_id="compare-published")
        task.input(
            lambda key: benchmark_html(self._zoo.task(key)),
            [task],
            [published],
            queue=False,
            trigger_mode="always_last",
            show_progress="hidden",
            **PAGE_EVENT,
        )
