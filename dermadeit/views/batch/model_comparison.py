"""Models on the same images, step by step, for the page and for the API alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dermadeit.evaluation.comparison import (
    ComparedModel,
    Disagreement,
    PairedResult,
    compare_with,
    compute_kappas,
    find_disagreements,
)
from dermadeit.evaluation.predictions import Measurement, measure
from dermadeit.metrics.classification import HEADLINE_FIGURES
from dermadeit.models.specs import OURS
from dermadeit.reporting.format import decimal
from dermadeit.reporting.names import capitalised
from dermadeit.reporting.templates import render
from dermadeit.tasks import Task

DIFFERING = "differing"
"""What the button asks for that shows the images on which the models differ."""


@dataclass(frozen=True, eq=False)
class ModelComparison:
    """As much as is known of a comparison on many images.

    Attributes:
        task: What was asked.
        compared: The models, on the same images.
        figures: Title of each model that was measured already to its figures with intervals.
        paired: One model against each of the others; empty before, and without true classes.
        agreeing: Titles of every two models to Cohen's kappa between their answers.
        differing: The images that they answer differently.
        is_finished: Whether all of it is known.
    """

    task: Task
    compared: tuple[ComparedModel, ...]
    figures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    paired: tuple[PairedResult, ...] = ()
    agreeing: Mapping[tuple[str, str], float | None] = field(default_factory=dict)
    differing: tuple[Disagreement, ...] = ()
    is_finished: bool = False

    @property
    def is_labelled(self) -> bool:
        """Whether the true classes are known."""
        return self.compared[0].labelled

    @property
    def reference(self) -> ComparedModel:
        """The model that all others are compared with: ours where it takes part."""
        return next((model for model in self.compared if model.name == OURS), self.compared[0])

    @property
    def images(self) -> int:
        """How many images all of the models have read."""
        return len(self.compared[0].predictions)

    @property
    def notes(self) -> tuple[str, ...]:
        """What had to be assumed of the tables, as sentences."""
        return tuple(dict.fromkeys(note for model in self.compared for note in model.predictions.notes))

    def to_dict(self) -> dict[str, Any]:
        """Differences, agreement and the number of images with different answers, JSON-ready."""
        return {
            "comparisons": [result.to_dict() for result in self.paired],
            "kappas": [
                {"first": first, "second": second, "cohen_kappa": value}
                for (first, second), value in self.agreeing.items()
            ],
            "disagreements": len(self.differing),
        }


def compare_in_steps(begun: ModelComparison) -> Iterator[tuple[str, ModelComparison]]:
    """Measures and compares the models.

    Yields:
        What is done next, as a sentence, and as much as is known; at last an empty sentence and all of it.
    """
    found, measured = begun, {}
    for number, model in enumerate(begun.compared if begun.is_labelled else (), start=1):
        yield f"Comparing {model.title}, {number} of {len(begun.compared)} …", found
        measured[model.title] = measurement = measure(model.predictions)
        found = replace(found, figures={**found.figures, model.title: measurement.to_dict()})
    yield "Comparing the answers …", found
    yield (
        "",
        replace(
            found,
            paired=_against_others(begun, measured),
            agreeing=compute_kappas(begun.compared),
            differing=find_disagreements(begun.compared),
            is_finished=True,
        ),
    )


def _against_others(begun: ModelComparison, measured: Mapping[str, Measurement]) -> tuple[PairedResult, ...]:
    if not measured:
        return ()
    reference = begun.reference.title
    return compare_with(measured[reference], [part for title, part in measured.items() if title != reference])


def differences_html(found: ModelComparison | None) -> str:
    """How far models differ, agree and which images they answer differently; empty before that is known."""
    if found is None or not found.is_finished:
        return ""
    return render(
        "views/batch/differences.html",
        found=found,
        names=[capitalised(name) for name in HEADLINE_FIGURES.values()],
        shown=tuple(HEADLINE_FIGURES),
        target=found.task.name_in_text(found.task.target),
        titles=[model.title for model in found.compared],
        kappas=_kappas(found),
        apart=[
            result.comparison.second
            for result in found.paired
            if result.comparison.differences["accuracy"].excludes_zero
        ],
        differing=DIFFERING,
    )


def _kappas(found: ModelComparison) -> list[list[str]]:
    """How far every two models give the same answers, right or wrong: a row for each model but the last."""
    known, titles = found.agreeing, [model.title for model in found.compared]
    return [
        [row, *(decimal(known[row, column], 2) if (row, column) in known else "" for column in titles[1:])]
        for row in titles[:-1]
    ]
