"""A batch's progress, figures, subgroups and failures as HTML."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from matplotlib.figure import Figure

from dermadeit.data.labelling import LeftOut
from dermadeit.evaluation.batch import BatchResult, Progress
from dermadeit.evaluation.predictions import SMALLEST_SLICE
from dermadeit.evaluation.slices import SLICED_BY
from dermadeit.inference.records import Evaluation
from dermadeit.inference.zoo import ZooEntry
from dermadeit.metrics.classification import FIGURE_NAMES, FIGURES, INTERVAL_METHOD, TARGET_FIGURE_NAMES
from dermadeit.reporting.drawing import inline_svg, model_title
from dermadeit.reporting.figures import slice_figure
from dermadeit.reporting.format import count, counted, percent
from dermadeit.reporting.names import (
    ABSTENTION_FIGURES,
    RISK_AREA,
    SET_FIGURES,
    STABILITY_FIGURES,
    capitalised,
    interval_warnings,
)
from dermadeit.reporting.templates import render
from dermadeit.trust.calibration import OPERATING_POINTS, operating_point_title

_MOST_ROWS = 200
"""Failures that are listed on the page; the download has them all."""

_SHOWN_FILES = 3

_SUBGROUP_FIGURES = ("accuracy", "balanced_accuracy", "f1_macro", "roc_auc")


def progress_html(progress: Progress) -> str:
    """A bar and a line: how far the batch is, how fast it goes, and how long it will take."""
    share = progress.done / progress.total if progress.total else 1
    return render("views/batch/progress.html", progress=progress, share=share)


def missing_models_html(entries: Sequence[ZooEntry]) -> str:
    """The models that can't be chosen, with the reason and the command that makes each."""
    missing = [entry for entry in entries if not entry.available]
    return render("views/batch/missing_models.html", missing=missing)


def overview_html(result: BatchResult) -> str:
    """What was read, what was not, and what had to be assumed."""
    read, failed = result.read(result.models[0]), result.failed(result.models[0])
    facts = [("Task", result.task.title), ("Images read", count(len(read)))]
    if result.labelled:
        labels = Counter(item.image.label for item, _ in read)
        parts = (f"{result.task.display_names[key]} {count(labels[key])}" for key in result.task.classes)
        facts.append(("True classes", ", ".join(parts)))
    facts += [
        ("Not read", count(len(failed))),
        ("Left out", count(len(result.left_out) + result.missing)),
        ("Views", views_of(result)),
    ]
    notes = list(result.notes)
    if result.missing:
        notes.append(
            f"Cancelled: {counted(result.missing, 'image')} not read. The results are about the others."
        )
    if result.task.caveat:
        notes.append(result.task.caveat)
    return render("views/batch/overview.html", facts=facts, notes=notes)


def views_of(result: BatchResult) -> str:
    """How many views were averaged, of each model where they differ."""
    if len(set(result.views.values())) == 1:
        return str(result.views[result.models[0]])
    return ", ".join(f"{model_title(model)} {views}" for model, views in result.views.items())


def figures_html(evaluations: Sequence[Evaluation]) -> str:
    """Every figure with its interval, one column a model."""
    measured = [evaluation.metrics for evaluation in evaluations]
    return render(
        "views/batch/figures.html",
        header=["Figure", *(model_title(evaluation.model) for evaluation in evaluations)],
        names=[(key, figure_name(key)) for key in FIGURES],
        measured=measured,
        interval_method=INTERVAL_METHOD,
        warnings=interval_warnings(measured),
        is_unfinished=any(metrics.get("unfinished") and "intervals" not in metrics for metrics in measured),
    )


def curves_html(figures: Iterable[Figure]) -> str:
    """Drawings side by side."""
    return render("views/batch/curves.html", drawings=map(inline_svg, figures))


