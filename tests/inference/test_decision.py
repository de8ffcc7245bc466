"""Decisions and predictive values as plain functions of numbers."""

import pytest

from dermadeit.errors import ConfigurationError
from dermadeit.inference.decision import decide, predictive_values


def test_the_decision_follows_the_threshold_and_not_the_greatest_probability() -> None:
    probabilities = {"mel": 0.45, "bcc": 0.50, "scc": 0.05}
    assert decide(probabilities, "mel", 0.4) == "mel"
    assert decide(probabilities, "mel", 0.45) == "mel"
    assert decide(probabilities, "mel", 0.7) == "bcc"
    # Below the threshold the answer is one of the others, even where melanoma is the likeliest of all.
    assert decide({"mel": 0.6, "bcc": 0.15, "scc": 0.25}, "mel", 0.7) == "scc"


def test_predictive_values_follow_bayes_rule() -> None:
    # Of 1000 lesions 10 are melanomas: 8 found, 198 false alarms, 792 rightly passed, 2 missed.
    assert predictive_values(0.8, 0.8, 0.01) == (pytest.approx(8 / 206), pytest.approx(792 / 794))


def test_a_predictive_value_that_no_answer_is_counted_in_is_not_made_up() -> None:
    assert predictive_values(0.0, 1.0, 0.5) == (None, pytest.approx(0.5))
    assert predictive_values(1.0, 0.0, 0.5) == (pytest.approx(0.5), None)


@pytest.mark.parametrize("prevalence", [5, -0.1, float("nan")])
def test_a_prevalence_that_is_no_share_is_refused(prevalence: float) -> None:
    with pytest.raises(ConfigurationError, match="0 to 1"):
        predictive_values(0.8, 0.8, prevalence)
