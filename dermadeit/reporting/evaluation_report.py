"""An evaluation as one HTML file: a section for each question, a column or rows for each model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from dermadeit.about import DISCLAIMER
from dermadeit.evaluation.comparison import PairedResult
from dermadeit.evaluation.predictions import SMALLEST_SLICE
from dermadeit.evaluation.slices import SLICED_BY
from dermadeit.metrics.classification import FIGURE_NAMES, FIGURES, HEADLINE_FIGURES, TARGET_FIGURE_NAMES
from dermadeit.metrics.shares import COVERAGES
from dermadeit.reporting.document import render_document
from dermadeit.reporting.figures import inline_svg
from dermadeit.reporting.format import count, counted, decimal, difference, p_value, percent
from dermadeit.reporting.names import (
    ABSTENTION_FIGURES,
    RISK_AREA,
    SET_FIGURES,
    STABILITY_FIGURES,
    Metrics,
    capitalised,
    class_name,
    interval_warnings,
    model_of,
)
from dermadeit.reporting.templates import isolated
from dermadeit.trust.calibration import operating_point_title

_FAILURE_COLUMNS: Mapping[str, str] = {"file": "file", "model": "model", "code": "code", "message": "reason"}

Row = Sequence[Any]
"""Texts and figures; a row of one cell is the heading of those that follow."""


@dataclass(frozen=True, eq=False)
class ComparedReport:
    """What is known of several models on the same images.

    Attributes:
        paired: One model against each of the others; empty without true classes.
        kappas: Titles of every two models to Cohen's kappa between their answers; None where that is undefined.
        differing: How many images they answer differently.
        images: How many images all of them have read.
    """

    paired: Sequence[PairedResult]
    kappas: Mapping[tuple[str, str], float | None]
    differing: int
    images: int


@dataclass(frozen=True)
class _Part:
    """A table, or a sentence on why there is none; with its model over it where each has a table of its own."""

    header: Row = ()
    rows: Sequence[Row] = ()
    model: str = ""
    statement: str = ""
    asides: Sequence[str] = ()


@dataclass(frozen=True)
class _Drawing:
    svg: Markup
    caption: str


@dataclass(frozen=True)
class _Section:
    """What the template lays out under a heading: sentences, then tables, then drawings."""

    title: str
    statement: str = ""
    about: str = ""
    parts: Sequence[_Part] = ()
    drawings: Sequence[_Drawing] = ()


def evaluation_report(
    title: str,
    evaluations: Sequence[Metrics],
    figures: Sequence[tuple[str, Figure]] = (),
    failures: Sequence[Mapping[str, Any]] = (),
    notes: Sequence[str] = (),
    *,
    compared: ComparedReport | None = None,
    created: datetime | None = None,
) -> str:
    """One or more models on the same labelled images as an HTML document that needs no network.

    Args:
        title: Of the document.
        evaluations: Each `records.Evaluation.metrics` with the model's name added as `model`. All of one task.
        figures: Caption and figure, in the order in which they are shown.
        failures: Images that were not read: `file`, `model`, `code` and `message`.
        notes: What a reader must know first, as sentences.
        compared: The models against each other; None for one model, or where that is not known.
        created: When, with a time zone; None for now.
    """
    excluded = next((metrics["excluded"] for metrics in evaluations if metrics.get("excluded")), {})
    sections = [*_sections(evaluations, figures, compared), _failure_section(failures, evaluations)]
    return render_document(
        "reporting/evaluation_report.html",
        title,
        created,
        # The page says the disclaimer on top already.
        notes=[note for note in notes if note != DISCLAIMER],
        sections=[part for part in sections if part.statement or part.parts or part.drawings],
        origins=[_origin(metrics) for metrics in evaluations],
        left_out=", ".join(f"{key}: {count(number)}" for key, number in excluded.items()) or "no image",
        interval_method=next(
            (part["intervals"]["method"] for part in evaluations if part.get("intervals")), "none"
        ),
    )


def _sections(
    evaluations: Sequence[Metrics], figures: Sequence[tuple[str, Figure]], compared: ComparedReport | None
) -> Iterator[_Section]:
    curves = _Section("Curves and figures", drawings=[_drawing(*figure) for figure in figures])
    if not any(metrics.get("n") for metrics in evaluations):
        yield _Section("Figures", "There are no figures, because no labelled image was read.")
        yield curves
        return
    yield _figures_section(evaluations)
    if compared is not None:
        yield _comparison_section(compared)
    yield _confusion_section(evaluations)
    yield curves
    yield _calibration_section(evaluations)
    yield _operating_point_section(evaluations)
    yield _conformal_section(evaluations)
    yield _risk_section(evaluations)
    yield _stability_section(evaluations)
    yield _slices_section(evaluations)


def _drawing(caption: str, figure: Figure) -> _Drawing:
    """A figure with its caption, unless that only repeats the figure's title."""
    repeated = figure.get_suptitle().startswith(caption)
    return _Drawing(inline_svg(figure), "" if repeated else caption)


