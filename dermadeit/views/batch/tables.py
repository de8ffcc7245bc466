"""HTML of a batch's figures, slices and failures. Everything from outside is escaped here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from dermadeit.data.labelling import LeftOut
from dermadeit.evaluation.batch import BatchResult, Progress
from dermadeit.evaluation.predictions import SMALLEST_SLICE
from dermadeit.evaluation.slices import SLICED_BY
from dermadeit.inference.records import Evaluation
from dermadeit.inference.zoo import ZooEntry
from dermadeit.metrics.classification import FIGURE_NAMES, FIGURES, INTERVAL_METHOD, TARGET_FIGURE_NAMES
from dermadeit.reporting.drawing import model_title
from dermadeit.reporting.format import counted
from dermadeit.reporting.names import capitalised
from dermadeit.tasks import get_task
from dermadeit.trust.calibration import OPERATING_POINTS, operating_point_title
from dermadeit.views.page.html import table_html

_MOST_ROWS = 200
"""Failures that are listed on the page; the download has them all."""

_SHOWN_FILES = 3

_UNMEASURED = '<p class="dd-quiet">What is missing was not measured, because you cancelled.</p>'


def progress_html(progress: Progress | None, text: str = "") -> str:
    """A bar and a line: how far the batch is, how fast it goes, and how long it will take."""
    if progress is None:
        return ""
    share = progress.done / progress.total if progress.total else 1
    words = [f"{progress.done:,} of {progress.total:,} images"]
    if progress.images_per_second:
        words.append(f"{progress.images_per_second:.1f} images/s")
    if progress.seconds_left and progress.done < progress.total:
        words.append(f"about {duration(progress.seconds_left)} left")
    line = text or ", ".join(words)
    return f"""
<div class="dd-progress">
  <progress max="1" value="{share:.4f}" aria-label="Images read">{share:.0%}</progress>
  <p class="dd-quiet">{escape(line)}</p>
</div>"""


def duration(seconds: float) -> str:
    """Seconds as “40 s” or “3 min 20 s”, rounded so that it does not flicker."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(round(whole / 10) * 10, 60)
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def missing_models_html(entries: Sequence[ZooEntry]) -> str:
    """The models that can't be chosen, with the reason and the command that makes each."""
    missing = [entry for entry in entries if not entry.available]
    if not missing:
        return ""
    rows = "".join(f"<dt>{escape(entry.title)}</dt><dd>{escape(entry.missing)}</dd>" for entry in missing)
    return f"""
<details class="dd-missing">
  <summary>Models without a checkpoint here: {len(missing)}</summary>
  <dl>{rows}</dl>
</details>"""


def overview_html(result: BatchResult) -> str:
    """What was read, what was not, and what had to be assumed."""
    read, failed = len(result.read(result.models[0])), len(result.failed(result.models[0]))
    facts = [("Task", get_task(result.task.key).title), ("Images read", f"{read:,}")]
    if result.labelled:
        counts = dict.fromkeys(result.task.classes, 0)
        for item, _ in result.read(result.models[0]):
            counts[item.image.label] += 1
        parts = ", ".join(f"{result.task.display_names[key]} {count:,}" for key, count in counts.items())
        facts.append(("True classes", parts))
    facts += [("Not read", f"{failed:,}"), ("Left out", f"{len(result.left_out) + result.missing:,}")]
    facts.append(("Views", views_of(result)))
    rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    notes = list(result.notes)
    if result.missing:
        notes.append(
            f"Cancelled: {counted(result.missing, 'image')} not read. The results are about the others."
        )
    if result.task.caveat:
        notes.append(result.task.caveat)
    lines = "".join(f"<li>{escape(note)}</li>" for note in notes)
    shown = f'<div class="dd-warnings"><strong>Please note</strong><ul>{lines}</ul></div>' if lines else ""
    return f'<dl class="dd-facts dd-batch-facts">{rows}</dl>{shown}'


