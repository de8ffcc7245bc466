"""Predictions, trainings and measurements as figures.

Every figure is drawn in one look (see `drawing`), carries its alt text, and says so in words where its data can't
give it. Where models are compared, they are those of one task on the same images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import setp
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from dermadeit.evaluation.predictions import PredictionSet
from dermadeit.evaluation.slices import SLICED_BY
from dermadeit.metrics.classification import FIGURE_NAMES, HEADLINE_FIGURES, lesion_weights
from dermadeit.metrics.shares import risk_coverage
from dermadeit.metrics.weighted import ERROR_BINS, calibration_errors, reliability_bins
from dermadeit.reporting.drawing import (
    INK,
    SMALL_POINTS,
    TEXT_POINTS,
    alt_text,
    drawable,
    encode_figure,
    finish,
    inline_svg,
    line_styles,
    model_of_title,
    model_title,
    new_figure,
    percent_axis,
    readable_on,
    words_only,
)
from dermadeit.reporting.format import NOTHING, count, decimal, millions, percent, rounded
from dermadeit.reporting.format import difference as signed_difference

__all__ = [
    "ModelPoint",
    "accuracy_latency_figure",
    "alt_text",
    "confusion_figure",
    "decision_curves",
    "difference_figure",
    "encode_figure",
    "inline_svg",
    "precision_recall_curves",
    "reliability_diagram",
    "risk_coverage_curves",
    "roc_curves",
    "score_histograms",
    "slice_figure",
    "training_curves",
]

_NO_IMAGES = "There are no labelled images."
_SCORE_BINS = 20
_IMAGES_A_BIN = 10
_BAND_RESAMPLES = 200
_THRESHOLDS = np.arange(1, 100) / 100
# From so many classes on, a matrix has narrow columns.
_MANY_CLASSES = 5
_FEWEST_FOR_RELIABILITY = _IMAGES_A_BIN * ERROR_BINS
"""Images from which on the shares of the bins are more than noise."""


@dataclass(frozen=True)
class ModelPoint:
    """One model among others: what it gives and what it costs.

    Attributes:
        title: Name shown to people.
        accuracy: 0 to 1.
        interval: Its 95 % interval, or None.
        milliseconds: Time an image takes.
        parameters: Number of weights.
    """

    title: str
    accuracy: float
    interval: tuple[float, float] | None
    milliseconds: float
    parameters: int


def roc_curves(sets: Sequence[PredictionSet]) -> Figure:
    """Sensitivity against false alarms for the class that must not be missed, one line a model.

    Around each line its 95 % band, pointwise, from resampled lesions; on it a mark where the answers lie.
    """
    # Slow to import, and the page needs none of its figures to open.
    from sklearn import metrics as sk

    title, refusal = _ranking_title("ROC", sets)
    if refusal:
        return words_only(title, refusal)
    figure, [axes] = new_figure(5.2 + 0.24 * len(sets))
    axes.plot([0, 1], [0, 1], color=INK, alpha=0.75, linewidth=1, linestyle=(0, (1, 2)))
    described = []
    for part, name, style in _lines(sets):
        positive, scores = _target(part)
        false_alarms, hits, _ = sk.roc_curve(positive, scores)
        described.append(f"{name}, AUROC {decimal(sk.roc_auc_score(positive, scores))}")
        axes.plot(false_alarms, hits, label=described[-1], **style.line)
        axes.fill_between(*_roc_band(part), color=style.colour, alpha=0.14, linewidth=0)
        answered = part.answers == part.task.index_of(part.task.target)
        axes.scatter(
            [answered[~positive].mean()], [answered[positive].mean()], marker=style.marker, s=42, zorder=3,
            color=style.colour,
        )  # fmt: skip
    _square(axes, "1 − specificity (false alarms)", "Sensitivity")
    meaning = "Shaded: 95 % of resampled lesions. Mark: the answers"
    return finish(figure, title, f"{title}. {'; '.join(described)}. {meaning}.", legend=True)


def decision_curves(sets: Sequence[PredictionSet]) -> Figure:
    """Net benefit of acting on the class that must not be missed, by threshold (Vickers and Elkin 2006).

    Beside the models stand those who act on every lesion. Who acts on none has a net benefit of 0.
    """
    title, refusal = _ranking_title("Decision curve", sets)
    if refusal:
        return words_only(title, refusal)
    figure, [axes] = new_figure(4.4 + 0.24 * (len(sets) + 1))
    prevalence = float(_target(sets[0])[0].mean())
    odds = _THRESHOLDS / (1 - _THRESHOLDS)
    everybody = prevalence - (1 - prevalence) * odds
    axes.plot(
        _THRESHOLDS, everybody, color=INK, alpha=0.75, linewidth=1, linestyle=(0, (1, 2)), label="Everybody"
    )
    axes.axhline(0, color=INK, alpha=0.75, linewidth=1)
    described = []
    for part, name, style in _lines(sets):
        positive, scores = _target(part)
        acted = scores >= _THRESHOLDS[:, None]
        benefit = (acted & positive).mean(axis=1) - (acted & ~positive).mean(axis=1) * odds
        described.append(f"{name}, {decimal(float(np.interp(0.1, _THRESHOLDS, benefit)))} at 10 %")
        axes.plot(_THRESHOLDS, benefit, label=name, **style.line)
    axes.set(xlim=(0, 1), ylim=(-0.05, prevalence * 1.08), xlabel="Threshold", ylabel="Net benefit")
    percent_axis(axes.xaxis)
    meaning = "Dotted: to act on every lesion. The line at 0: to act on none"
    return finish(figure, title, f"{title}. {'; '.join(described)}. {meaning}.", legend=True)


def precision_recall_curves(sets: Sequence[PredictionSet]) -> Figure:
    """Precision against sensitivity for the class that must not be missed, one line a model."""
    from sklearn import metrics as sk

    title, refusal = _ranking_title("Precision and recall", sets)
    if refusal:
        return words_only(title, refusal)
    figure, [axes] = new_figure(5.2 + 0.24 * len(sets))
    prevalence = float(_target(sets[0])[0].mean())
    axes.axhline(prevalence, color=INK, alpha=0.75, linewidth=1, linestyle=(0, (1, 2)))
    described = []
    for part, name, style in _lines(sets):
        positive, scores = _target(part)
        precision, recall, _ = sk.precision_recall_curve(positive, scores)
        described.append(f"{name}, AP {decimal(sk.average_precision_score(positive, scores))}")
        axes.plot(recall, precision, label=described[-1], drawstyle="steps-post", **style.line)
    _square(axes, "Recall (sensitivity)", "Precision")
    chance = f"Chance, the dotted line, is {decimal(prevalence)}"
    return finish(figure, title, f"{title}. {'; '.join(described)}. {chance}.", legend=True)


def reliability_diagram(sets: Sequence[PredictionSet]) -> Figure:
    """Stated score of the answers against the share that is right, and how often which score is given."""
    title = "Reliability of the answers"
    if not sets or not all(len(part) for part in sets):
        return words_only(title, _NO_IMAGES)
    if min(len(part) for part in sets) < _FEWEST_FOR_RELIABILITY:
        return words_only(
            title,
            f"It needs {_FEWEST_FOR_RELIABILITY} images or more: {_IMAGES_A_BIN} for each of its "
            f"{ERROR_BINS} bins.",
        )
    figure, [axes, counts] = new_figure(6.2 + 0.24 * len(sets), rows=(4, 1), sharex=True)
    lowest = 1 / len(sets[0].task.classes)
    axes.plot([lowest, 1], [lowest, 1], color=INK, alpha=0.75, linewidth=1, linestyle=(0, (1, 2)))
    described = []
    for part, name, style in _lines(sets):
        confidences, hits = _answers(part)
        error = calibration_errors(confidences, hits, np.ones((1, len(hits))))[0]
        described.append(f"{name}, ECE {decimal(error)}")
        stated, right, _ = reliability_bins(confidences, hits)
        axes.plot(stated, right, label=described[-1], marker=style.marker, markersize=5, **style.line)
        edges = np.linspace(lowest, 1, _SCORE_BINS + 1)
        counts.stairs(np.histogram(confidences, edges)[0], edges, **style.line)
    axes.set(xlim=(lowest, 1.005), ylabel="Share of right answers")
    percent_axis(axes.yaxis)
    percent_axis(counts.xaxis)
    counts.set(xlabel="Score of the answer", ylabel="Images")
    meaning = "On the dotted line the score of an answer is the share of right answers"
    return finish(figure, title, f"{title}. {'; '.join(described)}. {meaning}.", legend=True)


def score_histograms(sets: Sequence[PredictionSet]) -> Figure:
    """How often which score of the class that must not be missed is given, apart by truth; a panel each model."""
    title, refusal = _ranking_title("Scores", sets)
    if refusal:
        return words_only(title, refusal)
    figure, panels = new_figure(1.6 + 1.5 * len(sets), rows=[1] * len(sets), sharex=True)
    target = sets[0].task.display_names[sets[0].task.target]
    edges = np.linspace(0, 1, _SCORE_BINS + 1)
    described = []
    for (part, name, style), axes in zip(_lines(sets), panels, strict=True):
        positive, scores = _target(part)
        others, hits = (np.histogram(scores[chosen], edges)[0] for chosen in (~positive, positive))
        axes.stairs(
            others, edges, color=INK, alpha=0.75, linewidth=1.2, linestyle="--", label="True class: other"
        )
        axes.stairs(hits, edges, color=style.colour, alpha=0.55, fill=True, label=f"True class: {target}")
        axes.set_ylabel(name, fontsize=SMALL_POINTS)
        medians = (decimal(float(np.median(scores[chosen]))) for chosen in (positive, ~positive))
        described.append(f"{name}, median {' and '.join(medians)}")
    panels[-1].set_xlabel(f"Score of {target}")
    percent_axis(panels[-1].xaxis)
    meaning = f"Images by their score, first those with the true class {target}, then all others"
    return finish(figure, title, f"{title}. {meaning}: {'; '.join(described)}.", legend=True)


def risk_coverage_curves(sets: Sequence[PredictionSet]) -> Figure:
    """Share of errors among the answers that are kept when the least confident are withheld."""
    title = "Errors when uncertain answers are withheld"
    if not sets or not all(len(part) for part in sets):
        return words_only(title, _NO_IMAGES)
    figure, [axes] = new_figure(4.4 + 0.24 * len(sets))
    described = []
    for part, name, style in _lines(sets):
        confidences, hits = _answers(part)
        # The interval belongs to the tables, and a resample is what takes the time.
        found = risk_coverage(hits, confidences, part.lesion_groups, resamples=1)
        described.append(f"{name}, AURC {decimal(found['aurc']['value'])}")
        coverage, risk = ([point[key] for point in found["curve"]] for key in ("coverage", "risk"))
        axes.plot(coverage, risk, label=described[-1], marker=style.marker, markersize=5, **style.line)
    axes.set(xlabel="Share of images with an answer", ylabel="Share of wrong answers")
    axes.set_ylim(bottom=0)
    for axis in (axes.xaxis, axes.yaxis):
        percent_axis(axis)
    return finish(figure, title, f"{title}. {'; '.join(described)}. Lower is better.", legend=True)


def confusion_figure(part: PredictionSet, normalised: bool = False) -> Figure:
    """The confusion matrix of one model, true classes in the rows.

    Args:
        part: The model's answers.
        normalised: Show shares of the true class instead of counts.
    """
    from sklearn import metrics as sk

    title = f"{model_title(part.model)}: {'share of each true class' if normalised else 'images'}"
    if not len(part):
        return words_only(title, _NO_IMAGES)
    names = [part.task.display_names[key] for key in part.task.classes]
    counts = sk.confusion_matrix(part.labels, part.answers, labels=np.arange(len(names)))
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    is_narrow = len(names) >= _MANY_CLASSES
    figure, [axes] = new_figure(2.0 + 0.62 * len(names))
    axes.grid(False)
    # By share in both, so that a rare class is not lost in the dark.
    axes.pcolormesh(shares, cmap="cividis", vmin=0, vmax=1, edgecolors="white", linewidth=1.5)
    for row, column in np.ndindex(*counts.shape):
        shown = _cell_text(
            int(counts[row, column]), int(totals[row, 0]), normalised, decimals=0 if is_narrow else 1
        )
        axes.text(
            column + 0.5, row + 0.5, shown, ha="center", va="center", fontsize=TEXT_POINTS + 1,
            color=readable_on(colormaps["cividis"](shares[row, column])),
        )  # fmt: skip
    places = np.arange(len(names)) + 0.5
    wrapped = [name.replace(" ", "\n") for name in names]
    axes.set_xticks(places, names if is_narrow else wrapped, rotation=90 if is_narrow else 0)
    axes.set_yticks(
        places, [f"{name}\nn = {count(total)}" for name, total in zip(wrapped, totals[:, 0], strict=True)]
    )
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.set(xlabel="Answer", ylabel="Truth")
    rows = "; ".join(
        f"{name}: " + ", ".join(f"{count(cell)} as {other}" for cell, other in zip(row, names, strict=True))
        for name, row in zip(names, counts, strict=True)
    )
    return finish(figure, title, f"Confusion matrix of {model_title(part.model)}. True {rows}.")


def accuracy_latency_figure(points: Sequence[ModelPoint]) -> Figure:
    """What each model gives against the time it takes; larger marks are larger models."""
    title = "Accuracy against time"
    if not points:
        return words_only(title, "No time was measured on labelled images.")
    figure, [axes] = new_figure(4.2 + 0.24 * len(points))
    largest = max(point.parameters for point in points)
    styles = line_styles([model_of_title(point.title) for point in points])
    described = []
    for point, style in zip(points, styles, strict=True):
        described.append(
            f"{drawable(point.title)}: {percent(point.accuracy)} in {count(round(point.milliseconds))} ms, "
            f"{millions(point.parameters)} weights"
        )
        axes.plot(
            [point.milliseconds], [point.accuracy], label=described[-1], marker=style.marker, linestyle="",
            color=style.colour, markersize=6 + 14 * (point.parameters / max(largest, 1)) ** 0.5,
        )  # fmt: skip
        if point.interval:
            axes.plot([point.milliseconds] * 2, point.interval, color=style.colour, linewidth=1.6)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: rounded(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    lowest, highest = (pick(point.milliseconds for point in points) for pick in (min, max))
    axes.set_xlim(lowest / 1.4, highest * 1.4)
    steps = [step * 10.0**power for power in range(-2, 6) for step in (1, 2, 5)]
    within = [step for step in steps if lowest / 1.4 <= step <= highest * 1.4]
    # Labels of two times this close would lie on each other.
    ends = [lowest, highest] if highest > 1.2 * lowest else [lowest]
    axes.set_xticks(within if len(within) > 1 else ends)
    axes.set(xlabel="Milliseconds an image (logarithmic)", ylabel="Accuracy with its 95 % interval")
    percent_axis(axes.yaxis)
    axes.margins(y=0.12)
    finish(figure, title, f"{title}. {'; '.join(described)}.", legend=True)
    for handle in filter(None, figure.legends[0].legend_handles):
        setp(handle, markersize=7)
    return figure


def training_curves(training: Mapping[str, Any]) -> Figure:
    """Losses, validation figures and learning rate by epoch, from a checkpoint's `training.json`.

    The epochs of a training that went on from the weights of another one are counted on from there.
    """
    title, last = "Training", training.get("curves") or []
    if not last:
        return words_only(title, "The checkpoint has no record of its training.")
    earlier = [stage["curves"] for stage in training.get("earlier_stages") or []]
    curves = list(chain(*earlier, last))
    figure, panels = new_figure(6.6, rows=(1.2, 1.2, 0.7), sharex=True)
    epochs = range(1, len(curves) + 1)
    before = len(curves) - len(last)
    # The last epoch is kept where no figure has chosen one.
    chosen = training.get("selection_metric")
    losses = [name for name in curves[0] if name.endswith("loss")]
    figures = [name for name in HEADLINE_FIGURES if name != chosen and name in curves[0]]
    figures[:0] = [chosen] if chosen else []
    for axes, names, label in zip(
        panels,
        (losses, figures, ["learning_rate"]),
        ("Loss", "Validation", "Learning rate"),
        strict=True,
    ):
        for name, style in zip(names, line_styles([""] * len(names)), strict=True):
            values = [np.nan if point.get(name) is None else point[name] for point in curves]
            axes.plot(
                epochs, values, label=_figure_name(name), marker=style.marker, markersize=3.5, **style.line
            )
        axes.set_ylabel(label)
        if len(names) > 1:
            axes.legend(
                frameon=False, fontsize=SMALL_POINTS, labelcolor=INK, loc="lower left", ncols=3,
                bbox_to_anchor=(-0.02, 1), handlelength=2.6, columnspacing=1.4, borderaxespad=0.2,
            )  # fmt: skip
        if training.get("best_epoch") is not None:
            axes.axvline(
                before + training["best_epoch"], color=INK, alpha=0.5, linewidth=1, linestyle=(0, (1, 2))
            )
    panels[-1].set_xlabel("Epoch")
    panels[-1].locator_params(axis="x", integer=True)
    best = next((point for point in last if point["epoch"] == training.get("best_epoch")), last[-1])
    kept = f"Epoch {before + best['epoch']} of {len(curves)} was kept"
    if earlier:
        starts = ", ".join(str(sum(map(len, earlier[: index + 1])) + 1) for index in range(len(earlier)))
        kept = f"A new stage of the training began with epoch {starts}. {kept}"
    value = (
        ""
        if chosen is None or best.get(chosen) is None
        else f", with a validation {_figure_name(chosen)} of {decimal(best[chosen])}"
    )
    return finish(figure, title, f"Losses, validation figures and learning rate by epoch. {kept}{value}.")


def slice_figure(slices: Mapping[str, Any] | None) -> Figure:
    """The accuracy in every subgroup, as dots with intervals.

    Args:
        slices: As `slices.measure_slices` gives them, or None.
    """
    title = "Accuracy by subgroup"
    rows = [
        (attribute, value, figures)
        for attribute, part in (slices or {}).items()
        for value, figures in part["slices"].items()
        if figures.get("accuracy") is not None
    ]
    if not rows:
        return words_only(title, "No subgroup has enough images.")
    attributes = list(dict.fromkeys(attribute for attribute, _, _ in rows))
    places = np.array([index + 0.9 * attributes.index(row[0]) for index, row in enumerate(rows)])
    figure, [axes] = new_figure(1.2 + 0.27 * (places[-1] + 1))
    axes.grid(axis="y", visible=False)
    [style] = line_styles(["dermadeit"])
    for place, (_, _, figures) in zip(places, rows, strict=True):
        interval = figures.get("intervals", {}).get("accuracy")
        if interval:
            axes.plot(interval, [place, place], color=style.colour, linewidth=2, alpha=0.75)
        axes.plot([figures["accuracy"]], [place], marker="o", color=style.colour, markersize=6)
    axes.set_yticks(places, [f"{drawable(value)} (n = {count(figures['n'])})" for _, value, figures in rows])
    for attribute in attributes:
        first = next(place for place, row in zip(places, rows, strict=True) if row[0] == attribute)
        axes.annotate(
            SLICED_BY.get(attribute, drawable(attribute)), (0, first - 0.85),
            xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points", va="center",
            fontsize=SMALL_POINTS, fontweight="bold", color=INK,
        )  # fmt: skip
    axes.set_ylim(places[-1] + 0.7, places[0] - 1.4)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("Accuracy with its 95\u00a0% interval")
    described = "; ".join(f"{drawable(value)} {decimal(figures['accuracy'])}" for _, value, figures in rows)
    return finish(figure, title, f"{title}. {described}.")


def difference_figure(
    title: str, rows: Sequence[str], panels: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]
) -> Figure:
    """Differences as dots with intervals, in panels one below the other.

    Args:
        title: Of the figure.
        rows: What each row is about, from above.
        panels: Name of a figure to the name of a reading to its differences, one a row: `difference` and
            `interval`, or nothing.
    """
    figure, drawn = new_figure(1.4 + 0.5 * len(rows) * len(panels), rows=[1] * len(panels))
    readings = list(next(iter(panels.values())))
    described = []
    for axes, (name, by_reading) in zip(drawn, panels.items(), strict=True):
        axes.grid(axis="y", visible=False)
        axes.axvline(0, color=INK, alpha=0.75, linewidth=1)
        for place, (reading, style) in enumerate(zip(readings, line_styles(readings), strict=True)):
            shift = 0.32 * (place - (len(readings) - 1) / 2)
            label: str | None = reading
            for row, (about, found) in enumerate(zip(rows, by_reading[reading], strict=True)):
                if found.get("difference") is None:
                    continue
                if found.get("interval"):
                    axes.plot(
                        found["interval"], [row + shift] * 2, color=style.colour, linewidth=2, alpha=0.75
                    )
                axes.plot(
                    [found["difference"]], [row + shift], marker=style.marker, color=style.colour, markersize=6,
                    linestyle="none", label=label,
                )  # fmt: skip
                label = None
                text = signed_difference(found["difference"], found.get("interval"))
                described.append(f"{about}, {reading}, {name} {text}")
        axes.set_yticks(range(len(rows)), [drawable(row) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(f"{name}: difference with its 95\u00a0% interval")
    return finish(figure, title, f"{title}. {'; '.join(described)}.", legend=True)


def _lines(sets: Sequence[PredictionSet]) -> list[tuple[PredictionSet, str, Any]]:
    """Each set with the name and the style of its line; the name says the views where models come twice."""
    models = [part.model for part in sets]
    names = [
        model_title(part.model) + (f", {part.views} views" if models.count(part.model) > 1 else "")
        for part in sets
    ]
    return list(zip(sets, names, line_styles(models), strict=True))


def _roc_band(part: PredictionSet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shares of false alarms, and the lowest and highest sensitivity there of the middle 95 % of resamples."""
    from sklearn import metrics as sk

    positive, scores = _target(part)
    places, curves = np.linspace(0, 1, 101), []
    for weights in lesion_weights(part.lesion_groups, _BAND_RESAMPLES, 0):
        for drawn in weights:
            if drawn[positive].any() and drawn[~positive].any():
                false_alarms, hits, _ = sk.roc_curve(positive, scores, sample_weight=drawn)
                curves.append(np.interp(places, false_alarms, hits))
    low, high = np.percentile(curves, (2.5, 97.5), axis=0)
    return places, low, high


