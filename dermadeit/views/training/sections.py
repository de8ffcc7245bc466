"""HTML of one model's trainings: curves, settings, data, and what its checkpoints call what on test."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from dermadeit.errors import ResultFileError, TableError
from dermadeit.files import read_json_if_there
from dermadeit.models.checkpoints import training_command
from dermadeit.models.specs import get_spec
from dermadeit.publishing.benchmark import FiledModels, read_benchmark
from dermadeit.reporting.figures import alt_text, confusion_figure, inline_svg, training_curves
from dermadeit.reporting.format import any_value, counted
from dermadeit.reporting.markdown import (
    STAGE_DIFFERENCE,
    difference_text,
    stage_difference,
    stage_table,
    words,
)
from dermadeit.reporting.names import capitalised, teacher_networks
from dermadeit.tasks import TASKS, Task
from dermadeit.views.page.html import table_html
from dermadeit.views.training.record import TrainingRecord, read_record


def model_html(model: str, checkpoints: Path, benchmark: Path) -> str:
    """A model's trainings, a card a task.

    Args:
        model: Key of `MODEL_SPECS`.
        checkpoints: Folder that holds `<task>/<model>/`.
        benchmark: Folder that holds the published predictions of each task.
    """
    cards = "".join(
        _task_card(task, model, read_record(task.key, model, checkpoints), benchmark)
        for task in TASKS.values()
    )
    return f'<div class="dd-trainings">{cards}</div>'


def figure_html(figure: Figure) -> str:
    """A figure that scrolls by itself where its text would become too small to read."""
    name = escape(alt_text(figure).split(".")[0])
    return (
        f'<div class="dd-scroll dd-drawing" role="group" aria-label="{name}" tabindex="0">'
        f"{inline_svg(figure)}</div>"
    )


def command_html(*commands: str) -> str:
    """Commands to copy, one a line."""
    return f'<pre class="dd-command" tabindex="0"><code>{escape(chr(10).join(commands))}</code></pre>'


def _task_card(task: Task, model: str, record: TrainingRecord | None, benchmark: Path) -> str:
    title = f"<h3>{escape(task.title)}</h3>"
    if record is None:
        return f"""
<section class="dd-card dd-training">{title}
  <p>{escape(get_spec(model).title)} has not been trained for this task. This command trains it:</p>
  {command_html(training_command(task.key, model))}
</section>"""
    return f"""
<section class="dd-card dd-training">{title}
  {_facts(record)}
  <h4>Curves</h4>
  {figure_html(training_curves(record.training))}
  {_settings(record)}
  <h4>Training images</h4>
  {_data(task, record)}
  <h4>Confusion matrix on the test split</h4>
  {_confusion(task, record, benchmark)}
