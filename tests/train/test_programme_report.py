"""The ablation tables: the right trainings compared, on validation, and README changed only between its marks."""

import json
from pathlib import Path

import numpy as np
import pytest

from dermadeit.tabular import write_csv
from train import programme_report
from train.programme_report import measure_stage

LADDER = {"tasks": {"binary": ""}, "ladder": {"first": "", "second": "", "third": ""}}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Three trainings of 200 images: chance, always right, and one that has not been run."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    for name, said in (("first", rng.integers(0, 2, 200)), ("second", labels)):
        folder = tmp_path / "runs" / "binary" / "climb" / name / "validation"
        rows = [
            {
                "image_id": str(number), "task": "binary", "model": "deit", "views": 8,
                "label_true": ("nevus", "others")[label], "logit_nevus": -2.0 * answer,
                "logit_others": 2.0 * answer - 2,
            }
            for number, (label, answer) in enumerate(zip(labels, said, strict=True))
        ]  # fmt: skip
        write_csv(folder / "predictions.csv", tuple(rows[0]), rows)
        (folder / "failures.csv").write_text("")
    return tmp_path / "runs"


def test_rungs_are_compared_with_the_rung_above(runs: Path) -> None:
    report = measure_stage("climb", LADDER, "binary", runs)
    first, second = report["trainings"]
    assert "compared_with" not in first
    assert second["compared_with"] == "first"
    difference = second["differences"]["accuracy"]
    assert difference["difference"] == pytest.approx(1 - first["figures"]["accuracy"])
    assert difference["interval"][0] > 0


def test_readme_changes_between_its_marks_only(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programme = tmp_path / "programme.yaml"
    programme.write_text(json.dumps({"stages": {"climb": LADDER}}))
    monkeypatch.setattr(programme_report, "PROGRAMME_FILE", programme)
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- climb -->old<!-- /climb -->\nafter\n")
    arguments = ["--runs", str(runs), "--readme", str(readme), "--root", str(tmp_path / "benchmark")]
    assert programme_report.main([*arguments, "--stage", "climb"]) == 0
    text = readme.read_text()
    assert text.startswith("before\n<!-- climb -->") and text.endswith("<!-- /climb -->\nafter\n")
    assert "old" not in text and "| second | 1.000 [1.000, 1.000] |" in text and "**+0." in text
    assert json.loads((tmp_path / "benchmark" / "binary" / "climb.json").read_text())["split"] == "validation"
    assert programme_report.main([*arguments, "--stage", "fall"]) == 2


def test_what_was_filed_before_stays_where_nothing_of_it_was_run_here(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programme = tmp_path / "programme.yaml"
    programme.write_text(
        json.dumps({"stages": {"climb": LADDER | {"tasks": {"binary": "", "multiclass": ""}}}})
    )
    monkeypatch.setattr(programme_report, "PROGRAMME_FILE", programme)
    readme = tmp_path / "README.md"
    readme.write_text("<!-- climb --><!-- /climb -->")
    arguments = ["--readme", str(readme), "--root", str(tmp_path / "benchmark"), "--stage", "climb"]
    assert programme_report.main([*arguments, "--runs", str(runs)]) == 0
    filed, text = (tmp_path / "benchmark" / "binary" / "climb.json").read_text(), readme.read_text()
    # Of multiclass nothing was ever run, and an empty table says nothing.
    assert "multiclass" not in text
    assert programme_report.main([*arguments, "--runs", str(tmp_path / "nothing")]) == 0
    assert (tmp_path / "benchmark" / "binary" / "climb.json").read_text() == filed
    assert readme.read_text() == text
