"""Paired statistics against statsmodels, brute force, and tables computed by hand."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics as sk
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from dermadeit.errors import ResultFileError
from dermadeit.evaluation.comparison import (
    DeLongTest,
    Difference,
    adjust_by_holm,
    compare,
    delong_test,
    mcnemar_test,
)
from dermadeit.evaluation.predictions import PredictionSet, measure
from dermadeit.metrics.classification import FIGURES
from dermadeit.tasks import get_task


def _prediction_set(model: str, skill: float, *, seed: int, task: str = "binary") -> PredictionSet:
    """240 images of 80 lesions; the labels are the same for every model."""
    classes = len(get_task(task).classes)
    labels = np.random.default_rng(0).integers(0, classes, 240)
    logits = np.random.default_rng(seed).normal(size=(240, classes)) + skill * np.eye(classes)[labels]
    return PredictionSet(
        get_task(task),
        model,
        8,
        image_ids=tuple(f"image {index}" for index in range(240)),
        labels=labels,
        logits=logits,
        probabilities=softmax(logits, axis=1),
        lesion_groups=tuple(f"lesion {index // 3}" for index in range(240)),
        sources=("",) * 240,
        splits=("test",) * 240,
    )


OURS, BASELINE = _prediction_set("ours", 2.0, seed=1), _prediction_set("baseline", 1.0, seed=2)


def _rights(only_first: int, only_second: int) -> tuple[np.ndarray, np.ndarray]:
    pairs = (
        [(True, False)] * only_first
        + [(False, True)] * only_second
        + [(True, True)] * 30
        + [(False,) * 2] * 7
    )
    first, second = zip(*pairs, strict=True)
    return np.array(first), np.array(second)


@pytest.mark.parametrize("discordant", [(10, 3), (3, 10), (24, 0), (12, 12), (13, 12), (40, 20), (90, 110)])
def test_mcnemar_equals_statsmodels(discordant: tuple[int, int]) -> None:
    ours = mcnemar_test(*_rights(*discordant))
    table = [[30, discordant[0]], [discordant[1], 7]]
    exact = sum(discordant) < 25
    assert ours.p_value == pytest.approx(mcnemar(table, exact=exact, correction=True).pvalue)
    assert (ours.only_first_right, ours.only_second_right, ours.exact) == (*discordant, exact)


def test_mcnemar_by_hand() -> None:
    # Thirteen coins, three heads or fewer on either side: 2 (1 + 13 + 78 + 286) / 2^13.
    assert mcnemar_test(*_rights(10, 3)).p_value == pytest.approx(2 * 378 / 8192)
    # Chi-squared of 19² / 60 = 6.0167 with one degree of freedom.
    assert mcnemar_test(*_rights(40, 20)).p_value == pytest.approx(0.01417, abs=1e-5)
    assert mcnemar_test(*_rights(0, 0)).p_value == 1


def _brute_force_delong(positive: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Difference and standard error from all pairs, as in the appendix of DeLong et al. 1988."""
    wins = np.stack(
        [
            np.array(
                [
                    [(above > below) + (above == below) / 2 for below in scores[~positive]]
                    for above in scores[positive]
                ]
            )
            for scores in (first, second)
        ]
    )
    areas = wins.mean(axis=(1, 2))
    of_positives, of_negatives = wins.mean(axis=2) - areas[:, None], wins.mean(axis=1) - areas[:, None]
    m, n = wins.shape[1:]
    covariance = of_positives @ of_positives.T / (m - 1) / m + of_negatives @ of_negatives.T / (n - 1) / n
    contrast = np.array([1, -1])
    return areas[0] - areas[1], float(np.sqrt(contrast @ covariance @ contrast))


@pytest.mark.parametrize("decimals", [1, 8])
def test_delong_equals_all_pairs(decimals: int) -> None:
    rng = np.random.default_rng(decimals)
    positive = rng.random(120) < 0.4
    first, second = ((rng.normal(size=120) + shift * positive).round(decimals) for shift in (1.5, 0.8))
    ours = delong_test(positive, first, second)
    difference, error = _brute_force_delong(positive, first, second)
    assert ours.area_first == pytest.approx(sk.roc_auc_score(positive, first))
    assert ours.area_second == pytest.approx(sk.roc_auc_score(positive, second))
    assert ours.area_first - ours.area_second == pytest.approx(difference)
    assert ours.standard_error == pytest.approx(error)


