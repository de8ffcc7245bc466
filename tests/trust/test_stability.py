"""Spread and flips of views, worked out by hand."""

import math

import numpy as np
import pytest

from dermadeit.trust.stability import Stability, answers, flipped, spreads, stability


def _logits(*probabilities: tuple[float, ...]) -> np.ndarray:
    return np.log(np.array(probabilities))


def test_views_that_agree() -> None:
    found = stability(_logits((0.9, 0.1), (0.7, 0.3), (0.8, 0.2)))
    assert found == Stability(agreeing_share=1, spread=pytest.approx(0.2), flips=0)


def test_views_are_counted_against_the_joint_answer() -> None:
    # The mean logit of the second class lies 0.5 above: three of four views say so.
    view_logits = np.array([[0, 2], [0, 1], [0, 1], [2, 0]], dtype=np.float32)
    found = stability(view_logits)
    assert (found.agreeing_share, found.flips) == (0.75, 1)
    assert found.spread == pytest.approx(1 / (1 + math.exp(-2)) - 1 / (1 + math.exp(2)))


def test_the_joint_answer_may_not_be_the_one_of_most_views() -> None:
    assert stability(np.array([[5.0, 0.0], [0.0, 1.0], [0.0, 1.0]])).flips == 2


def test_with_two_classes_either_may_be_followed() -> None:
    view_logits = np.random.default_rng(0).normal(size=(8, 2))
    assert spreads(view_logits, 0) == pytest.approx(spreads(view_logits, 1))


def test_the_class_that_is_followed() -> None:
    view_logits = _logits((0.1, 0.6, 0.3), (0.2, 0.3, 0.5), (0.1, 0.8, 0.1))
    assert spreads(view_logits, 0) == pytest.approx(0.1)
    assert spreads(view_logits, 2) == pytest.approx(0.4)
    # The answer is the second class.
    assert stability(view_logits).spread == pytest.approx(0.5)


def test_one_view_agrees_with_itself() -> None:
    assert stability(_logits((0.6, 0.4))) == Stability(1, 0, 0)


def test_logits_too_large_for_exp_are_no_problem() -> None:
    assert stability(np.array([[1e4, -1e4], [-1e4, 1e4]])).spread == pytest.approx(1)


def test_many_images_at_once_equal_one_by_one() -> None:
    view_logits = np.random.default_rng(1).normal(size=(20, 8, 3))
    single = [stability(logits) for logits in view_logits]
    assert flipped(view_logits).sum(axis=1).tolist() == [found.flips for found in single]
    assert spreads(view_logits, 0).tolist() == pytest.approx(
        [float(spreads(logits, 0)) for logits in view_logits]
    )
    by_answer = spreads(view_logits, answers(view_logits))
    assert by_answer.tolist() == pytest.approx([found.spread for found in single])


def test_the_flip_rate_of_an_example() -> None:
    view_logits = np.array([[[1, 0], [1, 0], [0, 0.5], [1, 0]], [[0, 1], [0, 1], [0, 1], [0, 1]]])
    assert flipped(view_logits).mean() == pytest.approx(1 / 8)


def test_the_joint_answer_may_be_another_than_that_of_the_averaged_logits() -> None:
    # Calibration can move the joint answer and the views' own apart.
    view_logits = _logits((0.9, 0.1), (0.7, 0.3), (0.4, 0.6))
    found = stability(view_logits, answer=1)
    assert (found.flips, found.agreeing_share) == (2, pytest.approx(1 / 3))
    assert found.spread == pytest.approx(0.5)
