"""Tables and folders of labelled images, with the checks that make an evaluation mean something."""

from __future__ import annotations

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from dermadeit.data.tabular import Table, read_csv
from dermadeit.errors import ErrorCode, TableError
from dermadeit.tasks import DIAGNOSES, Task

SPLITS = ("train", "validation", "calibration", "test")
logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")

METADATA_COLUMNS = ("diagnosis", "sex", "age", "anatomic_site", "width", "height")
"""Columns that describe the patient, the lesion and the picture, and that no model is shown."""

_SHOWN = 5
_SHOWN_LETTERS = 40


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
    """

    image_id: str
    file: str
    path: Path
    label: str
    split: str
    lesion_group: str
    source: str
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Exclusion:
    """One image that was left out.

    Attributes:
        reason: Its diagnosis, or the folder it lies in, or that it has no label.
        split: One of `SPLITS`, or an empty string where it belongs to none.
    """

    reason: str
    split: str


@dataclass(frozen=True)
class Manifest:
    """Labelled images of one task.

    Attributes:
        task: The task whose classes the labels are.
        rows: The images, in the order of the table.
        exclusions: The images that were left out.
    """

    task: Task
    rows: tuple[ManifestRow, ...]
    exclusions: tuple[Exclusion, ...]

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
        return dict(Counter(exclusion.reason for exclusion in self.exclusions))

    @property
    def class_counts(self) -> dict[str, int]:
        """Class key to number of images, in the task's class order."""
        counts = Counter(row.label for row in self.rows)
        return {key: counts[key] for key in self.task.classes}


def read_source(source: Path, task: Task, images: Path | None = None) -> Manifest:
    """Reads labelled images from a folder with class subfolders or from a CSV table.

    Args:
        source: The folder or the CSV.
        task: Decides which labels are known.
        images: Folder that the table's files are relative to; None for the folder of the table.

    Raises:
        TableError: The source is missing, empty, or contradicts itself; the message names the lines.
    """
    if source.is_dir():
        return _read_class_folders(source, task)
    if not source.is_file():
        raise TableError(f"There is no file or folder “{source.name}”.", code=ErrorCode.SOURCE_MISSING)
    return read_table(read_csv(source), task, images or source.parent)


def class_of_folder(name: str, task: Task) -> str | None:
    """The class that a folder is named after, by its key or an ISIC 2019 diagnosis of it; None for others."""
    key = name.lower()
    return key if key in task.classes else task.class_of_diagnosis.get(key.upper())


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


def _read_class_folders(folder: Path, task: Task) -> Manifest:
    rows = []
    exclusions = [
        Exclusion("not in a class folder", split="") for child in folder.iterdir() if _is_image(child)
    ]
    for subfolder in sorted(child for child in folder.iterdir() if child.is_dir()):
        files = sorted(
            path for path in subfolder.rglob("*") if path.is_file() and not path.name.startswith(".")
        )
        label = class_of_folder(subfolder.name, task)
        if label is None:
            exclusions += [Exclusion(f"folder {subfolder.name}", split="")] * len(files)
            continue
        for path in files:
            name = path.relative_to(folder).as_posix()
            rows.append(ManifestRow(name, name, path, label, "", name, ""))
    if not rows:
        raise TableError(
            f"“{folder.name}” has no class subfolders with images. Name the subfolders "
            f"{', '.join(task.classes)}, or after ISIC diagnoses such as {', '.join(task.class_of_diagnosis)}."
        )
    return Manifest(task, tuple(rows), tuple(exclusions))


