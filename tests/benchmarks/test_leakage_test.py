"""The leakage test: a memory of photos of the same lesions flatters a split by image, and only that."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.evidence.leakage_test import Features, answer, main, measure, votes, write_results
from dermadeit.errors import ConfigurationError
from dermadeit.files import read_json
from dermadeit.tasks import BINARY


@pytest.fixture
def features() -> Features:
    """Two photos each of 150 lesions, alike in what is useless to read the label of other lesions."""
    rng = np.random.default_rng(0)
    lesions = np.repeat(np.arange(150), 2)
    labels = rng.integers(0, 2, 150)[lesions]
    tokens = rng.normal(size=(150, 16))[lesions] + 0.05 * rng.normal(size=(300, 16))
    probabilities = np.clip(0.5 + 0.2 * (labels - 0.5) + 0.15 * rng.normal(size=300), 0.05, 0.95)
    return Features(
        tokens.astype(np.float32),
        np.log(np.stack([1 - probabilities, probabilities], axis=1)),
        labels,
        np.array([f"lesion{lesion}" for lesion in lesions]),
    )


def test_only_parts_of_photos_remember_the_lesion(features: Features) -> None:
    right = {
        split_by: (answer(features, BINARY, split_by).argmax(axis=1) == features.labels).mean()
        for split_by in ("lesion", "image")
    }
    network = (features.log_probabilities.argmax(axis=1) == features.labels).mean()
    assert right["image"] > network + 0.1 and right["lesion"] < network + 0.03
    report = measure(features, BINARY, resamples=50)
    assert report["arms"]["image"]["accuracy"] == pytest.approx(right["image"])
    assert report["image_minus_lesion"]["accuracy"]["interval"][0] > 0
    assert report["share_of_images_whose_lesion_has_several"] == 1


def test_hidden_photos_have_no_vote(features: Features) -> None:
    same = features.lesions[:, None] == features.lesions[None]
    alone = np.eye(len(same), dtype=bool)
    nearest = {
        name: votes(features, features, hidden, 2)[:, :2].argmax(axis=1)
        for name, hidden in (("lesion", same), ("image", alone))
    }
    assert (nearest["image"] == features.labels).all()
    assert (nearest["lesion"] == features.labels).mean() < 0.7


@pytest.mark.slow
def test_one_command_measures_a_checkpoint_and_writes_the_table(
    synthetic_data: Path, checkpoint_root: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results.md"
    results.write_text("<!-- leakage-test -->\n<!-- /leakage-test -->\n")
    for task in ("binary", "multiclass"):
        (tmp_path / task).mkdir()
        words = [synthetic_data / "manifest.csv", "--checkpoint", checkpoint_root / task / "dermadeit"]
        words += ["--task", task, "--features", tmp_path / f"{task}.npz", "--resamples", 20]
        words += ["--output", tmp_path / task / "leakage_test.json"]
        main([str(word) for word in words])
    write_results(results, tmp_path)
    text = results.read_text()
    assert text.count("parts of photos at random") == 2 and "0.921" in text and "0.955" in text
    report = read_json(tmp_path / "binary" / "leakage_test.json")
    assert report["arms"]["network"]["n"] == report["images"] > report["lesions"] > 0
    # What was kept serves again, and not for other photos or weights.
    kept = (tmp_path / "binary.npz").stat().st_mtime_ns
    words = [synthetic_data / "manifest.csv", "--checkpoint", checkpoint_root / "binary" / "dermadeit"]
    words += ["--task", "binary", "--resamples", 20, "--output", tmp_path / "again.json", "--features"]
    main([str(word) for word in [*words, tmp_path / "binary.npz"]])
    assert read_json(tmp_path / "again.json")["arms"] == report["arms"]
    assert (tmp_path / "binary.npz").stat().st_mtime_ns == kept
    with pytest.raises(ConfigurationError, match="Delete it"):
        main([str(word) for word in [*words, tmp_path / "multiclass.npz"]])
