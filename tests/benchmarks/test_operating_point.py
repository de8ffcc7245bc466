"""Models at one operating point: a shift of the classes' frequencies alone makes no model better."""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from benchmarks.evidence.operating_point import main, measure
from dermadeit.evaluation.predictions import PredictionSet
from dermadeit.files import ASSETS, read_json
from dermadeit.tasks import MULTICLASS


def _predictions(
    model: str, bias: tuple[float, float, float] = (0, 0, 0), skill: float = 1.5
) -> PredictionSet:
    rng = np.random.default_rng(0)
    lesions = np.repeat(np.arange(300), 2)
    labels = rng.choice(3, 300, p=(0.6, 0.3, 0.1))[lesions]
    logits = rng.normal(size=(600, 3)) + skill * np.eye(3)[labels] + np.log((0.6, 0.3, 0.1)) + np.array(bias)
    names = tuple(f"lesion{lesion}" for lesion in lesions)
    return PredictionSet(
        MULTICLASS, model, 8, tuple(map(str, range(600))), labels, logits, softmax(logits, axis=1), names,
        ("",) * 600, ("test",) * 600,
    )  # fmt: skip


def test_a_shift_of_frequencies_is_made_good() -> None:
    models = measure([_predictions("dermadeit"), _predictions("original", (0.3, 0, -1))], resamples=50)
    plain = [models[name]["plain"]["f1_macro"] for name in ("dermadeit", "original")]
    weighted = [models[name]["weighted"]["f1_macro"] for name in ("dermadeit", "original")]
    assert abs(weighted[0] - weighted[1]) < (plain[0] - plain[1]) / 2
    ahead = models["original"]["ours_minus_this"]["f1_macro"]
    assert ahead["difference"] == pytest.approx(weighted[0] - weighted[1])
    assert ahead["interval"][0] <= ahead["difference"] <= ahead["interval"][1]
    assert "ours_minus_this" not in models["dermadeit"]


@pytest.mark.slow
def test_one_command_scores_the_shipped_rows_again(tmp_path: Path) -> None:
    results = tmp_path / "results.md"
    results.write_text("Before\n<!-- operating-point -->\n<!-- /operating-point -->\nAfter\n")
    (tmp_path / "multiclass").mkdir()
    main(["--evidence", str(tmp_path), "--results", str(results), "--resamples", "10"])
    found = read_json(tmp_path / "multiclass" / "operating_point.json")["models"]
    filed = read_json(ASSETS / "benchmark" / "multiclass" / "metrics.json")["models"]
    assert {"original", "teacher", "teacher-mlp"} < set(found) == set(filed)
    # A network of eight diagnoses has class weights of its own, with which its row in the benchmark answers.
    for model in ("original", "teacher", "teacher-mlp", "mobilenetv2"):
        figures = filed[model]["views"]["8"]
        assert found[model]["plain"]["accuracy"] == pytest.approx(figures["accuracy"], abs=1e-9)
    text = results.read_text()
    assert text.startswith("Before") and text.endswith("After\n")
    assert text.count("| weighted |") == len(found)
    assert text.count("both weighted") == len(found) - 1
