"""Fixtures of the training tests."""

from collections.abc import Iterator

import pytest
from accelerate.state import AcceleratorState


@pytest.fixture(autouse=True)
def _fresh_accelerator() -> Iterator[None]:
    """Accelerate keeps precision and device for a whole process; each test is a program of its own."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
