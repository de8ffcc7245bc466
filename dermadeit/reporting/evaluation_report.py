"""What an evaluation is reported in: a section for each question, a column or a group of rows for each model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from matplotlib.figure import Figure

from dermadeit.about import DISCLAIMER, VERSION
from dermadeit.evaluation.predictions import SMALLEST_SLICE
from dermadeit.evaluation.slices import SLICED_BY
from dermadeit.metrics.classification import FIGURE_NAMES, FIGURES, HEADLINE_FIGURES, TARGET_FIGURE_NAMES
from dermadeit.metrics.shares import COVERAGES
from dermadeit.models.specs import model_name
from dermadeit.reporting.document import (
    Html,
    digest,
    facts,
    heading,
    join,
    name,
    notice,
    number,
    page,
    paragraph,
    point,
    section,
    table,
    text,
)
from dermadeit.reporting.figures import inline_svg
from dermadeit.reporting.format import counted, percent
from dermadeit.reporting.names import TECHNICAL_DETAILS, Metrics, capitalised, class_name, model_of
from dermadeit.trust.calibration import operating_point_title

_SET_FIGURES = {
    "coverage": "images whose set contains the true class",
    "lesion_coverage": "lesions whose set contains the true class",
    "mean_size": "mean number of classes",
    "empty": "no class",
    "multiple": "several classes",
}
_ABSTENTION_FIGURES = {
    "abstained": "answers withheld",
    "accuracy_answered": "accuracy of the other answers",
    "accuracy_withheld": "accuracy of the withheld answers",
    "warned": "answers with a warning",
    "accuracy_warned": "accuracy of the answers with a warning",
}
_STABILITY_FIGURES = {
    "flip_rate": "views with another answer",
    "images_with_flips": "images with such a view",
    "mean_spread": "mean range of the score",
}


def calibration_section(evaluations: Sequence[Metrics]) -> Html:
    """How far the probabilities can be taken at their word, before and after calibration."""

    def rows(metrics: Metrics, found: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        yield (f"{model_of(metrics)}, by {str(found.get('scaling', '')).replace('_', ' ')} scaling",)
        for figure, after in found["after"].items():
            yield FIGURE_NAMES[figure], point(found["before"].get(figure)), point(after)

    return _calibrated_section("Calibration", evaluations, "calibration", ("Figure", "before", "after"), rows)


def operating_point_section(evaluations: Sequence[Metrics]) -> Html:
    """What each operating point gives."""

    def rows(metrics: Metrics, found: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        yield (name(model_of(metrics)),)
        for key, part in found.items():
            if isinstance(part, Mapping):
                shown = f"{operating_point_title(key)} (threshold {percent(part['threshold'])})"
                yield shown, *(point(part.get(figure)) for figure in TARGET_FIGURE_NAMES)

    def about(metrics: Metrics, found: Mapping[str, Any]) -> str:
        return (
            f"These figures are about the class {class_name(metrics, found['target'])}. Its prevalence "
            f"here, used for the predictive values, is {percent(found['prevalence'])}. The thresholds were "
            f"chosen on other lesions."
        )

    header = ("Operating point", *TARGET_FIGURE_NAMES.values())
    return _calibrated_section("Operating points", evaluations, "operating_points", header, rows, about)


def conformal_section(evaluations: Sequence[Metrics]) -> Html:
    """How often the sets of classes hold the true one, and how large they are."""

    def rows(metrics: Metrics, found: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        yield (name(model_of(metrics)),)
        for key, part in found["classes"].items():
            shown = "all classes" if key == "all" else class_name(metrics, key)
            yield shown, *(point(part.get(figure)) for figure in _SET_FIGURES)

    def about(_: Metrics, found: Mapping[str, Any]) -> str:
        return (
            f"The classes that are still possible. Target: {percent(found['nominal_coverage'])} of the "
            f"lesions have their true class in the set."
        )

    header = ("Images of", *_SET_FIGURES.values())
    return _calibrated_section("Prediction sets (conformal)", evaluations, "conformal", header, rows, about)


def risk_section(evaluations: Sequence[Metrics]) -> Html:
    """What withholding the least sure answers brings."""
    curves = [(metrics, metrics["risk_coverage"]) for metrics in evaluations if metrics.get("risk_coverage")]
    if not curves:
        return section("Answers withheld", paragraph("not measured"))
    rows: list[tuple[Any, ...]] = [
        ("area under the risk–coverage curve", *(point(found["aurc"]) for _, found in curves))
    ]
    rows += [
        (
            f"errors in the most certain {percent(coverage)}",
            *(_risk(found["curve"], index, coverage) for _, found in curves),
        )
        for index, coverage in enumerate(COVERAGES)
    ]
    rows += [
        (shown, *(point((metrics.get("abstention") or {}).get(key)) for metrics, _ in curves))
        for key, shown in _ABSTENTION_FIGURES.items()
        if any(key in (metrics.get("abstention") or {}) for metrics, _ in curves)
    ]
    return section(
        "Answers withheld",
        paragraph("Errors in the remaining answers when the least certain answers are withheld.", "quiet"),
        table(("", *(name(model_of(metrics)) for metrics, _ in curves)), rows),
    )


def _risk(curve: Sequence[Mapping[str, float]], index: int, coverage: float) -> str:
    """The risk at a coverage; with the coverage reached where equal confidences could not be told apart."""
    if index >= len(curve):
        return "not measured"
    risk, reached = percent(curve[index]["risk"]), percent(curve[index]["coverage"])
    return risk if reached == percent(coverage) else f"{risk} (of {reached})"


def stability_section(evaluations: Sequence[Metrics]) -> Html:
    """How often turning or mirroring the photo changes the answer."""
    found = [metrics for metrics in evaluations if metrics.get("stability")]
    if not found:
        said = "not measured: this needs the model and several views of each image"
        return section("Stability when the photo is turned and mirrored", paragraph(said))
    rows = [
        (shown, *(point(metrics["stability"].get(key)) for metrics in found))
        for key, shown in _STABILITY_FIGURES.items()
    ]
    return section(
        "Stability when the photo is turned and mirrored",
        table(("", *(name(model_of(metrics)) for metrics in found)), rows),
    )


def _calibrated_section(
    title: str,
    evaluations: Sequence[Metrics],
    key: str,
    header: Sequence[str],
    rows: Callable[[Metrics, Mapping[str, Any]], Iterable[Sequence[Any]]],
    about: Callable[[Metrics, Mapping[str, Any]], str] | None = None,
) -> Html:
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
    missing = [metrics for metrics in evaluations if not metrics.get(key)]
    shown = [row for metrics, found in measured for row in rows(metrics, found)]
    return section(
        title,
        _not_calibrated(missing),
        paragraph(about(*measured[-1]), "quiet") if about and measured else "",
        table(header, shown) if shown else "",
    )


def _not_calibrated(missing: Sequence[Metrics]) -> Html:
    if not missing:
        return Html()
    names = ", ".join(map(model_of, missing))
    return paragraph(
        f"Not measured for {names}: the checkpoint is not calibrated or not available, so its scores are "
        f"not probabilities."
    )


_FAILURE_COLUMNS = {
    "image_id": "image", "file": "file", "name": "file", "model": "model", "label_true": "label", "code": "code",
    "message": "reason",
}  # fmt: skip


def evaluation_sections(evaluations: Sequence[Metrics], curves: Html) -> Iterator[Html]:
    """All that is known of the models.

    Args:
        evaluations: Each with its `model`.
        curves: The section with the drawings, which belongs between the others.
    """
    if not any(metrics.get("n") for metrics in evaluations):
        said = "There are no figures, because no labelled image was read."
        yield section("Figures", paragraph(said))
        yield curves
        return
    yield _figures_section(evaluations)
    yield _confusion_section(evaluations)
    yield curves
    yield calibration_section(evaluations)
    yield operating_point_section(evaluations)
    yield conformal_section(evaluations)
    yield risk_section(evaluations)
    yield stability_section(evaluations)
    yield _slices_section(evaluations)


def comparison_section(comparisons: Sequence[Mapping[str, Any]]) -> Html:
    """Paired differences; nothing where none are given. Bold only where the interval excludes 0."""
    if not comparisons:
        return Html()
    names = [
        Html(f"{name(model_name(part['first']))} minus {name(model_name(part['second']))}")
        for part in comparisons
    ]
    rows = [
        (FIGURE_NAMES[figure], *(_difference(part["differences"].get(figure)) for part in comparisons))
        for figure in FIGURES
    ]
    rows.append(
        ("p of McNemar's test of the errors", *(_p_value(part.get("mcnemar")) for part in comparisons))
    )
    of_delong = "p of DeLong's test of the AUROC, target class against the rest"
    rows.append((of_delong, *(_p_value(part.get("delong")) for part in comparisons)))
    return section(
        "Paired comparisons",
        paragraph(
            "Differences on the same resamples of lesions, with 95\u00a0% intervals. Bold: the interval "
            "excludes 0. The two tests assume independent images; the intervals do not. If they disagree, "
            "use the interval. “Holm” marks p-values that are adjusted for the number of comparisons.",
            "quiet",
        ),
        table(("Figure", *names), rows),
    )


def failure_section(failures: Sequence[Mapping[str, Any]], failed: int) -> Html:
    """The images that were not read, or the statement that all were."""
    if not failures:
        said = (
            f"Images not read: {failed:,}. They are not part of any figure and are not listed here."
            if failed
            else "Every image was read."
        )
        return section("Images that were not read", paragraph(said))
    columns = [key for key in _FAILURE_COLUMNS if any(row.get(key) for row in failures)]
    rows = ([name(row.get(key) or "not recorded") for key in columns] for row in failures)
    return section(
        "Images that were not read",
        paragraph(f"{counted(len(failures), 'row')}. These images are not part of any figure.", "quiet"),
        table([_FAILURE_COLUMNS[key] for key in columns], rows),
    )


def provenance_section(evaluations: Sequence[Metrics], created: datetime) -> Html:
    """What it takes to make the figures again."""
    known: dict[str, Any] = {
        "Date": created.isoformat(timespec="seconds"),
        "Report written by": f"DermaDeiT {VERSION}",
    }
    for metrics in evaluations:
        views = metrics.get("views")
        points = metrics.get("operating_points") or {}
        named = [operating_point_title(key) for key, part in points.items() if isinstance(part, Mapping)]
        known[_column_name(metrics, evaluations)] = join(
            (
                text(
                    f"task {metrics.get('task', 'not recorded')}; {counted(metrics.get('n', 0), 'image')} "
                    f"read, {metrics.get('failed') or 0:,} not read; views: "
                    f"{views if views else 'not recorded'}; operating "
                    f"points: {', '.join(named) or 'none, not calibrated'}; evaluated by DermaDeiT "
                    f"{metrics.get('dermadeit_version', '(version not recorded)')}"
                ),
                Html(f"<br>weights SHA-256 {digest(metrics.get('weights_sha256'))}"),
            )
        )
    excluded = next((metrics["excluded"] for metrics in evaluations if metrics.get("excluded")), {})
    known["Left out"] = ", ".join(f"{key}: {count:,}" for key, count in excluded.items()) or "no image"
    method = next((part["intervals"]["method"] for part in evaluations if part.get("intervals")), "none")
    known["Intervals"] = method
    return section(TECHNICAL_DETAILS, facts(known))


def _column_name(metrics: Metrics, evaluations: Sequence[Metrics]) -> Html:
    """A model's name, with its number of views where the model was evaluated with several."""
    shown = model_of(metrics)
    if sum(model_of(other) == shown for other in evaluations) > 1:
        shown = f"{shown}, views: {metrics.get('views', 'not recorded')}"
    return name(shown)


