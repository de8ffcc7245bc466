"""Models on the same images: differences with intervals, tests of whether they are more than chance, and the
images that they answer differently.

The intervals resample lesions. McNemar's and DeLong's tests are the field's standard and treat every image as
independent of the others, which images of one lesion are not: where they disagree with an interval, believe the
interval.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from scipy import stats

from dermadeit.errors import ErrorCode, ResultFileError
from dermadeit.evaluation.predictions import (
    Measurement,
    PredictionSet,
    ServedFlags,
    check_same_truth,
    keep_shared_images,
    measure,
    select_most_views,
    select_task,
)
from dermadeit.inference.records import ABSTAIN
from dermadeit.metrics.classification import FIGURES, percentile_intervals
from dermadeit.models.specs import model_name
from dermadeit.tasks import OWN, Task
from dermadeit.trust.gating import answer_state, gate_status

EXACT_BELOW = 25
"""Discordant images below which McNemar's test is exact."""

_SHOWN = 3


class Figures(Protocol):
    """Each of `metrics.FIGURES`, and each on resamples, as a `predictions.Measurement` holds them."""

    @property
    @abstractmethod
    def figures(self) -> Mapping[str, Any]:
        """Figure name to its value, None where it is undefined."""

    @property
    @abstractmethod
    def resampled(self) -> Mapping[str, np.ndarray]:
        """Figure name to float [resamples]."""


@dataclass(frozen=True)
class Difference:
    """One figure of the first model minus that of the second.

    Attributes:
        difference: The difference, None where the figure is undefined for either.
        interval: The middle 95 % of the paired bootstrap, None where too few resamples define it.
    """

    difference: float | None
    interval: tuple[float, float] | None

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of 0."""
        return self.interval is not None and (self.interval[0] > 0 or self.interval[1] < 0)


@dataclass(frozen=True)
class McNemarTest:
    """Do two models err equally often? (McNemar 1947).

    Attributes:
        only_first_right: Images that only the first model reads right.
        only_second_right: Images that only the second model reads right.
        p_value: Two-sided.
        exact: Whether the binomial test was used (under 25 discordant images), else the chi-squared
            approximation with Edwards's (1948) continuity correction.
    """

    only_first_right: int
    only_second_right: int
    p_value: float
    exact: bool


@dataclass(frozen=True)
class DeLongTest:
    """Do two scores rank the same images equally well? (DeLong, DeLong and Clarke-Pearson 1988).

    Attributes:
        area_first: Area of the first score under the ROC curve.
        area_second: That of the second score.
        standard_error: Of the difference.
        p_value: Two-sided, of the difference.
    """

    area_first: float
    area_second: float
    standard_error: float
    p_value: float


@dataclass(frozen=True)
class Comparison:
    """One model against another.

    Attributes:
        first: Name of the first model.
        second: Name of the second model.
        differences: Each of `metrics.FIGURES` to its difference, first minus second.
        mcnemar: Test of the errors.
        delong: Test of the AUROC of the class that must not be missed, `Task.target`, against the rest; None
            where there are fewer than two images on either side.
    """

    first: str
    second: str
    differences: Mapping[str, Difference]
    mcnemar: McNemarTest
    delong: DeLongTest | None

    def to_dict(self) -> dict[str, Any]:
        """The comparison as JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class ComparedModel:
    """One model's predictions in a comparison on labelled images.

    Attributes:
        name: Name of the model as its predictions give it.
        title: Name shown to people, different for each of them.
        predictions: Its answers; `predictions.model` is the title.
        dropped: Images that it has read and that are not among them, since another model has not.
        labelled: Whether the labels of the predictions are the true classes; else they stand for nothing.
    """

    name: str
    title: str
    predictions: PredictionSet
    dropped: int = 0
    labelled: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Which answers these are, as JSON-ready values."""
        return {
            "model": self.name,
            "views": self.predictions.views,
            "left_out": self.dropped,
            "weights_sha256": self.predictions.weights_sha256 or None,
        }


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
        served: Title of each model to what its answer was served with, as far as that is known.
    """

    image_id: str
    label: str
    source: str
    answers: Mapping[str, str]
    scores: Mapping[str, float]
    served: Mapping[str, ServedFlags] = field(default_factory=dict)

    @property
    def withheld(self) -> tuple[str, ...]:
        """Titles of the models whose answer is withheld."""
        return tuple(title for title, flags in self.served.items() if flags.verdict == ABSTAIN)

    def status(self, title: str) -> str:
        """Whether a model's answer is withheld or has a warning, as `gating.gate_status` says it."""
        return gate_status(self.served.get(title, ServedFlags()))

    def state(self, title: str) -> str:
        """The same as `gating.answer_state` gives it."""
        return answer_state(self.served.get(title, ServedFlags()))

    @property
    def wrong(self) -> int:
        """How many models are wrong."""
        return sum(answer != self.label for answer in self.answers.values())

    @property
    def spread(self) -> float:
        """How far the scores of the target class lie apart, 0 to 1."""
        return max(self.scores.values()) - min(self.scores.values())


