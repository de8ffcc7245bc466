"""Models on the same images, step by step, for the page and for the API alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dermadeit.errors import DermaDeiTError
from dermadeit.evaluation.comparison import (
    ComparedModel,
    Disagreement,
    PairedResult,
    compare_with,
    compute_kappas,
    find_disagreements,
)
from dermadeit.evaluation.predictions import Measurement, measure
from dermadeit.inference.predictor import DEFAULT_VIEWS
from dermadeit.inference.side_by_side import Latency, measure_latency
from dermadeit.inference.zoo import ModelZoo
from dermadeit.models.specs import OURS
from dermadeit.reporting.format import count, counted
from dermadeit.tasks import Task


@dataclass(frozen=True)
class Cost:
    """What it takes to ask a model that is here.

    Attributes:
        latency: Measured with as many views as its predictions have.
        parameters: Number of parameters.
    """

    latency: Latency
    parameters: int


@dataclass(frozen=True, eq=False)
class ImagesComparison:
    """As much as is known of a comparison on many images.

    Attributes:
        task: What was asked.
        compared: The models, on the same images.
        is_shipped: Whether these are the shipped predictions, so that the images are known to be those of ISIC.
        figures: Title of each model that was measured already to its figures with intervals.
        paired: One model against each of the others; empty before, and without true classes.
        is_compared: Whether the two that follow are known.
        agreeing: Titles of every two models to Cohen's kappa between their answers.
        differing: The images that they answer differently.
        is_finished: Whether all of it is known, the costs last.
        costs: Title of each model that is here to what it takes to ask it.
    """

    task: Task
    compared: tuple[ComparedModel, ...]
    is_shipped: bool = False
    figures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    paired: tuple[PairedResult, ...] = ()
    is_compared: bool = False
    agreeing: Mapping[tuple[str, str], float | None] = field(default_factory=dict)
    differing: tuple[Disagreement, ...] = ()
    is_finished: bool = False
    costs: Mapping[str, Cost] = field(default_factory=dict)

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

    @property
    def summary(self) -> str:
        """What came of it, in one or two sentences; only once it is finished."""
        images = counted(self.images, "image")
        if any(model.dropped for model in self.compared):
            images += " that all models have read"
        ending = "" if self.is_labelled else " Without the true classes there are no figures."
        if len(self.compared) == 1:
            alone = f"Done: {self.reference.title} on {images}. There is no other model to compare it with."
            return alone + ending
        done = (
            f"Done: {len(self.compared)} models on {images}. Different answers: {count(len(self.differing))}."
        )
        return f"{done} {self._summarise_differences()}" if self.is_labelled else done + ending

    def _summarise_differences(self) -> str:
        apart = [
            result.comparison.second
            for result in self.paired
            if result.comparison.differences["accuracy"].excludes_zero
        ]
        found = (
            f"significant difference in accuracy to {', '.join(apart)}"
            if apart
            else "no significant difference in accuracy to the other models"
        )
        return f"{self.reference.title}: {found}."


def compare_in_steps(zoo: ModelZoo, begun: ImagesComparison) -> Iterator[tuple[str, ImagesComparison]]:
    """Measures, compares and times the models.

    Yields:
        What is done next, as a sentence, and as much as is known; at last the summary and all of it.
    """
    found, measured = begun, {}
    for number, model in enumerate(begun.compared if begun.is_labelled else (), start=1):
        yield f"Measuring {model.title}, {number} of {len(begun.compared)} …", found
        measured[model.title] = measurement = measure(model.predictions)
        found = replace(found, figures={**found.figures, model.title: measurement.to_dict()})
    yield "Comparing …", found
    found = replace(
        found,
        paired=_against_others(begun, measured),
        is_compared=True,
        agreeing=compute_kappas(begun.compared),
        differing=find_disagreements(begun.compared),
    )
    yield "Timing the models that are here …", found
    found = replace(found, costs=_costs(zoo, begun), is_finished=True)
    yield found.summary, found


def _against_others(begun: ImagesComparison, measured: Mapping[str, Measurement]) -> tuple[PairedResult, ...]:
    if not measured:
        return ()
    reference = begun.reference.title
    return compare_with(measured[reference], [part for title, part in measured.items() if title != reference])


def _costs(zoo: ModelZoo, begun: ImagesComparison) -> dict[str, Cost]:
    here = {entry.name for entry in zoo.entries(begun.task.key) if entry.available}
    costs = {}
    for model in begun.compared:
        # A table may claim any model and any number of views.
        if model.name not in here or not 1 <= model.predictions.views <= DEFAULT_VIEWS:
            continue
        try:
            predictor = zoo.predictor(begun.task.key, model.name)
        except DermaDeiTError:
            # Predictions are compared whatever state the weights here are in.
            continue
        latency = measure_latency(predictor, (model.predictions.views,))
        costs[model.title] = Cost(latency, predictor.checkpoint.parameters)
    return costs
