"""Grad-CAM held against the grad-cam library, and shared between threads."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from dermadeit.checkpoints import load_checkpoint, save_checkpoint
from dermadeit.errors import TaskError
from dermadeit.imaging import decode_image
from dermadeit.models import create_classifier
from dermadeit.predictor import Predictor, load_predictor
from dermadeit.preprocessing import Preprocessing
from dermadeit.saliency import SaliencyMap, grad_cam
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


@pytest.mark.parametrize("model", ["dermadeit", "mobilenetv2"])
def test_threads_never_get_each_others_map(
    checkpoint_root: Path, lesion_files: list[Path], model: str
) -> None:
    predictor = load_predictor("binary", model, root=checkpoint_root)
    images = [decode_image(path) for path in lesion_files]
    expected = [grad_cam(predictor, image, "others").values for image in images]
    with ThreadPoolExecutor(4) as pool:
        maps = list(pool.map(lambda image: grad_cam(predictor, image, "others").values, images * 7))
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
