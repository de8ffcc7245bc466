"""Age and sex by late fusion: the regression itself."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from dermadeit.data.patient import Patient
from dermadeit.metrics.weighted import log_losses
from dermadeit.trust.patient_context import Fusion, cross_fitted, fit_fusion

SIGNS = {"female": 1.0, "male": -1.0, None: 0.0}


def _drawn(
    count: int, num_classes: int, seed: int = 0
) -> tuple[np.ndarray, list[Patient], np.ndarray, list[str]]:
    """Photos whose class depends on age and sex beside what the network says, two of each lesion."""
    rng = np.random.default_rng(seed)
    ages = np.repeat(rng.uniform(10, 85, count // 2).round(), 2)
    sexes = np.repeat(rng.choice([*SIGNS], count // 2), 2)
    patients = [Patient(age, sex) for age, sex in zip(ages.tolist(), sexes.tolist(), strict=True)]
    probabilities = softmax(rng.normal(0, 1.5, (count, num_classes)), axis=1)
    effect = np.linspace(-1, 1, num_classes)
    scores = np.log(probabilities) + np.outer((ages - 50) / 20, effect)
    scores += np.outer([SIGNS[sex] for sex in sexes], effect[::-1] / 3)
    labels = np.array([rng.choice(num_classes, p=row) for row in softmax(scores, axis=1)])
    return probabilities, patients, labels, [f"lesion {index // 2}" for index in range(count)]


def _as_scikit_learn(
    fusion: Fusion, patients: list[Patient], probabilities: np.ndarray | None = None
) -> np.ndarray:
    """Inputs of a scikit-learn regression: age and sex, after the log-probabilities where they are given."""
    ages = (np.array([patient.age for patient in patients]) - fusion.age.mean) / fusion.age.deviation
    columns = [ages, [SIGNS[patient.sex] for patient in patients]]
    return np.column_stack(columns if probabilities is None else [np.log(probabilities), *columns])


@pytest.mark.parametrize("num_classes", [2, 3, 8])
def test_where_the_network_knows_nothing_it_is_the_regression_of_scikit_learn(num_classes: int) -> None:
    _, patients, labels, lesions = _drawn(600, num_classes)
    uniform = np.full((600, num_classes), 1 / num_classes)
    fusion, penalty = fit_fusion(uniform, patients, labels, lesions)
    inputs = _as_scikit_learn(fusion, patients)
    # Of two classes scikit-learn has one row of coefficients for the difference, whose penalty counts twice.
    strength = (2 if num_classes == 2 else 1) / penalty
    model = LogisticRegression(C=strength, tol=1e-9, max_iter=5000).fit(inputs, labels)
    np.testing.assert_allclose(fusion(uniform, patients), model.predict_proba(inputs), atol=1e-4)


def test_it_is_a_regression_on_log_probabilities_age_and_sex() -> None:
    probabilities, patients, labels, lesions = _drawn(400, 3)
    fusion, _ = fit_fusion(probabilities, patients, labels, lesions)
    model = LogisticRegression()
    model.fit(_as_scikit_learn(fusion, patients, probabilities), labels)
    model.coef_ = np.hstack([np.eye(3), fusion.coefficients])
    model.intercept_ = np.array(fusion.intercepts)
    fused = fusion(probabilities, patients)
    np.testing.assert_allclose(fused.sum(axis=1), 1)
    expected = model.predict_proba(_as_scikit_learn(fusion, patients, probabilities))
    np.testing.assert_allclose(fused, expected, atol=1e-9)


def test_without_an_age_the_photo_decides_alone() -> None:
    probabilities, patients, labels, lesions = _drawn(400, 3)
    fusion, _ = fit_fusion(probabilities, patients, labels, lesions)
    given = [None, Patient(), Patient(sex="female"), Patient(80, "female")]
    fused = fusion(probabilities[:4], given)
    np.testing.assert_array_equal(fused[:3], probabilities[:3])
    assert np.abs(fused[3] - probabilities[3]).max() > 0.01


def test_an_unknown_sex_lies_between_the_two_and_odd_ages_count_as_the_nearest_known() -> None:
    probabilities, patients, labels, lesions = _drawn(400, 3)
    fusion, _ = fit_fusion(probabilities, patients, labels, lesions)
    one = np.repeat(probabilities[:1], 3, axis=0)
    logs = np.log(fusion(one, [Patient(60, "female"), Patient(60), Patient(60, "male")]))
    odds = logs - logs[:, :1]
    np.testing.assert_allclose(odds[1], (odds[0] + odds[2]) / 2)
    oldest = max(patient.age or 0 for patient in patients)
    aged = fusion(one, [Patient(oldest), Patient(oldest + 10), Patient(oldest - 30)])
    np.testing.assert_array_equal(aged[0], aged[1])
    assert not np.allclose(aged[0], aged[2])


def test_lesions_that_were_not_fitted_gain_where_age_tells_something() -> None:
    probabilities, patients, labels, lesions = _drawn(800, 3)
    fused = cross_fitted({1: probabilities, 4: probabilities}, patients, labels, lesions)
    before, after = log_losses(labels, probabilities), log_losses(labels, fused[4])
    assert after.mean() < before.mean() - 0.1
    # Both photos of a lesion are answered by one regression, which has seen neither.
    np.testing.assert_array_equal(fused[1], fused[4])
    shuffled = np.random.default_rng(1).permutation(400)
    strangers = [patients[2 * index] for index in shuffled for _ in range(2)]
    useless = cross_fitted({1: probabilities}, strangers, labels, lesions)[1]
    assert log_losses(labels, useless).mean() > after.mean() + 0.1
