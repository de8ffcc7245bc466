"""What any threshold gives, from the stored curve, against counts."""

import json

import numpy as np
import pytest
from scipy.special import expit

from dermadeit.trust.threshold_curve import POINTS, ThresholdCurve, fit_curve


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(0)
    positive = np.repeat([True, False], [160, 240])
    scores = expit(rng.normal(np.where(positive, 1.0, -1.5), 1.5))
    return scores, positive, [f"lesion {index // 2}" for index in range(400)]


@pytest.fixture(scope="module")
def curve(drawn):
    return fit_curve(*drawn)


@pytest.mark.parametrize("threshold", [0.03, 0.1, 0.25, 0.4, 0.55, 0.8, 0.97])
def test_any_threshold_gives_what_is_counted_there(drawn, curve, threshold) -> None:
    scores, positive, _ = drawn
    counted = {
        "sensitivity": (scores[positive] >= threshold).mean(),
        "specificity": (scores[~positive] < threshold).mean(),
    }
    for figure, expected in counted.items():
        value, low, high = curve.read(figure, threshold)
        assert value == pytest.approx(expected, abs=0.015)
        assert low <= value <= high
        # Eighty lesions of the target at most: the interval is neither a point nor everything.
        assert 0.01 < high - low < 0.25


def test_at_its_ends_the_target_is_always_and_never_answered(curve) -> None:
    assert curve.read("sensitivity", 0.0)[0] == curve.read("specificity", 1.0)[0] == 1
    assert curve.read("sensitivity", 1.0)[0] == curve.read("specificity", 0.0)[0] == 0


def test_a_higher_threshold_never_finds_more_and_never_alarms_more(curve) -> None:
    assert len(curve.thresholds) <= POINTS
    assert (np.diff(curve.sensitivity) <= 0).all()
    assert (np.diff(curve.specificity) >= 0).all()


def test_a_curve_is_stored_and_read(curve) -> None:
    stored = json.loads(json.dumps(curve.to_dict()))
    assert ThresholdCurve.from_dict(stored) == curve
    for broken in ({"thresholds": [0, 1]}, {"sensitivity": [None] * len(curve.thresholds)}):
        with pytest.raises((TypeError, ValueError)):
            ThresholdCurve.from_dict({**stored, **broken})


def test_scores_that_are_all_the_same_have_a_curve() -> None:
    flat = fit_curve(np.full(4, 0.5), np.array([True, True, False, False]), list("abcd"))
    assert flat.read("sensitivity", 0.0)[0] == flat.read("specificity", 1.0)[0] == 1