</section>"""


def _facts(record: TrainingRecord) -> str:
    training, settings = record.training, record.settings
    size = record.config.get("pretrained_cfg", {}).get("input_size", [3, 0, 0])
    facts = {
        "Network": f"{record.config.get('architecture', 'unknown')}, {size[1]} × {size[2]} px",
        "Started from": settings.get("init"),
        "Teacher": teacher_networks(str(settings.get("teacher") or "")),
        "Chosen": _chosen(training),
        "Trained on": ", ".join(
            str(training.get("environment", {}).get(key)) for key in ("device", "precision", "torch")
            if training.get("environment", {}).get(key)
        ),
        "Weights": record.weights_sha256 and record.weights_sha256[:12],
    }  # fmt: skip
    items = "".join(
        f"<div><dt>{name}</dt><dd>{escape(str(value))}</dd></div>" for name, value in facts.items() if value
    )
    return f'<dl class="dd-facts">{items}</dl>'


def _chosen(training: Mapping[str, Any]) -> str:
    if "best_epoch" not in training:
        return ""
    by = words(str(training.get("selection_metric", "a figure")))
    return f"epoch {training['best_epoch']} of {len(training.get('curves', ()))}, by {by} on validation"


def _settings(record: TrainingRecord) -> str:
    if not record.settings:
        return '<p class="dd-quiet">The settings were not recorded.</p>'
    rows = [
        [f"<code>{escape(name)}</code>", _value(changed.get("value")), _value(changed.get("default", "–"))]
        for name, changed in record.changed_settings.items()
    ]
    if not rows:
        return '<p class="dd-quiet">All of its settings are the defaults.</p>'
    of_all = f"{len(rows)} of {len(record.settings)} settings differ from the defaults"
    summary = of_all if "changed_settings" in record.training else f"{len(rows)} settings"
    table = table_html(f"Settings, {record.task}", ["Setting", "Value", "Default"], rows, titled=False)
    return f"<details><summary>{summary}</summary>{table}</details>"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return escape(any_value(value)) or "–"


def _data(task: Task, record: TrainingRecord) -> str:
    splits = record.training.get("data") or {}
    if not splits:
        return '<p class="dd-quiet">They were not recorded.</p>'
    columns = list(dict.fromkeys(key for counts in splits.values() for key in counts))
    rows = [
        [escape(str(split).capitalize()), *(escape(any_value(counts.get(key))) for key in columns)]
        for split, counts in splits.items()
    ]
    names = [task.display_names.get(key, key.capitalize()) for key in columns]
    return table_html(f"Images by split, {task.title}", ["Split", *names], rows, titled=False)


def _confusion(task: Task, record: TrainingRecord, benchmark: Path) -> str:
    try:
        filed = read_benchmark(benchmark / task.key, task)
    except (TableError, ResultFileError) as error:
        return f'<p class="dd-quiet">{escape(error.user_message)}</p>'
    if record.model not in filed.models:
        folder = f"runs/{task.key}/{record.model}"
        return "<p>It has not been evaluated on the test split. These commands do it:</p>" + command_html(
            f"python -m dermadeit evaluate data/manifest.csv --split test --task {task.key} "
            f"--model {folder} --output {folder}/test",
            f"python -m dermadeit benchmark add {folder}/test",
        )
    by_views = filed.models[record.model]
    views = max(by_views)
    predictions = by_views[views]
    figures = "".join(
        f"<div>{inline_svg(confusion_figure(predictions, normalised))}</div>" for normalised in (False, True)
    )
    return f"""
<p class="dd-quiet">{len(predictions):,} images; the most probable class, from the mean of {views} views.
{_other_weights(filed, record)}</p>
<div class="dd-matrices">{figures}</div>"""


def _other_weights(filed: FiledModels, record: TrainingRecord) -> str:
    of = filed.weights_sha256.get(record.model)
    return (
        ""
        if of in (None, record.weights_sha256)
        else "<strong>These figures belong to other weights.</strong>"
    )


class _Stage(NamedTuple):
    title: str
    meaning: str
    command: str


_STAGES: Mapping[str, _Stage] = {
    "ablations": _Stage(
        title="From the original to ours",
        meaning="Each training has all changes of the row above, and one more.",
        command="python -m train.programme --stage teachers --stage ablations",
    ),
    "three-way": _Stage(
        title="With and without a teacher",
        meaning=(
            "The same short training without a teacher, with its embeddings, and with its soft logits "
            "too. In the last row the class token learns the soft logits, without a token of their own. "
            "Figures are means over seeds. There are few seeds, so the intervals are too narrow."
        ),
        command="python -m train.programme --stage teachers --stage three-way",
    ),
    "resolution": _Stage(
        title="Higher resolution",
        meaning=(
            "The last epochs of a DeiT trained at 160 pixels, at this resolution and at a higher one. "
            "Repeated with other seeds, always from the same start."
        ),
        command="python -m train.programme --only diagnosis-at-160-pixels/deit --only '*/at-160-pixels/deit' "
        "--only '*/resolution/*'",
    ),
    "final": _Stage(
        title="Models of this app, and the same at 160 pixels",
        meaning=(
            "The models of this app, trained at 224 pixels, each compared with the same model at 160 "
            "pixels. The teacher ensemble of DermaDeiT was trained again in between."
        ),
        command="python -m train.programme --stage ensemble --stage diagnoses --stage final "
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
    tables = [
        _table(title, task, read_json_if_there(benchmark / task.key / f"{stage}.json"))
        for task in TASKS.values()
    ]
    content = "".join(tables) or (
        "<p>This has not been run yet. These commands run it:</p>"
        + command_html(command, f"python -m train.programme_report --stage {stage}")
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
    shown = (
        f"{counted(images, 'image')} of the {report['split']} split, {counted(views, 'view')} of each image"
    )
    caption = f"{task.title}: {shown}"
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
