"""Labelled images on disk, of one task, with the checks that make an evaluation mean something."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from dermadeit.data.labelling import (
    ForTask,
    LabelledRow,
    Ledger,
    LeftOut,
    Reading,
    choose_table,
    describe_left_out,
    files_without_row,
    for_task,
    missing_image,
    read_folders,
    remainder_note,
)
from dermadeit.data.search import IMAGE_SUFFIXES, FileSearch, FoundFile, found_on_disk, list_folder
from dermadeit.data.sources import (
    GivenTable,
    Source,
    is_zip,
    open_source,
    read_with_table,
    tables_beside,
)
from dermadeit.data.tabular import read_table_file
from dermadeit.data.vocabulary import SPLITS, Vocabulary, find_columns
from dermadeit.errors import ErrorCode, TableError
from dermadeit.tasks import Task

__all__ = ["SPLITS", "Manifest", "ManifestRow", "check_leaks", "leaking_lesions", "read_source"]

logger = logging.getLogger(__name__)

_SHOWN = 5


@dataclass(frozen=True)
class ManifestRow:
    """One labelled image.

    Attributes:
        image_id: Identifier, unique in its manifest.
        file: The image's path as the manifest gives it, for display.
        path: Where the image should lie. It may be missing: that is found out when it is read.
        label: Key of the class.
        split: One of `SPLITS`, or an empty string.
        lesion_group: Images that share it show the same lesion. The image's own id where it is unknown.
        source: Name of the collection, or an empty string.
        metadata: Those of `METADATA_COLUMNS` that are filled in, as the table has them.
        read: Gives the bytes of an image in a ZIP; None where it lies at `path`.
    """

    image_id: str
    file: str
    path: Path
    label: str
    split: str
    lesion_group: str
    source: str
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    read: Callable[[], bytes | Path] | None = field(default=None, repr=False, compare=False)

    def content(self) -> bytes | Path:
        """The path of the image, or its bytes in a ZIP; raises `ImageError` where they can't be read."""
        return self.path if self.read is None else self.read()


@dataclass(frozen=True)
class Manifest:
    """Labelled images of one task.

    Attributes:
        task: The task whose classes the labels are.
        rows: The images, in the order of the table.
        exclusions: What was left out, and why.
        ledger: What was taken for what; None where nothing was read.
        notes: What had to be assumed, as sentences; the first says it where only a part can be used.
    """

    task: Task
    rows: tuple[ManifestRow, ...]
    exclusions: tuple[LeftOut, ...]
    ledger: Ledger | None = None
    notes: tuple[str, ...] = ()

    def select(self, split: str) -> Manifest:
        """The images of one split; raises `TableError` if there are none."""
        rows = tuple(row for row in self.rows if row.split == split)
        if not rows:
            known = sorted({row.split for row in self.rows if row.split})
            raise TableError(
                f"The manifest has no images of the split “{split}” for the task “{self.task.key}”. "
                + (f"Its splits are {', '.join(known)}." if known else "Add a column “split”.")
            )
        exclusions = tuple(item for item in self.exclusions if item.split in (split, ""))
        return replace(self, rows=rows, exclusions=exclusions)

    @property
    def excluded(self) -> dict[str, int]:
        """Why images were left out, and how many for each reason."""
        return dict(Counter(item.summary or item.reason for item in self.exclusions))

    @property
    def class_counts(self) -> dict[str, int]:
        """Class key to number of images, in the task's class order."""
        counts = Counter(row.label for row in self.rows)
        return {key: counts[key] for key in self.task.classes}


def read_source(
    source: Path, task: Task, images: Path | None = None, *, opened: ExitStack | None = None
) -> Manifest:
    """Reads labelled images: a folder or a ZIP with a table or class subfolders, or a table.

    Args:
        source: The folder, the ZIP, or the table (CSV or Excel).
        task: Decides which labels are known.
        images: Folder or ZIP that the table's files are in; None for the folder of the table.
        opened: Keeps a ZIP open for as long as its images are read; without one, none is taken.

    Raises:
        TableError: The source is missing, empty, or nothing in it can be used; the message names the lines.
    """
    if source.is_dir() or is_zip(source):
        return _read_set(open_source(source, opened), source, task)
    if not source.is_file():
        raise TableError(f"There is no file or folder “{source.name}”.", code=ErrorCode.SOURCE_MISSING)
    return _read_table(source, task, (images or source.parent).absolute(), opened)


def leaking_lesions(manifest: Manifest) -> list[str]:
    """The lesion groups whose images lie in more than one split."""
    splits_of_group: dict[str, set[str]] = defaultdict(set)
    for row in manifest.rows:
        splits_of_group[row.lesion_group].add(row.split)
    return [group for group, splits in splits_of_group.items() if len(splits) > 1]


def check_leaks(manifest: Manifest) -> None:
    """Raises `TableError` where images of one lesion lie in two splits."""
    leaking = leaking_lesions(manifest)
    if leaking:
        raise TableError(
            f"{len(leaking)} lesions have images in two splits, such as {', '.join(leaking[:_SHOWN])}: a "
            "model would be tested on lesions of its training. Split by lesion, or allow the leak to measure it.",
            code=ErrorCode.LESION_LEAK,
        )


