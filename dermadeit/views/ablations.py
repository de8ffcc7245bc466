"""HTML of what the training programme's stages have measured, from the files that its report wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from dermadeit.reporting.markdown import STAGE_DIFFERENCE, difference_text, stage_difference, stage_table
from dermadeit.reporting.names import capitalised
from dermadeit.tasks import TASKS, Task
from dermadeit.views.tables import table_html
from dermadeit.views.training_sections import command_html


class _Stage(NamedTuple):
    title: str
    meaning: str
    command: str


_STAGES: Mapping[str, _Stage] = {
    "ablations": _Stage(
        title="From the original to ours",
        meaning="Each training has everything of the one above it, and one change more.",
        command="python train/programme.py --stage teachers --stage ablations",
    ),
    "three-way": _Stage(
        title="What a teacher brings",
        meaning="The same short training without a teacher, with its embeddings, and with its soft logits too; in "
        "the last one the class token learns them as well, in place of a token of its own. Figures are means over "
        "seeds. A few seeds tell little of how much others would differ, so the intervals are too narrow.",
        command="python train/programme.py --stage teachers --stage three-way",
    ),
    "resolution": _Stage(
        title="Whether more pixels help",
        meaning="A few last epochs of a plain DeiT of 160 pixels, at its own resolution and at a higher one. They "
        "were repeated with other seeds, always from the same start.",
        command="python train/programme.py --only diagnosis-at-160-pixels/deit --only '*/at-160-pixels/deit' "
        "--only '*/resolution/*'",
    ),
    "final": _Stage(
        title="What ships, and the same at 160 pixels",
        meaning="The trainings of what ships, at 224 pixels, each compared with the same one at 160; the ensemble "
        "that taught DermaDeiT was trained anew in between.",
        command="python train/programme.py --stage ensemble --stage diagnoses --stage final "
        "--stage diagnoses-at-160-pixels --stage at-160-pixels",
    ),
}
"""Name of a stage in train/programme.yaml to what it compares, and what runs it."""


def stages_html(benchmark: Path) -> str:
    """The tables of every stage for every task, or how to make those that are not there.

    Args:
        benchmark: Folder that holds `<task>/<stage>.json`, as `train/programme_report.py` writes them.
    """
    return "".join(_stage(benchmark, stage) for stage in _STAGES)


def _stage(benchmark: Path, stage: str) -> str:
    title, meaning, command = _STAGES[stage]
    tables = [_table(title, task, _read(benchmark / task.key / f"{stage}.json")) for task in TASKS.values()]
    content = "".join(tables) or (
        "<p>This has not been run yet. These commands run it and fill this place:</p>"
        + command_html(command, f"python train/programme_report.py --stage {stage}")
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
    names, cells = stage_table(trainings)
    header = [capitalised(name) for name in (*names, STAGE_DIFFERENCE)]
    rows = [
        [*map(escape, row), _difference(training)] for row, training in zip(cells, trainings, strict=True)
    ]
    images, views = trainings[0]["figures"]["n"], trainings[0]["views"]
    caption = f"{task.title}: {images:,} images of the {report['split']} split, {views} views an image"
    # Stages have tables of the same images: a name that two regions share tells a screen reader nothing.
    table = table_html(f"{title}. {caption}", header, rows, titled=False)
    return f"<h4>{escape(caption)}</h4>{table}"


def _difference(training: Mapping[str, Any]) -> str:
    difference = stage_difference(training)
    if difference is None:
        return "–"
    text = difference_text(difference).strip("*")
    shown = f"<strong>{text}</strong>" if difference.excludes_zero else text
    return f"{shown} <span>to {escape(str(training['compared_with']))}</span>"


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
