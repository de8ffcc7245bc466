"""Predictions for a comparison: the tables that visitors give, and those that ship with the app."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dermadeit.about import APP, DISCLAIMER
from dermadeit.data.tabular import write_csv
from dermadeit.errors import ErrorCode, UploadError
from dermadeit.evaluation.batch import BatchResult, read_uploaded_predictions
from dermadeit.evaluation.comparison import ComparedModel, gather_models
from dermadeit.evaluation.predictions import PredictionSet
from dermadeit.files import read_json
from dermadeit.imaging.decode import sanitise_name
from dermadeit.models.specs import COMPARED_MODELS
from dermadeit.publishing.benchmark import (
    BENCHMARK_ROOT,
    read_benchmark,
    read_shipped_predictions,
    read_test_images,
)
from dermadeit.publishing.benchmark_table import MODELS_FILE, in_order
from dermadeit.tasks import Task
from dermadeit.views.comparison.steps import ImagesComparison
from dermadeit.views.page.uploads import private_folder, take_uploads

MAX_TABLES = 12


def read_shipped_models(task: Task) -> tuple[ComparedModel, ...]:
    """The models whose predictions of the test images are shipped, in the order in which they are published.

    Raises:
        UploadError: A file is missing or contradicts the others.
    """
    filed = read_benchmark(BENCHMARK_ROOT / task.key, task)
    described = read_json(BENCHMARK_ROOT / MODELS_FILE)
    order = in_order(filed.models, described)
    titles = {model: entry["title"] for model, entry in described.items() if "title" in entry}
    return gather_models([("shipped", read_shipped_predictions(task, order))], task, titles)


def read_table_models(payload: object, task: Task, shipped: Sequence[str] = ()) -> tuple[ComparedModel, ...]:
    """The models of the tables that a visitor gave, those that the app knows first; the uploads are deleted.

    Args:
        payload: As for `read_tables`.
        task: The task to compare them for.
        shipped: Names of models whose shipped predictions are compared with them.

    Raises:
        DermaDeiTError: As `read_tables` and `comparison.gather_models`.
    """
    tables = read_tables(payload, task)
    if shipped:
        tables.append(("shipped", read_shipped_predictions(task, shipped)))
    return tuple(sorted(gather_models(tables, task), key=_place))


def read_tables(payload: object, task: Task) -> list[tuple[str, tuple[PredictionSet, ...]]]:
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
    folder = private_folder()
    try:
        with take_uploads(payload, folder) as files:
            if not 0 < len(files) <= MAX_TABLES:
                raise UploadError(
                    f"{len(files)} tables were given. Choose one to {MAX_TABLES} predictions.csv in one go.",
                    code=ErrorCode.NUMBER_OF_TABLES,
                )
            return [
                (
                    f"{Path(file.name).stem} {number}",
                    read_uploaded_predictions(file.path, sanitise_name(file.name), task, read_test_images),
                )
                for number, file in enumerate(files, start=1)
            ]
    finally:
        folder.rmdir()


def _place(model: ComparedModel) -> int:
    known = model.name in COMPARED_MODELS
    return COMPARED_MODELS.index(model.name) if known else len(COMPARED_MODELS)


def export(found: ImagesComparison, batch: BatchResult | None = None) -> dict[str, Any]:
    """A finished comparison as JSON-ready values.

    Args:
        found: The comparison.
        batch: The images behind it, where some were uploaded.
    """
    content = {
        "disclaimer": DISCLAIMER,
        "app": APP,
        "task": found.task.key,
        "caveat": found.task.caveat,
        "labelled": found.is_labelled,
        "images": found.images,
        "notes": list(found.notes),
        "models": {model.title: _model(found, model) for model in found.compared},
        "comparisons": [result.to_dict() for result in found.paired],
        "kappas": [
            {"first": first, "second": second, "cohen_kappa": value}
            for (first, second), value in found.agreeing.items()
        ],
        "disagreements": len(found.differing),
    }
    return content if batch is None else {**content, "batch": _batch(batch)}


def store_disagreements(found: ImagesComparison, batch: BatchResult | None = None) -> str | None:
    """Writes the images that the models answer differently into the cache; None where there is one model.

    Args:
        found: A finished comparison.
        batch: The images behind it, where some were uploaded: their files and hashes are written too.
    """
    if len(found.compared) < 2:
        return None
    titles = [model.title for model in found.compared]
    columns = ["image_id", *(["file", "sha256"] if batch else []), "label_true", "source"]
    columns += [f"{kind} {title}" for title in titles for kind in ("label", "target_score", "answer_status")]
    path = private_folder() / "dermadeit-disagreements.csv"
    write_csv(path, columns, _rows(found, batch))
    return str(path)


def _model(found: ImagesComparison, model: ComparedModel) -> dict[str, Any]:
    cost = found.costs.get(model.title)
    return {
        "model": model.name,
        "views": model.predictions.views,
        "left_out": model.dropped,
        "weights_sha256": model.predictions.weights_sha256 or None,
        **found.figures.get(model.title, {}),
        "latency": cost.latency.to_dict() if cost else None,
    }


def _batch(batch: BatchResult) -> dict[str, Any]:
    return {
        "notes": list(batch.notes),
        "left_out": dict(batch.excluded),
        "failed": {model: len(batch.failed(model)) for model in batch.models},
    }


def _rows(found: ImagesComparison, batch: BatchResult | None) -> Iterator[dict[str, Any]]:
    items = {item.image.image_id: item for item in batch.items} if batch else {}
    for image in found.differing:
        row = {"image_id": image.image_id, "label_true": image.label, "source": image.source}
        if item := items.get(image.image_id):
            row |= {"file": item.image.file, "sha256": item.records[0].sha256}
        row |= {f"label {title}": answer for title, answer in image.answers.items()}
        row |= {f"target_score {title}": score for title, score in image.scores.items()}
        yield row | {f"answer_status {title}": image.status(title) for title in image.answers}
