"""Prediction tables that visitors give for a comparison."""

from __future__ import annotations

from pathlib import Path

from dermadeit.errors import ManifestError
from dermadeit.imaging import sanitise_name
from dermadeit.predictions import PredictionSet, read_predictions
from dermadeit.views.uploads import private_folder, uploaded_files

MAX_TABLE_BYTES = 30_000_000
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
                (f"{Path(file.name).stem} {number}", _read(file.path, sanitise_name(file.name)))
                for number, file in enumerate(files, start=1)
            ]
    finally:
        folder.rmdir()


def _read(path: Path, name: str) -> tuple[PredictionSet, ...]:
    if path.stat().st_size > MAX_TABLE_BYTES:
        raise ManifestError(
            f"“{name}” is larger than {MAX_TABLE_BYTES // 1_000_000} MB. Give a table of predictions, which has "
            "one line an image.",
            code="table_too_large",
        )
    try:
        return read_predictions(path)
    except ManifestError as error:
        # The file lies under a name of ours, which tells its owner nothing.
        raise ManifestError(error.user_message.replace(path.name, name), code=error.code) from error
