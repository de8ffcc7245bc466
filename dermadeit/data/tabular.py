"""Tables: CSV and Excel as people really save them, and CSV that can't trick a spreadsheet.

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
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Number
from pathlib import Path
from typing import Any, TextIO

from dermadeit.errors import ErrorCode, TableError
from dermadeit.files import write_atomically

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NEUTRALISED = re.compile(r"'+[=+\-@\t\r]")
_NUMBER = re.compile(r"[-+]?\d+([.,]\d+)?")
_SEPARATOR_LINE = re.compile(r'\s*sep=([^\w\r\n"])\s*\r?\n?', re.IGNORECASE)
_IMAGE_FILE = re.compile(r".+\.(jpe?g|png|webp|tiff?|bmp)", re.IGNORECASE)
_SHOWN = 5

TABLE_SUFFIXES = (".csv", ".tsv", ".xlsx")
"""Of the files that `read_table_file` reads."""

CODE_PAGES = ("cp932", "gbk", "big5", "euc_kr")
"""Of tables and names of files that don't say which they are of, besides UTF-8 and Windows-1252."""

MAX_WORKBOOK_BYTES = 300_000_000
MAX_WORKBOOK_CELLS = 5_000_000
"""What an Excel file may unpack to."""


@dataclass(frozen=True)
class Table:
    """A table as text.

    Attributes:
        columns: Column names, unique and not empty.
        rows: One dictionary of column to text per row.
        line_numbers: Line of the file on which each row starts, counted from 1.
        notes: What had to be assumed to read the file, as sentences.
        ragged: Line and number of cells of each row that is left out because it has more or fewer than the header.
    """

    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]
    line_numbers: tuple[int, ...]
    notes: tuple[str, ...] = ()
    ragged: tuple[tuple[int, int], ...] = ()


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


def read_table_file(source: Path | bytes, name: str = "", encoding: str = "") -> Table:
    """Reads a table of the kinds of `TABLE_SUFFIXES`, told by its first bytes; ragged rows are left out.

    Args:
        source: A file, or its content.
        name: What to call it; a path's own name by default.
        encoding: As `read_csv` takes it.

    Raises:
        TableError: The table is missing, empty, or malformed; the message names the lines.
    """
    content = _content(source)
    if content.startswith(b"PK\x03\x04"):
        return _read_workbook(content)
    if content.startswith(b"\xd0\xcf\x11\xe0"):
        name = name or (source.name if isinstance(source, Path) else "The table")
        raise TableError(
            f"“{name}” is an old Excel file (.xls). Save it as .xlsx or CSV.",
            code=ErrorCode.UNSUPPORTED_FORMAT,
        )
    return read_csv(content, encoding, skip_ragged=True)


def read_csv(source: Path | bytes, encoding: str = "", *, skip_ragged: bool = False) -> Table:
    """Reads a table separated by commas, semicolons or tabs, in UTF-8, UTF-16 or a code page.

    Columns that have neither a name nor a content are left out, and so are those without a name that only count
    the rows, as pandas writes them. A first line such as ``sep=;`` names the separator.

    Args:
        source: A file, or its content.
        encoding: The code page of a table that is neither UTF-8 nor UTF-16; Windows-1252 by default.
        skip_ragged: Leave out rows that have more or fewer cells than the header, instead of refusing the table,
            as long as another row fits.

    Returns:
        All cells as text, with neutralised formulas restored. Blank lines are skipped.

    Raises:
        TableError: The table is missing, empty, or malformed; the message names the lines.
    """
    text, notes = _decode(_content(source), encoding)
    named = _SEPARATOR_LINE.match(text)
    delimiter = named[1] if named else _delimiter_of(text)
    if delimiter != ",":
        spoken = {"\t": "tabs", ";": "semicolons"}.get(delimiter, f"“{delimiter}”")
        notes.append(f"Columns are separated by {spoken}.")
    numbered = _records(text[named.end() :] if named else text, delimiter, first_line=2 if named else 1)
    return _as_table(numbered, notes, skip_ragged)


