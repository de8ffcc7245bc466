"""Calibration against brute force, closed forms and its own promise on new lesions."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import f1_score

from dermadeit.errors import ConfigurationError, TableError
from dermadeit.metrics.weighted import log_losses
from dermadeit.trust.calibration import (
    Calibration,
    OperatingPoint,
    ViewCalibration,
    answers,
    calibrations_to_dict,
    check_lesions,
    fit_class_weights,
    fit_conformal,
    fit_operating_points,
    fit_view,
    read_calibrations,
)
from dermadeit.trust.scaling import Scaling, fit_scaling, fit_temperature, fit_vector

CLASSES = ("mel", "bcc", "scc")


def _drawn(count: int, true: Scaling, num_classes: int = 3, seed: int = 0):
    """Logits, and labels drawn from what `true` makes of them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (count, num_classes))
    cumulative = true(logits).cumsum(axis=1)
    return logits, (rng.random((count, 1)) > cumulative).sum(axis=1)


def _loss(scaling: Scaling, logits: np.ndarray, labels: np.ndarray) -> float:
    return log_losses(labels, scaling(logits)).mean()


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 2.5])
def test_no_temperature_of_a_fine_grid_has_a_lower_loss(sharpness: float) -> None:
    logits, labels = _drawn(500, Scaling("temperature", (sharpness,) * 3, (0.0,) * 3))
    fitted = fit_temperature(logits, labels)
    losses = {
        scale: log_losses(labels, softmax(logits * scale, axis=1)).mean()
        for scale in np.linspace(0.05, 5, 4951)
    }
    best = min(losses, key=losses.get)
    assert fitted.scale == pytest.approx((best,) * 3, abs=1e-3)
    assert _loss(fitted, logits, labels) <= losses[best] + 1e-12
    assert fitted.bias == (0, 0, 0)


def test_no_vector_of_a_grid_around_has_a_lower_loss() -> None:
    true = Scaling("vector", (0.5, 1.5), (0.4, -0.4))
    logits, labels = _drawn(2000, true, num_classes=2)
    fitted = fit_vector(logits, labels)
    steps = np.linspace(-0.2, 0.2, 9)
    around = [
        _loss(
            Scaling(
                "vector",
                (fitted.scale[0] + first, fitted.scale[1] + second),
                (fitted.bias[0] + offset, fitted.bias[1] - offset),
            ),
            logits,
            labels,
        )
        for first in steps
        for second in steps
        for offset in steps
    ]
    assert _loss(fitted, logits, labels) == pytest.approx(min(around), abs=1e-12)
    assert fitted.scale == pytest.approx(true.scale, abs=0.2)
    assert sum(fitted.bias) == pytest.approx(0)


@pytest.mark.slow
def test_vector_scaling_is_taken_only_where_unseen_lesions_gain_by_it() -> None:
    groups = [str(index) for index in range(3000)]
    skewed = _drawn(3000, Scaling("vector", (1.0, 0.4, 2.0), (1.0, -1.0, 0.0)))
    plain = _drawn(3000, Scaling("temperature", (0.5,) * 3, (0.0,) * 3))
    assert fit_scaling(*skewed, groups).method == "vector"
    assert fit_scaling(*plain, groups).method == "temperature"


def test_operating_points_of_a_table_that_can_be_counted() -> None:
    # 20 positives at .05, .10, … 1.00; 20 negatives at .025, .075, … .975.
    scores = np.concatenate([np.arange(1, 21) / 20, np.arange(20) / 20 + 0.025])
    points = fit_operating_points(scores, np.arange(40) < 20)
    # 19 of 20 positives reach .10, and the next lower score is a negative's, .075.
    assert points["sensitivity_95"] == OperatingPoint(pytest.approx(0.0875), 0.95, pytest.approx(0.1))
    # 19 of 20 negatives stay under .95, and the next lower score is the negative's at .925.
    assert points["specificity_95"] == OperatingPoint(
        pytest.approx(0.9375), pytest.approx(0.1), pytest.approx(0.95)
    )


def test_the_balanced_point_parts_what_can_be_parted() -> None:
    points = fit_operating_points(np.array([0.1, 0.2, 0.6, 0.9]), np.array([False, False, True, True]))
    assert points["balanced"] == OperatingPoint(pytest.approx(0.4), 1, 1)


def test_operating_points_exist_where_all_scores_are_equal() -> None:
    points = fit_operating_points(np.full(6, 0.5), np.arange(6) < 3)
    assert points["sensitivity_95"] == OperatingPoint(0.5, 1, 0)
    assert points["specificity_95"].threshold == 0.5


