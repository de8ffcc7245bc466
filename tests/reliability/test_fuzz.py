"""A few changed inputs for every reader; `make fuzz` has 200,000."""

import fuzz
import pytest


@pytest.mark.parametrize("reader", fuzz.READERS)
def test_nothing_but_our_own_errors_comes_out(reader: str) -> None:
    tally = fuzz.fuzz(reader, range(40))
    assert tally.findings == []
    assert sum(tally.outcomes.values()) == 40


@pytest.mark.nightly
@pytest.mark.parametrize("reader", fuzz.READERS)
def test_nothing_but_our_own_errors_comes_out_of_many(reader: str) -> None:
    assert fuzz.fuzz(reader, range(40, 3000)).findings == []
