"""The documented API of comparisons of one photo, `/compare`, for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gradio as gr

from dermadeit.inference.zoo import ModelZoo
from dermadeit.views.api.docstrings import documented
from dermadeit.views.api.photo import make_failed_record
from dermadeit.views.comparison.photo_run import compare_photo
from dermadeit.views.page.events import COMPARE_EVENT
from dermadeit.views.page.gradio_patches import PhotoInput
from dermadeit.views.page.uploads import open_photo


def compare_models(zoo: ModelZoo, image: Any, task: str) -> Iterator[Sequence[Mapping[str, Any]]]:
    """Reads one photo with every model that has a checkpoint.

    Args:
        zoo: Every compared model.
        image: The payload that stands for the photo. Everything in it is untrusted.
        task: Key of the task, likewise untrusted.

    Yields:
        The records of all models, after each of them. A photo that can't be read is one failed record.
    """
    try:
        asked = zoo.task(str(task))
        with open_photo(image) as photo:
            steps = compare_photo(zoo, asked, photo)
        # A caller who has left is noticed at a yield.
        for result in steps:
            yield result.records(zoo)
    except Exception as error:
        yield [make_failed_record(error, image, task, "")]


def add_compare_endpoint(zoo: ModelZoo) -> None:
    """Adds `/compare` to the Blocks that is being built."""

    @documented
    def compare(image: Any, task: str) -> Iterator[Sequence[Mapping[str, Any]]]:
        """Reads one photo of a skin lesion with every model that is here.

        Research and teaching demo, not a medical device.

        Args:
            image: The image file. Over MCP: `data:image/jpeg;base64,…`; a web address is refused.
            task: `diagnosis` (all eight), `malignancy`, `binary` (nevus or others) or `multiclass` (given that it
                is malignant: mel, bcc or scc), as far as the network knows their classes. Or `own`, the only task
                of an app that serves classes of your own.

        Returns:
            A list with one record for each model, after each of them; the last is whole. Status `ok`: as
            `/predict` gives it, with the check of its heatmap, the decision at each operating point where it is
            calibrated, the measured latency, the number of parameters and the size of the file. Status `failed`:
            an error code and message, such as `no_checkpoint` for a model without weights.
        """
        yield from compare_models(zoo, image, task)

    with gr.Column(visible=False):
        image = PhotoInput(type="filepath", label="Image")
        task = gr.Textbox(zoo.tasks[0].key, label="Task")
        records = gr.JSON(label="Records")
        gr.Button().click(
            compare, [image, task], [records], api_name="compare", preprocess=False, **COMPARE_EVENT
        )
