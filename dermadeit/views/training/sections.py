"""One model's trainings as HTML: curves, settings, data, and what its checkpoints call what on test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dermadeit.errors import ResultFileError, TableError
from dermadeit.files import read_json_if_there
from dermadeit.models.checkpoints import training_command
from dermadeit.models.specs import get_spec
from dermadeit.publishing.benchmark import read_benchmark
from dermadeit.reporting.figures import alt_text, confusion_figure, inline_svg, training_curves
from dermadeit.reporting.format import NOTHING, any_value, counted
from dermadeit.reporting.markdown import (
    STAGE_DIFFERENCE,
    stage_difference,
    stage_table,
    words,
)
from dermadeit.reporting.names import capitalised, teacher_networks
from dermadeit.reporting.templates import render
from dermadeit.tasks import DIAGNOSIS, TASKS, Task, get_task, readable_tasks
from dermadeit.views.training.record import TrainingRecord, read_records


def model_html(model: str, checkpoints: Path, benchmark: Path) -> str:
    """The trainings of a shipped model, a card a network; a checkpoint of one's own brings no tasks here.

    Args:
        model: Key of `MODEL_SPECS`.
        checkpoints: Folder that holds `<model>/`, or `<task>/<model>/` for each task.
        benchmark: Folder that holds the published predictions of each task.
    """
    return render(
        "views/training/trainings.html",
        title=get_spec(model).title,
        cards=[_card(record, benchmark) for record in read_records(model, checkpoints)],
        command=training_command(DIAGNOSIS.key, model),
    )


def _card(record: TrainingRecord, benchmark: Path) -> dict[str, Any]:
    task = get_task(record.task)
    curves = training_curves(record.training)
    splits = record.training.get("data") or {}
    columns = list(dict.fromkeys(key for counts in splits.values() for key in counts))
    return {
        "task": task,
        "record": record,
        "facts": _facts(record),
        "curves": inline_svg(curves),
        "curves_name": alt_text(curves).split(".")[0],
        "settings": [
            (name, changed.get("value"), changed.get("default", NOTHING))
            for name, changed in record.changed_settings.items()
        ],
        "split_columns": [task.display_names.get(key, key.capitalize()) for key in columns],
        "splits": [
            [str(split).capitalize(), *(any_value(counts.get(key)) for key in columns)]
            for split, counts in splits.items()
        ],
        "readings": [
            {"title": reading.title, **_confusion(reading, record, benchmark)}
            for reading in readable_tasks(task)
        ],
    }


def _facts(record: TrainingRecord) -> list[tuple[str, Any]]:
    training, settings = record.training, record.settings
    size = record.config.get("pretrained_cfg", {}).get("input_size", [3, 0, 0])
    environment = training.get("environment", {})
    used = (str(environment[key]) for key in ("device", "precision", "torch") if environment.get(key))
    facts = [
        ("Network", f"{record.config.get('architecture', 'unknown')}, {size[1]} × {size[2]} px"),
        ("Started from", settings.get("init")),
        ("Earlier stages", _stages(training)),
        ("Teacher", teacher_networks(str(settings.get("teacher") or ""))),
        ("Chosen", _chosen(training)),
        ("Trained on", ", ".join(used)),
        ("Weights", record.weights_sha256 and record.weights_sha256[:12]),
    ]
    return [(name, value) for name, value in facts if value]


def _stages(training: Mapping[str, Any]) -> str:
    earlier = [stage.get("configuration", {}) for stage in training.get("earlier_stages") or []]
    return "; ".join(
        f"{stage.get('epochs')} epochs at {stage.get('image_size')} px, from {stage.get('init')}"
        for stage in earlier
    )


def _chosen(training: Mapping[str, Any]) -> str:
    if "best_epoch" not in training:
        return ""
    if training.get("kept_epoch") == "last":
        return f"epoch {training['best_epoch']}, the last, as fixed in advance"
    by = words(str(training.get("selection_metric", "a figure")))
    return f"epoch {training['best_epoch']} of {len(training.get('curves', ()))}, by {by} on validation"


def _confusion(task: Task, record: TrainingRecord, benchmark: Path) -> dict[str, Any]:
    """The matrices, or why there are none (`message`), or what makes them (`commands`)."""
    shown: dict[str, Any] = {"message": "", "commands": []}
    try:
        filed = read_benchmark(benchmark / task.key, task)
    except (TableError, ResultFileError) as error:
        return {**shown, "message": error.user_message}
    if record.model not in filed.models:
        folder = f"runs/{record.task}/{record.model}"
        evaluate = (
            f"python -m dermadeit evaluate data/manifest.csv --split test --task {record.task} "
            f"--model {folder} --output {folder}/test"
        )
        return {**shown, "commands": [evaluate, f"python -m dermadeit benchmark add {folder}/test"]}
    by_views = filed.models[record.model]
    views = max(by_views)
    predictions = by_views[views]
    return {
        **shown,
        "images": len(predictions),
        "views": views,
        "is_of_other_weights": filed.weights_sha256.get(record.model) not in (None, record.weights_sha256),
        "matrices": [inline_svg(confusion_figure(predictions, normalised)) for normalised in (False, True)],
    }


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
    "at-224-pixels": _Stage(
        title="Models of version 0.2, and the same at 160 pixels",
        meaning=(
            "The models of version 0.2, trained at 224 pixels, each compared with the same model at 160 "
            "pixels. The teacher ensemble of DermaDeiT was trained again in between."
        ),
        command="python -m train.programme --stage ensemble --stage diagnoses --stage at-224-pixels "
        "--stage diagnoses-at-160-pixels --stage at-160-pixels",
    ),
}
"""Name of a stage in train/programme.yaml to what it compares, and what runs it."""


def stages_html(benchmark: Path) -> str:
    """The tables of every stage for every task, or how to make those that are not there.

    Args:
        benchmark: Folder that holds `<task>/<stage>.json`, as `train/programme_report.py` writes them.
    """
    return render(
        "views/training/stages.html",
        stages=[
            {
                "title": stage.title,
                "meaning": stage.meaning,
                "commands": [stage.command, f"python -m train.programme_report --stage {key}"],
                "tables": [
                    _stage_table(task, report)
                    for task in TASKS.values()
                    if (report := read_json_if_there(benchmark / task.key / f"{key}.json")).get("trainings")
                ],
            }
            for key, stage in _STAGES.items()
        ],
    )


def _stage_table(task: Task, report: Mapping[str, Any]) -> dict[str, Any]:
    trainings = report["trainings"]
    names, cells = stage_table(trainings)
    images, views = trainings[0]["figures"]["n"], trainings[0]["views"]
    return {
        "caption": (
            f"{task.title}: {counted(images, 'image')} of the {report['split']} split, "
            f"{counted(views, 'view')} of each image"
        ),
        "header": [capitalised(name) for name in (*names, STAGE_DIFFERENCE)],
        "rows": [
            (row, stage_difference(training), training.get("compared_with"))
            for row, training in zip(cells, trainings, strict=True)
        ],
    }