def views_of(result: BatchResult) -> str:
    """How many views were averaged, of each model where they differ."""
    if len(set(result.views.values())) == 1:
        return str(result.views[result.models[0]])
    return ", ".join(f"{model_title(model)} {views}" for model, views in result.views.items())


def figures_html(evaluations: Sequence[Evaluation]) -> str:
    """Every figure with its interval, one column a model."""
    header = ["Figure", *(model_title(evaluation.model) for evaluation in evaluations)]
    rows = [
        [escape(figure_name(name)), *(_figure(evaluation.metrics, name) for evaluation in evaluations)]
        for name in FIGURES
    ]
    note = (
        f"In brackets: {INTERVAL_METHOD}. These figures are about the most probable class. The threshold "
        "below does "
        "not change them."
    )
    measured = [evaluation.metrics for evaluation in evaluations]
    if any(metrics.get("unfinished") and "intervals" not in metrics for metrics in measured):
        note += " A figure without brackets has no interval, because you cancelled."
    return (
        table_html("All figures with 95 % intervals", header, rows)
        + f'<p class="dd-quiet">{escape(note)}</p>'
    )


def trust_html(evaluation: Evaluation) -> str:
    """What a reader is told besides the label, measured: operating points, sets, abstention, stability."""
    metrics = evaluation.metrics
    rows = []
    if metrics.get("risk_coverage"):
        rows.append(["Area under the risk–coverage curve", _share(metrics["risk_coverage"]["aurc"])])
    if stability := metrics.get("stability"):
        rows.append(["Views with another answer", _share(stability["flip_rate"])])
        rows.append(["Images with such a view", _share(stability["images_with_flips"])])
    if conformal := metrics.get("conformal"):
        every = conformal["classes"]["all"]
        rows.append(
            [
                "Lesions whose prediction set contains the true class (target: 90 %)",
                _share(every["lesion_coverage"]),
            ]
        )
        rows.append(["Classes in a prediction set, on average", _share(every["mean_size"])])
    if abstention := metrics.get("abstention"):
        rows.append(["Answers withheld", _share(abstention["abstained"])])
        rows.append(["Accuracy of the other answers", _share(abstention["accuracy_answered"])])
        rows.append(["Accuracy of the answers withheld", _share(abstention["accuracy_withheld"])])
        # Tables of version 0.1 have no warnings.
        if "warned" in abstention:
            rows.append(["Answers with a warning", _share(abstention["warned"])])
            rows.append(["Accuracy of the answers with a warning", _share(abstention["accuracy_warned"])])
    html = table_html("Uncertainty", ["Figure", "Value"], rows) if rows else ""
    if points := metrics.get("operating_points"):
        names = ("sensitivity", "specificity", "ppv", "npv")
        header = ["Operating point", "Threshold", *(figure_name(name) for name in names)]
        html += table_html(
            "Operating points, chosen on the calibration images",
            header,
            [
                [
                    escape(capitalised(operating_point_title(point))),
                    f"{points[point]['threshold']:.3f}",
                    *(_share(points[point][name]) for name in names),
                ]
                for point in OPERATING_POINTS
            ],
        )
    if metrics.get("unfinished"):
        html += _UNMEASURED
    elif conformal and not points:
        html += '<p class="dd-quiet">Operating points were not measured: the checkpoint is not available.</p>'
    elif not points:
        html += (
            '<p class="dd-quiet">This model is not calibrated: it has no operating points and no '
            "prediction sets, and no answer is withheld.</p>"
        )
    return html


