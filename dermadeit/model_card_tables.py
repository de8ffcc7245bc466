"""The model card's tables of results whose figures are too many to be listed one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dermadeit.result_tables import folded, markdown_table, point_text, value_text, words
from dermadeit.slices import SLICED_BY

TOLERANCE = 0.02
"""How far coverage may be from what it is meant to be before the card points it out."""

SERVED_EMBEDDING = "shallow"
"""The embedding that the app's own gate looks at."""

_SETS = {
    "coverage": "holds the truth",
    "mean_size": "classes in a set",
    "multiple": "several classes",
    "empty": "no class",
}


def conformal_tables(conformal: Mapping[str, Any]) -> list[str]:
    """Coverage of the sets by class, and by part of the images.

    Args:
        conformal: As `trust_metrics.conformal_figures` gives it, with `nominal_coverage`.
    """
    nominal, classes = conformal["nominal_coverage"], conformal["classes"]
    rows = [
        [key, value_text(part["coverage"]["n"]), *(_without_n(part[name]) for name in _SETS)]
        for key, part in classes.items()
    ]
    parts = {
        (SLICED_BY.get(attribute, words(attribute)), value): part
        for attribute, values in conformal.items()
        if attribute in SLICED_BY
        for value, part in values.items()
        if "all" in part
    }
    by_part = [
        [
            attribute,
            value,
            value_text(part["all"]["coverage"]["n"]),
            *(_coverage(part.get(key)) for key in classes),
        ]
        for (attribute, value), part in parts.items()
    ]
    off = [
        f"{where} {value_text(part['coverage']['value'])}"
        for where, part in _all_parts(classes, parts)
        if abs(part["coverage"]["value"] - nominal) > TOLERANCE
    ]
    said = f"Meant to hold the truth: {100 * nominal:.0f} % of each class. "
    said += (
        f"More than {100 * TOLERANCE:.0f} points off: {'; '.join(off)}."
        if off
        else f"Nothing is more than {100 * TOLERANCE:.0f} points off."
    )
    return [
        said,
        markdown_table(["true class", "images", *_SETS.values()], rows),
        folded(
            "Share that holds the truth, by part", markdown_table(["by", "part", "images", *classes], by_part)
        ),
    ]


def out_of_distribution_tables(report: Mapping[str, Any]) -> list[str]:
    """Which score tells what is no lesion, and what the gates refuse.

    Args:
        report: Of one checkpoint, as `benchmarks/out_of_distribution.py` writes it.
    """
    scores = [
        [
            score["score"], score["embedding"], value_text(score["auroc_not_skin"]),
            value_text(score["refused"]["not_skin"]["2%"]), value_text(score.get("auroc_near")),
            value_text(max(score["refused_of_unseen_collections"].values(), default=None)),
        ]
        for score in report["scores"]
    ]  # fmt: skip
    served = next(gate for gate in report["gates"] if gate["embedding"] == SERVED_EMBEDDING)
    refused = [
        [words(name), value_text(report["n"].get(name)), value_text(part["refused"])]
        for name, part in served["pictures"].items()
    ]
    lines = [markdown_table(["pictures", "how many", "refused by the gates"], refused)]
    confident = report.get("confident_answers")
    if confident:
        lines.append(
            f"A probability of 0.9 or more goes to {value_text(confident['near'])} of the lesions of diagnoses "
            f"outside the task, and to {value_text(confident['of_the_task'])} of those of the task."
        )
    header = [
        "score", "embedding", "AUROC, not skin", "not skin refused where 2 % of lesions are",
        "AUROC, other diagnoses",
        "lesions refused of a collection left out, at most",
    ]  # fmt: skip
    return [*lines, folded(f"The {len(scores)} scores that were compared", markdown_table(header, scores))]


def _all_parts(
    classes: Mapping[str, Any], parts: Mapping[tuple[str, str], Mapping[str, Any]]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield from ((f"class {key}" if key != "all" else "all classes", part) for key, part in classes.items())
    for (attribute, value), part in parts.items():
        yield f"{attribute} {value}", part["all"]


def _coverage(part: Mapping[str, Any] | None) -> str:
    return "–" if part is None else _without_n(part["coverage"])


def _without_n(point: Mapping[str, Any]) -> str:
    return point_text({key: value for key, value in point.items() if key != "n"})