def is_utf8(source: Path | bytes) -> bool:
    """Whether a table says by itself which letters it has: UTF-8, UTF-16, or a workbook."""
    content = _content(source)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, b"PK\x03\x04")):
        return True
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _as_table(numbered: list[tuple[int, list[str]]], notes: list[str], skip_ragged: bool) -> Table:
    if not numbered:
        raise TableError(
            "The table is empty. Its first line must have column names.", code=ErrorCode.EMPTY_TABLE
        )
    header_line, header = numbered[0]
    width = len(header)
    trimmed = [(line, _trimmed(cells, width)) for line, cells in numbered[1:]]
    fitting = [(line, cells) for line, cells in trimmed if len(cells) == width]
    ragged = [(line, len(cells)) for line, cells in trimmed if len(cells) != width]
    header, fitting = _without_nameless(header, fitting)
    columns = tuple(column.strip() for column in header)
    _check_header(columns, header_line)
    if ragged and not (skip_ragged and fitting):
        raise _refusal_of_ragged(ragged, width)
    return Table(
        columns=columns,
        rows=tuple(dict(zip(columns, cells, strict=True)) for _, cells in fitting),
        line_numbers=tuple(line for line, _ in fitting),
        notes=tuple(notes),
        ragged=tuple(ragged),
    )


def _trimmed(cells: list[str], width: int) -> list[str]:
    """A row without the empty cells that go beyond the columns."""
    return cells[:width] if not any(cell.strip() for cell in cells[width:]) else cells