def read_table(table: Table, task: Task, images: Path) -> Manifest:
    """The rows of a table that has been read already, as `read_source` gives them.

    Args:
        table: Columns and rows.
        task: Decides which labels count.
        images: Folder that the table's files are relative to; nothing outside it is taken.

    Raises:
        TableError: The table contradicts itself or the task; the message names the lines.
    """
    _require_columns(table)
    root = images.absolute()
    for note in table.notes:
        logger.warning("%s", note)
    rows, exclusions, problems = [], [], []
    line_of: dict[str | Path, int] = {}
    for record, line in zip(table.rows, table.line_numbers, strict=True):
        try:
            label = _label_of(record, task)
            image_id, file = _identify(record)
            path = _locate(root, file, image_id)
            for key, name in ((image_id, image_id), (path, file or image_id)):
                if key in line_of:
                    raise TableError(f"“{name}” is already in line {line_of[key]}")
                line_of[key] = line
            split = record.get("split", "").strip()
            if split not in ("", *SPLITS):
                raise TableError(f"“{split}” is not a split ({', '.join(SPLITS)})")
            if label is None:
                exclusions.append(Exclusion(record["diagnosis"].strip(), split))
                continue
        except TableError as error:
            problems.append(f"line {line}: {error.user_message}")
            continue
        group = record.get("lesion_group", "").strip() or record.get("lesion_id", "").strip() or image_id
        source = record.get("dataset", "")
        metadata = {name: text for name in METADATA_COLUMNS if (text := record.get(name, "").strip())}
        rows.append(ManifestRow(image_id, file or path.name, path, label, split, group, source, metadata))
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise TableError(f"The table can't be used. {'; '.join(problems[:_SHOWN])}{more}.")
    if not rows:
        raise TableError(f"The table has no row that belongs to the task “{task.key}”.")
    exclusions += [
        Exclusion("image without a row in the table", split="")
        for folder in {row.path.parent for row in rows}
        if folder.is_dir()
        for path in folder.iterdir()
        if _is_image(path) and path not in line_of
    ]
    return Manifest(task, tuple(rows), tuple(exclusions))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def _require_columns(table: Table) -> None:
    columns = set(table.columns)
    if not columns & {"file", "image_id"}:
        raise TableError(
            f"The table has no column “file” or “image_id”. Its columns are {', '.join(table.columns)}.",
            code=ErrorCode.MISSING_COLUMN,
        )
    if not columns & {"label", "diagnosis"}:
        raise TableError(
            "The table has no column “label” (a class of the task) or “diagnosis” (an ISIC 2019 name). Its "
            f"columns are {', '.join(table.columns)}.",
            code=ErrorCode.MISSING_COLUMN,
        )


def _label_of(record: Mapping[str, str], task: Task) -> str | None:
    """The class key, or None for a known diagnosis outside the task."""
    if record.get("label", "").strip():
        label = record["label"].strip()
        if label not in task.classes:
            raise TableError(f"“{label}” is not a class of the task ({', '.join(task.classes)})")
        return label
    diagnosis = record.get("diagnosis", "").strip()
    if diagnosis not in DIAGNOSES:
        raise TableError(f"“{diagnosis}” is not an ISIC 2019 diagnosis ({', '.join(DIAGNOSES)})")
    return task.class_of_diagnosis.get(diagnosis)


def _identify(record: Mapping[str, str]) -> tuple[str, str]:
    file = record.get("file", "").strip()
    image_id = record.get("image_id", "").strip() or file
    if not image_id:
        raise TableError("neither “file” nor “image_id” is filled in")
    return image_id, file


def _locate(root: Path, file: str, image_id: str) -> Path:
    if not file:
        for suffix in IMAGE_SUFFIXES:
            candidate = root / f"{image_id}{suffix}"
            if _is_there(candidate, image_id):
                break
        else:
            candidate = root / f"{image_id}{IMAGE_SUFFIXES[0]}"
    else:
        candidate = root / file
    # A table may come from anywhere: it must not reach files outside the folder that it was given for.
    # Links are left alone, since whoever owns the folder made them.
    candidate = Path(os.path.normpath(candidate))
    if not candidate.is_relative_to(os.path.normpath(root)):
        raise TableError(
            f"“{file or image_id}” lies outside the folder of the images; give its path within that folder, or "
            "name another folder for the images"
        )
    _is_there(candidate, file or image_id)
    return candidate


def _is_there(path: Path, name: str) -> bool:
    """Whether there is such a file; raises `TableError` for a name that no file can have."""
    try:
        return path.is_file()
    except OSError:
        raise TableError(f"“{name[:_SHOWN_LETTERS]}…” is not a valid file name") from None
