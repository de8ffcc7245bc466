"""Grad-CAM held against the grad-cam library, rollout against explicit attention, both shared between threads."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from dermadeit.errors import ModelError, TaskError
from dermadeit.imaging.decode import decode_image
from dermadeit.imaging.preprocessing import Preprocessing
from dermadeit.inference.predictor import Predictor, load_predictor
from dermadeit.inference.saliency import (
    SALIENCY_METHODS,
    SaliencyMap,
    attention_rollout,
    default_method,
    explain_every_class,
    grad_cam,
    grad_sam,
)
from dermadeit.models.checkpoints import load_checkpoint, save_checkpoint
from dermadeit.models.classifier import create_classifier
from dermadeit.tasks import get_task


def _library_cam(predictor: Predictor, batch: torch.Tensor, index: int) -> np.ndarray:
    """The library's raw map of a transformer, before it is scaled and enlarged: [h, w]."""
    classifier = predictor.checkpoint.classifier
    prefix, (height, width) = classifier.backbone.num_prefix_tokens, classifier.backbone.patch_embed.grid_size
    layer = classifier.backbone.blocks[-1].norm1

    def to_map(tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, prefix:].unflatten(1, (height, width)).permute(0, 3, 1, 2)

    with GradCAM(classifier, [layer], reshape_transform=to_map) as cam:
        cam(batch.requires_grad_(True), [ClassifierOutputTarget(index)])
        activations = cam.activations_and_grads.activations[0].numpy()
        gradients = cam.activations_and_grads.gradients[0].numpy()
        return cam.get_cam_image(batch, layer, [ClassifierOutputTarget(index)], activations, gradients)[0]


@pytest.mark.parametrize("class_key", ["mel", "bcc", "scc"])
def test_equals_the_library_on_a_distilled_transformer(
    predictors: dict[str, Predictor], lesion_files: list[Path], class_key: str
) -> None:
    predictor = predictors["multiclass"]
    image = decode_image(lesion_files[0])
    batch = predictor.checkpoint.preprocessing(image.pixels)[None]
    expected = np.maximum(_library_cam(predictor, batch, predictor.checkpoint.task.index_of(class_key)), 0)
    ours = grad_cam(predictor, image, class_key)
    assert ours.values.shape == (4, 4)
    spread = np.ptp(expected)
    assert spread > 0
    np.testing.assert_allclose(ours.values, (expected - expected.min()) / spread, atol=1e-4)


@pytest.mark.parametrize(("name", "size"), [("deit", 64), ("dinov2", 56)])
def test_equals_the_library_on_transformers_with_one_prefix_token(
    lesion_files: list[Path], tmp_path: Path, name: str, size: int
) -> None:
    task = get_task("binary")
    torch.manual_seed(0)
    save_checkpoint(tmp_path, create_classifier(name, 2, image_size=size), task, Preprocessing(size))
    predictor = Predictor(load_checkpoint(tmp_path))
    image = decode_image(lesion_files[0])
    batch = predictor.checkpoint.preprocessing(image.pixels)[None]
    expected = np.maximum(_library_cam(predictor, batch, 1), 0)
    ours = grad_cam(predictor, image, "others").values
    np.testing.assert_allclose(ours, (expected - expected.min()) / np.ptp(expected), atol=1e-4)


def test_explains_the_predicted_class_unless_asked_otherwise(
    predictors: dict[str, Predictor], lesion_files: list[Path]
) -> None:
    predictor = predictors["multiclass"]
    image = decode_image(lesion_files[0])
    [prediction] = predictor.predict([image], views=1)
    assert grad_cam(predictor, image).class_key == prediction.label
    maps = {key: grad_cam(predictor, image, key).values for key in ("mel", "bcc", "scc")}
    assert not np.allclose(maps["mel"], maps["bcc"])
    with pytest.raises(TaskError, match="nevus"):
        grad_cam(predictor, image, "nevus")