def trust_html(evaluation: Evaluation) -> str:
    """How good operating points, sets, withheld answers and views are."""
    metrics = evaluation.metrics
    figures = []
    if risk_coverage := metrics.get("risk_coverage"):
        figures.append((RISK_AREA, risk_coverage["aurc"]))
    if stability := metrics.get("stability"):
        figures += [(STABILITY_FIGURES[key], stability[key]) for key in ("flip_rate", "images_with_flips")]
    calibrated = ((metrics.get("calibration") or {}).get("after") or {}).get("ece_debiased")
    if calibrated:
        figures.append((FIGURE_NAMES["ece_debiased"], calibrated))
    if conformal := metrics.get("conformal"):
        every, target = conformal["classes"]["all"], percent(conformal["nominal_coverage"], 0)
        figures.append((f"{SET_FIGURES['lesion_coverage']} (target: {target})", every["lesion_coverage"]))
        figures.append((SET_FIGURES["mean_size"], every["mean_size"]))
    if abstention := metrics.get("abstention"):
        # Tables of version 0.1 have no warnings.
        figures += [(name, abstention[key]) for key, name in ABSTENTION_FIGURES.items() if key in abstention]
    points = metrics.get("operating_points")
    return render(
        "views/batch/uncertainty.html",
        figures=[(capitalised(name), measured) for name, measured in figures],
        header=["Operating point", "Threshold", *map(figure_name, TARGET_FIGURE_NAMES)],
        points=[
            (capitalised(operating_point_title(name)), points[name]) for name in OPERATING_POINTS if points
        ],
        point_figures=TARGET_FIGURE_NAMES,
        is_unfinished=bool(metrics.get("unfinished")),
        is_calibrated=bool(conformal),
    )


def slices_html(evaluation: Evaluation) -> str:
    """The headline figures of every part of the images that has enough of them."""
    parts = evaluation.metrics.get("slices")
    if not parts:
        sources = evaluation.metrics.get("sources") or {}
        parts = {"source": {"slices": sources, "too_few": {}, "caveat": None}} if sources else {}
    rows, too_few, caveats = [], [], []
    for attribute, part in parts.items():
        name, known = SLICED_BY[attribute], part["slices"]
        rows += [
            (name.capitalize(), value, figures, f"part {attribute}:{value}")
            for value, figures in known.items()
        ]
        too_few += [(name, value, images) for value, images in part["too_few"].items()]
        if known and part["caveat"]:
            caveats.append(part["caveat"])
    return render(
        "views/batch/subgroups.html",
        header=["Subgroup", "Value", "Images", *map(figure_name, _SUBGROUP_FIGURES)],
        rows=rows,
        forest=inline_svg(slice_figure(parts)) if rows else "",
        shown=_SUBGROUP_FIGURES,
        caveats=caveats,
        too_few=too_few,
        smallest=SMALLEST_SLICE,
        is_unfinished=bool(evaluation.metrics.get("unfinished")),
    )


def failures_html(result: BatchResult) -> str:
    """What got no answer, and why, with what to do about it."""
    models_of: dict[tuple[str, str], list[str]] = defaultdict(list)
    for model in result.models:
        for item, record in result.failed(model):
            models_of[item.image.file, record.message].append(model_title(model))
    failures = [
        # A file that can't be read is the same to every model.
        (file, "all" if len(who) == len(result.models) else ", ".join(who), reason)
        for (file, reason), who in models_of.items()
    ]
    return render(
        "views/batch/failures.html",
        failures=failures[:_MOST_ROWS],
        more=len(failures) - _MOST_ROWS,
        left_out=_left_out(result.left_out),
    )


def _left_out(left_out: Sequence[LeftOut]) -> list[tuple[str, str, str]]:
    """What was not even tried, by reason: a CSV of another task may leave out thousands."""
    files_of: dict[str, list[str]] = defaultdict(list)
    for item in left_out:
        files_of[item.reason].append(item.file)
    return [
        (
            capitalised(reason),
            count(len(files)),
            ", ".join(files[:_SHOWN_FILES]) + (" …" if len(files) > _SHOWN_FILES else ""),
        )
        for reason, files in files_of.items()
    ]


def figure_name(name: str) -> str:
    """A figure's name for people, also of those that only a threshold has."""
    return capitalised(FIGURE_NAMES.get(name) or TARGET_FIGURE_NAMES.get(name, name))
