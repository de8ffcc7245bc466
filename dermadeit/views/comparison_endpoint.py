"""The documented API of comparisons of predictions, `/compare_predictions`, for programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from dermadeit.inference.zoo import ModelZoo
from dermadeit.tasks import BINARY, get_task
from dermadeit.views.comparison_export import export
from dermadeit.views.comparison_files import table_entrants
from dermadeit.views.comparison_steps import ImagesComparison, compared_in_steps
from dermadeit.views.docstrings import documented
from dermadeit.views.events import BATCH_EVENT
from dermadeit.views.failures import refusal
from dermadeit.views.inputs import FilesInput


def add_compare_predictions_endpoint(zoo: ModelZoo) -> None:
    """Adds the endpoint to the Blocks that is being built."""

    @documented
    def compare_predictions(files: Any, task: str) -> Iterator[dict[str, Any]]:
        """Compares models on labelled images, from their predictions alone.

        Research and teaching demo, not a medical device.

        Args:
            files: 1 to 12 predictions.csv files as `/evaluate` and “python -m dermadeit evaluate” write them: one
                for each model, or one that holds several.
            task: `binary` (nevus or others) or `multiclass` (given malignancy: mel, bcc or scc). Predictions of
                the other task are left aside.

        Yields:
            What it is `doing`, as a sentence, while it works. Last, the figures of each of the `models` with 95 %
            intervals, on the images that all of them have read; `comparisons`, ours or the first minus each other
            one, with paired intervals and with p-values that are adjusted by Holm's method; `kappas` between the
            answers of every two; and the number of `disagreements`.
        """
        try:
            asked = get_task(str(task))
            begun = ImagesComparison(asked, table_entrants(files, asked))
            for sentence, found in compared_in_steps(zoo, begun):
                if not found.is_finished:
                    yield {"doing": sentence}
            yield export(found)
        except Exception as error:
            raise refusal(error) from None

    with gr.Column(visible=False):
        files = FilesInput(file_count="multiple", label="Predictions")
        task = gr.Textbox(BINARY.key, label="Task")
        answer = gr.JSON(label="Comparison")
        gr.Button().click(
            compare_predictions,
            [files, task],
            [answer],
            api_name="compare_predictions",
            preprocess=False,
            **BATCH_EVENT,
        )
