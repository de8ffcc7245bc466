"""The tables of docs/data.md on the names that the reader knows, written from `dermadeit.data.vocabulary`."""

from __future__ import annotations

from pathlib import Path

from dermadeit.data.vocabulary import (
    COLUMN_NAMES,
    DIAGNOSIS_NAMES,
    GROUP_NAMES,
    NONE_OF_THEM,
    SPLIT_NAMES,
)
from dermadeit.reporting.markdown import write_between_marks
from dermadeit.tasks import DIAGNOSES

MARK = "names"


def known_names() -> str:
    """The tables as Markdown."""
    columns = {role: ", ".join(f"`{name}`" for name in names) for role, names in COLUMN_NAMES.items()}
    diagnoses = {
        key: ", ".join((full_name, *DIAGNOSIS_NAMES[key])) for key, full_name in DIAGNOSES.items()
    } | {
        "none of the eight": ", ".join(NONE_OF_THEM),
        **{f"one of {', '.join(members)}": name for name, members in GROUP_NAMES.items()},
    }
    splits = {split: ", ".join(names) for split, names in SPLIT_NAMES.items()}
    return "\n".join(
        [
            _table("read as", "names of the column", columns),
            _table("diagnosis", "names of the class", diagnoses),
            _table("split", "names", splits),
        ]
    )


def write_known_names(document: Path) -> None:
    """Replaces the tables between their marks.

    Raises:
        ConfigurationError: The document has no place for them.
    """
    write_between_marks(document, MARK, known_names())


def _table(first: str, second: str, rows: dict[str, str]) -> str:
    lines = [f"| {first} | {second} |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())]
    return "\n".join(lines) + "\n"
