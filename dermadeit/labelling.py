"""Files that were handed in, made labelled images: by a table, by the folders they lie in, or not at all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dermadeit.errors import ManifestError
from dermadeit.imaging import LesionImage, decode_image
from dermadeit.manifest import ManifestRow, read_table
from dermadeit.tabular import Table
from dermadeit.tasks import DIAGNOSES, Task

_SHOWN = 5
_NOWHERE = Path("/dev/null")
"""Where the table's files lie for the manifest: they are looked for among what was handed in, never on disk."""


@dataclass(frozen=True)
class FoundFile:
    """A file that may be an image.

    Attributes:
        file: Its name or its path in a ZIP, unique, for display.
        read: Gives the encoded bytes or a path to them; raises `ImageError`.
    """

    file: str
    read: Callable[[], bytes | Path] = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """The name without folders."""
        return self.file.rsplit("/", 1)[-1]

    @property
    def stem(self) -> str:
        """The name without folders and suffix."""
        return self.name.rsplit(".", 1)[0]


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
        """Its pixels; raises `ImageError`."""
        return decode_image(self.read(), name=self.file)


@dataclass(frozen=True)
class LeftOut:
    """Something that was handed in, or that the table names, and that is not read.

    Attributes:
        file: Its name, for display.
        reason: Why, as a part of a sentence.
    """

    file: str
    reason: str


Labelled = tuple[list[CollectedImage], list[LeftOut]]


def label_by_folders(found: Sequence[FoundFile], task: Task) -> Labelled:
    """Labels from the outermost folder that is named after a class or a diagnosis; none where there is no such.

    Raises:
        ManifestError: There are such folders, but none of the task.
    """
    folders = [_class_folder(item.file, task) for item in found]
    if not any(folders):
        return [_unlabelled(item) for item in found], []
    images, left_out = [], []
    for item, folder in zip(found, folders, strict=True):
        if folder is None:
            left_out.append(LeftOut(item.file, "it is in no folder that is named after a class"))
        elif (label := _class_of_folder(folder, task)) is None:
            left_out.append(LeftOut(item.file, f"the diagnosis {folder.upper()} is outside the task"))
        else:
            images.append(replace(_unlabelled(item), label=label))
    if not images:
        raise ManifestError(
            f"None of the folders belongs to the task “{task.key}”. Name them {', '.join(task.classes)}, or after "
            f"ISIC diagnoses such as {', '.join(task.class_of_diagnosis)}.",
            code="no_images",
        )
    return images, left_out


def label_by_table(found: Sequence[FoundFile], table: Table, task: Task) -> Labelled:
    """Labels from a table with the columns that `manifest.read_source` knows; “source” is taken for “dataset”.

    A row finds its image by the path in “file”, by the end of that path, by its name, or by its “image_id” with
    any suffix.

    Raises:
        ManifestError: The table contradicts itself, the task, or the files; the message names the lines.
    """
    table = _with_dataset(table)
    rows = read_table(table, task, _NOWHERE).rows
    line_of = {_identifier(row): line for row, line in zip(table.rows, table.line_numbers, strict=True)}
    image_of = _match(found, rows, line_of)
    images, left_out = [], []
    for row in rows:
        if item := image_of.get(row.image_id):
            images.append(
                CollectedImage(
                    row.image_id,
                    item.file,
                    row.label,
                    row.lesion_group,
                    row.source,
                    row.split,
                    row.metadata,
                    item.read,
                )
            )
        else:
            named = f"{row.image_id} (line {line_of[row.image_id]})"
            left_out.append(LeftOut(named, "the table names it, but it is not among the files"))
    if not images:
        raise ManifestError(
            "None of the images is named in the table. Its column “file” or “image_id” must hold their names.",
            code="no_images",
        )
    return images, left_out + _without_label(found, image_of, table)


def _class_folder(file: str, task: Task) -> str | None:
    known = {*task.classes, *(name.lower() for name in DIAGNOSES)}
    return next((part for part in file.split("/")[:-1] if part.lower() in known), None)


def _class_of_folder(folder: str, task: Task) -> str | None:
    key = folder.lower()
    return key if key in task.classes else task.class_of_diagnosis.get(key.upper())


def _unlabelled(item: FoundFile) -> CollectedImage:
    return CollectedImage(item.file, item.file, "", item.file, "", "", {}, item.read)


def _with_dataset(table: Table) -> Table:
    if "dataset" in table.columns or "source" not in table.columns:
        return table
    rows = tuple({**row, "dataset": row["source"]} for row in table.rows)
    return replace(table, columns=(*table.columns, "dataset"), rows=rows)


def _identifier(row: Mapping[str, str]) -> str:
    return row.get("image_id", "").strip() or row.get("file", "").strip()


def _match(
    found: Sequence[FoundFile], rows: Sequence[ManifestRow], line_of: Mapping[str, int]
) -> dict[str, FoundFile]:
    """Image id to the file it names; ids that name none are missing."""
    index = _Index(found)
    image_of: dict[str, FoundFile] = {}
    line_of_file: dict[str, int] = {}
    problems = []
    for row in rows:
        line = line_of[row.image_id]
        candidates = index.find(row)
        if len(candidates) > 1:
            names = ", ".join(item.file for item in candidates[:2])
            problems.append(
                f"line {line}: “{row.image_id}” may be any of {len(candidates)} files, such as {names}; give "
                "their paths in a column “file”"
            )
        elif candidates:
            [item] = candidates
            if item.file in line_of_file:
                problems.append(f"line {line}: “{item.file}” is already in line {line_of_file[item.file]}")
            line_of_file[item.file] = line
            image_of[row.image_id] = item
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise ManifestError(f"The table can't be used. {'; '.join(problems[:_SHOWN])}{more}.")
    return image_of


class _Index:
    """Finds files by the names that a table may give them."""

    def __init__(self, found: Sequence[FoundFile]) -> None:
        self._by_path = {item.file: item for item in found}
        self._by_name: dict[str, list[FoundFile]] = defaultdict(list)
        self._by_stem: dict[str, list[FoundFile]] = defaultdict(list)
        for item in found:
            self._by_name[item.name].append(item)
            self._by_stem[item.stem].append(item)

    def find(self, row: ManifestRow) -> list[FoundFile]:
        """The files that a row may mean: none, one, or several equally good ones."""
        # Where a row gives no file, the manifest has made one of its id and the suffix .jpg.
        name = row.path.relative_to(_NOWHERE.absolute()).as_posix()
        if name in self._by_path:
            return [self._by_path[name]]
        named = self._by_name.get(name.rsplit("/", 1)[-1], [])
        ending = [item for item in named if item.file.endswith(f"/{name}")]
        return ending or named or self._by_stem.get(row.image_id.rsplit("/", 1)[-1], [])


def _without_label(
    found: Sequence[FoundFile], image_of: Mapping[str, FoundFile], table: Table
) -> list[LeftOut]:
    """The files that no row of the task names, with the diagnosis of those that lie outside it."""
    used = {item.file for item in image_of.values()}
    outside = {}
    for record in table.rows:
        if _identifier(record) not in image_of:
            for name in (_identifier(record), record.get("file", "").strip()):
                last = name.rsplit("/", 1)[-1]
                outside[last] = outside[last.rsplit(".", 1)[0]] = record.get("diagnosis", "").strip()
    left_out = []
    for item in found:
        if item.file in used:
            continue
        diagnosis = outside.get(item.name) or outside.get(item.stem)
        reason = (
            f"the diagnosis {diagnosis} is outside the task" if diagnosis else "it has no row in the table"
        )
        left_out.append(LeftOut(item.file, reason))
    return left_out
