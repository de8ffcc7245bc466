"""The one reader of labelled images: files with a table, or in folders named after classes, to labelled rows.

`read_rows` and `read_folders` know no task: a row has what its label may mean (`vocabulary.Meaning`). `for_task`
gives it a class of a task. Whatever is not used is a `LeftOut` with the reason and the line; one bad row never
stops the rest. `Ledger` says which column was taken for what, and what each label was taken for.
"""

from __future__ import annotations

import posixpath
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from dermadeit.data.search import FileSearch, FoundFile, find_copies
from dermadeit.data.tabular import Table
from dermadeit.data.vocabulary import (
    METADATA_COLUMNS,
    SPLITS,
    UNKNOWN_DIAGNOSIS,
    Meaning,
    Vocabulary,
    class_folder,
    find_columns,
    one_hot_columns,
    split_of,
)
from dermadeit.errors import ErrorCode, TableError
from dermadeit.tasks import DIAGNOSES, TASKS, Task

_SHOWN = 5
_SHOWN_LABELS = 12
_ONE = 1e-6
_RESULT_COLUMNS = {"typology_angle", "label_predicted", "reason"}
"""Tables with one of these are results of ours, and name no labels."""


class Reason(StrEnum):
    """Why something is not used."""

    AMBIGUOUS_CLASS = "ambiguous_class"
    AMBIGUOUS_IMAGE = "ambiguous_image"
    CONTRADICTING_LABELS = "contradicting_labels"
    COPY = "copy"
    HIDDEN = "hidden"
    NO_IMAGE = "no_image"
    NO_LABEL = "no_label"
    NO_NAME = "no_name"
    OUTSIDE_TASK = "outside_task"
    RAGGED_ROW = "ragged_row"
    REFUSED = "refused"
    REPEATED_ROW = "repeated_row"
    SEVERAL_MARKS = "several_marks"
    UNKNOWN_CLASS = "unknown_class"
    UNKNOWN_SPLIT = "unknown_split"
    UNUSED_TABLE = "unused_table"


_OF_LABELS = (
    Reason.AMBIGUOUS_CLASS,
    Reason.CONTRADICTING_LABELS,
    Reason.RAGGED_ROW,
    Reason.SEVERAL_MARKS,
    Reason.UNKNOWN_CLASS,
)
"""Reasons that leave out images of classes that were meant to be there."""


@dataclass(frozen=True)
class LeftOut:
    """Something that was given, or that the table names, and that is not used.

    Attributes:
        file: Its name, for display; of a row of a table with its line.
        reason: Why, as a part of a sentence.
        code: Why, for programs: one of `Reason`.
        line: Line of the table; 0 where it is no row.
        split: One of `SPLITS`, or an empty string where it belongs to none.
        summary: What images are counted under that are left out for the same reason.
        image_id: As the table has it; else its name.
        label: The label as it is given, where that is the reason.
    """

    file: str
    reason: str
    code: str = Reason.REFUSED
    line: int = 0
    split: str = ""
    summary: str = ""
    image_id: str = ""
    label: str = ""


@dataclass(frozen=True)
class LabelledRow:
    """One image with its label, for any task.

    Attributes:
        image_id: Identifier as the table has it; without one, what names its file.
        file: What names its file: as the table has it, else as the file is called; may be empty.
        found: The file; None where there is none of that name.
        label: As it is given.
        meaning: What the label may stand for.
        line: Line of the table; 0 where the folder gives the label.
        lesion_group: Images that share it show the same lesion; empty where unknown.
        source: Name of the collection, or empty.
        split: One of `SPLITS`, or empty.
        metadata: Those of `METADATA_COLUMNS` that are filled in.
        has_id: Whether the table has an identifier besides the name of the file.
    """

    image_id: str
    file: str
    found: FoundFile | None
    label: str
    meaning: Meaning
    line: int = 0
    lesion_group: str = ""
    source: str = ""
    split: str = ""
    metadata: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    has_id: bool = True

    @property
    def shown(self) -> str:
        """Its name, with the line of the table."""
        return f"{self.image_id} (line {self.line})" if self.line else self.image_id