def test_convolutional_networks_get_a_map_too(checkpoint_root: Path, lesion_files: list[Path]) -> None:
    predictor = load_predictor("binary", "mobilenetv2", root=checkpoint_root)
    saliency = grad_cam(predictor, decode_image(lesion_files[0]), "others")
    assert saliency.values.shape == (64, 64)
    assert (saliency.values.min(), saliency.values.max()) == (0, pytest.approx(1))
    assert all(not module._forward_hooks for module in predictor.checkpoint.classifier.modules())


def _rollout_by_hand(predictor: Predictor, batch: torch.Tensor) -> np.ndarray:
    """Share of each patch in the class token, token by token, from what each block's attention layer is given."""
    backbone = predictor.checkpoint.classifier.backbone
    given: list[torch.Tensor] = []
    hooks = [
        block.attn.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
        for block in backbone.blocks
    ]
    with torch.no_grad():
        predictor.checkpoint.classifier(batch)
    for hook in hooks:
        hook.remove()
    shares = None
    for block, tokens in zip(backbone.blocks, given, strict=True):
        layer, dim = block.attn, tokens.shape[-1]
        weight, bias = layer.qkv.weight.detach().numpy(), layer.qkv.bias.detach().numpy()
        projected = tokens[0].numpy().astype(float) @ weight.T + bias
        width = dim // layer.num_heads
        attention = np.zeros((len(projected), len(projected)))
        for head in range(layer.num_heads):
            queries = projected[:, head * width : (head + 1) * width]
            keys = projected[:, dim + head * width : dim + (head + 1) * width]
            exponentials = np.exp(queries @ keys.T / np.sqrt(width))
            attention += exponentials / exponentials.sum(axis=1, keepdims=True) / layer.num_heads
        shares = np.eye(len(projected)) if shares is None else shares
        shares = [
            0.5 * row + 0.5 * (weights @ shares) for row, weights in zip(shares, attention, strict=True)
        ]
        shares = np.array(shares)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    return shares[0, backbone.num_prefix_tokens :].reshape(backbone.patch_embed.grid_size)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("dermadeit", 64), ("deit", 64), ("dinov2", 56)])
def test_rollout_equals_the_product_of_explicit_attention(
    lesion_files: list[Path], tmp_path: Path, name: str, size: int
) -> None:
    torch.manual_seed(0)
    classifier = create_classifier(name, 2, image_size=size)
    with torch.no_grad():
        # Small random weights attend everywhere alike; larger ones make a choice.
        for block in classifier.backbone.blocks:
            block.attn.qkv.weight.mul_(8)
    save_checkpoint(tmp_path, classifier, get_task("binary"), Preprocessing(size))
    predictor = Predictor(load_checkpoint(tmp_path))
    image = decode_image(lesion_files[0])
    expected = _rollout_by_hand(predictor, predictor.checkpoint.preprocessing(image.pixels)[None])
    ours = attention_rollout(predictor, image).values
    assert ours.shape == (4, 4)
    np.testing.assert_allclose(ours, (expected - expected.min()) / np.ptp(expected), atol=1e-3)


def _grad_sam_by_hand(predictor: Predictor, batch: torch.Tensor, index: int) -> np.ndarray:
    """From timm's own attention, with its weights caught where it drops none of them: [h, w]."""
    classifier, caught = predictor.checkpoint.classifier, []
    handles = []
    for block in classifier.backbone.blocks:
        block.attn.fused_attn = False
        handles.append(
            block.attn.attn_drop.register_forward_hook(
                lambda _module, _given, weights: caught.append(weights)
            )
        )
    classifier.requires_grad_(True)
    score = classifier(batch)[0, index]
    gradients = torch.autograd.grad(score, caught)
    for handle in handles:
        handle.remove()
    prefix = classifier.backbone.num_prefix_tokens
    total = sum(
        weights.detach()[0, :, 0, prefix:] * gradient[0, :, 0, prefix:].clamp(min=0)
        for weights, gradient in zip(caught, gradients, strict=True)
    )
    return total.sum(dim=0).view(classifier.backbone.patch_embed.grid_size).numpy()


