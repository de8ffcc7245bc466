"""The teacher's place in the comparison: a small classifier on its features, of which only answers can be filed.

`train/evaluate_teacher.py` writes them. The app has neither the teacher nor the classifier.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermadeit.files import read_json_if_there
from dermadeit.metrics.classification import HEADLINE_FIGURES
from dermadeit.publishing.benchmark import BENCHMARK_ROOT, METRICS_FILE
from dermadeit.reporting.names import capitalised
from dermadeit.reporting.templates import render
from dermadeit.tasks import Task

TEACHER = "teacher-mlp"
"""Name under which the answers of the classifier are filed."""

TEACHER_TITLE = "MLP on the small teacher's features"

NEVER_ASKED = "it needs a large model that does not come with the app, so it can't read a photo here."

_SHOWN_FIGURES = ("accuracy", "roc_auc")


@dataclass(frozen=True)
class TeacherEntry:
    """What there is of the teacher for one task.

    Attributes:
        is_filed: Whether its answers about the test images are shipped.
        figures: Their figures with intervals, with the most views; empty where they were not measured yet.
    """

    is_filed: bool
    figures: Mapping[str, Any]


def teacher_entry(task: Task, root: Path = BENCHMARK_ROOT) -> TeacherEntry:
    """Looks for the answers among the published predictions.

    Args:
        task: The task.
        root: The benchmark, laid out as `benchmark` describes.
    """
    if not (root / task.key / f"{TEACHER}.csv").is_file():
        return TeacherEntry(False, {})
    path = root / task.key / METRICS_FILE
    models = read_json_if_there(path).get("models", {})
    by_views = models.get(TEACHER, {}).get("views", {})
    return TeacherEntry(True, by_views[max(by_views, key=int)] if by_views else {})


def teacher_command(task: Task) -> str:
    """The command that makes the answers about the test images and files them."""
    return (
        f"python -m train.evaluate_teacher --task {task.key} --split test --teacher checkpoint:FOLDER && "
        "python -m dermadeit benchmark add runs/teacher"
    )


def teacher_card_html(task: Task, root: Path = BENCHMARK_ROOT) -> str:
    """A card beside those of the models that can be asked: filed figures, or what makes them."""
    return render(
        "views/comparison/teacher.html",
        name=TEACHER,
        title=TEACHER_TITLE,
        entry=teacher_entry(task, root),
        never_asked=capitalised(NEVER_ASKED),
        command=teacher_command(task),
        shown=[(key, capitalised(HEADLINE_FIGURES[key])) for key in _SHOWN_FIGURES],
    )


def headline_names() -> list[str]:
    """What the figures in the tables of this tab are called, in their order."""
    return [capitalised(name) for name in HEADLINE_FIGURES.values()]
