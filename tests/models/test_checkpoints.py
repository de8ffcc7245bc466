"""Checkpoints survive a round trip exactly, open in timm, and are refused when something is off."""

import json
import shutil
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from dermadeit.errors import CheckpointError
from dermadeit.imaging.preprocessing import Preprocessing
from dermadeit.models.checkpoints import find_checkpoint, load_checkpoint, save_checkpoint
from dermadeit.models.classifier import create_classifier
from dermadeit.tasks import get_task


@pytest.fixture
def folder(checkpoint_root: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(checkpoint_root / "binary" / "dermadeit", tmp_path / "copy"))


def _edit_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["dermadeit"] |= changes
    (folder / "config.json").write_text(json.dumps(config))


def test_saved_weights_come_back_exactly(tmp_path: Path) -> None:
    task, preprocessing = get_task("multiclass"), Preprocessing(64, std=(0.5, 0.5, 0.5))
    classifier = create_classifier("mobilenetv2", 3, image_size=64).eval()
    classifier.backbone.half().float()
    images = torch.rand(2, 3, 64, 64)
    save_checkpoint(tmp_path, classifier, task, preprocessing)
    checkpoint = load_checkpoint(tmp_path, task="multiclass")
    assert torch.equal(checkpoint.classifier(images), classifier(images))
    assert checkpoint.preprocessing == preprocessing
    assert (checkpoint.model, checkpoint.task) == ("mobilenetv2", task)
    stored = load_file(tmp_path / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values() if tensor.is_floating_point()} == {torch.float16}


def test_counters_of_batch_norms_are_not_halved(tmp_path: Path) -> None:
    classifier = create_classifier("mobilenetv2", 2, image_size=64)
    classifier.backbone.bn1.num_batches_tracked.fill_(70_000)
    save_checkpoint(tmp_path, classifier, get_task("binary"), Preprocessing(64))
    assert load_checkpoint(tmp_path).classifier.backbone.bn1.num_batches_tracked == 70_000


@pytest.mark.parametrize("value", [float("nan"), 1e6])
def test_weights_that_float16_cannot_hold_are_refused(folder: Path, value: float) -> None:
    classifier = create_classifier("dermadeit", 2, image_size=64)
    with torch.no_grad():
        classifier.head.bias[0] = value
    with pytest.raises(CheckpointError, match=r"head\.bias"):
        save_checkpoint(folder, classifier, get_task("binary"), Preprocessing(64))
    assert load_checkpoint(folder)


def test_timm_opens_the_folder_and_decides_alike(checkpoint_root: Path) -> None:
    folder = checkpoint_root / "binary" / "dermadeit"
    ours = load_checkpoint(folder).classifier
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = torch.rand(2, 3, 64, 64)
    # timm averages both heads, and the distillation head is zero.
    torch.testing.assert_close(theirs(images), ours(images) / 2)
    assert theirs.pretrained_cfg["label_names"] == ["nevus", "others"]
    assert theirs.pretrained_cfg["crop_mode"] == "squash"


@pytest.mark.parametrize("kept", [0, 100, -1])
def test_truncated_weights_are_refused(folder: Path, kept: int) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="truncated or was altered") as caught:
        load_checkpoint(folder)
    assert caught.value.code == "wrong_hash"


def test_altered_weights_are_refused(folder: Path) -> None:
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder)
    assert caught.value.code == "wrong_hash"


def test_weights_of_another_task_are_refused(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="“binary”, not “multiclass”") as caught:
        load_checkpoint(folder, task="multiclass")
    assert caught.value.code == "wrong_task"


def test_missing_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_checkpoint(folder)


@pytest.mark.parametrize("name", ["model.pth", "pytorch_model.bin"])
def test_pickles_are_refused_unopened(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(CheckpointError, match="can run code") as caught:
        load_checkpoint(tmp_path)
    assert caught.value.code == "pickle_refused"


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "{}", '{"dermadeit": [1]}', '{"dermadeit": {"format": 1}}',
        '{"dermadeit": {"format": 1, "model": "x", "task": "binary", "classes": [], "weights_sha256": ""}}',
    ],
)  # fmt: skip
def test_damaged_configurations_are_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    "changes", [{"format": 99}, {"classes": ["others", "nevus"]}, {"model": "mobilenetv2"}]
)
def test_a_configuration_of_something_else_is_refused(folder: Path, changes: dict) -> None:
    _edit_config(folder, **changes)
    with pytest.raises(CheckpointError):
        load_checkpoint(folder)


def test_a_configuration_cannot_make_timm_open_another_file(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["model_args"]["checkpoint_path"] = str(tmp_path / "evil.pth")
    (folder / "config.json").write_text(json.dumps(config))
    assert load_checkpoint(folder).preprocessing.size == 64


@pytest.mark.parametrize("input_size", [[32], [3, 64, "64"], None])
def test_a_damaged_input_size_is_refused(folder: Path, input_size: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"]["input_size"] = input_size
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError):
        load_checkpoint(folder)


def test_a_missing_checkpoint_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"train/distill\.py --recipe dinov2 --task binary") as caught:
        find_checkpoint("binary", "dinov2", tmp_path)
    assert caught.value.code == "no_checkpoint"


def test_a_full_disk_leaves_the_old_checkpoint_usable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dermadeit.models.checkpoints.save_file", fail)
    before = load_checkpoint(folder).weights_sha256
    classifier = create_classifier("dermadeit", 2, image_size=64)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(folder, classifier, get_task("binary"), Preprocessing(64))
    assert load_checkpoint(folder).weights_sha256 == before
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_killed_between_configuration_and_weights_keeps_the_old_checkpoint(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_checkpoint(folder).weights_sha256
    replace = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if Path(target).name == "model.safetensors":
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    classifier = create_classifier("dermadeit", 2, image_size=64)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(folder, classifier, get_task("binary"), Preprocessing(64))
    monkeypatch.undo()
    assert load_checkpoint(folder).weights_sha256 == before
    save_checkpoint(folder, classifier, get_task("binary"), Preprocessing(64))
    assert load_checkpoint(folder).weights_sha256 != before
