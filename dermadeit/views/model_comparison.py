"""The tab that compares models: on one photo, on labelled images, and by the published figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from dermadeit.inference.zoo import ModelZoo
from dermadeit.tasks import BINARY, TASKS, get_task
from dermadeit.views.comparison_batch import BatchSection
from dermadeit.views.comparison_benchmark import benchmark_html
from dermadeit.views.comparison_photo import PhotoSection
from dermadeit.views.comparison_run import compared
from dermadeit.views.docstrings import documented
from dermadeit.views.endpoints import failed_record
from dermadeit.views.events import COMPARE_EVENT, PAGE_EVENT
from dermadeit.views.inputs import PhotoInput
from dermadeit.views.uploads import opened_photo


class ModelComparisonTab:
    """Layout and events of the tab, and its endpoint.

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
                info="The second task only means something for a lesion that is malignant.",
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
        self._add_endpoint()

    def _add_endpoint(self) -> None:
        with gr.Column(visible=False):
            image = PhotoInput(type="filepath", label="Image")
            task = gr.Textbox(BINARY.key, label="Task")
            records = gr.JSON(label="Records")
            gr.Button().click(
                self.compare, [image, task], [records], api_name="compare", preprocess=False, **COMPARE_EVENT
            )

    @documented
    def compare(self, image: Any, task: str) -> Iterator[list[dict[str, Any]]]:
        """Reads one photo of a skin lesion with every model that is here.

        Research and teaching demo, not a medical device.

        Args:
            image: The image file.
            task: `binary` (nevus or others) or `multiclass` (given malignancy: mel, bcc or scc).

        Returns:
            A list with one record for each model, after each of them; the last is whole. Status `ok`: as
            `/predict` gives it, with the check of its heatmap, the decision at each operating point where it is
            calibrated, the measured latency, the number of parameters and the size of the file. Status `failed`:
            an error code and message, such as `no_checkpoint` for a model without weights.
        """
        try:
            asked = get_task(str(task))
            with opened_photo(image) as photo:
                steps = compared(self._zoo, asked, photo)
            # A caller who has left is noticed at a yield.
            for result in steps:
                yield result.records(self._zoo)
        except Exception as error:
            yield [failed_record(error, image, task, "")]
