"""The training program end to end, on synthetic lesions: train, kill, resume, reload, predict."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
import yaml
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dermadeit.data.dataset import LesionDataset, collate
from dermadeit.data.manifest import read_source
from dermadeit.data.synthetic import write_dataset
from dermadeit.errors import ConfigurationError, TableError, TrainingError
from dermadeit.imaging.preprocessing import apply_dihedral
from dermadeit.inference.predictor import Predictor
from dermadeit.metrics.classification import classification_metrics
from dermadeit.models.checkpoints import load_checkpoint
from dermadeit.tasks import get_task
from train import distill, loop
from train.augment.mixing import Mix
from train.command_line import parse_arguments
from train.configuration import OptimisationSettings, TrainingConfiguration
from train.loaders import load_manifest
from train.losses import soft_logits_kl
from train.optimization import create_optimizer, learning_rate_factor
from train.plan import describe_plan, refuse_lost_processes
from train.programme import PROGRAMME_FILE
from train.student import Student

pytestmark = pytest.mark.slow

STILL = {
    "flip": False,
    "quarter_turns": False,
    "rotation_degrees": 0.0,
    "scale": 1.0,
    "shift": 0.0,
    "elastic": 0.0,
    "colour": 0.0,
    "downscale_probability": 0.0,
    "blur_probability": 0.0,
    "noise": 0.0,
    "vignette_probability": 0.0,
    "hair_probability": 0.0,
    "drop_path": 0.0,
}
PLAIN = {"model": "deit", "teacher": "none"}
"""Settings that leave nothing in a training to chance but the order of its images."""

ONE_THREAD = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture
def settings(synthetic_data: Path, checkpoint_root: Path, tmp_path: Path) -> dict:
    return {
        "task": "binary",
        "data": str(synthetic_data),
        "output": str(tmp_path / "run"),
        "teacher": f"checkpoint:{checkpoint_root / 'binary' / 'mobilenetv2'}",
        "teacher_cache": str(tmp_path / "teacher_cache"),
        "quarter_turns": False,
        "mixup": 0.0,
        "cutmix": 0.0,
        "ema_decay": 0.0,
        "classification_loss": "focal",
        "class_balancing": "sampler",
        "alpha": 0.5,
        "init": "none",
        "image_size": 32,
        "epochs": 2,
        "batch_size": 16,
        "device": "cpu",
        "precision": "fp32",
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"ema_decay": 0.9, "mixup": 0.4, "cutmix": 1.0},
        {"workers": 1, "class_balancing": "none", "accumulation": 2, "embedding_loss": "kl"},
    ],
)
def test_train_kill_resume_reload_predict(
    settings: dict, changes: dict, tmp_path: Path, synthetic_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings |= changes
    whole = distill.train(TrainingConfiguration.create(**settings))
    settings["output"] = str(tmp_path / "interrupted")
    update = loop.Training._update

    def killed_within_second_epoch(training: loop.Training) -> None:
        update(training)
        if training.epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop.Training, "_update", killed_within_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        distill.train(TrainingConfiguration.create(**settings))
    monkeypatch.undo()
    interrupted = Path(settings["output"])
    assert load_checkpoint(interrupted).model == "dermadeit"
    distill.train(TrainingConfiguration.create(**settings))

    expected, resumed = (load_file(folder / "model.safetensors") for folder in (whole, interrupted))
    assert all(torch.equal(expected[key], resumed[key]) for key in expected)
    states = [
        torch.load(folder / "state.pt", weights_only=True)["student"] for folder in (whole, interrupted)
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    logged = EventAccumulator(str(interrupted / "tensorboard")).Reload().Scalars("loss")
    assert [event.step for event in logged] == [1, 2]

    record = json.loads((whole / "training.json").read_text())
    assert [curve["epoch"] for curve in record["curves"]] == [1, 2]
    assert all(curve["embedding_loss"] > 0 and curve["logit_loss"] > 0 for curve in record["curves"])
    assert record["configuration"]["teacher"].startswith("mobilenetv2@")
    assert str(tmp_path) not in json.dumps(record)

    # What was measured in training is what the served checkpoint gives.
    manifest = read_source(synthetic_data / "manifest.csv", get_task("binary")).select("validation")
    predictor = Predictor(load_checkpoint(whole, "binary"))
    predictions = predictor.predict([row.path for row in manifest.rows], views=1)
    served = classification_metrics(
        np.array([manifest.task.index_of(row.label) for row in manifest.rows]),
        np.array([list(prediction.probabilities.values()) for prediction in predictions]),
        manifest.task.classes,
    )
    best = record["curves"][record["best_epoch"] - 1]
    assert served["roc_auc"] == pytest.approx(best["roc_auc"], abs=0.02)
    assert served["accuracy"] == pytest.approx(best["accuracy"], abs=1.5 / len(manifest.rows))
    assert json.loads((whole / "validation" / "metrics.json").read_text())["dermadeit"]["views"] == 8


@pytest.mark.parametrize(
    "changes",
    [
        PLAIN | {"task": "multiclass", "schedule": "step"},
        {"teacher": "none", "model": "mobilenetv2", "class_balancing": "none", "precision": "bf16"},
        {"target_normalisation": "none", "consistent_views": False, "distil_from": "last_patch"},
        {"logit_weight": 0.0, "projector": "relu"},
        {"model": "mobilenetv2", "classification_loss": "balanced_softmax", "class_balancing": "none"},
        {"distil_into": "distillation_head", "keep": "best", "lesion_mean": False},
        {"pipeline": "original", "consistent_views": False, "image_size": 64, "precision": "bf16"},
    ],
)
def test_other_settings_train_too(settings: dict, changes: dict) -> None:
    configuration = TrainingConfiguration.create(**settings | {"epochs": 1} | changes)
    folder = distill.train(configuration)
    checkpoint = load_checkpoint(folder, configuration.data.task)
    assert checkpoint.model == configuration.model.model
    assert checkpoint.preprocessing.size == configuration.model.image_size
    assert checkpoint.preprocessing.per_image_zscore == (configuration.augmentation.pipeline == "original")


GOLDEN_LOSSES = {
    "dermadeit": [1.1953540, 0.84452868],
    "dermadeit as the programme has it": [2.7250714, 2.1236777],
    "plain": [0.42117697, 0.40429854],
    "original": [2.3517547, 1.5752661],
}
"""Mean training losses of two epochs. Only a change that is meant to change trainings may change them: then put in
what this test finds, and say so in the commit."""


@pytest.mark.parametrize("case", GOLDEN_LOSSES)
def test_a_training_gives_the_losses_that_it_gave_before(settings: dict, case: str) -> None:
    recipe, _, as_before = case.partition(" ")
    own = {"image_size": 64, "model": "dermadeit"} if recipe == "original" else {"image_size": 32}
    own |= {"teacher": "none"} if recipe == "plain" else {"teacher": settings["teacher"]}
    places = ("task", "data", "output", "teacher_cache", "init", "epochs", "batch_size", "device")
    given = {name: settings[name] for name in places} | own | {"precision": settings["precision"]}
    words = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    if as_before:
        words = (
            yaml.safe_load(PROGRAMME_FILE.read_text())["stages"]["at-224-pixels"]["arguments"].split() + words
        )
    folder = distill.train(parse_arguments(["--recipe", recipe, *words]).configuration)
    curves = json.loads((folder / "training.json").read_text())["curves"]
    # Processors round differently.
    assert [curve["loss"] for curve in curves] == pytest.approx(GOLDEN_LOSSES[case], rel=2e-3)


def test_training_learns_something(settings: dict) -> None:
    folder = distill.train(TrainingConfiguration.create(**settings | PLAIN | {"epochs": 4}))
    curves = json.loads((folder / "training.json").read_text())["curves"]
    assert curves[-1]["classification_loss"] < curves[0]["classification_loss"]


def test_a_training_from_a_checkpoint_names_whose_it_was_and_keeps_its_curves(
    settings: dict, checkpoint_root: Path, tmp_path: Path
) -> None:
    start = shutil.copytree(checkpoint_root / "binary" / "mobilenetv2", tmp_path / "start")
    before = {"best_epoch": 1, "curves": [{"epoch": 1, "loss": 2.5}], "earlier_stages": [{"curves": []}]}
    (start / "training.json").write_text(json.dumps(before))
    changes = {"epochs": 1, "model": "mobilenetv2", "teacher": "none"}
    changes["init"] = str(start / "model.safetensors")
    folder = distill.train(TrainingConfiguration.create(**settings | changes))
    record = json.loads((folder / "training.json").read_text())
    assert record["configuration"]["init"] == "binary/mobilenetv2/model.safetensors"
    assert record["earlier_stages"] == [{"curves": []}, {"best_epoch": 1, "curves": before["curves"]}]


def test_another_training_in_the_folder_is_not_continued(settings: dict, tmp_path: Path) -> None:
    settings |= PLAIN | {"epochs": 1}
    distill.train(TrainingConfiguration.create(**settings))
    with pytest.raises(TrainingError, match="learning_rate"):
        distill.train(TrainingConfiguration.create(**settings | {"learning_rate": 1e-5}))
    write_dataset(tmp_path / "other", lesions=40, seed=1, size=(96, 80))
    with pytest.raises(TrainingError, match="manifest") as refused:
        distill.train(TrainingConfiguration.create(**settings | {"data": str(tmp_path / "other")}))
    assert "learning_rate" not in refused.value.user_message
    training = loop.Training(
        TrainingConfiguration.create(**settings),
        load_manifest(TrainingConfiguration.create(**settings).data),
    )
    training.identity["number of processes"] = 2
    with pytest.raises(TrainingError, match="number of processes"):
        training.resume(Path(settings["output"]) / "state.pt")


def test_a_finished_training_is_left_as_it_is(settings: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    settings |= PLAIN | {"epochs": 1}
    folder = distill.train(TrainingConfiguration.create(**settings))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    distill.train(TrainingConfiguration.create(**settings))
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    # A new training in its place does not pass for done before it is.
    (folder / distill.STATE_FILE).unlink()
    monkeypatch.setattr(loop.Training, "run_epoch", lambda training: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        distill.train(TrainingConfiguration.create(**settings))
    assert not (folder / distill.DONE_FILE).exists()


def test_a_loss_that_is_not_finite_stops_with_the_images(
    settings: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "focal_loss", lambda logits, *_: logits.sum(dim=1) * float("nan"))
    with pytest.raises(TrainingError, match="SYN_") as caught:
        distill.train(TrainingConfiguration.create(**settings | PLAIN))
    assert caught.value.code == "non_finite_loss"


def test_missing_data_and_leaking_data_are_explained(
    settings: dict, tmp_path: Path, synthetic_data: Path
) -> None:
    with pytest.raises(ConfigurationError, match="DERMADEIT_DATA"):
        distill.train(TrainingConfiguration.create(**settings | {"data": str(tmp_path)}))
    leaking = Path(shutil.copytree(synthetic_data, tmp_path / "leaking"))
    manifest = (leaking / "manifest.csv").read_text()
    (leaking / "manifest.csv").write_text(manifest.replace("SYNL_00001,", "SYNL_00009,"))
    with pytest.raises(TableError, match="SYNL_00009"):
        distill.train(TrainingConfiguration.create(**settings | {"data": str(leaking)}))


def test_the_program_ends_with_a_sentence_and_exit_code_2(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert distill.main(["--data", str(tmp_path)]) == 2
    assert "manifest.csv" in caplog.text
    assert distill.main(["--recipe", "nope"]) == 2


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
    with pytest.raises(TableError, match=first.image_id):
        distill.train(TrainingConfiguration.create(**settings | {"data": str(data)}))


def test_a_split_without_a_class_is_refused(settings: dict, synthetic_data: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(synthetic_data, tmp_path / "lacking"))
    text = (data / "manifest.csv").read_text()
    rows = [row for row in text.splitlines() if not (",SCC," in row and ",validation," in row)]
    (data / "manifest.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(TableError, match="“validation” has no image of the class scc"):
        distill.train(TrainingConfiguration.create(**settings | {"data": str(data), "task": "multiclass"}))


def test_learning_rate_warms_up_then_falls() -> None:
    cosine = OptimisationSettings(epochs=5, warmup_epochs=1)
    factors = [learning_rate_factor(step, cosine, 10) for step in range(51)]
    assert factors[:11] == sorted(factors[:11])
    assert factors[10] == pytest.approx(1)
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[30] == pytest.approx(0.5)
    assert factors[50] == pytest.approx(0)
    step = OptimisationSettings(schedule="step", step_epochs=2, step_factor=0.5, warmup_epochs=0)
    assert [learning_rate_factor(epoch * 10, step, 10) for epoch in range(5)] == [1, 1, 0.5, 0.5, 0.25]


def test_early_layers_learn_slower_and_norms_are_not_decayed(checkpoint_root: Path) -> None:
    configuration = TrainingConfiguration.create(layer_decay=0.5, learning_rate=1.0, alpha=0.5)
    classifier = load_checkpoint(checkpoint_root / "binary" / "dermadeit").classifier
    student = Student(classifier, configuration, spaces=1, teacher_dim=8, teacher_classes=8)
    groups = create_optimizer(student.requires_grad_(True), configuration).param_groups
    rate = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    decay = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    assert rate.keys() == {id(parameter) for parameter in student.parameters()}
    blocks = student.classifier.backbone.blocks
    first, last = blocks[0].mlp.fc1.weight, blocks[-1].mlp.fc1.weight
    assert rate[id(first)] == pytest.approx(rate[id(last)] * 0.5**11)
    assert rate[id(student.classifier.head.weight)] == rate[id(student.projector[0].weight)] == 1
    assert rate[id(student.classifier.backbone.dist_token)] == 1
    assert rate[id(student.classifier.backbone.cls_token)] == pytest.approx(0.5**13)
    assert decay[id(blocks[0].norm1.weight)] == 0
    assert decay[id(last)] == configuration.optimisation.weight_decay
    assert decay[id(student.projector[0].bias)] == 0


def test_accumulated_passes_make_the_step_of_a_whole_batch(settings: dict) -> None:
    # Without chance there is nothing but the order of the images, which both share.
    settings |= STILL | PLAIN | {"epochs": 1, "classification_loss": "cross_entropy"}
    whole = distill.train(
        TrainingConfiguration.create(**settings | {"output": settings["output"] + "-whole"})
    )
    parts = distill.train(TrainingConfiguration.create(**settings | {"accumulation": 4}))
    expected, found = (
        torch.load(folder / "state.pt", weights_only=True)["student"] for folder in (whole, parts)
    )
    configuration = TrainingConfiguration.create(**settings)
    started = loop.Training(configuration, load_manifest(configuration.data)).student.state_dict()
    moved = torch.cat([(value - started[key]).abs().flatten() for key, value in expected.items()]).mean()
    apart = torch.cat([(value - found[key]).abs().flatten() for key, value in expected.items()]).mean()
    # Adam turns the rounding of the smallest gradients into steps, so single weights may differ.
    assert apart < 0.1 * moved


def test_the_warm_up_leaves_no_trace(settings: dict) -> None:
    configuration = TrainingConfiguration.create(**settings | {"model": "mobilenetv2", "teacher": "none"})
    training = loop.Training(configuration, load_manifest(configuration.data))
    before = {key: value.clone() for key, value in training.student.state_dict().items()}
    seconds, memory = training.time_steps()
    assert seconds > 0 and memory > 2**20
    assert all(torch.equal(before[key], value) for key, value in training.student.state_dict().items())
    assert all(parameter.grad is None for parameter in training.student.parameters())
    plan = describe_plan(
        training, load_manifest(configuration.data), seconds_per_pass=1800.0, memory_bytes=2**31
    )
    assert "MobileNetV2" in plan and "none" in plan and "2.0 GiB" in plan
    passes = len(training.loader) * 2
    assert f"about {passes // 2} h" in plan and ("30 min" in plan) == bool(passes % 2)


def test_the_moving_average_is_what_is_saved(settings: dict) -> None:
    folder = distill.train(TrainingConfiguration.create(**settings | PLAIN | {"epochs": 1, "ema_decay": 0.9}))
    state = torch.load(folder / "state.pt", weights_only=True)
    saved = load_file(folder / "model.safetensors")
    for key, value in saved.items():
        assert torch.equal(value, state["ema"][f"classifier.backbone.{key}"].to(value.dtype))
    moved = state["student"]["classifier.backbone.head.weight"].half()
    assert not torch.equal(saved["head.weight"], moved)


def test_a_mixed_image_counts_for_both_of_its_originals(
    settings: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = TrainingConfiguration.create(
        **settings | STILL | {"flip": True, "classification_loss": "cross_entropy", "label_smoothing": 0.0}
    )
    training = loop.Training(configuration, load_manifest(configuration.data))
    training.student.eval()
    asked = []

    def recording(indices: torch.Tensor, views: torch.Tensor, targets=training.targets):
        asked.append((indices.tolist(), views.tolist()))
        return targets(indices, views)

    partner = torch.tensor([2, 0, 1])
    targets = training.targets
    training.targets = recording
    monkeypatch.setattr(loop, "draw_mix", lambda *_: Mix(partner, torch.full((3,), 0.25)))
    pixels, _, indices = next(iter(training.loader))
    pixels, labels, indices = pixels[:3], torch.tensor([0, 1, 1]), indices[:3]
    found = training.losses(pixels, labels, indices)

    # Each image is asked for in the view it was shown in.
    ((own, own_views),) = asked
    assert own == indices.tolist() and set(own_views) <= {0, 4}
    shown = torch.stack([apply_dihedral(image, view) for image, view in zip(pixels, own_views, strict=True)])
    mixed = 0.25 * shown / 255 + 0.75 * shown[partner] / 255
    logits = training.student(training.preprocessing.normalise(mixed)).logits
    expected = 0.25 * F.cross_entropy(logits, labels) + 0.75 * F.cross_entropy(logits, labels[partner])
    assert found["classification_loss"].item() == pytest.approx(expected.item(), rel=1e-4)
    soft = targets(indices, torch.tensor(own_views)).log_probabilities
    parts = [soft_logits_kl(logits, of, configuration.loss.logit_temperature) for of in (soft, soft[partner])]
    assert found["logit_loss"].item() == pytest.approx(
        (0.25 * parts[0] + 0.75 * parts[1]).mean().item(), rel=1e-4
    )


@pytest.mark.parametrize("into", ["answering_head", "distillation_head"])
def test_soft_logits_teach_the_head_that_answers_unless_it_has_a_twin(settings: dict, into: str) -> None:
    changes = {"distil_into": into, "alpha": 0.0, "classification_weight": 0.0, "logit_weight": 1.0}
    configuration = TrainingConfiguration.create(**settings | changes)
    training = loop.Training(configuration, load_manifest(configuration.data))
    training.losses(*next(iter(training.loader)))["loss"].backward()
    backbone = training.student.classifier.backbone
    own, twin = (
        head.weight.grad is not None and bool(head.weight.grad.abs().sum() > 0)
        for head in (backbone.head, backbone.head_dist)
    )
    assert (own, twin) == (into == "answering_head", into == "distillation_head")
    assert backbone.blocks[0].attn.qkv.weight.grad.abs().sum() > 0


def test_label_and_teacher_see_the_logits_under_the_frequencies_of_the_classes(settings: dict) -> None:
    changes = STILL | {
        "flip": False, "classification_loss": "cross_entropy", "class_balancing": "none", "alpha": 0.0,
        "logit_adjustment": 0.5, "label_smoothing": 0.1, "logit_temperature": 1.0,
    }  # fmt: skip
    configuration = TrainingConfiguration.create(**settings | changes)
    training = loop.Training(configuration, load_manifest(configuration.data))
    training.student.eval()
    pixels, labels, indices = next(iter(training.loader))
    found = training.losses(pixels, labels, indices)
    logits = training.student(training.preprocessing.normalise(pixels / 255)).logits
    counts = torch.tensor(list(training.train_split.class_counts.values()), dtype=torch.float32)
    shifted = logits + 0.5 * (counts / counts.sum()).log()
    hard = F.cross_entropy(shifted, labels, label_smoothing=0.1)
    soft = soft_logits_kl(
        shifted, training.targets(indices, torch.zeros_like(indices)).log_probabilities, 1.0
    )
    assert found["classification_loss"].item() == pytest.approx(hard.item(), rel=1e-4)
    assert found["logit_loss"].item() == pytest.approx(soft.mean().item(), rel=1e-4)


def test_the_last_weights_are_kept_unless_the_best_are_wanted(
    settings: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = {}

    def falling(training: loop.Training) -> dict:
        accuracies[training.epoch] = 0.9 - 0.1 * training.epoch
        return {"accuracy": accuracies[training.epoch], "nll": 0.5, "roc_auc": 0.7}

    monkeypatch.setattr(loop.Training, "validate", falling)
    kept = {}
    for keep in ("last", "best"):
        output = tmp_path / keep
        folder = distill.train(
            TrainingConfiguration.create(**settings | PLAIN | {"keep": keep, "output": str(output)})
        )
        record = json.loads((folder / "training.json").read_text())
        kept[keep] = record["best_epoch"]
        assert ("selection_metric" in record) == (keep == "best")
        last = torch.load(folder / "state.pt", weights_only=True)["student"][
            "classifier.backbone.head.weight"
        ]
        saved = load_file(folder / "model.safetensors")["head.weight"]
        assert torch.equal(saved, last.half()) == (keep == "last")
    assert kept == {"last": 2, "best": 1}


def test_hidden_labels_are_not_learnt_from_but_the_teacher_is(
    settings: dict, synthetic_data: Path, tmp_path: Path
) -> None:
    settings |= STILL | {"class_balancing": "none", "classification_loss": "cross_entropy"}
    settings |= {
        "alpha": 0.0,
        "label_share": 0.5,
        "label_smoothing": 0.1,
        "epoch_steps": 3,
        "task": "diagnosis",
    }
    manifest = load_manifest(TrainingConfiguration.create(**settings).data)
    ids = [row.image_id for row in manifest.select("train").rows]
    said = np.log(np.random.default_rng(0).dirichlet(np.ones(8), len(ids)))
    path = tmp_path / "said.npz"
    np.savez(path, image_id=np.array(ids), classes=manifest.task.classes, log_probabilities=said)
    taught = loop.Training(TrainingConfiguration.create(**settings | {"teacher": f"file:{path}"}), manifest)
    plain = loop.Training(TrainingConfiguration.create(**settings | PLAIN), manifest)
    told = [row for row in taught.train_split.rows if row.label]
    assert [row.image_id for row in taught.train_split.rows] == ids
    assert list(plain.train_split.rows) == told and 0 < len(told) < len(ids)
    # Fewer images, as many steps.
    for training in (taught, plain):
        assert training.steps_per_epoch == 3
        assert sum(len(labels) for _, labels, _ in training.loader) == 3 * settings["batch_size"]

    numbers = torch.arange(16)
    dataset = LesionDataset(taught.train_split, taught.preprocessing)
    pixels, labels, _ = collate([dataset[number] for number in range(16)])
    known = labels >= 0
    assert known.any() and not known.all()
    taught.student.eval()
    found = taught.losses(pixels, labels, numbers)
    logits = taught.student(taught.preprocessing.normalise(pixels.float() / 255)).logits
    shifted = logits + 0.5 * torch.log(taught.class_counts / len(told))
    hard = F.cross_entropy(shifted[known], labels[known], label_smoothing=0.1, reduction="sum") / 16
    assert found["classification_loss"].item() == pytest.approx(hard.item(), rel=1e-3)
    assert found["logit_loss"].item() > 0


def test_dinov2_learns_the_eight_diagnoses_by_its_recipe_and_answers_every_task(
    synthetic_data: Path, tmp_path: Path
) -> None:
    # A stand-in for the weights of the Hub, which are of 518 pixels.
    backbone = timm.create_model("vit_small_patch14_dinov2", num_classes=0)
    save_file(backbone.state_dict(), tmp_path / "dinov2.safetensors")
    assert backbone.patch_embed.img_size == (518, 518)
    arguments = [
        "--recipe",
        "dinov2",
        "--data",
        str(synthetic_data),
        "--init",
        str(tmp_path / "dinov2.safetensors"),
    ]
    arguments += ["--image-size", "28", "--epochs", "1", "--output", str(tmp_path / "run")]
    assert distill.main(arguments) == 0
    checkpoint = load_checkpoint(tmp_path / "run")
    assert (checkpoint.model, checkpoint.task.key) == ("dinov2", "diagnosis")
    [record] = Predictor(checkpoint).predict([next((synthetic_data / "images").iterdir())], views=1)
    assert set(record.readings) == {"diagnosis", "malignancy", "binary", "multiclass"}
    assert sum(record.readings["malignancy"].probabilities.values()) == pytest.approx(1)


def test_a_teacher_that_is_asked_about_augmented_images_trains_and_goes_on(
    settings: dict, tmp_path: Path, own_checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [own_checkpoint(f"fold{fold}", folds=2, held_out_fold=fold) for fold in range(2)]
    settings |= {
        "teacher": f"checkpoint:{folders[0]},{folders[1]}", "teacher_views": "augmented", "alpha": 0.0,
        "mixup": 0.4,
    }  # fmt: skip
    whole = distill.train(TrainingConfiguration.create(**settings))
    settings["output"] = str(tmp_path / "interrupted")
    run_epoch = loop.Training.run_epoch

    def killed_in_second_epoch(training: loop.Training) -> dict:
        if training.epoch == 1:
            raise KeyboardInterrupt
        return run_epoch(training)

    monkeypatch.setattr(loop.Training, "run_epoch", killed_in_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        distill.train(TrainingConfiguration.create(**settings))
    monkeypatch.undo()
    resumed = distill.train(TrainingConfiguration.create(**settings))
    expected, found = (load_file(folder / "model.safetensors") for folder in (whole, resumed))
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert not (tmp_path / "teacher_cache").exists()


def test_two_processes_train_as_one(settings: dict, tmp_path: Path) -> None:
    settings |= STILL | {"epochs": 2, "class_balancing": "none"}
    alone = distill.train(TrainingConfiguration.create(**settings))
    (tmp_path / "settings.yaml").write_text(json.dumps(settings | {"output": str(tmp_path / "together")}))
    # What `accelerate launch` starts on several GPUs; on a CPU it only knows MPI.
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    program = str(Path(distill.__file__))
    command = [sys.executable, *launch, program, "--recipe", str(tmp_path / "settings.yaml")]
    subprocess.run(command, check=True, env=os.environ | ONE_THREAD)
    curves = [
        json.loads((folder / "training.json").read_text())["curves"]
        for folder in (alone, tmp_path / "together")
    ]
    for one, two in zip(*curves, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)
        assert two["roc_auc"] == pytest.approx(one["roc_auc"], abs=1e-2)


def test_the_smoke_run_goes_from_teachers_to_test_figures(tmp_path: Path) -> None:
    folder = tmp_path / "smoke"
    assert distill.main(["--smoke", "--device", "cpu", "--output", str(folder)]) == 0
    assert json.loads((folder / "test" / "metrics.json").read_text())["dermadeit"]["n"] > 10
    record = json.loads((folder / "student" / "training.json").read_text())
    assert record["configuration"]["teacher"].count("mobilenetv2@") == 2


def test_the_smoke_run_never_mixes_with_what_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    assert distill.main(["--smoke", "--device", "cpu", "--output", str(tmp_path)]) == 2
    assert "not empty" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_processes_that_a_launcher_lost_are_noticed() -> None:
    asked_for_two = {"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1"}
    with pytest.raises(ConfigurationError, match="torchrun"):
        refuse_lost_processes(asked_for_two)
    for environment in ({}, {"ACCELERATE_USE_CPU": "True"}, asked_for_two | {"WORLD_SIZE": "2"}):
        refuse_lost_processes(environment)