def _without_nameless(
    header: list[str], rows: list[tuple[int, list[str]]]
) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header and rows without the columns that have no name and nothing to say; others without a name get one."""
    nameless = [place for place, column in enumerate(header) if not column.strip()]
    if not rows or not nameless or len(nameless) == len(header):
        return header, rows
    dropped, named = set(), list(header)
    for place in nameless:
        cells = [row[place].strip() for _, row in rows]
        if not any(cells) or _counts(cells):
            dropped.add(place)
        else:
            named[place] = f"(column {place + 1})"

    def kept(cells: list[str]) -> list[str]:
        return [cell for place, cell in enumerate(cells) if place not in dropped]

    return kept(named), [(line, kept(cells)) for line, cells in rows]


def _counts(cells: Sequence[str]) -> bool:
    """Whether cells count from 0 or 1, or are whole numbers that rise, as of a table of which rows were taken."""
    numbers = [int(cell) for cell in cells if cell.isascii() and cell.isdigit() and len(cell) < 10]
    filled = [cell for cell in cells if cell]
    return len(numbers) == len(filled) and all(a < b for a, b in pairwise(numbers))


def _read_workbook(content: bytes) -> Table:
    """The first sheet of an Excel file that has anything in it."""
    # Imported here: most tables are CSV.
    import openpyxl

    damaged = TableError(
        "The Excel file can't be read: it is damaged, protected by a password, or something else. Save it as CSV.",
        code=ErrorCode.UNREADABLE_TABLE,
    )
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
        # Of other methods Python inflates everything at once, whatever size is declared.
        if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
            raise damaged
        if sum(member.file_size for member in members) > MAX_WORKBOOK_BYTES:
            raise TableError(
                "The Excel file would unpack to too many bytes. Save it as CSV.",
                code=ErrorCode.TABLE_TOO_LARGE,
            )
        with warnings.catch_warnings():
            # What it says of styles and extensions is no matter of ours.
            warnings.simplefilter("ignore")
            workbook = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
            sheets = [(sheet.title, _rows_of_sheet(sheet)) for sheet in workbook.worksheets]
    except TableError:
        raise
    # openpyxl lets through whatever its parsers raise.
    except Exception as error:
        raise damaged from error
    filled = [(title, rows) for title, rows in sheets if rows]
    notes = []
    if len(filled) > 1:
        others = ", ".join(f"“{title}”" for title, _ in filled[1:])
        notes.append(f"The sheet “{filled[0][0]}” was read, and not {others}.")
    return _as_table(filled[0][1] if filled else [], notes, skip_ragged=True)


def _rows_of_sheet(sheet: Any) -> list[tuple[int, list[str]]]:
    rows, count = [], 0
    for number, values in enumerate(sheet.iter_rows(values_only=True), start=1):
        # A sheet may claim columns without end, and rows, which are then given without a cell.
        count += max(1, len(values))
        if count > MAX_WORKBOOK_CELLS:
            raise TableError(
                f"The Excel file has more than {MAX_WORKBOOK_CELLS:,} cells. Save the used ones as CSV.",
                code=ErrorCode.TABLE_TOO_LARGE,
            )
        cells = [_text_of(value) for value in values]
        if any(cells):
            rows.append((number, cells))
    width = max((len(cells) for _, cells in rows), default=0)
    return [(number, cells + [""] * (width - len(cells))) for number, cells in rows]


def _text_of(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


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


def _decode(content: bytes, encoding: str) -> tuple[str, list[str]]:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            text = content.decode("utf-16")
        except UnicodeDecodeError:
            raise TableError("The table is damaged UTF-16. Save it as CSV in UTF-8.") from None
        if (position := text.find("\0")) >= 0:
            raise _refusal_of_nul(text.count("\n", 0, position) + 1)
        return text, ["The table was read as UTF-16."]
    if (position := content.find(b"\0")) >= 0:
        raise _refusal_of_nul(content.count(b"\n", 0, position) + 1)
    if content.startswith(codecs.BOM_UTF8):
        content = content[len(codecs.BOM_UTF8) :]
    try:
        return content.decode("utf-8"), []
    except UnicodeDecodeError:
        pass
    for code_page in dict.fromkeys((*filter(None, [encoding]), "cp1252", *CODE_PAGES)):
        try:
            text = content.decode(code_page)
        except UnicodeDecodeError:
            continue
        name = "Windows-1252" if code_page == "cp1252" else code_page.upper()
        return text, [f"The table is not UTF-8 and was read as {name}."]
    line = content.count(b"\n", 0, _first_undefined(content)) + 1
    raise TableError(
        f"Line {line} of the table is neither UTF-8 nor Windows-1252 text. Save it as CSV in UTF-8."
    )


def _refusal_of_nul(line: int) -> TableError:
    return TableError(
        f"Line {line} of the table has a NUL byte: this is not a text "
        "file, or it is UTF-16 without a mark. Save it as CSV in UTF-8."
    )


def _first_undefined(content: bytes) -> int:
    """Position of the first byte that Windows-1252 lacks."""
    try:
        content.decode("cp1252")
    except UnicodeDecodeError as error:
        return error.start
    return 0


def _delimiter_of(text: str) -> str:
    """The separator that occurs most often outside quotes in the first line that is not blank."""
    header = text.lstrip("\r\n").split("\n", 1)[0]
    counts = Counter(re.sub(r'"[^"]*"', "", header))
    return max(",;\t", key=lambda delimiter: counts[delimiter])


def _records(text: str, delimiter: str, first_line: int = 1) -> list[tuple[int, list[str]]]:
    """Line number and restored cells of every record that is not a blank line."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    records, line = [], first_line
    try:
        for cells in reader:
            if cells:
                records.append((line, [_restored(cell) for cell in cells]))
            line = reader.line_num + first_line
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


def _refusal_of_ragged(ragged: Sequence[tuple[int, int]], width: int) -> TableError:
    shown = ", ".join(f"line {line} has {count}" for line, count in ragged[:_SHOWN])
    more = f" and {len(ragged) - _SHOWN} more lines" if len(ragged) > _SHOWN else ""
    return TableError(
        f"The table has {width} columns, but {shown}{more}. Quote cells that contain the separator.",
        code=ErrorCode.RAGGED_TABLE,
    )
