"""What a visitor uploads, made one list of images: loose files, folders, ZIPs, with or without a table.

Each image is opened by itself when its turn comes. Nothing is dropped silently: what is not in the list is in
`Collection.left_out` with the reason, and what contradicts itself is a `TableError` that names the lines.
"""

from __future__ import annotations

import codecs
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from dermadeit.data.archives import Archive, opened_archive
from dermadeit.data.labelling import (
    ForTask,
    Ledger,
    LeftOut,
    Reading,
    Reason,
    choose_table,
    describe_left_out,
    files_without_row,
    for_task,
    missing_image,
    read_folders,
    read_rows,
    remainder_note,
)
from dermadeit.data.search import FileSearch, FoundFile, is_hidden, sanitise_path
from dermadeit.data.sources import GivenTable, read_given_table, read_with_table
from dermadeit.data.tabular import TABLE_SUFFIXES, read_csv
from dermadeit.data.vocabulary import Vocabulary
from dermadeit.errors import ErrorCode, ImageError, TableError
from dermadeit.imaging.decode import READING_SIDE, LesionImage, decode_image, sanitise_name
from dermadeit.tasks import Task

MAX_IMAGES = 10_000
"""Images of all files together."""

MAX_TABLE_BYTES = 30_000_000
MAX_TABLE_ROWS = 250_000
MAX_TABLE_CELLS = 2_000_000
"""Of an uploaded table: each cell takes a multiple of its letters in memory, and an empty one as much."""

_DEEPEST = 32
_DRIVE = re.compile(r"[A-Za-z]:/")
_HEADER_BYTES = 1 << 16
_CHUNK = 1 << 20
_SEPARATORS = (b",", b";", b"\t")
_MARKS = (*_SEPARATORS, b"\n", b"\r")

_SHEETS = (".xls", ".ods", ".numbers")
_OF_A_SYSTEM = "it is a hidden file of an operating system"
_PREDICTION_COLUMNS = {"image_id", "task", "model", "views", "label_true"}


@dataclass(frozen=True)
class UploadedFile:
    """One file that was uploaded.

    Attributes:
        path: Where it lies: our choice, never the visitor's.
        name: The visitor's name for it, or its path in an uploaded folder; untrusted.
    """

    path: Path
    name: str


@dataclass(frozen=True)
class CollectedImage:
    """One image to be read, not opened yet.

    Attributes:
        image_id: Identifier, unique in its collection.
        file: Its name or its path in a ZIP, for display.
        label: Key of the true class, or an empty string where it is unknown.
        lesion_group: Images that share it show the same lesion. The image's own id where it is unknown.
        source: Name of the collection it comes from, or an empty string.
        split: Name of the split, or an empty string.
        metadata: As `ManifestRow.metadata` holds it.
        read: As `FoundFile.read`.
    """

    image_id: str
    file: str
    label: str
    lesion_group: str
    source: str
    split: str
    metadata: Mapping[str, str] = field(hash=False)
    read: Callable[[], bytes | Path] = field(repr=False, compare=False)

    def decode(self) -> LesionImage:
        """Its pixels, of a large JPEG as few as suffice to read it; raises `ImageError`."""
        return decode_image(self.read(), name=self.file, enough_side=READING_SIDE)


@dataclass(frozen=True)
class Collection:
    """Images to be read, in order.

    Attributes:
        task: What the labels are classes of.
        images: The images; either all of them have a label or none has.
        left_out: What is not among them.
        notes: What had to be assumed, as sentences; the first says it where only a part can be used.
        ledger: What was taken for what; None without labels.
        classes: The classes of the set, those too of rows whose image is missing; empty without labels.
    """

    task: Task
    images: tuple[CollectedImage, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...] = ()
    ledger: Ledger | None = None
    classes: tuple[str, ...] = ()

    @property
    def labelled(self) -> bool:
        """Whether the true classes are known."""
        return bool(self.images) and bool(self.images[0].label)


