"""Tables of predictions that other programs wrote, completed to what `evaluate` writes.

An identifier and a probability for each class are enough. What else a table does not say is taken from what is
known of its images, or assumed, and the notes say so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dermadeit.data.collection import holds_predictions
from dermadeit.data.tabular import Table
from dermadeit.errors import ErrorCode, ResultFileError
from dermadeit.tasks import DIAGNOSES, OWN, TASKS, Task, create_own_task

KnownImages = Callable[[Task], Mapping[str, Mapping[str, str]]]
"""Gives image identifier to `label`, `lesion_group`, `source` and `split`, for the images of a task."""

NO_LESION_GROUPS = (
    "The table has no column lesion_group: every image counts as a lesion of its own. If several images show one "
    "lesion, the intervals are too narrow."
)

_SCORES = ("p_", "logit_")
_SHOWN = 3


@dataclass(frozen=True)
class CompletedTable:
    """A table of predictions with all that is needed.

    Attributes:
        table: With `image_id`, `task`, `model`, `views`, `label_true` and `lesion_group`; rows without a true
            class are left out.
        task: The task of all rows, where the table leaves it open or its classes are the user's own; else None.
        has_lesion_groups: Whether it is known which images show the same lesion.
        notes: What was assumed or left out, as sentences.
    """

    table: Table
    task: Task | None
    has_lesion_groups: bool
    notes: tuple[str, ...]


def know_no_images(_: Task) -> Mapping[str, Mapping[str, str]]:
    """Nothing is known of any image."""
    return {}


def complete_table(
    table: Table, path: Path, task: Task | None, *, model: str, known: KnownImages
) -> CompletedTable:
    """Completes a table of predictions.

    Args:
        table: At least `image_id`, and `p_<class>` or `logit_<class>` for every class of a task. Optional are
            `task`, `model`, `views` (else 1), `label_true` or `label` or `diagnosis`, and `lesion_group`; `target`
            of classes of one's own.
        path: Where it comes from, for the messages.
        task: The task that is asked for, where the table leaves that open.
        model: What to call the model, where the table does not.
        known: Gives labels and lesions where the table does not.

    Raises:
        ResultFileError: It has no predictions, or no image has a true class.
    """
    table = _with_plain_names(table)
    if not holds_predictions(table.columns):
        classes = [f"p_{key}" for key in (task or next(iter(TASKS.values()))).classes]
        missing = [name for name in ("image_id", *classes) if name not in table.columns]
        raise ResultFileError(
            f"“{path.name}” has no column {', '.join(missing)}. A table of predictions needs image_id, and "
            "p_<class> for every class of the task.",
            code=ErrorCode.MISSING_COLUMN,
        )
    if not table.rows:
        raise ResultFileError(f"“{path.name}” has no predictions.", code=ErrorCode.EMPTY_TABLE)
    named = {row.get("task", "").strip() for row in table.rows} - {""}
    only_task = None if named - {OWN} else _find_task(table, task, path, is_own=named == {OWN})
    given = {"model": model, "views": "1", **({"task": only_task.key} if only_task else {})}
    given = {name: text for name, text in given.items() if name not in table.columns}
    table = replace(
        table, columns=(*table.columns, *given), rows=tuple({**row, **given} for row in table.rows)
    )
    ragged = _note_on_ragged(table)
    if "label_true" in table.columns and "lesion_group" in table.columns:
        return CompletedTable(table, only_task, has_lesion_groups=True, notes=ragged)
    completed = _with_truth(table, only_task, path, known)
    return replace(completed, notes=(*ragged, *completed.notes))


def _note_on_ragged(table: Table) -> tuple[str, ...]:
    if not table.ragged:
        return ()
    shown = ", ".join(f"line {line}" for line, _ in table.ragged[:_SHOWN])
    count = len(table.ragged)
    return (
        f"Rows left out because they have more or fewer cells than there are columns: {count}, such as {shown}.",
    )


def _with_plain_names(table: Table) -> Table:
    """The table with the names of the columns that matter here in small letters."""
    names = {
        column: column.lower()
        for column in table.columns
        if column.lower().startswith(_SCORES) or column.lower() in ("image_id", "label", "lesion_group")
    }
    if all(column == name for column, name in names.items()) or len(set(names.values())) < len(names):
        return table
    return replace(
        table,
        columns=tuple(names.get(column, column) for column in table.columns),
        rows=tuple({names.get(column, column): text for column, text in row.items()} for row in table.rows),
    )


def _find_task(table: Table, asked: Task | None, path: Path, *, is_own: bool) -> Task:
    """The task whose classes the table has: exactly these, else the one that is asked for, else the user's own."""
    of_prefix = {
        prefix: [name.removeprefix(prefix) for name in table.columns if name.startswith(prefix)]
        for prefix in _SCORES
    }
    classes = max(of_prefix.values(), key=len)
    known = [*([asked] if asked else []), *(() if is_own else TASKS.values())]
    for task in known:
        if set(task.classes) == set(classes):
            return task
    if asked is not None and set(asked.classes) <= set(classes):
        return asked
    for task in () if is_own else TASKS.values():
        if set(task.classes) & set(classes):
            missing = [f"p_{key}" for key in task.classes if key not in classes]
            if missing and asked in (None, task):
                raise ResultFileError(
                    f"“{path.name}” has no column {', '.join(missing)}. The task “{task.key}” needs a column for "
                    "each of its classes.",
                    code=ErrorCode.MISSING_COLUMN,
                )
    targets = {row.get("target", "").strip() for row in table.rows} - {""}
    return create_own_task(classes, target=targets.pop() if len(targets) == 1 else "")