def _figures_section(evaluations: Sequence[Metrics]) -> Html:
    lesions = next((part["intervals"].get("lesions") for part in evaluations if part.get("intervals")), None)
    images = max(metrics.get("n", 0) for metrics in evaluations)
    size = counted(images, "image") + (f" of {counted(lesions, 'lesion')}" if lesions else "")
    rows = [
        (FIGURE_NAMES[figure], *(_figure(metrics, figure) for metrics in evaluations)) for figure in FIGURES
    ]
    return section(
        "Figures",
        paragraph(f"{size}. In brackets: 95\u00a0% intervals, from resampled lesions.", "quiet"),
        table(("Figure", *(name(model_of(metrics)) for metrics in evaluations)), rows),
    )


def _figure(metrics: Metrics, figure: str) -> Html:
    if figure not in metrics:
        return Html("not measured")
    return number(metrics[figure], (metrics.get("intervals") or {}).get(figure))


def _confusion_section(evaluations: Sequence[Metrics]) -> Html:
    parts = []
    for metrics in evaluations:
        matrix = metrics.get("confusion_matrix")
        if not matrix:
            continue
        names = [class_name(metrics, key) for key in matrix["classes"]]
        rows = [
            (shown, f"{sum(counts):,}", *(_cell(count, sum(counts)) for count in counts))
            for shown, counts in zip(names, matrix["counts"], strict=True)
        ]
        header = ("True class", "images", *(f"answer {shown}" for shown in names))
        parts.append(join((heading(name(model_of(metrics))), table(header, rows))))
    return section("Confusion matrices", *parts)