@contextmanager
def opened_collection(files: Sequence[UploadedFile], task: Task) -> Iterator[Collection]:
    """Sorts what was uploaded; its images can be read for as long as the block lasts.

    Labels come from a table where there is one, else from folders, uploaded or in a ZIP, that are named after
    classes or diagnoses, else from nowhere.

    Args:
        files: Image files, ZIPs, and at most one table of labels (CSV or Excel), loose, in a folder or in a ZIP.
        task: Decides which labels are known.

    Raises:
        TableError: A ZIP or the table can't be used, or nothing is left to read.
    """
    with ExitStack() as stack:
        sorting = _Sorting(stack)
        for uploaded in files:
            sorting.add(uploaded)
        _refuse_predictions(sorting)
        _check_count(sorting)
        yield _collect(sorting, task)


def are_prediction_tables(files: Sequence[UploadedFile]) -> bool:
    """Whether tables of predictions alone were uploaded, to be evaluated without images and weights."""
    return bool(files) and all(map(_is_prediction_table, files))


def _is_prediction_table(file: UploadedFile) -> bool:
    if not file.name.lower().endswith(TABLE_SUFFIXES):
        return False
    try:
        with file.path.open("rb") as stream:
            start = stream.read(_HEADER_BYTES)
    except OSError:
        return False
    lines = start.removeprefix(codecs.BOM_UTF8).lstrip(b"\r\n").splitlines()
    try:
        return bool(lines) and holds_predictions(read_csv(lines[0]).columns)
    except TableError:
        # Whoever reads all of it says what is wrong with it.
        return False


def holds_predictions(columns: Sequence[str]) -> bool:
    """Whether a table is one of predictions.

    It has the columns that `evaluate` writes, or an identifier and `p_<class>` or `logit_<class>` of two classes.
    """
    names = [column.lower() for column in columns]
    if set(names) >= _PREDICTION_COLUMNS:
        return True
    scores = (sum(name.startswith(prefix) for name in names) for prefix in ("p_", "logit_"))
    return "image_id" in names and max(scores) >= 2


def check_table_size(source: Path | bytes, name: str) -> None:
    """Refuses a table that would take too much memory, before it is read.

    Args:
        source: A file, or its content.
        name: What to call it.

    Raises:
        TableError: It is larger than `MAX_TABLE_BYTES`, `MAX_TABLE_ROWS` or `MAX_TABLE_CELLS`.
    """
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as stream:
        size, counts = 0, Counter()
        while chunk := stream.read(_CHUNK):
            size += len(chunk)
            counts.update({mark: chunk.count(mark) for mark in _MARKS})
            if size > MAX_TABLE_BYTES:
                break
    # A lone CR ends a line too.
    rows = max(counts[b"\n"], counts[b"\r"])
    cells = rows + max(counts[mark] for mark in _SEPARATORS)
    for found, most, shown in (
        (size, MAX_TABLE_BYTES, f"{MAX_TABLE_BYTES // 1_000_000} MB"),
        (rows, MAX_TABLE_ROWS, f"{MAX_TABLE_ROWS:,} lines"),
        (cells, MAX_TABLE_CELLS, f"{MAX_TABLE_CELLS:,} cells"),
    ):
        if found > most:
            raise TableError(
                f"“{name}” has more than {shown}, so it is not read. Use one line for each image.",
                code=ErrorCode.TABLE_TOO_LARGE,
            )


