"""HTML of what the training programme's stages have measured, from the files that its report wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from dermadeit.comparison import Difference
from dermadeit.display_names import capitalised
from dermadeit.metrics import HEADLINE_FIGURES
from dermadeit.result_tables import difference_text, figure_text
from dermadeit.tasks import TASKS, Task
from dermadeit.views.tables import table_html
from dermadeit.views.training_sections import command_html

_FIGURES = ("accuracy", "cohen_kappa", "f1_macro", "roc_auc")

_STAGES: Mapping[str, tuple[str, str]] = {
    "ablations": (
        "From the original to ours",
        "Each training has everything of the one above it, and one change more.",
    ),
    "three-way": (
        "What a teacher brings",
        "The same short training without a teacher, with its embeddings, and with its soft logits too.",
    ),
}
"""Name of a stage in train/programme.yaml to its title and what it compares."""


def stages_html(benchmark: Path) -> str:
    """The tables of every stage for every task, or how to make those that are not there.

    Args:
        benchmark: Folder that holds `<task>/<stage>.json`, as `train/programme_report.py` writes them.
    """
    return "".join(_stage(benchmark, stage) for stage in _STAGES)


def _stage(benchmark: Path, stage: str) -> str:
    title, meaning = _STAGES[stage]
    tables = [_table(title, task, _read(benchmark / task.key / f"{stage}.json")) for task in TASKS.values()]
    content = "".join(tables) or (
        "<p>This has not been run yet. These commands run it and fill this place:</p>"
        + command_html(
            f"python train/programme.py --stage teachers --stage {stage}",
            f"python train/programme_report.py --stage {stage}",
        )
    )
    return f"""
<section class="dd-card dd-stage">
  <h3>{title}</h3>
  <p class="dd-quiet">{meaning}</p>
  {content}
</section>"""


def _table(title: str, task: Task, report: Mapping[str, Any]) -> str:
    trainings = report.get("trainings", [])
    if not trainings:
        return ""
    rows = [
        [
            escape(str(training["name"])),
            *(figure_text(training["figures"], name) for name in _FIGURES),
            _difference(training),
        ]
        for training in trainings
    ]
    names = ["training", *(HEADLINE_FIGURES[name] for name in _FIGURES), "difference of accuracy"]
    header = [capitalised(name) for name in names]
    images, views = trainings[0]["figures"]["n"], trainings[0]["views"]
    caption = f"{task.title}: {images:,} images of the {report['split']} split, {views} views an image"
    # Stages have tables of the same images: a name that two regions share tells a screen reader nothing.
    table = table_html(f"{title}. {caption}", header, rows, titled=False)
    return f"<h4>{escape(caption)}</h4>{table}"


def _difference(training: Mapping[str, Any]) -> str:
    if "differences" not in training:
        return "–"
    found = training["differences"]["accuracy"]
    difference = Difference(found["difference"], found["interval"] and tuple(found["interval"]))
    text = difference_text(difference).strip("*")
    shown = f"<strong>{text}</strong>" if difference.excludes_zero else text
    return f"{shown} <span>to {escape(str(training['compared_with']))}</span>"


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