def _with_truth(table: Table, task: Task | None, path: Path, known: KnownImages) -> CompletedTable:
    tasks = {row["task"]: task or TASKS.get(row["task"]) for row in table.rows}
    images = {key: known(each) if each else {} for key, each in tasks.items()}
    has_groups, borrowed = "lesion_group" in table.columns, 0
    rows, lines, unlabelled, grouped = [], [], [], True
    for row, line in zip(table.rows, table.line_numbers, strict=True):
        told = images[row["task"]].get(row["image_id"].strip(), {})
        of_table = _label_of(row, tasks[row["task"]])
        label = told.get("label") if of_table is None else of_table
        if not label:
            unlabelled.append(row["image_id"])
            continue
        borrowed += of_table is None
        # What is known of an image that the table labels otherwise is of another image.
        told = told if told.get("label") == label else {}
        group = row.get("lesion_group", "") if has_groups else told.get("lesion_group", "")
        grouped &= has_groups or bool(told)
        rows.append(
            {
                **row,
                "label_true": label,
                "lesion_group": group,
                "source": row.get("source") or told.get("source", ""),
                "split": row.get("split") or told.get("split", ""),
            }
        )
        lines.append(line)
    if not rows:
        raise ResultFileError(
            f"“{path.name}” has no true class for any of its images, and none of them is a test image whose class "
            "is known here. Add a column “label”.",
            code=ErrorCode.MISSING_COLUMN,
        )
    added = tuple(
        name for name in ("label_true", "lesion_group", "source", "split") if name not in table.columns
    )
    notes = [
        f"Left out: {len(unlabelled)} images without a true class, such as {', '.join(unlabelled[:_SHOWN])}."
        if unlabelled
        else "",
        f"The true classes of {borrowed} images are those of the shipped test images." if borrowed else "",
        "" if grouped else NO_LESION_GROUPS,
    ]
    return CompletedTable(
        replace(table, columns=(*table.columns, *added), rows=tuple(rows), line_numbers=tuple(lines)),
        task,
        grouped,
        tuple(note for note in notes if note),
    )


def _label_of(row: Mapping[str, str], task: Task | None) -> str | None:
    """The true class as the table gives it; empty for one outside the task, None where there is none."""
    text = next(
        (row[name].strip() for name in ("label_true", "label", "diagnosis") if row.get(name, "").strip()), ""
    )
    if not text:
        return None
    if task is None or "label_true" in row or text in task.classes:
        return text
    if text.lower() in task.classes:
        return text.lower()
    diagnosis = {name: key for key, name in DIAGNOSES.items()}.get(text.lower(), text.upper())
    return task.class_of_diagnosis.get(diagnosis, "")
