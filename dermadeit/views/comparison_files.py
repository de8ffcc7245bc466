"""Predictions for a comparison: the tables that visitors give, and those that ship with the app."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from dermadeit.errors import ManifestError
from dermadeit.evaluation.batch import read_handed_predictions
from dermadeit.evaluation.comparison import Entrant, gather
from dermadeit.evaluation.predictions import PredictionSet
from dermadeit.imaging.decode import sanitise_name
from dermadeit.models.specs import COMPARED_MODELS
from dermadeit.publishing.benchmark import BENCHMARK_ROOT, read_benchmark
from dermadeit.publishing.benchmark_table import MODELS_FILE, in_order
from dermadeit.tasks import Task
from dermadeit.views.uploads import private_folder, uploaded_files

MAX_TABLES = 12


def shipped_entrants(task: Task, root: Path = BENCHMARK_ROOT) -> tuple[Entrant, ...]:
    """The models whose predictions of the test images are shipped, in the order in which they are published.

    Raises:
        ManifestError: A file is missing or contradicts the others.
    """
    filed = read_benchmark(root / task.key, task)
    described = json.loads((root / MODELS_FILE).read_text(encoding="utf-8"))
    order = in_order(filed.models, described)
    titles = {model: entry["title"] for model, entry in described.items() if "title" in entry}
    most_views = [
        replace(
            filed.models[model][max(filed.models[model])],
            weights_sha256=filed.weights_sha256.get(model, ""),
        )
        for model in order
    ]
    return gather([("shipped", most_views)], task, titles)


def table_entrants(payload: object, task: Task) -> tuple[Entrant, ...]:
    """The models of the tables that a visitor gave, those that the app knows first; the uploads are deleted.

    Args:
        payload: As for `read_tables`.
        task: The task to compare them for.

    Raises:
        DermaDeiTError: As `read_tables` and `entrants.gather`.
    """
    return tuple(sorted(gather(read_tables(payload), task), key=_place))


def read_tables(payload: object) -> list[tuple[str, tuple[PredictionSet, ...]]]:
    """Reads the uploaded tables; they are deleted, whether or not they could be read.

    Args:
        payload: The file records of a Gradio event. Everything in them is untrusted.

    Returns:
        Name of each table, different from the others, and the predictions in it.

    Raises:
        ImageError: Something in the payload is not an upload, or is no longer there.
        ManifestError: What was given is too much, or no table of predictions.
        TaskError: A table names an unknown task.
    """
    folder = private_folder()
    try:
        with uploaded_files(payload, folder) as files:
            if not 0 < len(files) <= MAX_TABLES:
                raise ManifestError(
                    f"{len(files)} tables were given. Choose one to {MAX_TABLES} predictions.csv in one go.",
                    code="number_of_tables",
                )
            return [
                (
                    f"{Path(file.name).stem} {number}",
                    read_handed_predictions(file.path, sanitise_name(file.name)),
                )
                for number, file in enumerate(files, start=1)
            ]
    finally:
        folder.rmdir()


def _place(entrant: Entrant) -> int:
    known = entrant.name in COMPARED_MODELS
    return COMPARED_MODELS.index(entrant.name) if known else len(COMPARED_MODELS)
