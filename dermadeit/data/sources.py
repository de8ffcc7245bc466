"""What lies in a folder or a ZIP on disk, and what a table says of it, whatever code page names are of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from dermadeit.data.archives import opened_archive
from dermadeit.data.labelling import LeftOut, Reading, Reason, join, read_rows
from dermadeit.data.search import (
    IMAGE_SUFFIXES,
    FileSearch,
    FoundFile,
    found_on_disk,
    is_hidden,
    list_folder,
    sanitise_path,
)
from dermadeit.data.tabular import CODE_PAGES, TABLE_SUFFIXES, Table, is_utf8, read_table_file
from dermadeit.data.vocabulary import Vocabulary
from dermadeit.errors import ErrorCode, ImageError, TableError

_TAKEN_FOR = ("cp437", "cp850", "cp1252", "latin-1")
"""What names in a ZIP that don't say which code page they are of are taken for, by us and by who unpacked it."""

_SHOWN = 5


@dataclass(frozen=True)
class GivenTable:
    """A table that was given: what is in it, or why it can't be read.

    Attributes:
        name: Its name or path within its source.
        source: The file, or its content.
        table: What is in it; None where it can't be read.
        refusal: Why it can't be.
    """

    name: str
    source: Path | bytes
    table: Table | None
    refusal: TableError | None = None


