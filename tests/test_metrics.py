"""Figures against scikit-learn and hand-made tables; intervals against a plain loop."""

import numpy as np
import pytest
from sklearn import metrics as sk

from dermadeit.metrics import bootstrap_intervals, classification_metrics


def _predictions(num_classes: int, count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(num_classes)
    labels = rng.integers(0, num_classes, count)
    logits = rng.normal(size=(count, num_classes)) + 1.2 * np.eye(num_classes)[labels]
    probabilities = np.exp(logits)
    return labels, probabilities / probabilities.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("num_classes", "classes"), [(2, ("nevus", "others")), (3, ("mel", "bcc", "scc"))])
def test_figures_equal_scikit_learn(num_classes: int, classes: tuple[str, ...]) -> None:
    labels, probabilities = _predictions(num_classes)
    predicted = probabilities.argmax(axis=1)
    precision, recall, f1, _ = sk.precision_recall_fscore_support(labels, predicted, average="macro")
    scores = probabilities[:, 1] if num_classes == 2 else probabilities
    expected = {
        "accuracy": sk.accuracy_score(labels, predicted),
        "precision_macro": precision,
        "recall_macro": recall,
        "f1_macro": f1,
        "cohen_kappa": sk.cohen_kappa_score(labels, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
        "roc_auc": sk.roc_auc_score(labels, scores, multi_class="ovr"),
    }
    figures = classification_metrics(labels, probabilities, classes)
    assert {name: figures[name] for name in expected} == pytest.approx(expected)
    assert figures["n"] == 400
    assert figures["confusion_matrix"]["classes"] == list(classes)
    assert figures["confusion_matrix"]["counts"] == sk.confusion_matrix(labels, predicted).tolist()


def test_a_hand_computed_table() -> None:
    # True nevus: 3 right, 1 wrong. True others: 2 right, 2 wrong.
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    others = np.array([0.1, 0.2, 0.3, 0.6, 0.9, 0.8, 0.4, 0.35])
    figures = classification_metrics(labels, np.stack([1 - others, others], axis=1), ("nevus", "others"))
    assert figures["confusion_matrix"]["counts"] == [[3, 1], [2, 2]]
    assert figures["accuracy"] == pytest.approx(5 / 8)
    assert figures["precision_macro"] == pytest.approx((3 / 5 + 2 / 3) / 2)
    assert figures["cohen_kappa"] == pytest.approx((5 / 8 - 1 / 2) / (1 - 1 / 2))
    # Pairs ranked right: 0.9 and 0.8 beat all four, 0.4 and 0.35 beat three.
    assert figures["roc_auc"] == pytest.approx(14 / 16)


def test_a_class_that_is_never_predicted_has_precision_0() -> None:
    figures = classification_metrics(
        np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]), ("nevus", "others")
    )
    assert figures["precision_macro"] == pytest.approx(0.25)
    assert figures["f1_macro"] == pytest.approx(1 / 3)


def test_undefined_figures_are_none_not_nan() -> None:
    only_nevus = classification_metrics(np.array([0, 0]), np.array([[0.9, 0.1]] * 2), ("nevus", "others"))
    assert only_nevus["accuracy"] == 1
    assert only_nevus["roc_auc"] is None
    assert only_nevus["cohen_kappa"] is None
    nothing = classification_metrics(np.array([], dtype=int), np.empty((0, 2)), ("nevus", "others"))
    assert (nothing["n"], nothing["accuracy"], nothing["f1_macro"]) == (0, None, None)


def test_intervals_resample_lesions_not_images() -> None:
    labels, probabilities = _predictions(2, 200)
    groups = [f"lesion {index // 4}" for index in range(200)]
    ours = bootstrap_intervals(labels, probabilities, groups, resamples=2000)["accuracy"]
    rng, hits = np.random.default_rng(1), (probabilities.argmax(axis=1) == labels).reshape(50, 4)
    drawn = [hits[rng.integers(0, 50, 50)].mean() for _ in range(2000)]
    assert ours == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.012)


def test_repeating_every_image_of_a_lesion_does_not_narrow_its_interval() -> None:
    labels, probabilities = _predictions(3, 120)
    groups = [str(index) for index in range(120)]
    once = bootstrap_intervals(labels, probabilities, groups)
    thrice = bootstrap_intervals(labels.repeat(3), probabilities.repeat(3, axis=0), np.repeat(groups, 3))
    assert thrice["accuracy"] == pytest.approx(once["accuracy"], abs=0.01)
    assert thrice["cohen_kappa"] == pytest.approx(once["cohen_kappa"], abs=0.01)
