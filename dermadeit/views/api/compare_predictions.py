"""The documented API of comparisons on many images, `/compare_predictions`, for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from dermadeit.about import APP, DISCLAIMER
from dermadeit.errors import DermaDeiTError
from dermadeit.evaluation.batch import read_uploaded_predictions
from dermadeit.evaluation.comparison import ComparedModel, gather_models
from dermadeit.evaluation.predictions import PredictionSet
from dermadeit.imaging.decode import sanitise_name
from dermadeit.inference.predictor import DEFAULT_VIEWS
from dermadeit.inference.side_by_side import Latency, measure_latency
from dermadeit.inference.zoo import ModelZoo
from dermadeit.models.specs import COMPARED_MODELS
from dermadeit.publishing.benchmark import read_shipped_predictions, read_test_images
from dermadeit.tasks import Task
from dermadeit.views.api.docstrings import documented
from dermadeit.views.batch.model_comparison import ModelComparison, compare_in_steps
from dermadeit.views.batch.run import check_number_of_tables
from dermadeit.views.page.events import BATCH_EVENT
from dermadeit.views.page.failures import refuse_failures
from dermadeit.views.page.gradio_patches import FilesInput, JsonInput
from dermadeit.views.page.uploads import take_uploads_apart


def add_compare_predictions_endpoint(zoo: ModelZoo) -> None:
    """Adds `/compare_predictions` to the Blocks that is being built."""

    @documented
    def compare_predictions(files: Any, task: str, models: list[str]) -> Iterator[dict[str, Any]]:
        """Compares models on labelled images, from their predictions alone.

        Research and teaching demo, not a medical device.

        Args:
            files: 1 to 12 predictions.csv files as `/evaluate` and “python -m dermadeit evaluate” write them: one
                for each model, or one that holds several. A table of your own model with `image_id` and
                `p_<class>` is enough; true classes that it lacks are taken from the shipped test images.
            task: `diagnosis` (all eight), `malignancy`, `binary` (nevus or others) or `multiclass` (given that it
                is malignant: mel, bcc or scc), as far as the network knows their classes. Or `own`, the only task
                of an app that serves classes of your own. Predictions of other tasks are left
                aside.
            models: Models whose shipped predictions of the test images are compared too, such as `dermadeit`.

        Yields:
            What it is `doing`, as a sentence, while it works. Last, the figures of each of the `models` with 95 %
            intervals, on the images that all of them have read; `comparisons`, ours or the first minus each other
            one, with paired intervals and with p-values that are adjusted by Holm's method; `kappas` between the
            answers of every two; and the number of `disagreements`.
        """
        with refuse_failures():
            asked = zoo.task(str(task))
            shipped = [str(model) for model in models] if isinstance(models, list) else []
            for sentence, found in compare_in_steps(
                ModelComparison(asked, _read_models(files, asked, shipped))
            ):
                if not found.is_finished:
                    yield {"doing": sentence}
            yield {"doing": "Timing the models that are here …"}
            yield _export(found, _measure_latencies(zoo, found))

    with gr.Column(visible=False):
        files = FilesInput(file_count="multiple", label="Predictions")
        task = gr.Textbox(zoo.tasks[0].key, label="Task")
        models = JsonInput({"type": "array", "items": {"type": "string"}}, [], label="Shipped models")
        answer = gr.JSON(label="Comparison")
        gr.Button().click(
            compare_predictions,
            [files, task, models],
            [answer],
            api_name="compare_predictions",
            preprocess=False,
            **BATCH_EVENT,
        )


def _read_models(payload: object, task: Task, shipped: Sequence[str] = ()) -> tuple[ComparedModel, ...]:
    """The models of the tables that a visitor gave, those that the app knows first; the uploads are deleted.

    Args:
        payload: As for `_read_tables`.
        task: The task to compare them for.
        shipped: Names of models whose shipped predictions are compared with them.

    Raises:
        DermaDeiTError: As `_read_tables` and `comparison.gather_models`.
    """
    tables = _read_tables(payload, task)
    if shipped:
        tables.append(("shipped", read_shipped_predictions(task, shipped)))
    return tuple(sorted(gather_models(tables, task), key=_place))


def _read_tables(payload: object, task: Task) -> list[tuple[str, tuple[PredictionSet, ...]]]:
    """Reads the uploaded tables; they are deleted, whether or not they could be read.

    Args:
        payload: The file records of a Gradio event. Everything in them is untrusted.
        task: The task of a table that names none.

    Returns:
        Name of each table, different from the others, and the predictions in it.

    Raises:
        ImageError: Something in the payload is not an upload, or is no longer there.
        UploadError: What was given is too much, or no table of predictions.
        TaskError: A table names an unknown task.
    """
    with take_uploads_apart(payload) as files:
        check_number_of_tables(len(files))
        return [
            (
                f"{Path(file.name).stem} {number}",
                read_uploaded_predictions(file.path, sanitise_name(file.name), task, read_test_images),
            )
            for number, file in enumerate(files, start=1)
        ]


def _place(model: ComparedModel) -> int:
    known = model.name in COMPARED_MODELS
    return COMPARED_MODELS.index(model.name) if known else len(COMPARED_MODELS)


def _measure_latencies(zoo: ModelZoo, found: ModelComparison) -> dict[str, Latency]:
    """Title of each model that is here to what it takes to ask it, with as many views as its predictions have."""
    here = {entry.name for entry in zoo.entries(found.task.key) if entry.available}
    latencies = {}
    for model in found.compared:
        # A table may claim any model and any number of views.
        if model.name not in here or not 1 <= model.predictions.views <= DEFAULT_VIEWS:
            continue
        try:
            predictor = zoo.predictor(found.task.key, model.name)
        except DermaDeiTError:
            # Predictions are compared whatever state the weights here are in.
            continue
        latencies[model.title] = measure_latency(predictor, (model.predictions.views,))
    return latencies


def _export(found: ModelComparison, latencies: Mapping[str, Latency]) -> dict[str, Any]:
    """A finished comparison as JSON-ready values."""
    return {
        "disclaimer": DISCLAIMER,
        "app": APP,
        "task": found.task.key,
        "caveat": found.task.caveat,
        "labelled": found.is_labelled,
        "images": found.images,
        "notes": list(found.notes),
        "models": {
            model.title: {
                **model.to_dict(),
                **found.figures.get(model.title, {}),
                "latency": latencies[model.title].to_dict() if model.title in latencies else None,
            }
            for model in found.compared
        },
        **found.to_dict(),
    }