def test_one_image_a_lesion_gives_the_textbook_quantile() -> None:
    # ⌈20 · 0.9⌉ = the 18th of 19 scores from the best, so the second lowest probability.
    probabilities = np.linspace(0.05, 0.95, 19)
    groups = [str(index) for index in range(19)]
    stacked = np.stack([probabilities, 1 - probabilities], axis=1)
    assert fit_conformal(stacked, np.zeros(19, int), groups)[0] == pytest.approx(0.10)


def test_eight_lesions_can_rule_nothing_out() -> None:
    probabilities = np.full((8, 2), 0.5)
    groups = [str(index) for index in range(8)]
    assert fit_conformal(probabilities, np.zeros(8, int), groups) == (0.0, 0.0)


def test_a_lesion_weighs_as_one_however_often_it_was_photographed() -> None:
    # Ten lesions; the worst has 91 photos. Of (10 + 1) lesions, 90 % are 9.9: the first nine and .9 of the worst.
    probabilities = np.concatenate([np.linspace(0.5, 0.9, 9), np.linspace(0.01, 0.4, 91)])
    groups = [f"single {index}" for index in range(9)] + ["often"] * 91
    [least] = fit_conformal(probabilities[:, None], np.zeros(100, int), groups)
    worst_first = np.sort(probabilities)[:91]
    assert least == pytest.approx(worst_first[91 - int(np.ceil(0.9 * 91))])


def test_sets_cover_nine_in_ten_new_lesions_of_each_class() -> None:
    rng = np.random.default_rng(1)

    def draw(lesions: int):
        """Lesions with one to six photos that look alike, of a frequent and a rare class."""
        label = (rng.random(lesions) < 0.2).astype(int)
        photos = rng.integers(1, 7, lesions)
        of_lesion = np.repeat(np.arange(lesions), photos)
        looks = rng.normal(2.0 * label - 1, 1.5, lesions)[of_lesion] + rng.normal(0, 0.3, photos.sum())
        probability = 1 / (1 + np.exp(-looks))
        return np.stack([1 - probability, probability], axis=1), label[of_lesion], of_lesion

    covered = {0: [], 1: []}
    for _ in range(60):
        least = fit_conformal(*draw(300))
        probabilities, labels, lesions = draw(300)
        # One photo of each lesion.
        _, first = np.unique(lesions, return_index=True)
        for key in covered:
            own = first[labels[first] == key]
            covered[key].append((probabilities[own, key] >= least[key]).mean())
    assert np.mean(covered[0]) == pytest.approx(0.90, abs=0.01)
    assert np.mean(covered[1]) == pytest.approx(0.91, abs=0.02)


@pytest.fixture
def calibration() -> Calibration:
    points = {
        "sensitivity_95": OperatingPoint(0.2, 0.95, 0.60),
        "specificity_95": OperatingPoint(0.7, 0.55, 0.95),
        "balanced": OperatingPoint(0.4, 0.80, 0.80),
    }
    fitted = ViewCalibration(Scaling("temperature", (0.5,) * 3, (0.0,) * 3), points, (0.3, 0.6, 0.05))
    return Calibration("multiclass", CLASSES, "ab" * 32, {1: fitted, 8: fitted})


def test_an_unknown_operating_point_is_refused_with_those_that_there_are(calibration: Calibration) -> None:
    assert calibration.target == "mel"
    with pytest.raises(ConfigurationError, match="sensitivity_95, specificity_95, balanced"):
        calibration.operating_point("youden")


def test_sets_hold_every_class_that_reaches_its_own_probability(calibration: Calibration) -> None:
    assert calibration.conformal_set([0.45, 0.50, 0.05]) == ("mel", "scc")
    assert calibration.conformal_set([0.29, 0.67, 0.04]) == ("bcc",)
    assert calibration.conformal_set([0.29, 0.59, 0.04]) == ()


def test_probabilities_are_those_of_the_number_of_views(calibration: Calibration) -> None:
    logits = np.array([[2.0, 0.0, -2.0]])
    np.testing.assert_allclose(calibration.probabilities(logits, 8), softmax(logits / 2, axis=1))
    assert calibration.operating_points == {"sensitivity_95": 0.2, "specificity_95": 0.7, "balanced": 0.4}


