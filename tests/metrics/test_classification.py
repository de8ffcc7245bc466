"""Figures against scikit-learn and hand-made tables; intervals against a plain loop."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression

from dermadeit.metrics.classification import (
    FIGURES,
    classification_metrics,
    percentile_intervals,
    resampled_figures,
)
from dermadeit.metrics.weighted import WeightedMetrics

BINARY, MULTICLASS = ("nevus", "others"), ("mel", "bcc", "scc")
both_tasks = pytest.mark.parametrize("classes", [BINARY, MULTICLASS])


def _predictions(num_classes: int, count: int = 401, *, ties: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities; with ties they are 64ths, so that many scores are exactly equal."""
    rng = np.random.default_rng(num_classes)
    labels = rng.integers(0, num_classes, count)
    logits = rng.normal(size=(count, num_classes)) + 1.2 * np.eye(num_classes)[labels]
    probabilities = softmax(logits, axis=1)
    if ties:
        probabilities = (1 + rng.multinomial(64 - num_classes, probabilities)) / 64
    return labels, probabilities


def _expected(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    """What scikit-learn says, for all figures that it has."""
    num_classes, predicted = probabilities.shape[1], probabilities.argmax(axis=1)
    weighted = {"sample_weight": weights}
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        labels, predicted, average="macro", **weighted
    )
    one_hot, target = np.eye(num_classes)[labels], 1 if num_classes == 2 else 0
    scores = probabilities[:, 1] if num_classes == 2 else probabilities
    false_alarms, hits, _ = sk.roc_curve(
        labels == target, probabilities[:, target], drop_intermediate=False, **weighted
    )
    return {
        "accuracy": sk.accuracy_score(labels, predicted, **weighted),
        "precision_macro": precision,
        "recall_macro": recall,
        "f1_macro": f1,
        "cohen_kappa": sk.cohen_kappa_score(labels, predicted, **weighted),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted, **weighted),
        "roc_auc": sk.roc_auc_score(labels, scores, multi_class="ovr", **weighted),
        "average_precision": sk.average_precision_score(
            labels if num_classes == 2 else one_hot, scores, **weighted
        ),
        "sensitivity_at_95_specificity": hits[false_alarms <= 0.05].max(),
        "specificity_at_95_sensitivity": 1 - false_alarms[hits >= 0.95].min(),
        "brier": (
            sk.brier_score_loss(labels, scores, **weighted)
            if num_classes == 2
            else sum(
                sk.brier_score_loss(labels == key, scores[:, key], **weighted) for key in range(num_classes)
            )
        ),
        "nll": sk.log_loss(labels, probabilities, **weighted),
    }


@both_tasks
def test_figures_equal_scikit_learn(classes: tuple[str, ...]) -> None:
    labels, probabilities = _predictions(len(classes))
    figures = classification_metrics(labels, probabilities, classes)
    expected = _expected(labels, probabilities, np.ones(len(labels)))
    assert {name: figures[name] for name in expected} == pytest.approx(expected)
    assert figures["n"] == 401
    assert figures["confusion_matrix"]["classes"] == list(classes)
    predicted = probabilities.argmax(axis=1)
    assert figures["confusion_matrix"]["counts"] == sk.confusion_matrix(labels, predicted).tolist()


@both_tasks
def test_figures_of_many_weightings_equal_scikit_learn_on_each(classes: tuple[str, ...]) -> None:
    labels, probabilities = _predictions(len(classes))
    rng = np.random.default_rng(0)
    resamples = rng.multinomial(len(labels), np.full(len(labels), 1 / len(labels)), size=10).astype(float)
    weights = np.concatenate([resamples, rng.uniform(0.1, 2, size=(5, len(labels)))])
    ours = WeightedMetrics(labels, probabilities, classes)(weights)
    for row, weighting in enumerate(weights):
        expected = _expected(labels, probabilities, weighting)
        assert {name: ours[name][row] for name in expected} == pytest.approx(expected)


