"""Figures of decisions, sets and abstentions, against counts by hand."""

import numpy as np
import pytest
from scipy.stats import binomtest

from dermadeit.metrics.shares import (
    abstention_figures,
    calibration_figures,
    conformal_figures,
    operating_point_figures,
    risk_coverage,
)


def test_operating_points_are_counted_in_a_table_of_two_by_two() -> None:
    # 8 hits, 2 misses, 30 alarms, 60 passes.
    positive = np.repeat([True, True, False, False], [8, 2, 30, 60])
    answered = np.repeat([True, False, True, False], [8, 2, 30, 60])
    groups = [str(index) for index in range(100)]
    figures = operating_point_figures(positive, {"balanced": answered}, groups)["balanced"]
    assert {name: figure["value"] for name, figure in figures.items()} == {
        "sensitivity": 8 / 10, "specificity": 60 / 90, "ppv": 8 / 38, "npv": 60 / 62,
    }  # fmt: skip
    assert figures["sensitivity"]["n"] == 10
    low, high = figures["specificity"]["interval"]
    # The binomial deviation of 60 of 90 is .05.
    assert low == pytest.approx(0.667 - 1.96 * 0.05, abs=0.02)
    assert high == pytest.approx(0.667 + 1.96 * 0.05, abs=0.02)


def test_what_is_never_answered_has_no_predictive_value() -> None:
    figures = operating_point_figures(
        np.array([True, False]), {"balanced": np.array([False, False])}, ["a", "b"]
    )
    assert figures["balanced"]["ppv"] == {"value": None, "n": 0, "interval": None}


def test_photos_of_one_lesion_widen_the_interval() -> None:
    positive = np.ones(400, dtype=bool)
    answered = {"balanced": np.repeat(np.arange(40) % 4 > 0, 10)}
    spans = []
    for groups in (np.arange(400).astype(str), np.repeat(np.arange(40), 10).astype(str)):
        low, high = operating_point_figures(positive, answered, groups)["balanced"]["sensitivity"]["interval"]
        spans.append(high - low)
    # Ten photos that agree hold the evidence of one: √10 times the span.
    assert spans[1] / spans[0] == pytest.approx(np.sqrt(10), rel=0.15)


def test_coverage_is_counted_by_image_by_lesion_by_class_and_by_source() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1])
    groups = ["a", "a", "a", "b", "c", "d"]
    members = np.array([[1, 0], [1, 1], [0, 0], [0, 1], [1, 1], [0, 1]], dtype=bool)
    figures = conformal_figures(
        members, labels, groups, ("nevus", "others"), {"sources": ["x", "x", "", "y", "y", "y"]}, 2
    )
    nevus = {name: figure["value"] for name, figure in figures["classes"]["nevus"].items()}
    # Photos: 2 of 4. Lesions: two thirds of the one, nothing of the other.
    assert nevus == pytest.approx(
        {"coverage": 1 / 2, "lesion_coverage": 1 / 3, "mean_size": 1, "empty": 1 / 4, "multiple": 1 / 4}
    )
    assert figures["classes"]["all"]["coverage"]["value"] == pytest.approx(4 / 6)
    assert figures["sources"]["x"].keys() == {"all", "nevus"}
    assert figures["sources"]["y"].keys() == {"all", "others"}
    assert figures["sources"]["y"]["all"]["coverage"]["value"] == pytest.approx(2 / 3)


def test_risk_falls_as_the_least_confident_are_withheld() -> None:
    hits = np.array([True, True, False, True, False])
    confidences = np.array([0.9, 0.8, 0.6, 0.7, 0.5])
    figures = risk_coverage(hits, confidences, list("abcde"))
    # Kept one after the other: 0, 0, 0, 1/4 and 2/5 are wrong.
    assert figures["aurc"]["value"] == pytest.approx((0 + 0 + 0 + 1 / 4 + 2 / 5) / 5)
    at = {point["coverage"]: point for point in figures["curve"]}
    assert at[0.6] == {"confidence": 0.7, "coverage": 0.6, "risk": 0}
    assert at[1.0]["risk"] == pytest.approx(2 / 5)


def test_equal_confidences_are_kept_together_whatever_their_order() -> None:
    groups = [str(index) for index in range(10)]
    first = risk_coverage(np.arange(10) < 5, np.full(10, 0.7), groups)
    last = risk_coverage(np.arange(10) >= 5, np.full(10, 0.7), groups)
    assert first["aurc"]["value"] == last["aurc"]["value"] == pytest.approx(0.5)
    assert all(point["coverage"] == 1 for point in first["curve"])


def test_a_resample_is_the_same_as_measuring_its_images() -> None:
    rng = np.random.default_rng(0)
    hits, confidences = rng.random(50) < 0.8, rng.random(50).round(1)
    once = risk_coverage(hits, confidences, [str(index) for index in range(50)])
    twice = risk_coverage(
        np.tile(hits, 2), np.tile(confidences, 2), [str(index % 50) for index in range(100)]
    )
    assert twice["aurc"]["value"] == pytest.approx(once["aurc"]["value"])
    assert twice["aurc"]["interval"] == pytest.approx(once["aurc"]["interval"])


def test_withheld_answers_are_counted_apart() -> None:
    figures = abstention_figures(
        np.array([False, False, False, True]), np.array([True, True, False, False]), list("abcd")
    )
    assert figures["abstained"]["value"] == 1 / 4
    assert figures["accuracy_answered"]["value"] == pytest.approx(2 / 3)
    assert figures["accuracy_withheld"]["value"] == 0


def test_a_perfect_model_has_no_debiased_calibration_error_and_a_boastful_one_has() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), 1300)
    labels = (rng.random((1300, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    groups = [str(index) for index in range(1300)]
    boastful = probabilities**3 / (probabilities**3).sum(axis=1, keepdims=True)
    honest, loud = (
        calibration_figures(labels, shares, groups, ("a", "b", "c")) for shares in (probabilities, boastful)
    )
    assert honest["ece"]["value"] > 0.015
    assert honest["ece_debiased"]["value"] < honest["ece"]["value"] / 2
    assert loud["ece_debiased"]["value"] > 0.1
    assert {figure["n"] for figure in honest.values()} == {1300}


def test_a_share_of_nothing_or_all_has_wilsons_interval() -> None:
    positive = np.ones(20, dtype=bool)
    groups = [str(index) for index in range(20)]
    for hits in (0, 2, 18, 20):
        answered = {"balanced": np.arange(20) < hits}
        found = operating_point_figures(positive, answered, groups)["balanced"]["sensitivity"]
        expected = binomtest(hits, 20).proportion_ci(method="wilson")
        assert found["interval"] == pytest.approx([expected.low, expected.high])
    # Ten lesions, not twenty photos: what they say of new lesions is less.
    found = operating_point_figures(
        positive, {"balanced": positive}, [str(index // 2) for index in range(20)]
    )
    expected = binomtest(10, 10).proportion_ci(method="wilson")
    assert found["balanced"]["sensitivity"]["interval"] == pytest.approx([expected.low, expected.high])


def test_a_mean_that_is_no_share_keeps_its_bootstrap() -> None:
    members = np.ones((30, 2), dtype=bool)
    figures = conformal_figures(
        members, np.repeat([0, 1], 15), [str(i) for i in range(30)], ("a", "b"), {}, 20
    )
    assert figures["classes"]["all"]["mean_size"]["interval"] == [2, 2]
    low, high = figures["classes"]["all"]["coverage"]["interval"]
    assert 0.8 < low < high == 1