def test_a_calibration_comes_back_from_json_exactly() -> None:
    logits, labels = _drawn(300, Scaling("temperature", (0.37,) * 3, (0.0,) * 3))
    groups = [str(index // 2) for index in range(300)]
    scaling = fit_scaling(logits, labels, groups)
    fitted = fit_view(scaling, scaling(logits), labels, groups, 0)
    calibration = Calibration("multiclass", CLASSES, "cd" * 32, {8: fitted}, {"n": 300})
    values = calibrations_to_dict({"multiclass": calibration})
    assert read_calibrations(json.loads(json.dumps(values))) == {"multiclass": calibration}


@pytest.mark.parametrize(
    "damage",
    [
        lambda values: values.pop("scalings"),
        lambda values: values["readings"]["multiclass"].pop("by_views"),
        lambda values: values["readings"]["multiclass"].update(class_weights=[1.0, 1.0]),
        lambda values: values["readings"]["multiclass"].update(class_weights=[1.0, 1.0, 0.0]),
        lambda values: values["scalings"]["8"].update(scale=[1.0]),
        lambda values: values["scalings"]["8"].update(scale=[1.0, 1.0, float("nan")]),
        lambda values: _fitted(values)["operating_points"].pop("balanced"),
        lambda values: _fitted(values)["operating_points"]["balanced"].update(threshold="high"),
    ],
)
def test_damaged_values_are_no_calibration(calibration: Calibration, damage) -> None:
    values = json.loads(json.dumps(calibrations_to_dict({"multiclass": calibration})))
    damage(values)
    with pytest.raises((KeyError, TypeError, ValueError)):
        read_calibrations(values)


def _fitted(values: dict) -> dict:
    return values["readings"]["multiclass"]["by_views"]["8"]


def test_a_class_with_too_few_lesions_is_named() -> None:
    _, labels = _drawn(300, Scaling("temperature", (1.0,) * 3, (0.0,) * 3))
    groups = [("one lesion" if label == 2 else str(index)) for index, label in enumerate(labels)]
    with pytest.raises(TableError, match="1 lesions of the class “scc”"):
        check_lesions(labels, groups, CLASSES)


def _macro_f1(weights: tuple[float, ...], probabilities: np.ndarray, labels: np.ndarray) -> float:
    return f1_score(labels, answers(probabilities, weights), average="macro")


def test_class_weights_raise_the_macro_f1_to_that_of_a_fine_grid() -> None:
    rng = np.random.default_rng(0)
    # One class is rare and hardly ever the most probable.
    labels = rng.choice(3, 4000, p=[0.6, 0.35, 0.05])
    logits = rng.normal(0, 1, (4000, 3)) + 1.2 * np.eye(3)[labels] + np.log([0.6, 0.35, 0.05])
    probabilities = softmax(logits, axis=1)
    weights = fit_class_weights(probabilities, labels)
    assert np.prod(weights) == pytest.approx(1)
    reached = _macro_f1(weights, probabilities, labels)
    steps = np.exp(np.linspace(-1.5, 1.5, 16))
    grid = max(_macro_f1((1.0, bcc, scc), probabilities, labels) for bcc in steps for scc in steps)
    assert reached > _macro_f1((), probabilities, labels) + 0.02
    assert reached > grid - 0.01


def test_class_weights_of_a_balanced_table_are_about_equal() -> None:
    logits, labels = _drawn(6000, Scaling("temperature", (1.0,) * 3, (0.0,) * 3))
    assert fit_class_weights(softmax(logits, axis=1), labels) == pytest.approx((1, 1, 1), abs=0.25)


def test_a_class_with_few_calibration_lesions_gets_its_bound_from_validation_too() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], [60, 20])
    probabilities = np.stack([1 - labels * 0.6, labels * 0.6], axis=1) + rng.uniform(0, 0.1, (80, 1)) * [
        -1,
        1,
    ]
    groups, calibrating = [str(index) for index in range(80)], np.ones(80, dtype=bool)
    scaling = Scaling("temperature", (1.0, 1.0), (0.0, 0.0))
    calibrating[67:] = False
    few = fit_view(scaling, probabilities[:67], labels[:67], groups[:67], 1)
    more = fit_view(scaling, probabilities, labels, groups, 1, calibrating)
    assert few.least_probabilities[1] == 0
    assert more.least_probabilities[1] == fit_conformal(probabilities, labels, groups)[1] > 0
    assert more.least_probabilities[0] == few.least_probabilities[0]
    assert more.operating_points == few.operating_points


def test_the_embedded_files_of_version_0_1_are_read(calibration: Calibration) -> None:
    [fitted] = {id(view): view for view in calibration.by_views.values()}.values()
    values = {
        "format": 1,
        "task": "multiclass",
        "classes": list(CLASSES),
        "weights_sha256": "ab" * 32,
        "by_views": {views: asdict(fitted) for views in ("1", "8")},
        "gates": None,
        "report": {},
    }
    assert read_calibrations(json.loads(json.dumps(values))) == {"multiclass": calibration}