def slices_html(evaluation: Evaluation) -> str:
    """The headline figures of every part of the images that has enough of them."""
    parts = evaluation.metrics.get("slices")
    if not parts:
        sources = evaluation.metrics.get("sources") or {}
        parts = {"source": {"slices": sources, "too_few": {}, "caveat": None}} if sources else {}
    names = ("accuracy", "balanced_accuracy", "f1_macro", "roc_auc")
    rows, too_few, caveats = [], [], []
    for attribute, part in parts.items():
        known = part["slices"]
        rows += [
            [
                escape(SLICED_BY[attribute].capitalize()),
                escape(value),
                f"{figures['n']:,}",
                *(_figure(figures, name) for name in names),
            ]
            for value, figures in known.items()
        ]
        too_few += [f"{SLICED_BY[attribute]}: {value} ({count})" for value, count in part["too_few"].items()]
        if known and part["caveat"]:
            caveats.append(part["caveat"])
    unmeasured = _UNMEASURED if evaluation.metrics.get("unfinished") else ""
    if not rows:
        return unmeasured or f'<p class="dd-quiet">No subgroup has {SMALLEST_SLICE} images or more.</p>'
    header = ["Subgroup", "Value", "Images", *(figure_name(name) for name in names)]
    notes = [*caveats]
    if too_few:
        notes.append(f"Not shown (fewer than {SMALLEST_SLICE} images): {'; '.join(too_few)}.")
    lines = "".join(f'<p class="dd-quiet">{escape(note)}</p>' for note in notes)
    return table_html("Figures by subgroup, with 95 % intervals", header, rows, heads=2) + lines + unmeasured


def failures_html(result: BatchResult) -> str:
    """What got no answer, and why, with what to do about it."""
    models_of: dict[tuple[str, str], list[str]] = defaultdict(list)
    for model in result.models:
        for item, record in result.failed(model):
            models_of[item.image.file, record.message].append(model_title(model))
    rows = [
        # A file that can't be read is the same to every model.
        [escape(file), "all" if len(who) == len(result.models) else escape(", ".join(who)), escape(reason)]
        for (file, reason), who in models_of.items()
    ]
    more = len(rows) - _MOST_ROWS
    html = (
        table_html("Files that were not read", ["File", "Model", "Reason"], rows[:_MOST_ROWS]) if rows else ""
    )
    if more > 0:
        html += f'<p class="dd-quiet">The download has {more:,} more.</p>'
    html += _left_out_html(result.left_out)
    return html or '<p class="dd-quiet">Every uploaded file was read.</p>'


def _left_out_html(left_out: Sequence[LeftOut]) -> str:
    """What was not even tried, by reason: a CSV of another task may leave out thousands."""
    files_of: dict[str, list[str]] = defaultdict(list)
    for item in left_out:
        files_of[item.reason].append(item.file)
    rows = [
        [
            escape(capitalised(reason)),
            f"{len(files):,}",
            escape(", ".join(files[:_SHOWN_FILES])) + (" …" if len(files) > _SHOWN_FILES else ""),
        ]
        for reason, files in files_of.items()
    ]
    if not rows:
        return ""
    return table_html("Files left out (all are in left_out.csv)", ["Reason", "Number", "Files"], rows)


def figure_name(name: str) -> str:
    """A figure's name for people, also of those that only a threshold has."""
    return capitalised(FIGURE_NAMES.get(name) or TARGET_FIGURE_NAMES.get(name, name))


def _figure(figures: Mapping[str, Any], name: str) -> str:
    value = figures.get(name)
    return _with_interval(value, figures.get("intervals", {}).get(name))


def _share(measured: Mapping[str, Any]) -> str:
    return _with_interval(measured["value"], measured.get("interval"))


def plain_figure(value: float | None) -> str:
    """A figure to three decimals, or the sign for none."""
    return "–" if value is None else f"{value:.3f}".replace("-", "\N{MINUS SIGN}")


def _with_interval(value: float | None, bounds: Sequence[float] | None) -> str:
    if value is None or not bounds:
        return plain_figure(value)
    return f"{plain_figure(value)} <span>[{plain_figure(bounds[0])}, {plain_figure(bounds[1])}]</span>"
