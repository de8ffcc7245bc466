"""The documented API of batches, `/evaluate`, for programs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import gradio as gr

from dermadeit.about import APP, DISCLAIMER
from dermadeit.evaluation.batch import Progress
from dermadeit.inference.predictor import DEFAULT_VIEWS
from dermadeit.inference.zoo import ModelZoo
from dermadeit.views.api.docstrings import documented
from dermadeit.views.batch.exports import draw_curves, draw_matrices, notes_of, write_files
from dermadeit.views.batch.run import Order, evaluate_batch, read_batch
from dermadeit.views.batch.session import Session
from dermadeit.views.page.events import BATCH_EVENT
from dermadeit.views.page.failures import refuse_failures
from dermadeit.views.page.gradio_patches import FilesInput, JsonInput
from dermadeit.views.page.job import FilesJob
from dermadeit.views.page.pickers import available_models


def add_evaluate_endpoint(zoo: ModelZoo) -> None:
    """Adds the endpoint to the Blocks that is being built."""

    @documented
    def evaluate(
        files: Any, task: str, models: list[str], views: int
    ) -> Iterator[tuple[dict[str, Any], str | None]]:
        """Reads many photos and, where the true classes are known, measures how right the answers are.

        Research and teaching demo, not a medical device.

        Args:
            files: Image files, ZIPs of images, and at most one table (CSV or Excel) with the true classes; or up
                to 12 predictions.csv alone. The `orig_name` of an uploaded file may be its path in a folder, such
                as `nevus/a.jpg`: folders named after classes or diagnoses label what is in them, as those of a
                ZIP do.
            task: `diagnosis` (all eight), `malignancy`, `binary` (nevus or others) or `multiclass` (given that it
                is malignant: mel, bcc or scc), as far as the network knows their classes. Or `own`, the only task
                of an app that serves classes of your own.
            models: Names of models, such as `dermadeit`.
            views: Dihedral views whose logits are averaged, 1 to 8.

        Yields:
            While it reads, how many images are `done` of the `total`. Last, the figures of each model, the
            failures and what was left out; and a ZIP of tables, figures and report.
        """
        session = Session(FilesJob.begin())
        with refuse_failures(), ExitStack() as stack:
            stack.callback(session.job.finish)
            for step in read_batch(zoo, Order(files, task, models, views), session):
                if isinstance(step, Progress):
                    yield {"done": step.done, "total": step.total}, None
            for _ in evaluate_batch(session):
                continue
            result, evaluations = session.result, session.evaluations
            figures = [*draw_curves(result), *draw_matrices(result, evaluations)] if result.labelled else []
            folder = session.job.folder / "downloads"
            folder.mkdir()
            yield (
                _answer(session),
                str(write_files(result, evaluations, figures, folder, session.comparison).everything),
            )

    models_there = [name for _, name in available_models(zoo, zoo.tasks[0].key)]
    with gr.Column(visible=False):
        files = FilesInput(file_count="multiple", label="Files")
        task = gr.Textbox(zoo.tasks[0].key, label="Task")
        models = JsonInput({"type": "array", "items": {"type": "string"}}, models_there[:1], label="Models")
        views = gr.Number(DEFAULT_VIEWS, precision=0, label="Views")
        answer = gr.JSON(label="Figures")
        everything = gr.File(label="Everything")
        gr.Button().click(
            evaluate,
            [files, task, models, views],
            [answer, everything],
            api_name="evaluate",
            preprocess=False,
            **BATCH_EVENT,
        )


def _answer(session: Session) -> dict[str, Any]:
    result = session.result
    return {
        "disclaimer": DISCLAIMER,
        "app": APP,
        "task": result.task.key,
        "views": max(result.views.values()),
        "labelled": result.labelled,
        "notes": notes_of(result),
        "models": {evaluation.model: dict(evaluation.metrics) for evaluation in session.evaluations},
        "failures": [
            {
                "file": item.image.file,
                "sha256": record.sha256,
                "model": model,
                "code": record.code,
                "message": record.message,
            }
            for model in result.models
            for item, record in result.failed(model)
        ],
        "ledger": result.ledger and result.ledger.to_dict(),
        "left_out": [
            {"file": item.file, "reason": item.reason, "code": item.code, "line": item.line or None}
            for item in result.left_out
        ],
    }