@dataclass(frozen=True)
class Ledger:
    """What was taken for what.

    Attributes:
        source: Name of the table, or “folders”.
        columns: What was read to the columns that it was read from; empty for folders.
        ignored: Columns that were not read.
        rows: Rows of the table that are not empty, or images in the folders.
        labels: Label as it is given, what it was taken for (empty where it could not be used), number of images.
    """

    source: str
    columns: Mapping[str, str]
    ignored: tuple[str, ...]
    rows: int
    labels: tuple[tuple[str, str, int], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "source": self.source,
            "rows": self.rows,
            "columns": dict(self.columns),
            "ignored_columns": list(self.ignored),
            "labels": [
                {"given": given, "taken_for": taken or None, "images": count}
                for given, taken, count in self.labels
            ],
        }

    def sentences(self) -> tuple[str, ...]:
        """For people."""
        sentences = []
        if self.columns:
            taken = ", ".join(f"{role} from “{column}”" for role, column in self.columns.items())
            sentences.append(f"Read from the table “{self.source}”: {taken}.")
        if self.labels:
            shown = [
                f"“{given}” → {taken or 'not used'} ({count:,})"
                for given, taken, count in self.labels[:_SHOWN_LABELS]
            ]
            if len(self.labels) > _SHOWN_LABELS:
                shown.append(f"and {len(self.labels) - _SHOWN_LABELS:,} more")
            sentences.append(f"Labels: {', '.join(shown)}.")
        return tuple(sentences)


@dataclass(frozen=True)
class Reading:
    """What a source says, for any task.

    Attributes:
        rows: The images with a label that is known.
        left_out: What is not used.
        ledger: What was taken for what; its labels are filled in by `for_task`.
        notes: What had to be assumed, as sentences.
    """

    rows: tuple[LabelledRow, ...]
    left_out: tuple[LeftOut, ...]
    ledger: Ledger
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ForTask:
    """A `Reading` with the classes of one task.

    Attributes:
        rows: Each with its class.
        left_out: What is not used, of the reading too.
        ledger: With its labels.
    """

    rows: tuple[tuple[LabelledRow, str], ...]
    left_out: tuple[LeftOut, ...]
    ledger: Ledger


# -------------------------------------------------------------------------------------------------- tables


def is_label_table(table: Table) -> bool:
    """Whether a table says what images show."""
    if _RESULT_COLUMNS & set(table.columns):
        return False
    columns = find_columns(table.columns)
    return bool({"file", "image_id", "lesion_group"} & columns.keys()) and _has_labels(table, columns)


def choose_table(
    tables: Sequence[tuple[str, Table]], files: Sequence[FoundFile], vocabulary: Vocabulary
) -> tuple[str, Table] | None:
    """The one table with labels; None where none has any.

    A table among the images of a class, where there are folders of several classes, is somebody's notes.

    Args:
        tables: Path within the set, and content.
        files: The files that may be images.
        vocabulary: What class folders are called.

    Raises:
        TableError: Several have.
    """
    folder_of = {name: class_folder(name.split("/")[:-1], vocabulary) for name, _ in tables}
    if any(folder_of.values()):
        classes = {class_folder(item.given.split("/")[:-1], vocabulary) for item in files} - {None}
        if len(classes) > 1:
            tables = [item for item in tables if folder_of[item[0]] is None]
    usable = [item for item in tables if is_label_table(item[1])]
    if len(usable) > 1:
        raise TableError(
            f"There are {len(usable)} tables of labels, such as {usable[0][0]} and {usable[1][0]}. Give one.",
            code=ErrorCode.SEVERAL_TABLES,
        )
    return usable[0] if usable else None


def join(
    table: Table, others: Iterable[tuple[str, Table]], search: FileSearch
) -> tuple[Table, tuple[str, ...]]:
    """A table of labels with what other tables, or the folders of the lesions, say of its images.

    Args:
        table: Labels by image, or by lesion as MILK10k has them.
        others: Tables without labels.
        search: The files.

    Returns:
        The table with a row for each image, and sentences on what was joined.
    """
    columns, notes = find_columns(table.columns), []
    if not {"file", "image_id", "lesion_group"} & columns.keys():
        return table, ()
    key = "image_id" if "image_id" in columns else "file" if "file" in columns else "lesion_group"
    joined = table
    for name, other in others:
        theirs = find_columns(other.columns)
        has_image = bool({"image_id", "file"} & theirs.keys())
        if key not in theirs or (key == "lesion_group" and not has_image):
            continue
        joined = _joined(joined, columns[key][0], other, theirs[key][0], several=key == "lesion_group")
        by = "lesion" if key == "lesion_group" else "image"
        notes.append(f"The table “{name}” was joined by {by}.")
        if key == "lesion_group":
            break
    if key == "lesion_group" and not notes:
        column = columns[key][0]
        rows = [
            ({**row, "file": item.given}, line)
            for row, line in zip(table.rows, table.line_numbers, strict=True)
            for item in (search.folder(row[column].strip()) if row[column].strip() else ())
        ]
        joined = replace(
            table,
            columns=(*table.columns, "file"),
            rows=tuple(row for row, _ in rows),
            line_numbers=tuple(line for _, line in rows),
        )
        notes.append("The images of a lesion are those in the folder that is called like it.")
    return joined, tuple(notes)