def test_a_class_without_images_leaves_only_its_ranking_undefined() -> None:
    labels, probabilities = _predictions(3)
    labels, probabilities = labels[labels < 2], probabilities[labels < 2]
    figures = classification_metrics(labels, probabilities, MULTICLASS)
    predicted = probabilities.argmax(axis=1)
    assert figures["accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted))
    assert figures["cohen_kappa"] == pytest.approx(sk.cohen_kappa_score(labels, predicted))
    assert figures["f1_macro"] == pytest.approx(sk.f1_score(labels, predicted, average="macro"))
    recalls = sk.recall_score(labels, predicted, labels=[0, 1], average="macro")
    assert figures["balanced_accuracy"] == pytest.approx(recalls)
    assert figures["sensitivity_at_95_specificity"] is not None
    undefined = {name for name in FIGURES if figures[name] is None}
    assert undefined == {"roc_auc", "average_precision", "calibration_slope"}


@both_tasks
def test_an_image_of_weight_2_counts_like_two_images(classes: tuple[str, ...]) -> None:
    labels, probabilities = _predictions(len(classes), 90)
    times = np.random.default_rng(2).integers(0, 4, len(labels))
    weighted = WeightedMetrics(labels, probabilities, classes)(times[None].astype(float))
    repeated = classification_metrics(labels.repeat(times), probabilities.repeat(times, axis=0), classes)
    assert {name: weighted[name][0] for name in FIGURES} == pytest.approx(
        {name: repeated[name] for name in FIGURES}, abs=1e-6
    )


def test_a_hand_computed_table() -> None:
    # True nevus: 3 right, 1 wrong. True others: 2 right, 2 wrong.
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    others = np.array([0.1, 0.2, 0.3, 0.6, 0.9, 0.8, 0.4, 0.35])
    figures = classification_metrics(labels, np.stack([1 - others, others], axis=1), BINARY)
    assert figures["confusion_matrix"]["counts"] == [[3, 1], [2, 2]]
    assert figures["accuracy"] == pytest.approx(5 / 8)
    assert figures["precision_macro"] == pytest.approx((3 / 5 + 2 / 3) / 2)
    assert figures["cohen_kappa"] == pytest.approx((5 / 8 - 1 / 2) / (1 - 1 / 2))
    # Pairs ranked right: 0.9 and 0.8 beat all four, 0.4 and 0.35 beat three.
    assert figures["roc_auc"] == pytest.approx(14 / 16)
    # By falling score: others, others, nevus, others, others, then nevi.
    assert figures["average_precision"] == pytest.approx((1 + 1 + 3 / 4 + 4 / 5) / 4)
    # No nevus may be called others: only 0.9 and 0.8 are found. To find all others, one nevus is called so.
    assert figures["sensitivity_at_95_specificity"] == pytest.approx(2 / 4)
    assert figures["specificity_at_95_sensitivity"] == pytest.approx(3 / 4)
    squares = [0.1**2, 0.2**2, 0.3**2, 0.6**2, 0.1**2, 0.2**2, 0.6**2, 0.65**2]
    assert figures["brier"] == pytest.approx(sum(squares) / 8)
    # Eight images, fifteen bins: each distinct confidence (.9 .9 | .8 .8 | .7 | .6 .6 | .65) is a bin.
    gaps = [2 * 1 - 2 * 0.9, 2 * 1 - 2 * 0.8, 1 - 0.7, 0 - 2 * 0.6, 0 - 0.65]
    assert figures["ece"] == pytest.approx(sum(map(abs, gaps)) / 8)


def test_operating_points_are_about_melanoma_where_there_is_one() -> None:
    labels, probabilities = _predictions(3, ties=False)
    moved = [1, 2, 0]
    figures = classification_metrics(labels, probabilities, MULTICLASS)
    reordered = classification_metrics(
        np.array(moved)[labels], probabilities[:, np.argsort(moved)], ("scc", "mel", "bcc")
    )
    assert {name: reordered[name] for name in FIGURES} == pytest.approx(
        {name: figures[name] for name in FIGURES}
    )


def test_calibration_error_equals_a_plain_loop_over_equal_parts() -> None:
    labels, probabilities = _predictions(3, 401)
    times = np.random.default_rng(3).integers(0, 4, len(labels))
    confidences, hits = (
        probabilities.max(axis=1).repeat(times),
        (probabilities.argmax(1) == labels).repeat(times),
    )
    ordered, count = np.sort(confidences), times.sum()
    error, below = 0.0, np.full(count, False)
    for part in range(1, 16):
        edge = ordered[-(-count * part // 15) - 1]
        inside = (confidences <= edge) & ~below
        if inside.any():
            error += inside.mean() * abs(hits[inside].mean() - confidences[inside].mean())
        below |= inside
    weighted = WeightedMetrics(labels, probabilities, MULTICLASS)(times[None].astype(float))
    assert weighted["ece"][0] == pytest.approx(error)


def test_calibration_slope_equals_logistic_regression() -> None:
    labels, probabilities = _predictions(2)
    weights = np.random.default_rng(4).integers(0, 3, (3, len(labels))).astype(float)
    slopes = WeightedMetrics(labels, probabilities, BINARY)(weights)["calibration_slope"]
    logits = np.log(probabilities[:, 1:] / probabilities[:, :1])
    for slope, weighting in zip(slopes, weights, strict=True):
        regression = LogisticRegression(C=np.inf, tol=1e-8).fit(logits, labels, sample_weight=weighting)
        assert slope == pytest.approx(regression.coef_[0, 0], rel=1e-4)


def test_calibration_slope_of_three_classes_maximises_the_likelihood() -> None:
    labels, probabilities = _predictions(3)

    def loss(solution: np.ndarray) -> float:
        scores = solution[0] * np.log(probabilities) + np.array([0, *solution[1:]])
        return -log_softmax(scores, axis=1)[np.arange(len(labels)), labels].sum()

    best = minimize(loss, np.array([1.0, 0, 0])).x
    figures = classification_metrics(labels, probabilities, MULTICLASS)
    assert figures["calibration_slope"] == pytest.approx(best[0], rel=1e-4)


@both_tasks
def test_twice_as_extreme_probabilities_halve_the_calibration_slope(classes: tuple[str, ...]) -> None:
    labels, probabilities = _predictions(len(classes))
    extreme = probabilities**2 / (probabilities**2).sum(axis=1, keepdims=True)
    slopes = [
        classification_metrics(labels, rows, classes)["calibration_slope"]
        for rows in (probabilities, extreme)
    ]
    assert slopes[1] == pytest.approx(slopes[0] / 2)


def test_classes_that_can_be_separated_have_no_calibration_slope() -> None:
    labels, others = np.array([0] * 10 + [1] * 10), np.linspace(0.05, 0.95, 20)
    figures = classification_metrics(labels, np.stack([1 - others, others], axis=1), BINARY)
    assert figures["calibration_slope"] is None
    assert figures["roc_auc"] == 1


def test_a_class_that_is_never_predicted_has_precision_0() -> None:
    figures = classification_metrics(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]), BINARY)
    assert figures["precision_macro"] == pytest.approx(0.25)
    assert figures["f1_macro"] == pytest.approx(1 / 3)


def test_undefined_figures_are_none_not_nan() -> None:
    only_nevus = classification_metrics(np.array([0, 0]), np.array([[0.9, 0.1]] * 2), BINARY)
    assert only_nevus["accuracy"] == 1
    undefined = {name for name in FIGURES if only_nevus[name] is None}
    assert undefined == {
        "roc_auc", "average_precision", "cohen_kappa", "calibration_slope",
        "sensitivity_at_95_specificity", "specificity_at_95_sensitivity",
    }  # fmt: skip
    nothing = classification_metrics(np.array([], dtype=int), np.empty((0, 2)), BINARY)
    assert nothing["n"] == 0
    assert {nothing[name] for name in FIGURES} == {None}


def test_certainties_give_finite_figures() -> None:
    labels = np.array([0, 0, 1, 1])
    figures = classification_metrics(labels, np.array([[1.0, 0], [0, 1], [0, 1], [0, 1]]), BINARY)
    assert np.isfinite(figures["nll"]) and figures["nll"] > 5
    assert figures["brier"] == pytest.approx(1 / 4)


def _intervals(labels, probabilities, groups, classes, **options) -> dict[str, list[float]]:
    return percentile_intervals(resampled_figures(labels, probabilities, groups, classes, **options))


@pytest.mark.slow
def test_intervals_resample_lesions_not_images() -> None:
    labels, probabilities = _predictions(2, 200)
    groups = [f"lesion {index // 4}" for index in range(200)]
    ours = _intervals(labels, probabilities, groups, BINARY)
    assert ours.keys() == set(FIGURES)
    rng = np.random.default_rng(1)
    drawn = [(rng.integers(0, 50, 50)[:, None] * 4 + np.arange(4)).ravel() for _ in range(2000)]
    hits = probabilities.argmax(axis=1) == labels
    accuracies = [hits[images].mean() for images in drawn]
    areas = [sk.roc_auc_score(labels[images], probabilities[images, 1]) for images in drawn[:1000]]
    assert ours["accuracy"] == pytest.approx(np.quantile(accuracies, [0.025, 0.975]), abs=0.012)
    assert ours["roc_auc"] == pytest.approx(np.quantile(areas, [0.025, 0.975]), abs=0.012)


def test_repeating_every_image_of_a_lesion_does_not_narrow_its_interval() -> None:
    labels, probabilities = _predictions(3, 120)
    groups = [str(index) for index in range(120)]
    once = _intervals(labels, probabilities, groups, MULTICLASS)
    thrice = _intervals(labels.repeat(3), probabilities.repeat(3, axis=0), np.repeat(groups, 3), MULTICLASS)
    for name in FIGURES:
        assert thrice[name] == pytest.approx(once[name], abs=0.01)


def test_the_seed_decides_the_resamples() -> None:
    labels, probabilities = _predictions(2, 100)
    groups = [str(index) for index in range(100)]
    first, again, other = (
        resampled_figures(labels, probabilities, groups, BINARY, resamples=150, seed=seed)["brier"]
        for seed in (0, 0, 1)
    )
    assert first.shape == (150,)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_figure_that_many_resamples_leave_undefined_has_no_interval() -> None:
    # One image of “others” among eight: a third of the resamples miss it.
    labels, others = np.array([0] * 7 + [1]), np.linspace(0.1, 0.8, 8)
    probabilities = np.stack([1 - others, others], axis=1)
    intervals = _intervals(labels, probabilities, [str(index) for index in range(8)], BINARY)
    assert "accuracy" in intervals
    assert "roc_auc" not in intervals
