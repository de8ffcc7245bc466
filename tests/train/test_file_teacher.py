"""Filing a teacher: from cross-fitted checkpoints to a file that a student learns from."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dermadeit.data.manifest import Manifest, ManifestRow
from dermadeit.errors import ConfigurationError
from dermadeit.tasks import DIAGNOSIS
from train import file_teacher
from train.configuration import DataSettings, TrainingConfiguration
from train.distill import train
from train.loaders import load_manifest
from train.teachers.targets import load_targets


def _manifest(lesions: int) -> Manifest:
    """Lesions of two photos: old people have all other diagnoses, young ones nevi."""
    rows = []
    others = [key for key in DIAGNOSIS.classes if key != "nv"]
    for number in range(lesions):
        label, age = ("nv", "20") if number % 2 else (others[number // 2 % len(others)], "80")
        row = ManifestRow(
            f"{number}a", "", Path(), label, "train", f"L{number}", "", {"age": age, "sex": "male"}
        )
        rows += [row, replace(row, image_id=f"{number}b")]
    return Manifest(DIAGNOSIS, tuple(rows), ())


def test_age_tells_apart_what_the_networks_do_not() -> None:
    manifest = _manifest(140)
    blank = np.full((len(manifest.rows), 8), np.log(1 / 8), np.float32)
    found = np.exp(file_teacher.add_context(blank, manifest))
    is_nevus = np.array([row.label == "nv" for row in manifest.rows])
    nevus = found[:, DIAGNOSIS.index_of("nv")]
    assert (nevus[is_nevus] > 0.8).all() and (nevus[~is_nevus] < 0.2).all()
    assert found.sum(axis=1) == pytest.approx(np.ones(len(found)), abs=1e-5) and (found > 0).all()
    first = replace(manifest.rows[0], metadata={})
    unknown = replace(manifest, rows=(first, *manifest.rows[1:]))
    assert (file_teacher.add_context(blank, unknown)[0] == blank[0]).all()
    unknown = replace(manifest, rows=tuple(replace(row, metadata={}) for row in manifest.rows))
    with pytest.raises(ConfigurationError, match="--no-context"):
        file_teacher.add_context(blank, unknown)


def test_answers_are_made_probabilities() -> None:
    manifest = _manifest(700)
    rng = np.random.default_rng(0)
    chances = rng.dirichlet(np.full(8, 0.5), len(manifest.rows) // 2).repeat(2, axis=0)
    drawn = [DIAGNOSIS.classes[rng.choice(8, p=chance)] for chance in chances[::2] for _ in range(2)]
    rows = tuple(replace(row, label=label) for row, label in zip(manifest.rows, drawn, strict=True))
    found = np.exp(file_teacher.calibrate(3 * np.log(chances + 1e-6), replace(manifest, rows=rows)))
    assert np.abs(found - chances).mean() < 0.03


def test_the_advantage_is_what_the_teacher_is_ahead_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_teacher, "RESAMPLES", 50)
    manifest = _manifest(40)
    labels = np.array([DIAGNOSIS.index_of(row.label) for row in manifest.rows])
    good = np.full((len(labels), 8), 0.01)
    good[np.arange(len(labels)), labels] = 0.93
    bad = good.copy()
    # Both photos of a quarter of the lesions are read wrongly.
    wrong = np.arange(len(labels)) // 2 % 4 == 0
    bad[wrong] = good[wrong][:, ::-1]
    figures, advantage = file_teacher.measure(np.log(good), np.log(bad), manifest)
    assert figures["teacher"]["diagnosis"]["accuracy"] == 1
    assert advantage["diagnosis"]["accuracy"]["difference"] == pytest.approx(0.25)
    low, high = advantage["diagnosis"]["accuracy"]["interval"]
    assert 0 < low < 0.25 < high < 0.5
    assert advantage["diagnosis"]["nll"]["difference"] < 0
    assert set(advantage) == {"diagnosis", "binary", "malignancy", "multiclass"}


# Of the rarest class there are fewer lesions here than folds.
@pytest.mark.filterwarnings("ignore:The least populated class")
@pytest.mark.slow
def test_a_filed_teacher_teaches(
    synthetic_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_teacher, "RESAMPLES", 50)
    small = {"data": str(synthetic_data), "init": "none", "image_size": 32, "batch_size": 16, "device": "cpu"}
    folders = [
        train(
            TrainingConfiguration.create(
                **small,
                model="mobilenetv2",
                teacher="none",
                epochs=1,
                folds=2,
                held_out_fold=fold,
                logit_adjustment=0.0,
                output=str(tmp_path / f"fold{fold}"),
            )
        )
        for fold in range(2)
    ]
    path = tmp_path / "teacher.npz"
    teacher = "checkpoint:" + ",".join(map(str, folders))
    words = ["--teacher", teacher, "--data", str(synthetic_data), "--views", "2", "--device", "cpu"]
    words += ["--teacher-cache", str(tmp_path / "cache"), "--output", str(path)]
    # Too few photos of the rarest class have an age.
    assert file_teacher.main(words) == 2
    words += ["--no-context"]
    assert file_teacher.main(words) == 0

    description = json.loads(path.with_suffix(".json").read_text())
    manifest = load_manifest(DataSettings(data=str(synthetic_data))).select("train")
    assert description["images"] == len(manifest.rows) and len(description["networks"]) == 2
    assert str(tmp_path) not in json.dumps(description)
    filed = np.load(path)
    assert filed["log_probabilities"].dtype == np.float16
    assert np.exp(filed["log_probabilities"].astype(float)).sum(axis=1) == pytest.approx(1, abs=5e-3)
    configuration = TrainingConfiguration.create(**small, teacher=f"file:{path}", allow_weak_teacher=True)
    targets = load_targets(configuration, manifest, torch.device("cpu"))
    assert targets.num_logits == 8

    # A network that has seen the lesions can't be filed.
    words[1] = f"checkpoint:{folders[0]}"
    assert file_teacher.main(words) == 2


def test_networks_without_folds_are_refused(
    synthetic_data: Path,
    tmp_path: Path,
    own_checkpoint: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    words = ["--teacher", f"checkpoint:{own_checkpoint('whole')}", "--data", str(synthetic_data)]
    assert file_teacher.main([*words, "--output", str(tmp_path / "t.npz")]) == 2
    assert "no cross-fitted network" in caplog.text
