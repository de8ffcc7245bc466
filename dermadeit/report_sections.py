"""What an evaluation is reported in: a section for each question, a column or a group of rows for each model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from matplotlib.figure import Figure

from dermadeit.about import DISCLAIMER, VERSION
from dermadeit.calibration import operating_point_title
from dermadeit.display_names import Metrics, capitalised, class_name, model_of
from dermadeit.document import (
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
    percent,
    section,
    table,
    text,
)
from dermadeit.figures import inline_svg
from dermadeit.metrics import FIGURE_NAMES, FIGURES, HEADLINE_FIGURES
from dermadeit.model_specs import model_name
from dermadeit.predictions import SMALLEST_SLICE
from dermadeit.slices import SLICED_BY
from dermadeit.trust_sections import (
    calibration_section,
    conformal_section,
    operating_point_section,
    risk_section,
    stability_section,
)

_FAILURE_COLUMNS = {
    "image_id": "image", "file": "file", "name": "file", "model": "model", "label_true": "label", "code": "code",
    "message": "why",
}  # fmt: skip


def evaluation_sections(evaluations: Sequence[Metrics], curves: Html) -> Iterator[Html]:
    """All that is known of the models.

    Args:
        evaluations: Each with its `model`.
        curves: The section with the drawings, which belongs between the others.
    """
    if not any(metrics.get("n") for metrics in evaluations):
        said = "There are no figures: no labelled image was read, so there is nothing to compare with."
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
            "Differences on the same resamples of lesions, with 95\u00a0% intervals; bold where the interval "
            "excludes 0. The two tests take images as independent of each other, which the intervals do not: "
            "where they disagree, believe the interval. A p-value is adjusted for the number of comparisons "
            "(Holm) where it says so.",
            "quiet",
        ),
        table(("Figure", *names), rows),
    )


def failure_section(failures: Sequence[Mapping[str, Any]], failed: int) -> Html:
    """The images that were not read, or the statement that all were."""
    if not failures:
        said = (
            f"{failed:,} images were not read, and count in no figure. They are not listed here."
            if failed
            else "Every image was read."
        )
        return section("Images that were not read", paragraph(said))
    columns = [key for key in _FAILURE_COLUMNS if any(row.get(key) for row in failures)]
    rows = ([name(row.get(key) or "not recorded") for key in columns] for row in failures)
    return section(
        "Images that were not read",
        paragraph(f"{len(failures):,} rows. None of them counts in any figure.", "quiet"),
        table([_FAILURE_COLUMNS[key] for key in columns], rows),
    )


def provenance_section(evaluations: Sequence[Metrics], created: datetime) -> Html:
    """What it takes to make the figures again."""
    known: dict[str, Any] = {
        "Date": created.isoformat(timespec="seconds"),
        "Report made by": f"DermaDeiT {VERSION}",
    }
    for metrics in evaluations:
        views = metrics.get("views")
        points = metrics.get("operating_points") or {}
        named = [operating_point_title(key) for key, part in points.items() if isinstance(part, Mapping)]
        known[_column_name(metrics, evaluations)] = join(
            (
                text(
                    f"task {metrics.get('task', 'not recorded')}; {metrics.get('n', 0):,} images read, "
                    f"{metrics.get('failed') or 0:,} not; views: {views if views else 'not recorded'}; operating "
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
    return section("How this came about", facts(known))


def _column_name(metrics: Metrics, evaluations: Sequence[Metrics]) -> Html:
    """A model's name, with its number of views where the model was evaluated with several."""
    shown = model_of(metrics)
    if sum(model_of(other) == shown for other in evaluations) > 1:
        shown = f"{shown}, views: {metrics.get('views', 'not recorded')}"
    return name(shown)


def _figures_section(evaluations: Sequence[Metrics]) -> Html:
    lesions = next((part["intervals"].get("lesions") for part in evaluations if part.get("intervals")), None)
    images = max(metrics.get("n", 0) for metrics in evaluations)
    size = f"{images:,} images" + (f" of {lesions:,} lesions" if lesions else "")
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
        header = ("True class", "images", *(f"read as {shown}" for shown in names))
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
                asides.append(f"{titled}: not shown, under {SMALLEST_SLICE} images: {few}.")
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
                f"No part has at least {SMALLEST_SLICE} images, or nothing is known to part them by."
            )
        )
        parts.append(
            join((heading(name(model_of(metrics))), shown, *(paragraph(aside, "quiet") for aside in asides)))
        )
    return section("By source and by patient, site and photo", *parts)


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
