"""The figures of the published comparison as Markdown: all of them in docs/results.md, the main ones in README.

`models.json` in the benchmark gives each model's row its place, and may give it a `title` (else that of
`MODEL_SPECS`) and a `note`. A model with a `command` and no predictions is shown as not run, with what runs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dermadeit.evaluation.comparison import Difference
from dermadeit.files import read_json, write_json
from dermadeit.inference.predictor import DEFAULT_VIEWS
from dermadeit.metrics.classification import HEADLINE_FIGURES
from dermadeit.models.specs import OURS, model_name
from dermadeit.publishing.benchmark import (
    BENCHMARK_ROOT,
    ENSEMBLE_CAPTION,
    ENSEMBLE_TITLE,
    LEAKAGE_TEST,
    LEAKAGE_TEST_OF_0_2,
    METRICS_FILE,
    filed_tasks,
    measure_benchmark,
)
from dermadeit.reporting.format import NOTHING, count, counted, p_value
from dermadeit.reporting.markdown import (
    around_marks,
    difference_text,
    figure_text,
    markdown_table,
    marks,
    write_between_marks,
)
from dermadeit.tasks import Task

PLACE = "benchmark"
START, END = marks(PLACE)
SUMMARY_PLACE = "summary"
SUMMARY_START, SUMMARY_END = marks(SUMMARY_PLACE)

MODELS_FILE = "models.json"

_CAPTION = (
    f"An answer is the mean of the logits of {DEFAULT_VIEWS} views, unless the row gives another number. "
    "In brackets: "
    "95 % intervals from resampled lesions."
)
_COMPARISON_CAPTION = (
    "{ours} minus each other model, on the same resamples. Bold: the interval excludes 0. McNemar's test "
    "compares the errors, DeLong's test the AUROC of `{target}`. Both assume independent images; the "
    "intervals do not. Their p-values are adjusted for {count} (Holm)."
)
_LEAKAGE_CAPTION = (
    "Leakage test: one recipe on a split by lesion and on a split by image, where other images of test "
    "lesions are in train. Each is tested on the test images of its own split."
)


_SUMMARY_FIGURES = {
    "diagnosis": {"accuracy": "accuracy"},
    "malignancy": {"roc_auc": "AUROC"},
    "binary": {"accuracy": "accuracy", "roc_auc": "AUROC"},
    "multiclass": {"accuracy": "accuracy", "roc_auc": "AUROC"},
}
"""The figures of each task that the short table shows, by their names in `metrics.json`."""


def write_benchmark_tables(results: Path, readme: Path, root: Path = BENCHMARK_ROOT) -> None:
    """Computes `metrics.json` of every task from the predictions, and the tables in two Markdown files from those.

    Args:
        results: The file with all tables; what lies between the marks of `PLACE` in it is replaced.
        readme: The file with the short table, between the marks of `SUMMARY_PLACE`.
        root: The benchmark.

    Raises:
        ResultFileError: A file of the benchmark is missing or contradicts the others.
        ConfigurationError: A Markdown file has no place for its tables.
    """
    # Before the figures are computed, so that a file without its marks costs nothing.
    for document, place in ((results, PLACE), (readme, SUMMARY_PLACE)):
        around_marks(document, place)
    for task in filed_tasks(root):
        write_json(root / task.key / METRICS_FILE, measure_benchmark(root, task))
    write_between_marks(results, PLACE, render_tables(root))
    write_between_marks(readme, SUMMARY_PLACE, render_summary(root))


def render_summary(root: Path = BENCHMARK_ROOT) -> str:
    """One Markdown table of all tasks, of ours and the models that a command of ours trains."""
    models = read_json(root / MODELS_FILE)
    tasks = filed_tasks(root)
    metrics = [read_json(root / task.key / METRICS_FILE) for task in tasks]
    header = ["model"]
    for task, measured in zip(tasks, metrics, strict=True):
        first, *others = _SUMMARY_FIGURES[task.key].values()
        header += [f"{task.title} ({counted(measured['images'], 'image')}): {first}", *others]
    rows = [
        [
            published_title(model, models),
            *(
                figure_text(get_figures_of_most_views(measured["models"][model]), name)
                if model in measured["models"]
                else NOTHING
                for task, measured in zip(tasks, metrics, strict=True)
                for name in _SUMMARY_FIGURES[task.key]
            ),
        ]
        for model, entry in models.items()
        if (model == OURS or "command" in entry) and any(model in measured["models"] for measured in metrics)
    ]
    return markdown_table(header, rows)


def render_tables(root: Path = BENCHMARK_ROOT) -> str:
    """The tables of every task as Markdown, from its `metrics.json` and `models.json`."""
    models = read_json(root / MODELS_FILE)
    return "\n".join(
        _render_task(task, read_json(root / task.key / METRICS_FILE), models) for task in filed_tasks(root)
    )


def _render_task(task: Task, metrics: Mapping[str, Any], models: Mapping[str, Any]) -> str:
    ours, target = published_title(OURS, models), task.target
    size = f"{counted(metrics['images'], 'test image')} of {counted(metrics['lesions'], 'lesion')}"
    caption = " ".join(
        [
            f"{size}: {_class_counts(task, metrics)}.",
            _CAPTION,
            *([ENSEMBLE_CAPTION] if metrics["ensemble"] else []),
        ]
    )
    parts = [f"### {task.title}", caption, _model_table(task, metrics, models)]
    if OURS in metrics["models"]:
        caption = f"{ours} by source, and by number of views:"
        parts += [caption, _source_table(metrics)]
    if metrics["comparisons"]:
        compared = counted(len(metrics["comparisons"]), "comparison")
        caption = _COMPARISON_CAPTION.format(ours=ours, target=target, count=compared)
        parts += [caption, _comparison_table(metrics, models)]
    if _leakage_test(metrics)["image"]:
        parts += [_LEAKAGE_CAPTION, _leakage_table(metrics, models)]
    return "\n\n".join(parts) + "\n"


def _class_counts(task: Task, metrics: Mapping[str, Any]) -> str:
    """How many images each class has, which all models share."""
    matrix = get_figures_of_most_views(next(iter(metrics["models"].values())))["confusion_matrix"]
    return ", ".join(
        f"{task.name_in_text(key)} {count(sum(row))}"
        for key, row in zip(matrix["classes"], matrix["counts"], strict=True)
    )


def _model_table(task: Task, metrics: Mapping[str, Any], models: Mapping[str, Any]) -> str:
    rows = [
        [
            _row_title(model, metrics["models"][model], models),
            *_cells(get_figures_of_most_views(metrics["models"][model])),
        ]
        for model in in_order(metrics["models"], models)
    ]
    if metrics["ensemble"]:
        rows.append([ENSEMBLE_TITLE, *_cells(metrics["ensemble"])])
    nothing = [""] * (len(HEADLINE_FIGURES) - 1)
    rows += [
        [published_title(model, models), f"not run: `{entry['command'].format(task=task.key)}`", *nothing]
        for model, entry in models.items()
        if "command" in entry and model not in metrics["models"]
    ]
    return markdown_table(["model", *HEADLINE_FIGURES.values()], rows)


def _source_table(metrics: Mapping[str, Any]) -> str:
    by_views = metrics["models"][OURS]["views"]
    rows = [
        [f"all, {_views(int(views))}", count(part["n"]), *_cells(part)] for views, part in by_views.items()
    ]
    rows += [
        [source, count(part["n"]), *_cells(part)]
        for source, part in get_figures_of_most_views(metrics["models"][OURS])["sources"].items()
    ]
    return markdown_table(["source", "images", *HEADLINE_FIGURES.values()], rows)


def _comparison_table(metrics: Mapping[str, Any], models: Mapping[str, Any]) -> str:
    rows = []
    for model in in_order(metrics["comparisons"], models):
        comparison = metrics["comparisons"][model]
        ours, theirs = comparison["views"]
        compared = "" if ours == theirs == DEFAULT_VIEWS else f" ({_views(ours)} against {_views(theirs)})"
        rows.append(
            [
                published_title(model, models) + compared,
                *(
                    difference_text(Difference(**comparison["differences"][name]))
                    for name in HEADLINE_FIGURES
                ),
                *(_p_value(comparison[test]) for test in ("mcnemar", "delong")),
            ]
        )
    return markdown_table(["minus", *HEADLINE_FIGURES.values(), "McNemar p", "DeLong p"], rows)


def _leakage_test(metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    return metrics[LEAKAGE_TEST if LEAKAGE_TEST in metrics else LEAKAGE_TEST_OF_0_2]


def _leakage_table(metrics: Mapping[str, Any], models: Mapping[str, Any]) -> str:
    arms = _leakage_test(metrics)
    leaking, partners = arms["image"], arms["lesion"] or metrics
    rows = []
    for model in in_order(leaking["models"], models):
        for split, part in (("lesion", partners), ("image", leaking)):
            if model in part["models"]:
                figures = part["models"][model]
                rows.append(
                    [
                        _row_title(model, figures, models),
                        f"by {split}",
                        count(part["images"]),
                        *_cells(get_figures_of_most_views(figures)),
                    ]
                )
    return markdown_table(["model", "split", "images", *HEADLINE_FIGURES.values()], rows)


def in_order(present: Iterable[str], models: Mapping[str, Any]) -> list[str]:
    """Names of models in the order of `models.json`, those that it does not know behind."""
    known = set(present)
    return [model for model in models if model in known] + sorted(known - models.keys())


def published_title(model: str, models: Mapping[str, Any]) -> str:
    """What a model is called in the benchmark: its title in `models.json`, else its usual one."""
    return models.get(model, {}).get("title") or model_name(model)


def _row_title(model: str, figures: Mapping[str, Any], models: Mapping[str, Any]) -> str:
    views = max(map(int, figures["views"]))
    notes = [note] if (note := models.get(model, {}).get("note")) else []
    notes += [_views(views)] if views != DEFAULT_VIEWS else []
    return published_title(model, models) + (f" ({', '.join(notes)})" if notes else "")


def get_figures_of_most_views(figures: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of a model's entry in `metrics.json`, the figures with the most views."""
    return figures["views"][str(max(map(int, figures["views"])))]


def _cells(figures: Mapping[str, Any]) -> list[str]:
    return [figure_text(figures, name) for name in HEADLINE_FIGURES]


def _p_value(test: Mapping[str, Any] | None) -> str:
    return p_value(None if test is None else test["p_value_holm"])


def _views(number: int) -> str:
    return counted(number, "view")
