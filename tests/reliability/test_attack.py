"""The running app under attack, each night; what is quick of it is in tests/views/api."""

import pytest
from attack import ATTACKS
from running_app import RunningApp, running_app

pytestmark = pytest.mark.nightly


@pytest.fixture(scope="module")
def app():
    with running_app() as served:
        yield served


@pytest.mark.parametrize("title", ATTACKS)
def test_it_holds(title: str, app: RunningApp) -> None:
    assert ATTACKS[title](app) > 0