def test_delong_by_hand() -> None:
    positive = np.array([True, True, False, False])
    # First: 4 above both, 2 above one: area 3/4. Second: the same two placed 1 and 1.
    ours = delong_test(positive, np.array([4, 2, 3, 1]), np.array([4, 3, 2, 1]))
    # Placements of the first: positives 1, 1/2, negatives 1/2, 1; of the second: all 1. Each has a variance of
    # 1/8, and 1/8 / 2 + 1/8 / 2 = 1/8.
    assert (ours.area_first, ours.area_second) == (0.75, 1)
    assert ours.standard_error == pytest.approx(np.sqrt(1 / 8))
    # A z of 1/4 / 0.3536 = 0.7071.
    assert ours.p_value == pytest.approx(0.4795, abs=1e-4)


def test_delong_of_equal_rankings_and_of_too_few_images() -> None:
    positive, scores = np.array([True, True, False, False]), np.array([4.0, 2, 3, 1])
    assert delong_test(positive, scores, np.exp(scores)) == DeLongTest(0.75, 0.75, 0, 1)
    assert delong_test(np.array([True, False, False]), scores[:3], scores[:3]) is None


@pytest.mark.slow
def test_holm_equals_statsmodels_and_a_hand_computed_row() -> None:
    assert adjust_by_holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    for p_values in ([], [0.2], [0.9, 0.8], list(np.random.default_rng(0).random(9) ** 4)):
        expected = multipletests(p_values, method="holm")[1] if p_values else []
        assert adjust_by_holm(p_values) == pytest.approx(list(expected))


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_differences_are_those_of_the_figures(task: str) -> None:
    ours, baseline = (
        measure(_prediction_set(name, skill, seed=seed, task=task))
        for name, skill, seed in (("ours", 2.0, 1), ("baseline", 1.0, 2))
    )
    comparison = compare(ours, baseline)
    assert (comparison.first, comparison.second) == ("ours", "baseline")
    for name in FIGURES:
        assert comparison.differences[name].difference == ours.figures[name] - baseline.figures[name]
    target = 1 if task == "binary" else 0
    positive = ours.predictions.labels == target
    assert comparison.delong.area_first == pytest.approx(
        sk.roc_auc_score(positive, ours.predictions.probabilities[:, target])
    )
    assert comparison.mcnemar.only_first_right > comparison.mcnemar.only_second_right


def test_intervals_of_differences_resample_lesions_in_pairs() -> None:
    comparison = compare(measure(OURS), measure(BASELINE))
    hits = [(item.probabilities.argmax(axis=1) == item.labels).astype(float) for item in (OURS, BASELINE)]
    gains = (hits[0] - hits[1]).reshape(80, 3)
    rng = np.random.default_rng(5)
    drawn = [gains[rng.integers(0, 80, 80)].mean() for _ in range(2000)]
    accuracy = comparison.differences["accuracy"]
    assert accuracy.interval == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.012)
    assert accuracy.excludes_zero


def test_a_model_does_not_differ_from_itself_whatever_the_order_of_its_images() -> None:
    shuffled = OURS.take(np.random.default_rng(0).permutation(240))
    comparison = compare(measure(OURS), measure(shuffled))
    for difference in comparison.differences.values():
        assert difference.difference == pytest.approx(0)
        assert difference.interval == pytest.approx((0, 0))
        assert not difference.excludes_zero
    assert comparison.mcnemar.p_value == comparison.delong.p_value == 1


@pytest.mark.parametrize(
    ("interval", "excludes"),
    [((0.01, 0.02), True), ((-0.02, -0.01), True), ((-0.01, 0.02), False), ((0, 0.02), False), (None, False)],
)
def test_an_interval_excludes_zero(interval: tuple[float, float] | None, excludes: bool) -> None:
    assert Difference(0.01, interval).excludes_zero is excludes


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (BASELINE.take(range(239)), "1 images, such as image 239,"),
        (replace(BASELINE, labels=1 - BASELINE.labels), "disagree about the labels"),
        (replace(BASELINE, lesion_groups=("one lesion",) * 240), "disagree about the lesion groups"),
        (_prediction_set("baseline", 1.0, seed=2, task="multiclass"), "different tasks"),
    ],
)
def test_models_on_other_images_are_not_compared(other: PredictionSet, message: str) -> None:
    with pytest.raises(ResultFileError, match=message) as caught:
        compare(measure(OURS), measure(other))
    assert caught.value.code == "predictions_differ"


def test_pairs_of_models_need_no_order() -> None:
    one, other = (compare(measure(a), measure(b)) for a, b in itertools.permutations((OURS, BASELINE)))
    assert one.mcnemar.p_value == other.mcnemar.p_value
    assert one.delong.p_value == pytest.approx(other.delong.p_value)
    low, high = one.differences["roc_auc"].interval
    assert other.differences["roc_auc"].interval == pytest.approx((-high, -low))
