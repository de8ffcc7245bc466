"""Classes of one's own, from a table to a comparison, as docs/training.md shows it."""

import csv
import json
import re
import shlex
import shutil
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from documented_commands import run_line
from repository import ROOT

import app
from dermadeit.data.manifest import read_source
from dermadeit.data.own_classes import has_own_classes, read_own_task
from dermadeit.data.synthetic import write_dataset
from dermadeit.errors import DermaDeiTError
from dermadeit.evaluation.predictions import read_predictions
from dermadeit.inference.predictor import Predictor
from dermadeit.inference.zoo import load_answering
from dermadeit.metrics.classification import classification_metrics
from dermadeit.models.checkpoints import load_checkpoint
from dermadeit.tasks import OWN
from train import distill
from train.configuration import TrainingConfiguration
from train.prepare_isic2019 import main as prepare


@pytest.fixture
def lines() -> tuple[str, list[str]]:
    """The YAML and the commands of the chapter."""
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    chapter = text.split("## Classes of your own\n")[1].split("\n## ")[0]
    [described] = re.findall(r"```yaml\n(.*?)```", chapter, re.DOTALL)
    [commands] = re.findall(r"```sh\n(.*?)```", chapter, re.DOTALL)
    return described, commands.splitlines()


def write_photos(folder: Path, lesions: int) -> None:
    """Synthetic lesions under labels of one's own."""
    write_dataset(folder, lesions=lesions, seed=0, size=(96, 80))
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    (folder / "manifest.csv").unlink()
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["file", "label", "lesion_id"])
        for row in rows:
            label = "Dark spot" if int(row["image_id"].split("_")[1]) % 2 else "Mole"
            table.writerow([row["file"], label, row["lesion_id"]])


@pytest.mark.slow
def test_the_lines_of_the_documentation_work(
    tmp_path: Path, lines: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    described, commands = lines
    write_photos(tmp_path / "photos", 160)
    (tmp_path / "photos" / "classes.yaml").write_text(described, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    *commands, opening = commands
    for line in commands:
        run_line(line)
    checkpoint = load_checkpoint(tmp_path / "runs" / "own" / "deit")
    assert checkpoint.task.key == OWN
    assert checkpoint.task.classes == ("mole", "dark")
    assert checkpoint.task.display_names["dark"] == "Dark spot"
    assert checkpoint.task.target == checkpoint.calibration.target == "dark"
    python, program, *arguments = shlex.split(opening)
    assert (python, program) == ("python", "app.py")
    answering = load_answering(tmp_path / app.read_arguments(arguments)[0])
    assert answering[OWN].checkpoint.weights_sha256 == checkpoint.weights_sha256
    [predictions] = read_predictions(tmp_path / "own_test" / "predictions.csv")
    assert predictions.task.classes == ("mole", "dark")
    content = json.loads((tmp_path / "own_comparison" / "comparison.json").read_text())
    assert content["task"] == OWN
    assert content["images"] == len(predictions) > 10


def test_the_manifest_decides_whose_classes_they_are(tmp_path: Path) -> None:
    table = tmp_path / "manifest.csv"
    table.write_text("file,label\na.jpg,Viral wart\nb.jpg,cold sore\n")
    assert has_own_classes(table)
    assert read_own_task(table).classes == ("cold_sore", "viral_wart")
    assert read_own_task(table).display_names["viral_wart"] == "Viral wart"
    table.write_text("file,diagnosis\na.jpg,MEL\nb.jpg,Nevus\n")
    assert not has_own_classes(table)
    (tmp_path / "classes.yaml").write_text("nevus: Mole\nmel: Not a mole\ntarget: nevus\n")
    assert has_own_classes(table)
    assert (read_own_task(table).classes, read_own_task(table).target) == (("nevus", "mel"), "nevus")


@pytest.mark.parametrize(
    "text", ["- a\n- b\n", "one: One\n", "A b: x\nc: y\n", "a: x\nb: y\ntarget: z\n", "{"]
)
def test_classes_that_make_no_task_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "classes.yaml").write_text(text)
    with pytest.raises(DermaDeiTError):
        read_own_task(tmp_path / "manifest.csv")


def test_class_folders_of_any_names_are_classes_of_ones_own(tmp_path: Path) -> None:
    write_dataset(tmp_path / "made", lesions=32, seed=0, size=(96, 80))
    photos = tmp_path / "photos"
    for number, path in enumerate(sorted((tmp_path / "made" / "images").iterdir())):
        folder = photos / ("Viral wart", "cold sore")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        path.rename(folder / path.name)
    archive = Path(shutil.make_archive(str(tmp_path / "photos"), "zip", photos))
    for source in (photos, archive):
        data = tmp_path / f"data of {source.name}"
        assert prepare(["--class-folders", str(source), "--output", str(data), "--workers", "1"]) == 0
        task = read_own_task(data / "manifest.csv")
        assert task.classes == ("cold_sore", "viral_wart")
        assert task.display_names["viral_wart"] == "Viral wart"
        prepared = Counter(row.label for row in read_source(data / "manifest.csv", task).rows)
        with ExitStack() as opened:
            evaluated = Counter(row.label for row in read_source(source, task, opened=opened).rows)
        assert prepared == evaluated
        assert set(evaluated) == set(task.classes)


@pytest.mark.slow
def test_training_measures_the_target_that_was_named(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 160)
    (tmp_path / "photos" / "classes.yaml").write_text("mole: Mole\ndark_spot: Dark spot\ntarget: mole\n")
    table, shares = tmp_path / "photos" / "labels.csv", "0.4,0.3,0.15,0.15"
    # Three of four are moles, so that precision of one class is not that of the other.
    lines = table.read_text().splitlines()
    lines[1 : len(lines) // 2] = [line.replace("Dark spot", "Mole") for line in lines[1 : len(lines) // 2]]
    table.write_text("\n".join(lines) + "\n")
    assert prepare(["--csv", str(table), "--output", str(tmp_path / "data"), "--shares", shares]) == 0
    configuration = TrainingConfiguration.create(
        task=OWN,
        data=str(tmp_path / "data"),
        output=str(tmp_path / "run"),
        teacher="none",
        model="mobilenetv2",
        init="none",
        image_size=32,
        epochs=1,
        batch_size=16,
        device="cpu",
        precision="fp32",
    )
    folder = distill.train(configuration)
    checkpoint = load_checkpoint(folder)
    task = checkpoint.task
    assert (task.classes, task.target) == (("mole", "dark_spot"), "mole")
    rows = read_source(tmp_path / "data" / "manifest.csv", task).select("validation").rows
    labels = np.array([task.index_of(row.label) for row in rows])
    predictions = Predictor(checkpoint).predict([row.path for row in rows], views=1)
    probabilities = np.array([list(prediction.probabilities.values()) for prediction in predictions])
    [curve] = json.loads((folder / "training.json").read_text())["curves"]
    of_target, of_last = (
        classification_metrics(labels, probabilities, task.classes, target=key)["average_precision"]
        for key in task.classes
    )
    assert curve["average_precision"] == pytest.approx(of_target, abs=0.02)
    assert abs(of_target - of_last) > 0.2
