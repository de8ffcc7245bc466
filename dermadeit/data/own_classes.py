"""Classes of one's own: what classes.yaml says of them, or the labels of a table alone."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from dermadeit.data.sources import Source
from dermadeit.data.tabular import read_table_file
from dermadeit.data.vocabulary import Vocabulary, class_folder, find_columns, split_of
from dermadeit.errors import ErrorCode, TableError
from dermadeit.files import write_atomically
from dermadeit.tasks import Task, create_own_task

CLASSES_FILE = "classes.yaml"
"""Lies beside a table: class key to title, and `target` to the key of the class that must not be missed."""

_MOST_CLASSES = 100


def read_classes(path: Path) -> Task:
    """Reads the classes that a YAML file lists, in its order.

    Args:
        path: Class key to title, such as `wart: Viral wart`; and, if there is one, `target: KEY`.

    Raises:
        TableError: The file can't be read, or lists something else.
        TaskError: A key can't be used, or there are fewer than two.
    """
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    # PyYAML lets through whatever its constructors raise, of dates that don't exist and numbers without a digit.
    except Exception as error:
        raise TableError(f"“{path.name}” can't be read: {error}.", code=ErrorCode.UNREADABLE_TABLE) from error
    if not isinstance(content, dict) or any(
        isinstance(title, list | dict | set) for title in content.values()
    ):
        raise TableError(
            f"“{path.name}” must list the classes, one a line, such as “wart: Viral wart”.",
            code=ErrorCode.UNREADABLE_TABLE,
        )
    listed = {str(key): "" if title is None else str(title) for key, title in content.items()}
    target = listed.pop("target", "")
    return create_own_task(tuple(listed), listed, target)


def write_classes(path: Path, task: Task) -> None:
    """Writes what `read_classes` reads."""
    listed = {**task.display_names, "target": task.target}
    text = yaml.safe_dump(listed, allow_unicode=True, sort_keys=False)
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_own_task(table: Path) -> Task:
    """The task of a table with classes of one's own.

    Args:
        table: A manifest, or any table of labels. The classes are those of the `classes.yaml` beside it; without
            one, the different labels in alphabetical order.

    Raises:
        TableError: There is no label, or there are too many different ones.
        TaskError: There are fewer than two.
    """
    described = table.parent / CLASSES_FILE
    if described.is_file():
        return read_classes(described)
    return _of_labels(_labels(table), table.name)


def has_own_classes(table: Path) -> bool:
    """Whether a table decides that its classes are the user's own: it has a `classes.yaml`, or no known label."""
    if (table.parent / CLASSES_FILE).is_file():
        return True
    known = Vocabulary()
    labels = _labels(table)
    return bool(labels) and not any(known.meaning(label) for label in labels)


def find_own_task(folder: Path, source: Source) -> Task | None:
    """The task of class folders whose classes are the user's own; None where they are known ones.

    Args:
        folder: It may have a `classes.yaml`, which decides. Without one, the classes are the user's own where two
            or more folders have images and none of them is named after a known class.
        source: What lies in it.

    Raises:
        TableError: `classes.yaml` can't be read, or there are too many folders.
        TaskError: A class can't be used.
    """
    described = folder / CLASSES_FILE
    if described.is_file():
        return read_classes(described)
    paths, known = [item.given.split("/")[:-1] for item in source.files], Vocabulary()
    wrapper = len(posixpath.commonprefix(paths))
    names = {next((part for part in parts[wrapper:] if not split_of(part)), "") for parts in paths} - {""}
    if len(names) < 2 or any(class_folder(parts, known) for parts in paths):
        return None
    return _of_labels(names, folder.name)


def _of_labels(labels: Collection[str], source: str) -> Task:
    titles = {_key(text): text for text in sorted(labels)}
    if len(titles) > _MOST_CLASSES:
        raise TableError(
            f"“{source}” has {len(titles)} different labels. List the classes in a {CLASSES_FILE} beside it.",
            code=ErrorCode.UNKNOWN_CLASS,
        )
    return create_own_task(
        tuple(sorted(titles)), {key: title for key, title in titles.items() if key != title}
    )


def _key(label: str) -> str:
    plain = unicodedata.normalize("NFKD", label).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_")


def _labels(table: Path) -> list[str]:
    read = read_table_file(table)
    columns = find_columns(read.columns)
    names = [*columns.get("label", ()), *columns.get("diagnosis", ())]
    texts = (next((row[name].strip() for name in names if row[name].strip()), "") for row in read.rows)
    return sorted({text for text in texts if text})