def _target(part: PredictionSet) -> tuple[np.ndarray, np.ndarray]:
    target = part.task.index_of(part.task.target)
    return part.labels == target, part.target_scores


def _answers(part: PredictionSet) -> tuple[np.ndarray, np.ndarray]:
    """Score of the most probable class, and whether it is right."""
    return part.probabilities.max(axis=1), part.probabilities.argmax(axis=1) == part.labels


def _ranking_title(name: str, sets: Sequence[PredictionSet]) -> tuple[str, str]:
    """Title of a curve of one class against the rest, and why it can't be drawn, or an empty string."""
    if not sets:
        return name, _NO_IMAGES
    task = sets[0].task
    target, *others = (
        task.name_in_text(key) for key in sorted(task.classes, key=lambda key: key != task.target)
    )
    title = f"{name}: {target} against {others[0] if len(others) == 1 else 'the rest'}"
    for part in sets:
        positive, _ = _target(part)
        if not len(part):
            return title, _NO_IMAGES
        if positive.all() or not positive.any():
            only = "Every" if positive.all() else "No"
            return title, f"{only} image is labelled {target}. It needs images of both classes."
    return title, ""


def _figure_name(key: str) -> str:
    return FIGURE_NAMES.get(key, key.replace("_", " "))


def _square(axes: Axes, x: str, y: str) -> None:
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=x, ylabel=y)


def _cell_text(images: int, total: int, normalised: bool, *, decimals: int) -> str:
    if not normalised:
        return count(images)
    return percent(images / total, decimals) if total else NOTHING
