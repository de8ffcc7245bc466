"""How speed is measured: in turn, within rounds, and with each answer held against its own photo."""

import io
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from eight_diagnoses import eight_diagnoses_root
from PIL import Image

from benchmarks.speed import bench
from benchmarks.speed.many_photos import measure_visitors
from benchmarks.speed.photos import USUAL_SIZE, make_photos
from benchmarks.speed.rounds import divide, summarise, take_turns
from benchmarks.speed.row import CEILING, OURS, PEER, Ratio, make_row, render_rows
from dermadeit.files import read_json
from dermadeit.inference.predictor import Predictor
from dermadeit.inference.records import Prediction
from dermadeit.models.checkpoints import load_checkpoint


class _Clock:
    """A clock that only work moves on."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[str] = []

    def __call__(self) -> float:
        return self.now

    def work(self, name: str, seconds: float) -> None:
        self.order.append(name)
        # The machine gets slower and slower.
        self.now += seconds * (1 + len(self.order))


def test_a_machine_that_slows_down_spoils_no_ratio() -> None:
    clock = _Clock()
    arms = {"slow": lambda: clock.work("slow", 3), "fast": lambda: clock.work("fast", 1)}
    measured = take_turns(arms, least=40, clock=clock)
    assert clock.order[:8] == ["slow", "fast", "slow", "fast", "fast", "slow", "slow", "fast"]
    assert {name: len(rounds) for name, rounds in measured.items()} == {"slow": 40, "fast": 40}
    found = summarise(divide(measured["slow"], measured["fast"]))
    assert found["median"] == pytest.approx(3, rel=0.05)
    low, high = found["interval"]
    assert low <= found["median"] <= high


def test_a_row_compares_within_rounds_and_shows_every_ratio() -> None:
    seconds = {PEER: [0.04, 0.08], OURS: [0.02, 0.04], CEILING: [0.01, 0.02]}
    ratios = [Ratio(PEER, OURS, "times as fast", "at least 1.4"), Ratio(CEILING, OURS, "of its own")]
    row = make_row("Four photos", "photos/s", seconds, ratios, amount=4)
    assert row["arms"][OURS]["median"] == pytest.approx((200 + 100) / 2)
    assert [ratio["median"] for ratio in row["ratios"]] == [2, 0.5]
    _, _, first, second = render_rows([row]).splitlines()
    assert [cell.strip() for cell in first.split("|")[1:-1]] == [
        "Four photos", "75 photos/s", "150 photos/s", "", "300 photos/s", "2.00 [2.00, 2.00] times as fast",
        "at least 1.4",
    ]  # fmt: skip
    assert [cell.strip() for cell in second.split("|")[1:-1]][-2:] == ["0.50 [0.50, 0.50] of its own", ""]


def test_the_photos_are_made_of_the_examples_and_differ() -> None:
    photos = make_photos(9)
    assert len(set(photos)) == 9
    assert all(Image.open(io.BytesIO(photo)).size == USUAL_SIZE for photo in photos)


class _Mixing:
    """A predictor that answers rightly in turn, and every one of several visitors with the next one's answer."""

    def __init__(self, predictor: Predictor) -> None:
        self.checkpoint, self.runtime = predictor.checkpoint, predictor.runtime
        self._predictor = predictor
        self._given: dict[str, Prediction] = {}

    def predict(self, photos: list[bytes], views: int) -> list[Prediction]:
        [record] = self._predictor.predict(photos, views)
        if threading.current_thread() is threading.main_thread():
            self._given[record.sha256] = record
            return [record]
        known = list(self._given)
        following = known[(known.index(record.sha256) + 1) % len(known)]
        return [replace(self._given[following], sha256=record.sha256)]


@pytest.mark.slow
def test_an_answer_of_another_photo_is_found(synthetic_data: Path) -> None:
    root = eight_diagnoses_root(synthetic_data, calibrated=False)
    predictor = Predictor(load_checkpoint(root / "dermadeit"))
    row, in_turn = measure_visitors(predictor, 4, 0, 1)
    assert (row["answers"], row["answers_of_another_photo"]) == (4, 0)
    assert in_turn["arms"][OURS]["median"] > 0
    row, _ = measure_visitors(_Mixing(predictor), 4, 0, 1)
    assert row["answers_of_another_photo"] == 4


@pytest.mark.nightly
def test_one_command_measures_everything(synthetic_data: Path, tmp_path: Path) -> None:
    folder = eight_diagnoses_root(synthetic_data) / "dermadeit"
    results, output = tmp_path / "results.md", tmp_path / "speed.json"
    results.write_text("Before\n<!-- speed -->\n<!-- /speed -->\nAfter\n")
    bench.main(["--quick", "--checkpoint", str(folder), "--output", str(output), "--results", str(results)])
    report = read_json(output)
    assert report["model"]["image_size"] == 64
    assert report["largest_difference_of_a_probability"] < 0.05
    assert len(report["rows"]) >= 12
    assert all(arm["median"] > 0 for row in report["rows"] for arm in row["arms"].values())
    text = results.read_text()
    assert all(row["title"] in text for row in report["rows"])
    assert report["steps"]["steps"]
