"""The training program end to end, on synthetic lesions: train, kill, resume, reload, predict."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dermadeit.checkpoints import load_checkpoint
from dermadeit.errors import ConfigurationError, ManifestError, TrainingError
from dermadeit.manifest import read_source
from dermadeit.metrics import classification_metrics
from dermadeit.predictor import Predictor
from dermadeit.synthetic import write_dataset
from dermadeit.tasks import get_task
from train import distill
from train.configuration import TrainingConfiguration
from train.optimization import create_optimizer, learning_rate_factor
from train.student import Student
from train.targets import TeacherTargets
from train.teacher_cache import cached_embeddings
from train.teachers import create_teacher


@pytest.fixture
def settings(synthetic_data: Path, checkpoint_root: Path, tmp_path: Path) -> dict:
    return {
        "task": "binary",
        "data": str(synthetic_data),
        "output": str(tmp_path / "run"),
        "teacher": f"checkpoint:{checkpoint_root / 'binary' / 'mobilenetv2'}",
        "quarter_turns": False,
        "init": "none",
        "image_size": 32,
        "epochs": 2,
        "batch_size": 16,
        "device": "cpu",
        "precision": "fp32",
    }


@pytest.mark.parametrize("changes", [{}, {"workers": 1, "class_balancing": "none"}])
def test_train_kill_resume_reload_predict(
    settings: dict, changes: dict, tmp_path: Path, synthetic_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings |= changes
    whole = distill.train(TrainingConfiguration(**settings))
    settings["output"] = str(tmp_path / "interrupted")
    step = distill.Training.step

    def killed_within_second_epoch(training: distill.Training, *batch: torch.Tensor) -> dict:
        losses = step(training, *batch)
        if training.epoch == 1:
            raise KeyboardInterrupt
        return losses

    monkeypatch.setattr(distill.Training, "step", killed_within_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        distill.train(TrainingConfiguration(**settings))
    monkeypatch.undo()
    interrupted = Path(settings["output"])
    assert load_checkpoint(interrupted).model == "dermadeit"
    distill.train(TrainingConfiguration(**settings))

    expected, resumed = (load_file(folder / "model.safetensors") for folder in (whole, interrupted))
    assert all(torch.equal(expected[key], resumed[key]) for key in expected)
    states = [
        torch.load(folder / "state.pt", weights_only=True)["student"] for folder in (whole, interrupted)
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])

    record = json.loads((whole / "training.json").read_text())
    assert [curve["epoch"] for curve in record["curves"]] == [1, 2]
    assert all(curve["distillation_loss"] > 0 for curve in record["curves"])
    assert record["configuration"]["teacher"].startswith("checkpoint:mobilenetv2@")
    assert str(tmp_path) not in json.dumps(record)

    # What was measured in training is what the served checkpoint gives.
    manifest = read_source(synthetic_data / "manifest.csv", get_task("binary")).select("validation")
    predictions = Predictor(load_checkpoint(whole, "binary")).predict(
        [row.path for row in manifest.rows], views=1
    )
    served = classification_metrics(
        np.array([manifest.task.index_of(row.label) for row in manifest.rows]),
        np.array([list(prediction.probabilities.values()) for prediction in predictions]),
        manifest.task.classes,
    )
    measured = json.loads((whole / "metrics.json").read_text())
    assert served["confusion_matrix"] == measured["confusion_matrix"]
    assert measured["split"] == "validation"
    best = record["curves"][record["best_epoch"] - 1]
    assert served["roc_auc"] == pytest.approx(best["roc_auc"], abs=0.02)


@pytest.mark.parametrize(
    "changes",
    [
        {"teacher": "none", "task": "multiclass", "optimizer": "adam", "schedule": "step"},
        {"teacher": "none", "model": "mobilenetv2", "class_balancing": "none", "precision": "bf16"},
        {"target_normalisation": "none", "flip": False, "workers": 1},
    ],
)
def test_other_settings_train_too(settings: dict, changes: dict) -> None:
    configuration = TrainingConfiguration(**settings | {"epochs": 1} | changes)
    folder = distill.train(configuration)
    checkpoint = load_checkpoint(folder, configuration.task)
    assert checkpoint.model == configuration.model_name
    assert checkpoint.preprocessing.size == 32


def test_training_learns_something(settings: dict) -> None:
    folder = distill.train(TrainingConfiguration(**settings | {"epochs": 4, "teacher": "none"}))
    curves = json.loads((folder / "training.json").read_text())["curves"]
    assert curves[-1]["classification_loss"] < curves[0]["classification_loss"]


def test_another_training_in_the_folder_is_not_continued(settings: dict, tmp_path: Path) -> None:
    settings |= {"epochs": 1, "teacher": "none"}
    distill.train(TrainingConfiguration(**settings))
    with pytest.raises(TrainingError, match="other settings"):
        distill.train(TrainingConfiguration(**settings | {"learning_rate": 1e-5}))
    write_dataset(tmp_path / "other", lesions=40, seed=1, size=(96, 80))
    with pytest.raises(TrainingError, match="data"):
        distill.train(TrainingConfiguration(**settings | {"data": str(tmp_path / "other")}))


def test_a_loss_that_is_not_finite_stops_with_the_images(
    settings: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distill, "focal_loss", lambda logits, *_: logits.sum() * float("nan"))
    with pytest.raises(TrainingError, match="SYN_") as caught:
        distill.train(TrainingConfiguration(**settings | {"teacher": "none"}))
    assert caught.value.code == "non_finite_loss"


def test_missing_data_and_leaking_data_are_explained(
    settings: dict, tmp_path: Path, synthetic_data: Path
) -> None:
    with pytest.raises(ConfigurationError, match="DERMADEIT_DATA"):
        distill.train(TrainingConfiguration(**settings | {"data": str(tmp_path)}))
    leaking = Path(shutil.copytree(synthetic_data, tmp_path / "leaking"))
    manifest = (leaking / "manifest.csv").read_text()
    (leaking / "manifest.csv").write_text(manifest.replace("SYNL_00001,", "SYNL_00009,"))
    with pytest.raises(ManifestError, match="SYNL_00009"):
        distill.train(TrainingConfiguration(**settings | {"data": str(leaking)}))


def test_the_program_ends_with_a_sentence_and_exit_code_2(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert distill.main(["--data", str(tmp_path)]) == 2
    assert "manifest.csv" in caplog.text
    assert distill.main(["--recipe", "nope"]) == 2


def test_cached_embeddings_are_the_teachers_views_and_know_their_teacher(
    synthetic_data: Path, checkpoint_root: Path, tmp_path: Path
) -> None:
    manifest = read_source(synthetic_data / "manifest.csv", get_task("binary")).select("validation")
    folders = [checkpoint_root / "binary" / name for name in ("mobilenetv2", "dermadeit")]
    teacher = create_teacher("checkpoint:" + ",".join(map(str, folders)), torch.device("cpu"))
    embeddings = cached_embeddings(teacher, manifest, (0, 1, 5), tmp_path)
    assert embeddings.shape == (len(manifest.rows), 3, 1280 + 192)
    assert embeddings.dtype == np.float16
    assert not np.allclose(embeddings[0, 0], embeddings[0, 1])
    before = (tmp_path / "embeddings.npy").stat().st_mtime_ns
    cached_embeddings(teacher, manifest, (0, 1, 5), tmp_path)
    assert (tmp_path / "embeddings.npy").stat().st_mtime_ns == before

    other = create_teacher(f"checkpoint:{folders[0]}", torch.device("cpu"))
    with pytest.raises(ConfigurationError, match="teacher, dim"):
        cached_embeddings(other, manifest, (0, 1, 5), tmp_path)
    with pytest.raises(ConfigurationError, match="views"):
        cached_embeddings(teacher, manifest, (0, 1), tmp_path)


@pytest.mark.parametrize("has_header", [False, True])
def test_a_half_written_cache_is_computed_again(
    synthetic_data: Path, checkpoint_root: Path, tmp_path: Path, has_header: bool
) -> None:
    manifest = read_source(synthetic_data / "manifest.csv", get_task("binary")).select("validation")
    teacher = create_teacher(f"checkpoint:{checkpoint_root / 'binary' / 'mobilenetv2'}", torch.device("cpu"))
    if has_header:
        cached_embeddings(teacher, manifest, (0,), tmp_path)
    (tmp_path / "embeddings.npy").write_bytes(b"half")
    assert cached_embeddings(teacher, manifest, (0,), tmp_path).shape[0] == len(manifest.rows)


def test_targets_are_the_embedding_of_the_shown_view_standardised() -> None:
    embeddings = np.random.default_rng(0).normal(3, 2, (50, 2, 4)).astype(np.float16)
    embeddings[..., 3] = 1
    raw = TeacherTargets("t", embeddings, (0, 4), standardise=False)
    indices, views = torch.tensor([7, 7, 9]), torch.tensor([0, 4, 4])
    assert raw(indices, views).tolist() == embeddings[[7, 7, 9], [0, 1, 1]].astype(np.float32).tolist()
    standard = TeacherTargets("t", embeddings, (0, 4), standardise=True)
    everything = standard(torch.arange(50).repeat(2), torch.tensor([0, 4]).repeat_interleave(50))
    torch.testing.assert_close(everything.mean(dim=0), torch.zeros(4), atol=1e-3, rtol=0)
    expected = torch.tensor([1.0, 1.0, 1.0, 0.0])
    torch.testing.assert_close(everything.std(dim=0, correction=0), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_bad_training_image_is_named_before_anything_is_trained(
    settings: dict, synthetic_data: Path, tmp_path: Path, damage: str
) -> None:
    data = Path(shutil.copytree(synthetic_data, tmp_path / "damaged"))
    first = read_source(data / "manifest.csv", get_task("binary")).select("train").rows[0]
    if damage == "missing":
        first.path.unlink()
    else:
        first.path.write_bytes(first.path.read_bytes()[:500])
    with pytest.raises(ManifestError, match=first.image_id):
        distill.train(TrainingConfiguration(**settings | {"data": str(data)}))


def test_a_split_without_a_class_is_refused(settings: dict, synthetic_data: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(synthetic_data, tmp_path / "lacking"))
    text = (data / "manifest.csv").read_text()
    rows = [row for row in text.splitlines() if not (",SCC," in row and ",validation," in row)]
    (data / "manifest.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(ManifestError, match="“validation” has no image of the class scc"):
        distill.train(TrainingConfiguration(**settings | {"data": str(data), "task": "multiclass"}))


def test_learning_rate_warms_up_then_falls() -> None:
    cosine = TrainingConfiguration(epochs=5, warmup_epochs=1)
    factors = [learning_rate_factor(step, cosine, 10) for step in range(51)]
    assert factors[:11] == sorted(factors[:11])
    assert factors[10] == pytest.approx(1)
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[30] == pytest.approx(0.5)
    assert factors[50] == pytest.approx(0)
    step = TrainingConfiguration(schedule="step", step_epochs=2, step_factor=0.5, warmup_epochs=0)
    assert [learning_rate_factor(epoch * 10, step, 10) for epoch in range(5)] == [1, 1, 0.5, 0.5, 0.25]


def test_early_layers_learn_slower_and_norms_are_not_decayed(checkpoint_root: Path) -> None:
    student = Student(load_checkpoint(checkpoint_root / "binary" / "dermadeit").classifier, teacher_dim=8)
    configuration = TrainingConfiguration(layer_decay=0.5, learning_rate=1.0)
    groups = create_optimizer(student.requires_grad_(True), configuration).param_groups
    rate = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    decay = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    assert rate.keys() == {id(parameter) for parameter in student.parameters()}
    blocks = student.classifier.backbone.blocks
    first, last = blocks[0].mlp.fc1.weight, blocks[-1].mlp.fc1.weight
    assert rate[id(first)] == pytest.approx(rate[id(last)] * 0.5**11)
    assert rate[id(student.classifier.head.weight)] == rate[id(student.projector[0].weight)] == 1
    assert decay[id(blocks[0].norm1.weight)] == 0
    assert decay[id(last)] == configuration.weight_decay
    assert decay[id(student.projector[0].bias)] == 0
