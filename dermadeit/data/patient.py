"""Age and sex of a patient, as a person or a table gives them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermadeit.data.search import FileSearch, found_on_disk
from dermadeit.data.tabular import read_table_file
from dermadeit.data.vocabulary import find_columns, sex_of
from dermadeit.errors import ConfigurationError, ErrorCode, TableError

OLDEST = 120
"""Years above which a number is taken for a mistake."""

_ROLES = ("file", "image_id", "age", "sex")


@dataclass(frozen=True)
class Patient:
    """What is known of a patient besides the photo.

    Attributes:
        age: In years, 0 to `OLDEST`; None where unknown.
        sex: `female` or `male`; None where unknown.
    """

    age: float | None = None
    sex: str | None = None


def read_patient(age: Any = None, sex: Any = None) -> Patient | None:
    """Reads what a person has entered.

    Args:
        age: In years, a number or its text; None or an empty text for unknown.
        sex: One of `vocabulary.SEX_NAMES` in any case; likewise.

    Returns:
        None where nothing is known.

    Raises:
        ConfigurationError: The age is no number of years, or the sex is not known.
    """
    age_text, sex_text = ("" if value is None else str(value).strip() for value in (age, sex))
    years = _years(age_text)
    if age_text and years is None:
        raise ConfigurationError(
            f"“{age_text[:20]}” is not an age. Give the years as a number from 0 to {OLDEST}, such as 63, or "
            "leave the age out.",
            code=ErrorCode.NOT_A_NUMBER,
        )
    known_sex = sex_of(sex_text)
    if known_sex is None:
        raise ConfigurationError(
            f"“{sex_text[:20]}” is not a known sex. Write female or male, or leave the sex out.",
            code=ErrorCode.UNKNOWN_VALUE,
        )
    return Patient(years, known_sex or None) if years is not None or known_sex else None


def patient_of(metadata: Mapping[str, str]) -> Patient:
    """What a row of a table says; a cell that can't be used counts as unknown.

    Args:
        metadata: As `ManifestRow.metadata` holds it.
    """
    return Patient(_years(metadata.get("age", "").strip()), sex_of(metadata.get("sex", "")) or None)


def read_patients(table: Path, images: Sequence[str]) -> list[Patient | None]:
    """The patients of image files, from a table.

    Args:
        table: With a column `file` or `image_id`, and `age` or `sex`, by any of their usual names.
        images: Paths of the files; a row names one by its name, with or without folders and suffix.

    Returns:
        One for each file; None where no row names it.

    Raises:
        TableError: The table can't be read, lacks a column, names none of the files, or has an age or a sex that
            can't be meant.
    """
    content = read_table_file(table)
    columns = find_columns(content.columns)
    names = [columns[role][0] for role in ("file", "image_id") if role in columns]
    if not names or not {"age", "sex"} & columns.keys():
        raise TableError(
            f"“{table.name}” needs a column file or image_id, and a column age or sex. Its columns are "
            f"{', '.join(content.columns)}.",
            code=ErrorCode.MISSING_COLUMN,
        )
    files = [found_on_disk(Path(image), image) for image in images]
    search = FileSearch(lambda: files)
    found: dict[str, Patient | None] = {}
    for row, line in zip(content.rows, content.line_numbers, strict=True):
        cells = {role: row[columns[role][0]].strip() for role in _ROLES if role in columns}
        matches = search.find(cells.get("file", ""), cells.get("image_id", ""))
        if len(matches) > 1:
            raise TableError(
                f"Line {line} of “{table.name}” may mean {len(matches)} of the photos. Write its folder too."
            )
        for item in matches:
            try:
                found[item.given] = read_patient(cells.get("age"), cells.get("sex"))
            except ConfigurationError as error:
                raise TableError(
                    f"Line {line} of “{table.name}”: {error.user_message}", code=error.code
                ) from error
    if not found:
        raise TableError(
            f"“{table.name}” names none of the photos. Write their file names into its column {names[0]}.",
            code=ErrorCode.NO_IMAGES,
        )
    return [found.get(item.given) for item in files]


def _years(text: str) -> float | None:
    try:
        years = float(text)
    except ValueError:
        return None
    return years if math.isfinite(years) and 0 <= years <= OLDEST else None