class _Sorting:
    """Files, told apart by what is to be done with them."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._names: set[str] = set()
        self.found: list[FoundFile] = []
        self.tables: list[GivenTable] = []
        self.left_out: list[LeftOut] = []

    def add(self, uploaded: UploadedFile) -> None:
        given = uploaded.name.replace("\\", "/")
        name = sanitise_path(given) or sanitise_name(given)
        if refusal := _refusal_of_path(given):
            self.left_out.append(LeftOut(name, refusal, Reason.REFUSED))
        elif "/" in name and is_hidden(name.split("/")):
            self.left_out.append(LeftOut(name, _OF_A_SYSTEM, Reason.HIDDEN))
        elif name.lower().endswith(".zip"):
            archive = self._stack.enter_context(opened_archive(uploaded.path))
            for member in archive.members:
                self._add_member(archive, member.name, member.refusal)
        elif name.lower().endswith(TABLE_SUFFIXES):
            self.tables.append(_read_given(name, uploaded.path))
        elif reason := _unread_table(name):
            self.left_out.append(LeftOut(name, reason, Reason.UNUSED_TABLE))
        else:
            size = uploaded.path.stat().st_size
            self.found.append(FoundFile(self._unique(name), partial(_same, uploaded.path), name, size=size))

    def _add_member(self, archive: Archive, name: str, refusal: str) -> None:
        parts = [part for part in name.split("/") if part not in ("", ".", "..")]
        shown = sanitise_path(name) or "image"
        if refusal:
            self.left_out.append(LeftOut(shown, refusal, Reason.REFUSED))
        elif is_hidden(parts):
            self.left_out.append(LeftOut(shown, _OF_A_SYSTEM, Reason.HIDDEN))
        elif name.lower().endswith(TABLE_SUFFIXES):
            self.tables.append(_read_given(shown, _content_of(archive, name, shown)))
        elif reason := _unread_table(name):
            self.left_out.append(LeftOut(shown, reason, Reason.UNUSED_TABLE))
        else:
            read, size = partial(archive.read, name), archive.size(name)
            self.found.append(FoundFile(self._unique(shown), read, shown, size=size))

    def _unique(self, name: str) -> str:
        """The name, numbered where another file has it already."""
        shown, number = name, 1
        while shown in self._names:
            number += 1
            shown = f"{name} ({number})"
        self._names.add(shown)
        return shown


def _refusal_of_path(path: str) -> str:
    """Why a file with this path is not read; empty where it is."""
    if path.startswith("/") or _DRIVE.match(path):
        return "its path is absolute"
    if ".." in path.split("/"):
        return "its path leaves the folder"
    if path.count("/") > _DEEPEST:
        return f"it lies more than {_DEEPEST} folders deep"
    return ""


def _same(path: Path) -> Path:
    return path


def _content_of(archive: Archive, name: str, shown: str) -> bytes:
    try:
        return archive.read(name)
    except ImageError as error:
        raise TableError(
            f"The table “{shown}” in the ZIP can't be read. {error.user_message}", code=error.code
        ) from error


def _read_given(name: str, source: Path | bytes) -> GivenTable:
    check_table_size(source, name)
    return read_given_table(name, source)


def _unread_table(name: str) -> str:
    """Why a spreadsheet of another kind is not read; empty for any other file."""
    return (
        "it is a spreadsheet of another kind; save it as .xlsx or CSV"
        if name.lower().endswith(_SHEETS)
        else ""
    )


def _refuse_predictions(sorting: _Sorting) -> None:
    if sorting.found and any(
        given.table and holds_predictions(given.table.columns) for given in sorting.tables
    ):
        raise TableError(
            "A table of predictions is evaluated without images. Upload it alone, or upload a table of "
            "labels.",
            code=ErrorCode.PREDICTIONS_WITH_IMAGES,
        )


def _collect(sorting: _Sorting, task: Task) -> Collection:
    vocabulary = Vocabulary(task)
    readable = [(given.name, given.table) for given in sorting.tables if given.table is not None]
    chosen = choose_table(readable, sorting.found, vocabulary)
    folders = read_folders(sorting.found, vocabulary) if chosen is None else None
    if chosen is None and folders is None:
        if sorting.tables:
            raise _refusal_of_tables(sorting.tables, vocabulary)
        images = tuple(
            CollectedImage(item.file, item.file, "", item.file, "", "", {}, item.read)
            for item in sorting.found
        )
        return Collection(task, images, tuple(sorting.left_out), _notes_on_unused(sorting.left_out))
    if chosen is None:
        used, reading, search = "", folders, None
    else:
        used = chosen[0]
        given = next(given for given in sorting.tables if given.table is chosen[1])
        others = [item for item in readable if item[1] is not chosen[1]]
        reading, search = read_with_table(given, others, FileSearch(lambda: sorting.found), vocabulary)
    assert reading is not None, "there are folders where no table was chosen"
    left_out = [*sorting.left_out, *_unused_tables(sorting.tables, used, reading)]
    labelled = for_task(reading, task)
    images, missing = _collected(labelled)
    if not images:
        raise _nothing_left(labelled, missing, sorting, task)
    left_out += [*missing, *labelled.left_out]
    if search is not None:
        listed = {item.file for item in left_out}
        left_out += [item for item in files_without_row(search, reading) if item.file not in listed]
    first = remainder_note(len(images), left_out)
    notices = (*_notes_on_unused(left_out), *labelled.ledger.sentences(), *reading.notes)
    classes = tuple(dict.fromkeys(key for _, key in labelled.rows))
    notes = (first, *notices) if first else notices
    return Collection(task, tuple(images), tuple(left_out), notes, labelled.ledger, classes)


def _collected(labelled: ForTask) -> tuple[list[CollectedImage], list[LeftOut]]:
    """The images of the rows, and the rows whose image is missing."""
    images, missing = [], []
    for row, label in labelled.rows:
        if row.found is None:
            missing.append(missing_image(row))
            continue
        group = row.lesion_group or row.image_id
        images.append(
            CollectedImage(
                row.image_id,
                row.found.file,
                label,
                group,
                row.source,
                row.split,
                row.metadata,
                row.found.read,
            )
        )
    return images, missing


def _refusal_of_tables(tables: Sequence[GivenTable], vocabulary: Vocabulary) -> TableError:
    """What is wrong with the tables where none of them can be used."""
    for given in tables:
        if given.refusal is not None:
            return given.refusal
    first, table = next((given, given.table) for given in tables if given.table is not None)
    try:
        read_rows(table, FileSearch(lambda: ()), vocabulary, name=first.name)
    except TableError as error:
        return error
    return TableError(f"The table “{first.name}” names no labels. Give a table of labels.")


def _unused_tables(tables: Sequence[GivenTable], used: str, reading: Reading) -> Iterator[LeftOut]:
    for given in tables:
        joined = any(note.startswith(f"The table “{given.name}” was joined") for note in reading.notes)
        if given.name == used or joined:
            continue
        reason = given.refusal.user_message if given.refusal else "it is a table that names no labels"
        yield LeftOut(given.name, reason, Reason.UNUSED_TABLE)


def _notes_on_unused(left_out: Sequence[LeftOut]) -> tuple[str, ...]:
    return tuple(
        f"“{item.file}” was not used: {item.reason.rstrip('.')}."
        for item in left_out
        if item.code == Reason.UNUSED_TABLE
    )


def _nothing_left(labelled: ForTask, missing: Sequence[LeftOut], sorting: _Sorting, task: Task) -> TableError:
    """What is wrong where no image is left."""
    if not labelled.ledger.columns:
        return TableError(
            f"No folder is a class of the task “{task.key}”. Name them {', '.join(task.classes)}, or after "
            f"ISIC diagnoses such as {', '.join(task.class_of_diagnosis)}. "
            f"{describe_left_out(labelled.left_out)}".strip(),
            code=ErrorCode.NO_IMAGES,
        )
    if missing:
        return TableError(
            "The table has none of the images. Its column “file” or “image_id” must have their names: line "
            f"{missing[0].line} names “{missing[0].image_id}”, the first file is called "
            f"“{sorting.found[0].file}”. {describe_left_out(labelled.left_out)}".strip(),
            code=ErrorCode.NO_IMAGES,
        )
    return TableError(
        f"The table has no row that can be used for the task “{task.key}”. "
        f"{describe_left_out(labelled.left_out)}".strip(),
        code=ErrorCode.NO_IMAGES,
    )


def _check_count(sorting: _Sorting) -> None:
    if not sorting.found:
        refused = Counter(item.reason for item in sorting.left_out).most_common(1)
        why = f" Reason: {refused[0][0]}." if refused else ""
        raise TableError(
            f"There is no image among the files.{why} Choose images, or a folder or ZIP of images.",
            code=ErrorCode.NO_IMAGES,
        )
    if len(sorting.found) > MAX_IMAGES:
        raise TableError(
            f"There are {len(sorting.found):,} images; at most {MAX_IMAGES:,} are read at once. Upload "
            f"them in parts.",
            code=ErrorCode.TOO_MANY_IMAGES,
        )