def _read_table(table: Path, task: Task, images: Path, opened: ExitStack | None) -> Manifest:
    """The rows of a table whose images lie in a folder or a ZIP."""
    archive = open_source(images, opened) if is_zip(images) else None
    search = FileSearch(lambda: archive.files) if archive else FileSearch(lambda: _files_in(images), images)
    given = GivenTable(table.name, table, read_table_file(table))
    assert given.table is not None, "it was read"
    names_images = {"file", "image_id"} & find_columns(given.table.columns).keys()
    others = [] if names_images else tables_beside(table)
    reading, found_by = read_with_table(given, others, search, Vocabulary(task))
    root = images.parent if archive else images
    manifest = _of_reading(reading, task, root, found_by, everything=archive is not None)
    return replace(manifest, exclusions=(*manifest.exclusions, *(archive.left_out if archive else ())))


def _read_set(source: Source, path: Path, task: Task) -> Manifest:
    """Files with a table of labels among them, or in class folders."""
    vocabulary, search = Vocabulary(task), FileSearch(lambda: source.files)
    tables = [(given.name, given.table) for given in source.tables if given.table is not None]
    chosen = choose_table(tables, source.files, vocabulary)
    notes = source.notes
    if chosen is not None:
        given = next(given for given in source.tables if given.table is chosen[1])
        others = [item for item in tables if item[1] is not chosen[1]]
        reading, search = read_with_table(given, others, search, vocabulary)
    else:
        reading = read_folders(source.files, vocabulary)
        notes += tuple(f"The table “{name}” was not used: it names no labels." for name, _ in tables)
    if reading is None:
        raise TableError(
            f"“{source.name}” has no class subfolders with images. Name the subfolders {', '.join(task.classes)}, "
            f"or after ISIC diagnoses such as {', '.join(task.class_of_diagnosis)}.",
            code=ErrorCode.NO_IMAGES,
        )
    root = (path.parent if source.is_archive else path).absolute()
    reading = replace(reading, notes=(*reading.notes, *notes))
    manifest = _of_reading(reading, task, root, search, everything=source.is_archive)
    return replace(manifest, exclusions=(*manifest.exclusions, *source.left_out))


def _of_reading(
    reading: Reading, task: Task, root: Path, search: FileSearch, *, everything: bool
) -> Manifest:
    """The rows of one task; files without a row count as left out in the folders of the images, or everywhere."""
    chosen = for_task(reading, task)
    if not chosen.rows:
        raise TableError(_nothing_left(chosen, task), code=_code_of_nothing(chosen))
    rows = tuple(_manifest_row(row, label, root) for row, label in chosen.rows)
    exclusions = chosen.left_out
    if chosen.ledger.columns:
        exclusions += tuple(
            files_without_row(search, reading) if everything else _unnamed_beside(reading, rows, search, root)
        )
    missing = [missing_image(row) for row, _ in chosen.rows if row.found is None]
    first = remainder_note(len(rows) - len(missing), (*exclusions, *missing))
    notes = (first, *reading.notes) if first else reading.notes
    for note in notes:
        logger.warning("%s", note)
    return Manifest(task, rows, exclusions, chosen.ledger, notes)


def _nothing_left(chosen: ForTask, task: Task) -> str:
    if not chosen.ledger.columns:
        return (
            f"No folder is a class of the task “{task.key}”. Name them {', '.join(task.classes)}, or after ISIC "
            f"diagnoses such as {', '.join(task.class_of_diagnosis)}. {describe_left_out(chosen.left_out)}"
        ).strip()
    if not chosen.left_out:
        return f"The table has no row that belongs to the task “{task.key}”."
    return f"The table has no row that can be used for the task “{task.key}”. {describe_left_out(chosen.left_out)}"


def _code_of_nothing(chosen: ForTask) -> ErrorCode | None:
    return None if chosen.ledger.columns else ErrorCode.NO_IMAGES


def _manifest_row(row: LabelledRow, label: str, root: Path) -> ManifestRow:
    lesion_group = row.lesion_group or row.image_id
    if row.found is not None:
        shown = row.file or row.found.given.rsplit("/", 1)[-1]
        path, read = row.found.path, None
        if path is None:
            path, read = root / row.found.given, row.found.read
        return ManifestRow(
            row.image_id, shown, path, label, row.split, lesion_group, row.source, row.metadata, read
        )
    name = row.file or f"{row.image_id}{IMAGE_SUFFIXES[0]}"
    path = root / name.replace("\\", "/")
    return ManifestRow(
        row.image_id, row.file or path.name, path, label, row.split, lesion_group, row.source, row.metadata
    )


def _unnamed_beside(
    reading: Reading, rows: tuple[ManifestRow, ...], search: FileSearch, root: Path
) -> list[LeftOut]:
    """The images in the folders of the rows' images that no row names."""
    folders = {row.path.parent for row in rows}
    beside = {
        path.relative_to(root).as_posix()
        for folder in folders
        if folder.is_dir() and folder.is_relative_to(root)
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() and not path.name.startswith(".")
    }
    named = {row.found.file for row in reading.rows if row.found}
    if beside <= named:
        return []
    return [item for item in files_without_row(search, reading) if item.file in beside]


def _files_in(folder: Path) -> list[FoundFile]:
    return [found_on_disk(path, path.relative_to(folder).as_posix()) for path in list_folder(folder).images]