def _joined(table: Table, column: str, other: Table, their_column: str, *, several: bool) -> Table:
    by_key: dict[str, list[Mapping[str, str]]] = defaultdict(list)
    for row in other.rows:
        by_key[row[their_column].strip()].append(row)
    new = tuple(name for name in other.columns if name not in table.columns)
    rows, lines = [], []
    for row, line in zip(table.rows, table.line_numbers, strict=True):
        matches = by_key.get(row[column].strip(), [])
        for match in (matches if several else matches[:1]) or [{}]:
            rows.append({**row, **{name: match.get(name, "") for name in new}})
            lines.append(line)
    return replace(table, columns=(*table.columns, *new), rows=tuple(rows), line_numbers=tuple(lines))


def read_rows(
    table: Table,
    search: FileSearch,
    vocabulary: Vocabulary,
    *,
    name: str = "labels",
    given: Mapping[str, str] | None = None,
) -> Reading:
    """The labelled rows of a table.

    Args:
        table: With a column for the image and one for the label, or one column for each diagnosis.
        search: The files.
        vocabulary: What labels are called.
        name: What to call the table.
        given: As `find_columns` takes it.

    Raises:
        TableError: A column that is needed is missing.
    """
    columns = find_columns(table.columns, given)
    marks = {} if _label_columns(columns) else one_hot_columns(table.columns)
    _require_columns(table, columns, marks)
    rows, left_out, count = [], [], 0
    for record, line in zip(table.rows, table.line_numbers, strict=True):
        if not any(cell.strip() for cell in record.values()):
            continue
        count += 1
        row = _read_row(record, line, columns, marks, search, vocabulary)
        (rows if isinstance(row, LabelledRow) else left_out).append(row)
    rows, repeated = _without_repeated(rows)
    rows, copies = _without_copies(rows)
    ragged = [_ragged(line, cells, len(table.columns)) for line, cells in table.ragged]
    left_out = sorted([*left_out, *repeated, *copies, *ragged], key=lambda item: item.line)
    taken = {role: ", ".join(names) for role, names in columns.items()}
    if marks:
        taken["diagnosis"] = ", ".join(marks)
    used = {column for names in columns.values() for column in names} | marks.keys()
    ignored = tuple(column for column in table.columns if column not in used)
    left_out += map(_copy, search.copies)
    notes = (*table.notes, *_notes_on_copies(left_out))
    return Reading(tuple(rows), tuple(left_out), Ledger(name, taken, ignored, count + len(ragged)), notes)


def files_without_row(search: FileSearch, reading: Reading) -> list[LeftOut]:
    """The files that no row names, apart from copies."""
    named = {row.found.file for row in reading.rows if row.found} | {item.file for item in search.copies}
    # Of rows that are left out, what they name is no file without a row.
    for item in reading.left_out:
        if item.line and item.image_id:
            # Those that an ambiguous row may mean have no row of their own.
            found = _find_quietly(search, item.image_id)
            named.update(only.file for only in found if len(found) == 1)
    return [
        LeftOut(
            item.file,
            "it has no row in the table",
            Reason.NO_LABEL,
            summary="image without a row in the table",
            image_id=item.file,
        )
        for item in search.files
        if item.file not in named
    ]


def _find_quietly(search: FileSearch, name: str) -> list[FoundFile]:
    try:
        return search.find("", name)
    except TableError:
        return []


