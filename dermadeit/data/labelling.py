"""Files that were handed in, made labelled images: by a table, by the folders they lie in, or not at all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dermadeit.data.manifest import IMAGE_SUFFIXES, ManifestRow, class_of_folder, read_table
from dermadeit.data.tabular import Table
from dermadeit.errors import ErrorCode, TableError
from dermadeit.imaging.decode import LesionImage, decode_image, sanitise_name
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
        given: The name or path that it was handed in under, which others may share; as `sanitise_path` gives it.
    """

    file: str
    read: Callable[[], bytes | Path] = field(repr=False, compare=False)
    given: str

    @property
    def stem(self) -> str:
        """The path that it was handed in under, without suffix."""
        folder, slash, name = self.given.rpartition("/")
        return folder + slash + name.rsplit(".", 1)[0]


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


def sanitise_path(path: str) -> str:
    """An untrusted path for display and for comparison: each of its parts as `decode.sanitise_name` gives it."""
    parts = path.replace("\\", "/").split("/")
    return "/".join(sanitise_name(part) for part in parts if part not in ("", ".", ".."))


def label_by_folders(found: Sequence[FoundFile], task: Task) -> Labelled:
    """Labels from the outermost folder that is named after a class or a diagnosis; none where there is no such.

    Raises:
        TableError: There are such folders, but none of the task.
    """
    folders = [_class_folder(item.file, task) for item in found]
    if not any(folders):
        return [_unlabelled(item) for item in found], []
    images, left_out = [], []
    for item, folder in zip(found, folders, strict=True):
        if folder is None:
            left_out.append(LeftOut(item.file, "it is in no folder that is named after a class"))
        elif (label := class_of_folder(folder, task)) is None:
            left_out.append(LeftOut(item.file, f"the diagnosis {folder.upper()} is outside the task"))
        else:
            known = {"diagnosis": folder.upper()} if folder.upper() in DIAGNOSES else {}
            images.append(replace(_unlabelled(item), label=label, metadata=known))
    if not images:
        raise TableError(
            f"No folder is a class of the task “{task.key}”. Name them {', '.join(task.classes)}, or after "
            f"ISIC diagnoses such as {', '.join(task.class_of_diagnosis)}.",
            code=ErrorCode.NO_IMAGES,
        )
    return images, left_out


def label_by_table(found: Sequence[FoundFile], table: Table, task: Task) -> Labelled:
    """Labels from a table with the columns that `manifest.read_source` knows; “source” is taken for “dataset”.

    A row finds its image by the path in “file”, by the end of that path or by its name; else by its “image_id” in
    the same ways, with its suffix or without. Upper and lower case are told apart only where they must be.

    Raises:
        TableError: The table contradicts itself, the task, or the files; the message names the lines.
    """
    table = _with_dataset(table)
    rows = read_table(table, task, _NOWHERE).rows
    line_of = {_identifier(row): line for row, line in zip(table.rows, table.line_numbers, strict=True)}
    index = _Index(found)
    image_of = _match(index, rows, table, line_of)
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
            left_out.append(LeftOut(named, "it is in the table, but not among the files"))
    if not images:
        raise TableError(
            "The table has none of the images. Its column “file” or “image_id” must have their names.",
            code=ErrorCode.NO_IMAGES,
        )
    return images, left_out + _without_label(index, {row.image_id for row in rows}, image_of, table)


