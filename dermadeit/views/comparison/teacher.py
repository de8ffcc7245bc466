"""The teacher's place in the comparison: a small classifier on its features, of which only answers can be filed.

`train/evaluate_teacher.py` writes them. The app has neither the teacher nor the classifier.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from dermadeit.files import read_json_if_there
from dermadeit.metrics.classification import HEADLINE_FIGURES
from dermadeit.publishing.benchmark import BENCHMARK_ROOT, METRICS_FILE
from dermadeit.reporting.format import NOTHING
from dermadeit.reporting.names import capitalised
from dermadeit.tasks import Task
from dermadeit.views.page.html import figure_cell

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
    entry = teacher_entry(task, root)
    state = "filed" if entry.is_filed else "missing"
    return (
        f'<article class="dd-model" data-model="{TEACHER}" data-state="{state}"><h3>{TEACHER_TITLE}</h3>'
        f'<div class="dd-model-note">{_said_html(task, entry)}</div></article>'
    )


def teacher_row() -> list[str]:
    """Its row of a table of figures that has none of it: name, views, figures; cells as HTML."""
    return [TEACHER_TITLE, NOTHING, "not run", *[NOTHING] * (len(HEADLINE_FIGURES) - 1)]


def teacher_note_html(task: Task, *, is_shipped: bool) -> str:
    """Why it has no figures, and what makes some.

    Args:
        task: What was asked.
        is_shipped: Whether the others are the shipped predictions, among which its answers could be.
    """
    remedy = (
        f" This command adds its predictions for the test images: "
        f"<code>{escape(teacher_command(task))}</code>"
        if is_shipped
        else ""
    )
    return f"{TEACHER_TITLE}: {NEVER_ASKED}{remedy}"


def _said_html(task: Task, entry: TeacherEntry) -> str:
    if not entry.is_filed:
        return f"""
<p>{capitalised(NEVER_ASKED)} This command adds its predictions for the test images to the comparison:</p>
<pre class="dd-command" tabindex="0"><code>{escape(teacher_command(task))}</code></pre>"""
    rows = "".join(
        f"<div><dt>{capitalised(HEADLINE_FIGURES[name])}</dt><dd>{figure_cell(entry.figures, name)}</dd></div>"
        for name in _SHOWN_FIGURES
    )
    measured = f'<dl class="dd-model-facts">{rows}</dl>' if entry.figures else ""
    return f"""
<p>{capitalised(NEVER_ASKED)} Its predictions for the test images come with the app: see the other parts of
this tab.</p>
{measured}"""
