"""The report of the regimes: what a teacher brings, as table, figure and a section that is there when they are."""

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from scipy.special import log_softmax

from dermadeit.files import read_json
from dermadeit.tasks import DIAGNOSIS
from train.answers import Answers, Images
from train.regimes_report import main

CLASSES = DIAGNOSIS.classes
PLAN = {
    "arms": {"few-plain": "", "few-second": "", "few-taught": "", "small-plain": "", "small-taught": ""},
    "compared_with": {"few-taught": "few-plain", "small-taught": "small-plain"},
    "titles": {"few-taught": "Few labels", "small-taught": "Small photos"},
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., None]:
    """Writes answers about 320 held-out photos that lean to the truth by a skill, beside 80 train photos."""
    lesions = np.repeat(np.arange(200), 2)
    images = Images(
        np.array([f"photo{index}" for index in range(400)]),
        np.array([f"lesion{lesion}" for lesion in lesions]),
        np.array(["east"] * 400),
        np.array([CLASSES[lesion % 8] for lesion in lesions]),
        (lesions >= 160).astype(np.int8),
    )
    images.keep(tmp_path)

    def write_answers(arm: str, seed: int, skill: float, teacher: str = "") -> None:
        truth = np.eye(8)[[CLASSES.index(label) for label in images.labels[:320]]]
        noise = np.random.default_rng(seed + len(arm)).normal(size=truth.shape)
        about = {
            "classes": list(CLASSES), "arm": arm, "fold": 0, "seed": seed, "without": "",
            "arguments": ["--epochs", "4", *([teacher] if teacher else [])], "curves": [{"seconds": 60.0}],
        }  # fmt: skip
        answers = log_softmax(noise + skill * truth, axis=1).astype(np.float16)
        Answers(images.image_ids[:320], answers, np.full(320, ""), about).write(
            tmp_path / arm / f"fold0-seed{seed}.npz"
        )

    return write_answers


def _run(folder: Path) -> int:
    (folder / "plan.yaml").write_text(yaml.safe_dump(PLAN, sort_keys=False))
    words = [
        "--runs",
        folder,
        "--search",
        folder / "plan.yaml",
        "--output",
        folder / "out",
        "--resamples",
        "100",
    ]
    return main([str(word) for word in [*words, "--results", folder / "docs" / "results.md"]])


@pytest.fixture
def results(tmp_path: Path) -> Path:
    path = tmp_path / "docs" / "results.md"
    path.parent.mkdir()
    path.write_text("Before\n<!-- regimes -->\n<!-- /regimes -->\nAfter\n")
    return path


def test_table_and_figure_show_what_was_run_so_far(
    write: Callable[..., None], results: Path, tmp_path: Path
) -> None:
    for seed in range(2):
        write("few-plain", seed, 1.0)
        write("few-second", seed, 1.0)
        write("few-taught", seed, 3.0, "{few-plain,few-second}")
    write("small-taught", 0, 1.0, "filed")
    assert _run(tmp_path) == 0
    text = results.read_text()
    assert text.startswith("Before\n") and text.endswith("After\n")
    assert "320 photos of 160 lesions" in text and "Small photos" not in text
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| ")
    ]
    names = [row[1] for row in rows[2:]]
    assert names == ["plain", "taught", "the teacher itself", "taught minus plain"]
    assert rows[2][0] == "Few labels (2 seeds)"
    report = read_json(tmp_path / "out" / "report.json")["arms"]["few-taught"]
    assert rows[5][2].startswith(f"**+{report['differences']['binary_roc_auc']['difference']:.3f}")
    assert float(rows[4][2]) > float(rows[2][2])
    [shown] = [line for line in text.splitlines() if line.startswith("![")]
    assert "](../out/differences.svg)" in shown and "Few labels, Malignant or benign, AUROC +0." in shown
    assert ElementTree.parse(tmp_path / "out" / "differences.svg").getroot().tag.endswith("svg")

    # The next call adds what has been run since.
    write("small-plain", 0, 1.0)
    assert _run(tmp_path) == 0
    assert results.read_text().count("Small photos (1 seed)") == 1


def test_nothing_is_written_while_nothing_can_be_compared(
    write: Callable[..., None], results: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write("few-plain", 0, 1.0)
    before = results.read_text()
    assert _run(tmp_path) == 2
    assert "no training with a teacher" in caplog.text
    assert results.read_text() == before and not (tmp_path / "out" / "report.json").exists()
