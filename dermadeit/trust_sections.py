"""What an evaluation says of calibration, decisions, sets of classes, withheld answers and stability."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from dermadeit.calibration import operating_point_title
from dermadeit.display_names import Metrics, class_name, model_of
from dermadeit.document import Html, name, paragraph, percent, point, section, table
from dermadeit.metrics import FIGURE_NAMES
from dermadeit.trust_metrics import COVERAGES

_POINT_FIGURES = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "positive predictive value",
    "npv": "negative predictive value",
}
_SET_FIGURES = {
    "coverage": "coverage of images",
    "lesion_coverage": "coverage of lesions",
    "mean_size": "mean size",
    "empty": "share empty",
    "multiple": "share with several",
}
_ABSTENTION_FIGURES = {
    "abstained": "images without an answer",
    "accuracy_answered": "accuracy of the answers given",
    "accuracy_withheld": "accuracy of the answers withheld",
}
_STABILITY_FIGURES = {
    "flip_rate": "views with another answer",
    "images_with_flips": "images with any such view",
    "mean_spread": "mean movement of the score",
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
                shown = f"{operating_point_title(key)}, from {percent(part['threshold'])} on"
                yield shown, *(point(part.get(figure)) for figure in _POINT_FIGURES)

    def about(metrics: Metrics, found: Mapping[str, Any]) -> str:
        return (
            f"For {class_name(metrics, found['target'])}, {percent(found['prevalence'])} of these images; the "
            "predictive values hold for that share. The thresholds were chosen on other lesions."
        )

    header = ("Operating point", *_POINT_FIGURES.values())
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
            f"Classes that are not ruled out. {percent(found['nominal_coverage'])} of the lesions are meant to "
            "have their own class among them."
        )

    header = ("Images of", *_SET_FIGURES.values())
    return _calibrated_section("Conformal sets", evaluations, "conformal", header, rows, about)


def risk_section(evaluations: Sequence[Metrics]) -> Html:
    """What withholding the least sure answers brings."""
    curves = [(metrics, metrics["risk_coverage"]) for metrics in evaluations if metrics.get("risk_coverage")]
    if not curves:
        return section("Withholding answers", paragraph("What withholding brings was not measured."))
    rows: list[tuple[Any, ...]] = [("area under the curve", *(point(found["aurc"]) for _, found in curves))]
    rows += [
        (
            f"errors among the surest {percent(coverage)}",
            *(_risk(found["curve"], index, coverage) for _, found in curves),
        )
        for index, coverage in enumerate(COVERAGES)
    ]
    rows += [
        (shown, *(point((metrics.get("abstention") or {}).get(key)) for metrics, _ in curves))
        for key, shown in _ABSTENTION_FIGURES.items()
        if any(metrics.get("abstention") for metrics, _ in curves)
    ]
    return section(
        "Withholding answers",
        paragraph("What is wrong among the answers that are kept when the least sure are withheld.", "quiet"),
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
        said = "Not measured: it takes several views of each image, and the model to show them to."
        return section("Stability under turning and mirroring", paragraph(said))
    rows = [
        (shown, *(point(metrics["stability"].get(key)) for metrics in found))
        for key, shown in _STABILITY_FIGURES.items()
    ]
    return section(
        "Stability under turning and mirroring",
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
        f"Not measured for {names}: the checkpoint was not calibrated, or is not at hand, so its scores can't be "
        "taken as probabilities and nothing is decided with them."
    )