def compare(first: Measurement, second: Measurement) -> Comparison:
    """Compares two models on the same images.

    Args:
        first: One model.
        second: The other, its images in any order.

    Raises:
        ResultFileError: They don't hold the same images with the same labels and lesions.
    """
    second = align(first.predictions, second)
    ours, theirs = first.predictions, second.predictions
    target = ours.task.index_of(ours.task.target)
    return Comparison(
        ours.model,
        theirs.model,
        paired_differences(first, second),
        mcnemar_test(ours.hits, theirs.hits),
        delong_test(ours.labels == target, ours.target_scores, theirs.target_scores),
    )


def paired_differences(first: Figures, second: Figures) -> dict[str, Difference]:
    """Each of `metrics.FIGURES` to its difference, first minus second.

    Args:
        first: Figures of one model.
        second: Figures of another, on the same images in the same order, resampled alike.
    """
    intervals = percentile_intervals(
        {name: first.resampled[name] - second.resampled[name] for name in FIGURES}
    )
    differences = {}
    for name in FIGURES:
        values = first.figures[name], second.figures[name]
        differences[name] = Difference(
            None if None in values else values[0] - values[1],
            (intervals[name][0], intervals[name][1]) if name in intervals else None,
        )
    return differences


def mcnemar_test(first_right: np.ndarray, second_right: np.ndarray) -> McNemarTest:
    """McNemar's test.

    Args:
        first_right: bool [N], whether the first model is right.
        second_right: bool [N], whether the second is, on the same images.
    """
    only_first = int((first_right & ~second_right).sum())
    only_second = int((second_right & ~first_right).sum())
    discordant = only_first + only_second
    exact = discordant < EXACT_BELOW
    if not discordant:
        p_value = 1.0
    elif exact:
        p_value = float(stats.binomtest(only_first, discordant).pvalue)
    else:
        statistic = max(abs(only_first - only_second) - 1, 0) ** 2 / discordant
        p_value = float(stats.chi2.sf(statistic, df=1))
    return McNemarTest(only_first, only_second, p_value, exact)


def delong_test(positive: np.ndarray, first: np.ndarray, second: np.ndarray) -> DeLongTest | None:
    """DeLong's test by midranks, in O(N log N) (Sun and Xu 2014, IEEE Signal Processing Letters 21).

    Args:
        positive: bool [N].
        first: float [N], score of the first model, higher for positives.
        second: float [N], score of the second on the same images.

    Returns:
        None where there are fewer than two positives or two negatives.
    """
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if min(positives, negatives) < 2:
        return None
    placements = [_placements(positive, scores) for scores in (first, second)]
    of_positives, of_negatives = (np.stack(values) for values in zip(*placements, strict=True))
    areas = of_positives.mean(axis=1)
    covariance = np.cov(of_positives) / positives + np.cov(of_negatives) / negatives
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    # Equal rankings have no variance but that of rounding.
    error = math.sqrt(variance) if variance > 1e-15 else 0.0
    difference = float(areas[0] - areas[1])
    if error:
        p_value = float(2 * stats.norm.sf(abs(difference) / error))
    else:
        p_value = 1.0 if math.isclose(difference, 0, abs_tol=1e-12) else 0.0
    return DeLongTest(float(areas[0]), float(areas[1]), error, p_value)


def adjust_by_holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number by Holm's (1979) step-down method, in the order given."""
    ordered = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[ordered] = np.minimum(np.maximum.accumulate(factors * np.asarray(p_values)[ordered]), 1)
    return adjusted.tolist()


def align(first: PredictionSet, second: Measurement) -> Measurement:
    """The second model's measurement with its images in the order of the first.

    Raises:
        ResultFileError: They don't hold the same images with the same labels and lesions.
    """
    theirs = second.predictions
    pair = f"{first.model} and {theirs.model}"
    if first.task.key != theirs.task.key:
        raise ResultFileError(
            f"{pair} answer different tasks, {first.task.key} and {theirs.task.key}. Compare models of one task.",
            code=ErrorCode.PREDICTIONS_DIFFER,
        )
    unshared = sorted(set(first.image_ids) ^ set(theirs.image_ids))
    if unshared:
        raise ResultFileError(
            f"{pair} can't be compared: {_some(unshared)} only one of them has read. Evaluate both on the same "
            "images.",
            code=ErrorCode.PREDICTIONS_DIFFER,
        )
    if first.image_ids != theirs.image_ids:
        position = {image_id: index for index, image_id in enumerate(theirs.image_ids)}
        theirs = theirs.take([position[image_id] for image_id in first.image_ids])
        second = measure(theirs)
    check_same_truth(first, theirs)
    return second


