"""The ablation tables: the right trainings compared, on validation, and README changed only between its marks."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from dermadeit.data.tabular import write_csv
from dermadeit.errors import ResultFileError
from train import programme_report
from train.programme_report import measure_stage

STEPS = {
    "tasks": {"binary": ""},
    "cumulative": True,
    "trainings": {"first": "", "second": "", "third": ""},
}


def write_validations(
    runs: Path, said_by: Mapping[str, np.ndarray], labels: np.ndarray, stage: str = "climb"
) -> None:
    for name, said in said_by.items():
        folder = runs / "binary" / stage / name / "validation"
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


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Three trainings of 200 images: chance, always right, and one that has not been run."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    said_by = {"first": rng.integers(0, 2, 200), "second": labels}
    write_validations(tmp_path / "runs", said_by, labels)
    return tmp_path / "runs"


def test_cumulative_trainings_are_compared_with_the_one_above(runs: Path) -> None:
    report = measure_stage("climb", STEPS, "binary", runs)
    first, second = report["trainings"]
    assert "compared_with" not in first
    assert second["compared_with"] == "first"
    difference = second["differences"]["accuracy"]
    assert difference["difference"] == pytest.approx(1 - first["figures"]["accuracy"])
    assert difference["interval"][0] > 0


def test_figures_of_several_seeds_are_means_and_vary_with_the_seed(tmp_path: Path) -> None:
    labels = np.tile([0, 1], 100)
    wrong_for_40 = np.where(np.arange(200) < 40, 1 - labels, labels)
    said_by = {
        "plain-seed0": wrong_for_40, "plain-seed1": wrong_for_40, "other-seed0": labels, "other-seed1": 1 - labels,
    }  # fmt: skip
    write_validations(tmp_path, said_by, labels)
    content = {"seeds": 3, "tasks": {"binary": ""}, "trainings": {"plain": "", "other": ""}}
    plain, other = measure_stage("climb", content, "binary", tmp_path)["trainings"]
    assert plain["figures"]["accuracy"] == pytest.approx(0.8)
    assert 0.7 < plain["figures"]["intervals"]["accuracy"][0] < 0.8
    assert {seed: figures["accuracy"] for seed, figures in other["by_seed"].items()} == {"0": 1, "1": 0}
    assert other["figures"]["accuracy"] == 0.5
    assert "seeds" in other["figures"]["intervals"]["method"]
    # Two seeds so far apart leave nothing known.
    low, high = other["figures"]["intervals"]["accuracy"]
    assert low <= 0 and high >= 1
    assert other["figures"]["intervals"]["seeds"] == 2
    low, high = other["differences"]["accuracy"]["interval"]
    assert low < -0.7 and high > 0.1
    assert other["differences"]["accuracy"]["difference"] == pytest.approx(-0.3)


@pytest.mark.slow
def test_trainings_are_compared_with_those_of_the_same_names_in_another_stage(tmp_path: Path) -> None:
    labels = np.tile([0, 1], 100)
    wrong_for_40 = np.where(np.arange(200) < 40, 1 - labels, labels)
    write_validations(tmp_path, {"plain": labels, "other": wrong_for_40, "lonely": labels}, labels)
    write_validations(tmp_path, {"other": labels, "plain": wrong_for_40}, labels, stage="before")
    content = {"compared_with": "before", "trainings": {"plain": "", "other": "", "lonely": ""}}
    plain, other, lonely = measure_stage("climb", content, "binary", tmp_path)["trainings"]
    assert plain["compared_with"] == other["compared_with"] == "before"
    assert plain["differences"]["accuracy"]["difference"] == pytest.approx(0.2)
    assert other["differences"]["accuracy"]["difference"] == pytest.approx(-0.2)
    assert "compared_with" not in lonely


def test_trainings_are_compared_with_the_seeds_that_both_were_run_with(tmp_path: Path) -> None:
    labels = np.tile([0, 1], 100)
    said_by = {"plain-seed0": 1 - labels, "plain-seed1": labels, "other-seed1": labels}
    write_validations(tmp_path, said_by, labels)
    content = {"seeds": 2, "tasks": {"binary": ""}, "trainings": {"plain": "", "other": ""}}
    plain, other = measure_stage("climb", content, "binary", tmp_path)["trainings"]
    assert plain["figures"]["accuracy"] == 0.5
    assert other["differences"]["accuracy"]["difference"] == 0
    # One seed says nothing of others, and says so.
    assert other["figures"]["intervals"]["seeds"] == 1


def test_trainings_that_were_validated_on_other_images_are_refused(tmp_path: Path) -> None:
    labels = np.tile([0, 1], 100)
    write_validations(tmp_path, {"first": labels}, labels)
    write_validations(tmp_path, {"second": labels[:-1]}, labels[:-1])
    with pytest.raises(ResultFileError, match="199"):
        measure_stage("climb", STEPS, "binary", tmp_path)


def test_readme_changes_between_its_marks_only(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programme = tmp_path / "programme.yaml"
    programme.write_text(json.dumps({"stages": {"climb": STEPS}}))
    monkeypatch.setattr(programme_report, "PROGRAMME_FILE", programme)
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- climb -->old<!-- /climb -->\nafter\n")
    arguments = ["--runs", str(runs), "--readme", str(readme), "--root", str(tmp_path / "benchmark")]
    assert programme_report.main([*arguments, "--stage", "climb"]) == 0
    text = readme.read_text()
    assert text.startswith("before\n<!-- climb -->") and text.endswith("<!-- /climb -->\nafter\n")
    assert "old" not in text and "| second | 1.000 [0.981, 1.000] |" in text and "**+0." in text
    assert json.loads((tmp_path / "benchmark" / "binary" / "climb.json").read_text())["split"] == "validation"
    assert programme_report.main([*arguments, "--stage", "fall"]) == 2


def test_what_was_filed_before_stays_where_nothing_of_it_was_run_here(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programme = tmp_path / "programme.yaml"
    programme.write_text(
        json.dumps({"stages": {"climb": STEPS | {"tasks": {"binary": "", "multiclass": ""}}}})
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