def _class_folder(file: str, task: Task) -> str | None:
    known = {*task.classes, *(name.lower() for name in DIAGNOSES)}
    return next((part for part in file.split("/")[:-1] if part.lower() in known), None)


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
    index: _Index, rows: Sequence[ManifestRow], table: Table, line_of: Mapping[str, int]
) -> dict[str, FoundFile]:
    """Image id to the file it names; ids that name none are missing."""
    has_file = {_identifier(record): bool(record.get("file", "").strip()) for record in table.rows}
    image_of: dict[str, FoundFile] = {}
    line_of_file: dict[str, int] = {}
    problems = []
    for row in rows:
        line = line_of[row.image_id]
        name = row.path.relative_to(_NOWHERE.absolute()).as_posix()
        # Where a row gives no file, the manifest has made one of its id and this suffix.
        image_id = row.image_id if has_file[row.image_id] else name.removesuffix(IMAGE_SUFFIXES[0])
        candidates = index.find(name if has_file[row.image_id] else "", image_id)
        if len(candidates) > 1:
            names = ", ".join(item.file for item in candidates[:2])
            problems.append(
                f"line {line}: “{row.image_id}” may be any of {len(candidates)} files, such as {names}; give "
                "their paths in a column “file”, and files of one name in folders"
            )
        elif candidates:
            [item] = candidates
            if item.file in line_of_file:
                problems.append(f"line {line}: “{item.file}” is already in line {line_of_file[item.file]}")
            line_of_file[item.file] = line
            image_of[row.image_id] = item
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise TableError(f"The table can't be used. {'; '.join(problems[:_SHOWN])}{more}.")
    return image_of


class _Index:
    """Finds files by the names that a table may give them."""

    def __init__(self, found: Sequence[FoundFile]) -> None:
        self.found = found
        self._by_name = _Paths((item.given, item) for item in found)
        self._by_stem = _Paths((item.stem, item) for item in found)

    def find(self, file: str, image_id: str) -> list[FoundFile]:
        """The files that a row may mean: none, one, or several equally good ones.

        Args:
            file: The path that it gives, or an empty string.
            image_id: Its identifier, which may be a name with or without suffix.
        """
        return self._by_name.find(file) or self._by_name.find(image_id) or self._by_stem.find(image_id)


class _Paths:
    """Files by a path, by the end of one, or by its last part alone."""

    def __init__(self, items: Iterable[tuple[str, FoundFile]]) -> None:
        self._by_path: dict[str, list[tuple[str, FoundFile]]] = defaultdict(list)
        self._by_name: dict[str, list[tuple[str, FoundFile]]] = defaultdict(list)
        for path, item in items:
            folded = path.casefold()
            self._by_path[folded].append((path, item))
            self._by_name[folded.rsplit("/", 1)[-1]].append((path, item))

    def find(self, path: str) -> list[FoundFile]:
        """The files of the best kind of match; of several, those that have the same upper and lower case."""
        wanted = sanitise_path(path)
        folded = wanted.casefold()
        if not wanted:
            return []
        named = self._by_name.get(folded.rsplit("/", 1)[-1], [])
        fitting = (
            self._by_path.get(folded)
            or [(whole, item) for whole, item in named if whole.casefold().endswith(f"/{folded}")]
            or named
        )
        same_case = [item for whole, item in fitting if f"/{whole}".endswith(f"/{wanted}")]
        return same_case or [item for _, item in fitting]


def _without_label(
    index: _Index, labelled: Collection[str], image_of: Mapping[str, FoundFile], table: Table
) -> list[LeftOut]:
    """The files that no row of the task names, with the diagnosis of those that lie outside it.

    Args:
        index: The files.
        labelled: Identifiers of the rows that belong to the task.
        image_of: Image id to file.
        table: All rows. Those outside the task whose image is missing are listed too.
    """
    used = {item.file for item in image_of.values()}
    reasons: dict[str, str] = {}
    missing = []
    for record, line in zip(table.rows, table.line_numbers, strict=True):
        identifier = _identifier(record)
        if identifier in labelled:
            continue
        reason = f"the diagnosis {record['diagnosis'].strip()} is outside the task"
        named = [item.file for item in index.find(record.get("file", "").strip(), identifier)]
        outside = {file: reason for file in named if file not in used}
        reasons |= outside
        if not outside:
            missing.append(LeftOut(f"{identifier} (line {line})", f"{reason}, and it is not among the files"))
    unlabelled = [
        LeftOut(item.file, reasons.get(item.file, "it has no row in the table"))
        for item in index.found
        if item.file not in used
    ]
    return missing + unlabelled