def _figures_section(evaluations: Sequence[Metrics]) -> _Section:
    lesions = next((part["intervals"].get("lesions") for part in evaluations if part.get("intervals")), None)
    images = max(metrics.get("n", 0) for metrics in evaluations)
    size = counted(images, "image") + (f" of {counted(lesions, 'lesion')}" if lesions else "")
    return _Section(
        "Figures",
        " ".join(interval_warnings(evaluations)),
        f"{size}. In brackets: 95\u00a0% intervals, from resampled lesions; near 0 or 1, Wilson's.",
        parts=[
            _by_model(
                "Figure",
                evaluations,
                ((FIGURE_NAMES[key], [_figure(part, key) for part in evaluations]) for key in FIGURES),
            )
        ],
    )


def _comparison_section(compared: ComparedReport) -> _Section:
    parts = []
    if compared.paired:
        first = compared.paired[0].comparison.first
        rows = [
            (
                result.comparison.second,
                *(
                    difference(found.difference, found.interval)
                    for found in (result.comparison.differences[key] for key in HEADLINE_FIGURES)
                ),
                p_value(result.mcnemar_holm),
                p_value(result.delong_holm),
            )
            for result in compared.paired
        ]
        names = [capitalised(name) for name in HEADLINE_FIGURES.values()]
        about = (
            "In brackets: 95\u00a0% intervals of the paired bootstrap. p-values are adjusted for the number of "
            "comparisons (Holm). Both tests assume independent images."
        )
        parts.append(_Part((f"{first} minus", *names, "McNemar p", "DeLong p"), rows, asides=[about]))
    kappas = [(one, other, decimal(value, 2)) for (one, other), value in compared.kappas.items()]
    parts.append(_Part(("Model", "Model", "Cohen's κ between the answers"), kappas))
    answered = f"{count(compared.differing)} of {counted(compared.images, 'image')}"
    return _Section("Models compared", f"The models give different answers for {answered}.", parts=parts)


def _confusion_section(evaluations: Sequence[Metrics]) -> _Section:
    parts = []
    for metrics in evaluations:
        matrix = metrics.get("confusion_matrix")
        if not matrix:
            continue
        names = [class_name(metrics, key) for key in matrix["classes"]]
        rows = [
            (shown, count(sum(row)), *({"images": cell, "total": sum(row)} for cell in row))
            for shown, row in zip(names, matrix["counts"], strict=True)
        ]
        header = ("True class", "images", *(f"answer {shown}" for shown in names))
        parts.append(_Part(header, rows, model=model_of(metrics)))
    return _Section("Confusion matrices", parts=parts)


def _calibration_section(evaluations: Sequence[Metrics]) -> _Section:
    """How far the probabilities can be taken at their word, before and after calibration."""

    def rows(metrics: Metrics, found: Mapping[str, Any]) -> Iterator[Row]:
        yield (f"{model_of(metrics)}, by {str(found.get('scaling', '')).replace('_', ' ')} scaling",)
        for figure, after in found["after"].items():
            yield FIGURE_NAMES[figure], found["before"].get(figure), after

    return _calibrated_section("Calibration", evaluations, "calibration", ("Figure", "before", "after"), rows)