def _label_columns(columns: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(column for role in ("label", "diagnosis", "group") for column in columns.get(role, ()))


def _has_labels(table: Table, columns: Mapping[str, tuple[str, ...]]) -> bool:
    return bool(_label_columns(columns)) or bool(one_hot_columns(table.columns))


def _require_columns(
    table: Table, columns: Mapping[str, tuple[str, ...]], marks: Mapping[str, Meaning]
) -> None:
    if not {"file", "image_id"} & columns.keys():
        raise TableError(
            f"The table has no column “file” or “image_id”, or one of their usual names. Its columns are "
            f"{', '.join(table.columns)}.",
            code=ErrorCode.MISSING_COLUMN,
        )
    if not marks and not _label_columns(columns):
        raise TableError(
            "The table has no column “label” (a class of the task) or “diagnosis”, or one of their usual names. "
            f"Its columns are {', '.join(table.columns)}.",
            code=ErrorCode.MISSING_COLUMN,
        )


def _read_row(
    record: Mapping[str, str],
    line: int,
    columns: Mapping[str, tuple[str, ...]],
    marks: Mapping[str, Meaning],
    search: FileSearch,
    vocabulary: Vocabulary,
) -> LabelledRow | LeftOut:
    def cell(role: str) -> str:
        filled = (record[column].strip() for column in columns.get(role, ()))
        return next((text for text in filled if text), "")

    file, given_id = cell("file"), cell("image_id")
    image_id, split_text = given_id or file, cell("split")
    split = split_of(split_text)

    def left_out(reason: str, code: Reason, summary: str, label: str = "") -> LeftOut:
        shown = f"{image_id} (line {line})" if image_id else f"line {line}"
        return LeftOut(shown, reason, code, line, split or "", summary, file or image_id, label)

    if not image_id:
        return left_out("neither “file” nor “image_id” is filled in", Reason.NO_NAME, "row without an image")
    if split is None:
        reason = f"“{split_text}” is not a split ({', '.join(SPLITS)})"
        return left_out(reason, Reason.UNKNOWN_SPLIT, reason)
    label, meaning, diagnosis = _marked(record, marks) if marks else _named(record, columns, vocabulary)
    if meaning is None:
        if marks:
            return left_out(label, Reason.SEVERAL_MARKS, "row without exactly one diagnosis")
        if not label:
            return left_out("it has no label", Reason.NO_LABEL, "row without a label")
        return left_out(f"“{label}” is not a class or a known diagnosis", Reason.UNKNOWN_CLASS,
                        f"unknown class “{label}”", label)  # fmt: skip
    try:
        found = search.find(file, given_id)
    except TableError as error:
        return left_out(error.user_message, Reason.NO_IMAGE, "row with a name that no file can have")
    if len(found) > 1:
        names = ", ".join(item.file for item in found[:2])
        return left_out(
            f"“{file or image_id}” may be any of {len(found)} files, such as {names}; give their paths in a "
            "column “file”, and files of one name in folders",
            Reason.AMBIGUOUS_IMAGE,
            "row that may mean several images",
        )
    metadata = {name: text for name in METADATA_COLUMNS[1:] if (text := cell(name))}
    if diagnosis:
        metadata = {"diagnosis": diagnosis} | metadata
    if not found and _leaves_folder(file or image_id):
        return left_out(
            f"“{file or image_id}” lies outside the folder of the images; give its path within that folder, or "
            "name another folder for the images",
            Reason.NO_IMAGE,
            "row whose image is outside the folder",
        )
    return LabelledRow(
        image_id,
        file,
        found[0] if found else None,
        label,
        meaning,
        line,
        cell("lesion_group"),
        cell("dataset"),
        split,
        metadata,
        has_id=bool(given_id),
    )


def _named(
    record: Mapping[str, str], columns: Mapping[str, tuple[str, ...]], vocabulary: Vocabulary
) -> tuple[str, Meaning | None, str]:
    """The label as it is given, what it stands for, and the diagnosis that the table gives.

    A label of the task wins over a diagnosis; what else the row says only narrows down what is not clear yet.
    """
    by_role = {
        role: [text for column in columns.get(role, ()) if (text := record[column].strip())]
        for role in ("label", "diagnosis", "group")
    }
    exact = [(text, vocabulary.meaning(text)) for text in (*by_role["label"], *by_role["diagnosis"])]
    groups = [(text, meaning) for text in by_role["group"] if (meaning := vocabulary.meaning(text))]
    known = [(text, meaning) for text, meaning in exact if meaning is not None]
    if exact and not known:
        return exact[0][0], None, ""
    if known and known[0][1].name == UNKNOWN_DIAGNOSIS:
        # “unknown” beside “malignant” leaves the latter.
        known = [*(item for item in known if item[1].diagnoses), *groups[:1]] or known
    known += [item for item in groups if item not in known]
    if not known:
        return next(iter(by_role["group"]), ""), None, ""
    label, meaning = known[0]
    for _, other in known[1:]:
        if (both := meaning.diagnoses & other.diagnoses) and both != meaning.diagnoses:
            meaning = other if both == other.diagnoses else Meaning(both, next(iter(sorted(both))))
    given = [vocabulary.meaning(text) for text in by_role["diagnosis"]]
    diagnosis = next((found.diagnosis for found in given if found and found.diagnosis), "")
    return label, meaning, diagnosis or next(iter(by_role["diagnosis"]), "")


def _marked(record: Mapping[str, str], marks: Mapping[str, Meaning]) -> tuple[str, Meaning | None, str]:
    """The diagnosis whose column is marked; instead of the label, what is wrong where not one alone is."""
    marked = marked_columns(record, tuple(marks))
    if len(marked) != 1:
        return f"it has {len(marked)} diagnoses instead of one", None, ""
    meaning = marks[marked[0]]
    return marked[0], meaning, meaning.diagnosis


def marked_columns(record: Mapping[str, str], columns: Sequence[str]) -> list[str]:
    """The columns of a one-hot row that hold more than zero, compared as numbers; a text counts as marked."""

    def is_marked(text: str) -> bool:
        try:
            return abs(float(text.replace(",", ".") or "0")) > _ONE
        except ValueError:
            return True

    return [column for column in columns if is_marked(record.get(column, "").strip())]


def _leaves_folder(name: str) -> bool:
    path = name.replace("\\", "/")
    return path.startswith("/") or path[1:2] == ":" or posixpath.normpath(path).startswith("..")


def _without_repeated(rows: Sequence[LabelledRow]) -> tuple[list[LabelledRow], list[LeftOut]]:
    """Each image once; those with two different labels not at all."""
    first_of: dict[tuple[str, str], int] = {}
    left_out: dict[int, LeftOut] = {}
    for place, row in enumerate(rows):
        # A row that finds no file is told from others by the file that it would be.
        location = row.found.file if row.found else posixpath.normpath(row.file or f"{row.image_id}.jpg")
        shown = row.found.file if row.found else row.file or row.image_id
        names = [(row.image_id, ("id", row.image_id)), (shown, ("file", location))]
        earlier = next(((name, first_of[key]) for name, key in names if key in first_of), None)
        for _, key in names:
            first_of.setdefault(key, place)
        if earlier is None:
            continue
        name, first_place = earlier
        first = rows[first_place]
        if row.meaning == first.meaning:
            left_out[place] = _repeated(row, f"“{name}” is already in line {first.line}", Reason.REPEATED_ROW)
            continue
        reason = f"“{name}” is already in line {first.line}, with another label"
        left_out[place] = _repeated(row, reason, Reason.CONTRADICTING_LABELS)
        left_out.setdefault(
            first_place,
            _repeated(first, f"line {row.line} gives it another label", Reason.CONTRADICTING_LABELS),
        )
    kept = [row for place, row in enumerate(rows) if place not in left_out]
    return kept, list(left_out.values())


def _repeated(row: LabelledRow, reason: str, code: Reason) -> LeftOut:
    summary = "image with two labels" if code == Reason.CONTRADICTING_LABELS else "repeated row"
    return LeftOut(row.shown, reason, code, row.line, row.split, summary, row.file or row.image_id)


def _ragged(line: int, cells: int, width: int) -> LeftOut:
    reason = f"it has {cells} cells, and the table {width} columns; quote cells that contain the separator"
    return LeftOut(
        f"line {line}", reason, Reason.RAGGED_ROW, line, summary="row with too many or too few cells"
    )


def _without_copies(rows: Sequence[LabelledRow]) -> tuple[list[LabelledRow], list[LeftOut]]:
    """One row of each file content; those with two different labels not at all.

    Copies that the table itself gives to one lesion stay: it knows of them, and figures by lesion allow for them.
    """
    row_of = {row.found.file: row for row in rows if row.found}
    left_out: dict[str, LeftOut] = {}
    for files in find_copies([row.found for row in row_of.values() if row.found]):
        first, *others = alike = [row_of[item.file] for item in files]
        if len({row.meaning for row in alike}) > 1:
            names = ", ".join(item.file for item in files[:_SHOWN])
            reason = f"the same photo is there with two labels ({names})"
            left_out |= {
                item.file: _of_copy(row, reason, Reason.CONTRADICTING_LABELS, "image with two labels")
                for item, row in zip(files, alike, strict=True)
            }
            continue
        for item, row in zip(files[1:], others, strict=True):
            if not row.lesion_group or row.lesion_group != first.lesion_group:
                reason = f"“{files[0].file}” has the same bytes"
                left_out[item.file] = _of_copy(row, reason, Reason.COPY, "copy of another file")
    kept = [row for row in rows if not row.found or row.found.file not in left_out]
    return kept, list(left_out.values())


def _of_copy(row: LabelledRow, reason: str, code: Reason, summary: str) -> LeftOut:
    assert row.found is not None, "a copy is a file"
    file = row.found.file if not row.line else row.shown
    return LeftOut(file, reason, code, row.line, row.split, summary, row.file or row.image_id)


def _copy(item: FoundFile) -> LeftOut:
    reason = "another file has the same bytes"
    return LeftOut(item.file, reason, Reason.COPY, summary="copy of another file", image_id=item.file)


def _notes_on_copies(left_out: Iterable[LeftOut]) -> tuple[str, ...]:
    copies = [item for item in left_out if item.code == Reason.COPY]
    if not copies:
        return ()
    shown = ", ".join(item.file for item in copies[:3])
    more = f" and {len(copies) - 3:,} more" if len(copies) > 3 else ""
    return (f"Files that are there twice, byte for byte, count once. Passed over: {shown}{more}.",)


# ------------------------------------------------------------------------------------------------- folders


def read_folders(files: Sequence[FoundFile], vocabulary: Vocabulary) -> Reading | None:
    """Labels from the outermost folder that is named after a class; None where there is no such folder.

    A folder around it that is named after a split gives the split. Files of one content count once; in folders of
    two classes they are left out.
    """
    parts_of = {item.file: item.given.split("/")[:-1] for item in files}
    named = {file: class_folder(parts, vocabulary) for file, parts in parts_of.items()}
    meaning_of = {name: meaning for name in named.values() if name and (meaning := vocabulary.meaning(name))}
    if not any(meaning.name != UNKNOWN_DIAGNOSIS for meaning in meaning_of.values()):
        return None
    wrapper = len(posixpath.commonprefix([*parts_of.values()]))
    rows, left_out = [], []
    for item in files:
        parts, name = parts_of[item.file], named[item.file]
        if name is None:
            left_out.append(_unknown_folder(item, [part for part in parts[wrapper:] if not split_of(part)]))
            continue
        split = next((found for part in parts[: parts.index(name)] if (found := split_of(part))), "")
        meaning = meaning_of[name]
        metadata = _diagnosis_of_folder(name, meaning)
        rows.append(LabelledRow(item.file, item.file, item, name, meaning, split=split, metadata=metadata))
    rows, copies = _without_copies(rows)
    left_out += copies
    ledger = Ledger("folders", {}, (), len(files))
    return Reading(tuple(rows), tuple(left_out), ledger, _notes_on_copies(copies))


def _diagnosis_of_folder(name: str, meaning: Meaning) -> dict[str, str]:
    # A class such as “nevus” is asked for; a diagnosis such as “NV” is known besides.
    is_class = any(name.lower() in task.classes for task in TASKS.values())
    known = meaning.diagnosis if name.upper() in DIAGNOSES or not is_class else ""
    return {"diagnosis": known} if known else {}


def _unknown_folder(item: FoundFile, folders: Sequence[str]) -> LeftOut:
    return LeftOut(
        item.file,
        "it is in no folder that is named after a class",
        Reason.UNKNOWN_CLASS if folders else Reason.NO_LABEL,
        summary=f"folder {folders[0]}, which is not a known class" if folders else "not in a class folder",
        image_id=item.file,
        label=folders[0] if folders else "",
    )


# --------------------------------------------------------------------------------------------------- tasks


def for_task(reading: Reading, task: Task) -> ForTask:
    """The rows that belong to a task, each with its class; the rest is left out with the reason.

    Raises:
        TableError: Only one class is left because other labels can't be used, or nothing is left at all.
    """
    rows, left_out, labels = [], [], Counter()
    for row in reading.rows:
        shown = row.shown if row.found is None else row.found.file
        try:
            key = row.meaning.class_of(task)
        except TableError as error:
            reason = f"“{row.label}” {error.user_message}"
            left_out.append(_of_row(row, shown, reason, Reason.AMBIGUOUS_CLASS, reason))
            labels[row.label, ""] += 1
            continue
        labels[row.label, key or ""] += 1
        if key is not None:
            rows.append((row, key))
            continue
        named = row.meaning.diagnosis or row.label
        reason = f"the diagnosis {named} is outside the task"
        if row.line and row.found is None:
            reason += ", and it is not among the files"
        summary = named if row.line else f"folder {row.label}"
        left_out.append(_of_row(row, shown, reason, Reason.OUTSIDE_TASK, summary))
    for item in reading.left_out:
        if item.code == Reason.UNKNOWN_CLASS:
            labels[item.label, ""] += 1
    ledger = replace(
        reading.ledger,
        labels=tuple((given, taken, count) for (given, taken), count in sorted(labels.items())),
    )
    every = (*reading.left_out, *left_out)
    check_remainder({key for _, key in rows}, every)
    return ForTask(tuple(rows), every, ledger)


def check_remainder(classes: Collection[str], left_out: Sequence[LeftOut]) -> None:
    """Refuses what is left of a set where it is a single class and others were meant to be there.

    Raises:
        TableError: The message has the labels that can't be used, or the lines.
    """
    unusable = [item for item in left_out if item.code in _OF_LABELS]
    if len(classes) != 1 or not unusable:
        return
    raise TableError(
        f"Only images of the class “{next(iter(classes))}” are left, so that figures would mean nothing. "
        f"{describe_left_out(unusable)}",
        code=ErrorCode.SINGLE_CLASS,
    )


def describe_left_out(left_out: Sequence[LeftOut]) -> str:
    """The first lines of a table that can't be used, or the number of images of each reason, as a sentence."""
    lined = sorted((item for item in left_out if item.line), key=lambda item: item.line)
    if lined:
        shown = "; ".join(f"line {item.line}: {item.reason}" for item in lined[:_SHOWN])
        more = f"; and {len(lined) - _SHOWN} more" if len(lined) > _SHOWN else ""
        return f"Not used: {shown}{more}."
    counted = Counter(item.summary or item.reason for item in left_out).most_common()
    shown = "; ".join(f"{summary}: {count:,} images" for summary, count in counted[:_SHOWN])
    more = f"; and {len(counted) - _SHOWN} more" if len(counted) > _SHOWN else ""
    return f"Not used: {shown}{more}." if counted else ""


def remainder_note(used: int, left_out: Sequence[LeftOut]) -> str:
    """The first line of a set of which a part can't be used; empty where all of it can.

    Args:
        used: Number of images that are used.
        left_out: What is not. System files and repeated rows are no part of the set.
    """
    passed = (Reason.COPY, Reason.HIDDEN, Reason.REPEATED_ROW, Reason.UNUSED_TABLE)
    missing = [item for item in left_out if item.code not in passed]
    if not missing:
        return ""
    counted = Counter(item.summary or item.reason for item in missing).most_common()
    shown = "; ".join(f"{summary}: {count:,}" for summary, count in counted[:_SHOWN])
    more = "; and more reasons" if len(counted) > _SHOWN else ""
    return f"Only a part is used: {used:,} images. Left out: {len(missing):,} ({shown}{more})."


def missing_image(row: LabelledRow) -> LeftOut:
    """Says of a row that its image is not there."""
    return LeftOut(
        row.shown,
        "it is in the table, but not among the files",
        Reason.NO_IMAGE,
        row.line,
        row.split,
        "row without its image",
        row.file or row.image_id,
    )


def _of_row(row: LabelledRow, shown: str, reason: str, code: Reason, summary: str) -> LeftOut:
    return LeftOut(shown, reason, code, row.line, row.split, summary, row.file or row.image_id, row.label)