@dataclass(frozen=True)
class Source:
    """What lies in a folder or a ZIP.

    Attributes:
        name: Of the folder or the ZIP.
        files: What may be images.
        tables: What may have labels.
        left_out: What is refused, with the reason.
        passed_over: The files of operating systems, and in a folder those that are no images.
        is_archive: Whether it is a ZIP.
    """

    name: str
    files: tuple[FoundFile, ...]
    tables: tuple[GivenTable, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    passed_over: tuple[str, ...] = ()
    is_archive: bool = False

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what was passed over, and on tables that can't be read."""
        sentences = tuple(
            f"The table “{given.name}” was not used: {given.refusal.user_message}"
            for given in self.tables
            if given.refusal is not None
        )
        if self.passed_over:
            names, count = ", ".join(self.passed_over[:_SHOWN]), len(self.passed_over)
            more = f" and {count - _SHOWN:,} more" if count > _SHOWN else ""
            sentences += (f"Passed over, because they are no images: {count:,} ({names}{more}).",)
        return sentences


def is_zip(path: Path) -> bool:
    """Whether a path is that of a ZIP file, by its name."""
    return path.name.lower().endswith(".zip") and path.is_file()


def open_source(path: Path, opened: ExitStack | None = None) -> Source:
    """Lists a folder or a ZIP.

    Args:
        path: The folder, or the ZIP.
        opened: Keeps the ZIP open for as long as its images are read; without one, none is taken.

    Raises:
        TableError: It is missing, or a ZIP that can't be read.
    """
    if is_zip(path):
        if opened is None:
            raise TableError(f"“{path.name}” is a ZIP. Unpack it first.", code=ErrorCode.UNSUPPORTED_FORMAT)
        return _open_zip(path, opened)
    if not path.is_dir():
        raise TableError(f"There is no folder or ZIP “{path.name}”.", code=ErrorCode.NO_FOLDER)
    content = list_folder(path)

    def within(each: Path) -> str:
        return each.relative_to(path).as_posix()

    return Source(
        path.name,
        tuple(found_on_disk(each, within(each)) for each in content.images),
        tuple(read_given_table(within(each), each) for each in content.tables),
        passed_over=tuple(map(within, content.passed_over)),
    )


def _open_zip(path: Path, opened: ExitStack) -> Source:
    archive = opened.enter_context(opened_archive(path))
    files, tables, refused, hidden = [], [], [], []
    for member in archive.members:
        shown = sanitise_path(member.name)
        if member.refusal:
            refused.append(LeftOut(shown, member.refusal, Reason.REFUSED, summary=member.refusal))
        elif is_hidden(member.name.split("/")):
            hidden.append(shown)
        elif member.name.lower().endswith(TABLE_SUFFIXES):
            tables.append(_table_in(shown, partial(archive.read, member.name)))
        elif member.name.lower().endswith(IMAGE_SUFFIXES):
            size = archive.size(member.name)
            files.append(FoundFile(shown, partial(archive.read, member.name), shown, size=size))
        else:
            refused.append(LeftOut(shown, "it is no image", Reason.REFUSED, summary="no image"))
    return Source(path.name, tuple(files), tuple(tables), tuple(refused), tuple(hidden), is_archive=True)


def _table_in(name: str, read: partial[bytes]) -> GivenTable:
    try:
        return read_given_table(name, read())
    except ImageError as error:
        return GivenTable(name, b"", None, TableError(error.user_message, code=error.code))


def read_given_table(name: str, source: Path | bytes) -> GivenTable:
    """Reads a table, or notes why it can't be read."""
    try:
        return GivenTable(name, source, read_table_file(source, name))
    except TableError as error:
        return GivenTable(name, source, None, error)


def tables_beside(table: Path) -> list[tuple[str, Table]]:
    """The other tables in the folder of one, those that can be read."""
    paths = sorted(path for path in table.parent.glob("*") if path.name.lower().endswith(TABLE_SUFFIXES))
    read = (read_given_table(path.name, path) for path in paths if path != table)
    return [(given.name, given.table) for given in read if given.table is not None]


def read_with_table(
    given: GivenTable,
    others: Sequence[tuple[str, Table]],
    search: FileSearch,
    vocabulary: Vocabulary,
    columns: Mapping[str, str] | None = None,
) -> tuple[Reading, FileSearch]:
    """The rows of a table; where it doesn't find all files, by the code page with which it finds most.

    Args:
        given: The table of labels.
        others: What else may be joined with it.
        search: The files.
        vocabulary: What labels are called.
        columns: As `find_columns` takes them.

    Returns:
        The reading, and the search that found its files.

    Raises:
        TableError: The table can't be read, or a column that is needed is missing.
    """
    if given.table is None:
        raise given.refusal or TableError(f"The table “{given.name}” can't be read.")

    def attempt(
        table: Table, search: FileSearch, renamed: tuple[str, ...] = ()
    ) -> tuple[Reading, FileSearch]:
        joined, notes = join(table, others, search)
        reading = read_rows(joined, search, vocabulary, name=given.name, given=columns)
        return replace(reading, notes=(*renamed, *reading.notes, *notes)), search

    best = attempt(given.table, search)
    if _missing(best[0]) == 0:
        return best
    for code_page in ("utf-8", *CODE_PAGES, "cp1252"):
        tables = [given.table]
        if not is_utf8(given.source):
            tables.append(read_table_file(given.source, given.name, code_page))
        renamed = (f"The names of the files were read as {code_page.upper()}.",)
        searches: list[tuple[FileSearch, tuple[str, ...]]] = [
            (FileSearch(partial(tuple, files)), renamed) for files in _renamings(search.files, code_page)
        ]
        if len(tables) > 1:
            searches.append((search, ()))
        for renamed, notes in searches:
            for table in tables:
                tried = attempt(table, renamed, notes)
                if _missing(tried[0]) < _missing(best[0]):
                    best = tried
        if _missing(best[0]) == 0:
            break
    return best


def _missing(reading: Reading) -> int:
    return sum(row.found is None for row in reading.rows)


def _renamings(files: Sequence[FoundFile], code_page: str) -> list[list[FoundFile]]:
    """The files under the names that they have in a code page, where these are others."""
    found = []
    for taken_for in _TAKEN_FOR:
        renamed = [
            replace(
                item,
                file=_in_code_page(item.file, taken_for, code_page),
                given=_in_code_page(item.given, taken_for, code_page),
            )
            for item in files
        ]
        names = {item.file for item in renamed}
        if len(names) == len(files) and names != {item.file for item in files} and renamed not in found:
            found.append(renamed)
    return found


def _in_code_page(name: str, taken_for: str, code_page: str) -> str:
    """A name of a ZIP that says nothing of its letters, which was read with another code page."""
    try:
        return name.encode(taken_for).decode(code_page)
    except UnicodeError:
        return name