def _operating_point_section(evaluations: Sequence[Metrics]) -> _Section:
    """What each operating point gives."""

    def rows(metrics: Metrics, found: Mapping[str, Any]) -> Iterator[Row]:
        yield (isolated(model_of(metrics)),)
        for key, part in _points(found):
            shown = f"{operating_point_title(key)} (threshold {percent(part['threshold'])})"
            yield shown, *(part.get(figure) for figure in TARGET_FIGURE_NAMES)

    def about(metrics: Metrics, found: Mapping[str, Any]) -> str:
        return (
            f"These figures are about the class {class_name(metrics, found['target'])}. Its prevalence "
            f"here, used for the predictive values, is {percent(found['prevalence'])}. The thresholds were "
            f"chosen on other lesions."
        )

    header = ("Operating point", *TARGET_FIGURE_NAMES.values())
    return _calibrated_section("Operating points", evaluations, "operating_points", header, rows, about)


def _points(found: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The operating points among the `operating_points` of an evaluation, which also hold what they are about."""
    return ((key, part) for key, part in found.items() if isinstance(part, Mapping))


def _conformal_section(evaluations: Sequence[Metrics]) -> _Section:
    """How often the sets of classes hold the true one, and how large they are."""

    def rows(metrics: Metrics, found: Mapping[str, Any]) -> Iterator[Row]:
        yield (isolated(model_of(metrics)),)
        for key, part in found["classes"].items():
            shown = "all classes" if key == "all" else class_name(metrics, key)
            yield shown, *(part.get(figure) for figure in SET_FIGURES)

    def about(_: Metrics, found: Mapping[str, Any]) -> str:
        return (
            f"The classes that are still possible. Target: {percent(found['nominal_coverage'])} of the "
            f"lesions have their true class in the set."
        )

    header = ("Images of", *SET_FIGURES.values())
    return _calibrated_section("Prediction sets (conformal)", evaluations, "conformal", header, rows, about)


def _calibrated_section(
    title: str,
    evaluations: Sequence[Metrics],
    key: str,
    header: Row,
    rows: Callable[[Metrics, Mapping[str, Any]], Iterable[Row]],
    about: Callable[[Metrics, Mapping[str, Any]], str] | None = None,
) -> _Section:
    """One table of what the evaluations of calibrated models hold under a key, and a note on the others.

    Args:
        title: Of the section.
        evaluations: Those with something under the key get rows.
        key: Where the figures are.
        header: Of the table.
        rows: From an evaluation and its figures.
        about: Likewise, a sentence that holds for all of them.
    """
    measured = [(metrics, metrics[key]) for metrics in evaluations if metrics.get(key)]
    missing = ", ".join(model_of(metrics) for metrics in evaluations if not metrics.get(key))
    shown = [row for metrics, found in measured for row in rows(metrics, found)]
    return _Section(
        title,
        f"Not measured for {missing}: the checkpoint is not calibrated or not available, so its scores are "
        "not probabilities."
        if missing
        else "",
        about(*measured[-1]) if about and measured else "",
        [_Part(header, shown)] if shown else [],
    )


def _risk_section(evaluations: Sequence[Metrics]) -> _Section:
    """What withholding the least sure answers brings."""
    found = [metrics for metrics in evaluations if metrics.get("risk_coverage")]
    if not found:
        return _Section("Answers withheld", "not measured")
    curves = [metrics["risk_coverage"] for metrics in found]
    withheld = [metrics.get("abstention") or {} for metrics in found]
    rows = [
        (RISK_AREA, [curve["aurc"] for curve in curves]),
        *(
            (
                f"errors in the most certain {percent(coverage)}",
                [_risk(curve["curve"], index, coverage) for curve in curves],
            )
            for index, coverage in enumerate(COVERAGES)
        ),
        *(
            (shown, [part.get(key) for part in withheld])
            for key, shown in ABSTENTION_FIGURES.items()
            if any(key in part for part in withheld)
        ),
    ]
    about = "Errors in the remaining answers when the least certain answers are withheld."
    return _Section("Answers withheld", about=about, parts=[_by_model("", found, rows)])


def _risk(curve: Sequence[Mapping[str, float]], index: int, coverage: float) -> str:
    """The risk at a coverage; with the coverage reached where equal confidences could not be told apart."""
    if index >= len(curve):
        return "not measured"
    risk, reached = percent(curve[index]["risk"]), percent(curve[index]["coverage"])
    return risk if reached == percent(coverage) else f"{risk} (of {reached})"


def _stability_section(evaluations: Sequence[Metrics]) -> _Section:
    """How often turning or mirroring the photo changes the answer."""
    title = "Stability when the photo is turned and mirrored"
    found = [metrics for metrics in evaluations if metrics.get("stability")]
    if not found:
        return _Section(title, "not measured: this needs the model and several views of each image")
    rows = (
        (shown, [metrics["stability"].get(key) for metrics in found])
        for key, shown in STABILITY_FIGURES.items()
    )
    return _Section(title, parts=[_by_model("", found, rows)])


def _slices_section(evaluations: Sequence[Metrics]) -> _Section:
    return _Section("Subgroups", parts=[_slices(metrics) for metrics in evaluations])


def _slices(metrics: Metrics) -> _Part:
    """The headline figures of one model by subgroup; by source only where nothing else is known of the images."""
    sources = metrics.get("sources")
    slices = metrics.get("slices") or ({"source": {"slices": sources}} if sources else {})
    rows, asides = [], []
    for attribute, part in slices.items():
        titled = capitalised(SLICED_BY.get(attribute, attribute))
        few = ", ".join(f"{value} ({count(number)})" for value, number in (part.get("too_few") or {}).items())
        if few:
            asides.append(f"{titled}: not shown (fewer than {SMALLEST_SLICE} images): {few}.")
        if part.get("caveat"):
            asides.append(f"{titled}: {part['caveat']}")
        if part["slices"]:
            rows.append((titled,))
        rows += [
            (isolated(value), count(figures["n"]), *(_figure(figures, key) for key in HEADLINE_FIGURES))
            for value, figures in part["slices"].items()
        ]
    return _Part(
        ("Images of", "images", *HEADLINE_FIGURES.values()),
        rows,
        model_of(metrics),
        "" if rows else f"No subgroup has {SMALLEST_SLICE} images or more, or the table has no such columns.",
        asides,
    )


def _failure_section(failures: Sequence[Mapping[str, Any]], evaluations: Sequence[Metrics]) -> _Section:
    """The images that were not read, or the statement that all were."""
    title = "Images that were not read"
    failed = max((metrics.get("failed") or 0 for metrics in evaluations), default=0)
    if failures:
        rows = [[isolated(row[key]) for key in _FAILURE_COLUMNS] for row in failures]
        about = f"{counted(len(failures), 'row')}. These images are not part of any figure."
        return _Section(title, about=about, parts=[_Part(tuple(_FAILURE_COLUMNS.values()), rows)])
    if failed:
        return _Section(
            title,
            f"Images not read: {count(failed)}. They are not part of any figure and are not listed here.",
        )
    return _Section(title, "Every image was read.")


def _origin(metrics: Metrics) -> dict[str, Any]:
    """What it takes to make the figures of a model again."""
    points = [operating_point_title(key) for key, _ in _points(metrics.get("operating_points") or {})]
    return {
        "model": model_of(metrics),
        "circumstances": (
            f"task {metrics.get('task', 'not recorded')}; {counted(metrics.get('n', 0), 'image')} read, "
            f"{count(metrics.get('failed') or 0)} not read; views: {metrics.get('views') or 'not recorded'}; "
            f"operating points: {', '.join(points) or 'none, not calibrated'}; evaluated by DermaDeiT "
            f"{metrics.get('dermadeit_version', '(version not recorded)')}"
        ),
        "weights_sha256": metrics.get("weights_sha256"),
    }


def _by_model(first: str, evaluations: Sequence[Metrics], rows: Iterable[tuple[str, Sequence[Any]]]) -> _Part:
    """A table with a column for each model."""
    header = (first, *(isolated(model_of(metrics)) for metrics in evaluations))
    return _Part(header, [(shown, *cells) for shown, cells in rows])


def _figure(figures: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    """A figure that is a number with its interval beside it, as `predictions.Measurement.to_dict` gives them."""
    if key not in figures:
        return None
    return {"value": figures[key], "interval": (figures.get("intervals") or {}).get(key)}