def _cell(count: int, total: int) -> Html:
    share = f'<span class="interval">{percent(count / total)}</span>' if total else ""
    return Html(f"{count:,}{share}")


def _slices_section(evaluations: Sequence[Metrics]) -> Html:
    parts = []
    for metrics in evaluations:
        slices = metrics.get("slices") or _of_sources(metrics)
        rows, asides = [], []
        for attribute, part in slices.items():
            named = SLICED_BY.get(attribute, attribute)
            titled = capitalised(named)
            few = ", ".join(f"{value} ({count:,})" for value, count in (part.get("too_few") or {}).items())
            if few:
                asides.append(f"{titled}: not shown (fewer than {SMALLEST_SLICE} images): {few}.")
            if part.get("caveat"):
                asides.append(f"{titled}: {part['caveat']}")
            if part["slices"]:
                rows.append((titled,))
            rows += [
                (name(value), f"{figures['n']:,}", *(_figure(figures, key) for key in HEADLINE_FIGURES))
                for value, figures in part["slices"].items()
            ]
        shown = (
            table(("Images of", "images", *HEADLINE_FIGURES.values()), rows)
            if rows
            else paragraph(
                f"No subgroup has {SMALLEST_SLICE} images or more, or the table has no such columns."
            )
        )
        parts.append(
            join((heading(name(model_of(metrics))), shown, *(paragraph(aside, "quiet") for aside in asides)))
        )
    return section("Subgroups", *parts)


