"""Figures of result files as text and Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dermadeit.errors import ConfigurationError
from dermadeit.evaluation.comparison import Difference
from dermadeit.files import write_atomically
from dermadeit.metrics.classification import HEADLINE_FIGURES
from dermadeit.reporting.format import (
    NOTHING,
    any_value,
    bounds,
    count,
    decimal,
    difference,
    figure,
)

STAGE_FIGURES = ("accuracy", "cohen_kappa", "f1_macro", "roc_auc")
"""The figures that are shown of the trainings of a stage."""

STAGE_DIFFERENCE = "difference of accuracy"

_POINT_KEYS = ("value", "mean", "difference")

_LONGEST_OPEN = 24
"""Rows from which on a table is folded."""

_UNSHOWN = frozenset(
    {
        "disclaimer", "dermadeit_version", "weights_sha256", "task", "model", "intervals", "interval_method",
        "method", "confusion_matrix", "curve",
    }
)  # fmt: skip
"""Keys that are no figures, or that another section shows."""


def figures_table(content: Any) -> str:
    """Every figure of a result whose layout is its writer's own, one a row, named by the keys that lead to it.

    Args:
        content: JSON values. An object with one of `value`, `mean` and `difference` is one figure, with its
            `interval` and `n`; plain numbers get theirs from `intervals` beside them.
    """
    rows = [[" / ".join(path), shown] for path, shown in _leaves(content)]
    table = markdown_table(["figure", "value"], rows)
    return folded(f"All {len(rows)} figures", table) if len(rows) > _LONGEST_OPEN else table


def folded(summary: str, table: str) -> str:
    """A table that opens on a click, where Markdown is shown as a page."""
    return f"<details><summary>{summary}</summary>\n\n{table}\n\n</details>"


def _leaves(
    content: Any, path: tuple[str, ...] = (), interval: Any = None
) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(content, Mapping) and any(key in content for key in _POINT_KEYS):
        yield path, point_text(content)
    elif isinstance(content, Mapping):
        intervals = content.get("intervals") or {}
        for key, part in content.items():
            if key not in _UNSHOWN:
                yield from _leaves(part, (*path, words(str(key))), intervals.get(key))
    elif isinstance(content, list) and any(isinstance(part, Mapping | list) for part in content):
        for index, part in enumerate(content, start=1):
            yield from _leaves(part, (*path, str(index)))
    elif isinstance(content, list):
        yield path, ", ".join(map(any_value, content)) or "none"
    else:
        yield path, f"{any_value(content)} {bounds(interval)}".rstrip()


def point_text(point: Mapping[str, Any]) -> str:
    """A figure that is an object, such as `{"value": 0.9, "interval": [0.8, 0.95], "n": 100}`."""
    value = next(point[key] for key in _POINT_KEYS if key in point)
    images = f" (n = {count(point['n'])})" if "n" in point else ""
    return figure(value, point.get("interval")) + images


def figure_text(figures: Mapping[str, Any], name: str) -> str:
    """A figure that is a number with its interval beside it, as `predictions.Measurement.to_dict` gives them."""
    return figure(figures.get(name), figures.get("intervals", {}).get(name))


def words(name: str) -> str:
    """A key of a result for people."""
    return HEADLINE_FIGURES.get(name, name.replace("_", " "))


def difference_text(found: Difference) -> str:
    """A difference with its interval, bold where that excludes 0."""
    text = difference(found.difference, found.interval)
    return f"**{text}**" if found.excludes_zero else text


def stage_table(trainings: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a stage of trainings, without their differences to each other.

    Args:
        trainings: As `train/programme_report.py` writes them.
    """
    is_repeated = any(len(training.get("by_seed", {})) > 1 for training in trainings)
    header = ["training", *(HEADLINE_FIGURES[name] for name in STAGE_FIGURES)]
    rows = [
        [
            str(training["name"]),
            *(figure_text(training["figures"], name) for name in STAGE_FIGURES),
            *([_by_seed(training)] if is_repeated else []),
        ]
        for training in trainings
    ]
    return [*header, *(["accuracy by seed"] if is_repeated else [])], rows


def _by_seed(training: Mapping[str, Any]) -> str:
    by_seed = training.get("by_seed", {}).values()
    return ", ".join(decimal(figures["accuracy"]) for figures in by_seed) or NOTHING


def stage_difference(training: Mapping[str, Any]) -> Difference | None:
    """How much more accurate a training of a stage is than what it is compared with; None if that is nothing."""
    found = training.get("differences", {}).get("accuracy")
    return found and Difference(**found)


def marks(name: str) -> tuple[str, str]:
    """The comments that stand before and after the tables of a name in a Markdown file."""
    return f"<!-- {name} -->", f"<!-- /{name} -->"


def around_marks(document: Path, name: str) -> tuple[str, str]:
    """A Markdown file up to the first of a name's marks and from the second one on, the marks included.

    Raises:
        ConfigurationError: It does not have each mark once.
    """
    start, end = marks(name)
    text = document.read_text(encoding="utf-8")
    if text.count(start) != 1 or text.count(end) != 1:
        raise ConfigurationError(
            f"“{document.name}” has no place for the tables: write {start} and {end} into it."
        )
    before, rest = text.split(start)
    return before + start, end + rest.split(end)[1]


def write_between_marks(document: Path, name: str, text: str) -> None:
    """Replaces what a Markdown file has between a name's two marks.

    Raises:
        ConfigurationError: It does not have each mark once.
    """
    before, after = around_marks(document, name)
    whole = f"{before}\n\n{text.strip()}\n\n{after}"
    write_atomically(document, lambda partial: partial.write_text(whole, encoding="utf-8"))


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; every row has as many cells as the header."""
    lines = [list(header), ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |" for cells in lines
    )
