"""The layouts in which people have labelled lesion photos, each read into one list of what there is.

| layout | read by |
|---|---|
| the three ISIC 2019 training archives | `isic2019.open_isic2019` |
| ``train/<class>/``, ``val/<class>/``, optionally ``test/<class>/`` | `read_class_folders` |
| HAM10000's two image folders and its metadata | `read_ham10000` |
| any table with an image column and a label column | `read_labelled_csv` |

All of them go through the reader of the library, so that a preparation and an evaluation read the same of a set.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

from dermadeit.data.labelling import (
    LabelledRow,
    LeftOut,
    Reading,
    Reason,
    files_without_row,
    read_folders,
)
from dermadeit.data.own_classes import find_own_task
from dermadeit.data.search import FileSearch, FoundFile, list_folder, read_limited, without_image_suffix
from dermadeit.data.sources import GivenTable, Source, is_zip, open_source, read_with_table, tables_beside
from dermadeit.data.tabular import Table, read_table_file
from dermadeit.data.vocabulary import SPLITS, UNKNOWN_DIAGNOSIS, Meaning, Vocabulary, find_columns
from dermadeit.errors import ConfigurationError, ErrorCode, TableError
from dermadeit.tasks import TASKS, Task

logger = logging.getLogger(__name__)

_SHOWN = 8


@dataclass(frozen=True)
class SourceImage:
    """One labelled photo, before it is read.

    Attributes:
        image_id: Unique in its collection.
        location: What the collection's `read` takes.
        fingerprint: Changes where the file does.
        diagnosis: One of `DIAGNOSES`, or an empty string where only `label` is known.
        label: Class of a task that no single diagnosis stands for, such as “others”; else empty.
        dataset: The collection that it comes from.
        lesion_id: Images that share it show the same lesion; empty where unknown.
        split: The split that it came with, or empty.
        sex, age, anatomic_site: As the source has them; empty where unknown.
    """

    image_id: str
    location: str
    fingerprint: str
    diagnosis: str
    label: str = ""
    dataset: str = ""
    lesion_id: str = ""
    split: str = ""
    sex: str = ""
    age: str = ""
    anatomic_site: str = ""


@dataclass(frozen=True)
class ExcludedImage:
    """One photo that was left out: a row of `exclusions.csv`.

    Attributes:
        reason: Stable name of the reason, in snake_case.
        detail: The reason for people.
    """

    image_id: str
    file: str
    diagnosis: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Collection:
    """What a layout holds.

    Attributes:
        name: For people.
        images: What can be used.
        exclusions: What can't, and why.
        read: Location to the encoded bytes, at most a byte more than the decoder takes. Raises `ImageError`.
            May be called from several threads.
        task: Of classes of the user's own; None where they are known ones.
    """

    name: str
    images: tuple[SourceImage, ...]
    exclusions: tuple[ExcludedImage, ...]
    read: Callable[[str], bytes]
    task: Task | None = None


@dataclass
class Listing:
    """A collection under construction."""

    images: list[SourceImage] = field(default_factory=list)
    exclusions: list[ExcludedImage] = field(default_factory=list)
    unknown: Counter = field(default_factory=Counter)
    task: Task | None = None

    def add(self, meaning: Meaning, given: str, **fields: str) -> None:
        """Takes an image in under what its label means, or notes that it is left out."""
        if meaning.name == UNKNOWN_DIAGNOSIS:
            self.exclude(
                fields["image_id"], fields["location"], "unknown_diagnosis", "none of the eight diagnoses"
            )
        elif not meaning.diagnosis and not _is_usable(meaning, self.task):
            self.unknown[given] += 1
            self.exclude(
                fields["image_id"],
                fields["location"],
                Reason.AMBIGUOUS_CLASS,
                f"“{given}” may be several classes",
            )
        else:
            label = "" if meaning.diagnosis else meaning.name
            self.images.append(SourceImage(diagnosis=meaning.diagnosis, label=label, **fields))

    def exclude(self, image_id: str, file: str, reason: str, detail: str) -> None:
        """Notes an image that is left out."""
        self.exclusions.append(ExcludedImage(image_id, file, "", reason, detail))

    def leave_out(self, item: LeftOut) -> None:
        """Notes what the reader has left out."""
        if item.code == Reason.UNKNOWN_CLASS:
            self.unknown[item.label] += 1
        detail = f"line {item.line} of the table: {item.reason}" if item.line else item.reason
        name = item.image_id or item.file
        self.exclude(_stem(name) if not item.line else name, name, item.code, detail)

    def finish(self, name: str, read: Callable[[str], bytes]) -> Collection:
        """The collection; raises `TableError` where nothing, or a single class beside unknown ones, is left."""
        classes = {image.diagnosis or image.label for image in self.images}
        if self.unknown:
            shown = ", ".join(
                f"“{label}” ({count} images)" for label, count in self.unknown.most_common(_SHOWN)
            )
            message = (
                f"It is not known which diagnosis is meant by {shown}. Say what each stands for with "
                f"--class-name {next(iter(self.unknown))!r}=DIAGNOSIS, or with UNK in place of DIAGNOSIS to leave "
                "its images out."
            )
            if len(classes) < 2:
                raise TableError(message, code=ErrorCode.UNKNOWN_CLASS)
            logger.warning("Left out: %s", message)
        contradicting = [item for item in self.exclusions if item.reason == Reason.CONTRADICTING_LABELS]
        if contradicting and len(classes) < 2:
            raise TableError(
                f"{len(contradicting)} rows or files give images two labels, such as {contradicting[0].image_id} "
                f"({contradicting[0].detail}), and no second class is left. Leave one label for each image.",
                code=ErrorCode.DUPLICATE_IMAGE,
            )
        repeated = [key for key, count in Counter(item.image_id for item in self.images).items() if count > 1]
        if repeated:
            raise TableError(
                f"{len(repeated)} images are listed more than once, such as {', '.join(repeated[:_SHOWN])}. "
                "Leave one row of each.",
                code=ErrorCode.DUPLICATE_IMAGE,
            )
        if not self.images:
            why = f" The first is left out because: {self.exclusions[0].detail}." if self.exclusions else ""
            raise TableError(f"{name} has no labelled image.{why}", code=ErrorCode.NO_IMAGES)
        return Collection(name, tuple(self.images), tuple(self.exclusions), read, self.task)


def _is_usable(meaning: Meaning, own: Task | None) -> bool:
    """Whether some task can use a label that is no diagnosis."""
    for task in (*TASKS.values(), *([own] if own else ())):
        try:
            if meaning.class_of(task) is not None:
                return True
        except TableError:
            continue
    return False


def read_class_folders(
    folder: Path, synonyms: Mapping[str, str], *, opened: ExitStack | None = None
) -> Collection:
    """``train/<class>/``, ``val/<class>/`` and so on, or class folders without splits.

    Args:
        folder: The folder or ZIP. Where it has a `classes.yaml`, or no folder that is named after a known class,
            its classes are the user's own.
        synonyms: More class names; with any, the classes are not the user's own.
        opened: Keeps a ZIP open for as long as its images are read.

    Raises:
        ConfigurationError: There is no such folder.
        TableError: No images, or a single class beside unknown ones.
    """
    source = _open(folder, opened)
    task = None if synonyms else find_own_task(folder, source)
    name = f"The {'ZIP' if source.is_archive else 'folder'} “{source.name}”"
    _tell(source, (given.name for given in source.tables))
    listing = Listing(task=task)
    reading = read_folders(source.files, Vocabulary(task, synonyms=synonyms))
    if reading is None:
        for item in source.files:
            parents = item.given.split("/")[:-1]
            label = parents[-1] if parents else ""
            code = Reason.UNKNOWN_CLASS if label else Reason.NO_LABEL
            listing.leave_out(LeftOut(item.file, "in no class folder", code, label=label))
        return listing.finish(name, read_file)
    return _collection(listing, reading, name, source, folder.absolute().name)


def read_ham10000(folder: Path, synonyms: Mapping[str, str]) -> Collection:
    """HAM10000 as its authors publish it: two image folders and ``HAM10000_metadata``.

    Raises:
        ConfigurationError: The metadata are missing.
        TableError: As of `read_labelled_csv`.
    """
    tables = [path for path in sorted(folder.glob("*")) if re.match(r"ham10000_metadata", path.name.lower())]
    if not tables:
        raise ConfigurationError(
            f"“{folder.name}” has no HAM10000_metadata.csv. Get it with the images from "
            "https://doi.org/10.7910/DVN/DBW86T, and name the folder that holds them.",
            code=ErrorCode.NO_METADATA,
        )
    # Its own column “dataset” names cameras, not the collection.
    collection = read_labelled_csv(tables[0], folder, synonyms, dataset="ham10000")
    if keratoses := sum(image.diagnosis == "AK" for image in collection.images):
        logger.warning(
            "%d images of akiec are taken as AK; HAM10000 alone does not tell which are SCC", keratoses
        )
    return collection


def read_labelled_csv(
    table_file: Path,
    images: Path,
    synonyms: Mapping[str, str],
    *,
    columns: Mapping[str, str] | None = None,
    dataset: str = "",
    task: Task | None = None,
    opened: ExitStack | None = None,
) -> Collection:
    """Any table with an image column and a label column.

    Args:
        table_file: CSV or Excel.
        images: Folder or ZIP whose files the image column names, with or without subfolder and suffix.
        synonyms: More class names.
        columns: Any of image, label, group, split to the name of its column; the usual names by default, an
            empty name for a column that is to be ignored.
        dataset: Replaces the column of that name.
        task: Of classes of one's own, where the labels are such.
        opened: Keeps a ZIP open for as long as its images are read.

    Raises:
        ConfigurationError: There is no such folder.
        TableError: A column is missing, a split is unknown, or nothing can be used.
    """
    source = _open(images, opened)
    _tell(source)
    given = GivenTable(table_file.name, table_file, table := read_table_file(table_file))
    others = [] if _names_images(table, columns) else tables_beside(table_file)
    try:
        reading, search = read_with_table(
            given, others, FileSearch(lambda: source.files), Vocabulary(task, synonyms), _roles(columns or {})
        )
    except TableError as error:
        raise TableError(
            f"{error.user_message} Name the columns with --image-column and --label-column.", code=error.code
        ) from error
    for note in (*reading.notes, *reading.ledger.sentences()):
        logger.info("%s", note)
    for item in reading.left_out:
        if item.code == Reason.UNKNOWN_SPLIT:
            text = item.reason.split("”")[0].removeprefix("“")
            raise TableError(
                f"“{text}” in line {item.line} is not a split ({', '.join(sorted(SPLITS))}). Rename it, or leave "
                "the column out with --resplit."
            )
    listing = Listing(task=task)
    for item in files_without_row(search, reading):
        listing.leave_out(item)
    return _collection(listing, reading, f"The table “{table_file.name}”", source, dataset)


def _names_images(table: Table, columns: Mapping[str, str] | None) -> bool:
    return bool((columns or {}).get("image")) or bool(
        {"file", "image_id"} & find_columns(table.columns).keys()
    )


def _roles(columns: Mapping[str, str]) -> dict[str, str]:
    """The columns that are named on the command line, by the names of the reader."""
    roles = {}
    if "image" in columns:
        roles |= {"file": columns["image"]}
    if "label" in columns:
        roles |= {"label": columns["label"], "diagnosis": "", "group": ""}
    if "group" in columns:
        roles["lesion_group"] = columns["group"]
    if "split" in columns:
        roles["split"] = columns["split"]
    return roles


def _collection(listing: Listing, reading: Reading, name: str, source: Source, dataset: str) -> Collection:
    stems = Counter(_stem(_name_of(row)) for row in reading.rows)
    for item in reading.left_out:
        listing.leave_out(item)
    for row in reading.rows:
        named = _name_of(row)
        image_id = _stem(named) if stems[_stem(named)] == 1 else without_image_suffix(named)
        if row.found is None:
            detail = f"line {row.line} of the table: there is no image of this name"
            listing.exclude(image_id, named, Reason.NO_IMAGE, detail)
            continue
        listing.add(
            row.meaning,
            row.label,
            image_id=image_id,
            location=row.found.file if row.found.path is None else str(row.found.path),
            fingerprint=_fingerprint(row.found),
            dataset=dataset or row.source,
            lesion_id=row.lesion_group,
            split=row.split,
            **{key: row.metadata.get(key, "") for key in ("sex", "age", "anatomic_site")},
        )
    for item in source.left_out:
        listing.leave_out(item)
    found = {row.found.file: row.found for row in reading.rows if row.found and row.found.path is None}
    return listing.finish(name, partial(_read, found))


def _fingerprint(found: FoundFile) -> str:
    return found.digest() if found.path is None else file_fingerprint(found.path)


def _read(members: Mapping[str, FoundFile], location: str) -> bytes:
    """The bytes of a member of a ZIP, or of a file."""
    if location not in members:
        return read_file(location)
    content = members[location].read()
    assert isinstance(content, bytes), "a member has no path"
    return content


def _name_of(row: LabelledRow) -> str:
    return row.image_id if row.has_id else row.file


def _open(folder: Path, opened: ExitStack | None) -> Source:
    if not is_zip(folder):
        _require_folder(folder)
    return open_source(folder, opened)


def _tell(source: Source, tables: Iterable[str] = ()) -> None:
    """Logs what was passed over."""
    for note in source.notes:
        logger.info("%s", note)
    for name in tables:
        logger.info("The table “%s” was not used: the folders give the labels.", name)


def read_file(location: str) -> bytes:
    """`Collection.read` where locations are paths."""
    return read_limited(Path(location))


def image_files(folder: Path) -> list[Path]:
    """The images of a folder and its subfolders, in order; raises `ConfigurationError` if it is missing."""
    _require_folder(folder)
    return list(list_folder(folder).images)


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ConfigurationError(f"There is no folder or ZIP “{folder}”.", code=ErrorCode.NO_FOLDER)


def file_fingerprint(path: Path) -> str:
    """Size and time of a file."""
    status = path.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"


def require_columns(table: Table, title: str, columns: tuple[str, ...]) -> None:
    """Raises `TableError` where a table lacks a column."""
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise TableError(
            f"{title} has no column {', '.join(missing)}. Its columns are {', '.join(table.columns)}.",
            code=ErrorCode.MISSING_COLUMN,
        )


def _stem(name: str) -> str:
    return without_image_suffix(PurePosixPath(name.strip().replace("\\", "/")).name)