def _of_sources(metrics: Metrics) -> dict[str, Any]:
    sources = metrics.get("sources")
    return {"source": {"slices": sources}} if sources else {}


def _difference(part: Mapping[str, Any] | None) -> Html:
    if part is None or part["difference"] is None:
        return Html("undefined")
    value, interval = part["difference"], part["interval"]
    if interval is None:
        return Html(f'{value:+.3f}<span class="interval">no interval</span>')
    low, high = interval
    shown = f'{value:+.3f}<span class="interval">[{low:+.3f}, {high:+.3f}]</span>'
    return Html(f"<strong>{shown}</strong>" if low > 0 or high < 0 else shown)


def _p_value(test: Mapping[str, Any] | None) -> str:
    if test is None:
        return "undefined"
    value = test.get("p_value_holm", test["p_value"])
    shown = "< 0.001" if value < 0.001 else f"{value:.3f}"
    return f"{shown} (Holm)" if "p_value_holm" in test else shown


def evaluation_report(
    title: str,
    evaluations: Sequence[Mapping[str, Any]],
    figures: Sequence[tuple[str, Figure]] = (),
    failures: Sequence[Mapping[str, Any]] = (),
    notes: Sequence[str] = (),
    *,
    comparisons: Sequence[Mapping[str, Any]] = (),
    created: datetime | None = None,
) -> str:
    """One or more models on the same labelled images as an HTML document that needs no network.

    Args:
        title: Of the document.
        evaluations: Each `records.Evaluation.metrics` with the model's name added as `model`. All of one task.
        figures: Caption and figure, in the order in which they are shown.
        failures: Images that were not read: `image_id` or `file`, `model`, `code` and `message`.
        notes: What a reader must know first, as sentences.
        comparisons: As `comparison.Comparison.to_dict` gives them; a test may hold its `p_value_holm`.
        created: When, with a time zone; None for now.
    """
    created = created or datetime.now(UTC)
    drawn = join(_drawing(caption, figure) for caption, figure in figures)
    body = join(
        (
            # The page says it on top already.
            notice("Please note", [note for note in notes if note != DISCLAIMER]),
            *evaluation_sections(
                evaluations,
                section("Curves and figures", Html(f'<div class="figures">{drawn}</div>') if drawn else ""),
            ),
            comparison_section(comparisons),
            failure_section(
                failures, max((metrics.get("failed") or 0 for metrics in evaluations), default=0)
            ),
            provenance_section(evaluations, created),
        ),
        "\n",
    )
    return page(title, body, created)


def _drawing(caption: str, figure: Figure) -> Html:
    """A figure with its caption, unless that only repeats the figure's title."""
    repeated = figure.get_suptitle().startswith(caption)
    below = "" if repeated else f"<figcaption>{text(caption)}</figcaption>"
    return Html(f"<figure>{inline_svg(figure)}{below}</figure>")
