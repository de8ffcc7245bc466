"""What intervals say where nearly all answers are right, or few lesions were read."""

from pathlib import Path

import pytest
from scipy.stats import binomtest

from dermadeit.evaluation.predictions import measure, read_predictions
from dermadeit.tasks import BINARY


def _measured(path: Path, lesions: int, wrong: int) -> dict:
    """Figures of a table with two photos of each lesion, of which the first so many are answered wrongly."""
    lines = ["image_id,lesion_group,label_true,p_nevus,p_others"]
    for index in range(2 * lesions):
        lesion = index // 2
        truth = BINARY.classes[lesion % 2]
        others = 0.9 if (truth == "others") != (lesion < wrong) else 0.1
        lines.append(f"i{index},{lesion},{truth},{1 - others},{others}")
    path.write_text("\n".join(lines) + "\n")
    [predictions] = read_predictions(path, BINARY)
    return measure(predictions).to_dict()


def test_an_accuracy_of_one_has_wilsons_interval_and_few_lesions_are_said(tmp_path: Path) -> None:
    figures = _measured(tmp_path / "mine.csv", lesions=12, wrong=0)
    expected = binomtest(12, 12).proportion_ci(method="wilson")
    assert figures["accuracy"] == 1
    assert figures["intervals"]["accuracy"] == pytest.approx([expected.low, expected.high])
    # Each resample has an AUROC of 1, which says nothing of the thirteenth lesion.
    assert "roc_auc" not in figures["intervals"]
    assert "12 lesions" in figures["intervals"]["warning"]


def test_many_lesions_with_errors_keep_their_bootstrap(tmp_path: Path) -> None:
    intervals = _measured(tmp_path / "mine.csv", lesions=60, wrong=18)["intervals"]
    assert "warning" not in intervals
    low, high = intervals["accuracy"]
    # The binomial deviation of 42 of 60 lesions is .059.
    assert low == pytest.approx(0.7 - 1.96 * 0.059, abs=0.03)
    assert high == pytest.approx(0.7 + 1.96 * 0.059, abs=0.03)
    assert "roc_auc" in intervals
