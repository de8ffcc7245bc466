"""Prediction tables that visitors give for a comparison."""

from __future__ import annotations

from pathlib import Path

from dermadeit.batch import read_handed_predictions
from dermadeit.errors import ManifestError
from dermadeit.imaging import sanitise_name
from dermadeit.predictions import PredictionSet
from dermadeit.views.uploads import private_folder, uploaded_files

MAX_TABLES = 12


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
