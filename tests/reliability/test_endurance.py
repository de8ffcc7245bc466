"""Short runs of the scripts that take long, each night."""

import faults
import load
import pytest
import soak
from running_app import running_app

pytestmark = pytest.mark.nightly


def test_every_answer_is_that_of_its_photo_and_the_queue_has_an_end() -> None:
    with running_app() as app:
        figures = load.serve_visitors(app, requests=100, visitors=16, photos=20)
        assert figures["wrong_answers"] == 0
        assert load.flood(app)["answered"] > 0


def test_two_minutes_of_use_leave_nothing_open() -> None:
    with running_app() as app:
        calls, samples = soak.use(app, minutes=2)
        assert calls > 0
        grown = soak.growth(samples)
        assert grown["open_files"]["last quarter"] < grown["open_files"]["second quarter"] + 40
        assert grown["threads"]["last quarter"] < grown["threads"]["second quarter"] + 40


@pytest.mark.parametrize("name", ["training", "embedding", "preparing", "evaluation", "calibration"])
def test_a_killed_work_comes_to_the_same(name: str, tmp_path) -> None:
    faults.make_inputs(tmp_path)
    found = faults.disturb(name, faults.works(tmp_path)[name], tmp_path, kills=2)
    assert (found.get("failure"), found["half"], found["differing"]) == (None, [], [])
    assert found["same"] == 2
