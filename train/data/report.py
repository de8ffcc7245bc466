"""What a preparation leaves: manifest.csv, exclusions.csv, preparation.json, and a summary for whoever waits."""

from __future__ import annotations

import dataclasses
import logging
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dermadeit.about import VERSION
from dermadeit.data.manifest import SPLITS
from dermadeit.data.synthetic import MANIFEST_COLUMNS
from dermadeit.data.tabular import write_csv
from dermadeit.files import write_json
from dermadeit.tasks import DIAGNOSES, DIAGNOSIS, OWN, TASKS, Task
from train.data.layouts import ExcludedImage
from train.data.splitting import NEEDED_SPLITS, classes_in, missing_classes

logger = logging.getLogger(__name__)

_DEFAULT_TASK = DIAGNOSIS.key

EXCLUSION_COLUMNS = tuple(field.name for field in dataclasses.fields(ExcludedImage))


def write_tables(
    output: Path,
    rows: Sequence[Mapping[str, Any]],
    exclusions: Sequence[ExcludedImage],
    settings: Mapping[str, Any],
) -> None:
    """Writes the three files of a data folder.

    Args:
        output: The folder.
        rows: Columns of the manifest to values. The column `label` is written only where a row fills it in.
        exclusions: What was left out.
        settings: How it was made, for `preparation.json`.
    """
    ordered = sorted(exclusions, key=lambda item: (item.reason, item.image_id, item.file))
    write_csv(output / "exclusions.csv", EXCLUSION_COLUMNS, [dataclasses.asdict(item) for item in ordered])
    record = {
        "dermadeit_version": VERSION,
        **settings,
        "images": len(rows),
        "exclusions": dict(sorted(Counter(item.reason for item in exclusions).items())),
    }
    write_json(output / "preparation.json", record)
    columns: list[str] = list(MANIFEST_COLUMNS)
    if any(row["label"] for row in rows):
        columns.insert(columns.index("diagnosis") + 1, "label")
    # Last, because it is what makes the folder a data folder.
    write_csv(output / "manifest.csv", columns, [{name: row[name] for name in columns} for row in rows])


def log_summary(
    output: Path,
    rows: Sequence[Mapping[str, Any]],
    exclusions: Sequence[ExcludedImage],
    *,
    leaks: bool,
    task: Task | None = None,
) -> None:
    """Logs images, lesions and classes of each split, what was left out, and what to run next.

    Args:
        output: The data folder.
        rows: Of the manifest.
        exclusions: What was left out.
        leaks: Whether a training must be told to take the manifest.
        task: Of classes of the user's own.
    """
    counts = Counter((row["split"], row["diagnosis"] or row["label"]) for row in rows)
    present = {key for _, key in counts}
    classes = [key for key in DIAGNOSES if key in present] + sorted(present - DIAGNOSES.keys())
    widths = {key: max(8, len(key) + 2) for key in classes}
    logger.info(
        "%-12s%8s%9s%s",
        "split",
        "images",
        "lesions",
        "".join(f"{key:>{width}}" for key, width in widths.items()),
    )
    for split in SPLITS:
        members = [row for row in rows if row["split"] == split]
        lesions = len({row["lesion_group"] for row in members})
        numbers = "".join(f"{counts[split, key]:>{width},}" for key, width in widths.items())
        logger.info("%-12s%8s%9s%s", split, f"{len(members):,}", f"{lesions:,}", numbers)
    for split in SPLITS:
        if absent := [key for key in classes if not counts[split, key]]:
            logger.warning("No image of %s in %s", ", ".join(absent), split)
    for reason, number in sorted(Counter(item.reason for item in exclusions).items()):
        logger.warning("Images left out as %s: %d (listed in exclusions.csv)", reason, number)
    trainable = _trainable_tasks(rows, task)
    if not trainable:
        logger.warning("No training can start: train and validation need every class of a task.")
        return
    folder = "" if output == Path("data") else f" --data {shlex.quote(str(output))}"
    asked = "" if trainable[0] in (OWN, _DEFAULT_TASK) else f" --task {trainable[0]}"
    logger.info("Next: python train/distill.py%s%s%s", folder, asked, " --allow-leaks" if leaks else "")


def _trainable_tasks(rows: Sequence[Mapping[str, Any]], own: Task | None) -> list[str]:
    """Keys of the tasks of which every class has images in train and validation, as a training demands."""
    names = [str(row["label"] or row["diagnosis"]) for row in rows]
    splits = [str(row["split"]) for row in rows]
    found = []
    for task in [own] if own else TASKS.values():
        labels = classes_in(task, names)
        if {*task.classes} <= {*labels} and not missing_classes(splits, labels, NEEDED_SPLITS):
            found.append(task.key)
    return found