def gather_models(
    tables: Iterable[tuple[str, Sequence[PredictionSet]]],
    task: Task,
    titles: Mapping[str, str] = MappingProxyType({}),
) -> tuple[ComparedModel, ...]:
    """The models to compare, each with the most views it was asked with, on the images that all of them have read.

    Args:
        tables: Name of each table and the predictions in it, which may be of other tasks too.
        task: The task to compare them for.
        titles: Name of a model to the title to use instead of that of its spec.

    Returns:
        One for each table and model. All hold the same images in the same order.

    Raises:
        ResultFileError: No table has predictions for the task, or the models have no image in common, or disagree
            about the truth of one.
    """
    best = {
        (table, predictions.model): predictions
        for table, sets in tables
        for predictions in select_most_views(select_task(sets, task))
    }
    if not best:
        raise ResultFileError(
            f"No table has predictions for the task “{task.key}”. Choose the other task, or a "
            "predictions.csv of this one.",
            code=ErrorCode.NO_PREDICTIONS,
        )
    title_of = _titles(list(best), titles)
    titled = [replace(predictions, model=title_of[key]) for key, predictions in best.items()]
    return tuple(
        ComparedModel(model, shared.model, shared, len(whole) - len(shared))
        for (_, model), whole, shared in zip(best, titled, keep_shared_images(titled), strict=True)
    )


def compare_with(reference: Measurement, others: Sequence[Measurement]) -> tuple[PairedResult, ...]:
    """One model against each of the others, with p-values adjusted for how many there are (Holm).

    Raises:
        ResultFileError: They don't hold the same images with the same labels and lesions.
    """
    comparisons = [compare(reference, other) for other in others]
    delong = [comparison.delong.p_value for comparison in comparisons if comparison.delong is not None]
    adjusted = iter(adjust_by_holm(delong))
    return tuple(
        PairedResult(comparison, p_value, None if comparison.delong is None else next(adjusted))
        for comparison, p_value in zip(
            comparisons,
            adjust_by_holm([comparison.mcnemar.p_value for comparison in comparisons]),
            strict=True,
        )
    )


def compare_all(compared: Sequence[ComparedModel]) -> dict[str, Any]:
    """Figures of every model with intervals, and the first one against each other one, JSON-ready.

    Args:
        compared: As `gather_models` gives them.

    Returns:
        `task`, `classes`, `target` where the classes are the user's own, `images`, `notes`, `models` (title to
        `model`, `views`, `left_out`, `weights_sha256` and figures), `comparisons`, `kappas` and the number of
        `disagreements`.
    """
    measured = {model.title: measure(model.predictions) for model in compared}
    first, *others = measured.values()
    own = compared[0].predictions.task.key == OWN
    return {
        "task": compared[0].predictions.task.key,
        "classes": list(compared[0].predictions.task.classes),
        **({"target": compared[0].predictions.task.target} if own else {}),
        "images": len(compared[0].predictions),
        "notes": list(dict.fromkeys(note for model in compared for note in model.predictions.notes)),
        "models": {model.title: {**model.to_dict(), **measured[model.title].to_dict()} for model in compared},
        "comparisons": [result.to_dict() for result in compare_with(first, others)],
        "kappas": [
            {"first": first, "second": second, "cohen_kappa": value}
            for (first, second), value in compute_kappas(compared).items()
        ],
        "disagreements": len(find_disagreements(compared)),
    }


def compute_kappas(compared: Sequence[ComparedModel]) -> dict[tuple[str, str], float | None]:
    """Cohen's kappa between the answers of every two models, by their titles; None where it is undefined."""
    return {
        (first.title, second.title): _kappa(first.predictions.answers, second.predictions.answers)
        for first, second in combinations(compared, 2)
    }


def find_disagreements(compared: Sequence[ComparedModel]) -> tuple[Disagreement, ...]:
    """The images that the models answer differently, those whose target scores lie furthest apart first."""
    images, task = compared[0].predictions, compared[0].predictions.task
    answers = np.stack([model.predictions.answers for model in compared])
    scores = np.stack([model.predictions.target_scores for model in compared])
    titles = [model.title for model in compared]
    found = [
        Disagreement(
            images.image_ids[index],
            task.classes[images.labels[index]] if compared[0].labelled else "",
            images.sources[index],
            dict(zip(titles, (task.classes[answer] for answer in answers[:, index]), strict=True)),
            dict(zip(titles, scores[:, index].tolist(), strict=True)),
            {model.title: model.predictions.served[index] for model in compared if model.predictions.served},
        )
        for index in np.flatnonzero((answers != answers[0]).any(axis=0)).tolist()
    ]
    return tuple(sorted(found, key=lambda image: (-image.spread, image.image_id)))


def _placements(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of the negatives below each positive, and of the positives above each negative; ties count half."""
    ranks = stats.rankdata(scores)
    above, below = scores[positive], scores[~positive]
    return (
        (ranks[positive] - stats.rankdata(above)) / len(below),
        1 - (ranks[~positive] - stats.rankdata(below)) / len(above),
    )


def _some(image_ids: Sequence[str]) -> str:
    return f"{len(image_ids)} images, such as {', '.join(image_ids[:_SHOWN])},"


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
    from sklearn.metrics import cohen_kappa_score

    return float(cohen_kappa_score(first, second))
