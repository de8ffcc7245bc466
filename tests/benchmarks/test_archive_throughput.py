"""What a million photos cost follows from two runs."""

import pytest

from benchmarks.speed.archive_throughput import summarise


def test_the_cost_follows_from_the_photos_a_second_after_the_start() -> None:
    # Ten seconds until the workers run, then ten photos a second, at 0.36 an hour.
    assert summarise((100, 500), (20.0, 60.0), 0.36) == {
        "photos_per_second": pytest.approx(10),
        "start_seconds": pytest.approx(10),
        "hours_per_million": pytest.approx(27.8),
        "cost_per_million": pytest.approx(10),
    }
