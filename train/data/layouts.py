"""The layouts in which people have labelled lesion photos, each read into one list of what there is.

| layout | read by |
|---|---|
| the three ISIC 2019 training archives | `isic2019.open_isic2019` |
| ``train/<class>/``, ``val/<class>/``, optionally ``test/<class>/`` | `read_class_folders` |
| HAM10000's two image folders and its metadata | `read_ham10000` |
| any CSV with an image column and a label column | `read_labelled_csv` |

Classes may be named by ISIC 2019 keys (MEL, NV, …), in full, by HAM10000's keys, or by a class of one of our
tasks. HAM10000's ``akiec`` holds actinic keratoses and Bowen's disease, which ISIC 2019 tells apart as AK and
SCC; alone it can only be taken as AK.
"""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from dermadeit.data.manifest import IMAGE_SUFFIXES
from dermadeit.data.tabular import Table, read_csv
from dermadeit.errors import ConfigurationError, ErrorCode, ImageError, TableError
from dermadeit.imaging.decode import MAX_BYTES
from dermadeit.tasks import DIAGNOSES, TASKS

logger = logging.getLogger(__name__)

UNKNOWN_DIAGNOSIS = "UNK"
"""The column of ISIC 2019 for none of the eight diagnoses; its images are left out."""

_SPLIT_NAMES = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation",
    "validation": "validation", "dev": "validation", "calibration": "calibration", "cal": "calibration",
    "test": "test", "testing": "test",
}  # fmt: skip
# The first of each that a table has, unless a column is named.
_COLUMNS = {
    "image": ("file", "image_id", "image", "isic_id", "filename", "path", "id"),
    "label": ("diagnosis", "label", "dx", "class"),
    "group": ("lesion_group", "lesion_id", "patient_id", "group"),
    "split": ("split",),
    "image_id": ("image_id", "isic_id"),
    "dataset": ("dataset", "source"),
    "sex": ("sex", "gender"),
    "age": ("age", "age_approx"),
    "anatomic_site": ("anatomic_site", "anatom_site_general", "localization"),
}
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
    """

    name: str
    images: tuple[SourceImage, ...]
    exclusions: tuple[ExcludedImage, ...]
    read: Callable[[str], bytes]


@dataclass
class Listing:
    """A collection under construction.

    Attributes:
        classes: As of `known_classes`.
    """

    classes: Mapping[str, tuple[str, str]]
    images: list[SourceImage] = field(default_factory=list)
    exclusions: list[ExcludedImage] = field(default_factory=list)
    unknown: Counter = field(default_factory=Counter)

    def add(self, class_name: str, **fields: str) -> None:
        """Takes an image in under its class, or notes that it is left out or that nobody knows the class."""
        resolved = self.classes.get(_plain(class_name))
        if resolved is None:
            self.unknown[class_name] += 1
        elif resolved == (UNKNOWN_DIAGNOSIS, ""):
            self.exclude(
                fields["image_id"], fields["location"], "unknown_diagnosis", "none of the eight diagnoses"
            )
        else:
            self.images.append(SourceImage(diagnosis=resolved[0], label=resolved[1], **fields))

    def exclude(self, image_id: str, file: str, reason: str, detail: str) -> None:
        """Notes an image that is left out."""
        self.exclusions.append(ExcludedImage(image_id, file, "", reason, detail))

    def finish(self, name: str, read: Callable[[str], bytes]) -> Collection:
        """The collection; raises `TableError` for unknown classes, repeated images, or none at all."""
        if self.unknown:
            shown = ", ".join(
                f"“{label}” ({count} images)" for label, count in self.unknown.most_common(_SHOWN)
            )
            raise TableError(
                f"Nobody knows the class {shown}. Say what each stands for, such as --class-name "
                f"{next(iter(self.unknown))!r}=MEL, with one of {', '.join(DIAGNOSES)}, or "
                f"{UNKNOWN_DIAGNOSIS} to leave its images out.",
                code=ErrorCode.UNKNOWN_CLASS,
            )
        repeated = [key for key, count in Counter(item.image_id for item in self.images).items() if count > 1]
        if repeated:
            raise TableError(
                f"{len(repeated)} images are listed more than once, such as {', '.join(repeated[:_SHOWN])}. "
                "Leave one row of each.",
                code=ErrorCode.DUPLICATE_IMAGE,
            )
        if not self.images:
            raise TableError(f"{name} has no labelled image.", code=ErrorCode.NO_IMAGES)
        return Collection(name, tuple(self.images), tuple(self.exclusions), read)


def known_classes(synonyms: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """What each class is called here.

    Args:
        synonyms: More names, each for a key of `DIAGNOSES` or `UNKNOWN_DIAGNOSIS`.

    Returns:
        Name, without case, spaces, hyphens and underscores, to diagnosis and label, one of them empty.
    """
    known = {_plain(UNKNOWN_DIAGNOSIS): (UNKNOWN_DIAGNOSIS, ""), "akiec": ("AK", "")}
    for task in TASKS.values():
        for key in task.classes:
            members = [diagnosis for diagnosis, label in task.class_of_diagnosis.items() if label == key]
            known[_plain(key)] = (members[0], "") if len(members) == 1 else ("", key)
    for key, full_name in DIAGNOSES.items():
        known |= {_plain(key): (key, ""), _plain(full_name): (key, "")}
    for alias, key in synonyms.items():
        if key not in (*DIAGNOSES, UNKNOWN_DIAGNOSIS):
            raise ConfigurationError(
                f"--class-name {alias}={key}: choose one of {', '.join((*DIAGNOSES, UNKNOWN_DIAGNOSIS))}."
            )
        known[_plain(alias)] = (key, "")
    return known


def read_class_folders(folder: Path, synonyms: Mapping[str, str]) -> Collection:
    """``train/<class>/``, ``val/<class>/`` and so on, or class folders without splits.

    Raises:
        TableError: A class that nobody knows, or no images.
    """
    everything = image_files(folder)
    splits = {child: _SPLIT_NAMES.get(child.name.lower(), "") for child in sorted(folder.iterdir())}
    roots = {child: split for child, split in splits.items() if split and child.is_dir()} or {folder: ""}
    listing = Listing(known_classes(synonyms))
    found = [(path, root) for root in roots for path in image_files(root)]
    stems = Counter(path.stem for path, _ in found)
    for path, root in found:
        name = path.relative_to(folder).as_posix()
        image_id = path.stem if stems[path.stem] == 1 else name.removesuffix(path.suffix)
        parents = path.relative_to(root).parts[:-1]
        if not parents:
            listing.exclude(image_id, name, "no_label", "not in a class folder")
            continue
        listing.add(
            parents[0],
            image_id=image_id,
            location=str(path),
            fingerprint=file_fingerprint(path),
            split=roots[root],
            dataset=folder.absolute().name,
        )
    if roots != {folder: ""}:
        for path in set(everything) - {path for path, _ in found}:
            name = path.relative_to(folder).as_posix()
            listing.exclude(path.stem, name, "no_label", "not in the folder of a split")
    return listing.finish(f"The folder “{folder.name}”", read_file)


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
) -> Collection:
    """Any table with an image column and a label column.

    Args:
        table_file: The CSV.
        images: Folder whose files the image column names, with or without subfolder and suffix.
        synonyms: More class names.
        columns: Any of image, label, group, split to the name of its column; the usual names by default, an
            empty name for a column that is to be ignored.
        dataset: Replaces the column of that name.

    Raises:
        TableError: A column is missing, or a class or split that nobody knows.
    """
    table = read_csv(table_file)
    names = _find_columns(table, columns or {})
    index = _FileIndex(images)
    listing = Listing(known_classes(synonyms))
    stems = Counter(_stem(record[names["image"]]) for record in table.rows)
    for record, line in zip(table.rows, table.line_numbers, strict=True):
        cell = {role: record[name].strip() for role, name in names.items()}
        split = cell.get("split", "")
        if split and split.lower() not in _SPLIT_NAMES:
            raise TableError(
                f"“{split}” in line {line} is not a split ({', '.join(sorted(set(_SPLIT_NAMES.values())))}). "
                "Rename it, or leave the column out with --resplit."
            )
        stem = _stem(cell["image"])
        image_id = cell.get("image_id") or (stem if stems[stem] == 1 else cell["image"])
        path = index.find(cell["image"])
        if path is None or not cell["label"]:
            reason = "no_label" if path else "no_image"
            listing.exclude(image_id, cell["image"], reason, f"line {line} of the table")
            continue
        listing.add(
            cell["label"],
            image_id=image_id,
            location=str(path),
            fingerprint=file_fingerprint(path),
            dataset=dataset or cell.get("dataset", ""),
            lesion_id=cell.get("group", ""),
            split=_SPLIT_NAMES.get(split.lower(), ""),
            **{name: cell.get(name, "") for name in ("sex", "age", "anatomic_site")},
        )
    for path in index.unused():
        listing.exclude(path.stem, path.relative_to(images).as_posix(), "no_label", "no row in the table")
    return listing.finish(f"The table “{table_file.name}”", read_file)


class _FileIndex:
    """Finds the files of a folder by path, name or stem, and no others."""

    def __init__(self, folder: Path) -> None:
        self._files = image_files(folder)
        self._by_key: dict[str, set[Path]] = defaultdict(set)
        self._used: set[Path] = set()
        for path in self._files:
            relative = path.relative_to(folder).as_posix()
            for key in {relative, relative.removesuffix(path.suffix), path.name, path.stem}:
                self._by_key[key].add(path)

    def find(self, name: str) -> Path | None:
        """The one file of that name; None where there is none, or several."""
        key = name.replace("\\", "/")
        while key.startswith("./"):
            key = key[2:]
        # A table may name folders of the machine that it was made on.
        for candidate in (key, PurePosixPath(key).name):
            if len(self._by_key.get(candidate, ())) == 1:
                [path] = self._by_key[candidate]
                self._used.add(path)
                return path
        return None

    def unused(self) -> list[Path]:
        """The files that nobody asked for."""
        return [path for path in self._files if path not in self._used]


def read_file(location: str) -> bytes:
    """`Collection.read` where locations are paths."""
    try:
        with Path(location).open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ImageError(
            f"The file can't be read: {error.strerror}.", code=ErrorCode.UNREADABLE_FILE
        ) from error


def image_files(folder: Path) -> list[Path]:
    """The images of a folder and its subfolders, in order; raises `ConfigurationError` if it is missing."""
    if not folder.is_dir():
        raise ConfigurationError(f"There is no folder “{folder}”.", code=ErrorCode.NO_FOLDER)
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def file_fingerprint(path: Path) -> str:
    """Size and time of a file."""
    status = path.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"


def _find_columns(table: Table, given: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for role, usual in _COLUMNS.items():
        if role in given:
            if given[role]:
                require_columns(table, "The table", (given[role],))
                found[role] = given[role]
        elif match := next((name for name in usual if name in table.columns), None):
            found[role] = match
    for role in ("image", "label"):
        if role not in found:
            raise TableError(
                f"The table has no column for the {role}. Name one of {', '.join(table.columns)} with "
                f"--{role}-column.",
                code=ErrorCode.MISSING_COLUMN,
            )
    return found


def require_columns(table: Table, title: str, columns: tuple[str, ...]) -> None:
    """Raises `TableError` where a table lacks a column."""
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise TableError(
            f"{title} has no column {', '.join(missing)}. Its columns are {', '.join(table.columns)}.",
            code=ErrorCode.MISSING_COLUMN,
        )


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).lower()


def _stem(name: str) -> str:
    return PurePosixPath(name.strip().replace("\\", "/")).stem
