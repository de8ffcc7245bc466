"""Every model behind one interface; weights from files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from dermadeit.errors import ConfigurationError, ModelError
from dermadeit.imaging.preprocessing import Preprocessing
from dermadeit.models.checkpoints import save_checkpoint
from dermadeit.models.classifier import create_classifier
from dermadeit.models.specs import MODEL_SPECS, get_spec
from dermadeit.tasks import get_task


@pytest.mark.parametrize("name", MODEL_SPECS)
def test_every_architecture_and_its_weights_are_known_to_timm(name: str) -> None:
    spec = MODEL_SPECS[name]
    assert spec.architecture in timm.list_models(spec.architecture)
    assert spec.pretrained in timm.list_pretrained(spec.pretrained)


@pytest.mark.parametrize("name", MODEL_SPECS)
def test_pixels_are_normalised_as_the_weights_at_the_start_are_used_to(name: str) -> None:
    config = timm.get_pretrained_cfg(MODEL_SPECS[name].pretrained)
    preprocessing = create_classifier(name, 2).backbone.pretrained_cfg
    assert (preprocessing["mean"], preprocessing["std"]) == (config.mean, config.std)


@pytest.mark.parametrize(
    ("name", "size"),
    [("dermadeit", 64), ("deit", 64), ("mobilenetv2", 64), ("efficientnetv2-b0", 64), ("dinov2", 56)],
)
def test_logits_are_the_head_of_the_class_embedding_and_reach_the_pixels(name: str, size: int) -> None:
    classifier = create_classifier(name, 3, image_size=size).eval()
    images = torch.rand(2, 3, size, size, requires_grad=True)
    logits = classifier(images)
    class_embedding, distillation_embedding = classifier.embed(images)
    assert class_embedding.shape == distillation_embedding.shape == (2, classifier.embedding_dim)
    torch.testing.assert_close(logits, classifier.head(class_embedding))
    logits.sum().backward()
    assert images.grad.abs().sum() > 0


def test_class_and_distillation_token_are_the_first_two() -> None:
    classifier = create_classifier("dermadeit", 2, image_size=64).eval()
    images = torch.rand(1, 3, 64, 64)
    tokens = classifier.backbone.forward_features(images)
    assert tokens.shape == (1, 2 + 16, 192)
    class_embedding, distillation_embedding = classifier.embed(images)
    assert torch.equal(class_embedding, tokens[:, 0])
    assert torch.equal(distillation_embedding, tokens[:, 1])
    assert not torch.equal(class_embedding, distillation_embedding)


def test_plain_weights_start_the_distilled_twin_at_another_size(tmp_path: Path) -> None:
    plain = timm.create_model("deit_tiny_patch16_224", num_classes=7)
    save_file(plain.state_dict(), tmp_path / "plain.safetensors")
    distilled = create_classifier("dermadeit", 2, image_size=64, init=tmp_path / "plain.safetensors").backbone
    torch.testing.assert_close(distilled.blocks[3].mlp.fc1.weight, plain.blocks[3].mlp.fc1.weight)
    # As a copy of the class token it would answer what that answers, whatever it is taught.
    assert (distilled.dist_token - plain.cls_token).norm() > 0.1 * plain.cls_token.norm()
    assert distilled.pos_embed.shape == (1, 2 + 16, 192)
    torch.testing.assert_close(distilled.pos_embed[:, 0], plain.pos_embed[:, 0])
    torch.testing.assert_close(distilled.pos_embed[:, 1], plain.pos_embed[:, 0])


def test_a_checkpoint_goes_on_at_a_higher_resolution_with_its_head(tmp_path: Path) -> None:
    first = create_classifier("dermadeit", 2, image_size=64)
    torch.nn.init.ones_(first.backbone.head.weight)
    save_checkpoint(tmp_path, first, get_task("binary"), Preprocessing(64))
    second = create_classifier("dermadeit", 2, image_size=96, init=tmp_path / "model.safetensors").backbone
    assert second.pos_embed.shape == (1, 2 + 36, 192)
    assert (second.head.weight == 1).all()
    assert (second.head_dist.weight != 0).any()
    torch.testing.assert_close(second.dist_token, first.backbone.dist_token, atol=1e-3, rtol=1e-2)
    # A head of other classes is a new one.
    third = create_classifier("dermadeit", 3, image_size=64, init=tmp_path / "model.safetensors").backbone
    assert third.head.weight.shape == (3, 192) and not (third.head.weight == 1).any()


def test_weights_of_another_model_are_refused_by_name(tmp_path: Path) -> None:
    other = timm.create_model("mobilenetv2_100", num_classes=2)
    save_file(other.state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match=r"other\.safetensors.*EfficientNetV2-B0") as caught:
        create_classifier("efficientnetv2-b0", 2, init=tmp_path / "other.safetensors")
    assert caught.value.code == "weights_do_not_fit"


@pytest.mark.parametrize("content", [None, b"", b"not safetensors at all"])
def test_unreadable_weights_are_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "weights.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"weights\.safetensors"):
        create_classifier("deit", 2, image_size=64, init=path)


def test_a_size_that_patches_do_not_tile_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="multiple of 16, not 100"):
        create_classifier("dermadeit", 2, image_size=100)


def test_unknown_model_names_the_known_ones() -> None:
    with pytest.raises(ModelError, match="dermadeit-small"):
        get_spec("resnet")


@pytest.mark.parametrize("name", MODEL_SPECS)
def test_parameters_are_counted_without_building(name: str) -> None:
    with torch.device("meta"):
        built = create_classifier(name, 3)
    assert get_spec(name).count_parameters(3) == sum(part.numel() for part in built.parameters())
    assert get_spec(name).embedding_dim == built.embedding_dim


@pytest.mark.slow
def test_hub_weights_come_from_the_hub_cache_and_an_unreachable_hub_names_the_way_out(tmp_path: Path) -> None:
    # A stand-in with the layout of the real cache: the hub itself is not asked.
    repo = tmp_path / "hub" / "models--timm--vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    snapshot = repo / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc")
    original = timm.create_model("vit_tiny_patch16_224")
    save_file(original.state_dict(), snapshot / "model.safetensors")
    program = (
        "from dermadeit.errors import ModelError\n"
        "from dermadeit.models.classifier import create_classifier\n"
        "backbone = create_classifier('dermadeit', 2, image_size=64, init='hub').backbone\n"
        "print(backbone.cls_token.sum().item(), backbone.pos_embed.shape[1], backbone.head.out_features)\n"
        "try:\n    create_classifier('dinov2', 2, init='hub')\n"
        "except ModelError as error:\n    print(error.code, error.user_message)"
    )
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    environment.pop("HF_HUB_CACHE", None)
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    from_cache, unreachable = done.stdout.split("\n", 1)
    token_sum, positions, classes = from_cache.split()
    assert float(token_sum) == pytest.approx(original.cls_token.sum().item(), abs=1e-5)
    assert (positions, classes) == ("18", "2")
    assert "weights_unreachable" in unreachable
    assert "local file" in unreachable


def test_a_distilled_checkpoint_is_no_start_for_a_plain_network(tmp_path: Path) -> None:
    distilled = create_classifier("dermadeit", 2, image_size=64)
    save_checkpoint(tmp_path, distilled, get_task("binary"), Preprocessing(64))
    with pytest.raises(ModelError, match="does not have the weights of DeiT") as caught:
        create_classifier("deit", 2, image_size=96, init=tmp_path / "model.safetensors")
    assert caught.value.code == "weights_do_not_fit"


def test_missing_weights_are_called_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="There is no weights file"):
        create_classifier("deit", 2, image_size=64, init=tmp_path / "nowhere.safetensors")
