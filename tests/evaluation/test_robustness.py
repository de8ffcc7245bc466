"""Spoilt photos against clean ones, with a model whose answers can be worked out by hand."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from dermadeit.data.manifest import Manifest, ManifestRow
from dermadeit.errors import TableError
from dermadeit.evaluation.robustness import measure_robustness, sample_lesions
from dermadeit.imaging.corruptions import CORRUPTIONS, SEVERITIES
from dermadeit.imaging.decode import LesionImage
from dermadeit.inference.records import ABSTAIN, ANSWER, ItemFailure, Prediction
from dermadeit.tasks import get_task

pytestmark = pytest.mark.slow

BINARY = get_task("binary")
IMAGES = 12


class BrightnessModel:
    """Calls bright photos nevi and dark ones others, and gives no answer where much of the photo is black."""

    checkpoint = SimpleNamespace(model="brightness", weights_sha256="ab" * 32)

    def predict(self, sources: Iterable[LesionImage], views: int) -> list[Prediction | ItemFailure]:
        return [self._read(image) for image in sources]

    def _read(self, image: LesionImage) -> Prediction | ItemFailure:
        mean = float(image.pixels.mean())
        if 59 < mean < 61:
            return ItemFailure(
                image.name, image.sha256, "binary", "brightness", "non_finite_output", "Broken."
            )
        bright = 1 / (1 + np.exp(-(mean - 128) / 20))
        black = (image.pixels.max(axis=2) < 20).mean()
        return Prediction(
            image.name, image.sha256, "binary", "brightness", "nevus" if bright > 0.5 else "others",
            {"nevus": bright, "others": 1 - bright}, {"nevus": mean, "others": 128.0}, 1, (), (),
            verdict=ABSTAIN if black > 0.2 else ANSWER,
        )  # fmt: skip


def _row(folder: Path, index: int, shade: int, label: str) -> ManifestRow:
    path = folder / f"{index}.png"
    Image.new("RGB", (80, 80), (shade, shade, shade)).save(path)
    return ManifestRow(f"i{index}", path.name, path, label, "test", f"L{index // 2}", "")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Six lesions of two photos each: bright nevi (200) and dark others (100)."""
    folder = tmp_path_factory.mktemp("shades")
    rows = [
        _row(folder, index, 200 if index % 4 < 2 else 100, "nevus" if index % 4 < 2 else "others")
        for index in range(IMAGES)
    ]
    return Manifest(BINARY, tuple(rows), ())


@pytest.fixture(scope="module")
def measured(manifest: Manifest) -> dict:
    return measure_robustness(manifest, BrightnessModel())


def test_the_clean_photos_are_all_right(measured: dict) -> None:
    assert (measured["n"], measured["lesions"], measured["failed"]) == (IMAGES, IMAGES // 2, 0)
    assert measured["splits"] == ["test"]
    assert measured["clean"]["accuracy"] == measured["clean"]["roc_auc"] == 1
    assert measured["clean"]["flipped"]["value"] == 0


def test_what_leaves_the_mean_alone_changes_no_answer(measured: dict) -> None:
    # Blur, contrast and pixels of a plain photo are the photo.
    for corruption in ("blur", "defocus", "contrast", "pixelate"):
        part = measured["corruptions"][corruption]
        assert part["drop"]["accuracy"] == {"difference": 0, "interval": [0, 0]}
        assert all(figures["flipped"]["value"] == 0 for figures in part["severities"].values())


def test_a_dark_frame_withholds_answers_before_it_turns_them(measured: dict) -> None:
    part = measured["corruptions"]["dark_corner"]
    assert list(part["severities"]) == [str(severity) for severity in SEVERITIES]
    # The smallest circle, .64 half diagonals, covers .64² π / 2 = 64 % of a square: a third is black, and 200
    # becomes 131, still bright. The largest leaves next to nothing black.
    accuracies = [part["severities"][str(severity)]["accuracy"] for severity in SEVERITIES]
    abstained = [part["severities"][str(severity)]["abstained"]["value"] for severity in SEVERITIES]
    assert accuracies == [1, 1, 1, 1, 1]
    assert abstained[0] == 0
    assert abstained[-1] == 1


def test_the_drop_is_the_mean_over_severities_and_then_over_corruptions(measured: dict) -> None:
    assert list(measured["corruptions"]) == list(CORRUPTIONS)
    drops = []
    for part in measured["corruptions"].values():
        mean = np.mean([figures["accuracy"] for figures in part["severities"].values()])
        assert part["drop"]["accuracy"]["difference"] == pytest.approx(1 - mean)
        drops.append(1 - mean)
    overall = measured["mean_corruption_drop"]["accuracy"]
    assert overall["difference"] == pytest.approx(np.mean(drops))
    # Over- and underexposure by a stop turn 200 dark or 100 bright in some photos.
    assert measured["corruptions"]["brightness"]["drop"]["accuracy"]["difference"] > 0
    low, high = overall["interval"]
    assert 0 <= low < overall["difference"] < high


def test_the_result_is_json_and_the_same_again(manifest: Manifest, measured: dict) -> None:
    seen = []
    again = measure_robustness(manifest, BrightnessModel(), progress=lambda: seen.append(1))
    assert len(seen) == IMAGES
    assert json.dumps(again, allow_nan=False) == json.dumps(measured, allow_nan=False)


def test_photos_that_fail_are_counted_and_leave_every_condition(manifest: Manifest, tmp_path: Path) -> None:
    broken = _row(tmp_path, 20, 60, "others")
    missing = ManifestRow("gone", "gone.png", tmp_path / "gone.png", "nevus", "test", "L9", "")
    few = Manifest(BINARY, (*manifest.rows[:4], broken, missing), ())
    measured = measure_robustness(few, BrightnessModel())
    assert (measured["n"], measured["failed"]) == (4, 2)
    assert all(
        figures["flipped"]["n"] == 4
        for part in measured["corruptions"].values()
        for figures in part["severities"].values()
    )
    with pytest.raises(TableError, match="name their folder"):
        measure_robustness(Manifest(BINARY, (missing,), ()), BrightnessModel())


def _lesions(manifest: Manifest) -> Iterator[str]:
    yield from (row.lesion_group for row in manifest.rows)


def test_a_sample_holds_whole_lesions(manifest: Manifest) -> None:
    sample = sample_lesions(manifest, 5, seed=1)
    assert len(sample.rows) == 6
    assert all(list(_lesions(manifest)).count(group) == 2 for group in _lesions(sample))
    assert [row.image_id for row in sample.rows] == [
        row.image_id for row in manifest.rows if row.lesion_group in set(_lesions(sample))
    ]
    assert set(_lesions(sample_lesions(manifest, 5, seed=2))) != set(_lesions(sample))
    assert sample_lesions(manifest, 100).rows == sample_lesions(manifest, None).rows == manifest.rows