@pytest.mark.parametrize(("name", "size"), [("dermadeit", 64), ("dinov2", 56)])
def test_grad_sam_equals_the_attention_of_timm_times_its_gradient(
    lesion_files: list[Path], tmp_path: Path, name: str, size: int
) -> None:
    torch.manual_seed(0)
    classifier = create_classifier(name, 2, image_size=size)
    save_checkpoint(tmp_path, classifier, get_task("binary"), Preprocessing(size))
    predictor = Predictor(load_checkpoint(tmp_path))
    image = decode_image(lesion_files[0])
    maps = explain_every_class(predictor, image)
    assert default_method(predictor) == "grad-sam"
    for index, (key, found) in enumerate(maps.items()):
        assert (found.class_key, found.method) == (key, "Grad-SAM")
        expected = _grad_sam_by_hand(predictor, predictor.checkpoint.preprocessing(image.pixels)[None], index)
        np.testing.assert_allclose(found.values, (expected - expected.min()) / np.ptp(expected), atol=1e-3)
    assert not np.allclose(maps["nevus"].values, maps["others"].values)


def test_rollout_names_a_class_but_does_not_depend_on_it(
    predictors: dict[str, Predictor], lesion_files: list[Path]
) -> None:
    predictor = predictors["multiclass"]
    image = decode_image(lesion_files[0])
    [prediction] = predictor.predict([image], views=1)
    maps = {key: attention_rollout(predictor, image, key) for key in (None, "mel", "bcc", "scc")}
    assert [saliency.class_key for saliency in maps.values()] == [prediction.label, "mel", "bcc", "scc"]
    assert all((saliency.values == maps[None].values).all() for saliency in maps.values())
    with pytest.raises(TaskError, match="nevus"):
        attention_rollout(predictor, image, "nevus")


def test_rollout_is_refused_without_attention(checkpoint_root: Path, lesion_files: list[Path]) -> None:
    predictor = load_predictor("binary", "mobilenetv2", root=checkpoint_root)
    with pytest.raises(ModelError, match="Ask for Grad-CAM"):
        attention_rollout(predictor, decode_image(lesion_files[0]))
    with pytest.raises(ModelError, match="Ask for Grad-CAM"):
        grad_sam(predictor, decode_image(lesion_files[0]))
    assert default_method(predictor) == "grad-cam"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "model"),
    [
        ("grad-sam", "dermadeit"),
        ("grad-cam", "dermadeit"),
        ("grad-cam", "mobilenetv2"),
        ("attention-rollout", "dermadeit"),
    ],
)
def test_threads_never_get_each_others_map(
    checkpoint_root: Path, lesion_files: list[Path], method: str, model: str
) -> None:
    explain = SALIENCY_METHODS[method]
    predictor = load_predictor("binary", model, root=checkpoint_root)
    images = [decode_image(path) for path in lesion_files]
    expected = [explain(predictor, image, "others").values for image in images]
    with ThreadPoolExecutor(4) as pool:
        maps = list(pool.map(lambda image: explain(predictor, image, "others").values, images * 7))
    for index, values in enumerate(maps):
        np.testing.assert_allclose(values, expected[index % len(images)], atol=1e-4)


def test_overlay_blends_from_photo_to_map() -> None:
    image = decode_image(Image.new("RGB", (80, 64), (10, 20, 30)))
    saliency = SaliencyMap(np.array([[0.0, 1.0]], dtype=np.float32), "mel", "Grad-CAM")
    assert (saliency.overlay(image, 0) == image.pixels).all()
    full = saliency.overlay(image, 1).astype(int)
    assert full.shape == (64, 80, 3)
    # Viridis runs from dark violet to yellow.
    assert full[32, 2].tolist() == pytest.approx([68, 1, 84], abs=12)
    assert full[32, 77].tolist() == pytest.approx([253, 231, 37], abs=12)
    half = saliency.overlay(image, 0.5).astype(int)
    np.testing.assert_allclose(half, (image.pixels + full) / 2, atol=1)
