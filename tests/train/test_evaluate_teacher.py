"""The teacher's rows of the benchmark."""

from pathlib import Path

import numpy as np
import pytest

from dermadeit.data.manifest import read_source
from dermadeit.evaluation.predictions import read_predictions
from dermadeit.inference.predictor import load_predictor
from dermadeit.tasks import BINARY
from train import evaluate_teacher


@pytest.mark.slow
def test_a_teacher_and_a_small_network_on_its_features_are_evaluated(
    synthetic_data: Path, checkpoint_root: Path, tmp_path: Path
) -> None:
    folder = checkpoint_root / "binary" / "dermadeit"
    output = tmp_path / "teacher"
    arguments = ["--teacher", f"checkpoint:{folder}", "--data", str(synthetic_data), "--split", "validation"]
    arguments += ["--teacher-cache", str(tmp_path / "cache"), "--output", str(output)]
    assert evaluate_teacher.main(arguments) == 0
    sets = {(found.model, found.views): found for found in read_predictions(output / "predictions.csv")}
    assert sets.keys() == {(model, views) for model in ("teacher", "teacher-mlp") for views in (1, 8)}
    manifest = read_source(synthetic_data / "manifest.csv", BINARY).select("validation")
    assert sets["teacher-mlp", 8].image_ids == tuple(row.image_id for row in manifest.rows)
    # One network without folds answers as it does on its own, but for the half precision of the cache.
    predictor = load_predictor("binary", model=str(folder))
    for views in (1, 8):
        alone = predictor.predict([row.path for row in manifest.rows], views)
        expected = np.array([list(prediction.probabilities.values()) for prediction in alone])
        np.testing.assert_allclose(sets["teacher", views].probabilities, expected, atol=0.02)


def test_a_missing_teacher_is_explained(
    synthetic_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = ["--data", str(synthetic_data), "--output", str(tmp_path), "--teacher"]
    assert evaluate_teacher.main([*arguments, "none"]) == 2
    assert "--teacher" in caplog.text
