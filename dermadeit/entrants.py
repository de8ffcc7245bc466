"""Several models on the same labelled images, from their predictions alone.

Shapes: N images, K classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from types import MappingProxyType
from typing import Any

import numpy as np
from sklearn.metrics import cohen_kappa_score

from dermadeit.comparison import Comparison, compare, holm
from dermadeit.errors import ManifestError
from dermadeit.model_specs import model_name
from dermadeit.predictions import Measurement, PredictionSet, most_views, on_shared_images
from dermadeit.records import ABSTAIN
from dermadeit.tasks import Task


@dataclass(frozen=True, eq=False)
class Entrant:
    """One model's predictions in a comparison on labelled images.

    Attributes:
        name: Name of the model as its predictions give it.
        title: Name shown to people, different for each entrant.
        predictions: What it said; `predictions.model` is the title.
        dropped: Images that it has read and that are not among them, since another model has not.
        labelled: Whether the labels of the predictions are the true classes; else they stand for nothing.
    """

    name: str
    title: str
    predictions: PredictionSet
    dropped: int = 0
    labelled: bool = True


@dataclass(frozen=True, eq=False)
class PairedResult:
    """One model against another on the same images, among several such comparisons.

    Attributes:
        comparison: Differences, first minus second, and tests.
        mcnemar_holm: p-value of McNemar's test, adjusted for the number of comparisons.
        delong_holm: The same of DeLong's test; None where that is undefined.
    """

    comparison: Comparison
    mcnemar_holm: float
    delong_holm: float | None

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-ready values: as `Comparison.to_dict` gives them, each test with `p_value_holm`."""
        content = self.comparison.to_dict()
        for test, p_value in (("mcnemar", self.mcnemar_holm), ("delong", self.delong_holm)):
            if content[test] is not None:
                content[test]["p_value_holm"] = p_value
        return content


@dataclass(frozen=True)
class Disagreement:
    """An image of which several models don't say the same.

    Attributes:
        image_id: Identifier of the image.
        label: Key of the true class, or an empty string where it is unknown.
        source: Name of the collection, or an empty string.
        answers: Title of each model to the key of its most probable class.
        scores: Title of each model to its score of the target class, 0 to 1.
        withheld: Titles of the models whose answer is to be withheld, as far as that is known.
    """

    image_id: str
    label: str
    source: str
    answers: Mapping[str, str]
    scores: Mapping[str, float]
    withheld: tuple[str, ...] = ()

    @property
    def wrong(self) -> int:
        """How many models are wrong."""
        return sum(answer != self.label for answer in self.answers.values())

    @property
    def spread(self) -> float:
        """How far the scores of the target class lie apart, 0 to 1."""
        return max(self.scores.values()) - min(self.scores.values())


def gather(
    tables: Iterable[tuple[str, Sequence[PredictionSet]]],
    task: Task,
    titles: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Entrant, ...]:
    """The models to compare, each with the most views it was asked with, on the images that all of them have read.

    Args:
        tables: Name of each table and the predictions in it, which may be of other tasks too.
        task: The task to compare them for.
        titles: Name of a model to the title to use instead of that of its spec.

    Returns:
        One entrant for each table and model. All hold the same images in the same order.

    Raises:
        ManifestError: No table has predictions for the task, or the models have no image in common, or disagree
            about the truth of one.
    """
    best = {
        (table, predictions.model): predictions
        for table, sets in tables
        for predictions in most_views(part for part in sets if part.task.key == task.key)
    }
    if not best:
        raise ManifestError(
            f"None of the tables holds predictions for the task “{task.key}”. Choose the other task, or a "
            "predictions.csv of this one.",
            code="no_predictions",
        )
    title_of = _titles(list(best), titles)
    titled = [replace(predictions, model=title_of[key]) for key, predictions in best.items()]
    return tuple(
        Entrant(model, shared.model, shared, len(whole) - len(shared))
        for (_, model), whole, shared in zip(best, titled, on_shared_images(titled), strict=True)
    )


def compare_with(reference: Measurement, others: Sequence[Measurement]) -> tuple[PairedResult, ...]:
    """One model against each of the others, with p-values adjusted for how many there are (Holm).

    Raises:
        ManifestError: They don't hold the same images with the same labels and lesions.
    """
    comparisons = [compare(reference, other) for other in others]
    delong = [comparison.delong.p_value for comparison in comparisons if comparison.delong is not None]
    adjusted = iter(holm(delong))
    return tuple(
        PairedResult(comparison, p_value, None if comparison.delong is None else next(adjusted))
        for comparison, p_value in zip(
            comparisons, holm([comparison.mcnemar.p_value for comparison in comparisons]), strict=True
        )
    )


def kappas(entrants: Sequence[Entrant]) -> dict[tuple[str, str], float | None]:
    """Cohen's kappa between the answers of every two models, by their titles; None where it is undefined."""
    return {
        (first.title, second.title): _kappa(first.predictions.answers, second.predictions.answers)
        for first, second in combinations(entrants, 2)
    }


def disagreements(entrants: Sequence[Entrant]) -> tuple[Disagreement, ...]:
    """The images that the models answer differently, those whose target scores lie furthest apart first."""
    images, task = entrants[0].predictions, entrants[0].predictions.task
    answers = np.stack([entrant.predictions.answers for entrant in entrants])
    scores = np.stack([entrant.predictions.target_scores for entrant in entrants])
    titles = [entrant.title for entrant in entrants]
    found = [
        Disagreement(
            images.image_ids[index],
            task.classes[images.labels[index]] if entrants[0].labelled else "",
            images.sources[index],
            dict(zip(titles, (task.classes[answer] for answer in answers[:, index]), strict=True)),
            dict(zip(titles, scores[:, index].tolist(), strict=True)),
            tuple(entrant.title for entrant in entrants if _is_withheld(entrant.predictions, index)),
        )
        for index in np.flatnonzero((answers != answers[0]).any(axis=0))
    ]
    return tuple(sorted(found, key=lambda image: (-image.spread, image.image_id)))


def _is_withheld(predictions: PredictionSet, index: int) -> bool:
    return bool(predictions.cautions) and predictions.cautions[index].verdict == ABSTAIN


def _titles(keys: Sequence[tuple[str, str]], given: Mapping[str, str]) -> dict[tuple[str, str], str]:
    """A title for each table and model, numbered where another has it already.

    The table is named where several hold the same model.
    """
    times = Counter(model for _, model in keys)
    titles: dict[tuple[str, str], str] = {}
    for table, model in keys:
        title = given.get(model) or model_name(model)
        title = title if times[model] == 1 else f"{title}, {table}"
        numbered, number = title, 1
        while numbered in titles.values():
            number += 1
            numbered = f"{title} ({number})"
        titles[table, model] = numbered
    return titles


def _kappa(first: np.ndarray, second: np.ndarray) -> float | None:
    # Where both name one class throughout, chance alone would agree as well.
    if len(np.union1d(first, second)) == 1:
        return None
    return float(cohen_kappa_score(first, second))
