"""What a visitor hands in, made one list of images: loose files, folders, ZIPs, with or without a table.

Each image is opened by itself when its turn comes. Nothing is dropped silently: what is not in the list is in
`Collection.left_out` with the reason, and what contradicts itself is a `TableError` that names the lines.
"""

from __future__ import annotations

import codecs
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dermadeit.data.archives import Archive, opened_archive
from dermadeit.data.labelling import (
    CollectedImage,
    FoundFile,
    LeftOut,
    label_by_folders,
    label_by_table,
    sanitise_path,
)
from dermadeit.data.tabular import Table, read_csv
from dermadeit.errors import ErrorCode, ImageError, TableError
from dermadeit.imaging.decode import sanitise_name
from dermadeit.tasks import Task

MAX_IMAGES = 10_000
"""Images of all files together."""

MAX_TABLE_BYTES = 30_000_000
MAX_TABLE_ROWS = 250_000
MAX_TABLE_CELLS = 2_000_000
"""Of a table that was handed in: each cell takes a multiple of its letters in memory, and an empty one as much."""

_DEEPEST = 32
_DRIVE = re.compile(r"[A-Za-z]:/")
_HIDDEN = ("__macosx", "thumbs.db", "desktop.ini")
_HEADER_BYTES = 1 << 16
_CHUNK = 1 << 20
_SEPARATORS = (b",", b";", b"\t")
_MARKS = (*_SEPARATORS, b"\n", b"\r")

_OF_A_SYSTEM = "it is a hidden file of an operating system"
_PREDICTION_COLUMNS = {"image_id", "task", "model", "views", "label_true"}
_TABLES = (".csv", ".tsv")


@dataclass(frozen=True)
class HandedFile:
    """One file that was handed in.

    Attributes:
        path: Where it lies: our choice, never the visitor's.
        name: The visitor's name for it, or its path in a folder that was handed in; untrusted.
    """

    path: Path
    name: str


@dataclass(frozen=True)
class Collection:
    """Images to be read, in order.

    Attributes:
        task: What the labels are classes of.
        images: The images; either all of them have a label or none has.
        left_out: What is not among them.
        notes: What had to be assumed, as sentences.
    """

    task: Task
    images: tuple[CollectedImage, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...] = ()

    @property
    def labelled(self) -> bool:
        """Whether the true classes are known."""
        return bool(self.images) and bool(self.images[0].label)


@contextmanager
def opened_collection(files: Sequence[HandedFile], task: Task) -> Iterator[Collection]:
    """Sorts what was handed in; its images can be read for as long as the block lasts.

    Labels come from a CSV table where there is one, else from folders, handed in or in a ZIP, that are named after
    classes or ISIC 2019 diagnoses, else from nowhere.

    Args:
        files: Image files, ZIPs, and at most one table of labels, loose, in a folder or in a ZIP.
        task: Decides which labels are known.

    Raises:
        TableError: A ZIP or the table can't be used, or nothing is left to read.
    """
    with ExitStack() as stack:
        sorting = _Sorting(stack)
        for handed in files:
            sorting.add(handed)
        table = _only_table(sorting)
        _check_count(sorting)
        if table is None:
            images, left_out = label_by_folders(sorting.found, task)
        else:
            images, left_out = label_by_table(sorting.found, table, task)
        notes = table.notes if table else ()
        yield Collection(task, tuple(images), (*sorting.left_out, *left_out), notes)


def is_prediction_table(files: Sequence[HandedFile]) -> bool:
    """Whether a table of predictions alone was handed in, to be evaluated without images and weights."""
    if len(files) != 1 or not files[0].name.lower().endswith(_TABLES):
        return False
    try:
        with files[0].path.open("rb") as stream:
            start = stream.read(_HEADER_BYTES)
    except OSError:
        return False
    lines = start.removeprefix(codecs.BOM_UTF8).lstrip(b"\r\n").splitlines()
    try:
        return bool(lines) and set(read_csv(lines[0]).columns) >= _PREDICTION_COLUMNS
    except TableError:
        # Whoever reads all of it says what is wrong with it.
        return False


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
        self.tables: list[tuple[str, Table]] = []
        self.left_out: list[LeftOut] = []

    def add(self, handed: HandedFile) -> None:
        given = handed.name.replace("\\", "/")
        name = sanitise_path(given) or sanitise_name(given)
        if refusal := _refusal_of_path(given):
            self.left_out.append(LeftOut(name, refusal))
        elif "/" in name and _is_hidden(name.split("/")):
            self.left_out.append(LeftOut(name, _OF_A_SYSTEM))
        elif name.lower().endswith(".zip"):
            archive = self._stack.enter_context(opened_archive(handed.path))
            for member in archive.members:
                self._add_member(archive, member.name, member.refusal)
        elif name.lower().endswith(_TABLES):
            check_table_size(handed.path, name)
            self.tables.append((name, read_csv(handed.path)))
        else:
            self.found.append(FoundFile(self._unique(name), partial(_same, handed.path), name))

    def _add_member(self, archive: Archive, name: str, refusal: str) -> None:
        parts = [part for part in name.split("/") if part not in ("", ".", "..")]
        shown = sanitise_path(name) or "image"
        if refusal:
            self.left_out.append(LeftOut(shown, refusal))
        elif _is_hidden(parts):
            self.left_out.append(LeftOut(shown, _OF_A_SYSTEM))
        elif name.lower().endswith(_TABLES):
            self.tables.append((shown, _read_table_of(archive, name, shown)))
        else:
            self.found.append(FoundFile(self._unique(shown), partial(archive.read, name), shown))

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


def _is_hidden(parts: Sequence[str]) -> bool:
    return any(part.startswith(".") or part.lower() in _HIDDEN for part in parts)


def _same(path: Path) -> Path:
    return path


def _read_table_of(archive: Archive, name: str, shown: str) -> Table:
    try:
        content = archive.read(name)
    except ImageError as error:
        raise TableError(
            f"The table “{shown}” in the ZIP can't be read. {error.user_message}", code=error.code
        ) from error
    check_table_size(content, shown)
    return read_csv(content)


def _only_table(sorting: _Sorting) -> Table | None:
    names = [name for name, _ in sorting.tables]
    if len(names) > 1:
        raise TableError(
            f"There are {len(names)} tables, such as {names[0]} and {names[1]}. Give one table of labels.",
            code=ErrorCode.SEVERAL_TABLES,
        )
    if not names:
        return None
    [(_, table)] = sorting.tables
    if sorting.found and set(table.columns) >= _PREDICTION_COLUMNS:
        raise TableError(
            "A table of predictions is evaluated without images. Upload it alone, or upload a table of "
            "labels.",
            code=ErrorCode.PREDICTIONS_WITH_IMAGES,
        )
    return table


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
