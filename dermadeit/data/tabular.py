"""CSV files, written so that a spreadsheet can't be tricked by them and read as people really save them.

Spreadsheets run a cell that starts with one of ``= + - @`` TAB CR as a formula. `write_csv` therefore puts one
apostrophe before any text that consists of zero or more apostrophes followed by such a character, and
`read_csv` takes one apostrophe away from exactly these cells: ``=1`` travels as ``'=1``, ``'=1`` as ``''=1``,
and ``'quoted'`` as it is. Numbers are never touched, so ``-0.5`` stays a number.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Number
from pathlib import Path
from typing import Any, TextIO

from dermadeit.errors import ErrorCode, TableError
from dermadeit.files import write_atomically

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NEUTRALISED = re.compile(r"'+[=+\-@\t\r]")
_NUMBER = re.compile(r"[-+]?\d+([.,]\d+)?")
_IMAGE_FILE = re.compile(r".+\.(jpe?g|png|webp|tiff?|bmp)", re.IGNORECASE)
_SHOWN = 5


@dataclass(frozen=True)
class Table:
    """A CSV file as text.

    Attributes:
        columns: Column names, unique and not empty.
        rows: One dictionary of column to text per row.
        line_numbers: Line of the file on which each row starts, counted from 1.
        notes: What had to be assumed to read the file, as sentences.
    """

    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]
    line_numbers: tuple[int, ...]
    notes: tuple[str, ...] = ()


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a table as UTF-8 with LF line ends, all of it or nothing.

    Args:
        path: The file to create or replace.
        columns: Column names, in order.
        rows: Column to value. A missing column or None becomes an empty cell; numbers are written plainly,
            everything else as text, in which lone surrogates become backslash escapes.

    Raises:
        ValueError: A row has a column that is not in `columns`, or a text has a NUL character.
    """
    known = set(columns)

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
            # With CR in its line end, the writer also quotes cells that hold a lone CR.
            writer = csv.writer(_LineFeedEnds(stream), lineterminator="\r\n")
            writer.writerow([_cell(column) for column in columns])
            for row in rows:
                if unknown := set(row) - known:
                    raise ValueError(f"row has columns that are not in the table: {sorted(unknown)}")
                writer.writerow([_cell(row.get(column)) for column in columns])

    write_atomically(path, write)


def read_csv(source: Path | bytes) -> Table:
    """Reads a table separated by commas, semicolons or tabs, in UTF-8 or Windows-1252.

    Args:
        source: A file, or its content.

    Returns:
        All cells as text, with neutralised formulas restored. Blank lines are skipped.

    Raises:
        TableError: The table is missing, empty, or malformed; the message names the lines.
    """
    text, notes = _decode(_content(source))
    delimiter = _delimiter_of(text)
    if delimiter != ",":
        notes.append(f"Columns are separated by {'tabs' if delimiter == chr(9) else 'semicolons'}.")
    numbered = _records(text, delimiter)
    if not numbered:
        raise TableError(
            "The table is empty. Its first line must have column names.", code=ErrorCode.EMPTY_TABLE
        )
    header_line, header = numbered[0]
    columns = tuple(column.strip() for column in header)
    _check_header(columns, header_line)
    _check_widths(numbered[1:], len(columns))
    return Table(
        columns=columns,
        rows=tuple(dict(zip(columns, cells, strict=True)) for _, cells in numbered[1:]),
        line_numbers=tuple(line for line, _ in numbered[1:]),
        notes=tuple(notes),
    )


class _LineFeedEnds:
    """A sink for `csv.writer` that turns the CR LF after each record into LF and keeps those inside cells."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, record: str) -> int:
        return self._stream.write(record.removesuffix("\r\n") + "\n")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = str(value)
    if "\0" in text:
        raise ValueError("a text with a NUL character can't be written to CSV")
    return f"'{text}" if not isinstance(value, Number) and _FORMULA.match(text) else text


def _restored(cell: str) -> str:
    return cell[1:] if _NEUTRALISED.match(cell) else cell


def _content(source: Path | bytes) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise TableError(
            f"The table can't be read: {error.strerror or 'unknown reason'}.", code=ErrorCode.UNREADABLE_TABLE
        ) from None


def _decode(content: bytes) -> tuple[str, list[str]]:
    if (position := content.find(b"\0")) >= 0:
        line = content.count(b"\n", 0, position) + 1
        raise TableError(
            f"Line {line} of the table has a NUL byte: this is not a text "
            "file, or it is UTF-16. Save it as CSV in UTF-8."
        )
    if content.startswith(codecs.BOM_UTF8):
        content = content[len(codecs.BOM_UTF8) :]
    try:
        return content.decode("utf-8"), []
    except UnicodeDecodeError:
        pass
    try:
        return content.decode("cp1252"), ["The table is not UTF-8 and was read as Windows-1252."]
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise TableError(
            f"Line {line} of the table is neither UTF-8 nor Windows-1252 text. Save it as CSV in UTF-8."
        ) from None


def _delimiter_of(text: str) -> str:
    """The separator that occurs most often outside quotes in the first line that is not blank."""
    header = text.lstrip("\r\n").split("\n", 1)[0]
    counts = Counter(re.sub(r'"[^"]*"', "", header))
    return max(",;\t", key=lambda delimiter: counts[delimiter])


def _records(text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """Line number and restored cells of every record that is not a blank line."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    records, line = [], 1
    try:
        for cells in reader:
            if cells:
                records.append((line, [_restored(cell) for cell in cells]))
            line = reader.line_num + 1
    except csv.Error as error:
        raise TableError(
            f"The table can't be read from line {line} on: {error}. Check its quotation marks."
        ) from None
    return records


def _check_header(columns: tuple[str, ...], line: int) -> None:
    looks_like_data = all(map(_NUMBER.fullmatch, columns)) or any(map(_IMAGE_FILE.fullmatch, columns))
    if looks_like_data or not all(columns):
        raise TableError(
            f"Line {line} of the table has no column names, or an empty one. Add a first line such as "
            "“image_id,file,diagnosis”.",
            code=ErrorCode.MISSING_HEADER,
        )
    repeated = [column for column, count in Counter(columns).items() if count > 1]
    if repeated:
        raise TableError(
            f"Line {line} of the table names the column “{repeated[0]}” more than once. Rename or remove one.",
            code=ErrorCode.DUPLICATE_COLUMN,
        )


def _check_widths(numbered: Sequence[tuple[int, list[str]]], width: int) -> None:
    ragged = [(line, len(cells)) for line, cells in numbered if len(cells) != width]
    if ragged:
        shown = ", ".join(f"line {line} has {count}" for line, count in ragged[:_SHOWN])
        more = f" and {len(ragged) - _SHOWN} more lines" if len(ragged) > _SHOWN else ""
        raise TableError(
            f"The table has {width} columns, but {shown}{more}. Quote cells that contain the separator.",
            code=ErrorCode.RAGGED_TABLE,
        )
