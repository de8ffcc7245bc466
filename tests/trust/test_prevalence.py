"""Probabilities and thresholds at another prevalence, against sums by hand."""

import numpy as np
import pytest

from dermadeit.errors import ConfigurationError
from dermadeit.tasks import BINARY, DIAGNOSIS, MALIGNANCY, MULTICLASS, Task
from dermadeit.trust.calibration import Calibration
from dermadeit.trust.prevalence import check_prevalence, move_share, reweigh

SHARES = {"mel": 0.2, "nv": 0.5, "bcc": 0.15, "ak": 0.03, "bkl": 0.05, "df": 0.01, "vasc": 0.02, "scc": 0.04}


def _calibration(task: Task) -> Calibration:
    groups = task.group(DIAGNOSIS.classes)
    return Calibration(
        task.key, task.classes, "", {}, target=task.target, groups=groups, class_shares=tuple(SHARES.values())
    )


def test_a_probability_moves_as_a_table_of_a_thousand_people_says() -> None:
    # Half of 1000 lesions are melanomas. 300 of the 500 get this answer, and 100 of the 500 others: 300 of 400.
    assert move_share(0.75, 0.5, 0.5) == 0.75
    # In a place where 100 of 1000 are melanomas: 60 of them get it, and 180 of the 900 others: 60 of 240.
    assert move_share(0.75, 0.5, 0.1) == pytest.approx(60 / 240)
    assert move_share(60 / 240, 0.1, 0.5) == pytest.approx(0.75)


def test_shares_keep_their_order_and_their_ends() -> None:
    shares = np.linspace(0, 1, 21)
    for after in (0.001, 0.3, 0.999):
        moved = [move_share(share, 0.49, after) for share in shares]
        assert moved == sorted(set(moved))
        assert (moved[0], moved[-1]) == (0, 1)
    assert [move_share(0.3, 0.49, after) for after in (0, 1)] == [0, 1]


def test_other_classes_keep_their_proportions() -> None:
    moved = reweigh(np.array([0.5, 0.4, 0.1]), np.array([0.1 / 0.5, 0.9 / 0.5, 0.9 / 0.5]))
    # 0.5·0.2 = 0.1 beside 0.4·1.8 = 0.72 and 0.1·1.8 = 0.18.
    assert moved == pytest.approx([0.1, 0.72, 0.18])
    assert moved[1] / moved[2] == pytest.approx(4)
    assert reweigh(np.array([1.0, 0.0, 0.0]), np.array([0, 2, 1])).sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("task", "expected"), [(DIAGNOSIS, 0.2), (MALIGNANCY, 0.39), (BINARY, 0.5), (MULTICLASS, 0.2 / 0.39)]
)
def test_each_reading_has_the_prevalence_of_its_own_target(task: Task, expected: float) -> None:
    assert _calibration(task).prevalence == pytest.approx(expected)


@pytest.mark.parametrize("task", [DIAGNOSIS, MALIGNANCY, BINARY, MULTICLASS])
def test_all_readings_follow_the_prevalence_of_one_of_them(task: Task) -> None:
    calibration = _calibration(task)
    factors = calibration.class_factors(0.1)
    assert np.array(list(SHARES.values())) @ factors == pytest.approx(1)
    assert calibration.prevalence_after(factors) == pytest.approx(0.1)
    probabilities = np.array([0.3, 0.3, 0.1, 0.1, 0.1, 0.02, 0.03, 0.05])
    read = calibration.read(reweigh(probabilities, factors))
    alone = calibration.probabilities_at(calibration.read(probabilities), calibration.prevalence, 0.1)
    assert read == pytest.approx(alone)
    index = task.index_of(task.target)
    before = calibration.read(probabilities)[index]
    assert read[index] == pytest.approx(move_share(before, calibration.prevalence, 0.1))


def test_the_prevalence_among_malignant_lesions_leaves_malignancy_as_it_is() -> None:
    factors = _calibration(MULTICLASS).class_factors(0.9)
    assert _calibration(MALIGNANCY).prevalence_after(factors) == pytest.approx(0.39)
    factors = _calibration(MALIGNANCY).class_factors(0.01)
    assert _calibration(MULTICLASS).prevalence_after(factors) == pytest.approx(0.2 / 0.39)


@pytest.mark.parametrize("prevalence", [5, -0.1, float("nan")])
def test_a_prevalence_that_is_no_share_is_refused(prevalence: float) -> None:
    with pytest.raises(ConfigurationError, match="0 to 1"):
        check_prevalence(prevalence)
