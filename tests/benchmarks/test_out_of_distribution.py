"""The evidence for the gates: one command gives the whole table, and its scores are those of their papers."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.evidence.out_of_distribution import ROWS, mahalanobis, main, relative_mahalanobis, vim


@pytest.mark.slow
def test_one_command_examines_a_checkpoint(
    synthetic_data: Path, checkpoint_root: Path, tmp_path: Path
) -> None:
    strange = tmp_path / "strange"
    strange.mkdir()
    for index, shade in enumerate(("teal", "lime", "red")):
        Image.new("RGB", (90, 90), shade).save(strange / f"{index}.png")
    report = tmp_path / "report.json"
    checkpoint = checkpoint_root / "multiclass" / "dermadeit"
    options = ["--not-skin", strange, "--checkpoint", checkpoint, "--output", report]
    main([str(option) for option in (synthetic_data / "manifest.csv", *options)])
    [examined] = json.loads(report.read_text())["checkpoints"]
    assert examined["task"] == "multiclass"
    assert examined["n"]["not_skin"] == examined["n"]["not_skin_shrunk"] == 3
    assert examined["n"]["near"] > 0
    assert [(row["score"], row["embedding"]) for row in examined["scores"]] == [
        (name, embedding) for name, _, embedding in ROWS
    ]
    assert all(0 <= row["auroc_near"] <= 1 for row in examined["scores"])


def test_mahalanobis_is_the_distance_in_standard_deviations() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 20_000)
    known = rng.normal(0, (1, 10), (20_000, 2)) + np.array([[0, 0], [100, 0]])[labels]
    asked = np.array([[3.0, 0], [0, 30], [103, 40], [50, 0]])
    expected = [9, 9, 9 + 16, 2500]
    logits = np.zeros((4, 2))
    np.testing.assert_allclose(mahalanobis(known, labels, logits)(asked, logits), expected, rtol=0.1)
    # Between the classes lies the mean of all, which is 50 from both.
    relative = relative_mahalanobis(known, labels, logits)(asked, logits)
    assert relative[3] == pytest.approx(2500, rel=0.1)


def test_vim_sees_what_leaves_the_main_components() -> None:
    rng = np.random.default_rng(0)
    known = rng.normal(0, (30, 0.1, 0.1), (500, 3))
    logits = rng.normal(0, 1, (500, 2))
    score = vim(known, np.zeros(500, int), logits)
    along, across = score(np.array([[20.0, 0, 0], [0, 5, 0]]), np.zeros((2, 2)))
    assert across > along + 1
